"""Run-lengths seen through a window, resized and turned, without decoding the picture."""

from __future__ import annotations

import numpy as np
from numba import njit

from maskwright.data.augment.placement import Placement


def place_runs(
    counts: np.ndarray, offsets: np.ndarray, size: tuple[int, int], placement: Placement
) -> tuple[np.ndarray, np.ndarray]:
    """Masks as run-lengths on ``size`` (H, W), carried to the placement's canvas.

    A result pixel is foreground when at least half of its footprint is, the footprint being a square around its center
    of one file pixel when enlarging (this is bilinear interpolation at 0.5) and of one result pixel when shrinking.
    What lies outside the picture does not count, so objects at its edge keep it. Turning alone is exact.

    Returns:
        counts int32 [R] and offsets int64 [N + 1].
    """
    y, x, height, width = placement.window
    return _place(
        np.ascontiguousarray(counts, np.int32),
        np.ascontiguousarray(offsets, np.int64),
        np.array([*size, y, x, height, width, *placement.canvas], np.int64),
        placement.transpose,
        placement.flip_y,
        placement.flip_x,
    )


@njit(cache=True, nogil=True)
def _place(counts, offsets, plan, transpose, flip_y, flip_x):
    full_h, full_w, y0, x0, win_h, win_w, out_h, out_w = plan
    # Results are written column by column: "line" is the axis across columns, "along" the axis down a column.
    if transpose:
        lines, alongs = out_h, out_w
        line_scale, along_scale = out_h / win_h, out_w / win_w
        line_origin, along_origin, line_full, along_full = y0, x0, full_h, full_w
    else:
        lines, alongs = out_w, out_h
        line_scale, along_scale = out_w / win_w, out_h / win_h
        line_origin, along_origin, line_full, along_full = x0, y0, full_w, full_h
    line_half = 0.5 * max(1.0, 1.0 / line_scale)
    along_half = 0.5 * max(1.0, 1.0 / along_scale)
    # The footprints of the window reach a little beyond it.
    reach = int(max(line_half, along_half)) + 1
    total = len(offsets) - 1
    out = np.empty(max(len(counts), 64), np.int32)
    starts = np.zeros(total + 1, np.int64)
    used = 0
    for m in range(total):
        first, last = offsets[m], offsets[m + 1]
        top, left, bottom, right = bounds(counts, first, last, full_h)
        top, left = max(top, y0 - reach), max(left, x0 - reach)
        bottom, right = min(bottom, y0 + win_h + reach), min(right, x0 + win_w + reach)
        run, value = 0, 0
        if bottom > top and right > left:
            if transpose:
                low_line, high_line, low_along, high_along = top, bottom, left, right
            else:
                low_line, high_line, low_along, high_along = left, right, top, bottom
            sums = _sums(counts, first, last, full_h, top, left, bottom, right, transpose)
            profile = np.empty(high_along - low_along + 1, np.float64)
            for k in range(lines):
                line = lines - 1 - k if flip_x else k
                center = line_origin + (line + 0.5) / line_scale
                a, b = max(center - line_half, 0.0), min(center + line_half, float(line_full))
                wide = b - a
                a, b = max(a - low_line, 0.0), min(b - low_line, float(high_line - low_line))
                if b <= a:
                    run, value, used, out = emit(run, value, 0, alongs, used, out)
                    continue
                _mix(sums, a, b, profile)
                # Only these positions down the column can see the object.
                near = int(max(0.0, (low_along - along_half - along_origin) * along_scale - 1.0))
                far = int(min(float(alongs), (high_along + along_half - along_origin) * along_scale + 1.0))
                far = max(far, near)
                if flip_y:
                    near, far = alongs - far, alongs - near
                run, value, used, out = emit(run, value, 0, near, used, out)
                for r in range(near, far):
                    along = alongs - 1 - r if flip_y else r
                    middle = along_origin + (along + 0.5) / along_scale
                    c, d = max(middle - along_half, 0.0), min(middle + along_half, float(along_full))
                    tall = d - c
                    c, d = max(c - low_along, 0.0), min(d - low_along, float(high_along - low_along))
                    inside = 0
                    if d > c and _at(profile, d) - _at(profile, c) >= 0.5 * wide * tall - 1e-9:
                        inside = 1
                    run, value, used, out = emit(run, value, inside, 1, used, out)
                run, value, used, out = emit(run, value, 0, alongs - far, used, out)
        else:
            run = lines * alongs
        if used >= len(out):
            out = grown(out)
        out[used] = run
        used += 1
        starts[m + 1] = used
    return out[:used].copy(), starts


@njit(cache=True, nogil=True)
def emit(run, value, new, length, used, out):
    """Add ``length`` pixels of value ``new`` to the run under way."""
    if length <= 0:
        return run, value, used, out
    if new == value:
        return run + length, value, used, out
    if used >= len(out):
        out = grown(out)
    out[used] = run
    return length, new, used + 1, out


@njit(cache=True, nogil=True)
def grown(out):
    """The same array with room for twice as much."""
    larger = np.empty(2 * len(out), np.int32)
    larger[: len(out)] = out
    return larger


@njit(cache=True, nogil=True)
def bounds(counts, first, last, height):
    """(top, left, bottom, right) of one mask; bottom <= top when it is empty."""
    top, left, bottom, right = height, 2147483647, 0, 0
    position = np.int64(0)
    for i in range(first, last):
        length = counts[i]
        if (i - first) % 2 == 1 and length > 0:
            end = position + length - 1
            x1, x2 = position // height, end // height
            left, right = min(left, x1), max(right, x2 + 1)
            if x2 > x1:
                top, bottom = 0, height
            else:
                top, bottom = min(top, position - x1 * height), max(bottom, end - x2 * height + 1)
        position += length
    return top, left, bottom, right


@njit(cache=True, nogil=True)
def _sums(counts, first, last, height, top, left, bottom, right, transpose):
    """Foreground counts summed along both axes: int32 [lines + 1, alongs + 1] of the rectangle."""
    tall, wide = bottom - top, right - left
    sums = np.zeros((tall + 1, wide + 1) if transpose else (wide + 1, tall + 1), np.int32)
    position = np.int64(0)
    for i in range(first, last):
        end = position + counts[i]
        if (i - first) % 2 == 1 and counts[i] > 0:
            for x in range(max(position // height, left), min((end - 1) // height + 1, right)):
                begin = max(position - x * height, top)
                stop = min(end - x * height, bottom)
                for y in range(begin, stop):
                    if transpose:
                        sums[y - top + 1, x - left + 1] = 1
                    else:
                        sums[x - left + 1, y - top + 1] = 1
        position = end
    for i in range(1, sums.shape[0]):
        row = 0
        for j in range(1, sums.shape[1]):
            row += sums[i, j]
            sums[i, j] = sums[i - 1, j] + row
    return sums


@njit(cache=True, nogil=True)
def _mix(sums, a, b, profile):
    """Foreground between lines ``a`` and ``b`` (fractions count), summed along the column, into ``profile``."""
    last = sums.shape[0] - 1
    i, j = min(int(a), last - 1), min(int(b), last - 1)
    fa, fb = a - i, b - j
    for u in range(sums.shape[1]):
        low = sums[i, u] + fa * (sums[i + 1, u] - sums[i, u])
        high = sums[j, u] + fb * (sums[j + 1, u] - sums[j, u])
        profile[u] = high - low


@njit(cache=True, nogil=True)
def _at(profile, position):
    i = min(int(position), len(profile) - 2)
    return profile[i] + (position - i) * (profile[i + 1] - profile[i])
