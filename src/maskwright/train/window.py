"""One step's gradient from its micro-batches, equal to that of one large batch.

A loss that is a mean over counted things (positives, sampled regions) must be weighted by the micro-batch's share of
the window's count, and the counts of two-stage models are known only after a forward pass. So all micro-batches but the
last run once without gradients, to be counted; then each is run again from the same random state. That costs less than
one backward pass per loss into buffers of its own, and no memory. Batch norm in training mode still sees micro-batches.

Over several processes the window is that of all of them: counts are summed over processes before gradients are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from math import isfinite
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.structures import Batch
from maskwright.train import distributed
from maskwright.train.checkpoint import random_state, set_random_state

Losses = dict[str, Tensor]


class NotFiniteError(InputError):
    """A loss or gradient became NaN or infinite."""


class Held:
    """A batch that Fabric hands on as it is: it looks into dataclasses, and refuses frozen ones."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class Step(nn.Module):
    """What Fabric wraps: an objective's losses on a held batch, and what they are means over (empty where unknown)."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective
        self.counts = hasattr(objective, "counted")

    def forward(self, held: Held) -> tuple[Losses, Losses]:
        """Named losses and counts, each a scalar."""
        if self.counts:
            return cast(Any, self.objective).counted(held.batch)
        return self.objective(held.batch), {}


def backward(fabric: Fabric, network: nn.Module, batches: Sequence[Batch], *, counts: bool) -> dict[str, float]:
    """Add the gradient of a window of micro-batches to the parameters'.

    Args:
        fabric: what ``network`` was set up with.
        network: a ``Step``, set up.
        batches: one or more, on the device.
        counts: whether the network gives counts; without them each micro-batch weighs the same.

    Returns:
        The window's losses by name, and their sum as ``loss``.

    Raises:
        NotFiniteError: a loss is NaN or infinite; the message names it and the images. Nothing was changed but
            gradients and buffers.
    """
    joined = fabric.world_size > 1
    if len(batches) == 1 and not joined:
        losses, _ = network(Held(batches[0]))
        values = _checked(losses, batches[0])
        fabric.backward(_total(losses))
        return {"loss": sum(values.values()), **values}

    *earlier, last = batches
    known: list[Losses] = []
    unknown: list[Losses] = [{} for _ in batches]
    before: list[dict[str, object]] = []
    if counts and earlier:
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        with torch.no_grad():
            for batch in earlier:
                before.append(random_state())
                known.append(network(Held(batch))[1])
            for name, value in network.named_buffers():
                value.copy_(buffers[name])  # running statistics must see each batch once
    sums: dict[str, float] = {}
    held_back: Callable[..., AbstractContextManager[None]] = partial(cast(Any, fabric).no_backward_sync, network)
    # Gradients of several processes are joined in the last backward pass.
    with held_back(enabled=joined and bool(earlier)):
        losses, count = network(Held(last))
        weights = shares([*known, count] if counts else unknown, list(losses))
        _add(sums, _backward_one(fabric, losses, weights[-1], last))
    after = random_state()
    for i, batch in enumerate(earlier):
        if counts:
            set_random_state(before[i])
        with held_back(enabled=joined and i < len(earlier) - 1):
            losses, _ = network(Held(batch))
            _add(sums, _backward_one(fabric, losses, weights[i], batch))
    if counts:
        set_random_state(after)
    if joined:  # each process has its part, times their number
        parts = distributed.total(torch.tensor(list(sums.values()), dtype=torch.float64, device=fabric.device))
        sums = {name: float(part) / fabric.world_size for name, part in zip(sums, parts, strict=True)}
    return {"loss": sum(sums.values()), **sums}


def shares(counts: Sequence[Losses], names: Sequence[str]) -> list[dict[str, Tensor | float]]:
    """Each micro-batch's weight for each loss: its share of the window's count; all the same where nothing counts.

    Over several processes the window is that of all, and weights are times their number, as gradients will be averaged.
    """
    equal = 1.0 / len(counts)
    world = torch.distributed.get_world_size() if distributed.joined() else 1
    out: list[dict[str, Tensor | float]] = [{} for _ in counts]
    for name in names:
        if any(name not in count for count in counts):
            continue
        total = distributed.total(torch.stack([count[name].detach().float() for count in counts]).sum())
        for weight, count in zip(out, counts, strict=True):
            share = world * count[name].detach().float() / total.clamp(min=torch.finfo(torch.float32).tiny)
            weight[name] = torch.where(total > 0, share, equal)
    return [{name: weight.get(name, equal) for name in names} for weight in out]


def _backward_one(fabric: Fabric, losses: Losses, weights: dict[str, Tensor | float], batch: Batch) -> dict[str, float]:
    weighted = {name: loss * weights[name] for name, loss in losses.items()}
    if fabric.world_size == 1:
        _checked(losses, batch)
        fabric.backward(_total(weighted))
    else:
        fabric.backward(_total(weighted))  # all must come through here before any stops
        said = ""
        try:
            _checked(losses, batch)
        except NotFiniteError as error:
            said = str(error)
        if distributed.largest([float(bool(said))], fabric.device)[0]:
            raise NotFiniteError(" ".join(filter(None, distributed.gathered(said))))
    return {name: float(loss.detach()) for name, loss in weighted.items()}


def _total(losses: Losses) -> Tensor:
    return torch.stack([loss.reshape(()) for loss in losses.values()]).sum()


def _add(sums: dict[str, float], values: dict[str, float]) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value


def _checked(losses: Losses, batch: Batch) -> dict[str, float]:
    """The losses as numbers, in one transfer from the device."""
    numbers = torch.stack([loss.detach().float().reshape(()) for loss in losses.values()])
    values = dict(zip(losses, map(float, numbers.cpu()), strict=True))
    bad = [name for name, value in values.items() if not isfinite(value)]
    if bad:
        rest = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise NotFiniteError(
            f"every loss must be finite, but {' and '.join(bad)} is not ({rest}) on the images {', '.join(batch.keys)}."
        )
    return values
