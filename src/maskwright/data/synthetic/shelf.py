"""``Shelf``: rows of packed goods in a shop, many alike side by side, with price tags; depth in meters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.camera import Camera, Light, draw_light
from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.data.synthetic.goods import Piece, levels_of, stock
from maskwright.data.synthetic.stage import Stage
from maskwright.data.synthetic.vehicles import Pose, Solid, stray
from maskwright.structures import Taxonomy

Rng = np.random.Generator

SHELF = Taxonomy(
    names=("box", "bottle", "can", "bag", "tub", "price tag", "shelf", "floor"),
    thing=(True, True, True, True, True, True, False, False),
)

RIGHT, UP, AHEAD = np.eye(3)


class Shelf:
    """Draws shelves; the camera walks along them in a clip, the goods stand still."""

    taxonomy = SHELF

    def draw(self, rng: Rng, size: tuple[int, int], knobs: Knobs, frames: int = 1) -> list[Drawn]:
        """The frames of one clip on (H, W)."""
        height, width = size
        light = draw_light(rng, knobs, soft=float(rng.uniform(0.45, 0.8)))
        light = replace(light, exposure=light.exposure * 1.05)
        away = knobs.height * float(rng.uniform(1.3, 2.6))
        focal = 1.0 * max(width, height) * float(rng.uniform(*knobs.focal))
        yaw = float(np.clip(rng.normal(0, 0.16), -0.45, 0.45)) * knobs.tilt
        place = np.array([-away * np.tan(yaw) + rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.6), -away])
        pitch = float(rng.normal(-0.02, 0.06)) * knobs.tilt
        roll = float(rng.normal(0, 0.015)) * knobs.tilt
        reach = 0.62 * width / focal * away + 0.9
        levels = levels_of(rng, knobs)
        pieces, tags = stock(rng, knobs, levels, reach)
        looks, seeds = int(rng.integers(1 << 62)), rng.integers(1 << 62, size=frames)
        step = np.array([float(rng.choice([-1, 1])) * 0.04, 0, 0.01]) * knobs.motion
        cameras = [
            Camera(place=place + step * t, focal=focal, center=(width / 2, height / 2), yaw=yaw, pitch=pitch, roll=roll)
            for t in range(frames)
        ]
        pieces = _near(pieces, (cameras[0], cameras[-1]), size)
        stages: list[Stage] = []
        for camera in cameras:
            stages.append(_build(camera, light, knobs, levels, reach, pieces, tags, looks, place))
        return [
            stage.picture(np.random.Generator(np.random.PCG64(int(seed))), size, knobs, following)
            for stage, following, seed in zip(stages, [*stages[1:], None], seeds, strict=True)
        ]


def _near(pieces: list[Piece], cameras: tuple[Camera, ...], size: tuple[int, int]) -> list[Piece]:
    """The pieces that may be seen, generously: what is surely out of every picture need not be drawn."""
    if not pieces:
        return []
    middles = np.array([(p.x, p.y + p.goods.tall / 2, p.z) for p in pieces])
    widest = np.array([max(p.goods.wide, p.goods.tall, p.goods.deep) for p in pieces])
    kept = np.zeros(len(pieces), bool)
    for camera in cameras:
        places, depth = camera.project(middles)
        reach = (1.5 * camera.focal * widest / np.maximum(depth, 0.1))[:, None]
        kept |= ((places > -reach) & (places < np.array(size[::-1]) + reach)).all(1)
    return [piece for piece, keep in zip(pieces, kept.tolist(), strict=True) if keep]


def _build(
    camera: Camera, light: Light, knobs: Knobs, levels: list[float], reach: float, pieces: list[Piece],
    tags: list[tuple[float, float, int]], looks: int, home: np.ndarray,
) -> Stage:  # fmt: skip
    stage = Stage(camera, light, SHELF, grain=knobs.texture, home=home)
    rng = np.random.Generator(np.random.PCG64(looks))
    tone = stray(
        rng, ((0.85, 0.84, 0.82), (0.5, 0.5, 0.52), (0.62, 0.47, 0.32), (0.2, 0.2, 0.22))[int(rng.integers(4))], 0.05
    )
    stage.begin("floor", 0)
    floor = stray(rng, (0.6, 0.57, 0.52), 0.06)
    stage.add(
        (0, 0, 0),
        RIGHT,
        AHEAD,
        raster.BOX,
        (40, 40, 0),
        textures.TILES,
        floor,
        floor * 0.6,
        (0.4, 0.4, 0.02, 0.5, 0.1, 0),
        seed=1,
    )
    stage.begin("shelf", 1, 5)
    style = (0.2, 1.5, 0.12, 30, 0.05 if rng.random() < 0.4 else 1.0, 0.05)
    panel = np.array([(-12, -0.2, 0.46), (12, -0.2, 0.46), (12, 3.4, 0.46), (-12, 3.4, 0.46)])
    stage.face(panel, None, textures.MIX, tone * 0.8, tone * 0.9, style, seed=float(rng.integers(1 << 20)), sunlit=0.5)
    # Seen from below a board hides what stands on it, seen from above what stands below it: from the uppermost board
    # down to the eye what stands on each comes before it, then from the lowest up each comes before what stands on it.
    eye = float(home[1])
    over = sorted((level for level in levels if level > eye), reverse=True)
    turn = {level: 1000.0 - 10 * k for k, level in enumerate([*over, *(level for level in levels if level <= eye)])}
    rail = stray(rng, (0.9, 0.9, 0.9) if rng.random() < 0.5 else (0.75, 0.15, 0.12), 0.05)
    for level in levels:
        stage.begin("shelf", 5, turn[level] - (5 if level > eye else -9))
        board = Solid(12, level - 0.025, level, 0.0, 0.46, 12, 0.0, 0.46)
        faces, inner = board.faces(Pose(0, 0)), board.inner(Pose(0, 0))
        stage.face(faces["top"], inner, textures.MIX, tone * 0.85, tone * 0.95, style, seed=2, sunlit=0.7)
        lower = np.array(
            [(-12, level - 0.025, 0.0), (12, level - 0.025, 0.0), (12, level - 0.025, 0.46), (-12, level - 0.025, 0.46)]
        )
        stage.face(lower, inner, 0, tone * 0.35)
        stage.add((0, level - 0.034, -0.006), RIGHT, UP, raster.BOX, (12, 0.003, 0), 0, rail * 0.4)
        stage.add(
            (0, level - 0.012, -0.006),
            RIGHT,
            UP,
            raster.BOX,
            (12, 0.024, 0),
            textures.MIX,
            rail * 0.95,
            rail,
            (0.2, 3, 0.05, 40, 1, 0.25),
            seed=3,
        )
    stage.begin(None, 2)
    for level in levels:
        stage.shadow((0, level - 0.03, 0.459), RIGHT, UP, raster.BOX, (12, 0.1, 0.05), 1.2, 0.2)
    for piece in pieces:
        _piece(stage, piece, turn[piece.level])
    paper = stray(rng, (0.95, 0.95, 0.92) if rng.random() < 0.6 else (0.95, 0.85, 0.3), 0.03)
    wide = float(rng.uniform(0.03, 0.045))
    for x, y, seed in tags:
        stage.begin("price tag", 5, turn[y] - (5.1 if y > eye else -8.9))
        offer = seed % 7 == 0
        color, ink = ((0.85, 0.12, 0.1), (0.95, 0.9, 0.3)) if offer else (paper, (0.08, 0.08, 0.1))
        form = (wide, 0.0205, 0.002)
        stage.add(
            (x, y - 0.012, -0.009),
            RIGHT,
            UP,
            raster.BOX,
            form,
            textures.TEXT,
            color,
            ink,
            (wide, 0.0205, 0.15),
            seed=seed,
        )
    return stage


def _piece(stage: Stage, piece: Piece, turn: float) -> None:
    goods = piece.goods
    half, tall = goods.wide / 2, goods.tall
    pose = Pose(piece.x, piece.z, piece.turn, piece.y)
    color, second, cap = goods.color * piece.dark, goods.second * piece.dark, goods.cap * piece.dark
    seed, sunlit = float(goods.seed), 1.0 if piece.dark > 0.75 else 0.4
    distance = float(np.hypot(piece.x - stage.camera.place[0], piece.z - stage.camera.place[2]))
    stage.begin(None, 5, turn + 8.8 if piece.level <= stage.camera.place[1] else turn + 8)
    stage.shadow((piece.x, piece.y + 0.001, piece.z), RIGHT, AHEAD, raster.BOX, (half, goods.deep / 2, 0.01), 1.3, 0.05)
    stage.begin(None, 2)
    stage.shadow((piece.x + 0.02, piece.y + tall / 2, 0.458), RIGHT, UP, raster.BOX, (half, tall / 2, 0.02), 0.8, 0.1)
    stage.begin(goods.kind, 5, turn + 0.2 * distance - 0.01 * (piece.y - piece.level))
    if goods.kind == "box":
        body = Solid(half, 0, tall, -goods.deep / 2, goods.deep / 2, half, -goods.deep / 2, goods.deep / 2)
        faces, inner = body.faces(pose), body.inner(pose)
        for side in ("top", "left", "right"):
            share = (goods.deep / 2, tall / 2) if side != "top" else (half, goods.deep / 2)
            stage.face(
                faces[side],
                inner,
                textures.PACK,
                color * 0.9,
                second * 0.9,
                (*share, 0.1),
                seed=seed + 1,
                sunlit=sunlit,
            )
        stage.face(faces["rear"], inner, textures.PACK, color, second, (half, tall / 2, 0.12), seed=seed, sunlit=sunlit)
        return
    # The others are round: cards through their middle that face the way they are turned to.
    toward = pose.place - stage.home
    flat = np.array([toward[2], 0, -toward[0]]) / max(float(np.hypot(toward[0], toward[2])), 1e-6)
    foot = pose.place
    down = float(
        np.clip((stage.home[1] - (piece.y + tall)) / max(float(np.hypot(toward[0], toward[2])), 0.3), -0.6, 0.6)
    )

    def card(
        outline: list[tuple[float, float]],
        round_: float,
        material: int,
        tint: np.ndarray,
        other: np.ndarray,
        surface: tuple[float, ...],
        bulge: float,
        shift: float = 0.0,
    ) -> None:
        points = np.array([foot + x * flat + y * UP for x, y in outline])
        stage.face(
            points, None, material, tint, other, surface, seed=seed + shift, round_=round_, bulge=bulge, sunlit=sunlit
        )

    def band(
        low: float, high: float, wide: float, material: int, tint: np.ndarray, other: np.ndarray, gloss: float
    ) -> None:
        middle, tall_ = foot + (low + high) / 2 * UP, (high - low) / 2
        surface = (wide, tall_, gloss) if material == textures.PACK else (0.05, 20, gloss)
        stage.add(
            middle,
            flat,
            UP,
            raster.BOX,
            (wide, tall_, min(wide, tall_) * 0.06),
            material,
            tint,
            other,
            surface,
            seed=seed,
            bulge=0.97,
            sunlit=sunlit,
        )

    def lid(at: float, wide: float, tint: np.ndarray, gloss: float) -> None:
        stage.add(
            foot + at * UP,
            flat,
            UP,
            raster.ELLIPSE,
            (wide, max(abs(down) * wide, 0.06 * wide)),
            0,
            tint,
            surface=(0.05, 30, gloss),
            sunlit=sunlit,
        )

    if goods.kind == "can":
        metal = np.array([0.72, 0.73, 0.75]) * piece.dark
        lid(0.006, 0.96 * half, metal * 0.6, 0.4)
        band(0.004, tall - 0.003, half, textures.PACK, color, second, 0.45)
        band(tall - 0.008, tall, half * 0.97, 0, metal, metal, 0.8)
        if down > 0:
            lid(tall, half * 0.95, metal, 0.6)
            lid(tall - 0.002, half * 0.8, metal * 0.8, 0.3)
    elif goods.kind == "tub":
        card(
            [(-0.8 * half, 0), (0.8 * half, 0), (half, tall), (-half, tall)],
            0.004,
            textures.PACK,
            color,
            second,
            (half, tall / 2, 0.25),
            0.95,
        )
        band(tall - 0.1 * half, tall + 0.08 * half, 1.04 * half, 0, cap, cap, 0.4)
        if down > 0:
            lid(tall + 0.08 * half, 1.02 * half, cap, 0.35)
    elif goods.kind == "bag":
        h, w = tall, half
        outline = [
            (-w, 0.03 * h),
            (-0.94 * w, 0.3 * h),
            (-w, 0.9 * h),
            (-0.97 * w, h),
            (0.97 * w, h),
            (w, 0.9 * h),
            (0.95 * w, 0.35 * h),
            (w, 0.03 * h),
            (0.9 * w, 0),
            (-0.9 * w, 0),
        ]
        card(outline, 0.004, textures.PACK, color, second, (w, h / 2, 0.3), 0.75)
        for low in (0.0, 0.95 * h):
            stage.add(
                foot + (low + 0.025 * h) * UP,
                flat,
                UP,
                raster.BOX,
                (0.95 * w, 0.022 * h, 0.002),
                textures.TILES,
                color * 0.85,
                color * 1.2,
                (0.006, 0.1, 0.4, 0.6, 0, 0),
                sunlit=sunlit,
            )
    else:
        neck, shoulder = half * (0.3 + 0.15 * goods.form), tall * (0.6 + 0.14 * goods.form)
        outline = [
            (-half, 0.01),
            (half, 0.01),
            (half, shoulder),
            (0.8 * half, shoulder + 0.06 * tall),
            (neck, tall * 0.86),
            (neck, tall * 0.95),
            (-neck, tall * 0.95),
            (-neck, tall * 0.86),
            (-0.8 * half, shoulder + 0.06 * tall),
            (-half, shoulder),
        ]
        card(outline, 0.006, textures.PAINT, second * 0.75, second, (tall * 0.4, tall, 0.9), 0.97)
        band(0.2 * shoulder, 0.9 * shoulder, half * 1.005, textures.PACK, color, cap, 0.2)
        band(tall * 0.9, tall, neck * 1.25, 0, cap, cap, 0.35)
