# pyright: basic
"""Weather's pixels: streaks and flakes drawn on a plane, and the passes that mix such planes into a picture."""

from __future__ import annotations

import numpy as np
from numba import njit

from maskwright.data.augment.pixel_kernels import uniform


@njit(cache=True, nogil=True)
def streaks(layer, places, slope, lengths, thick, lights):
    """Add nearly vertical streaks to float32 [H, W]: brightest below their middle, fading to both ends."""
    height, width = layer.shape
    for k in range(len(places)):
        top, left, length = places[k, 0], places[k, 1], lengths[k]
        first, last = max(int(np.ceil(top)), 0), min(int(top + length), height - 1)
        for y in range(first, last + 1):
            along = (y - top) / length
            light = lights[k] * min(along * 1.6, (1.0 - along) * 2.7, 1.0)
            middle = left + slope * (y - top)
            for x in range(max(int(middle - thick - 1.0), 0), min(int(middle + thick + 2.0), width)):
                cover = min(max(thick * 0.5 + 0.5 - abs(x - middle), 0.0), 1.0)
                layer[y, x] += np.float32(light * cover)


@njit(cache=True, nogil=True)
def flakes(layer, places, angles, radii, stretches, lights):
    """Lay soft ellipses over float32 [H, W], long along their angle from the vertical."""
    height, width = layer.shape
    for k in range(len(places)):
        sin, cos = np.sin(angles[k]), np.cos(angles[k])
        short, long = radii[k], radii[k] * stretches[k]
        reach = long + 1.5
        y0, x0 = places[k, 0], places[k, 1]
        for y in range(max(int(y0 - reach), 0), min(int(y0 + reach) + 2, height)):
            for x in range(max(int(x0 - reach), 0), min(int(x0 + reach) + 2, width)):
                along, across = (y - y0) * cos + (x - x0) * sin, (x - x0) * cos - (y - y0) * sin
                far = (along / (long + 0.3)) ** 2 + (across / (short + 0.3)) ** 2
                if far < 1.69:
                    cover = min((1.3 - np.sqrt(far)) / 0.75, 1.0)
                    opaque = np.float32(lights[k] * cover * cover * (3.0 - 2.0 * cover))
                    layer[y, x] += (np.float32(1.0) - layer[y, x]) * opaque


@njit(cache=True, nogil=True)
def veiled(pixels, veil, layer, sky, light):
    """uint8 [3, H, W] times ``light``, mixed with ``sky`` by ``veil``, then with something brighter by ``layer``."""
    out = np.empty_like(pixels)
    height, width = veil.shape
    dim, half = np.float32(light), np.float32(0.5)
    for c in range(3):
        air = sky[c]
        bright = min(air * np.float32(1.25) + np.float32(15.0), np.float32(255.0))
        for y in range(height):
            for x in range(width):
                value = pixels[c, y, x] * dim
                value += (air - value) * veil[y, x]
                value += (bright - value) * min(layer[y, x], np.float32(1.0))
                out[c, y, x] = np.uint8(min(max(value + half, np.float32(0.0)), np.float32(255.0)))
    return out


@njit(cache=True, nogil=True)
def largest(plane, step, tall, wide):
    """The mean of each block of float32 [H, W] and its largest, float32 [tall, wide]: small lamps still count."""
    out = np.zeros((tall, wide), np.float32)
    for y in range(tall):
        for x in range(wide):
            top, total, count = np.float32(0.0), np.float32(0.0), 0
            for v in range(y * step, min((y + 1) * step, plane.shape[0])):
                for u in range(x * step, min((x + 1) * step, plane.shape[1])):
                    top = max(top, plane[v, u])
                    total += plane[v, u]
                    count += 1
            out[y, x] = np.float32(0.5) * (top + total / count)
    return out


@njit(cache=True, nogil=True)
def darkened(pixels, light, curves, gray, lamps, halo, noise, seed):
    """Night: values through ``curves`` [3, 256] with less color, lamps as they were, warm halos, noise of the dark."""
    out = np.empty_like(pixels)
    height, width = light.shape
    grains = np.empty(257, np.float32)
    for value in range(257):
        grains[value] = noise * (0.5 + np.sqrt(value / 255.0))
    warm = (np.float32(1.0), np.float32(0.85), np.float32(0.62))
    fade = np.float32(gray)
    for c in range(3):
        for y in range(height):
            for x in range(width):
                value = pixels[c, y, x]
                dark = curves[c, value] * (np.float32(1.0) - fade) + curves[c, int(light[y, x])] * fade
                dark += (value - dark) * lamps[y, x]
                dark += halo[y, x] * warm[c] * (np.float32(1.0) - dark / np.float32(255.0))
                number = (c * height + y) * width + x
                dark += grains[int(min(dark, np.float32(255.0)))] * np.float32(_bell(seed, number))
                out[c, y, x] = np.uint8(min(max(dark + np.float32(0.5), np.float32(0.0)), np.float32(255.0)))
    return out


@njit(cache=True, nogil=True)
def _bell(seed, number):
    """Roughly Gaussian, deviation 1: four 13-bit pieces of one hash, added (Irwin-Hall)."""
    bits = np.int64(uniform(seed, number) * 4503599627370496.0)
    total = (bits & 8191) + ((bits >> 13) & 8191) + ((bits >> 26) & 8191) + ((bits >> 39) & 8191)
    return (total / 8191.0 - 2.0) * 1.7320508


@njit(cache=True, nogil=True)
def shaded(pixels, lines, depths, soft, tint):
    """Darken uint8 [3, H, W] where all half planes of a shadow overlap; ``tint`` is each channel's part of it."""
    height, width = pixels.shape[1:]
    out = np.empty_like(pixels)
    row = np.empty(width, np.float32)
    for y in range(height):
        row[:] = 1.0
        for k in range(len(lines)):
            for x in range(width):
                inside = soft
                for j in range(lines.shape[1]):
                    inside = min(inside, lines[k, j, 0] * y + lines[k, j, 1] * x + lines[k, j, 2])
                part = min(max(0.5 + 0.5 * inside / soft, 0.0), 1.0)
                part = part * part * (3.0 - 2.0 * part)
                row[x] = min(row[x], np.float32(1.0 - depths[k] * part))
        for c in range(3):
            for x in range(width):
                left = np.float32(1.0) - (np.float32(1.0) - row[x]) * tint[c]
                out[c, y, x] = np.uint8(pixels[c, y, x] * left + np.float32(0.5))
    return out
