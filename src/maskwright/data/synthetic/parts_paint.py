# pyright: basic
"""Light on parts: relief, brushed and cast metal, paint, highlights, cast shadows; and what they lie on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from maskwright.data.synthetic.cells_forms import value_noise
from maskwright.data.synthetic.cells_paint import fibers
from maskwright.data.synthetic.cells_windows import blur
from maskwright.data.synthetic.drawn import Knobs
from maskwright.data.synthetic.paint import smooth
from maskwright.data.synthetic.parts_defects import BURR, CRACK, DENT, MISSING, PORE, SCRATCH, STAIN

Rng = np.random.Generator

BRUSHED, CAST, PAINTED, TURNED = range(4)

_METALS = np.array(
    [[150, 152, 156], [186, 188, 190], [120, 122, 124], [198, 166, 92], [186, 124, 88], [62, 62, 66], [168, 170, 160]],
    np.float32,
)
"""RGB of steel, aluminum, dark steel, brass, copper, black oxide, zinc."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finish:
    """The surfaces of N parts: materials int32 [N], colors float32 [N, 3], gloss and grain float32 [N]."""

    materials: np.ndarray
    colors: np.ndarray
    gloss: np.ndarray
    grain: np.ndarray


def finish(rng: Rng, groups: np.ndarray, forms: np.ndarray, variety: float) -> Finish:
    """Surfaces for parts of like ``groups`` (int [N]: parts of one group are of one batch) and ``forms`` (int [N])."""
    count, many = len(groups), int(groups.max(initial=0)) + 1
    material = rng.choice([BRUSHED, CAST, PAINTED, TURNED], many, p=[0.35, 0.25, 0.2, 0.2])
    metal = _METALS[rng.integers(len(_METALS), size=many)]
    hue = rng.uniform(20, 225, (many, 3)).astype(np.float32)
    color = np.where((material == PAINTED)[:, None], 0.7 * hue + 0.3 * hue.mean(1, keepdims=True), metal)
    own = material[groups]
    # Washers and gears come from a lathe, castings from a mold.
    own = np.where((forms == 7) & (own != PAINTED), CAST, own)
    tone = np.exp(rng.normal(0, 0.06, (count, 1)) * variety) * np.exp(rng.normal(0, 0.015, (count, 3)) * variety)
    gloss = np.where(own == CAST, 0.12, np.where(own == PAINTED, 0.45, 0.6)) * rng.uniform(0.5, 1.5, many)[groups]
    return Finish(
        materials=own.astype(np.int32),
        colors=(color[groups] * tone).astype(np.float32),
        gloss=gloss.astype(np.float32),
        grain=(rng.uniform(0.05, 0.2, many)[groups] * np.where(own == CAST, 0.6, 1.0)).astype(np.float32),
    )


def ground(rng: Rng, size: tuple[int, int], knobs: Knobs) -> np.ndarray:
    """A belt, table, board, foam or lit plate, float32 [H, W, 3]."""
    style = rng.random()
    texture = np.float32(knobs.texture)
    fine, broad = smooth(rng, size, float(rng.uniform(1, 2))), smooth(rng, size, float(rng.uniform(30, 90)))
    y, x = np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)[None]
    if style < 0.35:  # rubber or fabric belt
        base = np.array([[52, 54, 56], [36, 62, 48], [88, 92, 94], [40, 56, 92], [150, 152, 148]], np.float32)[
            int(rng.integers(5))
        ]
        gray = rng.uniform(1, 6) * fine + rng.uniform(1, 5) * broad
        if rng.random() < 0.4:
            pitch = float(rng.uniform(0.3, 1.6))
            gray = gray + rng.uniform(2, 9) * np.sin(x * np.float32(pitch)) * np.sin(y * np.float32(pitch))
    elif style < 0.55:  # brushed or ground table
        base = np.full(3, rng.uniform(90, 190), np.float32) * rng.uniform(0.96, 1.04, 3).astype(np.float32)
        lines = smooth(rng, size, *rng.permutation([1.0, 60.0]).tolist())
        gray = rng.uniform(2, 9) * lines + rng.uniform(2, 8) * broad
    elif style < 0.68:  # wood
        base = np.array([rng.uniform(130, 200), rng.uniform(95, 150), rng.uniform(60, 105)], np.float32)
        gray = rng.uniform(2, 7) * fibers(rng, size, float(rng.uniform(2, 4))) + 4 * broad + 2 * fine
    elif style < 0.85:  # foam, paper or cloth
        base = np.clip(rng.uniform(15, 235) + rng.normal(0, 12, 3) * knobs.variety, 5, 245).astype(np.float32)
        gray = rng.uniform(1, 9) * fine + rng.uniform(1, 4) * broad
    else:  # fixture plate with a grid of holes
        base = np.full(3, rng.uniform(60, 170), np.float32) + np.array([-8, 0, 10], np.float32) * rng.uniform(-1, 2)
        pitch, r = float(rng.uniform(0.1, 0.2)) * max(size), float(rng.uniform(0.1, 0.2))
        v, u = ((t / np.float32(pitch)) % 1 - np.float32(0.5) for t in (y, x))
        away = np.sqrt(u * u + v * v) - np.float32(r)
        gray = 3 * fine + 4 * broad - rng.uniform(25, 60) * np.clip(-away * pitch / 2 + 0.5, 0, 1)
    return np.clip(base + (texture * gray)[..., None].astype(np.float32), 2, 252)


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """A lamp: towards it (y, x, z) of unit length, ambient share, shadow strength, hot spot (y, x), and exposure."""

    toward: tuple[float, float, float]
    ambient: float
    shadow: float
    spot: tuple[float, float]
    near: float
    exposure: float


def light(rng: Rng, knobs: Knobs) -> Light:
    """A lamp above the parts, low or high, as ``Knobs.sun`` and ``brightness`` say."""
    turn = np.deg2rad(knobs.sun) if knobs.sun is not None else rng.uniform(0, 2 * np.pi)
    rise = rng.uniform(np.deg2rad(32), np.deg2rad(72))
    toward = (-float(np.sin(turn) * np.cos(rise)), float(np.cos(turn) * np.cos(rise)), float(np.sin(rise)))
    return Light(
        toward=toward,
        ambient=float(rng.uniform(0.3, 0.65)),
        shadow=min(float(rng.uniform(0.5, 1.0)) * knobs.shadows, 1.0),
        spot=(float(rng.uniform(-0.2, 1.2)), float(rng.uniform(-0.2, 1.2))),
        near=float(rng.uniform(0.0, 0.7)),
        exposure=float(rng.uniform(*knobs.brightness)) * float(rng.uniform(0.85, 1.1)),
    )


def shade(
    base: np.ndarray,
    height: np.ndarray,
    owner: np.ndarray,
    defect: np.ndarray,
    kinds: np.ndarray,
    amount: np.ndarray,
    seeds: np.ndarray,
    pose: np.ndarray,
    surface: Finish,
    lamp: Light,
    knots: np.ndarray,
    texture: float,
) -> np.ndarray:
    """Pixels float32 [H, W, 3] of a height map in pixels, whose parts and defects are known.

    Args:
        base: float32 [H, W, 3], what the parts lie on.
        height: float32 [H, W]; owner, defect: int32 [H, W], the part and the defect seen, -1 for none.
        kinds: int32 [D]; seeds: float32 [D, 3]; amount: float32 [H, W], how much of the defect is seen, 0 to 1.
        pose: float32 [N, 7]: center y, x, reach, cosine, sine, place in the noise.
    """
    reach = float(np.clip(0.02 * max(height.shape), 2.0, 14.0))
    cavity = np.clip(blur(height, reach) - height, 0, None) * np.float32(1.2 / reach)
    numbers = np.array([*lamp.toward, lamp.ambient, lamp.shadow, *lamp.spot, lamp.near, lamp.exposure, texture])
    out = np.empty_like(base)
    _shade(
        base, height, cavity, owner, defect, kinds, amount, seeds, pose, surface.materials, surface.colors,
        surface.gloss, surface.grain, numbers.astype(np.float32), knots, out,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def _texture(material, p, q, oy, ox, knots):
    if material == BRUSHED:
        return value_noise(knots[0], q * np.float32(0.9) + oy, p * np.float32(0.03) + ox) + np.float32(
            0.5
        ) * value_noise(knots[1], q * np.float32(0.35) + oy, p * np.float32(0.02) + ox)
    if material == CAST:
        return value_noise(knots[2], q * np.float32(0.7) + oy, p * np.float32(0.7) + ox)
    if material == TURNED:
        r = np.sqrt(p * p + q * q)
        return value_noise(knots[1], r * np.float32(0.8) + oy, np.arctan2(q, p) * np.float32(1.5) + ox)
    return np.float32(0.25) * value_noise(knots[2], q * np.float32(0.15) + oy, p * np.float32(0.15) + ox)


@njit(cache=True, nogil=True)
def _shade(
    base, height, cavity, owner, defect, kinds, amount, seeds, pose, materials, colors, gloss, grain, n, knots, out
):
    rows, columns = owner.shape
    ly, lx, lz, ambient, shade, hot_y, hot_x, near, exposure, texture = n
    flat = max(np.sqrt(ly * ly + lx * lx), np.float32(1e-4))
    rise = lz / flat
    tallest = np.float32(0)
    for y in range(rows):
        for x in range(columns):
            tallest = max(tallest, height[y, x])
    side = np.float32(max(rows, columns))
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    for y in range(rows):
        for x in range(columns):
            i = owner[y, x]
            own = height[y, x]
            # Walk towards the light until nothing can be in the way.
            far = min((tallest - own) / rise, np.float32(160))
            block, step = zero, one
            if shade > 0:
                while step < far:
                    sy, sx = y + ly / flat * step, x + lx / flat * step
                    ky, kx = int(sy + half), int(sx + half)
                    if ky < 0 or kx < 0 or ky >= rows or kx >= columns:
                        break
                    block = max(block, (height[ky, kx] - own - step * rise) / (np.float32(0.12) * step + one))
                    if block >= 1:
                        break
                    step = step * np.float32(1.13) + np.float32(0.4)
            lit = one - shade * min(block, one)
            dark = one / (one + shade * cavity[y, x])
            away_y, away_x = hot_y - y / side, hot_x - x / side
            pool = one + near * half * (np.float32(0.6) - (away_y * away_y + away_x * away_x))
            if i < 0:
                level = (ambient * dark + (one - ambient) * lit) * pool * exposure
                for c in range(3):
                    out[y, x, c] = base[y, x, c] * level
                continue
            up = own - height[y - 1, x] if y > 0 and owner[y - 1, x] == i else zero
            down = height[y + 1, x] - own if y + 1 < rows and owner[y + 1, x] == i else zero
            left = own - height[y, x - 1] if x > 0 and owner[y, x - 1] == i else zero
            right = height[y, x + 1] - own if x + 1 < columns and owner[y, x + 1] == i else zero
            gy, gx = min(max((up + down) * half, -2), 2), min(max((left + right) * half, -2), 2)
            cos, sin = pose[i, 3], pose[i, 4]
            v, u = y + half - pose[i, 0], x + half - pose[i, 1]
            p, q = u * cos + v * sin, v * cos - u * sin
            t = _texture(materials[i], p, q, pose[i, 5], pose[i, 6], knots) * grain[i] * texture
            long = np.sqrt(gy * gy + gx * gx + one)
            ny, nx, nz = -gy / long, -gx / long, one / long
            facing = max(ny * ly + nx * lx + nz * lz, zero)
            # A lamp at hand: the way to it turns across the picture.
            hy, hx, hz = ly + near * away_y, lx + near * away_x, lz + one
            scale = one / np.sqrt(hy * hy + hx * hx + hz * hz)
            hy, hx, hz = hy * scale, hx * scale, hz * scale
            shine = max(ny * hy + nx * hx + nz * hz, zero)
            if materials[i] in (BRUSHED, TURNED):
                ty, tx = (sin, cos)
                if materials[i] == TURNED:
                    r = max(np.sqrt(v * v + u * u), one)
                    ty, tx = u / r, -v / r
                along = hy * ty + hx * tx + nx * tx * half + ny * ty * half
                shine = half * shine + half * np.sqrt(max(one - along * along, zero))
                bright = shine**24
            elif materials[i] == CAST:
                bright = shine**10
            else:
                bright = shine**60
            strength = gloss[i] * (one + t)
            red, green, blue = colors[i, 0], colors[i, 1], colors[i, 2]
            d = defect[y, x]
            if d >= 0:
                a, kind = amount[y, x], kinds[d]
                s0, s1, s2 = seeds[d, 0], seeds[d, 1], seeds[d, 2]
                if kind == STAIN:
                    a *= np.float32(0.35) + half * s2
                    a *= one + np.float32(0.35) * value_noise(knots[0], q * np.float32(0.2), p * np.float32(0.2))
                    a = min(max(a, zero), one)
                    rust = s0 < half
                    r, g, b = (np.float32(120), np.float32(64), np.float32(30)) if rust else (s1 * 60, s1 * 55, s1 * 45)
                    strength *= one - np.float32(0.6) * a
                elif kind == SCRATCH:
                    # Bare metal shows through paint; on metal a scratch is brighter or darker as the light falls.
                    pale = np.float32(225) if s0 < np.float32(0.65) or materials[i] == PAINTED else np.float32(40)
                    r, g, b = pale, pale, pale
                    a *= half + half * s1
                elif kind in (CRACK, PORE):
                    r, g, b = np.float32(22) + 20 * s0, np.float32(20) + 18 * s0, np.float32(18) + 18 * s0
                    a *= np.float32(0.6) + np.float32(0.35) * s1
                    strength *= one - a
                elif kind == BURR:
                    r, g, b = np.float32(210), np.float32(208), np.float32(202)
                    a *= np.float32(0.2) + half * s1
                else:
                    r, g, b = red, green, blue
                red, green, blue = red + a * (r - red), green + a * (g - green), blue + a * (b - blue)
            body = (
                (ambient * dark * (half + half * nz) + (one - ambient) * lit * facing / lz)
                * (one + t)
                * pool
                * exposure
            )
            spark = strength * bright * np.float32(100) * (np.float32(0.25) + np.float32(0.75) * lit) * exposure
            for c in range(3):
                value = (red if c == 0 else green if c == 1 else blue) * body + spark
                # Highlights roll off instead of being cut.
                bend = np.float32(185)
                out[y, x, c] = value if value < bend else bend + 70 * (value - bend) / (value - bend + 70)


@njit(cache=True, nogil=True)
def carve(kinds, strengths, defect, boxes, starts, depth, level, height, amount):
    """Press the defects that are seen into ``height`` and say how much of each is seen in ``amount``."""
    one, zero = np.float32(1), np.float32(0)
    for y in range(defect.shape[0]):
        for x in range(defect.shape[1]):
            i = defect[y, x]
            if i < 0:
                continue
            k = starts[i] + np.int64(y - boxes[i, 0]) * boxes[i, 3] + x - boxes[i, 1]
            d, t, s, kind = depth[k], min(max(level[k], zero), one), strengths[i], kinds[i]
            amount[y, x] = min(d + np.float32(0.55), one)
            if kind == DENT:
                wide = np.float32(min(boxes[i, 2], boxes[i, 3]))
                height[y, x] -= (np.float32(0.05) + np.float32(0.12) * s) * wide * t * t * (3 - 2 * t)
            elif kind == MISSING:
                ring = (d - np.float32(1.6)) / np.float32(1.1)
                height[y, x] -= (np.float32(0.6) + np.float32(1.5) * s) / (one + ring * ring) + s * t
            elif kind == SCRATCH:
                height[y, x] -= (np.float32(0.3) + s) * amount[y, x]
            elif kind == CRACK:
                height[y, x] -= (np.float32(0.8) + s) * amount[y, x]
            elif kind == PORE:
                height[y, x] -= np.float32(3) * s * min(d, one)
