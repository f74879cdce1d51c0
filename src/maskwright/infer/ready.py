"""A picture made ready for a model: how it is resized, and the way back to its own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from maskwright.errors import InputError
from maskwright.structures import Geometry, Resize

Sizing = Resize | tuple[int, int] | Literal["default"] | None
"""``"default"`` is the model's own resize, ``None`` the picture's own size, ``(short, long)`` sides in pixels."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Pixels as the model takes them, uint8 or float32 [3, h, w], and their geometry."""

    pixels: Tensor
    geometry: Geometry


def require(holds: bool, name: str, wanted: str, got: object) -> None:
    """Raise ``InputError`` naming the option ``name`` unless ``holds``."""
    if not holds:
        raise InputError(f"{name} must be {wanted}, got {got!r}.")


def sizing(own: Resize, wanted: Sizing) -> Resize | None:
    """What a caller's ``resize`` means for a model whose own is ``own``; ``InputError`` where it is none."""
    if wanted is None or isinstance(wanted, Resize):
        return wanted
    if isinstance(wanted, str):
        require(wanted == "default", "resize", '"default", None or (short, long)', wanted)
        return own
    sides: tuple[Any, ...] = tuple(wanted)
    fits = len(sides) == 2 and all(isinstance(v, (int, np.integer)) and v >= 1 for v in sides) and sides[0] <= sides[1]
    require(fits, "resize", "(short, long) in pixels with short <= long", wanted)
    return Resize(short=int(sides[0]), long=int(sides[1]), antialias=own.antialias)


def prepare(
    picture: Tensor, resize: Resize | None, *, scale: float = 1.0, original: tuple[int, int] | None = None
) -> Ready:
    """Resize a picture, uint8 [3, H, W], on the host.

    With ``antialias`` the result is rounded to uint8, as PIL (and so detectron2) gives it; without, bilinear samples
    stay floating, as torchvision's models take them.

    Args:
        scale: a further factor on both sides, for looks at several scales.
        original: (H, W) of the file, where the picture has been resized before.
    """
    size = (int(picture.shape[1]), int(picture.shape[2]))
    original = original or size
    if resize is None and scale == 1.0:
        return Ready(picture, Geometry.resized(original, size))
    how = resize or Resize()
    height, width = how.target(size)
    target = (max(1, round(height * scale)), max(1, round(width * scale)))
    if target != size:
        source = picture[None] if how.antialias else picture[None].float()
        picture = interpolate(source, size=target, mode="bilinear", antialias=how.antialias)[0]
    elif not how.antialias:
        picture = picture.float()
    return Ready(picture, Geometry.resized(original, target))
