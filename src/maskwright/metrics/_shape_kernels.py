# pyright: basic
# Numba infers the types here: pointers and int64 throughout, as the signatures in KERNELS say.
"""Kernels on object shapes: COCO run-lengths and polygons, read from their text into intervals, and compared.

A mask is a list of intervals ``[begin, end)`` of pixel positions (column by column, as in COCO), int32 pairs one after
the other in an arena that the caller owns. All results equal those of pycocotools' C code bit for bit.

Functions that write to the arena return the position after what they wrote, or ``FULL`` or one of the reasons below.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from maskwright.metrics._number_kernels import number, space

FULL, BAD_RUNS, BAD_POLYGON = -1, -2, -3
STRING, LIST, POLYGONS, RUNS = 1, 2, 3, 4
_COMMA, _BEGIN, _END, _BACKSLASH = 44, 91, 93, 92
_ESCAPE = _BACKSLASH - 48

helper = njit(nogil=True, error_model="numpy")


@helper
def from_string(text, at, stop, pixels, arena, top, capacity):
    """Decode COCO's compressed string (bytes 48..111, as JSON text: a backslash is written twice)."""
    if stop - at + top + 2 > capacity:
        return FULL
    runs, total, last, before = 0, 0, 0, 0
    while at < stop:
        byte = np.int64(text[at]) - 48
        if byte >= 0 and byte < 32:  # most runs are one byte
            at += 1
            value = byte - ((byte & 16) << 1)
        else:
            value, bits = 0, 0
            while True:
                if at >= stop or bits > 30:
                    return BAD_RUNS
                byte = np.int64(text[at]) - 48
                at += 1
                if byte == _ESCAPE:
                    if at >= stop or text[at] != _BACKSLASH:
                        return BAD_RUNS
                    at += 1
                if byte < 0 or byte > 63:
                    return BAD_RUNS
                value |= (byte & 31) << bits
                bits += 5
                if byte & 32 == 0:
                    break
            value -= (byte & 16) << (bits - 4)
        if runs > 2:
            value += before
        total += value
        if value < 0 or total > pixels:
            return BAD_RUNS
        arena[top + runs] = total
        before, last = last, value
        runs += 1
    return top + (runs & ~1) if total == pixels else BAD_RUNS


@helper
def from_list(text, at, stop, pixels, arena, top, capacity, out):
    """Read a list of run-lengths: ``[3, 2, 5]``."""
    if stop - at + top + 2 > 2 * capacity:
        return FULL
    runs, total = 0, 0
    at = space(text, at + 1, stop)
    while at < stop and text[at] != _END:
        at = number(text, at, stop, out)
        if at < 0 or out[2] == 0 or out[1] < 0 or out[1] > pixels - total:
            return BAD_RUNS
        total += out[1]
        if top + runs >= capacity:
            return FULL
        arena[top + runs] = total
        runs += 1
        at = space(text, at, stop)
        if at < stop and text[at] == _COMMA:
            at = space(text, at + 1, stop)
    return top + (runs & ~1) if total == pixels else BAD_RUNS


@helper
def from_runs(runs, at, stop, pixels, arena, top, capacity):
    """Run-lengths that are numbers already: ``runs[at:stop]``, int32."""
    if stop - at + top + 2 > capacity:
        return FULL
    total = 0
    for i in range(at, stop):
        if runs[i] < 0:
            return BAD_RUNS
        total += runs[i]
        if total > pixels:
            return BAD_RUNS
        arena[top + i - at] = total
    return top + ((stop - at) & ~1) if total == pixels else BAD_RUNS


@helper
def crossings(xs, ys, xe, ye, height, width, arena, top, capacity):
    """Where the edge from (xs, ys) to (xe, ye) crosses centers of pixel columns; coordinates are in fifths of a pixel.

    COCO walks the edge in fifths and keeps the steps that leave or enter column ``5 n + 2``: only these are visited.
    """
    dx, dy = abs(xe - xs), abs(ye - ys)
    flat = dx >= dy
    if (flat and xs > xe) or (not flat and ys > ye):
        xs, ys, xe, ye = xe, ye, xs, ys
    left, right = min(xs, xe), max(xs, xe)
    first = max(0, (left + 2) // 5)
    last = min(width - 1, (right - 3) // 5)
    if last < first:
        return top
    if top + last - first + 1 > capacity:
        return FULL
    slope = (ye - ys) / dx if flat else (xe - xs) / dy
    for column in range(first, last + 1):
        border = 5 * column + 2
        if flat:
            step = border - xs
            y = min(np.int64(ys + slope * step + 0.5), np.int64(ys + slope * (step + 1) + 0.5))
        elif slope > 0:
            step = max(1, np.int64((border + 0.5 - xs) / slope))
            while step < dy and np.int64(xs + slope * step + 0.5) <= border:
                step += 1
            while step > 1 and np.int64(xs + slope * (step - 1) + 0.5) > border:
                step -= 1
            y = ys + step - 1
        else:
            step = max(1, np.int64((border + 0.5 - xs) / slope))
            while step < dy and np.int64(xs + slope * step + 0.5) > border:
                step += 1
            while step > 1 and np.int64(xs + slope * (step - 1) + 0.5) <= border:
                step -= 1
            y = ys + step - 1
        row = 0 if y < 2 else min(height, (y + 2) // 5)
        arena[top] = column * height + row
        top += 1
    return top


@helper
def sort(arena, first, last, stride):
    """Sort ``arena[first:last]`` in place; with ``stride`` 2, pairs by their first number."""
    count = (last - first) // stride
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap >= 1:
        for i in range(gap, count):
            value = arena[first + i * stride]
            partner = arena[first + i * stride + stride - 1]
            j = i
            while j >= gap and arena[first + (j - gap) * stride] > value:
                arena[first + j * stride + stride - 1] = arena[first + (j - gap) * stride + stride - 1]
                arena[first + j * stride] = arena[first + (j - gap) * stride]
                j -= gap
            arena[first + j * stride + stride - 1] = partner
            arena[first + j * stride] = value
        gap //= 3


@helper
def one_polygon(text, at, stop, height, width, arena, top, capacity, out, reals):
    """Rasterize the polygon whose bracket is at ``at``; ``out[3]`` is the position after it, ``out[4]`` its points."""
    at = space(text, at + 1, stop)
    begin, points, odd = top, 0, False
    x = x0 = x1 = y0 = y1 = 0
    while at < stop and text[at] != _END:
        at = number(text, at, stop, out)
        if at < 0 or not (abs(reals[0]) < 1e8):
            return BAD_POLYGON
        fifth = np.int64(5.0 * reals[0] + 0.5)
        at = space(text, at, stop)
        if at < stop and text[at] == _COMMA:
            at = space(text, at + 1, stop)
        odd = not odd
        if odd:
            x = fifth
            continue
        if points == 0:
            x0, y0 = x, fifth
        else:
            top = crossings(x1, y1, x, fifth, height, width, arena, top, capacity)
            if top < 0:
                return top
        x1, y1 = x, fifth
        points += 1
    if at >= stop or odd:
        return BAD_POLYGON
    out[3], out[4] = at + 1, points
    if points == 0:
        return top
    top = crossings(x1, y1, x0, y0, height, width, arena, top, capacity)
    if top < 0 or top + 1 > capacity:
        return FULL
    sort(arena, begin, top, 1)
    if (top - begin) & 1:
        arena[top] = height * width
        top += 1
    return top


@helper
def from_polygons(text, at, stop, height, width, arena, top, capacity, out, reals):
    """Rasterize ``[[x, y, x, y, ...], ...]`` and unite the parts."""
    begin, parts = top, 0
    at = space(text, at + 1, stop)
    while at < stop and text[at] == _BEGIN:
        top = one_polygon(text, at, stop, height, width, arena, top, capacity, out, reals)
        if top < 0:
            return top
        if parts == 0 and out[4] < 3:
            return BAD_POLYGON
        parts += 1
        at = space(text, out[3], stop)
        if at < stop and text[at] == _COMMA:
            at = space(text, at + 1, stop)
    if parts == 0 or at >= stop or text[at] != _END:
        return BAD_POLYGON
    if parts > 1:
        sort(arena, begin, top, 2)
    kept = begin
    for i in range(begin, top, 2):
        if arena[i] == arena[i + 1]:
            continue
        if kept > begin and arena[i] <= arena[kept - 1]:
            arena[kept - 1] = max(arena[kept - 1], arena[i + 1])
        else:
            arena[kept], arena[kept + 1] = arena[i], arena[i + 1]
            kept += 2
    return kept


@helper
def intervals(text, runs, rows, r, height, width, arena, top, capacity, out, reals):
    """The mask of table row ``r`` (an offset into ``rows``) as intervals from ``arena[top]`` on."""
    kind, at, stop = rows[r + 7], rows[r + 8], rows[r + 9]
    if kind == STRING:
        return from_string(text, at, stop, height * width, arena, top, capacity)
    if kind == LIST:
        return from_list(text, at, stop, height * width, arena, top, capacity, out)
    if kind == RUNS:
        return from_runs(runs, at, stop, height * width, arena, top, capacity)
    return from_polygons(text, at, stop, height, width, arena, top, capacity, out, reals)


@helper
def pixels_in(arena, begin, end):
    """The pixels of ``arena[begin:end]``."""
    total = 0
    for i in range(begin, end, 2):
        total += arena[i + 1] - arena[i]
    return total


@helper
def pixels_shared(arena, a, a_end, b, b_end):
    """The pixels that two masks share."""
    total = 0
    while a < a_end and b < b_end:
        low = max(arena[a], arena[b])
        high = min(arena[a + 1], arena[b + 1])
        total += max(high - low, 0)
        if arena[a + 1] <= arena[b + 1]:
            a += 2
        else:
            b += 2
    return total


@helper
def box_of(arena, begin, end, height, width, box, k):
    """The box of a mask, (x, y, w, h) as COCO takes it, into ``box[k:k + 4]``; zeros without pixels."""
    left, right, upper, lower = width, 0, height, 0
    for i in range(begin, end, 2):
        first, last = arena[i], arena[i + 1] - 1
        x0, x1 = first // height, last // height
        left, right = min(left, x0), max(right, x1)
        if x0 < x1:
            upper, lower = 0, height - 1
        else:
            upper, lower = min(upper, first - x0 * height), max(lower, last - x1 * height)
    if begin == end:
        left, right, upper, lower = 0, -1, 0, -1
    box[k], box[k + 1], box[k + 2], box[k + 3] = left, upper, right - left + 1, lower - upper + 1


@helper
def box_iou(a, i, b, j, crowd):
    """IoU of two boxes (x, y, w, h); for a crowd, the share of the first that it covers."""
    width = min(a[i] + a[i + 2], b[j] + b[j + 2]) - max(a[i], b[j])
    height = min(a[i + 1] + a[i + 3], b[j + 1] + b[j + 3]) - max(a[i + 1], b[j + 1])
    if width <= 0 or height <= 0:
        return 0.0
    shared, own = width * height, a[i + 2] * a[i + 3]
    return shared / (own if crowd else own + b[j + 2] * b[j + 3] - shared)
