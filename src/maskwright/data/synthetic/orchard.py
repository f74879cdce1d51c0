"""``Orchard``: fruit in clusters on leafy trees, dappled by the sun; depth in meters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.camera import Camera, Light, draw_light
from maskwright.data.synthetic.crown import SORTS, Fruit, Leaves, Tree, grow
from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.data.synthetic.stage import Stage
from maskwright.data.synthetic.vehicles import stray
from maskwright.structures import Taxonomy

Rng = np.random.Generator

ORCHARD = Taxonomy(
    names=("apple", "orange", "pear", "lemon", "peach", "plum", "leaves", "branch", "grass", "sky"),
    thing=(True, True, True, True, True, True, False, False, False, False),
)

RIGHT, UP, AHEAD = np.eye(3)


class Orchard:
    """Draws orchards; in a clip the camera moves and the wind sways leaves and fruit."""

    taxonomy = ORCHARD

    def draw(self, rng: Rng, size: tuple[int, int], knobs: Knobs, frames: int = 1) -> list[Drawn]:
        """The frames of one clip on (H, W)."""
        height, width = size
        light = draw_light(rng, knobs, density=0.002)
        light = replace(light, beam=1.25 * light.beam)
        away = knobs.height * float(rng.uniform(1.2, 2.3))
        focal = 1.1 * max(width, height) * float(rng.uniform(*knobs.focal))
        eye = float(rng.uniform(1.3, 2.0))
        place = np.array([0.0, eye, 0.0])
        yaw, pitch, roll = (float(rng.normal(m, s)) * knobs.tilt for m, s in ((0, 0.05), (0.03, 0.09), (0, 0.03)))
        reach = (0.5 * width / focal * away, 0.5 * height / focal * away)
        tree = grow(rng, knobs, eye, away, reach)
        looks, seeds = int(rng.integers(1 << 62)), rng.integers(1 << 62, size=frames)
        step = np.array([*rng.normal(0, 0.012, 2), rng.uniform(0, 0.02)]) * knobs.motion
        wind = float(rng.uniform(0.1, 1.0)) * min(2.0, knobs.motion)
        stages: list[Stage] = []
        for t in range(frames):
            camera = Camera(
                place=place + step * t, focal=focal, center=(width / 2, height / 2), yaw=yaw, pitch=pitch, roll=roll
            )
            stages.append(_build(camera, light, knobs, tree, looks, wind, place, t))
        return [
            stage.picture(np.random.Generator(np.random.PCG64(int(seed))), size, knobs, following)
            for stage, following, seed in zip(stages, [*stages[1:], None], seeds, strict=True)
        ]


def _build(
    camera: Camera, light: Light, knobs: Knobs, tree: Tree, looks: int, wind: float, home: np.ndarray, t: int
) -> Stage:
    stage = Stage(camera, light, ORCHARD, grain=knobs.texture, home=home)
    rng = np.random.Generator(np.random.PCG64(looks))
    _background(stage, rng)
    stage.begin("leaves", 4, 0)
    for k, (x, y, z, half) in enumerate(tree.clumps.tolist()):
        form = (half, 0.85 * half, 0.3 * half, 6 / half, 50 + k, 0.4)
        stage.add(
            (x, y, z),
            RIGHT,
            UP,
            raster.BLOB,
            form,
            textures.FOLIAGE,
            (0.03, 0.06, 0.025),
            (0.13, 0.22, 0.07),
            (9 / half, 0.7, half),
            seed=k,
            bulge=0.5,
            sunlit=0.3,
        )
    bark = stray(rng, (0.33, 0.27, 0.21), 0.04)
    for k, (a, b, r1, r2) in enumerate(tree.twigs):
        stage.begin("branch", 5, float((a[2] + b[2]) / 2))
        along = b - a
        long = float(np.linalg.norm(along))
        along = along / max(long, 1e-6)
        toward = home - a
        side = np.cross(along, toward)
        side /= max(float(np.linalg.norm(side)), 1e-6)
        stage.add(
            a,
            along,
            side,
            raster.CAPSULE,
            (0, 0, r1, long, 0, r2),
            textures.MIX,
            bark * 0.7,
            bark * 1.2,
            (0.8, 12, 0.3, 90, 4, 0),
            seed=k,
            bulge=0.9,
        )
    _hang_leaves(stage, tree.leaves, wind, t)
    for fruit in tree.fruit:
        _hang_fruit(stage, fruit, wind, t)
    return stage


def _background(stage: Stage, rng: Rng) -> None:
    far, seed = 5000.0, float(rng.integers(1 << 20))
    stage.begin("sky", 0)
    cover = float(rng.uniform(0.1, 0.7))
    stage.add(
        stage.camera.place * [1, 0, 1] + far * AHEAD + 4 * far * UP, RIGHT, UP, raster.BOX, (9 * far, 4.02 * far, 0),
        textures.SKY, (0.88, 0.92, 0.96), np.array([0.4, 0.58, 0.88]) * rng.uniform(0.85, 1.1),
        (-4.02 * far, cover, 0.5, far), seed=seed, mode=2,
    )  # fmt: skip
    stage.begin("grass", 1, 5)
    green, straw = stray(rng, (0.26, 0.4, 0.13), 0.05), stray(rng, (0.48, 0.45, 0.25), 0.06)
    stage.add(
        (0, 0, 0),
        RIGHT,
        AHEAD,
        raster.BOX,
        (2000, 2000, 0),
        textures.MIX,
        green,
        straw,
        (0.7, 0.9, 0.4, 14, 1, 0),
        seed=seed,
    )
    dark = np.array([0.07, 0.12, 0.05]) * rng.uniform(0.8, 1.5)
    light = stray(rng, (0.28, 0.4, 0.16), 0.04)
    for row in range(2):
        z = 24.0 - 11.0 * row
        stage.begin("leaves", 2, z)
        for k in range(7):
            half = float(rng.uniform(1.2, 2.2))
            x = (k - 3 + rng.uniform(-0.4, 0.4)) * 0.2 * z
            place = (x, float(rng.uniform(1.2, 2.6)), z + 0.1 * k)
            form = (half, half, 0.3 * half, 1.6, seed + k, 0.35)
            stage.add(
                place,
                RIGHT,
                UP,
                raster.BLOB,
                form,
                textures.FOLIAGE,
                dark,
                light,
                (2.5, 0.6, half),
                seed=seed + k,
                bulge=0.6,
            )
        stage.begin("branch", 2, z + 0.5)
        for k in range(7):
            x = (k - 3 + rng.uniform(-0.4, 0.4)) * 0.2 * z
            stage.add(
                (0, 0, z + 0.5), RIGHT, UP, raster.CAPSULE, (x, 0, 0.12, x, 1.6, 0.08), 0, (0.25, 0.2, 0.16), bulge=0.9
            )


_SLICES = 40
"""Leaves are painted in so many groups by depth, between which fruit and twigs find their place."""


def _hang_leaves(stage: Stage, leaves: Leaves, wind: float, t: int) -> None:
    order = np.argsort(leaves.place[:, 2], kind="stable")[::-1]
    sway = wind * 0.006 * np.sin(0.9 * t + leaves.phase)
    for group in np.array_split(order, _SLICES):
        if len(group) == 0:
            continue
        stage.begin("leaves", 5, float(leaves.place[group, 2].mean()))
        rows, cut = stage.block(len(group), raster.BLADE, textures.LEAF)
        half = leaves.half[group]
        cut["place"][:] = leaves.place[group] + sway[group, None] * np.array([1.0, 0.3, 0.2])
        cut["along"][:], cut["across"][:] = leaves.across[group], leaves.along[group]
        cut["form"][:, :2] = half
        cut["color"][:] = leaves.color[group]
        cut["second"][:] = np.clip(leaves.color[group] * 1.5 + 0.05, 0, 1)
        cut["surface"][:, 0], cut["surface"][:, 2], cut["surface"][:, 7] = half[:, 0], 0.14, group
        cut["bulge"][:], cut["sunlit"][:, 0] = 0.25, leaves.sunlit[group]
        cut["extent"][:] = np.stack([-half[:, 1], -half[:, 0], half[:, 1], half[:, 0]], 1)
        stage.add_many(rows)


def _hang_fruit(stage: Stage, fruit: Fruit, wind: float, t: int) -> None:
    sort, r = SORTS[fruit.sort], fruit.radius
    lean = fruit.lean + 0.12 * wind * np.sin(0.8 * t + fruit.sway)
    up = np.array([np.sin(lean), np.cos(lean), 0])
    right = np.array([np.cos(lean), -np.sin(lean), 0])
    hook = fruit.place + np.array([0, 1.6 * r, 0])  # swings about the stem's end
    place = hook - 1.6 * r * up
    distance = float(fruit.place[2])
    stage.begin("branch", 5, distance + 5e-4)
    stage.add(
        place,
        right,
        up,
        raster.CAPSULE,
        (0, 0.7 * r, 0.09 * r, 0.1 * r, 2.0 * r, 0.06 * r),
        0,
        (0.3, 0.24, 0.14),
        bulge=0.9,
    )
    stage.begin(fruit.sort, 5, distance)
    surface = (0.45 / r, fruit.blush, sort.speckle, sort.gloss)
    args = (textures.FRUIT, fruit.color, fruit.second, surface)
    if fruit.sort == "pear":
        stage.add(
            place,
            right,
            up,
            raster.CAPSULE,
            (0, -0.25 * r, r, 0.05 * r, 1.1 * r, 0.5 * r),
            *args,
            seed=fruit.seed,
            bulge=0.97,
        )
    else:
        stage.add(
            place,
            right,
            up,
            raster.ELLIPSE,
            (r / sort.long**0.5, r * sort.long**0.5),
            *args,
            seed=fruit.seed,
            bulge=0.98,
        )
        if fruit.sort == "lemon":
            stage.add(
                place - 1.05 * r * up, right, up, raster.ELLIPSE, (0.3 * r, 0.28 * r), *args, seed=fruit.seed, bulge=0.6
            )
    if fruit.seed % 3 and fruit.sort in ("apple", "orange", "pear"):
        low = 0.62 * r if fruit.sort != "pear" else 0.9 * r
        stage.add(place - low * up, right, up, raster.ELLIPSE, (0.13 * r, 0.07 * r), 0, fruit.color * 0.25)
    # Shade of the leaves before it, in spots.
    stage.begin(None, 5, distance - 1e-4)
    for k in range(max(0, fruit.seed % 5 - 2)):
        turn = 2.9 * k + 7 * fruit.sway
        spot = place + 0.45 * r * (np.cos(turn) * right + np.sin(turn) * up)
        along = np.array([np.cos(turn + 0.8), np.sin(turn + 0.8), 0])
        stage.shadow(spot, np.array([-along[1], along[0], 0]), along, raster.BLADE, (0.7 * r, 0.3 * r), 0.55, 0.25 * r)
