"""Polygons to run-lengths exactly as COCO rasterizes them, and run-lengths back to outlines. No torch here.

Polygons are float64 [K, 2] arrays of (x, y) in pixels; pixel (row, column) covers [column, column + 1) by
[row, row + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskwright.errors import InputError
from maskwright.ops.rle_core import Counts, canvas, checked
from maskwright.ops.rle_pairs import union

Polygon = NDArray[np.float64]

FARTHEST = 1e8
"""Coordinates beyond this are a broken file (pycocotools overflows its integers at 4e8)."""


def rasterize(polygons: Sequence[NDArray[np.floating]], size: Sequence[int]) -> Counts:
    """The runs int32 [R] of one mask: the union of ``polygons`` on ``size`` (H, W), as pycocotools draws it.

    COCO's rule (``frPyObjects`` then ``merge``): vertices are rounded to a grid five times as fine; edges are walked on
    it; a pixel column changes at the row where an edge passes the column's center line. Each polygon is filled by the
    even-odd rule, then their union is taken, so a hole cannot be said this way (see ``fill_outlines``).

    Raises:
        InputError: naming the polygon that has fewer than 3 points, is not [K, 2], or is not finite; or no polygons.
    """
    height, width = _plane(size)
    points, cuts = _packed(polygons)
    if len(cuts) == 1:
        raise InputError("a mask needs at least one polygon, got none. Skip objects without an outline.")
    places, parts = _fine_crossings(points, cuts, height, width)
    for begin, end in pairwise(parts.tolist()):
        places[begin:end].sort()
    counts, offsets = _between(places, parts, height * width)
    return counts if len(cuts) == 2 else union(counts, offsets)


def fill_outlines(polygons: Sequence[NDArray[np.floating]], size: Sequence[int]) -> Counts:
    """The runs int32 [R] of one mask: pixels whose centers lie inside an odd number of rings; holes are just rings.

    Undoes ``outlines`` exactly: ``fill_outlines(outlines(counts, size), size)`` is ``counts``. No rings: an empty mask.

    Raises:
        InputError: naming the polygon that has fewer than 3 points, is not [K, 2], or is not finite.
    """
    height, width = _plane(size)
    places = _crossings(*_packed(polygons), height, width)
    return _between(np.sort(places), np.array([0, len(places)], np.int64), height * width)[0]


def outlines(counts: NDArray[np.integer], size: Sequence[int]) -> list[Polygon]:
    """The boundary of one mask along pixel edges: float64 [K, 2] rings of whole-numbered (x, y), corners only.

    Outer rings have positive ``signed_area``, holes negative (an outer ring runs clockwise as one sees it, the mask at
    its right hand). Pixels that touch only at a corner belong to separate rings, so no ring crosses itself. Outer rings
    come before the holes. A mask without holes is also what ``rasterize`` makes of its outlines.

    Args:
        counts: int32 [R], the runs of one mask.
        size: (H, W).

    Raises:
        InputError: the runs do not fit ``size``.
    """
    height, width = _plane(size)
    flat, _ = checked(counts, np.array([0, len(counts)], np.int64), height * width)
    points, cuts = _trace(flat, height, width)
    rings = [points[begin:end] for begin, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]
    return sorted(rings, key=lambda ring: signed_area(ring) < 0)


def signed_area(polygon: NDArray[np.floating]) -> float:
    """The area of a ring [K, 2] in square pixels; negative for the holes that ``outlines`` returns."""
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))


def _plane(size: Sequence[int]) -> tuple[int, int]:
    _, height, width = canvas(size)
    if len(size) != 2:
        raise InputError(f"polygons lie on (H, W), got size {tuple(size)}.")
    return height, width


def _packed(polygons: Sequence[NDArray[np.floating]]) -> tuple[Polygon, NDArray[np.int64]]:
    """All points in one array, and where each polygon's begin."""
    parts: list[Polygon] = []
    for i, polygon in enumerate(polygons):
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"polygon {i} must be numbers [K, 2], got {polygon!r:.60}.") from None
        if points.ndim != 2 or points.shape[1] != 2:
            raise InputError(f"polygon {i} must have shape (K, 2), got {points.shape}. Reshape a flat list to (-1, 2).")
        if len(points) < 3:
            raise InputError(f"polygon {i} must have at least 3 points, got {len(points)}. Remove it, or use a box.")
        if not (np.abs(points) <= FARTHEST).all():
            wild = points[~(np.abs(points) <= FARTHEST).all(1)][0].tolist()
            raise InputError(f"polygon {i} must have finite points within {FARTHEST:.0e} pixels, got {wild}.")
        parts.append(points)
    cuts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return (np.ascontiguousarray(np.concatenate(parts)) if parts else np.zeros((0, 2))), cuts


# ---- COCO's rule ----------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _fine_crossings(points, cuts, height, width):
    """Where each polygon crosses the center lines of pixel columns by COCO's rule; not sorted."""
    # COCO walks every step of every edge on the fine grid. Only steps from fine column 5 X + 2 to 5 X + 3 ever count
    # (the center of pixel column X lies between them), so those are computed directly, with the same rounding.
    number = len(cuts) - 1
    parts = np.zeros(number + 1, np.int64)
    places = np.empty(256, np.int64)
    found = 0
    for n in range(number):
        begin, size = cuts[n], cuts[n + 1] - cuts[n]
        for k in range(size):
            follow = k + 1 if k + 1 < size else 0
            xs, ys = np.int64(5 * points[begin + k, 0] + 0.5), np.int64(5 * points[begin + k, 1] + 0.5)
            xe, ye = np.int64(5 * points[begin + follow, 0] + 0.5), np.int64(5 * points[begin + follow, 1] + 0.5)
            dx, dy = abs(xe - xs), abs(ye - ys)
            if dx == 0:
                continue
            flat = dx >= dy
            if (flat and xs > xe) or (not flat and ys > ye):
                xs, ys, xe, ye = xe, ye, xs, ys
            slope = (ye - ys) / dx if flat else (xe - xs) / dy
            left, right = min(xs, xe), max(xs, xe)
            first = max(np.int64(0), (left - 2) // 5)
            final = min(np.int64(width - 1), (right - 3) // 5)
            if found + final - first + 1 > len(places):
                grown = np.empty(max(2 * len(places), found + final - first + 1), np.int64)
                grown[:found] = places[:found]
                places = grown
            for column in range(first, final + 1):
                inner = 5 * column + 2
                if inner < left or inner + 1 > right:
                    continue
                if flat:
                    t = inner - xs
                    fine = min(np.int64(ys + slope * t + 0.5), np.int64(ys + slope * (t + 1) + 0.5))
                else:
                    fine = ys + _step_across(xs, slope, inner, dy) - 1
                row = (fine + 0.5) / 5 - 0.5
                row = min(max(row, 0.0), np.float64(height))
                places[found] = column * height + np.int64(np.ceil(row))
                found += 1
        parts[n + 1] = found
    return places[:found].copy(), parts


@njit(cache=True, nogil=True)
def _step_across(xs, slope, inner, steps):
    """The first step t of a steep edge at which its fine column has passed between ``inner`` and ``inner + 1``."""
    if slope > 0:
        t = min(max(np.int64((inner + 0.5 - xs) / slope), np.int64(1)), steps)
        while t > 1 and np.int64(xs + slope * (t - 1) + 0.5) >= inner + 1:
            t -= 1
        while t < steps and np.int64(xs + slope * t + 0.5) < inner + 1:
            t += 1
    else:
        t = min(max(np.int64((inner + 0.5 - xs) / slope), np.int64(1)), steps)
        while t > 1 and np.int64(xs + slope * (t - 1) + 0.5) <= inner:
            t -= 1
        while t < steps and np.int64(xs + slope * t + 0.5) > inner:
            t += 1
    return t


@njit(cache=True, nogil=True)
def _between(places, parts, pixels):
    """Runs of one mask per part, which change at its sorted places; an even number of changes at one place is none."""
    out = np.empty(len(places) + len(parts), np.int32)
    offsets = np.zeros(len(parts), np.int64)
    used = 0
    for n in range(len(parts) - 1):
        written, k = np.int64(0), parts[n]
        while k < parts[n + 1]:
            same = k + 1
            while same < parts[n + 1] and places[same] == places[k]:
                same += 1
            if (same - k) % 2 == 1 and places[k] < pixels:
                out[used] = places[k] - written
                used += 1
                written = places[k]
            k = same
        out[used] = pixels - written
        used += 1
        offsets[n + 1] = used
    return out[:used].copy(), offsets


@njit(cache=True, nogil=True)
def _crossings(points, cuts, height, width):
    """Where rings cross the center lines of pixel columns: positions, column by column, of the first pixel below."""
    places = np.empty(256, np.int64)
    found = 0
    for n in range(len(cuts) - 1):
        begin, size = cuts[n], cuts[n + 1] - cuts[n]
        for k in range(size):
            follow = k + 1 if k + 1 < size else 0
            xs, ys = points[begin + k, 0], points[begin + k, 1]
            xe, ye = points[begin + follow, 0], points[begin + follow, 1]
            if xs == xe:
                continue
            if xs > xe:  # an edge must give the same rows whichever way it is walked
                xs, ys, xe, ye = xe, ye, xs, ys
            first = max(np.int64(0), np.int64(np.ceil(xs - 0.5)))
            beyond = min(np.int64(width), np.int64(np.ceil(xe - 0.5)))
            if found + beyond - first > len(places):
                grown = np.empty(max(2 * len(places), found + beyond - first), np.int64)
                grown[:found] = places[:found]
                places = grown
            for column in range(first, beyond):
                row = np.ceil(ys + (ye - ys) * ((column + 0.5 - xs) / (xe - xs)) - 0.5)
                places[found] = column * height + np.int64(min(max(row, 0.0), np.float64(height)))
                found += 1
    return places[:found].copy()


# ---- boundaries -----------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _pieces(counts, height, width):
    """Foreground cut at column ends: rows [top, bottom) and column of each piece, and where a column's pieces begin."""
    total, position = 0, np.int64(0)
    for k in range(len(counts)):
        if k % 2 == 1 and counts[k] > 0:
            total += (position + counts[k] - 1) // height - position // height + 1
        position += counts[k]
    top = np.empty(total, np.int64)
    bottom = np.empty(total, np.int64)
    column = np.empty(total, np.int64)
    starts = np.zeros(width + 1, np.int64)
    used, position = 0, np.int64(0)
    for k in range(len(counts)):
        end = position + counts[k]
        while k % 2 == 1 and position < end:
            c = position // height
            stop = min(end, (c + 1) * height)
            if used > 0 and column[used - 1] == c and bottom[used - 1] == position - c * height:
                bottom[used - 1] = stop - c * height
            else:
                top[used], bottom[used], column[used] = position - c * height, stop - c * height, c
                starts[c + 1] += 1
                used += 1
            position = stop
        position = end
    return top[:used], bottom[:used], column[:used], np.cumsum(starts)


@njit(cache=True, nogil=True)
def _last_with_top_at_most(top, low, high, row):
    """The last piece in [low, high) that starts at or above ``row``; low - 1 if none."""
    while low < high:
        middle = (low + high) // 2
        if top[middle] <= row:
            low = middle + 1
        else:
            high = middle
    return low - 1


@njit(cache=True, nogil=True)
def _trace(counts, height, width):
    # A piece (a run within one column) has two horizontal edges: its top is walked rightwards, its bottom leftwards, so
    # that the mask stays at the right hand. Where each leads to follows from the pieces of the next column alone; at a
    # corner where two pixels touch diagonally the walk turns right, which keeps them apart.
    top, bottom, column, starts = _pieces(counts, height, width)
    number = len(top)
    seen = np.zeros(2 * number, np.bool_)  # tops, then bottoms
    points = np.empty((max(4 * number, 1), 2), np.float64)  # at most two corners after each edge
    cuts = np.empty(number + 1, np.int64)
    cuts[0] = 0
    rings, used = 0, 0
    for begin in range(number):
        if seen[begin]:
            continue
        edge = begin
        while not seen[edge]:
            seen[edge] = True
            if edge < number:
                i = edge
                x, y = column[i] + 1, top[i]
                low, high = (starts[x], starts[x + 1]) if x < width else (0, 0)
                j = _last_with_top_at_most(top, low, high, y)
                if j >= low and bottom[j] > y:  # the next column is foreground here
                    above = i > starts[column[i]] and bottom[i - 1] > top[j]
                    following = number + i - 1 if above else j
                elif j + 1 < high and top[j + 1] < bottom[i]:
                    following = j + 1
                else:
                    following = number + i
            else:
                i = edge - number
                x, y = column[i], bottom[i]
                low, high = (starts[x - 1], starts[x]) if x > 0 else (0, 0)
                j = _last_with_top_at_most(top, low, high, y - 1)
                if j >= low and bottom[j] > y - 1:  # the column before is foreground here
                    below = i + 1 < starts[column[i] + 1] and top[i + 1] < bottom[j]
                    following = i + 1 if below else number + j
                elif j >= low and bottom[j] > top[i]:
                    following = number + j
                else:
                    following = i
            target = top[following] if following < number else bottom[following - number]
            if target != y:
                points[used, 0], points[used, 1] = x, y
                points[used + 1, 0], points[used + 1, 1] = x, target
                used += 2
            edge = following
        rings += 1
        cuts[rings] = used
    return points[:used].copy(), cuts[: rings + 1]
