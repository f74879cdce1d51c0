# pyright: basic
"""Flat parts in space, painted: color, owner, depth, amodal masks and flow of every pixel.

Parts come front to back, so that a surface is colored only where it shows; the picture is that of painting them one
over the other from the back.

A part is a shape on a plane. A 3x3 matrix takes its place (u, v, 1) to (x, y, 1) times the depth along the camera's
axis, so its inverse gives place and depth at every pixel exactly, and with the matrix of the next frame the flow.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from maskwright.data.synthetic.textures import color_of, noise

ALL, BOX, ELLIPSE, CAPSULE, POLYGON, BLOB, RING, BLADE = range(8)
"""Shapes; their numbers: BOX: half sides, corner radius. ELLIPSE: half axes. CAPSULE: x, y, radius of both ends.
POLYGON: corner radius, half width for its bulge. BLOB: half axes, depth and frequency of its fringe, seed, holes. RING:
radius, half width. BLADE: half length along v, half width."""

NEAR = 0.05
"""Meters before the camera where the world begins."""


@njit(cache=True, nogil=True, error_model="numpy")
def measure(shape, u, v, s, corners, first, many):
    """Distance from the outline, negative inside, and how far the surface leans along u and v there (-1..1)."""
    if shape == BOX:
        x, y = abs(u) - s[0] + s[2], abs(v) - s[1] + s[2]
        away = np.sqrt(max(x, 0.0) ** 2 + max(y, 0.0) ** 2) + min(max(x, y), 0.0) - s[2]
        return away, u / s[0], 0.0
    if shape == ELLIPSE:
        a, b = u / s[0], v / s[1]
        near = np.sqrt(a * a + b * b)
        slope = np.sqrt((a / s[0]) ** 2 + (b / s[1]) ** 2)
        return near * (near - 1) / max(slope, 1e-9) if near > 1e-6 else -min(s[0], s[1]), a, b
    if shape == CAPSULE:
        x, y = s[3] - s[0], s[4] - s[1]
        t = ((u - s[0]) * x + (v - s[1]) * y) / max(x * x + y * y, 1e-12)
        t = min(max(t, 0.0), 1.0)
        r = s[2] + t * (s[5] - s[2])
        x, y = u - s[0] - t * x, v - s[1] - t * y
        return np.sqrt(x * x + y * y) - r, x / r, y / r
    if shape == POLYGON:
        best, sign = 1e18, 1.0
        x1, y1 = corners[first + many - 1, 0], corners[first + many - 1, 1]
        for k in range(first, first + many):
            x2, y2 = corners[k, 0], corners[k, 1]
            ex, ey, wx, wy = x1 - x2, y1 - y2, u - x2, v - y2
            t = min(max((wx * ex + wy * ey) / max(ex * ex + ey * ey, 1e-12), 0.0), 1.0)
            best = min(best, (wx - ex * t) ** 2 + (wy - ey * t) ** 2)
            if (y1 > v) != (y2 > v) and u < (x1 - x2) * (v - y2) / (y1 - y2) + x2:
                sign = -sign
            x1, y1 = x2, y2
        return sign * np.sqrt(best) - s[0], u / s[1], 0.0
    if shape == BLOB:
        a, b = u / s[0], v / s[1]
        near = np.sqrt(a * a + b * b)
        away = (near - 1) * min(s[0], s[1])
        if away < 2.2 * s[2]:
            seed = np.int64(s[4])
            fringe = noise(u * s[3], v * s[3], seed) + 0.6 * noise(2.7 * u * s[3], 2.7 * v * s[3], seed + 1)
            away += s[2] * fringe
            if s[5] > 0:  # gaps between the leaves, more of them outward
                hole = noise(1.9 * u * s[3] + 50, 1.9 * v * s[3], seed + 2) + 0.5 * noise(
                    4.3 * u * s[3], 4.3 * v * s[3], seed + 3
                )
                away = max(away, (hole - 1.25 + s[5] * (0.4 + 0.6 * near)) * 0.4 / s[3])
        return away, a, b
    if shape == RING:
        near = np.sqrt(u * u + v * v)
        return abs(near - s[0]) - s[1], 0.0, 0.0
    if shape == BLADE:
        d = (s[0] * s[0] - s[1] * s[1]) / (2 * s[1])
        x, y = abs(u), abs(v)
        if (y - s[0]) * d > x * s[0]:
            return np.sqrt(x * x + (y - s[0]) ** 2), u / s[1], v / s[0]
        return np.sqrt((x + d) ** 2 + y * y) - s[1] - d, u / s[1], v / s[0]
    return -1e9, 0.0, 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def bounds(forward, extent, height, width, out):
    """Pixel boxes (x1, y1, x2, y2) around the parts' extents (u1, v1, u2, v2), of what lies before the camera."""
    poly, cut = np.empty((8, 3)), np.empty((8, 3))
    for i in range(len(forward)):
        out[i] = 0
        for k in range(4):
            u = extent[i, 0] if k == 0 or k == 3 else extent[i, 2]
            v = extent[i, 1] if k < 2 else extent[i, 3]
            for a in range(3):
                poly[k, a] = forward[i, a, 0] * u + forward[i, a, 1] * v + forward[i, a, 2]
        many = 0
        for k in range(4):
            p, q = poly[k], poly[(k + 1) % 4]
            if p[2] >= NEAR:
                cut[many] = p
                many += 1
            if (p[2] >= NEAR) != (q[2] >= NEAR):
                t = (NEAR - p[2]) / (q[2] - p[2])
                cut[many] = p + t * (q - p)
                many += 1
        if many == 0:
            continue
        x1, y1, x2, y2 = 1e9, 1e9, -1e9, -1e9
        for k in range(many):
            x, y = cut[k, 0] / cut[k, 2], cut[k, 1] / cut[k, 2]
            x1, y1, x2, y2 = min(x1, x), min(y1, y), max(x2, x), max(y2, y)
        out[i, 0], out[i, 1] = max(0.0, min(x1 - 1.5, width)), max(0.0, min(y1 - 1.5, height))
        out[i, 2], out[i, 3] = max(0.0, min(x2 + 2.5, width)), max(0.0, min(y2 + 2.5, height))


@njit(cache=True, nogil=True, error_model="numpy")
def paint(
    spans, order, kinds, inverse, box, form, color, surface, light, corners, world, rgb, owner, part, depth, stuff
):
    """Paint every part under what is there; returns the amodal runs of the objects that are things, and their ends.

    Args:
        spans: int64 [K, 4], per object front to back: its number, first and last + 1 of its parts in ``order``, and
            the bit it has among stuff (-1: a thing).
        order: int64 [n], parts, front to back.
        kinds: int32 [n, 5]: shape, material, mode (0 paint, 1 shadow, 2 endlessly far), first corner, corners.
        inverse: float64 [n, 3, 3]; box: int32 [n, 4]; form: float64 [n, 6]; color: float64 [n, 6]; surface: [n, 8].
        light: float64 [n, 8]: towards the sun, then up, both along (u, v, normal); bulge; share of the sun that comes.
        world: float64 [10]: sun, sky and haze RGB, haze per meter.
        rgb, owner, part, depth, stuff: float32 [H, W, 3], int32, int32, float32, uint32 [H, W], written to; ``owner``
            is -1 where nobody is yet.
    """
    height, width = owner.shape
    stamp = np.zeros((height, width), np.int32)
    left_over = np.ones((height, width), np.float32)
    runs, used = np.empty(1 << 14, np.int32), 0
    ends = np.zeros(len(spans), np.int64)
    for k in range(len(spans)):
        number, bit = spans[k, 0], spans[k, 3]
        left, top, right, bottom = width, height, 0, 0
        for position in range(spans[k, 1], spans[k, 2]):
            i = order[position]
            x1, y1, x2, y2 = box[i]
            if x2 <= x1 or y2 <= y1:
                continue
            if kinds[i, 2] != 1:
                left, top, right, bottom = min(left, x1), min(top, y1), max(right, x2), max(bottom, y2)
            _part(
                i, number, bit, kinds[i], inverse[i], box[i], form[i], color[i], surface[i], light[i], corners, world,
                rgb, owner, part, depth, stuff, stamp, left_over,
            )  # fmt: skip
        if bit < 0:
            room = max(0, right - left) * (max(0, bottom - top) + 1) + 4
            if used + room > len(runs):
                grown = np.empty(2 * len(runs) + room, np.int32)
                grown[:used] = runs[:used]
                runs = grown
            used = column_runs(stamp, number + 1, left, top, right, bottom, runs, used)
        ends[k] = used
    return runs[:used].copy(), ends


@njit(cache=True, nogil=True, error_model="numpy")
def column_runs(stamp, value, left, top, right, bottom, runs, used):
    """Append the column-major runs of ``stamp == value`` within a box; returns how much of ``runs`` is used."""
    height, width = stamp.shape
    at, start = 0, -1
    for x in range(left, right):
        for y in range(top, bottom + 1):
            here = y < bottom and stamp[y, x] == value
            place = x * height + y
            if here and start < 0:
                if place == at and at > 0:  # goes on from the foot of the column before
                    used -= 1
                    at -= runs[used]
                    start = at
                else:
                    runs[used] = place - at
                    used += 1
                    at = start = place
            elif not here and start >= 0:
                runs[used] = place - start
                used += 1
                at, start = place, -1
    if at < height * width:
        runs[used] = height * width - at
        used += 1
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def _part(
    i, number, bit, kind, inv, box, s, color, m, light, corners, world, rgb, owner, part, depth, stuff, stamp, left_over
):
    shape, material, mode, first, many = kind
    c, d = color[:3], color[3:]
    lu, lv, ln, up_u, up_v, up_n, bulge, sunlit = light
    hu, hv, hn = lu, lv, ln + 1
    size = np.sqrt(hu * hu + hv * hv + hn * hn) + 1e-9
    hu, hv, hn = hu / size, hv / size, hn / size
    for y in range(box[1], box[3]):
        for x in range(box[0], box[2]):
            if left_over[y, x] < 0.002 and (mode == 1 or (bit >= 0 and stuff[y, x] >> np.uint32(bit) & np.uint32(1))):
                continue  # nothing to see, and known to be there
            px, py = x + 0.5, y + 0.5
            q = inv[2, 0] * px + inv[2, 1] * py + inv[2, 2]
            if q <= 1e-7:
                continue
            far = 1 / q
            u = (inv[0, 0] * px + inv[0, 1] * py + inv[0, 2]) * far
            v = (inv[1, 0] * px + inv[1, 1] * py + inv[1, 2]) * far
            ux, uy = (inv[0, 0] - u * inv[2, 0]) * far, (inv[0, 1] - u * inv[2, 1]) * far
            vx, vy = (inv[1, 0] - v * inv[2, 0]) * far, (inv[1, 1] - v * inv[2, 1]) * far
            wide_u, wide_v = np.sqrt(ux * ux + uy * uy), np.sqrt(vx * vx + vy * vy)
            wide = max(wide_u, wide_v)
            away, nu, nv = measure(shape, u, v, s, corners, first, many)
            if mode == 1:
                t = min(max(0.5 - away / m[1], 0.0), 1.0)
                left_over[y, x] *= np.float32(1 - m[0] * t * t * (3 - 2 * t))
                continue
            if away > 1.5 * wide:
                continue
            alpha = 1.0
            if shape == BOX and s[2] == 0:
                alpha = min(max((u + s[0]) / wide_u + 0.5, 0.0), 1.0) - min(max((u - s[0]) / wide_u + 0.5, 0.0), 1.0)
                alpha *= min(max((v + s[1]) / wide_v + 0.5, 0.0), 1.0) - min(max((v - s[1]) / wide_v + 0.5, 0.0), 1.0)
            elif away > -1.5 * wide:
                gx = measure(shape, u + ux, v + vx, s, corners, first, many)[0] - away
                gy = measure(shape, u + uy, v + vy, s, corners, first, many)[0] - away
                alpha = min(max(0.5 - away / max(np.sqrt(gx * gx + gy * gy), 0.3 * wide), 0.0), 1.0)
            if alpha <= 0.01:
                continue
            if alpha > 0.5:
                if owner[y, x] < 0:
                    owner[y, x], part[y, x] = number, i
                    depth[y, x] = np.float32(far) if mode == 0 else np.float32(np.inf)
                if bit >= 0:
                    stuff[y, x] |= np.uint32(1 << bit)
                else:
                    stamp[y, x] = number + 1
            share = left_over[y, x] * np.float32(alpha)
            if share < 0.002:
                continue
            left_over[y, x] *= np.float32(1 - alpha)
            nu, nv = bulge * min(max(nu, -1.0), 1.0), bulge * min(max(nv, -1.0), 1.0)
            flat = nu * nu + nv * nv
            if flat > 0.98:
                nu, nv, flat = nu * np.sqrt(0.98 / flat), nv * np.sqrt(0.98 / flat), 0.98
            nn = np.sqrt(1 - flat)
            r, g, b, gloss, glow = color_of(material, u, v, min(wide_u, wide_v) * 0.5 + wide * 0.5, c, d, m)
            if glow < 1:
                sun = sunlit * max(0.0, nu * lu + nv * lv + nn * ln)
                sky = 0.42 + 0.58 * (0.5 + 0.5 * (nu * up_u + nv * up_v + nn * up_n))
                spark = 0.0
                if gloss > 0:
                    spark = max(0.0, nu * hu + nv * hv + nn * hn) ** 2
                    spark = spark**16 * gloss * 1.6 * sunlit
                mirror = gloss * 0.22 * (0.35 + sky)
                r = glow * r + (1 - glow) * (
                    r * (sun * world[0] + sky * world[3]) + spark * world[0] + mirror * world[3]
                )
                g = glow * g + (1 - glow) * (
                    g * (sun * world[1] + sky * world[4]) + spark * world[1] + mirror * world[4]
                )
                b = glow * b + (1 - glow) * (
                    b * (sun * world[2] + sky * world[5]) + spark * world[2] + mirror * world[5]
                )
            if mode == 0 and world[9] > 0:
                t = 1 - np.exp(-world[9] * far)
                r, g, b = r + t * (world[6] - r), g + t * (world[7] - g), b + t * (world[8] - b)
            rgb[y, x, 0] += share * np.float32(max(r, 0.0))
            rgb[y, x, 1] += share * np.float32(max(g, 0.0))
            rgb[y, x, 2] += share * np.float32(max(b, 0.0))


@njit(cache=True, nogil=True, error_model="numpy")
def flow_of(part, inverse, after):
    """Where each pixel's point goes until the next frame, float32 [2, H, W] (dx, dy); nan where behind the camera."""
    height, width = part.shape
    out = np.empty((2, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            i = part[y, x]
            px, py = x + 0.5, y + 0.5
            inv, to = inverse[i], after[i]
            a = inv[0, 0] * px + inv[0, 1] * py + inv[0, 2]
            b = inv[1, 0] * px + inv[1, 1] * py + inv[1, 2]
            c = inv[2, 0] * px + inv[2, 1] * py + inv[2, 2]
            w = to[2, 0] * a + to[2, 1] * b + to[2, 2] * c
            if w > 0:
                out[0, y, x] = (to[0, 0] * a + to[0, 1] * b + to[0, 2] * c) / w - px
                out[1, y, x] = (to[1, 0] * a + to[1, 1] * b + to[1, 2] * c) / w - py
            else:
                out[0, y, x] = out[1, y, x] = np.nan
    return out
