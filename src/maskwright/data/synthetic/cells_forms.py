# pyright: basic
"""Forms of nuclei and cells: bent, pointed, wavy ellipses, their windows, and dye with chromatin on them.

The dye of several cells adds up, as light does in fluorescence and optical density in transmitted light, so overlaps
look as they do under a microscope without a notion of above and below.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numba import njit

from maskwright.data.synthetic.cells_windows import Windows, frames_of

WAVES = 6
"""Waves on an outline, of order 2 to 7."""

GRID = 64
"""Knots of the noise that chromatin is made of; it repeats after as many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forms:
    """N outlines and what is in them; every field is float32 [N] unless it says otherwise.

    Attributes:
        centers: [N, 2], (y, x) in pixels.
        radii: longer half axis, pixels.
        aspects: shorter over longer half axis.
        angles: of the longer axis from the x axis, radians.
        bends: how much the long axis curves (0.5 is a bean).
        tapers: 0 for round ends, 1 for a spindle's.
        waves: complex64 [N, WAVES], amplitude and phase of the outline's waves relative to the radius.
        edges: width of the soft edge in pixels: focus.
        levels: amount of dye.
        domes: 0 for flat dye, 1 for a ball's, negative for a hollow one.
        rims: extra dye along the outline, relative.
        coarse, fine: spread of the chromatin's texture, relative.
        grains: clumps across a radius.
        holes: how much nucleoli take away (negative: add), relative.
        places: [N, 2], where in the noise the texture is cut out.
    """

    centers: np.ndarray
    radii: np.ndarray
    aspects: np.ndarray
    angles: np.ndarray
    bends: np.ndarray
    tapers: np.ndarray
    waves: np.ndarray
    edges: np.ndarray
    levels: np.ndarray
    domes: np.ndarray
    rims: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    grains: np.ndarray
    holes: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.radii)

    def take(self, index: np.ndarray) -> Forms:
        """Some of them, in the given order."""
        return Forms(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def changed(self, **values: np.ndarray) -> Forms:
        """The same forms with some fields replaced."""
        return replace(self, **{name: np.asarray(value, getattr(self, name).dtype) for name, value in values.items()})


def joined(*several: Forms) -> Forms:
    """All forms of ``several``, in order."""
    return Forms(**{f.name: np.concatenate([getattr(s, f.name) for s in several]) for f in fields(Forms)})


def plain(centers: np.ndarray, radii: np.ndarray, **values: np.ndarray | float) -> Forms:
    """Round, sharp, untextured forms of dye 1, apart from what ``values`` say."""
    count = len(radii)
    out: dict[str, np.ndarray] = {
        "centers": np.asarray(centers, np.float32).reshape(count, 2),
        "radii": np.asarray(radii, np.float32),
        "waves": np.zeros((count, WAVES), np.complex64),
        "places": np.zeros((count, 2), np.float32),
    }
    habit = {"aspects": 1.0, "edges": 1.5, "levels": 1.0, "grains": 4.0}
    for f in fields(Forms):
        if f.name not in out:
            out[f.name] = np.full(count, habit.get(f.name, 0.0), np.float32)
    for name, value in values.items():
        out[name] = np.broadcast_to(np.asarray(value, out[name].dtype), out[name].shape).copy()
    return Forms(**out)


def waves(rng: np.random.Generator, count: int, strength: np.ndarray | float, flat: float = 1.0) -> np.ndarray:
    """Random waves: amplitudes of spread ``strength`` that fall with the order to the power ``flat``."""
    order = np.arange(2, WAVES + 2) / 2
    size = rng.normal(0, 1, (count, WAVES)) * np.asarray(strength).reshape(-1, 1) / order**flat
    return (size * np.exp(1j * rng.uniform(0, 2 * np.pi, (count, WAVES)))).astype(np.complex64)


def windows(forms: Forms, size: tuple[int, int]) -> Windows:
    """Where each form lies on a picture of (H, W), with room for its soft edge."""
    swell = 1.02 + np.abs(forms.waves).sum(1)
    reach = forms.radii * swell * np.sqrt(1 + (0.8 * forms.bends) ** 2) + forms.edges + 2
    boxes, starts = frames_of(forms.centers.astype(np.float64), reach.astype(np.float64), size)
    depth, level = np.empty((2, int(starts[-1])), np.float32)
    numbers = np.stack(
        (
            *forms.centers.T,
            forms.radii,
            forms.aspects,
            np.cos(forms.angles),
            np.sin(forms.angles),
            forms.bends,
            forms.tapers,
        ),
        1,
    ).astype(np.float32)
    _stamp(numbers, forms.waves, boxes, starts, depth, level)
    return Windows(size=size, boxes=boxes, starts=starts, depth=depth, level=level)


def dye(forms: Forms, at: Windows, grid: np.ndarray, out: np.ndarray, texture: float = 1.0) -> np.ndarray:
    """Add every form's dye to ``out``, float32 [H, W]; ``grid`` float32 [3, GRID, GRID] of unit spread."""
    numbers = np.stack(
        (
            *forms.centers.T,
            forms.radii,
            np.cos(forms.angles),
            np.sin(forms.angles),
            forms.edges,
            forms.levels,
            forms.domes,
            forms.rims,
            forms.coarse * texture,
            forms.fine * texture,
            forms.grains,
            forms.holes * texture,
            *forms.places.T,
        ),
        1,
    ).astype(np.float32)
    _dye(numbers, at.boxes, at.starts, at.depth, at.level, grid, out)
    return out


def grid(rng: np.random.Generator) -> np.ndarray:
    """Noise for ``dye``."""
    return rng.standard_normal((3, GRID, GRID), np.float32)


@njit(cache=True, nogil=True)
def _outline(u, v, numbers, wave):
    """The implicit form at (u, v) in radii from the center: 1 in the middle, 0 on the outline, negative outside."""
    aspect, cos, sin, bend, taper = numbers[3], numbers[4], numbers[5], numbers[6], numbers[7]
    along, across = u * cos + v * sin, v * cos - u * sin
    across -= bend * (along * along - np.float32(0.35))
    narrow = max(np.float32(1) - taper * min(along * along, np.float32(1)) * np.float32(0.75), np.float32(0.2))
    across /= aspect * narrow
    r = np.sqrt(along * along + across * across) + np.float32(1e-6)
    z = np.complex64(complex(along / r, across / r))
    ripple = np.complex64(0)
    for k in range(len(wave) - 1, -1, -1):
        ripple = (ripple + wave[k]) * z
    return 1 + (ripple * z).real - r


@njit(cache=True, nogil=True)
def _stamp(numbers, wave, boxes, starts, depth, level):
    for i in range(len(numbers)):
        y0, x0, h, w = boxes[i]
        own = numbers[i]
        radius = own[2]
        at = starts[i]
        for y in range(y0, y0 + h):
            v = (np.float32(y) + np.float32(0.5) - own[0]) / radius
            for x in range(x0, x0 + w):
                u = (np.float32(x) + np.float32(0.5) - own[1]) / radius
                level[at] = _outline(u, v, own, wave[i])
                at += 1
        # Distance in pixels, exact near the outline: the form over the length of its slope.
        for y in range(h):
            up, down = max(y - 1, 0), min(y + 1, h - 1)
            for x in range(w):
                left, right = max(x - 1, 0), min(x + 1, w - 1)
                base = starts[i] + np.int64(y) * w
                dy = (level[starts[i] + np.int64(down) * w + x] - level[starts[i] + np.int64(up) * w + x]) / max(
                    down - up, 1
                )
                dx = (level[base + right] - level[base + left]) / max(right - left, 1)
                slope = max(np.sqrt(dy * dy + dx * dx), np.float32(0.6) / radius)
                form = level[base + x]
                # Far outside a thin form the slope is no guide: be no nearer than half of what a circle would be.
                depth[base + x] = (
                    min(form / slope, np.float32(0.5) * form * radius * own[3]) if form < 0 else form / slope
                )


@njit(cache=True, nogil=True)
def value_noise(knots, y, x):
    """Smooth noise between the knots of a grid that repeats."""
    fy, fx = np.floor(y), np.floor(x)
    ty, tx = y - fy, x - fx
    y0, x0 = np.int64(fy) & (GRID - 1), np.int64(fx) & (GRID - 1)
    y1, x1 = (y0 + 1) & (GRID - 1), (x0 + 1) & (GRID - 1)
    ty, tx = ty * ty * (3 - 2 * ty), tx * tx * (3 - 2 * tx)
    top = knots[y0, x0] + tx * (knots[y0, x1] - knots[y0, x0])
    low = knots[y1, x0] + tx * (knots[y1, x1] - knots[y1, x0])
    return top + ty * (low - top)


@njit(cache=True, nogil=True)
def _dye(numbers, boxes, starts, depth, level, knots, out):
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    for i in range(len(numbers)):
        y0, x0, h, w = boxes[i]
        cy, cx, radius, cos, sin, edge, amount = numbers[i, :7]
        dome, rim, coarse, fine, grain, hole, oy, ox = numbers[i, 7:]
        grain /= radius
        at = starts[i]
        for y in range(y0, y0 + h):
            v = np.float32(y) + half - cy
            for x in range(x0, x0 + w):
                deep, form = depth[at], level[at]
                at += 1
                s = min(max(half + deep / (2 * edge), zero), one)
                if s == zero:
                    continue
                value = s * s * (3 - 2 * s)
                r = min(max(one - form, zero), one)
                value *= one - dome + dome * np.sqrt(max(one - r * r, zero))
                if rim != zero:
                    away = (deep - edge * half) / (edge * half + np.float32(0.06) * radius)
                    value *= one + rim / (one + away * away)
                if coarse != zero or fine != zero or hole != zero:
                    u = np.float32(x) + half - cx
                    p, q = (u * cos + v * sin) * grain + ox, (v * cos - u * sin) * grain + oy
                    first = value_noise(knots[0], q, p)
                    body = one + coarse * first
                    if fine != zero:
                        body += fine * value_noise(knots[1], q * np.float32(2.7), p * np.float32(2.7))
                    if hole != zero:
                        spot = value_noise(knots[2], q * np.float32(0.6), p * np.float32(0.6)) - np.float32(0.75)
                        body -= hole * min(max(spot * 3, zero), one) * min(max(form * 4, zero), one)
                    value *= max(body, np.float32(0.05))
                out[y, x] += amount * value


@njit(cache=True, nogil=True)
def flow(owner, now, then, out):
    """How far the pixels of moving forms go: rigid motion from ``now`` to ``then`` (float64 [N, 3]: y, x, angle).

    ``out`` is float32 [2, H, W], (dx, dy); pixels that nobody owns keep what they have.
    """
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            i = owner[y, x]
            if i < 0:
                continue
            turn = then[i, 2] - now[i, 2]
            cos, sin = np.cos(turn), np.sin(turn)
            v, u = y + 0.5 - now[i, 0], x + 0.5 - now[i, 1]
            out[0, y, x] = u * cos - v * sin - u + then[i, 1] - now[i, 1]
            out[1, y, x] = u * sin + v * cos - v + then[i, 0] - now[i, 0]
