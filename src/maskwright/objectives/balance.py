"""Losses balanced without weights found by hand: three ways, each a wrapper that fits any model.

All three give ``factor * loss`` under the loss's own name (learned uncertainty adds its price of doubt to it). Factors
stand still within a step and what they are changed by is joined over its micro-batches as the losses themselves are,
so gradient accumulation stays exactly the large batch. Their state lies in parameters and buffers, hence in
checkpoints; without ``after_step`` nothing but learned uncertainty changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.objectives.wrapper import Losses, StepSums, Wrapper, count_vector
from maskwright.protocols import Objective
from maskwright.structures import Batch


class Balanced(Wrapper):
    """What the three share: the names of the K losses, in the order of their factors.

    Args:
        inner: the objective whose losses are balanced.
        terms: the losses' names; asked of ``inner`` when absent.
    """

    def __init__(self, inner: Objective | nn.Module, terms: Sequence[str] | None = None) -> None:
        super().__init__(inner)
        self.names = tuple(terms) if terms is not None else super().terms()
        if len(self.names) < 2:
            raise InputError(f"balancing needs two losses or more, but the model has only {', '.join(self.names)}.")
        self.register_load_state_dict_post_hook(lambda module, _: module.discard())

    def factors(self) -> Tensor:
        """What each loss is multiplied by now, float [K]."""
        raise NotImplementedError

    def named_factors(self) -> dict[str, float]:
        """What each loss is multiplied by now, by name; for a log."""
        return dict(zip(self.names, self.factors().detach().cpu().tolist(), strict=True))

    def ordered(self, losses: Losses) -> list[Tensor]:
        """The losses in the order of ``names``."""
        if set(losses) != set(self.names):
            raise InputError(
                f"the losses to balance must stay the same, {', '.join(self.names)}; got {', '.join(losses)}."
            )
        return [losses[name] for name in self.names]


class Uncertainty(Balanced):
    """Each loss in units of its own learned noise (Kendall, Gal, Cipolla 2018, arXiv:1705.07115, equation 10).

    With ``s`` the logarithm of a loss's variance, it becomes ``exp(-s) * loss + s / 2``, least where the factor is
    ``1 / (2 * loss)``. The paper has half that factor for regressions, which is the same with ``s`` shifted by log 2
    (and the sum by a constant), so that nobody need say which losses regress. ``s`` starts at 0 and is learned by the
    run's optimizer. A loss for which a step has nothing to count leaves its ``s`` alone.
    """

    def __init__(self, inner: Objective | nn.Module, terms: Sequence[str] | None = None) -> None:
        super().__init__(inner, terms)
        self.log_variance = nn.Parameter(torch.zeros(len(self.names)))

    def factors(self) -> Tensor:
        """``exp(-s)`` [K]."""
        return torch.exp(-self.log_variance)

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses in units of their noise; negative where they are small."""
        losses, counts = super().counted(batch)
        out: Losses = {}
        for name, loss, s in zip(self.names, self.ordered(losses), self.log_variance, strict=True):
            price = s / 2
            if name in counts:  # of a micro-batch without any, the share in its step is 0, unless all are
                price = price * (counts[name].detach() > 0).to(price)
            out[name] = torch.exp(-s) * loss.float() + price
        return out, counts


class DynamicAverage(Balanced):
    """Losses that fall slowly weigh more (Liu, Johns, Davison 2019, arXiv:1803.10704, section 3.2).

    The factor is ``K * softmax(r / temperature)``, with ``r`` the mean of a loss over the last window of steps by that
    over the one before; 1 in the first two windows. The paper's window is an epoch.

    Args:
        every: steps in a window.
        temperature: the softmax's; 2 in the paper. Larger ones are closer to equal factors.
    """

    recent: Tensor
    earlier: Tensor
    running: Tensor
    steps: Tensor
    factor: Tensor

    def __init__(
        self,
        inner: Objective | nn.Module,
        terms: Sequence[str] | None = None,
        *,
        every: int = 100,
        temperature: float = 2.0,
    ) -> None:
        super().__init__(inner, terms)
        if every < 1 or not temperature > 0:
            raise InputError(f"every must be 1 or more and temperature above 0, got {every} and {temperature}.")
        self.every, self.temperature = every, temperature
        count = len(self.names)
        for name in ("recent", "earlier", "running"):  # -1 in the first two: not known yet
            self.register_buffer(name, torch.full((count,), 0.0 if name == "running" else -1.0))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("factor", torch.ones(count))
        self._gathered = StepSums()

    def factors(self) -> Tensor:
        """``K * softmax(r / temperature)`` [K]."""
        return self.factor

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses times their factors."""
        losses, counts = super().counted(batch)
        values = torch.stack([loss.float() for loss in self.ordered(losses)])
        if torch.is_grad_enabled():  # not where micro-batches are only counted
            self._gathered.add(values, count_vector(counts, self.names, values))
        return {
            name: losses[name] * factor for name, factor in zip(self.names, self.factor.clone(), strict=True)
        }, counts

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take the step's losses into the window, and close it when it is full."""
        super().after_step(step)
        values = self._gathered.mean()
        self._gathered.clear()
        if values is None:
            return
        self.running += values
        self.steps += 1
        full = self.steps % self.every == 0
        self.earlier.copy_(torch.where(full, self.recent, self.earlier))
        self.recent.copy_(torch.where(full, self.running / self.every, self.recent))
        self.running.copy_(torch.where(full, torch.zeros_like(self.running), self.running))
        known = (self.earlier > 0) & (self.recent >= 0)
        ratio = torch.where(known, self.recent / self.earlier.clamp(min=1e-12), 1.0)
        self.factor.copy_(len(self.names) * torch.softmax(ratio / self.temperature, 0))

    def discard(self) -> None:
        """Forget the step in progress."""
        super().discard()
        self._gathered.clear()
