"""The crown of a fruit tree: twigs, leaves and fruit in space; in meters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.data.synthetic.drawn import Knobs
from maskwright.data.synthetic.vehicles import stray

Rng = np.random.Generator

AHEAD = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, slots=True)
class Sort:
    """What a fruit looks like: radius in meters, colors of skin and blush to choose from, length over width, gloss,
    speckles; color, half length and width over length of its leaves."""

    radius: float
    skins: tuple[tuple[float, float, float], ...]
    blush: tuple[tuple[float, float, float], ...]
    long: float
    gloss: float
    speckle: float
    leaf: tuple[float, float, float]
    leaf_size: tuple[float, float]


SORTS: dict[str, Sort] = {
    "apple": Sort(
        0.037,
        ((0.68, 0.12, 0.1), (0.75, 0.7, 0.25), (0.5, 0.66, 0.22)),
        ((0.5, 0.05, 0.07), (0.78, 0.25, 0.12), (0.6, 0.7, 0.3)),
        0.95,
        0.35,
        0.08,
        (0.26, 0.4, 0.13),
        (0.042, 0.5),
    ),
    "orange": Sort(
        0.037,
        ((0.93, 0.52, 0.06), (0.95, 0.62, 0.12)),
        ((0.9, 0.42, 0.04), (0.72, 0.6, 0.12)),
        0.97,
        0.2,
        0.16,
        (0.16, 0.34, 0.1),
        (0.045, 0.42),
    ),
    "pear": Sort(
        0.034,
        ((0.68, 0.68, 0.24), (0.72, 0.6, 0.28)),
        ((0.6, 0.42, 0.18), (0.72, 0.35, 0.2)),
        1.0,
        0.15,
        0.1,
        (0.22, 0.38, 0.13),
        (0.038, 0.5),
    ),
    "lemon": Sort(
        0.03,
        ((0.93, 0.82, 0.15), (0.8, 0.8, 0.22)),
        ((0.9, 0.75, 0.1), (0.5, 0.62, 0.15)),
        1.25,
        0.2,
        0.14,
        (0.2, 0.38, 0.12),
        (0.045, 0.4),
    ),
    "peach": Sort(
        0.034,
        ((0.93, 0.66, 0.36), (0.9, 0.58, 0.3)),
        ((0.78, 0.2, 0.16), (0.85, 0.35, 0.22)),
        0.97,
        0.05,
        0.05,
        (0.28, 0.42, 0.14),
        (0.06, 0.22),
    ),
    "plum": Sort(
        0.023,
        ((0.3, 0.12, 0.32), (0.22, 0.12, 0.34)),
        ((0.45, 0.32, 0.5), (0.5, 0.15, 0.25)),
        1.15,
        0.2,
        0.1,
        (0.2, 0.34, 0.12),
        (0.035, 0.5),
    ),
}
"""Fruit by class name."""


@dataclass(slots=True)
class Fruit:
    """One fruit: its middle, radius, lean and looks; it swings about its stem's upper end."""

    sort: str
    place: np.ndarray
    radius: float
    lean: float
    color: np.ndarray
    second: np.ndarray
    blush: float
    seed: int
    sway: float


@dataclass(slots=True)
class Leaves:
    """n leaves: middles [n, 3], directions along the blade and across it [n, 3], half length and width [n, 2], colors
    [n, 3], phases of their sway [n], their share of the sun [n]."""

    place: np.ndarray
    along: np.ndarray
    across: np.ndarray
    half: np.ndarray
    color: np.ndarray
    phase: np.ndarray
    sunlit: np.ndarray


@dataclass(slots=True)
class Tree:
    """Twigs as (from, to, radii) in space, leaves, fruit, and the dark clumps behind them: middles and radii [n, 4]."""

    twigs: list[tuple[np.ndarray, np.ndarray, float, float]]
    leaves: Leaves
    fruit: list[Fruit]
    clumps: np.ndarray


def grow(rng: Rng, knobs: Knobs, eye: float, away: float, reach: tuple[float, float]) -> Tree:
    """A crown that fills most of the view, ``away`` meters ahead; ``occlusion`` says how many leaves hide fruit."""
    scale = float(rng.uniform(*knobs.scale))
    main = tuple(SORTS)[int(rng.integers(len(SORTS)))]
    mixed = rng.random() < 0.25 * min(1.0, knobs.variety)
    twigs: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    tips: list[np.ndarray] = []
    for _ in range(int(rng.integers(5, 9))):
        at = np.array(
            [rng.normal(0, 0.9) * reach[0], eye + rng.uniform(-1.6, 0.2) * reach[1], away + rng.uniform(0.0, 0.7)]
        )
        way = np.array([rng.normal(0, 0.8), rng.uniform(0.1, 1.0), rng.normal(-0.1, 0.3)])
        thick = float(rng.uniform(0.012, 0.03))
        for _ in range(7):
            way = way / np.linalg.norm(way) + rng.normal(0, 0.28, 3)
            to = at + way * float(rng.uniform(0.1, 0.26))
            twigs.append((at, to, thick, 0.85 * thick))
            at, thick = to, 0.82 * thick
            tips.append(at)
            if rng.random() < 0.7:
                side = at + np.array([rng.normal(0, 0.2), rng.normal(0, 0.14), rng.normal(-0.04, 0.1)])
                twigs.append((at, side, 0.5 * thick, 0.25 * thick))
                tips.append(side)
    nodes = np.array(tips)
    low, high = knobs.count or (10, 45)
    wanted = int(rng.integers(low, high + 1))
    fruit = _fruit(rng, knobs, wanted, nodes, main, mixed, scale, (eye, away), reach)
    many = int(rng.integers(3, 9))
    clumps = np.stack(
        [
            rng.uniform(-1.1, 1.1, many) * reach[0], eye + rng.uniform(-0.8, 1.1, many) * reach[1],
            away + rng.uniform(0.85, 1.1, many), rng.uniform(0.3, 0.6, many) * max(reach),
        ],
        1,
    )  # fmt: skip
    return Tree(twigs, _leaves(rng, knobs, nodes, fruit, SORTS[main], (eye, away), reach, scale), fruit, clumps)


def _fruit(
    rng: Rng, knobs: Knobs, wanted: int, nodes: np.ndarray, main: str, mixed: bool, scale: float,
    view: tuple[float, float], reach: tuple[float, float],
) -> list[Fruit]:  # fmt: skip
    out: list[Fruit] = []
    skin = int(rng.integers(3))
    ripe = float(rng.uniform(0.1, 0.9))
    while len(out) < wanted:
        node = nodes[int(rng.integers(len(nodes)))]
        hang = node + np.array([0, -0.05, -0.02])
        if rng.random() < 0.7 or abs(hang[0]) > reach[0] or abs(hang[1] - view[0]) > reach[1]:
            hang = np.array(
                [
                    rng.uniform(-0.95, 0.95) * reach[0],
                    view[0] + rng.uniform(-0.95, 0.95) * reach[1],
                    view[1] + rng.normal(-0.1, 0.15),
                ]
            )
        bunch = int(rng.choice([1, 2, 3, 5], p=[0.4, 0.3, 0.2, 0.1]))
        for _ in range(min(bunch, wanted - len(out))):
            name = tuple(SORTS)[int(rng.integers(len(SORTS)))] if mixed else main
            sort = SORTS[name]
            radius = sort.radius * scale * float(np.exp(rng.normal(0, 0.1)))
            apart = (2.3 - 1.3 * knobs.occlusion) * radius
            place = hang + rng.normal(0, 1, 3) * np.array([apart, apart, 0.8 * radius])
            clear = [float(np.hypot(*(place - f.place)[:2])) > (1.9 - 1.5 * knobs.occlusion) * radius for f in out]
            if not all(clear) and rng.random() < 0.9:
                place = hang + rng.normal(0, 1, 3) * np.array([2 * apart, 2 * apart, radius])
            color = stray(rng, sort.skins[skin % len(sort.skins)], 0.035 * knobs.variety)
            second = stray(rng, sort.blush[skin % len(sort.blush)], 0.035 * knobs.variety)
            out.append(
                Fruit(
                    name,
                    place,
                    radius,
                    float(rng.normal(0, 0.25)),
                    color,
                    second,
                    float(np.clip(rng.normal(ripe, 0.2), 0, 1)),
                    int(rng.integers(1 << 20)),
                    float(rng.uniform(0, 6.28)),
                )
            )
    return out


def _leaves(
    rng: Rng, knobs: Knobs, nodes: np.ndarray, fruit: list[Fruit], sort: Sort, view: tuple[float, float],
    reach: tuple[float, float], scale: float,
) -> Leaves:  # fmt: skip
    """Leaves about the twigs, behind all of it, and before the fruit."""
    near = nodes[rng.integers(len(nodes), size=550)] + rng.normal(0, 1, (550, 3)) * np.array([0.09, 0.08, 0.12])
    many = int(rng.uniform(900, 2000))
    wide = rng.uniform(-1.25, 1.25, (many, 2)) * np.array(reach)
    clumps = rng.uniform(-1.2, 1.2, (14, 2)) * np.array(reach)
    pull = clumps[rng.integers(14, size=many)]
    wide = np.where(rng.random((many, 1)) < 0.75, pull + rng.normal(0, 0.2, (many, 2)) * max(reach), wide)
    fill = np.stack([wide[:, 0], wide[:, 1] + view[0], view[1] + rng.uniform(-0.05, 0.8, many)], 1)
    groups = [near, fill]
    if fruit:
        middles, radii = np.array([f.place for f in fruit]), np.array([f.radius for f in fruit])
        hiding = rng.poisson(4.0 * knobs.occlusion**1.3, len(fruit))
        which = np.repeat(np.arange(len(fruit)), hiding)
        offset = rng.normal(0, 1, (len(which), 3)) * np.array([0.75, 0.75, 0.2]) * radii[which, None]
        groups.append(middles[which] + offset - np.array([0, 0, 1.3]) * radii[which, None])
        # What hangs about twigs by chance may hide fruit too: less of it when less is asked for.
        for k in (0, 1):
            gap = np.abs(groups[k][:, None, :2] - middles[None, :, :2]).max(2) < radii[None] + 0.03
            ahead = groups[k][:, None, 2] < middles[None, :, 2]
            blocks = (gap & ahead).any(1)
            groups[k] = groups[k][~blocks | (rng.random(len(blocks)) < knobs.occlusion)]
    place = np.concatenate(groups)
    count = len(place)
    turn = rng.normal(-np.pi / 2, 1.0, count)  # most hang
    lift = rng.normal(0, 0.45, count)
    along = np.stack([np.cos(turn) * np.cos(lift), np.sin(turn) * np.cos(lift), np.sin(lift)], 1)
    spin = rng.normal(0, 0.7, count)
    side = np.cross(along, AHEAD + 1e-3)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    across = np.cos(spin)[:, None] * side + np.sin(spin)[:, None] * np.cross(along, side)
    long = 1.3 * sort.leaf_size[0] * scale**0.5 * np.exp(rng.normal(0, 0.22, count))
    half = np.stack([long, long * sort.leaf_size[1] * rng.uniform(0.8, 1.15, count)], 1)
    deep = np.clip((place[:, 2] - view[1] + 0.25) / 0.9, 0, 1)
    tint = np.array(stray(rng, sort.leaf, 0.04 * knobs.variety))
    hue = 1 + knobs.variety * rng.normal(0, 0.12, (count, 1)) + knobs.variety * rng.normal(0, 0.06, (count, 3))
    color = tint * hue * (1.12 - 0.62 * deep[:, None])
    old = rng.random(count) < 0.03 * knobs.variety
    color[old] = np.array([0.5, 0.42, 0.15]) * hue[old]
    # Dappled: patches of sun and shade, the deeper the less sun.
    waves = rng.normal(0, 9, (4, 3))
    patches = np.cos(place @ waves.T + rng.uniform(0, 6.28, 4)).sum(1)
    sunlit = np.clip(0.75 + 0.5 * patches - 0.9 * deep + rng.normal(0, 0.15, count), 0.05, 1)
    return Leaves(place, along, across, half, np.clip(color, 0.01, 1), rng.uniform(0, 6.28, count), sunlit)
