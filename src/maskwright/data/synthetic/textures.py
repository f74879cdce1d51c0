# pyright: basic
"""Surfaces as functions of a place on them: noise, walls, paint, leaves, prints. Colors are linear light.

Every function of a place (u, v) is fixed to the surface, so that it moves with it from frame to frame. ``wide`` is the
width of a pixel on the surface, in the surface's units; what is finer than a pixel fades into its mean.
"""

from __future__ import annotations

import numpy as np
from numba import njit

PLAIN, MIX, TILES, FACADE, SKY, FOLIAGE, PAINT, GLASS, PACK, LEAF, FRUIT, TEXT, CLOTH, WHEEL, SIGN = range(15)
"""Materials; what their eight numbers mean stands with ``color_of``. The last number of each is a seed."""


@njit(cache=True, nogil=True, inline="always")
def chance(i, j, seed):
    """A number in 0..1 for a cell of a grid, the same at every call."""
    h = np.uint32(i * 374761393 + j * 668265263 + seed * 974634777)
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(1274126177))
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(2246822519))
    return np.float64(h ^ (h >> np.uint32(16))) / 4294967296.0


@njit(cache=True, nogil=True, error_model="numpy")
def noise(x, y, seed):
    """Smooth noise in -1..1 over unit cells."""
    fx, fy = np.floor(x), np.floor(y)
    i, j = np.int64(fx), np.int64(fy)
    x, y = x - fx, y - fy
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    top = chance(i, j, seed) * (1 - x) + chance(i + 1, j, seed) * x
    low = chance(i, j + 1, seed) * (1 - x) + chance(i + 1, j + 1, seed) * x
    return 2 * (top * (1 - y) + low * y) - 1


@njit(cache=True, nogil=True, error_model="numpy")
def rough(x, y, wide, seed):
    """Noise of three octaves, about -1..1; octaves finer than a pixel are left out."""
    out, gain = 0.0, 0.55
    for k in range(3):
        fade = 1.0 - 1.4 * wide
        if fade <= 0:
            break
        out += gain * min(1.0, 2 * fade) * noise(x, y, seed + 31 * k)
        x, y, wide, gain = 2.03 * x + 7.1, 2.03 * y + 3.7, 2.03 * wide, 0.55 * gain
    return out


@njit(cache=True, nogil=True, inline="always")
def inside(at, low, high, wide):
    """How much of a pixel ``wide`` at ``at`` lies between ``low`` and ``high``, 0..1."""
    wide = max(wide, 1e-6)
    a = min(max((at - low) / wide + 0.5, 0.0), 1.0)
    b = min(max((at - high) / wide + 0.5, 0.0), 1.0)
    return a - b


@njit(cache=True, nogil=True, error_model="numpy")
def strokes(u, v, wide, pitch, seed):
    """Ink of a line of writing, 0..1: upright strokes, bars and gaps between words; v in 0..1 of the line's height."""
    cell = np.floor(u / pitch)
    i = np.int64(cell)
    if chance(i, 5, seed) < 0.16 or v < 0.12 or v > 0.88 or wide > pitch:
        return 0.0 if wide <= pitch else 0.35 * inside(v, 0.12, 0.88, 0.1)
    at = u / pitch - cell
    ink = inside(at, 0.12, 0.34, wide / pitch) if chance(i, 1, seed) < 0.8 else 0.0
    if chance(i, 2, seed) < 0.55:
        ink = max(ink, inside(at, 0.62, 0.82, wide / pitch))
    bar = chance(i, 3, seed)
    level = 0.18 if bar < 0.35 else (0.5 if bar < 0.7 else 0.82)
    return max(ink, inside(v, level - 0.09, level + 0.09, 0.08) * inside(at, 0.12, 0.82, wide / pitch))


@njit(cache=True, nogil=True, error_model="numpy")
def _facade(u, v, wide, c, d, m, seed):
    """m: floor height, window pitch, window width share, window height share, ground floor height, brick, style."""
    floor, pitch, wshare, hshare, ground, brick = m[0], m[1], m[2], m[3], m[4], m[5]
    grain = 1 + 0.12 * rough(u * 0.35, v * 0.35, wide * 0.35, seed) + 0.08 * rough(u * 3, v * 3, wide * 3, seed + 9)
    grain *= 0.86 + 0.14 * min(1.0, v / 3.0)
    r, g, b, gloss = c[0] * grain, c[1] * grain, c[2] * grain, 0.0
    if brick > 0 and wide < 0.3:
        row = np.floor(v / 0.09)
        across = u / 0.24 + 0.5 * (np.int64(row) & 1)
        mortar = max(
            1 - inside(v / 0.09 - row, 0.12, 1.0, wide / 0.09),
            1 - inside(across - np.floor(across), 0.06, 1.0, wide / 0.24),
        )
        fade = brick * max(0.0, 1 - wide / 0.15)
        k = 1 + fade * (0.35 * mortar + 0.3 * (chance(np.int64(np.floor(across)), np.int64(row), seed) - 0.5))
        r, g, b = r * k, g * k, b * k
    low = ground > 0 and v < ground
    if low:
        level, tall, pane_w, pane_h, wide_cell = 0.0, ground, 0.82, 0.74, 1.6 * pitch
    else:
        level = ground + floor * np.floor((v - ground) / floor)
        tall, pane_w, pane_h, wide_cell = floor, wshare, hshare, pitch
    column = np.floor(u / wide_cell)
    i, j = np.int64(column), np.int64(np.floor(level / max(floor, 0.1)))
    x, y = u / wide_cell - column, (v - level) / tall
    wx, wy = wide / wide_cell, wide / tall
    left, bottom = 0.5 - pane_w / 2, 0.46 - pane_h / 2
    frame = inside(x, left - 0.045, 1 - left + 0.045, wx) * inside(y, bottom - 0.05, bottom + pane_h + 0.03, wy)
    pane = inside(x, left, 1 - left, wx) * inside(y, bottom, bottom + pane_h, wy)
    if frame > 0:
        r, g, b = r + frame * (d[0] - r), g + frame * (d[1] - g), b + frame * (d[2] - b)
    if pane > 0:
        luck = chance(i, j, seed + 3)
        shine = 0.03 + 0.25 * max(0.0, noise(0.12 * u, 0.2 * v + 3 * luck, seed + 4)) * luck
        pr, pg, pb = shine, shine * 1.08, shine * 1.2
        if low:  # a shop: something colorful behind the glass
            t = 0.5 + 0.5 * rough(2.2 * u, 1.6 * v, wide * 2, seed + 6)
            pr, pg, pb = pr + 0.16 * t, pg + 0.12 * t * (0.5 + luck), pb + 0.09 * t
        elif luck > 0.72:  # a curtain or a lamp
            t = 0.12 + 0.28 * chance(i, j, seed + 5)
            t *= inside(y, bottom + pane_h * (0.25 + 0.5 * luck), 2.0, wy) if luck < 0.9 else 1.0
            pr, pg, pb = pr + t, pg + 0.93 * t, pb + 0.8 * t
        bar = inside(x, 0.485, 0.515, wx) if pane_w < 0.8 else 0.0
        bar = max(bar, inside(y, bottom + 0.62 * pane_h, bottom + 0.66 * pane_h, wy))
        pr, pg, pb = pr + bar * (d[0] - pr), pg + bar * (d[1] - pg), pb + bar * (d[2] - pb)
        r, g, b = r + pane * (pr - r), g + pane * (pg - g), b + pane * (pb - b)
        gloss = 0.25 * pane
    if low:  # fascia or awning over the shop
        sign = inside(y, 0.84, 0.97, wy)
        if sign > 0:
            shop = np.int64(np.floor(u / (4.2 * pitch)))
            ink = strokes(u, (y - 0.86) / 0.09, wide, 0.16, seed + shop)
            a, e, f = chance(shop, 1, seed), chance(shop, 2, seed), chance(shop, 3, seed)
            a, e, f = 0.02 + 0.5 * a * a, 0.02 + 0.4 * e * e, 0.02 + 0.4 * f * f
            lit = 0.75 * ink
            r, g, b = r + sign * (a + lit - r), g + sign * (e + lit - g), b + sign * (f + lit - b)
    else:
        ledge = inside(v - level, -0.0, 0.14, wide) * m[6]
        r, g, b = r * (1 + 0.35 * ledge), g * (1 + 0.35 * ledge), b * (1 + 0.35 * ledge)
    return r, g, b, gloss, 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _pack(u, v, wide, c, d, m, seed):
    """A printed package: m: half width, half height. Bands, a badge, a picture, lines of writing."""
    x, y = u / m[0], v / m[1]
    wx, wy = wide / m[0], wide / m[1]
    a0, a1, a2, a3 = chance(1, 1, seed), chance(1, 2, seed), chance(1, 3, seed), chance(1, 4, seed)
    r, g, b = c[0], c[1], c[2]
    style = np.int64(4 * a0)
    if style == 0:  # two bands
        t = inside(y, -1.1, -0.55 + 0.5 * a1, wy) + inside(y, 0.72, 1.1, wy)
    elif style == 1:  # a slanting field
        t = inside(y + (a1 - 0.5) * 1.4 * x, -2.5, -0.25 + 0.5 * a2, wy + wx)
    elif style == 2:  # a wave
        t = inside(y + 0.22 * np.sin(2.2 * x + 6 * a1), -2, 0.1 * a2 - 0.2, wy + wx)
    else:  # stripes
        w = 0.35 + 0.5 * a1
        s = x / w - np.floor(x / w)
        t = inside(s, 0, 0.5, wx / w) if wx < w else 0.5
    t = min(1.0, t)
    r, g, b = r + t * (d[0] - r), g + t * (d[1] - g), b + t * (d[2] - b)
    # The picture of what is inside: a heap of blobs of its own hue.
    px, py = (x - 0.5 * (a2 - 0.5)) / (0.5 + 0.3 * a1), (y + 0.42) * m[1] / m[0] / (0.42 + 0.3 * a3)
    heap = 1 - px * px - py * py + 0.35 * rough(2.5 * x, 2.5 * y * m[1] / m[0], wx, seed + 3)
    t = min(1.0, max(0.0, heap * 6)) if a3 > 0.25 else 0.0
    if t > 0:
        shade = 0.55 + 0.6 * (0.5 + 0.5 * rough(5 * x, 5 * y * m[1] / m[0], 3 * wx, seed + 4))
        h0, h1, h2 = chance(2, 1, seed), chance(2, 2, seed), chance(2, 3, seed)
        r, g, b = (
            r + t * (shade * (0.1 + 0.7 * h0) - r),
            g + t * (shade * (0.06 + 0.6 * h1) - g),
            b + t * (shade * (0.03 + 0.4 * h2) - b),
        )
    # The badge with the brand's name.
    high, far = 0.17 + 0.1 * a2, 0.62 + 0.25 * a1
    level = 0.42 + 0.2 * (a3 - 0.5)
    badge = inside(y, level - high, level + high, wy) * inside(x, -far, far, wx)
    if a0 * 7 % 1 > 0.45:
        e = (x / far) ** 2 + ((y - level) / high) ** 2
        badge = min(1.0, max(0.0, (1 - e) / max(3 * (wx + wy), 0.02)))
    if badge > 0:
        dark = chance(3, 1, seed) < 0.5
        br, bg, bb = (0.85, 0.85, 0.82) if dark else (0.03 + 0.4 * a1 * a1, 0.03 + 0.12 * a2, 0.04 + 0.3 * a3 * a3)
        ink = strokes(x + far, (y - level + 0.62 * high) / (1.24 * high), wx, 0.2 + 0.12 * a2, seed + 1)
        ir, ig, ib = (0.5 * a1 * a1, 0.05 * a2, 0.3 * a3) if dark else (0.9, 0.88, 0.75)
        ink *= inside(x, -0.82 * far, 0.82 * far, wx)
        br, bg, bb = br + ink * (ir - br), bg + ink * (ig - bg), bb + ink * (ib - bb)
        r, g, b = r + badge * (br - r), g + badge * (bg - g), b + badge * (bb - b)
    fine = (
        strokes(x + 1, ((y + 0.86) / 0.07) % 1.6, wx, 0.075, seed + 2)
        * inside(y, -0.95, -0.76, wy)
        * inside(x, -0.8, 0.5 + a1 - 0.5, wx)
    )
    k = 1 - 0.7 * fine
    return r * k, g * k, b * k, m[2], 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def color_of(material, u, v, wide, c, d, m):
    """(red, green, blue, gloss, glow) of a surface at a place; gloss and glow in 0..1.

    Numbers of the materials: PLAIN: grain, its frequency, gloss, glow. MIX (of both colors): amount, frequency, fine
    grain, its frequency, stretch along v, gloss. TILES: width, height, joint, its darkness, variation, offset of rows.
    SKY: horizon v, cloud cover, cloud size, scale. FOLIAGE: frequency, contrast, half height. PAINT: middle v, half
    height, gloss. GLASS: middle v, half height, frequency. PACK, TEXT: half sides, gloss. LEAF: half length. FRUIT:
    frequency, blush, speckles. CLOTH: pattern, pitch. WHEEL: radius. SIGN: radius, style.
    """
    seed = np.int64(m[7])
    if material == MIX:
        t = 0.5 + m[0] * rough(u * m[1], v * m[1] * m[4], wide * m[1] * max(1.0, m[4]), seed)
        t = min(1.0, max(0.0, t))
        f = wide * m[3]
        k = 1 + m[2] * (noise(u * m[3], v * m[3] * m[4], seed + 5) * min(1.0, max(0.0, 2 - 2 * f)) if f < 1 else 0.0)
        return (c[0] + t * (d[0] - c[0])) * k, (c[1] + t * (d[1] - c[1])) * k, (c[2] + t * (d[2] - c[2])) * k, m[5], 0.0
    if material == TILES:
        row = np.floor(v / m[1])
        across = u / m[0] + m[5] * (np.int64(row) & 1)
        x, y = across - np.floor(across), v / m[1] - row
        joint = 1 - inside(x, m[2], 1.0, wide / m[0]) * inside(y, m[2] * m[0] / m[1], 1.0, wide / m[1])
        joint *= max(0.0, 1 - 0.5 * wide / m[0])
        own = chance(np.int64(np.floor(across)), np.int64(row), seed) - 0.5 if wide < m[0] else 0.0
        k = (1 + m[4] * own) * (1 + 0.15 * rough(u, v, wide, seed + 1) + 0.1 * rough(9 * u, 9 * v, 9 * wide, seed + 2))
        t = m[3] * joint
        return (
            c[0] * k + t * (d[0] - c[0] * k),
            c[1] * k + t * (d[1] - c[1] * k),
            c[2] * k + t * (d[2] - c[2] * k),
            0.0,
            0.0,
        )
    if material == FACADE:
        return _facade(u, v, wide, c, d, m, seed)
    if material == SKY:
        up = max(0.0, (v - m[0]) / m[3])
        t = np.exp(-3.2 * up)
        r, g, b = d[0] + (c[0] - d[0]) * t, d[1] + (c[1] - d[1]) * t, d[2] + (c[2] - d[2]) * t
        x, y = u / m[3] / (up + 0.12), 1 / (up + 0.12)
        cover = rough(x * m[2], y * m[2], 0.0, seed) + 0.35 * rough(4.1 * x * m[2], 4.1 * y * m[2], 0.0, seed + 8)
        t = min(1.0, max(0.0, 1.6 * (cover + 2 * m[1] - 1.0))) * min(1.0, 6 * up)
        body = 0.8 + 0.35 * rough(x * m[2] + 0.15, y * m[2] + 0.2, 0.0, seed + 1)
        return r + t * (body - r), g + t * (body - g), b + t * (1.04 * body - b), 0.0, 1.0
    if material == FOLIAGE:
        t = (
            0.5
            + 0.5 * v / m[2] * 0.6
            + m[1]
            * (
                rough(u * m[0], v * m[0], wide * m[0], seed)
                + 0.7 * rough(3.7 * u * m[0], 3.7 * v * m[0], 3.7 * wide * m[0], seed + 3)
            )
        )
        t = min(1.25, max(0.0, t))
        return c[0] + t * (d[0] - c[0]), c[1] + t * (d[1] - c[1]), c[2] + t * (d[2] - c[2]), 0.0, 0.0
    if material == PAINT:
        y = (v - m[0]) / m[1]
        k = 1 + 0.22 * y + 0.1 * rough(0.7 * u, 0.9 * v, wide, seed)
        k *= 1 - 0.35 * min(1.0, max(0.0, -0.35 - y) * 2)
        line = 0.35 * inside(y, 0.52, 0.6, wide / m[1])
        k *= 1 + line
        return c[0] * k, c[1] * k, c[2] * k, m[2], 0.0
    if material == GLASS:
        y = (v - m[0]) / m[1]
        t = min(1.0, max(0.0, 0.3 + 0.35 * y + 0.5 * rough(m[2] * u, m[2] * v * 0.5, wide * m[2], seed)))
        return c[0] + t * (d[0] - c[0]), c[1] + t * (d[1] - c[1]), c[2] + t * (d[2] - c[2]), 0.6, 0.0
    if material == PACK:
        return _pack(u, v, wide, c, d, m, seed)
    if material == LEAF:
        rib = max(0.0, 1 - abs(u) / max(0.05 * m[0], wide))
        vein = 0.12 * np.sin(16 * (v / m[0] - abs(u) / m[0] * 0.7)) if wide < 0.12 * m[0] else 0.0
        k = 1 + 0.15 * rough(3 * u / m[0], 3 * v / m[0], wide / m[0], seed) + vein * 0.6
        k *= 0.88 if u > 0 else 1.08
        t = 0.45 * rib
        return (
            c[0] * k + t * (d[0] - c[0] * k),
            c[1] * k + t * (d[1] - c[1] * k),
            c[2] * k + t * (d[2] - c[2] * k),
            m[2],
            0.0,
        )
    if material == FRUIT:
        t = (
            m[1]
            + 0.6 * noise(0.9 * u * m[0], 0.9 * v * m[0], seed)
            + 0.25 * noise(u * m[0] * 6, v * m[0] * 1.5, seed + 1)
        )
        t = min(1.0, max(0.0, t))
        k = 1.0
        f = wide * m[0] * 9
        if f < 1:
            k += m[2] * noise(u * m[0] * 9, v * m[0] * 9, seed + 2) * (1 - f)
        return (c[0] + t * (d[0] - c[0])) * k, (c[1] + t * (d[1] - c[1])) * k, (c[2] + t * (d[2] - c[2])) * k, m[3], 0.0
    if material == TEXT:
        x, y = u / m[0], v / m[1]
        ink = (
            strokes(u + m[0], (y + 0.25) / 0.9, wide, 0.3 * m[1], seed)
            * inside(y, -0.25, 0.65, wide / m[1])
            * inside(x, -0.85, 0.75, wide / m[0])
        )
        ink = max(
            ink,
            0.8
            * strokes(u + m[0], (y + 0.75) / 0.3, wide, 0.12 * m[1], seed + 1)
            * inside(y, -0.75, -0.45, wide / m[1])
            * inside(x, -0.85, 0.3, wide / m[0]),
        )
        return c[0] + ink * (d[0] - c[0]), c[1] + ink * (d[1] - c[1]), c[2] + ink * (d[2] - c[2]), m[2], 0.0
    if material == CLOTH:
        k = 1 + 0.16 * rough(u * 9, v * 5, wide * 9, seed)
        t = 0.0
        if m[0] >= 1 and wide < m[1]:
            x = v / m[1] if m[0] < 2 else u / m[1]
            t = inside(x - np.floor(x), 0.0, 0.45, wide / m[1])
            if m[0] >= 3:
                y = v / m[1]
                t = 0.5 * t + 0.5 * inside(y - np.floor(y), 0.0, 0.45, wide / m[1])
        return (c[0] + t * (d[0] - c[0])) * k, (c[1] + t * (d[1] - c[1])) * k, (c[2] + t * (d[2] - c[2])) * k, 0.0, 0.0
    if material == WHEEL:
        radius = np.sqrt(u * u + v * v) / m[0]
        rim = inside(radius, -1.0, 0.64, wide / m[0])
        spoke = 0.5 + 0.5 * np.cos(np.arctan2(v, u) * m[1] + m[2])
        t = rim * (0.25 + 0.75 * min(1.0, max(0.0, 3 * spoke - 0.9))) if radius > 0.16 else rim
        return c[0] + t * (d[0] - c[0]), c[1] + t * (d[1] - c[1]), c[2] + t * (d[2] - c[2]), 0.3 * rim, 0.0
    if material == SIGN:
        x, y = u / m[0], v / m[0]
        w = wide / m[0]
        if m[1] < 1:  # a ring around white
            radius = np.sqrt(x * x + y * y)
            t = inside(radius, -1, 0.78, w)
            ink = inside(abs(x), -1, 0.16 + 0.3 * chance(1, 1, seed), w) * inside(abs(y), -1, 0.42, w)
        elif m[1] < 2:  # a white sign on color
            t = inside(abs(x), -1.0, 0.5, w) * inside(abs(y), -1.0, 0.14 + 0.3 * chance(1, 2, seed), w)
            ink = 0.0
        else:  # writing on color
            t = strokes(u + 2 * m[0], (y + 0.5) / 0.9, wide, 0.28 * m[0], seed) * inside(y, -0.5, 0.4, w)
            ink = 0.0
        k = 1 - 0.95 * ink * t
        return (c[0] + t * (d[0] - c[0])) * k, (c[1] + t * (d[1] - c[1])) * k, (c[2] + t * (d[2] - c[2])) * k, 0.15, 0.0
    k = 1 + m[0] * rough(u * m[1], v * m[1], wide * m[1], seed)
    return c[0] * k, c[1] * k, c[2] * k, m[2], m[3]
