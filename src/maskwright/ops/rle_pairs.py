"""Run-lengths in pairs and in sum: intersections, IoU, union, intersection. Users import ``maskwright.ops.rle``."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskwright.errors import InputError
from maskwright.ops.rle_core import Counts, area, arrays, checked


def intersection(
    counts_a: NDArray[np.integer],
    offsets_a: NDArray[np.integer],
    counts_b: NDArray[np.integer],
    offsets_b: NDArray[np.integer],
    *,
    height: int | None = None,
) -> NDArray[np.int64]:
    """Common pixels int64 [N, M] of masks on one canvas.

    Args:
        counts_a, offsets_a: N masks.
        counts_b, offsets_b: M masks.
        height: rows of the canvas, if known: pairs whose boxes do not meet are then skipped by rows too, not only by
            columns. The result is the same.
    """
    rows = 0 if height is None else int(height)
    first = _intervals(*arrays(counts_a, offsets_a), rows)
    second = _intervals(*arrays(counts_b, offsets_b), rows)
    return _intersection(*first, *second)


def iou(
    counts_a: NDArray[np.integer],
    offsets_a: NDArray[np.integer],
    counts_b: NDArray[np.integer],
    offsets_b: NDArray[np.integer],
    crowd: NDArray[np.bool_] | None = None,
    *,
    height: int | None = None,
) -> NDArray[np.float64]:
    """Mask IoU float64 [N, M]; where ``crowd`` bool [M] is set, intersection over the area of ``a``, as COCO does.

    Args:
        counts_a, offsets_a: N masks (detections).
        counts_b, offsets_b: M masks (truth).
        crowd: which of the M stand for many objects.
        height: as in ``intersection``.

    Raises:
        InputError: ``crowd`` is not [M].
    """
    common = intersection(counts_a, offsets_a, counts_b, offsets_b, height=height)
    own, other = area(counts_a, offsets_a), area(counts_b, offsets_b)
    whole = own[:, None] + other[None, :] - common
    if crowd is not None:
        flags = np.asarray(crowd, dtype=np.bool_)
        if flags.shape != other.shape:
            raise InputError(f"crowd must be one flag for each of the {len(other)} masks, got shape {flags.shape}.")
        whole = np.where(flags[None, :], own[:, None], whole)
    return common / np.where(common == 0, 1, whole)


def union(counts: NDArray[np.integer], offsets: NDArray[np.integer]) -> Counts:
    """The runs int32 [R] of one mask: the pixels of any of the N masks.

    Raises:
        InputError: there are no masks (the canvas is unknown then), or they are of different canvases.
    """
    return _covered(counts, offsets, every=False)


def intersect(counts: NDArray[np.integer], offsets: NDArray[np.integer]) -> Counts:
    """The runs int32 [R] of one mask: the pixels common to all N masks. Raises as ``union`` does."""
    return _covered(counts, offsets, every=True)


def _covered(counts: NDArray[np.integer], offsets: NDArray[np.integer], *, every: bool) -> Counts:
    flat, cuts = arrays(counts, offsets)
    if len(cuts) < 2:
        raise InputError("a union or intersection needs at least one mask, got none. An empty one is [H * W].")
    pixels = int(flat[: cuts[1]].sum(dtype=np.int64))
    flat, cuts = checked(flat, cuts, pixels)
    starts, ends, *_ = _intervals(flat, cuts, 0)
    return _sweep(np.sort(starts), np.sort(ends), len(cuts) - 1 if every else 1, pixels, every)


@njit(cache=True, nogil=True)
def _intervals(counts, offsets, height):
    """Foreground as [start, end) with neighbors joined; where each mask's lie; its rows (all rows if height is 0)."""
    number = len(offsets) - 1
    starts = np.empty(len(counts) // 2 + number, np.int64)
    ends = np.empty(len(counts) // 2 + number, np.int64)
    cuts = np.zeros(number + 1, np.int64)
    rows = np.zeros((number, 2), np.int64)
    used = 0
    for i in range(number):
        position, begin = np.int64(0), used
        top, bottom = np.int64(2**62), np.int64(0)
        for k in range(offsets[i], offsets[i + 1]):
            length = np.int64(counts[k])
            if (k - offsets[i]) % 2 == 1 and length > 0:
                if used > begin and ends[used - 1] == position:
                    ends[used - 1] += length
                else:
                    starts[used] = position
                    ends[used] = position + length
                    used += 1
                if height > 0:
                    y = position % height
                    if y + length > height:
                        top, bottom = np.int64(0), np.int64(height)
                    else:
                        top, bottom = min(top, y), max(bottom, y + length)
            position += length
        cuts[i + 1] = used
        rows[i, 0], rows[i, 1] = (top, bottom) if height > 0 else (np.int64(0), np.int64(1))
    return starts[:used], ends[:used], cuts, rows


@njit(cache=True, nogil=True)
def _first_after(ends, low, high, position):
    while low < high:
        middle = (low + high) // 2
        if ends[middle] > position:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True, nogil=True)
def _intersection(starts_a, ends_a, cuts_a, rows_a, starts_b, ends_b, cuts_b, rows_b):
    out = np.zeros((len(cuts_a) - 1, len(cuts_b) - 1), np.int64)
    for n in range(out.shape[0]):
        a0, a1 = cuts_a[n], cuts_a[n + 1]
        if a0 == a1:
            continue
        for m in range(out.shape[1]):
            b0, b1 = cuts_b[m], cuts_b[m + 1]
            if b0 == b1 or rows_a[n, 0] >= rows_b[m, 1] or rows_b[m, 0] >= rows_a[n, 1]:
                continue
            if starts_a[a0] >= ends_b[b1 - 1] or starts_b[b0] >= ends_a[a1 - 1]:
                continue
            i = _first_after(ends_a, a0, a1, starts_b[b0])
            j = _first_after(ends_b, b0, b1, starts_a[a0])
            total = np.int64(0)
            while i < a1 and j < b1:  # without branches in the body: their outcome is a coin toss
                end_a, end_b = ends_a[i], ends_b[j]
                total += max(np.int64(0), min(end_a, end_b) - max(starts_a[i], starts_b[j]))
                step = np.int64(end_a < end_b)
                i += step
                j += 1 - step
            out[n, m] = total
    return out


@njit(cache=True, nogil=True)
def _sweep(starts, ends, needed, pixels, every):
    """Runs of where at least ``needed`` (1, or all masks) intervals overlap; starts and ends each sorted."""
    out = np.empty(2 * len(starts) + 1, np.int32)
    used, written, depth, j, begin = 0, np.int64(0), 0, 0, np.int64(0)
    for i in range(len(starts) + 1):
        here = starts[i] if i < len(starts) else np.int64(2**62)
        # Where one interval ends and another starts: a union goes on there, so the start comes first; an intersection
        # has ended, so the end does.
        while j < len(ends) and (ends[j] < here or (every and ends[j] == here)):
            if depth == needed:
                out[used] = begin - written
                out[used + 1] = ends[j] - begin
                used += 2
                written = ends[j]
            depth -= 1
            j += 1
        if i < len(starts):
            depth += 1
            if depth == needed:
                begin = here
    if written < pixels or used == 0:
        out[used] = pixels - written
        used += 1
    return out[:used].copy()
