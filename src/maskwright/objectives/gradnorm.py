"""GradNorm: losses pull equally hard at the last layer they share, harder where they learn slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.objectives.balance import Balanced
from maskwright.objectives.wrapper import Losses, StepSums, count_vector
from maskwright.protocols import Objective
from maskwright.structures import Batch


class GradNorm(Balanced):
    """Chen, Badrinarayanan, Lee, Rabinovich 2018, arXiv:1711.02257, algorithm 1.

    A loss's pull is the norm of its weighted gradient on the weights of the last shared layer. Its target is the mean
    pull times ``r ** alpha``, with ``r`` how slowly the loss falls against the others: its ratio to its first value,
    over the mean of those ratios. After each step factors move down the distance to the targets (equation 2) and are
    scaled so that their sum stays K.

    The layer is found from the graph: of the weights that all losses' gradients reach, the one that was used last. The
    search waits for a batch on which no loss is 0. Each step costs a backward pass a loss, from its end to that layer.

    Differences: that move is a plain gradient step, in units of the mean pull, so that ``rate`` does not depend on the
    losses' size; a loss without a gradient in some step (no object) has no part in it.

    Args:
        alpha: strength of the asymmetry; 0 wants equal pulls (the paper takes 0.12 to 1.5).
        rate: learning rate of the factors (the paper's 0.025).
    """

    factor: Tensor
    first: Tensor
    layer: Tensor

    def __init__(
        self,
        inner: Objective | nn.Module,
        terms: Sequence[str] | None = None,
        *,
        alpha: float = 1.5,
        rate: float = 0.025,
    ) -> None:
        super().__init__(inner, terms)
        if not (alpha >= 0 and rate > 0):
            raise InputError(f"alpha must be 0 or more and rate above 0, got {alpha} and {rate}.")
        self.alpha, self.rate = alpha, rate
        count = len(self.names)
        self.register_buffer("factor", torch.ones(count))
        self.register_buffer("first", torch.zeros(count))
        self.register_buffer("layer", torch.tensor(-1))
        self._losses, self._gradients = StepSums(), StepSums()
        self._found = -1
        self._known = -1
        self.register_load_state_dict_post_hook(_unknown)

    def factors(self) -> Tensor:
        """Their sum is K."""
        return self.factor

    def shared_layer(self) -> str | None:
        """The name of the weights at which pulls are measured; ``None`` before they are found."""
        number = self._number()
        return None if number < 0 else list(dict(self.model.named_parameters()))[number]

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses times their factors; in training their pulls are measured on the way."""
        losses, counts = super().counted(batch)
        ordered = self.ordered(losses)
        if torch.is_grad_enabled():  # not where micro-batches are only counted
            values = torch.stack([loss.detach().float() for loss in ordered])
            vector = count_vector(counts, self.names, values)
            self._losses.add(values, vector)
            self._measure(ordered, vector)
        return {
            name: losses[name] * factor for name, factor in zip(self.names, self.factor.clone(), strict=True)
        }, counts

    def _measure(self, losses: list[Tensor], counts: Tensor) -> None:
        parameters = list(self.model.parameters())
        number = self._number()
        if number < 0:
            if self._found < 0 and all(float(loss.detach()) > 0 for loss in losses):
                self._found = last_shared(losses, parameters)
            return
        self._gradients.add(torch.stack(gradients(losses, parameters[number])), counts)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the factors."""
        super().after_step(step)
        values, pulls = self._losses.mean(), self._gradients.mean() if self._number() >= 0 else None
        if self._number() < 0:
            self.layer.copy_(_agreed(self._found, self.layer.device))
        self.discard()
        if values is None:
            return
        self.first.copy_(torch.where(self.first > 0, self.first, values))
        if pulls is not None:
            self._move(values, pulls.flatten(1).norm(dim=1))

    def _number(self) -> int:
        if self._known < 0:  # once known, the device is not asked again
            self._known = int(self.layer)
        return self._known

    def _move(self, values: Tensor, norms: Tensor) -> None:
        there = (norms > 0) & (self.first > 0)
        number = there.sum().clamp(min=1)
        pulls = self.factor * norms
        mean = (pulls * there).sum() / number
        fallen = torch.where(there, values / self.first.clamp(min=1e-12), 0.0)
        pace = fallen / (fallen.sum() / number).clamp(min=1e-12)
        target = mean * pace**self.alpha
        slope = torch.sign(pulls - target) * norms / mean.clamp(min=1e-12) * there
        moved = (self.factor - self.rate * slope).clamp(min=1e-3)
        self.factor.copy_(moved * len(self.names) / moved.sum())

    def discard(self) -> None:
        """Forget the step in progress."""
        super().discard()
        self._losses.clear()
        self._gradients.clear()
        self._found = -1


def _unknown(module: nn.Module, _keys: object) -> None:
    cast(GradNorm, module)._known = -1


def gradients(losses: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """Each loss's gradient on ``weights``; zeros where it has none. The graph stays for the real backward pass."""
    found = [
        torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)[0] if loss.requires_grad else None
        for loss in losses
    ]
    return [torch.zeros_like(weights) if grad is None else grad for grad in found]


def last_shared(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> int:
    """Index of the weights (two axes or more) that were used last of those every loss has a gradient on.

    Raises:
        InputError: there are none.
    """
    reached = [_reached(loss) for loss in losses]
    places = {id(parameter): i for i, parameter in enumerate(parameters) if parameter.ndim > 1}
    common = [known for known in places if all(known in uses for uses in reached)]
    common.sort(key=lambda known: (max(uses[known] for uses in reached), places[known]), reverse=True)
    for known in common:
        # A connection may be one in name only, such as a sum times 0.
        if all(bool(grad.any()) for grad in gradients(losses, parameters[places[known]])):
            return places[known]
    raise InputError(
        "GradNorm needs weights that every loss has a gradient on, and this model has none: "
        "are the parts it shares frozen? Balance by uncertainty or dwa."
    )


def _reached(loss: Tensor) -> dict[int, int]:
    """The parameters in a loss's graph by ``id``, each with when it was used last (numbers that rise in a pass)."""
    uses: dict[int, int] = {}
    waiting = [] if loss.grad_fn is None else [loss.grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        for after, _ in node.next_functions:
            if after is None:
                continue
            variable = getattr(after, "variable", None)
            if variable is not None:
                uses[id(variable)] = max(uses.get(id(variable), -1), node._sequence_nr())
            elif after not in seen:
                seen.add(after)
                waiting.append(after)
    return uses


def _agreed(number: int, device: torch.device) -> Tensor:
    """The largest of all processes' numbers."""
    known = torch.tensor(number, device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(known, op=torch.distributed.ReduceOp.MAX)
    return known
