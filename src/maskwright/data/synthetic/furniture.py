"""What stands along a street: walls and hedges, trees, lamps, lights and signs; in meters."""

from __future__ import annotations

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.plan import AHEAD, RIGHT, UP, Plan, distance
from maskwright.data.synthetic.stage import Stage
from maskwright.data.synthetic.vehicles import stray

Rng = np.random.Generator

_LEAVES = (
    ((0.1, 0.17, 0.06), (0.36, 0.48, 0.17)),
    ((0.08, 0.16, 0.08), (0.25, 0.42, 0.2)),
    ((0.2, 0.17, 0.06), (0.6, 0.45, 0.15)),
)
_SIGNS = (
    ((0.75, 0.08, 0.08), (0.95, 0.95, 0.95), 0.0), ((0.75, 0.08, 0.08), (0.95, 0.95, 0.95), 1.0),
    ((0.1, 0.25, 0.65), (0.95, 0.95, 0.95), 1.0), ((0.1, 0.25, 0.65), (0.95, 0.95, 0.95), 2.0),
    ((0.9, 0.75, 0.1), (0.1, 0.1, 0.1), 1.0), ((0.1, 0.45, 0.25), (0.95, 0.95, 0.95), 2.0),
)  # fmt: skip


def border(stage: Stage, rng: Rng, plan: Plan, side: int) -> None:
    """A wall, fence or hedge behind the walk, in places."""
    x = side * (plan.half + plan.walk + 0.1)
    z, seed = float(rng.uniform(0, 25)), float(rng.integers(1 << 20))
    for _ in range(int(rng.integers(0, 3))):
        long, tall = float(rng.uniform(6, 25)), float(rng.uniform(0.9, 2.2))
        kind = ("wall", "fence", "vegetation")[int(rng.integers(3))]
        if plan.green[side > 0] > 0.5 or plan.built[side > 0] < 0.6:
            stage.begin(kind, 4, distance(stage, x, z + long / 2) + 3)
            tone = stray(rng, (0.55, 0.5, 0.45), 0.08)
            middle = (x, tall / 2, z + long / 2)
            if kind == "wall":
                stage.add(
                    middle,
                    AHEAD,
                    UP,
                    raster.BOX,
                    (long / 2, tall / 2, 0),
                    textures.TILES,
                    tone,
                    tone * 0.6,
                    (0.5, 0.25, 0.04, 0.5, 0.25, 0.5),
                    seed=seed,
                )
            elif kind == "fence":
                # A fence is annotated as the region it fences, so what lies behind its bars is part of it.
                stage.add(
                    middle,
                    AHEAD,
                    UP,
                    raster.BOX,
                    (long / 2, tall / 2, 0),
                    textures.TILES,
                    tone * 0.45,
                    tone * 1.1,
                    (0.14, tall, 0.55, 1.0, 0.1, 0),
                    seed=seed,
                )
            else:
                dark, light = _LEAVES[int(rng.integers(2))]
                stage.add(
                    middle,
                    AHEAD,
                    UP,
                    raster.BOX,
                    (long / 2, tall / 2, 0.3),
                    textures.FOLIAGE,
                    dark,
                    light,
                    (3.0, 0.5, tall / 2),
                    seed=seed,
                )
        z += long + float(rng.uniform(2, 20))


def furniture(stage: Stage, rng: Rng, plan: Plan, side: int) -> None:
    """Trees, lamps, lights and signs along the walk."""
    z = float(rng.uniform(3, 12))
    while z < 110:
        if rng.random() < 0.7:
            tree(stage, rng, plan, side * (plan.half + float(rng.uniform(0.6, plan.walk - 0.3))), z, 5)
        z += plan.trees * float(rng.uniform(0.7, 1.5))
    z = float(rng.uniform(5, 20))
    while z < 100:
        x = side * (plan.half + float(rng.uniform(0.35, 0.7)))
        style = rng.random()
        stage.begin(None, 2)
        stage.shadow((x, 0, z), RIGHT, AHEAD, raster.ELLIPSE, (0.16, 0.16), 0.6, 0.3)
        stage.begin("pole", 5, distance(stage, x, z))
        metal = stray(rng, (0.4, 0.42, 0.42), 0.06) * rng.uniform(0.5, 1.2)
        if style < 0.35:  # a lamp
            _tube(stage, (x, 0, z), (x, 6.5, z), 0.08, 0.05, metal)
            _tube(stage, (x, 6.5, z), (x - side * 1.6, 6.9, z), 0.045, 0.04, metal)
            stage.add(
                (x - side * 1.7, 6.88, z),
                RIGHT,
                UP,
                raster.ELLIPSE,
                (0.35, 0.1),
                0,
                metal * 1.3,
                surface=(0, 1, 0.2),
                bulge=0.8,
            )
        elif style < 0.62:
            _signal(stage, rng, x, z, side, metal)
        else:
            _tube(stage, (x, 0, z), (x, 2.9, z), 0.04, 0.04, metal)
            stage.begin("traffic sign", 5, distance(stage, x, z) - 0.05)
            for k in range(int(rng.integers(1, 3))):
                color, second, look = _SIGNS[int(rng.integers(len(_SIGNS)))]
                half = float(rng.uniform(0.3, 0.42))
                form, shape = (
                    ((half, half), raster.ELLIPSE) if look < 2 else ((1.5 * half, 0.8 * half, 0.04), raster.BOX)
                )
                at = (x, 2.6 - 0.85 * k, z - 0.05)
                stage.add(
                    at,
                    RIGHT,
                    UP,
                    shape,
                    form,
                    textures.SIGN,
                    color,
                    second,
                    (half, look),
                    seed=float(rng.integers(1 << 20)),
                )
        z += plan.poles * float(rng.uniform(0.6, 1.6))


def _tube(
    stage: Stage, a: tuple[float, float, float], b: tuple[float, float, float], r1: float, r2: float, color: np.ndarray
) -> None:
    """A tapered tube seen from the camera's side of the street, between two points of one z."""
    stage.add(
        (0, 0, a[2]),
        RIGHT,
        UP,
        raster.CAPSULE,
        (a[0], a[1], r1, b[0], b[1], r2),
        0,
        color,
        surface=(0.1, 6, 0.3),
        bulge=0.95,
    )


def _signal(stage: Stage, rng: Rng, x: float, z: float, side: int, metal: np.ndarray) -> None:
    reach = float(rng.choice([0.0, 2.5]))
    _tube(stage, (x, 0, z), (x, 3.0 + reach, z), 0.07, 0.06, metal)
    if reach:
        _tube(stage, (x, 5.4, z), (x - side * reach, 5.5, z), 0.05, 0.05, metal)
    stage.begin("traffic light", 5, distance(stage, x, z) - 0.05)
    at, on, seed = (
        np.array([x - side * reach, 2.7 + reach, z - 0.1]),
        int(rng.integers(3)),
        float(rng.integers(1 << 20)),
    )
    stage.add(at, RIGHT, UP, raster.BOX, (0.19, 0.52, 0.06), 0, (0.07, 0.08, 0.07), surface=(0.1, 5, 0.2), seed=seed)
    for k, color in enumerate(((0.2, 0.95, 0.5), (0.95, 0.7, 0.1), (0.95, 0.1, 0.08))):
        glow = 1.0 if k == on else 0.0
        tint = np.array(color) * (1.25 if k == on else 0.25)
        stage.add(
            at + np.array([0, 0.32 * (k - 1), -0.01]),
            RIGHT,
            UP,
            raster.ELLIPSE,
            (0.12, 0.12),
            0,
            tint,
            surface=(0, 1, 0.2, glow),
        )


def tree(stage: Stage, rng: Rng, plan: Plan, x: float, z: float, layer: int) -> None:
    """A trunk and a crown of leafy clumps."""
    tall, seed = float(rng.uniform(4.5, 9.5)), float(rng.integers(1 << 20))
    crown = tall * float(rng.uniform(0.26, 0.4))
    stage.begin(None, 2)
    lean = -stage.light.sun[[0, 2]] / max(stage.light.sun[1], 0.3) * tall * 0.45
    stage.shadow(
        (x + lean[0], 0, z + lean[1]), RIGHT, AHEAD, raster.BLOB, (crown, crown, 0.5 * crown, 1.3, seed, 0.7), 0.8, 0.3
    )
    stage.begin("vegetation", layer, distance(stage, x, z))
    bark = stray(rng, (0.3, 0.24, 0.19), 0.03)
    thick = 0.028 * tall
    _tube(stage, (x, 0, z), (x + rng.normal(0, 0.1), tall * 0.6, z), thick, 0.6 * thick, bark)
    for _ in range(3):
        _tube(
            stage,
            (x, tall * 0.42, z),
            (x + rng.normal(0, 0.5) * crown, tall * rng.uniform(0.6, 0.8), z),
            0.5 * thick,
            0.2 * thick,
            bark,
        )
    dark, light = (stray(rng, c, 0.03 * plan.variety) for c in _LEAVES[int(rng.choice(3, p=[0.45, 0.45, 0.1]))])
    clumps = int(rng.integers(5, 9))
    offsets = rng.normal(0, 0.5, (clumps, 2)) * crown * np.array([1.0, 0.75])
    for k in np.argsort(-np.abs(offsets[:, 1])).tolist():
        half = crown * float(rng.uniform(0.5, 0.8))
        form = (half, half * 0.85, 0.32 * half, 2.6 / np.sqrt(half), seed + k, float(rng.uniform(0.45, 0.75)))
        place = (x + offsets[k, 0], tall * 0.72 + offsets[k, 1], z - 0.01 * k)
        stage.add(
            place,
            RIGHT,
            UP,
            raster.BLOB,
            form,
            textures.FOLIAGE,
            dark * rng.uniform(0.8, 1.1),
            light * rng.uniform(0.85, 1.1),
            (2.6, 0.6, half),
            seed=seed + k,
            bulge=0.75,
        )
