# pyright: basic
"""Maps of ids and run-lengths: one pass from a map to the masks of all its values, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskwright.errors import InputError
from maskwright.ops.rle_core import Runs, canvas, checked


def encode_map(ids: NDArray[np.integer], values: NDArray[np.integer]) -> Runs:
    """The runs of ``ids == value`` for each of ``values``, all in one pass.

    Args:
        ids: integers [H, W].
        values: [N], distinct.

    Raises:
        InputError: the map has no two axes, or values repeat.
    """
    wanted = np.asarray(values, np.int64).reshape(-1)
    if ids.ndim != 2:
        raise InputError(f"a map must have shape [H, W], got {ids.shape}")
    canvas(ids.shape)
    order = np.argsort(wanted, kind="stable")
    rising = wanted[order]
    if (rising[1:] == rising[:-1]).any():
        raise InputError("the values to cut out of a map must be distinct")
    if len(wanted) == 0:
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    # Short walks down the columns are slow in rows; one transposed copy is not.
    columns = np.ascontiguousarray(ids.T, np.int64).reshape(-1)
    starts, ends, slots = _stretches(columns, rising)
    slots = order[slots]
    by_mask = np.argsort(slots, kind="stable")
    return _runs(starts[by_mask], ends[by_mask], np.bincount(slots, minlength=len(wanted)), columns.size)


def paint_map(
    counts: NDArray[np.integer], offsets: NDArray[np.integer], size: Sequence[int], values: NDArray[np.integer],
    background: int = 0,
) -> NDArray[np.int64]:  # fmt: skip
    """A map int64 [H, W] with ``values[i]`` where mask ``i`` is; later masks cover earlier ones.

    Raises:
        InputError: runs that do not fill ``size``.
    """
    frames, height, width = canvas(size)
    runs, cuts = checked(counts, offsets, frames * height * width)
    out = np.full(frames * height * width, background, np.int64)
    _paint(runs, cuts, np.ascontiguousarray(values, np.int64), out)
    return np.ascontiguousarray(out.reshape(frames, width, height).swapaxes(1, 2)).reshape(tuple(size))


def renumber(
    ids: NDArray[np.integer], old: NDArray[np.integer], new: NDArray[np.integer], other: int = 0
) -> NDArray[np.int64]:
    """A map int64 of the shape of ``ids``: each of ``old`` [N], distinct, becomes its ``new``; the rest ``other``."""
    if len(old) == 0:
        return np.full(ids.shape, other, np.int64)
    order = np.argsort(old)
    rising = np.asarray(old, np.int64)[order]
    rank = np.minimum(np.searchsorted(rising, ids), len(rising) - 1)
    return np.where(rising[rank] == ids, np.asarray(new, np.int64)[order][rank], other)


@njit(cache=True, nogil=True)
def _stretches(flat, values):
    """Begin, end and rank in ``values`` of each stretch of equal pixels whose value is among them."""
    starts, ends, slots = [], [], []
    at = 0
    while at < len(flat):
        value, first = flat[at], at
        while at < len(flat) and flat[at] == value:
            at += 1
        rank = np.searchsorted(values, value)
        if rank < len(values) and values[rank] == value:
            starts.append(first)
            ends.append(at)
            slots.append(rank)
    return np.array(starts, np.int64), np.array(ends, np.int64), np.array(slots, np.int64)


@njit(cache=True, nogil=True)
def _runs(starts, ends, many, pixels):
    """Runs of masks that own ``many`` stretches each, in order; stretches of one mask never touch."""
    out = np.empty(2 * len(starts) + len(many), np.int32)
    offsets = np.zeros(len(many) + 1, np.int64)
    used, k = 0, 0
    for i in range(len(many)):
        at = 0
        for _ in range(many[i]):
            out[used] = starts[k] - at
            out[used + 1] = ends[k] - starts[k]
            at = ends[k]
            used += 2
            k += 1
        if at < pixels or many[i] == 0:
            out[used] = pixels - at
            used += 1
        offsets[i + 1] = used
    return out[:used].copy(), offsets


@njit(cache=True, nogil=True)
def _paint(counts, offsets, values, out):
    for i in range(len(offsets) - 1):
        at = 0
        for r in range(offsets[i], offsets[i + 1]):
            if (r - offsets[i]) % 2 == 1:
                out[at : at + counts[r]] = values[i]
            at += counts[r]
