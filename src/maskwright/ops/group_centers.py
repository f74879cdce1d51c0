# pyright: basic
"""Pixels that point at the center of their object: finding centers, grouping pixels, and what both should be.

Panoptic-DeepLab (Cheng et al. 2020, section 3.3): a heat map's local maxima are centers; a pixel belongs to the center
that is nearest to where it points. Centers and places are (y, x) in pixels, pixel (0, 0) at (0, 0).
"""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_SIDE = 16
"""Cells of so many pixels a side share a list of centers that can be nearest to a place in them."""


def find_centers(heat: Tensor, *, threshold: float = 0.1, kernel: int = 7, limit: int = 200) -> Tensor:
    """Local maxima of ``heat`` [H, W] above ``threshold``, int64 [K, 2] (y, x) in the order of rows.

    Args:
        kernel: odd; a maximum has no larger value in the window of so many pixels around it (table 3 of the paper: 7).
        limit: only the largest so many; of equal values the first.
    """
    known = heat.detach().float()
    highest = functional.max_pool2d(known[None], kernel, stride=1, padding=kernel // 2)[0]
    places = torch.nonzero((known == highest) & (known > threshold))
    if len(places) > limit:
        order = torch.argsort(known[places[:, 0], places[:, 1]], descending=True, stable=True)[:limit]
        places = places[order.sort().values]
    return places


def group(
    centers: NDArray[np.integer], offsets: NDArray[np.float32], inside: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """Which center each pixel belongs to: int32 [H, W], 1 .. K, and 0 outside of ``inside`` or where K is 0.

    Exactly the nearest one to the pixel's place plus its offset; of equally near ones the first. A cell of pixels knows
    which centers can be nearest to any place in it, so the time hardly grows with K.

    Args:
        centers: [K, 2] (y, x). offsets: [2, H, W] (y, x) in pixels. inside: bool [H, W]; everywhere by default.
    """
    height, width = offsets.shape[1:]
    if len(centers) == 0 or height * width == 0:
        return np.zeros((height, width), np.int32)
    points = np.ascontiguousarray(centers, np.float32)
    down, along = ceil(height / _SIDE), ceil(width / _SIDE)
    starts, lists = _candidates(points, down, along)
    mask = np.ones((height, width), np.bool_) if inside is None else np.ascontiguousarray(inside, np.bool_)
    return _assign(points, np.ascontiguousarray(offsets, np.float32), mask, starts, lists, down, along)


def center_targets(
    ids: NDArray[np.integer], count: int, sigma: float = 8.0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """What the maps of a picture should be.

    Args:
        ids: integers [H, W], 1 .. count where the objects are, 0 elsewhere.
        sigma: of the Gaussian around each center, in pixels; it ends after three of them (section 3.2 of the paper: 8).

    Returns:
        Heat float32 [H, W] in [0, 1], the largest of the objects' Gaussians, whose peaks are at whole pixels; offsets
        float32 [2, H, W] (y, x) from each object's pixel to its center of mass, 0 elsewhere; areas int64 [count].
    """
    height, width = ids.shape
    flat = ids.reshape(-1).astype(np.int64, copy=False)
    y, x = (place.reshape(-1).astype(np.float64) for place in np.indices((height, width), sparse=False))
    areas = np.bincount(flat, minlength=count + 1)
    middle_y, middle_x = (np.bincount(flat, place, count + 1) / np.maximum(areas, 1) for place in (y, x))
    offsets = np.stack([middle_y[flat] - y, middle_x[flat] - x]).astype(np.float32) * (flat > 0)
    heat = np.zeros((height, width), np.float32)
    there = 1 + np.flatnonzero(areas[1 : count + 1])
    _peaks(np.rint(middle_y[there]).astype(np.int64), np.rint(middle_x[there]).astype(np.int64), float(sigma), heat)
    return heat, offsets.reshape(2, height, width), areas[1 : count + 1]


@njit(cache=True, nogil=True)
def _candidates(points, down, along):
    """For each cell the centers that no other one is nearer than everywhere in it, in their order."""
    count = len(points)
    starts = np.zeros(down * along + 1, np.int64)
    lists = np.empty(down * along * 4 + count, np.int32)
    used = 0
    near = np.empty(count, np.float32)
    for row in range(down):
        for column in range(along):
            top, left = np.float32(row * _SIDE), np.float32(column * _SIDE)
            bottom, right = top + np.float32(_SIDE), left + np.float32(_SIDE)
            least = np.float32(np.inf)
            for k in range(count):
                y, x = points[k, 0], points[k, 1]
                dy = max(top - y, y - bottom, np.float32(0))
                dx = max(left - x, x - right, np.float32(0))
                near[k] = dy * dy + dx * dx
                fy, fx = max(abs(y - top), abs(y - bottom)), max(abs(x - left), abs(x - right))
                least = min(least, fy * fy + fx * fx)
            for k in range(count):
                if near[k] <= least * np.float32(1.0001):
                    if used == len(lists):
                        larger = np.empty(2 * len(lists), np.int32)
                        larger[:used] = lists
                        lists = larger
                    lists[used] = k
                    used += 1
            starts[row * along + column + 1] = used
    return starts, lists


@njit(cache=True, nogil=True)
def _assign(points, offsets, inside, starts, lists, down, along):
    height, width = inside.shape
    out = np.zeros((height, width), np.int32)
    for row in range(height):
        for column in range(width):
            if not inside[row, column]:
                continue
            y, x = np.float32(row) + offsets[0, row, column], np.float32(column) + offsets[1, row, column]
            best, least = 0, np.float32(np.inf)
            if 0 <= y < down * _SIDE and 0 <= x < along * _SIDE:
                cell = int(y) // _SIDE * along + int(x) // _SIDE
                for i in range(starts[cell], starts[cell + 1]):
                    k = lists[i]
                    dy, dx = points[k, 0] - y, points[k, 1] - x
                    far = dy * dy + dx * dx
                    if far < least:
                        best, least = k, far
            else:
                for k in range(len(points)):
                    dy, dx = points[k, 0] - y, points[k, 1] - x
                    far = dy * dy + dx * dx
                    if far < least:
                        best, least = k, far
            out[row, column] = best + 1
    return out


@njit(cache=True, nogil=True)
def _peaks(rows, columns, sigma, heat):
    """The largest of Gaussians around (rows, columns), each cut off after 3 sigma + 1 pixels."""
    height, width = heat.shape
    reach = int(3 * sigma + 1)
    line = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma * sigma))
    for k in range(len(rows)):
        for row in range(max(0, rows[k] - reach), min(height, rows[k] + reach + 1)):
            for column in range(max(0, columns[k] - reach), min(width, columns[k] + reach + 1)):
                value = np.float32(line[abs(row - rows[k])] * line[abs(column - columns[k])])
                if value > heat[row, column]:
                    heat[row, column] = value
