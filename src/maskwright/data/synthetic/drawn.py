"""What every kind of drawn scene gives (``Drawn``), is (``Kind``) and is told (``Knobs``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from maskwright.structures import Taxonomy

Runs = tuple[np.ndarray, np.ndarray]
"""N masks of one size as column-major runs: counts int32 [R] and offsets int64 [N + 1] (see ``ops.rle``)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """One drawn picture (one frame) with everything known about it.

    Attributes:
        image: uint8 [3, H, W], RGB.
        labels: int64 [N], dense, things and stuff segments alike (``taxonomy.thing`` tells them apart).
        visible: N masks, what is seen of each; disjoint.
        amodal: N masks, the whole object clipped to the picture; each contains the visible one.
        tracks: int64 [N], the identity over the frames of a clip, 1 or more, distinct within a frame.
        semantic: int16 [H, W], dense labels, -1 void.
        panoptic: int64 [H, W], the track of the segment that is seen, 0 void.
        depth: float32 [H, W], meters (or the unit the kind states) from the camera along its axis, inf for the sky.
        flow: float32 [2, H, W], (dx, dy) in pixels: how far what is seen at a pixel moves until the next frame,
            wherever it goes, nan where behind the camera; ``None`` for the last frame of a clip and single pictures.
        occluded: float32 [N], 1 - visible area / amodal area.
    """

    image: np.ndarray
    labels: np.ndarray
    visible: Runs
    amodal: Runs
    tracks: np.ndarray
    semantic: np.ndarray
    panoptic: np.ndarray
    depth: np.ndarray
    flow: np.ndarray | None = None
    occluded: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What can be turned; 1 is a kind's own habit wherever a knob is a factor, ``None`` lets every picture draw one.

    Raises:
        ValueError: a value out of its range, or a range upside down.
    """

    brightness: tuple[float, float] = (0.8, 1.2)
    """Range of the light's strength, a factor."""
    sun: float | None = None
    """Where the light comes from, degrees counterclockwise from the right."""
    warmth: tuple[float, float] = (-0.5, 0.5)
    """Range of the light's color, from -1 (blue shade) over 0 (neutral) to 1 (evening sun)."""
    shadows: float = 1.0
    """Strength of cast shadows and shading, a factor, 0 for none."""
    texture: float = 1.0
    """Strength of the surfaces' texture, a factor, 0 for plain colors."""
    variety: float = 1.0
    """How far colors and forms stray from one picture to the next and within it, a factor."""
    occlusion: float = 0.5
    """How much objects cover each other, from 0 (as little as the scene allows) to 1."""
    scale: tuple[float, float] = (0.8, 1.25)
    """Range of the size of all objects in a picture, a factor."""
    count: tuple[int, int] | None = None
    """Range of the number of objects that are placed, both ends possible."""
    height: float = 1.0
    """The camera's height above the ground or distance from the objects, a factor."""
    tilt: float = 1.0
    """How far the camera's pitch and roll stray, a factor, 0 for a level camera."""
    focal: tuple[float, float] = (0.85, 1.2)
    """Range of the focal length, a factor."""
    motion: float = 1.0
    """How far camera and objects move from one frame to the next, a factor, 0 for still clips."""
    noise: tuple[float, float] = (0.5, 4.0)
    """Range of the standard deviation of the sensor's noise, in gray values of 255."""
    blur: tuple[float, float] = (0.0, 0.7)
    """Range of the lens's blur, standard deviation in pixels."""

    def __post_init__(self) -> None:
        for name in ("brightness", "warmth", "scale", "focal", "noise", "blur", "count"):
            value = getattr(self, name)
            if value is not None and not (len(value) == 2 and value[0] <= value[1]):
                raise ValueError(f"{name} must be a range (least, most), got {value}")
        for name in ("shadows", "texture", "variety", "tilt", "motion"):
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"{name} must lie in 0..10, got {getattr(self, name)}")
        if not 0 <= self.occlusion <= 1:
            raise ValueError(f"occlusion must lie in 0..1, got {self.occlusion}")
        if not 0.1 <= self.height <= 10:
            raise ValueError(f"height must lie in 0.1..10, got {self.height}")
        if self.sun is not None and not np.isfinite(self.sun):
            raise ValueError(f"sun must be an angle in degrees, got {self.sun}")
        for name, least, most in (
            ("brightness", 0.05, 5),
            ("warmth", -1, 1),
            ("scale", 0.1, 10),
            ("focal", 0.1, 10),
            ("noise", 0, 100),
            ("blur", 0, 10),
            ("count", 0, 100_000),
        ):
            value = getattr(self, name)
            if value is not None and not (least <= value[0] and value[1] <= most):
                raise ValueError(f"{name} must lie in {least}..{most}, got {value}")


@runtime_checkable
class Kind(Protocol):
    """A kind of scene."""

    taxonomy: Taxonomy

    def draw(self, rng: np.random.Generator, size: tuple[int, int], knobs: Knobs, frames: int = 1) -> list[Drawn]:
        """The frames of one clip on (H, W), in order; all randomness comes from ``rng``."""
        ...
