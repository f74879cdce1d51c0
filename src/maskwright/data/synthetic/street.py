"""``Street``: a road through a town, seen from a car. Class names follow Cityscapes (Cordts et al. 2016, table 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.data.synthetic.camera import Camera, Light, draw_light
from maskwright.data.synthetic.cycles import cycle
from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.data.synthetic.people import rider, walker
from maskwright.data.synthetic.plan import Plan, distance
from maskwright.data.synthetic.scenery import build
from maskwright.data.synthetic.stage import Stage
from maskwright.data.synthetic.vehicles import Pose, car, long_vehicle
from maskwright.structures import Taxonomy

Rng = np.random.Generator

CLASSES: dict[str, tuple[bool, tuple[int, int, int]]] = {
    "road": (False, (128, 64, 128)),
    "sidewalk": (False, (244, 35, 232)),
    "building": (False, (70, 70, 70)),
    "wall": (False, (102, 102, 156)),
    "fence": (False, (190, 153, 153)),
    "pole": (False, (153, 153, 153)),
    "traffic light": (False, (250, 170, 30)),
    "traffic sign": (False, (220, 220, 0)),
    "vegetation": (False, (107, 142, 35)),
    "terrain": (False, (152, 251, 152)),
    "sky": (False, (70, 130, 180)),
    "person": (True, (220, 20, 60)),
    "rider": (True, (255, 0, 0)),
    "car": (True, (0, 0, 142)),
    "truck": (True, (0, 0, 70)),
    "bus": (True, (0, 60, 100)),
    "motorcycle": (True, (0, 0, 230)),
    "bicycle": (True, (119, 11, 32)),
}
"""Name -> thing, color: the 19 evaluated classes of Cityscapes without ``train``."""

STREET = Taxonomy(
    names=tuple(CLASSES),
    thing=tuple(thing for thing, _ in CLASSES.values()),
    colors=tuple(color for _, color in CLASSES.values()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """Something on the street and where it goes.

    Attributes:
        kind: its class; a ``bicycle`` or ``motorcycle`` may have a rider.
        x, z: meters right of the road's middle and ahead of the camera at the first frame.
        yaw: the way it looks.
        speed: meters per frame along its yaw.
        ridden: whether someone sits on it.
        seed: of its looks.
        phase, scale: of its steps; its size.
    """

    kind: str
    x: float
    z: float
    yaw: float
    speed: float
    ridden: bool
    seed: int
    phase: float
    scale: float


class Street:
    """Draws streets; depth is in meters along the optical axis."""

    taxonomy = STREET
    depth_steps = 100
    """Steps of a meter in depth files: centimeters, up to 655 m."""

    def draw(self, rng: Rng, size: tuple[int, int], knobs: Knobs, frames: int = 1) -> list[Drawn]:
        """The frames of one drive on (H, W)."""
        light = draw_light(rng, knobs, density=float(rng.choice([0.0015, 0.004, 0.012], p=[0.55, 0.35, 0.1])))
        plan = Plan.draw(rng, knobs)
        scale = float(rng.uniform(*knobs.scale))
        movers = place_movers(rng, knobs, plan, scale)
        start = _camera(rng, size, knobs, plan)
        drive = knobs.motion * float(rng.uniform(0.0, 0.7))
        turn, nod = rng.normal(0, 0.004, 2) * knobs.motion
        seeds = rng.integers(1 << 62, size=frames)
        stages: list[Stage] = []
        for t in range(frames):
            camera = Camera(
                place=start.place + np.array([0, 0, drive * t]),
                focal=start.focal,
                center=start.center,
                yaw=start.yaw + turn * t,
                pitch=start.pitch + nod * np.sin(1.1 * t),
                roll=start.roll,
            )
            stages.append(self._build(camera, light, knobs, plan, movers, start.place, t))
        after = [*stages[1:], None]
        return [
            stage.picture(np.random.Generator(np.random.PCG64(int(seed))), size, knobs, following)
            for stage, following, seed in zip(stages, after, seeds, strict=True)
        ]

    def _build(
        self, camera: Camera, light: Light, knobs: Knobs, plan: Plan, movers: list[Mover], home: np.ndarray, t: int
    ) -> Stage:
        stage = Stage(camera, light, STREET, grain=knobs.texture, home=home)
        build(stage, plan)
        for mover in movers:
            _add_mover(stage, mover, knobs, t)
        return stage


def _camera(rng: Rng, size: tuple[int, int], knobs: Knobs, plan: Plan) -> Camera:
    height, width = size
    focal = width * 0.95 * float(rng.uniform(*knobs.focal))
    lane = plan.half * float(rng.uniform(0.15, 0.7))
    return Camera(
        place=np.array([lane, knobs.height * rng.uniform(1.35, 2.3), 0.0]),
        focal=focal,
        center=(width / 2, height * 0.5),
        yaw=float(np.clip(rng.normal(-0.03, 0.09), -0.22, 0.22)) * min(1.5, knobs.tilt),
        pitch=float(np.clip(rng.normal(-0.045, 0.035), -0.14, 0.06)) * knobs.tilt,
        roll=float(rng.normal(0, 0.012)) * knobs.tilt,
    )


def place_movers(rng: Rng, knobs: Knobs, plan: Plan, scale: float) -> list[Mover]:
    """Who is on the street; nobody stands in anybody else.

    ``occlusion`` is the share of newcomers that look for a place behind somebody, and how near they come.
    """
    low, high = knobs.count or (6, 26)
    wanted = int(rng.integers(low, high + 1))
    taken: list[tuple[float, float, float, float]] = []
    movers: list[Mover] = []
    near = 7.0 if knobs.count is None else 6.0
    busy = rng.dirichlet([1.6, 1.2, 0.35, 0.35, 0.6, 0.3])
    kinds = ("car", "person", "truck", "bus", "bicycle", "motorcycle")
    eye = plan.half * 0.4
    for _ in range(12 * wanted):
        if len(movers) >= wanted:
            break
        kind = kinds[int(rng.choice(6, p=busy))]
        z = near * float(np.exp(rng.uniform(0, np.log(9.0 if kind == "person" else 11.0))))
        x, yaw, speed, half = _station(rng, kind, plan, z)
        if taken and rng.random() < knobs.occlusion * 0.85:
            # On the line of sight through somebody, a little farther out than they are.
            ax, az, aw, al = taken[int(rng.integers(len(taken)))]
            z = az + al + half[1] + float(rng.uniform(0.4, 6.0))
            x = eye + (ax + rng.normal(0, 0.6) * aw - eye) * z / az
            if not plan.allows(kind, x):
                continue
        elif rng.random() > knobs.occlusion and _hides(x - eye, z, half, taken, eye):
            continue
        half = (half[0] * scale, half[1] * scale)
        apart = [
            (abs(x - ax) > half[0] + aw + 0.15 and True) or abs(z - az) > half[1] + al + 0.4 for ax, az, aw, al in taken
        ]
        if not all(apart) or z > 110:
            continue
        if abs(x - eye) < 1.6 + half[0] and z < 6 + half[1]:
            continue
        taken.append((x, z, *half))
        movers.append(
            Mover(
                kind=kind, x=x, z=z, yaw=yaw, speed=speed * knobs.motion, ridden=bool(rng.random() < 0.75),
                seed=int(rng.integers(1 << 62)), phase=float(rng.uniform(0, 6.28)), scale=scale,
            )
        )  # fmt: skip
    return movers


def _hides(
    x: float, z: float, half: tuple[float, float], taken: list[tuple[float, float, float, float]], eye: float
) -> bool:
    """Whether a newcomer would cover or be covered by somebody, judged by the angles they fill."""
    low, high = (x - half[0]) / z, (x + half[0]) / z
    return any(low < (ax - eye + aw) / az and (ax - eye - aw) / az < high for ax, az, aw, _ in taken)


def _station(rng: Rng, kind: str, plan: Plan, z: float) -> tuple[float, float, float, tuple[float, float]]:
    """A place, heading, speed and half sides (across, along) fit for a kind."""
    side = 1 if rng.random() < 0.55 else -1
    if kind == "person":
        if rng.random() < 0.22:  # crossing
            x, yaw = float(rng.uniform(-plan.half, plan.half)), float(rng.choice([-1, 1])) * np.pi / 2
        else:
            x = side * (plan.half + float(rng.uniform(0.3, plan.walk - 0.2)))
            yaw = float(rng.choice([0, np.pi, rng.uniform(0, 6.28)]))
        return x, yaw + float(rng.normal(0, 0.25)), float(rng.choice([0, 0.05, 0.06], p=[0.3, 0.4, 0.3])), (0.3, 0.3)
    if kind in ("bicycle", "motorcycle"):
        lean = float(rng.uniform(0.5, 2.6)) * float(rng.choice([-1, 1]))
        x = (
            side * plan.half * float(rng.uniform(0.45, 0.95))
            if rng.random() < 0.6
            else side * (plan.half + float(rng.uniform(0.3, plan.walk - 0.3)))
        )
        return x, lean, float(rng.uniform(0.05, 0.25)), (0.5, 0.6)
    half = (1.0, 2.4) if kind == "car" else (1.4, 5.6)
    parked = rng.random() < (0.4 if kind == "car" else 0.15)
    ahead = 0.0 if side > 0 else np.pi
    if parked:
        return side * (plan.half - 1.15 - 0.3 * (kind != "car")), ahead + float(rng.normal(0, 0.02)), 0.0, half
    if kind == "car" and rng.random() < 0.14:  # turning or coming out of a side street
        return float(rng.uniform(-0.6, 0.6)) * plan.half, float(rng.uniform(0, 6.28)), 0.1, (1.7, 2.0)
    lanes = max(1, round((plan.half - 2.2) / 3.2))
    x = side * (1.7 + 3.2 * int(rng.integers(lanes)) + float(rng.normal(0, 0.15)))
    return x, ahead + float(rng.normal(0, 0.03)), float(rng.uniform(0.1, 0.6)), half


def _add_mover(stage: Stage, mover: Mover, knobs: Knobs, t: int) -> None:
    rng = np.random.Generator(np.random.PCG64(mover.seed))
    gone = mover.speed * t
    pose = Pose(mover.x + gone * np.sin(mover.yaw), mover.z + gone * np.cos(mover.yaw), mover.yaw)
    away = distance(stage, pose.x, pose.z)
    if mover.kind == "person":
        stride = 1.0 if mover.speed > 0 else 0.15
        steps = mover.phase + (0.5 * t * min(1.0, knobs.motion) if mover.speed > 0 else 0.0)
        walker(stage, rng, pose, away, mover.scale, knobs.variety, stride, steps, np.array([mover.x, 0, mover.z]))
    elif mover.kind == "car":
        car(stage, rng, pose, away, mover.scale, knobs.variety)
    elif mover.kind in ("truck", "bus"):
        long_vehicle(stage, rng, pose, away, mover.scale, knobs.variety, mover.kind)
    else:
        motor = mover.kind == "motorcycle"
        spin = mover.phase + 0.4 * t * min(1.0, knobs.motion)
        cycle(stage, rng, pose, away, mover.scale, mover.kind, spin)
        if mover.ridden:
            rider(stage, rng, pose, away, mover.scale, knobs.variety, spin, motor)
