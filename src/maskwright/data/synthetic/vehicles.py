"""Cars, trucks and buses of flat faces, in meters; where things stand and the shadows they throw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.stage import Stage

Rng = np.random.Generator

UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a thing stands: its middle on the ground and the way it looks (yaw, 0 is away from the camera)."""

    x: float
    z: float
    yaw: float = 0.0
    y: float = 0.0

    @property
    def basis(self) -> np.ndarray:
        """Rows right, up, forward, float64 [3, 3]."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])

    @property
    def place(self) -> np.ndarray:
        """float64 [3]."""
        return np.array([self.x, self.y, self.z])

    def points(self, local: np.ndarray | list[tuple[float, float, float]]) -> np.ndarray:
        """World points of (right, up, forward) ones, float64 [k, 3]."""
        return np.asarray(local, np.float64) @ self.basis + self.place


PAINTS = (
    (0.93, 0.93, 0.92), (0.06, 0.06, 0.07), (0.42, 0.43, 0.45), (0.7, 0.71, 0.72), (0.62, 0.07, 0.07),
    (0.09, 0.17, 0.42), (0.12, 0.28, 0.2), (0.75, 0.6, 0.2), (0.3, 0.2, 0.14), (0.2, 0.42, 0.62), (0.85, 0.82, 0.72),
)  # fmt: skip
"""sRGB of car bodies."""

GLASS_DARK, GLASS_SKY = (0.1, 0.12, 0.14), (0.5, 0.56, 0.62)


def stray(rng: Rng, color: tuple[float, float, float], by: float) -> np.ndarray:
    """A color near ``color``, within 0.02..1."""
    base = np.array(color)
    hue = 0.25 + 2.5 * float(base.max() - base.min())  # grays stay gray
    return np.clip(base * (1 + rng.normal(0, 1.5 * by)) + rng.normal(0, by, 3) * min(hue, 1.2), 0.02, 1)


def ground_shadow(stage: Stage, pose: Pose, half: tuple[float, float], tall: float) -> None:
    """What a solid of the half sides (across, along) and height takes from the light on the ground."""
    right, _, forward = pose.basis
    lean = -stage.light.sun[[0, 2]] / max(stage.light.sun[1], 0.25) * tall * 0.5
    thrown = pose.place + np.array([lean[0], 0.005, lean[1]])
    stage.shadow(thrown, right, forward, raster.BOX, (*half, min(half) * 0.5), 1.0, 0.4)
    stage.shadow(pose.place, right, forward, raster.BOX, (0.96 * half[0], 0.98 * half[1], 0.2), 0.55, 0.35)
    stage.add(
        pose.place, right, forward, raster.BOX, (0.9 * half[0], 0.96 * half[1], 0.1), 0, (0, 0, 0),
        surface=(0.6, 0.3), mode=1,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Solid:
    """A box that may narrow upward, whose six numbers are in the pose's own directions."""

    wide: float
    low: float
    high: float
    back: float
    front: float
    top_wide: float
    top_back: float
    top_front: float

    def faces(self, pose: Pose) -> dict[str, np.ndarray]:
        """Side -> its corners, the lower edge first, float64 [4, 3]."""
        w, t = self.wide, self.top_wide
        low = [
            (-w, self.low, self.back),
            (w, self.low, self.back),
            (w, self.low, self.front),
            (-w, self.low, self.front),
        ]
        top = [
            (-t, self.high, self.top_back), (t, self.high, self.top_back),
            (t, self.high, self.top_front), (-t, self.high, self.top_front),
        ]  # fmt: skip
        eight = pose.points(low + top)
        sides = {
            "rear": (0, 1, 5, 4),
            "right": (1, 2, 6, 5),
            "front": (2, 3, 7, 6),
            "left": (3, 0, 4, 7),
            "top": (4, 5, 6, 7),
        }
        return {name: eight[list(index)] for name, index in sides.items()}

    def inner(self, pose: Pose) -> np.ndarray:
        """Its middle."""
        return pose.points([(0, (self.low + self.high) / 2, (self.back + self.front) / 2)])[0]


def part_of(quad: np.ndarray, u1: float, v1: float, u2: float, v2: float) -> np.ndarray:
    """A piece of a quadrilateral between shares of its edges, float64 [4, 3]."""
    a, b, c, d = quad

    def at(u: float, v: float) -> np.ndarray:
        return (a + u * (b - a)) * (1 - v) + (d + u * (c - d)) * v

    return np.stack([at(u1, v1), at(u2, v1), at(u2, v2), at(u1, v2)])


def car(stage: Stage, rng: Rng, pose: Pose, distance: float, scale: float, variety: float) -> None:
    """A passenger car, from a small hatchback to a van."""
    body = int(rng.integers(0, 4))  # saloon, hatchback, estate or off-roader, van
    length, wide = scale * (4.5, 3.9, 4.6, 5.0)[body] * rng.uniform(0.95, 1.06), scale * rng.uniform(0.84, 0.95)
    tall = scale * (1.44, 1.5, 1.65, 2.05)[body] * rng.uniform(0.96, 1.05)
    color = stray(rng, PAINTS[int(rng.integers(len(PAINTS)))], 0.05 * variety)
    belt, sill = tall * (0.62 if body < 3 else 0.56), 0.2 * scale
    front, back = length / 2, -length / 2
    hood, deck = (0.26, 0.24, 0.25, 0.16)[body] * length, (0.17, 0.04, 0.03, 0.01)[body] * length
    seed = float(rng.integers(1 << 20))
    stage.begin(None, 2)
    ground_shadow(stage, pose, (wide, length / 2), tall)
    stage.begin("car", 5, distance)
    lower = Solid(wide, sill, belt, back, front, wide * 0.97, back + 0.05, front - 0.12)
    inner, faces = lower.inner(pose), lower.faces(pose)
    paint = (belt * 0.45, belt * 0.5, 0.55)
    for side in ("front", "rear", "left", "right"):
        if side in ("front", "rear"):
            stage.face(faces[side], inner, textures.PAINT, color, surface=paint, seed=seed, round_=0.03)
        else:
            sign = 1 if side == "right" else -1
            outline = [
                (back + 0.12, sill), (front - 0.15, sill), (front, sill + 0.2), (front - 0.03, belt * 0.72),
                (front - hood, belt), (back + deck, belt), (back + 0.02, belt * 0.93), (back, sill + 0.25),
            ]  # fmt: skip
            stage.face(
                pose.points([(sign * wide, y, z) for z, y in outline]), inner, textures.PAINT, color, surface=paint,
                seed=seed, round_=0.02,
            )  # fmt: skip
    hoods = [
        (-wide * 0.97, belt, front - hood),
        (wide * 0.97, belt, front - hood),
        (wide * 0.9, belt * 0.74, front - 0.05),
        (-wide * 0.9, belt * 0.74, front - 0.05),
    ]
    stage.face(pose.points(hoods), inner, textures.PAINT, color, surface=(0.5, 2.0, 0.7), seed=seed)
    if deck > 0.3:
        lid = [
            (-wide * 0.97, belt, back + deck),
            (wide * 0.97, belt, back + deck),
            (wide * 0.93, belt * 0.95, back + 0.04),
            (-wide * 0.93, belt * 0.95, back + 0.04),
        ]
        stage.face(pose.points(lid), inner, textures.PAINT, color, surface=(0.5, 2.0, 0.7), seed=seed)
    _ends(stage, rng, faces, inner)
    _wheels(stage, rng, pose, inner, wide, (back + 0.19 * length, front - 0.19 * length), 0.33 * scale, color)
    slope = (0.55, 0.25, 0.22, 0.1)[body] * scale
    cabin = Solid(
        wide * 0.95, belt - 0.01, tall, back + deck, front - hood, wide * (0.74 if body < 3 else 0.84),
        back + deck + slope, front - hood - (0.75 if body < 3 else 0.6) * scale,
    )  # fmt: skip
    inner, faces = cabin.inner(pose), cabin.faces(pose)
    for side in ("rear", "left", "right", "front", "top"):
        stage.face(faces[side], inner, textures.PAINT, color * 0.95, surface=(0.3, 1.0, 0.5), seed=seed, round_=0.02)
        pane = (0.3, 1.2, 0.8)
        if side in ("front", "rear"):
            stage.face(
                part_of(faces[side], 0.06, 0.06, 0.94, 0.92),
                inner,
                textures.GLASS,
                GLASS_DARK,
                GLASS_SKY,
                pane,
                seed=seed + 1,
            )
        elif side != "top":
            for u1, u2 in ((0.06, 0.49), (0.52, 0.93)) if body < 3 or rng.random() < 0.5 else ((0.62, 0.93),):
                if side == "left":
                    u1, u2 = 1 - u2, 1 - u1
                stage.face(
                    part_of(faces[side], u1, 0.1, u2, 0.88),
                    inner,
                    textures.GLASS,
                    GLASS_DARK,
                    GLASS_SKY,
                    pane,
                    seed=seed + 2,
                )


def _ends(stage: Stage, rng: Rng, faces: dict[str, np.ndarray], inner: np.ndarray) -> None:
    """Lamps, grille, bumpers and plates."""
    plate = (0.92, 0.92, 0.88) if rng.random() < 0.8 else (0.85, 0.75, 0.2)
    seed = float(rng.integers(1 << 20))
    brakes = rng.random() < 0.35
    lamp_height, lamp_wide = rng.uniform(0.55, 0.66), rng.uniform(0.16, 0.26)
    for side in ("front", "rear"):
        quad, ahead = faces[side], side == "front"
        stage.face(part_of(quad, 0.02, 0.02, 0.98, 0.28), inner, 0, (0.12, 0.12, 0.13), surface=(0.1, 3, 0.2))
        if ahead:
            stage.face(
                part_of(quad, 0.28, 0.36, 0.72, 0.66),
                inner,
                textures.TILES,
                (0.1, 0.1, 0.1),
                (0.4, 0.4, 0.42),
                (0.3, 0.06, 0.02, 0.8, 0.1, 0),
                round_=0.02,
            )
        for u in (0.04, 0.96 - lamp_wide):
            lamp = part_of(quad, u, lamp_height - 0.04, u + lamp_wide, lamp_height + 0.24)
            color = (0.95, 0.95, 0.9) if ahead else (0.75, 0.04, 0.03)
            glow = 0.5 if ahead or brakes else 0.05
            stage.face(lamp, inner, 0, color, surface=(0.3, 9, 0.8, glow), seed=seed, round_=0.02)
        stage.face(
            part_of(quad, 0.37, 0.2 if ahead else 0.4, 0.63, 0.34 if ahead else 0.56),
            inner,
            textures.TEXT,
            plate,
            (0.05, 0.05, 0.05),
            (0.26, 0.08, 0.1),
            seed=seed,
        )


def _wheels(
    stage: Stage,
    rng: Rng,
    pose: Pose,
    inner: np.ndarray,
    wide: float,
    places: tuple[float, ...],
    radius: float,
    color: np.ndarray,
) -> None:
    right, up, forward = pose.basis
    spokes, turn, seed = float(rng.integers(5, 11)), rng.uniform(0, 6), float(rng.integers(1 << 20))
    for sign in (1, -1):
        # v x u must point outward: along is forward for the left side, backward for the right.
        along = forward if sign < 0 else -forward
        if np.dot(np.cross(along, up), right) * sign < 0:
            along = -along
        for z in places:
            middle = pose.points([(sign * (wide + 0.005), radius * 1.02, z)])[0]
            stage.add(
                middle, along, up, raster.ELLIPSE, (1.16 * radius, 1.18 * radius), 0, color * 0.12 + 0.02, back=False
            )
            stage.add(
                middle,
                along,
                up,
                raster.ELLIPSE,
                (radius, radius),
                textures.WHEEL,
                (0.09, 0.09, 0.1),
                (0.55, 0.56, 0.58),
                (radius, spokes, turn),
                seed=seed,
                back=False,
            )


def long_vehicle(stage: Stage, rng: Rng, pose: Pose, distance: float, scale: float, variety: float, name: str) -> None:
    """A truck with its box, or a bus."""
    bus = name == "bus"
    length, wide = scale * (rng.uniform(9.5, 12) if bus else rng.uniform(6.5, 9.5)), scale * 1.25
    tall = scale * (rng.uniform(2.9, 3.2) if bus else rng.uniform(2.8, 3.6))
    own = stray(rng, PAINTS[int(rng.integers(len(PAINTS)))], 0.08 * variety)
    other = stray(rng, PAINTS[int(rng.integers(len(PAINTS)))], 0.08 * variety)
    front, back, seed = length / 2, -length / 2, float(rng.integers(1 << 20))
    stage.begin(None, 2)
    ground_shadow(stage, pose, (wide, length / 2), tall)
    stage.begin(name, 5, distance)
    low = 0.35 * scale
    cab = front - (0 if bus else 2.0 * scale)
    solids = [(Solid(wide, low, tall, back, front, wide, back, front - 0.1), True)]
    if not bus:
        chassis = Solid(wide * 0.85, 0.4 * scale, 0.95 * scale, back, front - 0.3, wide * 0.85, back, front - 0.3)
        cabin = Solid(wide * 0.97, low, tall * 0.82, cab, front, wide * 0.93, cab, front - 0.25)
        cargo = Solid(wide, 0.9 * scale, tall, back, cab - 0.15, wide, back, cab - 0.15)
        away = pose.basis[2] @ (pose.place - stage.home) > 0
        ends = [(cabin, False), (cargo, True)]  # the nearer one last
        solids = [(chassis, False), *(ends if away else reversed(ends))]
    for solid, main in solids:
        inner, faces = solid.inner(pose), solid.faces(pose)
        boxed = main and not bus
        for side in ("top", "rear", "left", "right", "front"):
            base = other if boxed else own if solid.high > 1.2 * scale else np.array([0.08, 0.08, 0.08])
            paint = (tall * 0.4, tall * 0.6, 0.35)
            stage.face(faces[side], inner, textures.PAINT, base, surface=paint, seed=seed, round_=0.03)
            if boxed and side in ("left", "right", "rear"):
                half = (length * 0.32, (tall - 0.9 * scale) / 2) if side != "rear" else (wide, (tall - 0.9 * scale) / 2)
                stage.face(
                    part_of(faces[side], 0.12, 0.25, 0.88, 0.8),
                    inner,
                    textures.PACK,
                    other,
                    own,
                    (*half, 0.1),
                    seed=seed + 3,
                )
            if bus or (not main and solid.high > 1.2 * scale):
                _bus_glass(stage, faces[side], inner, side, bus, own, seed)
        if bus or not main:
            _ends(stage, rng, {k: part_of(faces[k], 0, 0, 1, 0.36) for k in ("front", "rear")}, inner)
    places = (back + 1.5 * scale, front - (2.4 if bus else 1.0) * scale, *(() if bus else (back + 2.6 * scale,)))
    _wheels(stage, rng, pose, pose.points([(0, 1, 0)])[0], wide, places, 0.48 * scale, own * 0.3)


def _bus_glass(
    stage: Stage, quad: np.ndarray, inner: np.ndarray, side: str, bus: bool, own: np.ndarray, seed: float
) -> None:
    pane = (0.5, 1.5, 0.5)
    if side == "front":
        stage.face(part_of(quad, 0.05, 0.42, 0.95, 0.88), inner, textures.GLASS, GLASS_DARK, GLASS_SKY, pane, seed=seed)
        if bus:
            stage.face(
                part_of(quad, 0.2, 0.9, 0.8, 0.98),
                inner,
                textures.TEXT,
                (0.04, 0.04, 0.04),
                (0.9, 0.6, 0.1),
                (0.9, 0.12, 0),
                seed=seed,
            )
    elif side == "rear" and bus:
        stage.face(part_of(quad, 0.15, 0.5, 0.85, 0.88), inner, textures.GLASS, GLASS_DARK, GLASS_SKY, pane, seed=seed)
    elif side in ("left", "right"):
        panes = 6 if bus else 1
        for k in range(panes):
            u1, u2 = (0.03 + 0.95 * k / panes, 0.015 + 0.95 * (k + 1) / panes) if bus else (0.3, 0.9)
            stage.face(
                part_of(quad, u1, 0.45, u2, 0.84), inner, textures.GLASS, GLASS_DARK, GLASS_SKY, pane, seed=seed + k
            )
        if bus:
            stage.face(part_of(quad, 0.0, 0.14, 1.0, 0.22), inner, 0, own * 0.45, surface=(0.05, 1, 0.3))


def tube_axes(
    place: np.ndarray, along: np.ndarray, a: tuple[float, float], b: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A point and two directions that go with a tube from ``a`` to ``b`` on the upright plane along ``along``: across
    the tube and from ``b`` to ``a``; and the tube's length."""
    x, y = a[0] - b[0], a[1] - b[1]
    long = float(np.hypot(x, y))
    x, y = (x / long, y / long) if long > 1e-9 else (0.0, 1.0)
    return place + a[0] * along + a[1] * UP, y * along - x * UP, x * along + y * UP, long
