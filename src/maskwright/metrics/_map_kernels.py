# pyright: basic
# Numba infers the types here: pointers and int64 throughout, as the signatures in KERNELS say.
"""Kernels on maps of segment ids: count the pairs of two maps, keep the rims of segments, match segments.

Pairs are counted by runs: where neither map changes over a block of pixels nothing is looked up, so the time is that of
reading the maps once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

FULL = -1
INSIDE = -1
ODD = 1 << 40
_WIDE, _BLOCK = 32, 8  # pixels looked at together

helper = njit(nogil=True, error_model="numpy")


@helper
def add(table, capacity, used, first, second, pixels):
    """Count ``pixels`` of a pair in an open hash table [capacity, 3]; how many rows it uses now, or ``FULL``."""
    mixed = np.uint64(first) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(second) * np.uint64(0xC2B2AE3D27D4EB4F)
    slot = np.int64((mixed ^ mixed >> np.uint64(29)) & np.uint64(capacity - 1))
    while table[3 * slot + 2] != 0:
        if table[3 * slot] == first and table[3 * slot + 1] == second:
            table[3 * slot + 2] += pixels
            return used
        slot = (slot + 1) & (capacity - 1)
    if 2 * (used + 1) > capacity:
        return FULL
    table[3 * slot], table[3 * slot + 1], table[3 * slot + 2] = first, second, pixels
    return used + 1


@helper
def changes(first, second, at, length):
    """Whether one of ``length`` pixels from ``at`` on differs from the pixel before it, in either map."""
    found = first[at] ^ first[at - 1]
    for i in range(length):
        found |= (first[at + i] ^ first[at + i - 1]) | (second[at + i] ^ second[at + i - 1])
    return found != 0


def count(first, second, total, table, capacity):
    """Count the pairs of two maps of ``total`` pixels; how many there are, moved to the top of the table, or ``FULL``.

    ``table``: int64 [capacity, 3], zeros: first id, second id, pixels. ``capacity`` is a power of two.
    """
    if total == 0:
        return 0
    used, begin = 0, 0
    for wide in range(1, total, _WIDE):
        if wide + _WIDE <= total and not changes(first, second, wide, _WIDE):
            continue
        for block in range(wide, min(wide + _WIDE, total), _BLOCK):
            if block + _BLOCK <= total and not changes(first, second, block, _BLOCK):
                continue
            for i in range(block, min(block + _BLOCK, total)):
                if (first[i] ^ first[i - 1]) | (second[i] ^ second[i - 1]) != 0:
                    used = add(table, capacity, used, np.int64(first[begin]), np.int64(second[begin]), i - begin)
                    if used < 0:
                        return FULL
                    begin = i
    used = add(table, capacity, used, np.int64(first[begin]), np.int64(second[begin]), total - begin)
    if used < 0:
        return FULL
    top = 0
    for slot in range(capacity):
        if table[3 * slot + 2] != 0:
            for i in range(3):
                table[3 * top + i] = table[3 * slot + i]
            top += 1
    return used


def rims(ids, height, width, reach, deep, out):
    """Copy a map and set to ``INSIDE`` what lies more than ``reach`` pixels (Chebyshev) from other ids and the frame.

    Pixels of id 0 stay 0. ``deep``: int64 [width].
    """
    for x in range(width):
        deep[x] = 0
    for i in range(height * width):
        out[i] = ids[i]
    for y in range(height):
        row = y * width
        begin = 0
        while begin < width:
            end = begin + 1
            while end < width and ids[row + end] == ids[row + begin]:
                end += 1
            for x in range(begin, min(begin + reach, end)):
                deep[x] = 0
            for x in range(max(end - reach, begin), end):
                deep[x] = 0
            for x in range(begin + reach, end - reach):
                # How many rows, this the last, have only this id within reach to both sides
                deep[x] = deep[x] + 1 if y > 0 and ids[row + x] == ids[row + x - width] else 1
                if deep[x] > 2 * reach and ids[row + x] != 0:
                    out[row + x - reach * width] = INSIDE
            begin = end
    return 0


@helper
def place_of(ids, order, count, wanted):
    """Where ``wanted`` stands in ``ids``, which ``order`` sorts; -1 where it does not."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if ids[order[middle]] < wanted:
            low = middle + 1
        else:
            high = middle
    return order[low] if low < count and ids[order[low]] == wanted else -1


def tally(
    pairs, count, rims, rim_count, t_ids, t_order, t_labels, t_crowd, t_areas, count_t,
    p_ids, p_order, p_labels, count_p, classes, work, sums, out,
):  # fmt: skip
    """Match segments and count for each class; the number of rows, plus ``ODD`` where maps and lists do not agree.

    ``pairs``, ``rims``: int64 [., 3], ids of truth and prediction, rising, and pixels; ``rim_count`` -1 for none.
    ``order`` sorts ids. ``t_areas``: -1 where pixels count. ``work``: int64 zeros [2 * count + 3 * T + 6 * P +
    classes], ``sums``: float64 zeros [classes, 4]. ``out``: float64 [T + P, 5]: class, sum of IoU, TP, FP, FN.
    """
    at_t, at_p, t_pixels = 0, count, 2 * count
    t_hit, t_rim = t_pixels + count_t, t_pixels + 2 * count_t
    p_pixels = t_pixels + 3 * count_t
    outside, excused, p_hit = p_pixels + count_p, p_pixels + 2 * count_p, p_pixels + 3 * count_p
    p_rim, rim_outside, last = p_pixels + 4 * count_p, p_pixels + 5 * count_p, p_pixels + 6 * count_p
    odd = 0
    for i in range(count):
        t = place_of(t_ids, t_order, count_t, pairs[3 * i])
        p = place_of(p_ids, p_order, count_p, pairs[3 * i + 1])
        work[at_t + i], work[at_p + i] = t, p
        if (t < 0 and pairs[3 * i] != 0) or (p < 0 and pairs[3 * i + 1] != 0):
            odd = ODD
        if t >= 0:
            work[t_pixels + t] += pairs[3 * i + 2]
        if p >= 0:
            work[p_pixels + p] += pairs[3 * i + 2]
            if t < 0:
                work[outside + p] += pairs[3 * i + 2]
    for t in range(count_t):
        if t_labels[t] < 0 or t_labels[t] >= classes:
            return ODD
        if work[t_pixels + t] == 0 or 0 <= t_areas[t] < work[t_pixels + t]:
            odd = ODD
        if t_crowd[t] != 0 and work[t_pixels + t] > 0:
            work[last + t_labels[t]] = t + 1
    for p in range(count_p):
        if p_labels[p] < 0 or p_labels[p] >= classes:
            return ODD
        if work[p_pixels + p] == 0:
            odd = ODD
    for i in range(rim_count):
        # Inside of a segment, or in one that is not listed, a pixel is on no rim.
        t = place_of(t_ids, t_order, count_t, rims[3 * i])
        p = place_of(p_ids, p_order, count_p, rims[3 * i + 1])
        if t >= 0:
            work[t_rim + t] += rims[3 * i + 2]
        if p >= 0:
            work[p_rim + p] += rims[3 * i + 2]
            if rims[3 * i] == 0 or (t < 0 and rims[3 * i] != INSIDE):
                work[rim_outside + p] += rims[3 * i + 2]
    r = 0
    for i in range(count):
        t, p, n = work[at_t + i], work[at_p + i], pairs[3 * i + 2]
        if t < 0 or p < 0 or t_labels[t] != p_labels[p]:
            continue
        if t_crowd[t] != 0:
            if work[last + t_labels[t]] == t + 1:
                work[excused + p] += n
            continue
        area = t_areas[t] if t_areas[t] >= 0 else work[t_pixels + t]
        iou = n / (work[p_pixels + p] + area - n - work[outside + p])
        if rim_count >= 0:
            while r < rim_count and (
                rims[3 * r] < pairs[3 * i] or (rims[3 * r] == pairs[3 * i] and rims[3 * r + 1] < pairs[3 * i + 1])
            ):
                r += 1
            n = 0
            if r < rim_count and rims[3 * r] == pairs[3 * i] and rims[3 * r + 1] == pairs[3 * i + 1]:
                n = rims[3 * r + 2]
            iou = min(iou, n / (work[p_rim + p] + work[t_rim + t] - n - work[rim_outside + p]))
        if iou > 0.5:
            sums[4 * t_labels[t]] += iou
            sums[4 * t_labels[t] + 1] += 1
            work[t_hit + t] = 1
            work[p_hit + p] = 1
    for p in range(count_p):
        free = work[p_pixels + p] < 2 * (work[outside + p] + work[excused + p])
        if work[p_hit + p] == 0 and work[p_pixels + p] > 0 and not free:
            sums[4 * p_labels[p] + 2] += 1
    for t in range(count_t):
        if t_crowd[t] == 0 and work[t_hit + t] == 0 and work[t_pixels + t] > 0:
            sums[4 * t_labels[t] + 3] += 1
    rows = 0
    for c in range(classes):
        if sums[4 * c + 1] + sums[4 * c + 2] + sums[4 * c + 3] > 0:
            out[5 * rows] = c
            for i in range(4):
                out[5 * rows + 1 + i] = sums[4 * c + i]
            rows += 1
    return rows + odd


_int, _table = types.int64, types.CPointer(types.int64)
_flags, _reals = types.CPointer(types.uint8), types.CPointer(types.float64)
KERNELS: dict[str, Any] = {
    "tally": (
        tally,
        _int(
            *(_table, _int, _table, _int, _table, _table, _table, _flags, _table, _int),
            *(_table, _table, _table, _int, _int, _table, _reals, _reals),
        ),
    ),
}
for _bits, _map in ((32, types.CPointer(types.int32)), (64, types.CPointer(types.int64))):
    KERNELS[f"count{_bits}"] = (count, _int(_map, _map, _int, _table, _int))
    KERNELS[f"rims{_bits}"] = (rims, _int(_map, _int, _int, _int, _table, _map))
