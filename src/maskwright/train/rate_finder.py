"""The learning-rate range test (Smith 2015, arXiv:1506.01186, section 3.3): one short run with a rising rate.

The rate rises exponentially instead of linearly, so that unknown orders of magnitude cost the same; the loss is
smoothed (a moving average without the bias of its start) and the test ends where it has clearly diverged. A rate is
suggested where the smoothed loss falls fastest over the logarithm of the rate, well before it turns.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import exp, isfinite
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from maskwright.draw.plot import Plot
from maskwright.errors import InputError
from maskwright.objectives.supervised import Supervised
from maskwright.ops.hardware import choose_device, choose_precision
from maskwright.protocols import Model, Objective
from maskwright.storage import replacing
from maskwright.structures import Batch
from maskwright.train import checkpoint
from maskwright.train.optimizer import make_optimizer, set_rate
from maskwright.train.options import TrainOptions
from maskwright.train.window import NotFiniteError, Step, backward

SMOOTHING = 0.9
DIVERGED = 4.0
"""The test ends where the smoothed loss is so many times the lowest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """What a range test saw.

    Attributes:
        rates, losses, smoothed: float64 [n], step by step.
        suggestion: where the smoothed loss falls fastest; ``None`` where it never fell.
        lowest: the rate at the lowest smoothed loss: too high to train with, the edge.
        ended: why the test ended: "diverged", "not finite", or "highest rate".
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    lowest: float
    ended: str

    def write(self, folder: Path) -> None:
        """Write ``rate.csv`` and ``rate.svg``.

        Raises:
            InputError: ``folder`` cannot be written.
        """
        with replacing(folder / "rate.csv") as beside, open(beside, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["learning_rate", "loss", "smoothed"])
            rows.writerows(zip(self.rates.tolist(), self.losses.tolist(), self.smoothed.tolist(), strict=True))
        every = list(zip(self.rates.tolist(), self.smoothed.tolist(), strict=True))
        plain = list(zip(self.rates.tolist(), self.losses.tolist(), strict=True))
        # What comes after the turn would flatten all that matters.
        top = max(float(self.smoothed[: int(self.smoothed.argmin()) + 1].max()) * 1.3, float(self.smoothed.min()) * 1.5)
        marks = {} if self.suggestion is None else {f"{self.suggestion:.2g}": self.suggestion}
        Plot(
            title="Learning-rate range test",
            x="learning rate",
            y="loss",
            lines={"smoothed": [point for point in every if point[1] <= top]},
            points={"loss": [point for point in plain if point[1] <= top]},
            marks=marks,
            log_x=True,
        ).save(folder / "rate.svg")


def find_rate(
    objective: Objective | Model,
    batches: Any,
    options: TrainOptions,
    *,
    low: float = 1e-7,
    high: float = 1.0,
    steps: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> RangeTest:
    """Train for a few steps with a rising rate; weights, buffers, gradients and random states are as before afterwards.

    Args:
        objective: what is trained, as for ``train``.
        batches: an iterable of ``Batch``; it is moved on by the batches that were used, and ``load_state_dict`` moves
            it back where it has one.
        options: ``optimizer``, ``momentum``, ``weight_decay``, ``accumulate``, clipping, ``precision`` and ``device``
            count.
        low, high: the ends of the rates.
        steps: optimizer steps from one to the other.
        progress: called with (steps done, steps in all).

    Raises:
        InputError: the ends do not rise, too few steps, no batches, or the first loss is not finite.
    """
    if not (0 < low < high and isfinite(high)):
        raise InputError(f"the rates of a range test must rise from above 0, got --low {low} and --high {high}.")
    if steps < 10:
        raise InputError(f"a range test needs at least 10 steps to see a slope, got {steps}.")
    whole = cast(nn.Module, objective if hasattr(objective, "after_step") else Supervised(cast(Model, objective)))
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    before = {name: value.detach().cpu().clone() for name, value in whole.state_dict().items()}
    modes = [(module, module.training) for module in whole.modules()]
    where = next(whole.parameters()).device
    random = checkpoint.random_state()
    place = batches.state_dict() if hasattr(batches, "state_dict") else None
    try:
        whole.to(device)
        return _test(whole, batches, options, device, precision, (low, high, steps), progress)
    finally:
        whole.to(where)
        whole.load_state_dict(before)
        whole.zero_grad(set_to_none=True)
        for module, mode in modes:
            module.training = mode
        checkpoint.set_random_state(random)
        if place is not None:
            batches.load_state_dict(place)


def _test(
    whole: nn.Module,
    batches: Any,
    options: TrainOptions,
    device: torch.device,
    precision: str,
    course: tuple[float, float, int],
    progress: Callable[[int, int], None] | None,
) -> RangeTest:
    low, high, steps = course
    names: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    devices: Any = [device.index] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=devices, precision=names[precision])
    network, optimizer = fabric.setup(Step(whole), make_optimizer(whole, options, fused=device.type == "cpu"))
    stream = _endless(batches)
    rates: list[float] = []
    losses: list[float] = []
    ended, average, lowest = "highest rate", 0.0, float("inf")
    for step in range(steps):
        rate = low * (high / low) ** (step / (steps - 1))
        set_rate(cast(torch.optim.Optimizer, optimizer), rate)
        network.train()
        window = [_prepared(next(stream), device, options) for _ in range(options.accumulate)]
        try:
            loss = backward(fabric, network, window, counts=network.module.counts)["loss"]
        except NotFiniteError:
            if not rates:
                raise
            ended = "not finite"
            break
        if options.clip_norm:
            fabric.clip_gradients(network, optimizer, max_norm=options.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rates.append(rate)
        losses.append(loss)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smooth = average / (1 - SMOOTHING ** (step + 1))
        lowest = min(lowest, smooth)
        if progress is not None:
            progress(step + 1, steps)
        if step > steps // 10 and smooth > DIVERGED * lowest:
            ended = "diverged"
            break
    return analyze(rates, losses, ended)


def analyze(rates: list[float], losses: list[float], ended: str) -> RangeTest:
    """Smooth the losses and find where they fall fastest, looking only to the left of the lowest."""
    smoothed: list[float] = []
    average = 0.0
    for step, loss in enumerate(losses, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**step))
    values = np.array(smoothed)
    bottom = int(values.argmin())
    return RangeTest(
        rates=np.array(rates),
        losses=np.array(losses),
        smoothed=values,
        suggestion=_steepest(np.log(rates), values, bottom),
        lowest=rates[bottom],
        ended=ended,
    )


def _steepest(logs: np.ndarray, values: np.ndarray, bottom: int) -> float | None:
    """The rate in the middle of the window over which a fitted line falls most; ``None`` where none falls."""
    wide = max(5, len(values) // 8)
    first = min(5, len(values) // 10)  # the smoothing has few steps to rest on there
    best: tuple[float, float] | None = None
    for start in range(first, bottom + 2 - wide):
        x, y = logs[start : start + wide], values[start : start + wide]
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
        if slope < 0 and (best is None or slope < best[0]):
            best = (slope, exp(float(x.mean())))
    return None if best is None else best[1]


def _endless(batches: Any) -> Iterator[Batch]:
    while True:
        came = False
        for batch in batches:
            came = True
            yield batch
        if not came:
            raise InputError("a range test needs batches, but the loader gave none.")


def _prepared(batch: Batch, device: torch.device, options: TrainOptions) -> Batch:
    batch = batch.to(device)
    if options.channels_last:
        pixels = batch.inputs.pixels.contiguous(memory_format=torch.channels_last)
        batch = replace(batch, inputs=replace(batch.inputs, pixels=pixels))
    return batch


def rounded(rate: float) -> float:
    """A rate to two digits, as one types it."""
    return float(f"{rate:.2g}")
