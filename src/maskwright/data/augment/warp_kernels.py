# pyright: basic
"""The loops of ``Warp``: where each pixel comes from, and what is found there."""

from __future__ import annotations

import numpy as np
from numba import njit

from maskwright.data.augment.resample import emit, grown

_ROUNDING = 1e-9  # points this near to the next pixel belong to it: a turn by 90 degrees must find the very pixels


@njit(cache=True, nogil=True)
def sources(height, width, back, bend, spacing):
    """Where the center of each pixel of a canvas lies in the file: float64 [H, W, 2], x then y."""
    out = np.empty((height, width, 2), np.float64)
    bent = bend.shape[1] > 0
    places = np.zeros(width, np.int64)
    across = np.zeros((width, 4), np.float64)
    row = np.zeros((2, bend.shape[2]), np.float64)
    if bent:
        for j in range(width):
            places[j], across[j] = _at((j + 0.5) / spacing, bend.shape[2] - 3)
    for i in range(height):
        if bent:
            first, down = _at((i + 0.5) / spacing, bend.shape[1] - 3)
            for axis in range(2):
                for k in range(bend.shape[2]):
                    row[axis, k] = 0.0
                    for a in range(4):
                        row[axis, k] += down[a] * bend[axis, first + a, k]
        for j in range(width):
            x, y = j + 0.5, i + 0.5
            if bent:
                for b in range(4):
                    x += across[j, b] * row[0, places[j] + b]
                    y += across[j, b] * row[1, places[j] + b]
            out[i, j, 0] = back[0, 0] * x + back[0, 1] * y + back[0, 2]
            out[i, j, 1] = back[1, 0] * x + back[1, 1] * y + back[1, 2]
    return out


@njit(cache=True, nogil=True)
def unbend(points, bend, spacing):
    """The points p with p + displacement(p) = ``points``, by fixed-point steps; the displacement is a contraction."""
    out = np.empty_like(points)
    for k in range(len(points)):
        x, y = points[k, 0], points[k, 1]
        for _ in range(60):
            dx, dy = _displacement(x, y, bend, spacing)
            new_x, new_y = points[k, 0] - dx, points[k, 1] - dy
            moved = abs(new_x - x) + abs(new_y - y)
            x, y = new_x, new_y
            if moved < 1e-4:
                break
        out[k, 0], out[k, 1] = x, y
    return out


@njit(cache=True, nogil=True)
def _displacement(x, y, bend, spacing):
    """A uniform cubic B-spline; beyond the grid its edge goes on."""
    j, across = _at(x / spacing, bend.shape[2] - 3)
    i, down = _at(y / spacing, bend.shape[1] - 3)
    dx, dy = 0.0, 0.0
    for a in range(4):
        for b in range(4):
            weight = down[a] * across[b]
            dx += weight * bend[0, i + a, j + b]
            dy += weight * bend[1, i + a, j + b]
    return dx, dy


@njit(cache=True, nogil=True)
def _at(u, intervals):
    """The first of four control points that matter at ``u``, and their weights."""
    u = min(max(u, 0.0), intervals - 1e-9)
    first = int(u)
    t = u - first
    s = 1.0 - t
    weights = np.empty(4, np.float64)
    weights[0] = s * s * s / 6.0
    weights[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weights[2] = (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0
    weights[3] = t * t * t / 6.0
    return first, weights


@njit(cache=True, nogil=True)
def _mirror(x, length):
    """A coordinate reflected at 0 and ``length`` until it lies between them."""
    x = x % (2.0 * length)
    return 2.0 * length - x if x > length else x


@njit(cache=True, nogil=True)
def pixels(image, where, step, taps, reflect, fill):
    """uint8 [3, h, w] of a picture [H, W, 3] at ``where``; each pixel is the mean of ``taps`` bilinear samples."""
    full_h, full_w, channels = image.shape
    height, width = where.shape[:2]
    out = np.empty((channels, height, width), np.uint8)
    weight = 1.0 / (taps[0] * taps[1])
    single = taps[0] * taps[1] == 1
    total = np.empty(channels, np.float64)
    for i in range(height):
        for j in range(width):
            x0, y0 = where[i, j, 0], where[i, j, 1]
            if not reflect and not _within(x0, y0, full_h, full_w):
                for c in range(channels):
                    out[c, i, j] = fill
                continue
            if single:
                x, y = x0, y0
                if reflect:
                    x, y = _mirror(x, full_w), _mirror(y, full_h)
                x, y = min(max(x - 0.5, 0.0), full_w - 1.0), min(max(y - 0.5, 0.0), full_h - 1.0)
                left, top = int(x), int(y)
                right, bottom = min(left + 1, full_w - 1), min(top + 1, full_h - 1)
                # Weights as multiples of 1/2048: whole numbers are faster, and no result is off by more than rounding.
                fx, fy = int((x - left) * 2048.0 + 0.5), int((y - top) * 2048.0 + 0.5)
                for c in range(channels):
                    above = image[top, left, c] * (2048 - fx) + image[top, right, c] * fx
                    below = image[bottom, left, c] * (2048 - fx) + image[bottom, right, c] * fx
                    out[c, i, j] = (above * (2048 - fy) + below * fy + (1 << 21)) >> 22
                continue
            total[:] = 0.5
            for p in range(taps[0]):
                for q in range(taps[1]):
                    down, across = (p + 0.5) / taps[0] - 0.5, (q + 0.5) / taps[1] - 0.5
                    x = x0 + step[0, 0] * across + step[0, 1] * down
                    y = y0 + step[1, 0] * across + step[1, 1] * down
                    if reflect:
                        x, y = _mirror(x, full_w), _mirror(y, full_h)
                    x, y = min(max(x - 0.5, 0.0), full_w - 1.0), min(max(y - 0.5, 0.0), full_h - 1.0)
                    left, top = int(x), int(y)
                    right, bottom = min(left + 1, full_w - 1), min(top + 1, full_h - 1)
                    fx, fy = x - left, y - top
                    for c in range(channels):
                        above = image[top, left, c] + fx * (np.float64(image[top, right, c]) - image[top, left, c])
                        below = image[bottom, left, c] + fx * (
                            np.float64(image[bottom, right, c]) - image[bottom, left, c]
                        )
                        total[c] += weight * (above + fy * (below - above))
            for c in range(channels):
                out[c, i, j] = np.uint8(total[c])
    return out


@njit(cache=True, nogil=True)
def _within(x, y, height, width):
    return -_ROUNDING <= x < width - _ROUNDING and -_ROUNDING <= y < height - _ROUNDING


@njit(cache=True, nogil=True)
def labels(values, where, void):
    """[h, w] of a map [H, W]: the pixel that holds each point, ``void`` outside."""
    full_h, full_w = values.shape
    height, width = where.shape[:2]
    out = np.empty((height, width), values.dtype)
    for i in range(height):
        for j in range(width):
            x, y = where[i, j, 0], where[i, j, 1]
            out[i, j] = values[int(y + _ROUNDING), int(x + _ROUNDING)] if _within(x, y, full_h, full_w) else void
    return out


@njit(cache=True, nogil=True)
def runs(counts, offsets, full, around, limits, where, step, taps):
    """Runs on the canvas of masks on ``full``; mask ``m`` has the box ``around[m]`` there and ``limits[m]`` here."""
    full_h, full_w = full
    height, width = where.shape[:2]
    need = 0.5 * taps[0] * taps[1] - 1e-9
    out = np.empty(max(len(counts), 64), np.int32)
    starts = np.zeros(len(offsets), np.int64)
    used = 0
    for m in range(len(offsets) - 1):
        left, top, right, bottom = around[m]
        low_x, low_y, high_x, high_y = limits[m]
        run, value = 0, 0
        if right <= left or bottom <= top or high_x <= low_x or high_y <= low_y:
            run = height * width
        else:
            grid = _decoded(counts, offsets[m], offsets[m + 1], full_h, top, left, bottom, right)
            run, value, used, out = emit(run, value, 0, low_x * height, used, out)
            for j in range(low_x, high_x):
                run, value, used, out = emit(run, value, 0, low_y, used, out)
                for i in range(low_y, high_y):
                    x0, y0 = where[i, j, 0], where[i, j, 1]
                    new = 0
                    # Nothing of the object is nearer than the reach of one sample to what lies beyond its box.
                    if _within(x0, y0, full_h, full_w):
                        seen = 0.0
                        for p in range(taps[0]):
                            for q in range(taps[1]):
                                down, across = (p + 0.5) / taps[0] - 0.5, (q + 0.5) / taps[1] - 0.5
                                x = x0 + step[0, 0] * across + step[0, 1] * down
                                y = y0 + step[1, 0] * across + step[1, 1] * down
                                x = min(max(x - 0.5, 0.0), full_w - 1.0)
                                y = min(max(y - 0.5, 0.0), full_h - 1.0)
                                seen += _blend(grid, x - left, y - top)
                        if seen >= need:
                            new = 1
                    run, value, used, out = emit(run, value, new, 1, used, out)
                run, value, used, out = emit(run, value, 0, height - high_y, used, out)
            run, value, used, out = emit(run, value, 0, (width - high_x) * height, used, out)
        if used >= len(out):
            out = grown(out)
        out[used] = run
        used += 1
        starts[m + 1] = used
    return out[:used].copy(), starts


@njit(cache=True, nogil=True)
def _decoded(counts, first, last, height, top, left, bottom, right):
    """One mask within its box, uint8 [bottom - top + 2, right - left + 2], with a margin of one pixel of nothing."""
    grid = np.zeros((bottom - top + 2, right - left + 2), np.uint8)
    position = np.int64(0)
    for r in range(first, last):
        end = position + counts[r]
        if (r - first) % 2 == 1 and counts[r] > 0:
            for x in range(position // height, (end - 1) // height + 1):
                begin, stop = max(position - x * height, top), min(end - x * height, bottom)
                for y in range(begin, stop):
                    grid[y - top + 1, x - left + 1] = 1
        position = end
    return grid


@njit(cache=True, nogil=True)
def _blend(grid, x, y):
    """Bilinear; ``x`` and ``y`` count from the first pixel within the margin."""
    x, y = x + 1.0, y + 1.0
    if x < 0.0 or y < 0.0 or x >= grid.shape[1] - 1 or y >= grid.shape[0] - 1:
        return 0.0
    left, top = int(x), int(y)
    fx, fy = x - left, y - top
    above = grid[top, left] + fx * (np.float64(grid[top, left + 1]) - grid[top, left])
    below = grid[top + 1, left] + fx * (np.float64(grid[top + 1, left + 1]) - grid[top + 1, left])
    return above + fy * (below - above)
