# pyright: basic
"""Forms of machined parts: outline and height of plates, washers, nuts, gears, screws, brackets and castings.

A part lives in its own frame, one unit being its reach (the radius of the circle around it). Twelve numbers say what it
is like (``KINDS`` gives their meaning), holes are discs cut out of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from maskwright.data.synthetic.cells_forms import value_noise
from maskwright.data.synthetic.cells_windows import Windows, frames_of

Rng = np.random.Generator

PLATE, WASHER, NUT, GEAR, SCREW, HEAD, BRACKET, CASTING = range(8)
"""Forms. PLATE: half sides, corner radius, thickness. WASHER: bore, thickness. NUT: bore, thickness, corners. GEAR:
teeth, root, bore, thickness, hub, depth of the web. SCREW (lying): head length, head half width, shaft half width,
pitch, point. HEAD (a screw from above): style (0 slot, 1 cross, 2 hexagon), dome, recess. BRACKET: width of the legs,
length of the second, thickness, height of the flange. CASTING: lobes, spread, thickness, boss, then a seed's angles."""

NAMES = ("plate", "washer", "nut", "gear", "screw", "screw", "bracket", "casting")
"""The class of each form."""

MARGIN = 9
"""Pixels around a part that belong to its window: room for burrs."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """N parts.

    Attributes:
        kinds: int32 [N].
        centers: float64 [N, 2], (y, x) in pixels.
        reaches: float64 [N], pixels a unit.
        angles: float64 [N], radians from the x axis.
        numbers: float32 [N, 12], as above.
        holes: float32 [N, 12, 3], (u, v, radius) in units; radius 0 for none.
        rough: float32 [N], relief of the surface in pixels.
        places: float32 [N, 2], where in the noise the surface is cut out.
    """

    kinds: np.ndarray
    centers: np.ndarray
    reaches: np.ndarray
    angles: np.ndarray
    numbers: np.ndarray
    holes: np.ndarray
    rough: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)


def form(rng: Rng, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers [12] and holes [12, 3] of one part."""
    numbers, holes = np.zeros(12, np.float32), np.zeros((12, 3), np.float32)
    spots: list[tuple[float, float, float]] = []
    if kind == PLATE:
        a = float(rng.uniform(0.6, 0.92))
        b = min(float(np.sqrt(1 - a * a)), a) * float(rng.uniform(0.6, 1.0))
        corner = min(a, b) * float(rng.uniform(0.03, 0.5))
        numbers[:4] = a, b, corner, rng.uniform(0.03, 0.12)
        r = min(a, b) * float(rng.uniform(0.08, 0.18))
        inset = max(r + min(a, b) * float(rng.uniform(0.1, 0.25)), 0.6 * corner)
        if rng.random() < 0.85:
            spots += [(sx * (a - inset), sy * (b - inset), r) for sx in (-1, 1) for sy in (-1, 1)]
        if rng.random() < 0.5:
            spots.append((0.0, 0.0, min(a, b) * float(rng.uniform(0.15, 0.45))))
        elif rng.random() < 0.5:
            spots += [(x * a, 0.0, r * 0.8) for x in (-0.35, 0.0, 0.35)]
    elif kind == WASHER:
        numbers[:2] = rng.uniform(0.35, 0.7), rng.uniform(0.04, 0.16)
        spots.append((0.0, 0.0, float(numbers[0])))
    elif kind == NUT:
        numbers[:3] = rng.uniform(0.4, 0.6), rng.uniform(0.25, 0.5), 6
        spots.append((0.0, 0.0, float(numbers[0])))
    elif kind == GEAR:
        teeth = int(rng.integers(10, 40))
        root = 1 - 2.2 / (teeth + 2) * float(rng.uniform(0.8, 1.1))
        bore = float(rng.uniform(0.1, 0.3))
        numbers[:6] = teeth, root, bore, rng.uniform(0.1, 0.3), bore + rng.uniform(0.08, 0.2), rng.uniform(0, 0.7)
        spots.append((0.0, 0.0, bore))
        if rng.random() < 0.5:
            many, ring = int(rng.integers(3, 7)), 0.5 * (float(numbers[4]) + root)
            r = min(0.32 * (root - float(numbers[4])), ring * np.pi / many * 0.6)
            spots += [(ring * np.cos(t), ring * np.sin(t), r) for t in np.arange(many) * 2 * np.pi / many]
    elif kind == SCREW:
        head = float(rng.uniform(0.2, 0.38))
        numbers[:5] = (
            rng.uniform(0.15, 0.35),
            head,
            head * rng.uniform(0.42, 0.62),
            rng.uniform(0.06, 0.12),
            rng.uniform(0, 0.3),
        )
    elif kind == HEAD:
        numbers[:3] = rng.integers(0, 3), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.35)
    elif kind == BRACKET:
        wide, long = float(rng.uniform(0.28, 0.5)), float(rng.uniform(0.7, 1.3))
        numbers[:4] = wide, long, rng.uniform(0.03, 0.1), rng.uniform(0, 0.3)
        r = wide * float(rng.uniform(0.18, 0.3))
        spots += [(0.72 - wide / 2, wide / 2 - 0.72, r), (-0.1, wide / 2 - 0.72, r)]
        spots.append((wide / 2 - 0.72, long - 0.72 - wide / 2, r))
    else:
        lobes = int(rng.integers(2, 6))
        numbers[:4] = lobes, rng.uniform(0.4, 0.55), rng.uniform(0.12, 0.3), rng.uniform(0.1, 0.2)
        turn = np.arange(lobes) * 2 * np.pi / lobes + rng.normal(0, 0.2, lobes)
        numbers[4 : 4 + lobes] = turn
        if rng.random() < 0.6:
            spots.append((0.0, 0.0, float(rng.uniform(0.1, 0.24))))
        far = float(numbers[1])
        spots += [(far * np.cos(t), far * np.sin(t), 0.45 * float(numbers[3])) for t in turn]
    for i, spot in enumerate(spots[:12]):
        holes[i] = spot
    return numbers, holes


def windows(parts: Parts, size: tuple[int, int], knots: np.ndarray) -> Windows:
    """Where each part lies on (H, W): ``depth`` as in ``Windows``, ``level`` is its height in pixels, 0 outside."""
    boxes, starts = frames_of(parts.centers, 1.02 * parts.reaches + MARGIN, size)
    depth, height = np.empty((2, int(starts[-1])), np.float32)
    pose = np.stack(
        (*parts.centers.T, parts.reaches, np.cos(parts.angles), np.sin(parts.angles), parts.rough, *parts.places.T), 1
    )
    _stamp(parts.kinds, pose.astype(np.float32), parts.numbers, parts.holes, boxes, starts, knots, depth, height)
    return Windows(size=size, boxes=boxes, starts=starts, depth=depth, level=height)


@njit(cache=True, nogil=True)
def _wave(t):
    """A triangle between -1 and 1 with period 1."""
    return 4 * abs(t - np.floor(t) - 0.5) - 1


@njit(cache=True, nogil=True)
def _box(x, y, a, b, r):
    """Distance into a box with rounded corners, positive inside."""
    u, v = abs(x) - a + r, abs(y) - b + r
    return r - np.sqrt(max(u, 0.0) ** 2 + max(v, 0.0) ** 2) - min(max(u, v), 0.0)


@njit(cache=True, nogil=True)
def _ease(t):
    t = min(max(t, 0.0), 1.0)
    return 1 - (1 - t) * (1 - t)


@njit(cache=True, nogil=True)
def _solid(kind, n, x, y):
    """Distance into the outline without holes, positive inside, and the height there, in units."""
    if kind == PLATE:
        d = _box(x, y, n[0], n[1], n[2])
        return d, n[3] * _ease(d / (0.4 * n[3]))
    r = np.sqrt(x * x + y * y)
    if kind == WASHER:
        return 1 - r, n[1] * _ease((1 - r) / (0.5 * n[1]))
    if kind == NUT:
        t = np.arctan2(y, x)
        t -= np.round(t * 3 / np.pi) * np.pi / 3
        d = 0.866 - r * np.cos(t)
        return d, n[1] * (_ease(d / 0.05) - 0.45 * max(0.0, r - 0.82))
    if kind == GEAR:
        t = _wave(np.arctan2(y, x) * n[0] / (2 * np.pi))
        tip = min(max(0.5 + 0.95 * t, 0.0), 1.0)
        d = n[1] + (1 - n[1]) * tip - r
        high = n[3] * _ease(min(d, 0.06) / 0.06)
        web = min(max((n[1] - 0.1 - r) / 0.03, 0.0), 1.0) * min(max((r - n[4]) / 0.03, 0.0), 1.0)
        return d, high * (1 - n[5] * web)
    if kind == SCREW:
        head = _box(x + 1 - n[0] / 2, y, n[0] / 2, n[1], 0.04)
        thread = _wave(x / n[3] + 0.3 * y / n[2]) if x > n[0] * 1.4 - 1 else -1.0
        half = n[2] * (1 + 0.07 * thread)
        if n[4] > 0.02:
            half *= min(max((0.98 - x) / n[4], 0.0), 1.0)
        shaft = min(half - abs(y), 0.98 - x, x + 1)
        if head > shaft:
            return head, n[1] * np.sqrt(max(1 - (y / n[1]) ** 2, 0.0)) + 0.02
        return shaft, half * np.sqrt(max(1 - (y / max(half, 1e-6)) ** 2, 0.0))
    if kind == HEAD:
        d = 1 - r
        high = 0.25 + n[1] * np.sqrt(max(1 - r * r, 0.0))
        cut = -1.0
        if n[0] < 0.5:
            cut = 0.09 - abs(y)
        elif n[0] < 1.5:
            cut = max(min(0.1 - abs(y), 0.55 - abs(x)), min(0.1 - abs(x), 0.55 - abs(y)))
        else:
            t = np.arctan2(y, x)
            cut = 0.42 - r * np.cos(t - np.round(t * 3 / np.pi) * np.pi / 3)
        return d, high * _ease(d / 0.08) - n[2] * min(max(cut / 0.03, 0.0), 1.0)
    if kind == BRACKET:
        a = _box(x, y - n[0] / 2 + 0.72, 0.72, n[0] / 2, 0.05)
        b = _box(x - n[0] / 2 + 0.72, y - n[1] / 2 + 0.72, n[0] / 2, n[1] / 2, 0.05)
        d = max(a, b)
        high = n[2] * _ease(d / (0.4 * n[2]))
        wall = min(max((y + 0.72) / 0.01, 0.0), 1.0) * min(max((n[2] + 0.02 - y - 0.72) / 0.02, 0.0), 1.0)
        return d, high + n[3] * wall
    many, far = int(n[0]), n[1]
    total = 0.3 / (r * r + 1e-4)
    boss, rib = -1.0, 0.0
    for k in range(many):
        c, s = np.cos(n[4 + k]), np.sin(n[4 + k])
        u, v = x - far * c, y - far * s
        gap = u * u + v * v
        total += 0.06 / (gap + 1e-4)
        boss = max(boss, n[3] - np.sqrt(gap))
        along = x * c + y * s
        if 0 < along < far:
            rib = max(rib, 1 - abs(y * c - x * s) / 0.05)
    d = 0.35 * (np.sqrt(total / 1.45) - 1)
    high = n[2] * (0.55 * _ease(d / 0.16) + 0.45 * min(max(boss / 0.04, 0.0), 1.0))
    return d, max(high, n[2] * (0.55 * _ease(d / 0.16) + 0.3 * min(max(rib, 0.0), 1.0)) if rib > 0 else high)


@njit(cache=True, nogil=True)
def _stamp(kinds, pose, numbers, holes, boxes, starts, knots, depth, height):
    for i in range(len(kinds)):
        y0, x0, h, w = boxes[i]
        cy, cx, reach, cos, sin, rough, oy, ox = pose[i]
        own, kind = numbers[i], kinds[i]
        at = starts[i]
        for y in range(y0, y0 + h):
            v = (y + np.float32(0.5) - cy) / reach
            for x in range(x0, x0 + w):
                u = (x + np.float32(0.5) - cx) / reach
                p, q = u * cos + v * sin, v * cos - u * sin
                d, high = _solid(kind, own, p, q)
                for k in range(holes.shape[1]):
                    r = holes[i, k, 2]
                    if r > 0:
                        a, b = p - holes[i, k, 0], q - holes[i, k, 1]
                        away = np.sqrt(a * a + b * b) - r
                        if away < d:
                            d = away
                        if away < 0.03 and high > 0:
                            high *= np.float32(0.75) + np.float32(0.25) * min(max(away / 0.03, 0.0), 1.0)
                depth[at] = d * reach
                bump = np.float32(0)
                if d > 0 and rough > 0:
                    a, b = p * reach * np.float32(0.3) + ox, q * reach * np.float32(0.3) + oy
                    bump = value_noise(knots[0], b, a) + np.float32(0.6) * value_noise(
                        knots[1], b * np.float32(2.3), a * np.float32(2.3)
                    )
                height[at] = max(high * reach + rough * bump, np.float32(0.3)) if d > 0 else np.float32(0)
                at += 1
