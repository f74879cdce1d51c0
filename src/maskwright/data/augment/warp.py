"""``Warp``: a placement followed by any rotation, shear and smooth elastic deformation; pixels are still sampled once.

For each pixel of the result the way back is computed: undo the deformation and the turn on the canvas, then the
placement. Pixels, label maps and run-lengths are looked up there. Polygons go the other way, point by point.

The deformation is a free-form one (Rueckert et al. 1999): displacements drawn on a coarse grid, between them a cubic
B-spline. As no displacement exceeds a quarter of the grid's spacing it is one to one: its row sums of derivatives stay
below 1 (Choi and Lee 2000 show the sharper bound).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskwright.data.augment import warp_kernels as kernels
from maskwright.data.augment.placement import Placement
from maskwright.ops import polygons, rle

FILL = 114
"""The value, 0..255, of what lies outside of all pictures: between the usual means of the three channels."""

_STEP = 3.0
"""Edges of polygons are split to at most this many pixels before they are bent."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Warp:
    """From file pixels to a sample's pixels; stands wherever a ``Placement`` does.

    Attributes:
        placement: what is done first.
        full: (H, W) of the file, since what turns into sight lies beyond the placement's window, or outside of all.
        matrix: (a, b, c, d), applied to points about the center of the canvas: x' = a x + b y, y' = c x + d y.
        bend: float64 [2, rows + 3, columns + 3], displacements (x, y) in pixels of the canvas at the points of a grid
            that begins one step before its corner; a pixel shows what lies there plus its displacement. ``None``: no
            deformation.
        spacing: of that grid, in pixels of the canvas.
        reflect: mirror the picture at its edges instead of filling with ``FILL``.

    Raises:
        ValueError: a matrix that has no inverse, or a deformation that could fold.
    """

    placement: Placement
    full: tuple[int, int]
    matrix: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)
    bend: np.ndarray | None = None
    spacing: float = 64.0
    reflect: bool = False

    def __post_init__(self) -> None:
        a, b, c, d = self.matrix
        if not abs(a * d - b * c) > 1e-6:
            raise ValueError(f"a warp's matrix must have an inverse, got {self.matrix}")
        if self.bend is not None and np.abs(self.bend).max() > self.spacing / 4:
            raise ValueError(f"displacements must not exceed a quarter of their spacing ({self.spacing} pixels)")

    @staticmethod
    def draw_bend(size: tuple[int, int], largest: float, spacing: float, rng: np.random.Generator) -> np.ndarray:
        """Displacements for ``bend`` on a canvas (H, W), uniform within ``largest`` pixels each way."""
        rows, columns = (int(np.ceil(side / spacing)) + 3 for side in size)
        return rng.uniform(-largest, largest, (2, rows, columns))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the result."""
        return self.placement.size

    @property
    def scale(self) -> tuple[float, float]:
        """(vertical, horizontal) factor along the file's axes, without what the matrix adds."""
        return self.placement.scale

    @property
    def magnification(self) -> float:
        """How many pixels of the result one file pixel becomes, on average."""
        a, b, c, d = self.matrix
        return self.placement.magnification * abs(a * d - b * c)

    def pixels(self, image: Tensor) -> Tensor:
        """Apply to a picture uint8 [3, H, W]: a contiguous tensor [3, h, w]. Bilinear, averaged where it shrinks."""
        channels_last = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
        back = self._back()
        out = kernels.pixels(channels_last, self._sources(), back[:, :2].copy(), _taps(back), self.reflect, FILL)
        return torch.from_numpy(out)

    def labels(self, values: np.ndarray, void: int) -> np.ndarray:
        """Apply to a map [H, W] of labels or ids: [h, w], each the file pixel under its center, ``void`` outside."""
        return kernels.labels(np.ascontiguousarray(values), self._sources(), values.dtype.type(void))

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Apply to points float64 [K, 2], x then y; the result may lie outside the canvas."""
        center = np.array(self.size[::-1]) / 2
        out = (self.placement.points(xy) - center) @ np.array(self.matrix).reshape(2, 2).T + center
        return out if self.bend is None else kernels.unbend(np.ascontiguousarray(out), self.bend, self.spacing)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes float64 [N, 4] around all that file boxes [N, 4] may become, not clipped."""
        corners = boxes.astype(np.float64)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        center = np.array(self.size[::-1]) / 2
        turned = (self.placement.points(corners) - center) @ np.array(self.matrix).reshape(2, 2).T + center
        turned = turned.reshape(-1, 4, 2)
        slack = 0.0 if self.bend is None else float(np.abs(self.bend).max())
        return np.concatenate([turned.min(axis=1) - slack, turned.max(axis=1) + slack], axis=1)

    def holds(self, boxes: np.ndarray) -> np.ndarray:
        """bool [N]: file boxes [N, 4] that surely lie, within half a pixel, on the canvas."""
        height, width = self.size
        moved = self.boxes(boxes)
        return np.logical_and.reduce(
            (moved >= -0.5) & (moved <= np.array((width, height, width, height)) + 0.5), axis=1
        )

    def runs(self, counts: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks as run-lengths on the file's size, carried to the canvas: int32 [R], int64 [N + 1].

        A pixel is foreground where the mask, sampled as pixels are, is at least one half. Each object is decoded alone,
        within its own box.
        """
        counts, offsets = np.ascontiguousarray(counts, np.int32), np.ascontiguousarray(offsets, np.int64)
        around = rle.boxes(counts, offsets, self.full[0]).astype(np.float64)
        height, width = self.size
        near = np.clip(self.boxes(around + np.array((-1, -1, 1, 1))), 0, (width, height, width, height))
        limits = np.concatenate([np.floor(near[:, :2]), np.ceil(near[:, 2:])], axis=1).astype(np.int64)
        back = self._back()
        return kernels.runs(
            counts, offsets, np.array(self.full, np.int64), around.astype(np.int64), limits, self._sources(),
            back[:, :2].copy(), _taps(back),
        )  # fmt: skip

    def rasterize(self, rings: Sequence[np.ndarray]) -> np.ndarray:
        """The runs int32 [R] on the canvas of polygons (float64 [K, 2] each) in file pixels."""
        if self.bend is not None:
            a, b, c, d = self.matrix
            longest = _STEP / max(self.scale) / max(np.hypot(a, c), np.hypot(b, d))
            rings = [_split(ring, longest) for ring in rings]
        drawn = polygons.rasterize([self.points(ring) for ring in rings], self.size)
        height, width = self.full
        if all(((ring >= 0) & (ring <= (width, height))).all() for ring in rings):
            return drawn
        inside = rle.encode(self._inside()[None])[0]
        return rle.intersect(np.concatenate([drawn, inside]), np.array([0, len(drawn), len(drawn) + len(inside)]))

    def mirrored(self) -> tuple[np.ndarray, np.ndarray]:
        """Runs of the pixels that are mirrored, in at most four masks, one for each quarter of the canvas.

        Training leaves out boxes around regions to ignore; a box around all corners at once would be the whole picture.
        """
        outside = ~self._inside() if self.reflect else np.zeros(self.size, bool)
        middle = (self.size[0] // 2, self.size[1] // 2)
        parts: list[np.ndarray] = []
        for rows in (slice(0, middle[0]), slice(middle[0], None)):
            for columns in (slice(0, middle[1]), slice(middle[1], None)):
                if outside[rows, columns].any():
                    part = np.zeros(self.size, bool)
                    part[rows, columns] = outside[rows, columns]
                    parts.append(part)
        return rle.encode(np.stack(parts) if parts else np.zeros((0, *self.size), bool))

    def _inside(self) -> np.ndarray:
        return self.labels(np.ones(self.full, np.uint8), 0).astype(bool)

    def _back(self) -> np.ndarray:
        """float64 [2, 3]: from canvas points (x, y, 1), undeformed, to file points."""
        origin, right, down = self.placement.points(np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]))
        there = np.eye(3)
        there[:2] = np.stack([right - origin, down - origin, origin], axis=1)
        center = np.array(self.size[::-1]) / 2
        turn = np.eye(3)
        turn[:2, :2] = np.array(self.matrix).reshape(2, 2)
        turn[:2, 2] = center - turn[:2, :2] @ center
        return np.linalg.inv(turn @ there)[:2]

    def _sources(self) -> np.ndarray:
        bend = np.zeros((2, 0, 0)) if self.bend is None else self.bend
        return kernels.sources(*self.size, self._back(), bend, self.spacing)


def turn_and_shear(degrees: float, shear: float) -> tuple[float, float, float, float]:
    """A ``matrix``: shear along x by an angle, then rotate clockwise as one sees it; both in degrees."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    slant = np.tan(np.radians(shear))
    return float(cos), float(cos * slant - sin), float(sin), float(sin * slant + cos)


def _taps(back: np.ndarray) -> np.ndarray:
    """Samples per result pixel, down and across: one where nothing shrinks, at most 16 each way."""
    steps = np.hypot(back[0, 1::-1], back[1, 1::-1])
    return np.clip(np.ceil(steps - 1e-6), 1, 16).astype(np.int64)


def _split(ring: np.ndarray, longest: float) -> np.ndarray:
    """The ring with points added so that no edge is longer than ``longest``."""
    follow = np.roll(ring, -1, axis=0)
    pieces = np.clip(np.ceil(np.hypot(*(follow - ring).T) / longest), 1, 1000).astype(np.int64)
    edge = np.repeat(np.arange(len(ring)), pieces)
    part = np.arange(len(edge)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = (part / pieces[edge])[:, None]
    return ring[edge] + share * (follow - ring)[edge]
