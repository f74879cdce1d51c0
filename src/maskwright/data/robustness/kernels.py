# pyright: basic
"""What the corruption benchmark needs beside filters: shuffled pixels, plasma, crystals of frost, bent pictures."""

from __future__ import annotations

import numpy as np
from numba import njit

from maskwright.data.augment.pixel_kernels import border, clouds, gaussian, sampled, smooth, uniform


@njit(cache=True, nogil=True)
def impulses(pixels, amount, seed):
    """uint8 [3, H, W] with each value black or white, equally often, with probability ``amount``."""
    out = np.empty_like(pixels)
    source, target = pixels.reshape(-1), out.reshape(-1)
    for i in range(source.size):
        u = uniform(seed, i)
        if u < amount:
            target[i] = 255 if u < 0.5 * amount else 0
        else:
            target[i] = source[i]
    return out


@njit(cache=True, nogil=True)
def shuffled(pixels, reach, rounds, seed):
    """Each pixel of uint8 [3, H, W] replaced by one up to ``reach`` away, from the lower right on, in place."""
    height, width = pixels.shape[1:]
    number = 0
    for _ in range(rounds):
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                dx = int(uniform(seed, number) * 2 * reach) - reach
                dy = int(uniform(seed, number + 1) * 2 * reach) - reach
                number += 2
                for c in range(3):
                    pixels[c, y, x] = pixels[c, y + dy, x + dx]


@njit(cache=True, nogil=True)
def zoomed(plane, factors):
    """Mean of float32 [H, W] and its enlargements about the middle, bilinear."""
    total = plane.copy()
    for factor in factors:
        total += enlarged(plane, factor)
    return total / np.float32(len(factors) + 1)


@njit(cache=True, nogil=True)
def enlarged(plane, factor):
    """The middle of float32 [H, W] enlarged to all of it; the corners of what is cut out lie on the corners."""
    height, width = plane.shape
    tall, wide = int(np.ceil(height / factor)), int(np.ceil(width / factor))
    top, left = (height - tall) // 2, (width - wide) // 2
    step_y = (tall - 1) / max(round(tall * factor) - 1, 1)
    step_x = (wide - 1) / max(round(wide * factor) - 1, 1)
    ys, xs = np.empty(height, np.float64), np.empty(width, np.float64)
    for y in range(height):
        ys[y] = top + min(y * step_y, tall - 1.0)
    for x in range(width):
        xs[x] = left + min(x * step_x, wide - 1.0)
    return sampled(plane, ys, xs)


@njit(cache=True, nogil=True)
def plasma(side, decay, seed):
    """Diamond-square noise (Fournier, Fussell and Carpenter 1982) on a torus of ``side``, a power of two; in 0..1.

    The deviation of a step's midpoints falls with the square of ``decay`` from one step to the next.
    """
    out = np.zeros((side, side), np.float32)
    mask = side - 1
    step, rough, number = side, 10000.0, 0
    while step >= 2:
        half = step // 2
        for y in range(half, side, step):
            for x in range(half, side, step):
                low, high, near, far = y - half, (y + half) & mask, x - half, (x + half) & mask
                mean = 0.25 * (out[low, near] + out[low, far] + out[high, near] + out[high, far])
                out[y, x] = mean + rough * (2.0 * uniform(seed, number) - 1.0)
                number += 1
        for y in range(0, side, half):
            for x in range(half if y % step == 0 else 0, side, step):
                low, high, near, far = (y - half) & mask, (y + half) & mask, (x - half) & mask, (x + half) & mask
                mean = 0.25 * (out[low, x] + out[high, x] + out[y, near] + out[y, far])
                out[y, x] = mean + rough * (2.0 * uniform(seed, number) - 1.0)
                number += 1
        step = half
        rough /= decay * decay
    low, high = out.min(), out.max()
    return (out - low) / max(high - low, np.float32(1e-9))


@njit(cache=True, nogil=True)
def brightened(pixels, added):
    """uint8 [3, H, W] with ``added`` (0..255) on the value of HSV: hue and saturation stay."""
    out = np.empty_like(pixels)
    red, green, blue = pixels[0].reshape(-1), pixels[1].reshape(-1), pixels[2].reshape(-1)
    factors = np.empty(256, np.float64)
    for value in range(256):
        factors[value] = min(value + added, 255.0) / max(value, 1)
    for c in range(3):
        source, target = pixels[c].reshape(-1), out[c].reshape(-1)
        for i in range(source.size):
            value = max(red[i], green[i], blue[i])
            # A hair more, so that exact values survive being cut off.
            target[i] = np.uint8(source[i] * factors[value] + 1e-6) if value else np.uint8(added)
    return out


@njit(cache=True, nogil=True)
def snowed(pixels, gray, layer, weight):
    """uint8 [3, H, W] whitened by ``1 - weight`` towards its luma, under a layer of flakes and its turned copy."""
    height, width = gray.shape
    out = np.empty_like(pixels)
    for c in range(3):
        for y in range(height):
            for x in range(width):
                value = np.float32(pixels[c, y, x])
                white = max(value, gray[y, x] * np.float32(1.5) + np.float32(127.5))
                flakes = layer[y, x] + layer[height - 1 - y, width - 1 - x]
                value = weight * value + (1 - weight) * white + np.float32(255.0) * flakes
                out[c, y, x] = np.uint8(min(value, np.float32(255.0)))
    return out


@njit(cache=True, nogil=True)
def bent(pixels, dy, dx):
    """uint8 [3, H, W] sampled at each pixel plus (``dy``, ``dx``), float32 [H, W]; bilinear, edges mirrored."""
    height, width = dy.shape
    out = np.empty_like(pixels)
    for y in range(height):
        for x in range(width):
            at_y, at_x = y + dy[y, x], x + dx[y, x]
            top, left = int(np.floor(at_y)), int(np.floor(at_x))
            part_y, part_x = np.float32(at_y - top), np.float32(at_x - left)
            y0, y1 = border(top, height, True), border(top + 1, height, True)
            x0, x1 = border(left, width, True), border(left + 1, width, True)
            for c in range(3):
                a = pixels[c, y0, x0] + part_x * (np.float32(pixels[c, y0, x1]) - pixels[c, y0, x0])
                b = pixels[c, y1, x0] + part_x * (np.float32(pixels[c, y1, x1]) - pixels[c, y1, x0])
                out[c, y, x] = np.uint8(a + part_y * (b - a))
    return out


def frost(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A pane of ice: float32 [3, H, W] in 0..255, bluish, of feathers over clouds.

    Its mean (120 to 210) and deviation (18 to 43) are drawn from the range of the photographs that the benchmark uses.
    """
    ground = clouds(height, width, 200.0, 7, rng)
    plane = 0.35 * ground
    count = max(12, height * width // 400)
    middles = rng.random((count, 2)) * (height, width)
    thick = ground[middles[:, 0].astype(np.int64), middles[:, 1].astype(np.int64)]
    lengths = rng.uniform(0.4, 1.0, count) ** 2 * (20 + 60 * thick)
    light = np.clip(0.25 + 0.6 * thick + 0.2 * rng.standard_normal(count), 0.1, 1.0)
    _stars(plane, middles, 2 * np.pi * rng.random(count), lengths, light)
    soft = gaussian(0.6)
    plane = smooth(plane, soft, soft, False)
    plane += np.float32(0.1) * rng.standard_normal((height, width), np.float32) * plane
    mean, deviation = rng.uniform(120, 210), rng.uniform(18, 43)
    plane = (plane - plane.mean()) * np.float32(deviation / max(float(plane.std()), 1e-6))
    tint = 1.0 - rng.uniform(0.0, 0.25) * np.array((1.0, 0.3, 0.0))
    return np.clip(np.float32(mean) * tint.astype(np.float32)[:, None, None] + plane, 0, 255).astype(np.float32)


@njit(cache=True, nogil=True)
def _stars(plane, middles, turns, lengths, light):
    """Fans of two to four feathers; brighter ice hides darker."""
    for k in range(len(middles)):
        for arm in range(2 + k % 3):
            turn = turns[k] + arm * (0.7 + 0.5 * (k % 5) / 5.0)
            length = lengths[k] * (1.0 - 0.15 * arm)
            bend = 0.02 * ((k % 7) - 3) / 3.0
            _feather(plane, middles[k, 0], middles[k, 1], turn, bend, length, light[k] * (1.0 - 0.12 * arm))


@njit(cache=True, nogil=True)
def _feather(plane, y, x, turn, bend, length, light):
    """A bent stem with needles on both sides, one side lit more than the other."""
    for part in range(int(length)):
        left = 1.0 - part / length
        y, x = y + np.sin(turn), x + np.cos(turn)
        turn += bend
        _dot(plane, y, x, light)
        if part % 3 == 2:
            continue
        reach = int(0.4 * length * left) + 1
        for side in (-1.0, 1.0):
            down, along = np.sin(turn + side * 0.75), np.cos(turn + side * 0.75)
            shade = light * (0.9 if side > 0 else 0.6) * (0.8 + 0.2 * left)
            for j in range(1, reach + 1):
                _dot(plane, y + down * j, x + along * j, shade * (1.0 - 0.5 * j / (reach + 1.0)))


@njit(cache=True, nogil=True)
def _dot(plane, y, x, value):
    row, column = int(np.floor(y)), int(np.floor(x))
    if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
        plane[row, column] = max(plane[row, column], np.float32(value))
