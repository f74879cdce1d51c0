"""What stands still on a street: sky, road, walks and houses; in meters."""

from __future__ import annotations

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.furniture import border, furniture, tree
from maskwright.data.synthetic.plan import AHEAD, RIGHT, UP, Plan, distance
from maskwright.data.synthetic.stage import Stage
from maskwright.data.synthetic.vehicles import Pose, Solid, stray

Rng = np.random.Generator

_WALLS = (
    (0.62, 0.56, 0.48), (0.55, 0.36, 0.28), (0.72, 0.68, 0.6), (0.5, 0.5, 0.5), (0.76, 0.64, 0.45), (0.42, 0.29, 0.24),
    (0.8, 0.78, 0.74), (0.6, 0.64, 0.68), (0.66, 0.48, 0.42), (0.35, 0.37, 0.4), (0.7, 0.72, 0.58),
)  # fmt: skip


def build(stage: Stage, plan: Plan) -> None:
    """Add everything; the same parts for every frame."""
    rng = np.random.Generator(np.random.PCG64(plan.seed))
    _sky(stage, rng)
    _ground(stage, rng, plan)
    for side in (-1, 1):
        _houses(stage, rng, plan, side)
        border(stage, rng, plan, side)
        furniture(stage, rng, plan, side)


def _sky(stage: Stage, rng: Rng) -> None:
    stage.begin("sky", 0)
    cover = float(rng.uniform(0.1, 0.75))
    warm = float(rng.uniform(0.85, 1.1))
    zenith = np.array([0.42, 0.58, 0.86]) * rng.uniform(0.85, 1.1) * (1 if cover < 0.6 else 0.95)
    horizon = np.array([0.86 * warm, 0.9, 0.95])
    if cover > 0.6:
        zenith = 0.35 * zenith + 0.65 * np.array([0.75, 0.78, 0.82])
    far = 5000.0
    place = stage.camera.place + far * AHEAD + 4 * far * UP
    # Its card reaches a little below the horizon, where the ground hides it; v counts from the card's middle.
    stage.add(
        place, RIGHT, UP, raster.BOX, (9 * far, 4.02 * far, 0), textures.SKY, horizon, zenith,
        (-4.02 * far, cover, rng.uniform(0.25, 0.7), far), seed=float(rng.integers(1 << 20)), mode=2,
    )  # fmt: skip


def _slab(
    stage: Stage,
    x: float,
    half: float,
    material: int,
    color: np.ndarray,
    second: np.ndarray,
    surface: tuple[float, ...],
    seed: float,
) -> None:
    stage.add((x, 0, 150), RIGHT, AHEAD, raster.BOX, (half, 220, 0), material, color, second, surface, seed=seed)


def _ground(stage: Stage, rng: Rng, plan: Plan) -> None:
    seed = float(rng.integers(1 << 20))
    stage.begin("terrain", 1, 10)
    grass, straw = stray(rng, (0.3, 0.42, 0.16), 0.04), stray(rng, (0.5, 0.47, 0.28), 0.05)
    stage.add(
        (0, -0.02, 0),
        RIGHT,
        AHEAD,
        raster.BOX,
        (3000, 3000, 0),
        textures.MIX,
        grass,
        straw,
        (0.6, 0.5, 0.3, 9, 1, 0),
        seed=seed,
    )
    stage.begin("sidewalk", 1, 5)
    tone = stray(rng, (0.58, 0.56, 0.53), 0.05)
    edge = plan.half + plan.walk / 2
    tiles = (
        float(rng.choice([0.4, 0.6, 1.0])),
        float(rng.choice([0.4, 0.6, 0.9])),
        0.03,
        0.5,
        0.14,
        float(rng.choice([0, 0.5])),
    )
    for side in (-1, 1):
        _slab(stage, side * edge, plan.walk / 2, textures.TILES, tone, tone * 0.55, tiles, seed + 1)
        _slab(
            stage,
            side * (plan.half + 0.09),
            0.09,
            textures.TILES,
            tone * 1.15,
            tone * 0.5,
            (3, 1.2, 0.02, 0.5, 0.1, 0),
            seed + 2,
        )
    stage.begin("road", 1, 1)
    dark = stray(rng, (0.36, 0.36, 0.37), 0.03) * rng.uniform(0.75, 1.25)
    _slab(stage, 0, plan.half, textures.MIX, dark * 0.86, dark * 1.12, (0.7, 0.25, 0.22, 23, 1, 0.05), seed + 3)
    for side in (-1, 1):  # the gutter
        _slab(
            stage,
            side * (plan.half - 0.16),
            0.16,
            textures.MIX,
            dark * 0.75,
            dark * 0.95,
            (0.7, 1, 0.2, 17, 0.3, 0),
            seed + 4,
        )
    for _ in range(int(rng.integers(0, 5))):  # patches and covers
        x, z, tint = rng.uniform(-0.8, 0.8) * plan.half, rng.uniform(4, 40), dark * rng.uniform(0.65, 1.15)
        if rng.random() < 0.5:
            stage.add(
                (x, 0, z),
                RIGHT,
                AHEAD,
                raster.ELLIPSE,
                (0.35, 0.35),
                textures.TILES,
                tint * 0.8,
                tint * 0.4,
                (0.1, 0.1, 0.2, 0.8, 0.1, 0),
            )
        else:
            stage.add(
                (x, 0, z),
                RIGHT,
                AHEAD,
                raster.BOX,
                (rng.uniform(0.4, 1.3), rng.uniform(0.6, 4), 0.05),
                textures.MIX,
                tint * 0.9,
                tint * 1.1,
                (0.6, 1, 0.25, 17, 1, 0),
                seed=seed,
            )
    _marks(stage, rng, plan)


def _marks(stage: Stage, rng: Rng, plan: Plan) -> None:
    white = stray(rng, (0.86, 0.86, 0.83), 0.03) * rng.uniform(0.75, 1)
    worn = white * 0.7
    surface = (0.9, 2.2, 0.2, 15, 0.6, 0.05)
    seed = float(rng.integers(1 << 20))

    def mark(x: float, z: float, half: float, long: float) -> None:
        stage.add((x, 0, z), RIGHT, AHEAD, raster.BOX, (half, long, 0), textures.MIX, worn, white, surface, seed=seed)

    if rng.random() < 0.12:
        return
    solid = rng.random() < 0.3
    dash = float(rng.choice([1.5, 2.0, 3.0]))
    lines = [0.0, *([s * 3.3 for s in (-1, 1)] if plan.half > 6.5 else [])]
    for x in lines:
        if solid and x == 0:
            mark(-0.12, 100, 0.06, 105)
            mark(0.12, 100, 0.06, 105)
        else:
            for k in range(36):
                mark(x, -2 + 3 * dash * k, 0.07, dash / 2)
    if rng.random() < 0.5:
        for side in (-1, 1):
            mark(side * (plan.half - (2.3 if rng.random() < 0.5 else 0.45)), 100, 0.06, 105)
    if rng.random() < 0.4:  # a crossing
        z = float(rng.uniform(9, 30))
        for k in range(int(plan.half / 0.55)):
            mark(-plan.half + 0.6 + 1.1 * k, z, 0.27, 1.6)


def _house(stage: Stage, rng: Rng, plan: Plan, side: int, x: float, z: float, long: float, tall: float) -> None:
    """A house whose street side begins at ``z`` and is ``long``; ``x`` is its distance from the road's middle."""
    own = stray(rng, _WALLS[int(rng.integers(len(_WALLS)))], 0.05 * plan.variety) * rng.uniform(0.75, 1.1)
    frame = stray(rng, (0.8, 0.8, 0.78) if rng.random() < 0.6 else (0.2, 0.2, 0.2), 0.05)
    floor = float(rng.uniform(2.9, 3.6))
    modern = rng.random() < 0.25
    surface = (
        floor, float(rng.uniform(1.6, 3.2)), 0.9 if modern else float(rng.uniform(0.32, 0.6)),
        0.75 if modern else float(rng.uniform(0.42, 0.62)), float(rng.choice([0.0, 3.6, 4.2])),
        0.0 if modern else float(rng.choice([0, 0.9])), 0.0 if modern else 1.0,
    )  # fmt: skip
    seed = float(rng.integers(1 << 20))
    deep = float(rng.uniform(9, 16))
    body = Solid(deep / 2, 0, tall, 0, long, deep / 2, 0, long)
    pose = Pose(side * (x + deep / 2), z)
    faces, inner = body.faces(pose), body.inner(pose)
    toward = "left" if side > 0 else "right"
    stage.begin("building", 3, distance(stage, side * x, z + long / 2) + 20)
    lit = 1.0 if rng.random() < 0.6 else 0.35
    stage.face(
        faces["rear"],
        inner,
        textures.FACADE,
        own * 0.92,
        frame,
        (*surface[:4], 0.0, *surface[5:]),
        seed=seed + 1,
        sunlit=lit,
    )
    stage.face(faces[toward], inner, textures.FACADE, own, frame, surface, seed=seed, sunlit=lit)
    if rng.random() < 0.55:  # a roof that leans back
        roof = stray(rng, (0.45, 0.25, 0.2) if rng.random() < 0.6 else (0.3, 0.3, 0.32), 0.04)
        high, back = tall + rng.uniform(1.5, 3.5), x + deep / 2
        quad = np.array(
            [
                (side * (x - 0.3), tall - 0.1, z - 0.2),
                (side * (x - 0.3), tall - 0.1, z + long + 0.2),
                (side * back, high, z + long),
                (side * back, high, z),
            ]
        )
        stage.face(
            quad, inner, textures.TILES, roof, roof * 0.5, (0.3, 0.25, 0.06, 0.4, 0.25, 0.5), seed=seed, sunlit=lit
        )
        gable = np.array([(side * x, tall, z), (side * (x + deep), tall, z), (side * back, high, z)])
        stage.face(gable, inner, 0, own * 0.9, surface=(0.08, 1.5), sunlit=lit)


def _houses(stage: Stage, rng: Rng, plan: Plan, side: int) -> None:
    edge = plan.half + plan.walk + plan.green[side > 0]
    z = float(rng.uniform(-14, 0))
    shape = float(rng.choice([7.0, 12.0, 18.0]))
    while z < 170:
        long = float(rng.uniform(8, 24))
        if rng.random() < plan.built[side > 0]:
            _house(
                stage,
                rng,
                plan,
                side,
                edge + float(rng.choice([0, 0, rng.uniform(0, 5)])),
                z,
                long,
                shape * float(rng.uniform(0.7, 1.6)),
            )
            z += float(rng.choice([0, 0, rng.uniform(1, 8)]))
        else:
            for _ in range(2):
                tree(stage, rng, plan, side * (edge + float(rng.uniform(2, 9))), z + float(rng.uniform(0, long)), 4)
        z += long
    for _ in range(5):  # what closes the street far away
        x, far = float(rng.uniform(0, 60)) * side, float(rng.uniform(175, 260))
        stage.begin("building", 3, 500 + far)
        tone = stray(rng, _WALLS[int(rng.integers(len(_WALLS)))], 0.05)
        half, tall = float(rng.uniform(8, 18)), float(rng.uniform(9, 32))
        outline = np.array([(x - half, 0, far), (x + half, 0, far), (x + half, tall, far), (x - half, tall, far)])
        stage.face(
            outline,
            None,
            textures.FACADE,
            tone,
            (0.7, 0.7, 0.7),
            (3.2, 2.6, 0.5, 0.5, 0, 0, 1),
            seed=float(rng.integers(1 << 20)),
        )
