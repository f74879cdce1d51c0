"""People of tapered limbs: walking, standing, riding; in meters, on a plane that faces the camera or rides along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.stage import Stage
from maskwright.data.synthetic.vehicles import Pose, stray, tube_axes

Rng = np.random.Generator

_SKIN = ((0.93, 0.76, 0.65), (0.82, 0.62, 0.48), (0.62, 0.43, 0.31), (0.42, 0.28, 0.2), (0.3, 0.2, 0.15))
_HAIR = ((0.07, 0.05, 0.04), (0.2, 0.13, 0.08), (0.4, 0.27, 0.14), (0.7, 0.58, 0.36), (0.6, 0.6, 0.6))
_CLOTHES = (
    (0.1, 0.1, 0.12), (0.16, 0.19, 0.3), (0.35, 0.36, 0.4), (0.85, 0.84, 0.82), (0.55, 0.12, 0.12), (0.2, 0.35, 0.25),
    (0.7, 0.6, 0.45), (0.3, 0.45, 0.62), (0.8, 0.5, 0.15), (0.42, 0.25, 0.45), (0.85, 0.8, 0.3),
)  # fmt: skip

Limb = tuple[float, float, float, float, float, float]


@dataclass(slots=True)
class Dressed:
    """What one person wears and how big they are."""

    tall: float
    skin: np.ndarray
    hair: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    shoe: np.ndarray
    pattern: tuple[float, float]
    second: np.ndarray
    seed: float
    stout: float
    bag: float
    coat: float

    @classmethod
    def draw(cls, rng: Rng, scale: float, variety: float) -> Dressed:
        """Someone."""

        def cloth() -> np.ndarray:
            return stray(rng, _CLOTHES[int(rng.integers(len(_CLOTHES)))], 0.07 * variety)

        child = rng.random() < 0.1
        return cls(
            tall=scale * float(np.clip(rng.normal(1.7, 0.09), 1.4, 2.0)) * (0.68 if child else 1),
            skin=stray(rng, _SKIN[int(rng.integers(len(_SKIN)))], 0.03),
            hair=stray(rng, _HAIR[int(rng.integers(len(_HAIR)))], 0.03),
            upper=cloth(),
            lower=cloth() * rng.uniform(0.5, 1.0),
            shoe=stray(rng, (0.15, 0.13, 0.12) if rng.random() < 0.7 else (0.8, 0.8, 0.8), 0.05),
            pattern=(float(rng.choice([0, 0, 0, 1, 2, 3])), float(rng.uniform(0.03, 0.12))),
            second=cloth(),
            seed=float(rng.integers(1 << 20)),
            stout=float(np.clip(rng.normal(1.05, 0.12), 0.85, 1.4)),
            bag=float(rng.random()),
            coat=float(rng.random()),
        )


class Figure:
    """Draws limbs of one person on one plane, all numbers as shares of the body's height."""

    def __init__(self, stage: Stage, who: Dressed, place: np.ndarray, along: np.ndarray) -> None:
        self.stage, self.who, self.place, self.along = stage, who, place, along

    def limb(
        self,
        a: tuple[float, float],
        b: tuple[float, float],
        r1: float,
        r2: float,
        color: np.ndarray,
        cloth: bool = True,
    ) -> None:
        """A tapered tube from ``a`` to ``b``, on axes of its own, so that what is on it moves as it does."""
        h = self.who.tall
        place, along, across, long = tube_axes(self.place, self.along, (a[0] * h, a[1] * h), (b[0] * h, b[1] * h))
        s = (0.0, 0.0, r1 * h, 0.0, -long, r2 * h)
        if cloth:
            pattern = self.who.pattern if color is self.who.upper else (0.0, 1.0)
            material, second, surface = textures.CLOTH, self.who.second, pattern
        else:
            material, second, surface = textures.PLAIN, color, (0.06, 9, 0.1)
        self.stage.add(
            place, along, across, raster.CAPSULE, s, material, color, second, surface, seed=self.who.seed, bulge=0.9
        )

    def bent(
        self,
        top: tuple[float, float],
        angle: float,
        bend: float,
        parts: tuple[float, float],
        widths: tuple[float, float, float],
        color: np.ndarray,
    ) -> tuple[float, float]:
        """Two tubes with a joint; angles from straight down, forward positive. Returns where it ends."""
        knee = (top[0] + parts[0] * np.sin(angle), top[1] - parts[0] * np.cos(angle))
        end = (knee[0] + parts[1] * np.sin(angle + bend), knee[1] - parts[1] * np.cos(angle + bend))
        self.limb(top, knee, widths[0], widths[1], color)
        self.limb(knee, end, widths[1], widths[2], color)
        return end

    def outline(
        self, points: list[tuple[float, float]], round_: float, color: np.ndarray, at: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """A rounded polygon of cloth around ``at``."""
        h = self.who.tall
        flat = np.array(points) * h
        first = len(self.stage.corners)
        self.stage.corners.extend(flat)
        low, high = flat.min(0) - round_ * h, flat.max(0) + round_ * h
        pattern = self.who.pattern if color is self.who.upper else (0.0, 1.0)
        half = max(float(np.abs(flat[:, 0]).max()) + round_ * h, 1e-3) * 1.1
        self.stage.add(
            self.place + h * (at[0] * self.along + np.array([0, at[1], 0])),
            self.along,
            (0, 1, 0),
            raster.POLYGON,
            (round_ * h, half),
            textures.CLOTH,
            color,
            self.who.second,
            pattern,
            seed=self.who.seed,
            bulge=0.8,
            extent=(low[0], low[1], high[0], high[1]),
            corners=(first, len(points)),
        )

    def head(self, at: tuple[float, float], profile: float, away: bool) -> None:
        """Neck, head, hair."""
        who, h = self.who, self.who.tall
        self.limb((at[0] - 0.005, at[1] - 0.09), at, 0.028, 0.028, who.skin, cloth=False)
        place = self.place + h * (at[0] * self.along + np.array([0, at[1], 0]))
        shift = 0.012 * profile * h * self.along
        up = (0.0, 1.0, 0.0)
        self.stage.add(
            place - shift + [0, 0.012 * h, 0],
            self.along,
            up,
            raster.ELLIPSE,
            (0.058 * h, 0.066 * h),
            0,
            who.hair,
            surface=(0.25, 30, 0.1),
            bulge=0.9,
        )
        if not away:
            self.stage.add(
                place + shift - [0, 0.008 * h, 0],
                self.along,
                up,
                raster.ELLIPSE,
                (0.046 * h, 0.06 * h),
                0,
                who.skin,
                surface=(0.08, 25, 0.1),
                bulge=0.9,
            )
            if who.bag < 0.3:  # a cap or a fringe
                self.stage.add(
                    place + np.array([0, 0.045 * h, 0]),
                    self.along,
                    up,
                    raster.ELLIPSE,
                    (0.055 * h, 0.026 * h),
                    0,
                    who.hair,
                    surface=(0.2, 30),
                    bulge=0.8,
                )


def _shadow(stage: Stage, pose: Pose, tall: float) -> None:
    stage.begin(None, 2)
    lean = -stage.light.sun[[0, 2]] / max(stage.light.sun[1], 0.25)
    far = min(float(np.hypot(*lean)), 2.5) * tall
    direction = np.array([lean[0], 0, lean[1]]) / max(float(np.hypot(*lean)), 1e-6)
    side = np.array([direction[2], 0, -direction[0]])
    stage.shadow(pose.place, direction, side, raster.CAPSULE, (0, 0, 0.1 * tall, far, 0, 0.12 * tall), 0.9, 0.16)
    stage.add(
        pose.place,
        (1, 0, 0),
        (0, 0, 1),
        raster.ELLIPSE,
        (0.24, 0.16),
        0,
        (0, 0, 0),
        surface=(0.5, 0.25),
        mode=1,
        extent=(-0.6, -0.5, 0.6, 0.5),
    )


def walker(
    stage: Stage,
    rng: Rng,
    pose: Pose,
    distance: float,
    scale: float,
    variety: float,
    stride: float,
    steps: float,
    first: np.ndarray,
) -> None:
    """Someone on foot.

    Args:
        pose: yaw is the way they go: 0 away from the camera, pi towards it, pi / 2 to the right.
        stride: 0 for standing to 1.
        steps: phase of the walk, radians.
        first: where they are in the clip's first frame, float64 [3].
    """
    who = Dressed.draw(rng, scale, variety)
    _shadow(stage, pose, who.tall)
    stage.begin("person", 5, distance)
    toward = first - stage.home
    toward = toward / max(float(np.hypot(toward[0], toward[2])), 1e-6)
    along = np.array([toward[2], 0, -toward[0]])
    going = np.array([np.sin(pose.yaw), 0, np.cos(pose.yaw)])
    across = float(going @ along)  # how much of the walk goes across the view
    away = float(going @ toward) > 0.5
    side = np.sqrt(1 - across * across)
    figure = Figure(stage, who, pose.place, along)
    swing = 0.55 * stride * across * np.sin(steps)
    lift = 0.5 * stride * np.abs(across)
    hip, shoulder, spread = 0.5, 0.8, 0.055 * side * who.stout
    chest = (0.07 + 0.05 * side) * who.stout
    widths = (0.062 * who.stout, 0.045, 0.032)
    for k, sign in enumerate((-1, 1)):
        if k == 1:
            _torso(figure, who, chest, hip, shoulder)
        own = swing * sign
        bend = -lift * max(0.0, np.cos(steps) * sign) - 0.06
        bob = 0.02 * stride * side * np.sin(steps) * sign
        end = figure.bent(
            (spread * sign, hip + bob), own, bend * (1 if across >= 0 else -1), (0.245, 0.23), widths, who.lower
        )
        toe = 0.05 * (across if abs(across) > 0.2 else 0.2 * sign)
        figure.limb((end[0], end[1] - 0.012), (end[0] + toe, 0.014 + bob), 0.024, 0.018, who.shoe, cloth=False)
        arm = figure.bent(
            (sign * chest * 0.95 * side, shoulder - 0.015),
            -own * 0.9 + 0.12 * sign * side,
            0.25 * np.sign(across + 1e-9) * (0.3 + abs(across)),
            (0.165, 0.15),
            (0.036, 0.03, 0.024),
            who.upper,
        )
        figure.limb(arm, (arm[0] + 0.006, arm[1] - 0.025), 0.022, 0.02, who.skin, cloth=False)
        if k == 1 and who.bag > 0.82:
            figure.outline(
                [(-0.07, -0.2), (0.07, -0.2), (0.06, -0.06), (-0.06, -0.06)],
                0.01,
                who.second,
                arm,
            )
    figure.head((0.01 * across, 0.925), across, away)


def _torso(figure: Figure, who: Dressed, chest: float, hip: float, shoulder: float) -> None:
    waist = chest * 0.82
    bottom = hip - (0.2 if who.coat > 0.75 else 0.03)
    flare = 1.15 if who.coat > 0.75 else 0.95
    figure.outline(
        [
            (-waist * flare, bottom),
            (waist * flare, bottom),
            (waist, hip + 0.12),
            (chest, shoulder),
            (0.03, shoulder + 0.035),
            (-0.03, shoulder + 0.035),
            (-chest, shoulder),
            (-waist, hip + 0.12),
        ],
        0.018,
        who.upper,
    )
    if who.bag < 0.15:
        figure.outline(
            [(-0.6 * chest, 0.6), (0.6 * chest, 0.6), (0.55 * chest, 0.79), (-0.55 * chest, 0.79)],
            0.025,
            who.second * 0.7,
        )


def rider(
    stage: Stage, rng: Rng, pose: Pose, distance: float, scale: float, variety: float, spin: float, motor: bool
) -> None:
    """Someone on a bicycle or motorcycle of the same pose; ``spin`` is the angle of the cranks."""
    who = Dressed.draw(rng, scale, variety)
    who.tall = scale * float(np.clip(who.tall / scale, 1.5, 1.9))
    stage.begin("rider", 5, distance)
    forward = pose.basis[2]
    figure = Figure(stage, who, pose.place, forward)
    h = who.tall / scale
    seat, bar = (-0.2 / h, (0.78 if motor else 0.97) / h), (0.34 / h, 1.04 / h)
    shoulder = (seat[0] + (0.1 if motor else 0.16), seat[1] + 0.29)
    for k in (0, 1):
        pedal = (
            (0.05 / h, 0.32 / h)
            if motor
            else ((-0.06 + 0.17 * np.cos(-spin + np.pi * k)) / h, (0.3 + 0.17 * np.sin(-spin + np.pi * k)) / h)
        )
        if k == 1:
            figure.limb(seat, shoulder, 0.075 * who.stout, 0.08 * who.stout, who.upper)
        knee = _joint(seat, pedal, 0.245, 0.25)
        figure.limb(seat, knee, 0.06, 0.045, who.lower)
        figure.limb(knee, (pedal[0], pedal[1] + 0.02), 0.045, 0.032, who.lower)
        figure.limb(
            (pedal[0] - 0.03, pedal[1] + 0.01), (pedal[0] + 0.06, pedal[1]), 0.022, 0.018, who.shoe, cloth=False
        )
        elbow = _joint(bar, shoulder, 0.16, 0.16)
        figure.limb(shoulder, elbow, 0.036, 0.03, who.upper)
        figure.limb(elbow, bar, 0.03, 0.024, who.upper)
        figure.limb(bar, (bar[0] + 0.01, bar[1]), 0.022, 0.02, who.skin, cloth=False)
    head = (shoulder[0] + 0.045, shoulder[1] + 0.12)
    figure.head(head, 1.0, False)
    if motor or who.bag > 0.4:
        place = pose.place + who.tall * (head[0] * forward + np.array([0, head[1] + 0.035, 0]))
        size = (0.075, 0.07) if motor else (0.068, 0.04)
        stage.add(
            place,
            forward,
            (0, 1, 0),
            raster.ELLIPSE,
            (size[0] * who.tall, size[1] * who.tall),
            0,
            who.second,
            surface=(0.05, 9, 0.6),
            bulge=0.95,
        )


def _joint(a: tuple[float, float], b: tuple[float, float], first: float, second: float) -> tuple[float, float]:
    """Where a knee or elbow lies between two ends, bent forward."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    far = min(float(np.hypot(dx, dy)), 0.999 * (first + second))
    far = max(far, 1e-6)
    t = (first * first - second * second + far * far) / (2 * far)
    out = np.sqrt(max(first * first - t * t, 0.0))
    ux, uy = dx / far, dy / far
    return a[0] + t * ux - out * uy, a[1] + t * uy + out * ux
