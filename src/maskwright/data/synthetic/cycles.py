"""Bicycles and motorcycles of tubes, in meters."""

from __future__ import annotations

import numpy as np

from maskwright.data.synthetic import raster, textures
from maskwright.data.synthetic.stage import Stage
from maskwright.data.synthetic.vehicles import PAINTS, Pose, ground_shadow, stray, tube_axes

Rng = np.random.Generator


def cycle(stage: Stage, rng: Rng, pose: Pose, distance: float, scale: float, name: str, spin: float) -> None:
    """A bicycle or a motorcycle on the plane of its heading; ``spin`` is the angle of its cranks."""
    _, up, forward = pose.basis
    motor = name == "motorcycle"
    stage.begin(None, 2)
    ground_shadow(stage, pose, (0.12, 0.85 * scale), 0.6)
    stage.begin(name, 5, distance)
    color = stray(rng, PAINTS[int(rng.integers(len(PAINTS)))], 0.08)
    wheel, reach = (0.31, 0.7) if motor else (0.34, 0.53)
    tire = 0.06 if motor else 0.022

    def tube(
        a: tuple[float, float], b: tuple[float, float], r1: float, r2: float, tint: np.ndarray | tuple[float, ...]
    ) -> None:
        ends = (a[0] * scale, a[1] * scale), (b[0] * scale, b[1] * scale)
        place, along, across, long = tube_axes(pose.place, forward, *ends)
        s = (0.0, 0.0, r1 * scale, 0.0, -long, r2 * scale)
        stage.add(place, along, across, raster.CAPSULE, s, 0, tint, surface=(0.05, 5, 0.5), bulge=0.85)

    c, s = np.cos(spin), np.sin(spin)
    turning = c * forward - s * up, s * forward + c * up
    for z in (-reach, reach):
        middle = pose.place + scale * (z * forward + (wheel + tire) * up)
        if motor:
            stage.add(
                middle,
                *turning,
                raster.ELLIPSE,
                (wheel * scale, wheel * scale),
                textures.WHEEL,
                (0.06, 0.06, 0.06),
                (0.4, 0.4, 0.4),
                (wheel * scale, 7, 0),
            )
        stage.add(middle, *turning, raster.RING, (wheel * scale, tire * scale), 0, (0.06, 0.06, 0.06))
        if not motor:
            for k in range(4):
                turn = np.pi * k / 4 - spin
                du, dv = wheel * np.cos(turn), wheel * np.sin(turn)
                tube((z - du, wheel + tire - dv), (z + du, wheel + tire + dv), 0.004, 0.004, (0.4, 0.4, 0.4))
    if motor:
        tube((-0.55, 0.62), (0.1, 0.6), 0.1, 0.15, (0.07, 0.07, 0.07))
        tube((-0.2, 0.42), (0.25, 0.42), 0.2, 0.2, (0.2, 0.2, 0.21))
        tube((-0.05, 0.72), (0.4, 0.78), 0.14, 0.17, color)
        tube((-0.6, 0.7), (-0.8, 0.78), 0.09, 0.04, color)
        tube((reach, wheel), (0.42, 0.95), 0.04, 0.035, (0.5, 0.5, 0.5))
        tube((0.42, 0.95), (0.25, 1.02), 0.025, 0.02, (0.1, 0.1, 0.1))
        tube((0.55, 0.82), (0.58, 0.82), 0.1, 0.08, (0.9, 0.9, 0.85))
        return
    hub, head, seat = (-0.06, 0.3), (0.36, 0.84), (-0.2, 0.88)
    for a, b in (
        ((-reach, 0.36), hub),
        ((-reach, 0.36), (seat[0] + 0.04, seat[1] - 0.12)),
        (hub, head),
        (hub, seat),
        ((seat[0] + 0.04, seat[1] - 0.12), (head[0] - 0.02, head[1] - 0.06)),
        (head, (reach, 0.36)),
    ):
        tube(a, b, 0.02, 0.02, color)
    tube(head, (0.33, 0.98), 0.016, 0.016, (0.3, 0.3, 0.3))
    tube((0.33, 0.98), (0.45, 1.0), 0.018, 0.02, (0.08, 0.08, 0.08))
    tube((seat[0] - 0.1, 0.93), (seat[0] + 0.1, 0.92), 0.04, 0.025, (0.07, 0.07, 0.07))
    for k in (0, 1):
        tube(
            hub,
            (hub[0] + 0.17 * np.cos(-spin + np.pi * k), hub[1] + 0.17 * np.sin(-spin + np.pi * k)),
            0.014,
            0.014,
            (0.25, 0.25, 0.25),
        )
