"""The ground plan of a street, and how things that stand on it are sorted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskwright.data.synthetic.drawn import Knobs
from maskwright.data.synthetic.stage import Stage

Rng = np.random.Generator

RIGHT, UP, AHEAD = np.eye(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The street's ground plan.

    Attributes:
        half: half the road's width. walk: the width of the walks. green: width of the grass beside them.
        seed: of everything that stands there.
        built: share of each side (left, right) that is built upon.
        trees, poles: how dense they stand, meters between two.
        variety: how far colors stray.
    """

    half: float
    walk: float
    green: tuple[float, float]
    seed: int
    built: tuple[float, float]
    trees: float
    poles: float
    variety: float

    @classmethod
    def draw(cls, rng: Rng, knobs: Knobs) -> Plan:
        """Any street."""
        built = tuple(float(np.clip(rng.normal(0.85, 0.3), 0, 1)) for _ in range(2))
        green = tuple(float(rng.choice([0.0, rng.uniform(1, 5)])) for _ in range(2))
        return cls(
            half=float(rng.choice([4.2, 5.4, 7.2, 8.6])) * float(rng.uniform(0.95, 1.08)),
            walk=float(rng.uniform(2.0, 4.5)),
            green=(green[0], green[1]),
            seed=int(rng.integers(1 << 62)),
            built=(built[0], built[1]),
            trees=float(rng.choice([9, 16, 40])),
            poles=float(rng.uniform(12, 28)),
            variety=knobs.variety,
        )

    def allows(self, kind: str, x: float) -> bool:
        """Whether a kind may be at ``x``."""
        if kind in ("car", "truck", "bus"):
            return abs(x) < self.half - 1.0
        return abs(x) < self.half + self.walk - 0.2


def distance(stage: Stage, x: float, z: float) -> float:
    """By which things that stand are sorted: depth, and a little of how far aside."""
    return float(z - stage.camera.place[2] + 0.6 * abs(x - stage.camera.place[0]))
