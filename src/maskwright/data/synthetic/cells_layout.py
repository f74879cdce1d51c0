# pyright: basic
"""Where cells lie: strewn, in clumps, shoulder to shoulder, along fibers, or around the lumen of a gland."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

Rng = np.random.Generator

ARRANGEMENTS = ("strewn", "clumps", "sheet", "strands", "glands")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """N places in the order in which they were found.

    Attributes:
        centers: float64 [N, 2], (y, x) in pixels.
        radii: float64 [N], longer half axes.
        angles: float64 [N], radians.
        lumina: float64 [K, 5], (y, x, half axis y, half axis x, angle) of empty places that glands surround.
        aligned: whether the angles mean something (else every cell may turn as it likes).
    """

    centers: np.ndarray
    radii: np.ndarray
    angles: np.ndarray
    lumina: np.ndarray
    aligned: bool


def lay_out(
    rng: Rng,
    size: tuple[int, int],
    radius: float,
    arrangement: str,
    *,
    spread: float,
    occlusion: float,
    squeeze: float,
    count: tuple[int, int] | None = None,
    crowding: float | None = None,
) -> Layout:
    """Places for cells of about ``radius`` (longer half axis) on (H, W).

    Args:
        arrangement: one of ``ARRANGEMENTS``.
        spread: of the logarithm of the radii.
        occlusion: 0 keeps them apart, 0.5 lets them touch, at 1 they lie on each other.
        squeeze: the shorter over the longer half axis, as far as the distance they keep is concerned.
        count: range of how many; ``None`` goes by the room there is.
        crowding: how much of that room is filled, 0 to 1; ``None`` draws it.
    """
    area = float(size[0] * size[1])
    body = float(np.pi * radius**2 * squeeze)
    crowding = float(rng.beta(0.9, 2.4)) if crowding is None else crowding
    if count is not None:
        wanted = int(rng.integers(count[0], count[1] + 1))
    else:
        fullest = (0.62 if arrangement == "sheet" else 0.45) + 0.25 * occlusion
        wanted = int(np.clip(crowding * fullest * area / body, 1, 1500))
        wanted = max(wanted, min(int(rng.integers(1, 6)), int(0.5 * area / body) + 1))
    turn = rng.uniform(0, np.pi)
    bend = rng.normal(0, 0.8 / max(size), 2)
    lumina = np.zeros((0, 5))
    many = 8 * wanted + 16
    if arrangement == "glands":
        centers, angles, lumina = _glands(rng, size, radius, squeeze)
        loose = rng.uniform(-0.02, 1.02, (many, 2)) * size
        loose = loose[~_within(loose, lumina, radius)]
        centers = np.concatenate([centers, loose])
        angles = np.concatenate([angles, turn + (loose - np.array(size) / 2) @ bend])
        many = len(centers)
    else:
        centers = _candidates(rng, size, radius, arrangement, many, wanted, turn, squeeze)
        angles = turn + (centers - np.array(size) / 2) @ bend + rng.normal(0, 0.25, len(centers))
        many = len(centers)
    radii = radius * np.exp(np.clip(rng.normal(0, spread, many), -0.75, 0.6))
    aligned = arrangement in ("strands", "glands")
    if not aligned:
        angles = rng.uniform(0, np.pi, many)
    apart = float(np.interp(occlusion, [0, 0.5, 1], [1.12, 0.82, 0.35])) * rng.uniform(0.9, 1.1)
    kept = _accept(centers, radii, angles, squeeze, apart, wanted)
    # A count that was asked for is reached, closer together if it must be.
    while count is not None and len(kept) < wanted and apart > 0.01:
        apart *= 0.8
        kept = _accept(centers, radii, angles, squeeze, apart if apart > 0.05 else 0.0, wanted)
    order = rng.permutation(len(kept))
    kept = kept[order]
    return Layout(centers=centers[kept], radii=radii[kept], angles=angles[kept], lumina=lumina, aligned=aligned)


def _candidates(
    rng: Rng,
    size: tuple[int, int],
    radius: float,
    arrangement: str,
    many: int,
    wanted: int,
    turn: float,
    squeeze: float,
) -> np.ndarray:
    sides = np.array(size, np.float64)
    if arrangement == "clumps":
        homes = rng.uniform(0, 1, (max(1, int(wanted / rng.uniform(3, 25))), 2)) * sides
        reach = radius * np.sqrt(wanted / len(homes)) * rng.uniform(0.9, 1.6)
        places = homes[rng.integers(len(homes), size=many)] + rng.normal(0, reach, (many, 2))
        stray = rng.random(many) < rng.uniform(0, 0.3)
        places = np.where(stray[:, None], rng.uniform(0, 1, (many, 2)) * sides, places)
        return np.where((places < 0) | (places > sides), np.abs(places) % sides, places)
    if arrangement in ("sheet", "strands"):
        along = 2 * radius * rng.uniform(1.0, 1.5)
        across = 2 * radius * max(squeeze, 0.35) * rng.uniform(1.0, 1.5)
        need = np.sqrt(sides[0] * sides[1] / max(wanted, 1))
        shrink = min(1.0, need / np.sqrt(along * across))
        reach = 0.75 * float(np.hypot(*size))
        u = np.arange(-reach, reach, max(along * shrink, 1.0))
        v = np.arange(-reach, reach, max(across * shrink, 1.0))
        lattice = np.stack(np.meshgrid(u, v, indexing="ij"), -1)
        lattice[:, ::2, 0] += 0.5 * along * shrink
        lattice = (
            lattice.reshape(-1, 2) + rng.normal(0, 0.22, (lattice.size // 2, 2)) * np.array([along, across]) * shrink
        )
        c, s = np.cos(turn), np.sin(turn)
        places = lattice @ np.array([[s, c], [c, -s]]) + sides / 2
        places = places[((places > -0.3 * radius) & (places < sides + 0.3 * radius)).all(1)]
        # Thinned towards one side or in a patch, as a culture's edge is.
        gone = (places - rng.uniform(0, 1, 2) * sides) / (rng.uniform(0.3, 1.2) * sides)
        order = rng.permutation(len(places))
        heavy = (gone[order] ** 2).sum(1) + rng.uniform(0, 1.5, len(order))
        places = places[order[np.argsort(heavy)]] if rng.random() < 0.6 else places[order]
        extra = rng.uniform(0, 1, (many, 2)) * sides
        return np.concatenate([places, extra])
    places = rng.uniform(-0.02, 1.02, (many, 2)) * sides
    if rng.random() < 0.5:  # a gradient of density
        toward = rng.normal(0, 1, 2) / sides
        places = places[np.argsort((places @ toward) + rng.normal(0, rng.uniform(0.3, 1.5), many))]
    return places


def _glands(
    rng: Rng, size: tuple[int, int], radius: float, squeeze: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells standing around lumina, their long axis pointing to the middle: centers, angles, lumina."""
    lumina = []
    for _ in range(int(rng.integers(1, 5))):
        half = rng.uniform(2.0, 9.0) * radius * np.array([1, rng.uniform(0.45, 1.0)])
        lumina.append([*(rng.uniform(-0.1, 1.1, 2) * size), *rng.permutation(half), rng.uniform(0, np.pi)])
    out = np.array(lumina)
    centers, angles = [np.zeros((0, 2))], [np.zeros(0)]
    for cy, cx, hy, hx, turn in out:
        for row in range(int(rng.integers(1, 3))):
            gap = radius * (1.1 + 1.9 * row)
            ry, rx = hy + gap, hx + gap
            around = int(np.clip(np.pi * (ry + rx) / (2 * radius * squeeze * rng.uniform(1.05, 1.6)), 3, 400))
            t = np.linspace(0, 2 * np.pi, around, endpoint=False) + rng.uniform(0, 6)
            t += rng.normal(0, 0.12 * 2 * np.pi / around, around)
            shift = 1 + rng.normal(0, 0.1 * radius / max(ry, rx), around)
            y, x = ry * np.sin(t) * shift, rx * np.cos(t) * shift
            c, s = np.cos(turn), np.sin(turn)
            centers.append(np.stack([cy + y * c + x * s, cx + x * c - y * s], 1))
            facing = np.arctan2(np.sin(t) / ry, np.cos(t) / rx)
            angles.append(facing + turn + rng.normal(0, 0.2, around))
    where, facing = np.concatenate(centers), np.concatenate(angles)
    near = ((where > -0.5 * radius) & (where < np.array(size) + 0.5 * radius)).all(1)
    near &= ~_within(where, out, 0.2 * radius)
    order = rng.permutation(np.flatnonzero(near))
    return where[order], facing[order], out


def _within(places: np.ndarray, lumina: np.ndarray, margin: float) -> np.ndarray:
    """Which ``places`` lie in a lumen or within ``margin`` pixels of one."""
    inside = np.zeros(len(places), bool)
    for cy, cx, hy, hx, turn in lumina:
        y, x = places[:, 0] - cy, places[:, 1] - cx
        c, s = np.cos(turn), np.sin(turn)
        v, u = y * c - x * s, x * c + y * s
        inside |= (v / (hy + margin)) ** 2 + (u / (hx + margin)) ** 2 < 1
    return inside


@njit(cache=True, nogil=True)
def _accept(centers, radii, angles, squeeze, apart, wanted):
    """The first ``wanted`` places that keep ``apart`` times the sum of the half axes that face each other."""
    kept = np.empty(min(wanted, len(centers)), np.int64)
    used = 0
    for i in range(len(centers)):
        if used == len(kept):
            break
        free = True
        for k in range(used):
            j = kept[k]
            dy, dx = centers[i, 0] - centers[j, 0], centers[i, 1] - centers[j, 1]
            gap = dy * dy + dx * dx
            most = apart * (radii[i] + radii[j])
            if gap > most * most:
                continue
            if gap < 1e-9:
                free = apart <= 0
                if free:
                    continue
                break
            toward = np.arctan2(dy, dx)
            need = 0.0
            for which in (i, j):
                c, s = np.cos(toward - angles[which]), np.sin(toward - angles[which]) / squeeze
                need += radii[which] / np.sqrt(c * c + s * s)
            if gap < (apart * need) ** 2:
                free = False
                break
        if free:
            kept[used] = i
            used += 1
    return kept[:used]
