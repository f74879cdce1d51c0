# pyright: basic
"""Objects as small windows of distances: their runs, who is seen where, and a blur; kernels of ``cells`` and ``parts``.

A window is the part of the picture around one object: (y, x, height, width). The values of all windows lie one after
the other in one flat array, window ``i`` in ``values[starts[i]:starts[i + 1]]``, row-major.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from maskwright.data.synthetic.drawn import Runs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """N objects on (H, W).

    Attributes:
        size: (H, W).
        boxes: int32 [N, 4], (y, x, height, width) inside the picture.
        starts: int64 [N + 1], as above.
        depth: float32 [M], pixels from the object's outline, positive inside.
        level: float32 [M], the implicit form itself: 1 in the middle, 0 on the outline, negative outside.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    starts: np.ndarray
    depth: np.ndarray
    level: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def amodal(self) -> Runs:
        """The objects' whole masks, each clipped to the picture."""
        return runs_of(self.depth > 0, self.boxes, self.starts, self.size)

    def owner(self) -> np.ndarray:
        """The number of the last object that covers a pixel, int32 [H, W], -1 where none does."""
        return _owner(self.depth, self.boxes, self.starts, np.full(self.size, -1, np.int32))


def frames_of(centers: np.ndarray, reach: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Windows ``reach`` pixels (one or y, x) around ``centers`` (y, x), clipped to the picture: boxes and starts."""
    around = reach if reach.ndim == 2 else reach[:, None]
    top = np.clip(np.floor(centers - around), 0, size).astype(np.int32)
    end = np.clip(np.ceil(centers + around) + 1, 0, size).astype(np.int32)
    boxes = np.concatenate([top, np.maximum(end - top, 0)], 1)
    starts = np.concatenate([[0], np.cumsum(boxes[:, 2].astype(np.int64) * boxes[:, 3])])
    return boxes, starts


def runs_of(inside: np.ndarray, boxes: np.ndarray, starts: np.ndarray, size: tuple[int, int]) -> Runs:
    """Masks in windows as column-major runs of the whole picture; ``inside`` bool [M]."""
    return _runs(inside, boxes, starts, int(size[0]), int(size[1]))


def joined_runs(first: Runs, second: Runs) -> Runs:
    """The masks of both, in order."""
    counts = np.concatenate([first[0], second[0]])
    return counts, np.concatenate([first[1], second[1][1:] + first[1][-1]])


@njit(cache=True, nogil=True)
def _runs(inside, boxes, starts, height, width):
    count = len(boxes)
    # A column of h pixels has at most (h + 1) / 2 stretches of two runs each.
    room = 0
    for i in range(count):
        room += boxes[i, 3] * (boxes[i, 2] + 2) + 2
    out = np.empty(room, np.int32)
    offsets = np.zeros(count + 1, np.int64)
    used = 0
    for i in range(count):
        y0, x0, h, w = boxes[i]
        start = starts[i]
        first, last = np.int64(0), np.int64(0)  # the open stretch of ones
        done = np.int64(0)  # pixels already written
        for x in range(w):
            for y in range(h):
                if inside[start + np.int64(y) * w + x]:
                    at = np.int64(x0 + x) * height + y0 + y
                    if at == last and last > first:
                        last = at + 1
                        continue
                    if last > first:
                        out[used] = first - done
                        out[used + 1] = last - first
                        used += 2
                        done = last
                    first, last = at, at + 1
        if last > first:
            out[used] = first - done
            out[used + 1] = last - first
            used += 2
            done = last
        total = np.int64(height) * width
        if done < total or used == offsets[i]:
            out[used] = total - done
            used += 1
        offsets[i + 1] = used
    return out[:used].copy(), offsets


@njit(cache=True, nogil=True)
def _owner(depth, boxes, starts, owner):
    for i in range(len(boxes)):
        y0, x0, h, w = boxes[i]
        at = starts[i]
        for y in range(y0, y0 + h):
            for x in range(x0, x0 + w):
                if depth[at] > 0:
                    owner[y, x] = i
                at += 1
    return owner


@njit(cache=True, nogil=True)
def _seen(owner, count):
    out = np.zeros(count, np.int64)
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            if owner[y, x] >= 0:
                out[owner[y, x]] += 1
    return out


def seen_of(owner: np.ndarray, count: int) -> np.ndarray:
    """How many pixels of each of ``count`` objects are seen, int64."""
    return _seen(owner, count)


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """A blur with standard deviation ``sigma`` pixels of float32 [H, W]; edges repeat.

    Small blurs weigh the two neighbors, larger ones are three running means (their sum's spread is ``sigma``).
    """
    if sigma < 0.05:
        return field
    if sigma < 0.9:
        side = np.float32(sigma * sigma / 2)
        return _near(_near(field, side).T, side).T
    # A mean of 2 r + 1 values has the variance r (r + 1) / 3: some passes are one wider, so that the sum fits.
    least = int((np.sqrt(4 * sigma * sigma + 1) - 1) / 2)
    wider = round((sigma * sigma - least * (least + 1)) / (2 * (least + 1) / 3))
    widths = [least + (k < wider) for k in range(3)]
    out = np.ascontiguousarray(field, np.float32)
    for width in widths:
        out = _means(out, width)
    out = np.ascontiguousarray(out.T)
    for width in widths:
        out = _means(out, width)
    return np.ascontiguousarray(out.T)


def _near(field: np.ndarray, side: np.float32) -> np.ndarray:
    out = field * (1 - 2 * side)
    out[1:] += side * field[:-1]
    out[:-1] += side * field[1:]
    out[0] += side * field[0]
    out[-1] += side * field[-1]
    return out


@njit(cache=True, nogil=True)
def _means(field, reach):
    """Running means of 2 ``reach`` + 1 values down the first axis, row by row."""
    height, width = field.shape
    out = np.empty_like(field)
    total = np.zeros(width, np.float64)
    for y in range(-reach, reach + 1):
        row = min(max(y, 0), height - 1)
        for x in range(width):
            total[x] += field[row, x]
    scale = 1.0 / (2 * reach + 1)
    for y in range(height):
        new, old = min(y + reach + 1, height - 1), max(y - reach, 0)
        for x in range(width):
            out[y, x] = total[x] * scale
            total[x] += field[new, x] - field[old, x]
    return out


def seen_values(values: np.ndarray, at: Windows, owner: np.ndarray) -> np.ndarray:
    """The value of each pixel's owner at that pixel, float32 [H, W], 0 where there is none; ``values`` float32 [M]."""
    return _seen_values(values, at.boxes, at.starts, owner, np.zeros(owner.shape, np.float32))


@njit(cache=True, nogil=True)
def _seen_values(values, boxes, starts, owner, out):
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            i = owner[y, x]
            if i >= 0:
                out[y, x] = values[starts[i] + np.int64(y - boxes[i, 0]) * boxes[i, 3] + x - boxes[i, 1]]
    return out
