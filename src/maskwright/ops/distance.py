"""Exact Euclidean distances between the pixels of binary arrays, and their surfaces. No torch here.

Arrays have any number of axes; ``spacing`` is the distance between neighbors along each of them, in the unit that
distances then have (millimeters, or pixels where it is left out).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]

_POINTS_WORTH_A_TREE = 64  # pixels of the transform that cost about as much as one point of the tree


def distance_to(mask: Flags, spacing: Sequence[float] | None = None) -> NDArray[np.float64]:
    """The distance of each pixel to the nearest one that is set: float64, 0 where set, infinite where none is.

    Raises:
        ValueError: ``spacing`` is not one positive number for each axis.
    """
    steps = spacing_of(spacing, mask.ndim)
    if not mask.any():
        return np.full(mask.shape, np.inf)
    from scipy.ndimage import distance_transform_edt

    out: Any = distance_transform_edt(~np.asarray(mask, bool), sampling=steps)
    return out


def surface(mask: Flags, *, edge: bool = True) -> Flags:
    """The pixels of ``mask`` beside a pixel outside of it, along an axis (4 neighbors in a plane, 6 in a volume).

    Args:
        mask: bool, any number of axes.
        edge: what lies beyond the array is outside; otherwise its edge is no surface.
    """
    flags = np.asarray(mask, bool)
    inside = flags.copy()
    for axis in range(flags.ndim):
        near = np.moveaxis(inside, axis, 0)
        its = np.moveaxis(flags, axis, 0)
        near[1:] &= its[:-1]
        near[:-1] &= its[1:]
        if edge and len(near):
            near[0] = False
            near[-1] = False
    return flags & ~inside


def changes(mask: Flags) -> Flags:
    """The pixels of a plane that differ from a neighbor right, below or right below: boundaries half a pixel off.

    It is the map that D. Martin's ``seg2bmap`` makes at full size; DAVIS compares such maps (F. Perazzi et al., "A
    Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016). The last row looks right
    only, the last column down only.
    """
    flags = np.asarray(mask, bool)
    if flags.ndim != 2:
        raise ValueError(f"this needs a plane [H, W], got shape {flags.shape}")
    out = np.zeros(flags.shape, bool)
    for down, right in product((0, 1), repeat=2):
        here = flags[: flags.shape[0] - down, : flags.shape[1] - right]
        out[: here.shape[0], : here.shape[1]] |= here != flags[down:, right:]
    # The loop reaches the last row and column with the neighbors that exist there, as the rule asks.
    return out


def nearest(
    start: NDArray[np.int64], goal: NDArray[np.int64], spacing: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """The distance from each point of ``start`` to the nearest of ``goal``: float64 [N], infinite without a goal.

    Equal to what ``distance_to`` has at those places. Small boxes are transformed as a whole; large ones with few
    points in them are searched by a tree.

    Args:
        start: int64 [N, axes], places of pixels. goal: int64 [M, axes].
        spacing: as for the whole module.

    Raises:
        ValueError: ``spacing`` is not one positive number for each axis.
    """
    steps = np.array(spacing_of(spacing, start.shape[1]))
    if not len(start) or not len(goal):
        return np.full(len(start), np.inf)
    low = np.minimum(start.min(0), goal.min(0))
    shape = np.maximum(start.max(0), goal.max(0)) - low + 1
    if shape.prod() <= _POINTS_WORTH_A_TREE * (len(start) + len(goal)):
        there = np.zeros(shape, bool)
        there[tuple((goal - low).T)] = True
        return distance_to(there, steps.tolist())[tuple((start - low).T)]
    from scipy.spatial import KDTree

    tree: Any = KDTree(goal * steps)
    _, places = tree.query(start * steps)
    # Distances of the tree are those of rounded coordinates; these are those of whole steps.
    return np.sqrt((((start - goal[places]) * steps) ** 2).sum(1))


def spacing_of(spacing: Sequence[float] | None, axes: int) -> tuple[float, ...]:
    """``spacing`` as one number for each axis, 1 where it is left out.

    Raises:
        ValueError: they are not positive, finite, or as many as there are axes.
    """
    steps = (1.0,) * axes if spacing is None else tuple(float(step) for step in spacing)
    if len(steps) != axes or not all(0 < step < np.inf for step in steps):
        raise ValueError(f"spacing must be a positive number for each of {axes} axes, got {spacing}")
    return steps
