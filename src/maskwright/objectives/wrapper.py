"""An objective around another objective: what all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskwright.protocols import Objective
from maskwright.structures import Batch

Losses = dict[str, Tensor]


class Wrapper(nn.Module):
    """Passes everything on to the objective inside; a wrapper overrides ``counted`` and what else it changes.

    Wrappers keep gradient accumulation exact: what they give is linear in the losses inside, with factors that stand
    still within a step, and under the same names and counts.
    """

    def __init__(self, inner: Objective | nn.Module) -> None:
        super().__init__()
        if not isinstance(inner, nn.Module):
            raise TypeError(f"an objective must be an nn.Module, got {type(inner).__name__}")
        self.inner = inner

    @property
    def model(self) -> nn.Module:
        """The model that learns."""
        return cast(nn.Module, self.inner.model)

    def forward(self, batch: Batch) -> Losses:
        """Named scalar losses; the objective is their sum."""
        return self.counted(batch)[0]

    def counted(self, batch: Batch) -> tuple[Losses, Losses]:
        """The losses, and what each is a mean over; none of the latter where the objective inside does not say."""
        return counted_of(self.inner, batch)

    def terms(self) -> tuple[str, ...]:
        """The names of the losses."""
        return terms_of(self.inner)

    def after_step(self, step: int) -> None:
        """Pass on that a step was made."""
        cast(Any, self.inner).after_step(step)

    def discard(self) -> None:
        """Forget what the step in progress has gathered, before it is done anew (after out-of-memory, say)."""
        if hasattr(self.inner, "discard"):
            cast(Any, self.inner).discard()


def counted_of(objective: nn.Module, batch: Batch) -> tuple[Losses, Losses]:
    """An objective's losses and counts; counts are optional in ``protocols.Objective``."""
    if hasattr(objective, "counted"):
        return cast(Any, objective).counted(batch)
    return objective(batch), {}


def terms_of(objective: nn.Module) -> tuple[str, ...]:
    """The names of an objective's losses.

    Raises:
        TypeError: it cannot tell them.
    """
    if not hasattr(objective, "terms"):
        raise TypeError(f"an objective that is wrapped needs a method terms(), and {type(objective).__name__} has none")
    return tuple(cast(Any, objective).terms())


class StepSums:
    """What the micro-batches of one step come to, as ``train.window`` joins them, over all processes.

    Values whose counts are known are a mean weighted by them; others, and those nothing counts for, a plain mean.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] | None = None

    def add(self, values: Tensor, counts: Tensor) -> None:
        """One micro-batch: ``values`` [K, ...] and their ``counts`` [K], 0 where unknown."""
        values = values.detach().float()
        counts = counts.detach().float().to(values.device)
        weight = counts.reshape(-1, *[1] * (values.ndim - 1))
        new = [values * weight, values, counts, counts.new_ones(1)]
        self.sums = new if self.sums is None else [a + b for a, b in zip(self.sums, new, strict=True)]

    def mean(self) -> Tensor | None:
        """[K, ...] over the step so far; ``None`` where nothing was added."""
        if self.sums is None:
            return None
        sums = self.sums
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = [part.clone() for part in sums]
            for part in sums:
                torch.distributed.all_reduce(part)
        weighted, plain, counts, number = sums
        total = counts.reshape(-1, *[1] * (plain.ndim - 1))
        tiny = torch.finfo(torch.float32).tiny
        return torch.where(total > 0, weighted / total.clamp(min=tiny), plain / number)

    def clear(self) -> None:
        """Begin a step."""
        self.sums = None


def count_vector(counts: Mapping[str, Tensor], names: tuple[str, ...], like: Tensor) -> Tensor:
    """The counts [K] of the losses ``names``, 0 where unknown."""
    return torch.stack([counts[n].detach().to(like) if n in counts else like.new_zeros(()) for n in names])
