"""``Placement``: where a sample's pixels come from, drawn once, applied to pixels, polygons, boxes and run-lengths.

A window of whole file pixels is resized to a canvas, then turned by one of the eight symmetries of the square. Every
augmentation of geometry composes into these numbers, so pixels are resampled once and masks are rasterized once, after
the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """From file pixels to a sample's pixels.

    Attributes:
        window: (y, x, height, width) in file pixels, inside the picture.
        canvas: (H, W) that the window is resized to, before turning.
        transpose: swap the axes, first of the turns.
        flip_y: then mirror upside down.
        flip_x: then mirror left to right.
        antialias: area-weighted filter when shrinking; otherwise plain bilinear samples.
    """

    window: tuple[int, int, int, int]
    canvas: tuple[int, int]
    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False
    antialias: bool = True

    @classmethod
    def whole(
        cls, size: tuple[int, int], canvas: tuple[int, int] | None = None, *, antialias: bool = True
    ) -> Placement:
        """The whole picture of ``size`` (H, W), resized to ``canvas`` or left as it is."""
        return cls(window=(0, 0, *size), canvas=canvas or size, antialias=antialias)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the result."""
        height, width = self.canvas
        return (width, height) if self.transpose else (height, width)

    @property
    def scale(self) -> tuple[float, float]:
        """(vertical, horizontal) factor along the file's axes."""
        return self.canvas[0] / self.window[2], self.canvas[1] / self.window[3]

    @property
    def magnification(self) -> float:
        """How many pixels of the result one file pixel becomes."""
        return self.scale[0] * self.scale[1]

    @property
    def moves_nothing(self) -> bool:
        """Whether the result's pixels are the window's, unresized and unturned."""
        return self.canvas == self.window[2:] and not (self.transpose or self.flip_y or self.flip_x)

    def leaves(self, size: tuple[int, int]) -> bool:
        """Whether a picture of ``size`` comes out as it went in."""
        return self.moves_nothing and self.window == (0, 0, *size)

    def pixels(self, image: Tensor) -> Tensor:
        """Apply to a picture [3, H, W]: a contiguous tensor [3, h, w] of the same dtype."""
        y, x, height, width = self.window
        out = image[:, y : y + height, x : x + width]
        if self.canvas != (height, width):
            # Interleaved uint8 takes torch's vectorized path, three times as fast as PIL's and equal to it within 1.
            out = interpolate(out[None], size=self.canvas, mode="bilinear", antialias=self.antialias)[0]
        if self.transpose:
            out = out.transpose(1, 2)
        flips = [axis for axis, flip in ((1, self.flip_y), (2, self.flip_x)) if flip]
        return (torch.flip(out, flips) if flips else out).contiguous()

    def labels(self, values: np.ndarray, void: int) -> np.ndarray:
        """Apply to a map [H, W] of labels or ids: [h, w] of the same dtype, each the file pixel under its center.

        Exact where nothing is resized. ``void`` is what lies outside the picture, which a window never shows.
        """
        del void
        rows, columns = (
            start + (2 * np.arange(to) + 1) * side // (2 * to)
            for start, side, to in zip(self.window[:2], self.window[2:], self.canvas, strict=True)
        )
        y, x, height, width = self.window
        unresized = self.canvas == (height, width)
        out = values[y : y + height, x : x + width] if unresized else values[rows[:, None], columns]
        out = out.T if self.transpose else out
        out = out[::-1] if self.flip_y else out
        return np.array(out[:, ::-1] if self.flip_x else out, order="C")

    def holds(self, boxes: np.ndarray) -> np.ndarray:
        """bool [N]: file boxes [N, 4] that lie wholly, within half a file pixel, in the window."""
        y, x, height, width = self.window
        near, far = np.array((x, y)) - 0.5, np.array((x + width, y + height)) + 0.5
        return np.logical_and.reduce(np.concatenate([boxes[:, :2] >= near, boxes[:, 2:] <= far], axis=1), axis=1)

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Apply to points float64 [K, 2], x then y; the result may lie outside the canvas."""
        y0, x0 = self.window[:2]
        sy, sx = self.scale
        out = (xy - (x0, y0)) * (sx, sy)
        if self.transpose:
            out = out[:, ::-1]
        height, width = self.size
        if self.flip_x:
            out = (width, 0) + out * (-1, 1)
        if self.flip_y:
            out = (0, height) + out * (1, -1)
        return out

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Apply to boxes float [N, 4] (x1, y1, x2, y2): float64, not clipped."""
        corners = self.points(boxes.astype(np.float64).reshape(-1, 2)).reshape(-1, 2, 2)
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
