"""What can only be known of a model by running it: the names of its losses, and the maps of its parts."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskwright.nn.modes import evaluating
from maskwright.protocols import Model, task_of
from maskwright.structures import Batch, Images, Masks, Scene, Segments

SIDE = 128
"""Pixels of the picture that is run; more where the model's divisor asks for more."""


def loss_terms(model: nn.Module) -> tuple[str, ...]:
    """The names of a model's losses. Nothing of the model changes, and no random number is spent."""
    data = picture(model)
    with undisturbed(model):
        raw = model(data.inputs, data.truth())
        return tuple(cast(Model, model).loss(raw, data))


def picture(model: nn.Module, divisor: int | None = None) -> Batch:
    """One gray picture with an object of the first class, as the model's task has it, on its device."""
    multiple = divisor or int(cast(Any, model).size_divisor)
    side = -(-SIDE // multiple) * multiple
    size = (side, side)
    dense = torch.zeros(1, *size, dtype=torch.bool)
    dense[:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
    masks, label = Masks.from_dense(dense), torch.zeros(1, dtype=torch.int64)
    segments = Segments(size=size, labels=label, masks=masks, boxes=masks.boxes(), ids=label + 1)
    inside = dense[0].long()
    scene = {
        "semantic": Scene(size=size, semantic=inside - 1),
        "panoptic": Scene(size=size, segments=segments, panoptic=inside),
    }.get(task_of(model), Scene(size=size, segments=segments))
    pixels = torch.full((3, *size), 114, dtype=torch.uint8)
    device = next(model.parameters()).device
    return Batch(inputs=Images.pad([pixels], multiple=multiple), scenes=(scene,), keys=("probe",)).to(device)


@contextmanager
def undisturbed(model: nn.Module) -> Generator[None]:
    """Evaluation mode without gradients; modes and random states are as before afterwards."""
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad(), evaluating(model, {}):
        yield


class SeenError(Exception):
    """What was wanted has been seen: ends a forward pass early."""


@contextmanager
def watched(module: nn.Module, *, enough: bool = False) -> Generator[dict[str, Tensor]]:
    """The maps [B, C, h, w] that ``module`` gives while it is watched, by level; the last call counts.

    Args:
        enough: stop the pass there; the ``with`` block ends too.
    """
    seen: dict[str, Tensor] = {}

    def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen.clear()
        seen.update(maps_of(output))
        if enough:
            raise SeenError

    handle = module.register_forward_hook(look)
    try:
        yield seen
    except SeenError:
        pass
    finally:
        handle.remove()


def maps_of(output: Any) -> dict[str, Tensor]:
    """The maps [B, C, h, w] in what a module gives: a tensor, a list or a mapping of them; others are left out."""
    if isinstance(output, Tensor):
        named: Mapping[Any, Any] = {0: output}
    elif isinstance(output, Mapping):
        named = output
    elif isinstance(output, (list, tuple)):
        named = dict(enumerate(output))
    else:
        named = {}
    return {str(name): value for name, value in named.items() if isinstance(value, Tensor) and value.ndim == 4}
