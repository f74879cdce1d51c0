# pyright: basic
"""Filters, noise and textures on planes of pixels, compiled; the same result on every machine.

Nothing here draws on a shared generator: per-pixel randomness is a hash of a seed and the pixel's number.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@njit(cache=True, nogil=True, inline="always")
def uniform(seed, index):
    """A number in [0, 1) from a seed and an index: SplitMix64 (Steele, Lea and Flood 2014)."""
    z = np.uint64(seed) + (np.uint64(index) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True)
def uniforms(seed, height, width):
    """``uniform`` of a whole plane, float32 [H, W]."""
    out = np.empty((height, width), np.float32)
    flat = out.reshape(-1)
    for i in range(flat.size):
        flat[i] = uniform(seed, i)
    return out


def gaussian(sigma: float, truncate: float = 4.0) -> np.ndarray:
    """A Gaussian's weights, float32 [2 r + 1]; r is truncate x sigma to the nearest, as in scipy.ndimage."""
    radius = max(0, int(truncate * sigma + 0.5))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    return (weights / weights.sum()).astype(np.float32)


@njit(cache=True, nogil=True)
def border(i, length, symmetric):
    """Where a line's pixel ``i`` is taken from: the nearest one, or mirrored with the edge pixel twice."""
    if 0 <= i < length:
        return i
    if not symmetric:
        return 0 if i < 0 else length - 1
    i = i % (2 * length)
    return i if i < length else 2 * length - 1 - i


@njit(cache=True, nogil=True)
def smooth(plane, down, along, symmetric):
    """Convolve float32 [H, W] with a kernel down the columns and one along the rows, both odd and symmetric.

    Beyond the edges lies the nearest pixel, or with ``symmetric`` the mirrored picture.
    """
    height, width = plane.shape
    rows = np.empty_like(plane)
    radius = len(along) // 2
    line = np.empty(width + 2 * radius, np.float32)
    for y in range(height):
        for x in range(width + 2 * radius):
            line[x] = plane[y, border(x - radius, width, symmetric)]
        target = rows[y]
        target[:] = along[radius] * line[radius : radius + width]
        for k in range(1, radius + 1):
            weight = along[radius + k]
            low, high = line[radius - k : radius - k + width], line[radius + k : radius + k + width]
            for x in range(width):
                target[x] += weight * (low[x] + high[x])
    out = np.empty_like(plane)
    radius = len(down) // 2
    for y in range(height):
        target, source = out[y], rows[y]
        for x in range(width):
            target[x] = down[radius] * source[x]
        for k in range(1, radius + 1):
            weight = down[radius + k]
            low, high = rows[border(y - k, height, symmetric)], rows[border(y + k, height, symmetric)]
            for x in range(width):
                target[x] += weight * (low[x] + high[x])
    return out


@njit(cache=True, nogil=True)
def trail(plane, shifts, weights):
    """Weighted sum of shifted copies of float32 [H, W]: out[y, x] = sum w plane[y + dy, x + dx]; edges are repeated."""
    height, width = plane.shape
    reach = 0
    for k in range(len(shifts)):
        reach = max(reach, abs(shifts[k, 0]), abs(shifts[k, 1]))
    wide = np.empty((height, width + 2 * reach), np.float32)
    for y in range(height):
        wide[y, :reach] = plane[y, 0]
        wide[y, reach : reach + width] = plane[y]
        wide[y, reach + width :] = plane[y, width - 1]
    out = np.zeros_like(plane)
    for y in range(height):
        target = out[y]
        for k in range(len(shifts)):
            start = reach + shifts[k, 1]
            source = wide[min(max(y + shifts[k, 0], 0), height - 1), start : start + width]
            weight = weights[k]
            for x in range(width):
                target[x] += weight * source[x]
    return out


@njit(cache=True, nogil=True)
def disk(plane, half, weights):
    """Mean over a disk given by its rows, float32 [H, W] of float32 [H + 2 r, W + 2 r] whose border is padding.

    ``half`` float64 [2 r + 1] is how far each row of the disk reaches left and right of its middle pixel, where a
    fraction takes that part of the next pixel; ``weights`` float64 [2 r + 1] says how much a row counts.
    """
    radius = len(half) // 2
    height, width = plane.shape[0] - 2 * radius, plane.shape[1] - 2 * radius
    sums = np.zeros((plane.shape[0], plane.shape[1] + 1), np.float64)
    for y in range(plane.shape[0]):
        total = 0.0
        for x in range(plane.shape[1]):
            total += plane[y, x]
            sums[y, x + 1] = total
    area = 0.0
    for k in range(2 * radius + 1):
        area += weights[k] * (2.0 * half[k] + 1.0)
    out = np.empty((height, width), np.float32)
    line = np.empty(width, np.float64)
    for y in range(height):
        line[:] = 0.0
        for k in range(2 * radius + 1):
            weight = weights[k]
            if weight == 0.0:
                continue
            whole = int(half[k])
            part = weight * (half[k] - whole)
            low = sums[y + k, radius - whole : radius - whole + width]
            high = sums[y + k, radius + whole + 1 : radius + whole + 1 + width]
            for x in range(width):
                line[x] += weight * (high[x] - low[x])
            if part > 0:
                left = plane[y + k, radius - whole - 1 : radius - whole - 1 + width]
                right = plane[y + k, radius + whole + 1 : radius + whole + 1 + width]
                for x in range(width):
                    line[x] += part * (left[x] + right[x])
        for x in range(width):
            out[y, x] = line[x] / area
    return out


@njit(cache=True, nogil=True)
def poisson(pixels, photons, half, seed):
    """Photon counts of uint8 pixels of any shape, brought back to 0..255; a white pixel has ``photons`` on average.

    Exact: each pixel's number in 0..1 is looked up in the cumulative distribution of its value. ``half`` is added
    before cutting off to whole numbers: 0.5 rounds.
    """
    longest = int(photons + 8.0 * np.sqrt(photons) + 20.0)
    sums = np.empty((256, longest), np.float64)
    guide = np.empty((256, 513), np.int32)
    for value in range(256):
        rate = photons * value / 255.0
        # From the mode outwards, so that no rate underflows; normalized at the end.
        mode = int(rate)
        sums[value, mode] = 1.0
        for k in range(mode + 1, longest):
            sums[value, k] = sums[value, k - 1] * rate / k
        for k in range(mode - 1, -1, -1):
            sums[value, k] = sums[value, k + 1] * (k + 1) / rate
        total = 0.0
        for k in range(longest):
            total += sums[value, k]
            sums[value, k] = total
        place = 0
        for g in range(513):
            while place < longest - 1 and sums[value, place] <= g / 512.0 * total:
                place += 1
            guide[value, g] = place
        for k in range(longest):
            sums[value, k] /= total
    levels = np.empty(longest, np.uint8)
    for k in range(longest):
        levels[k] = np.uint8(min(k * 255.0 / photons + half, 255.0))
    out = np.empty_like(pixels)
    source, target = pixels.reshape(-1), out.reshape(-1)
    for i in range(source.size):
        value = source[i]
        u = uniform(seed, i)
        k = guide[value, int(u * 512.0)]
        while k < longest - 1 and sums[value, k] <= u:
            k += 1
        target[i] = levels[k]
    return out


@njit(cache=True, nogil=True)
def sampled(plane, ys, xs):
    """Bilinear samples of float32 [h, w] at rows ``ys`` float64 [H] and columns ``xs`` float64 [W], all inside it."""
    height, width = len(ys), len(xs)
    lefts, parts = np.empty(width, np.int64), np.empty(width, np.float32)
    for x in range(width):
        lefts[x] = min(max(int(xs[x]), 0), max(plane.shape[1] - 2, 0))
        parts[x] = xs[x] - lefts[x]
    right = 1 if plane.shape[1] > 1 else 0
    out = np.empty((height, width), np.float32)
    line = np.empty(plane.shape[1], np.float32)
    for y in range(height):
        top = min(max(int(ys[y]), 0), max(plane.shape[0] - 2, 0))
        part = np.float32(ys[y] - top)
        above, below = plane[top], plane[min(top + 1, plane.shape[0] - 1)]
        for x in range(plane.shape[1]):
            line[x] = above[x] + part * (below[x] - above[x])
        for x in range(width):
            a = line[lefts[x]]
            out[y, x] = a + parts[x] * (line[lefts[x] + right] - a)
    return out


def stretched(grid: np.ndarray, height: int, width: int, *, ease: bool = True) -> np.ndarray:
    """A coarse float32 grid [h, w] over (height, width), corners on corners; ``ease`` hides the grid's creases."""
    ys, xs = (np.linspace(0.0, size - 1.0, out) for size, out in zip(grid.shape, (height, width), strict=True))
    if ease:
        ys, xs = _eased(ys), _eased(xs)
    return sampled(np.ascontiguousarray(grid, np.float32), ys, xs)


def _eased(at: np.ndarray) -> np.ndarray:
    whole = np.floor(at)
    part = at - whole
    return whole + part * part * (3.0 - 2.0 * part)


def clouds(height: int, width: int, cell: float, octaves: int, rng: np.random.Generator) -> np.ndarray:
    """Value noise of several octaves, float32 [H, W] in 0..1; the largest blobs are ``cell`` pixels, the next half."""
    small_h, small_w = max(2, -(-height // 3)), max(2, -(-width // 3))  # a third of the size is fine enough
    total = np.zeros((small_h, small_w), np.float32)
    weight = np.float32(1.0)
    for octave in range(octaves):
        step = max(cell / 2**octave, 3.0)
        grid = rng.random((2 + int(height / step), 2 + int(width / step)), np.float32)
        total += weight * stretched(grid, small_h, small_w)
        weight *= np.float32(0.5)
    total -= total.min()
    total /= max(float(total.max()), 1e-6)
    return stretched(total, height, width, ease=False)


@njit(cache=True, nogil=True)
def luma(pixels):
    """BT.601 luma of uint8 [3, H, W], float32 [H, W] in 0..255."""
    out = np.empty(pixels.shape[1:], np.float32)
    red, green, blue, flat = pixels[0].reshape(-1), pixels[1].reshape(-1), pixels[2].reshape(-1), out.reshape(-1)
    for i in range(flat.size):
        flat[i] = np.float32(0.299) * red[i] + np.float32(0.587) * green[i] + np.float32(0.114) * blue[i]
    return out


@njit(cache=True, nogil=True)
def rounded(plane, out):
    """float32 [H, W] in 0..255 into uint8 ``out``, to the nearest and cut off at the ends."""
    source, target = plane.reshape(-1), out.reshape(-1)
    for i in range(source.size):
        target[i] = np.uint8(min(max(source[i] + np.float32(0.5), np.float32(0.0)), np.float32(255.0)))
