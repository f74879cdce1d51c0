"""What stands on the shelves of a shop and where; in meters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from maskwright.data.synthetic.drawn import Knobs
from maskwright.data.synthetic.vehicles import stray

Rng = np.random.Generator

_PRINTS = (
    (0.82, 0.1, 0.1), (0.95, 0.8, 0.12), (0.1, 0.3, 0.65), (0.15, 0.5, 0.25), (0.93, 0.92, 0.88), (0.92, 0.5, 0.1),
    (0.45, 0.2, 0.5), (0.1, 0.1, 0.11), (0.55, 0.75, 0.85), (0.5, 0.3, 0.15), (0.9, 0.55, 0.65), (0.65, 0.78, 0.3),
)  # fmt: skip
_SIZES = {
    "box": ((0.06, 0.2), (0.12, 0.3), (0.04, 0.18)), "bottle": ((0.06, 0.1), (0.2, 0.33), (0.06, 0.1)),
    "can": ((0.06, 0.1), (0.08, 0.16), (0.06, 0.1)), "bag": ((0.12, 0.22), (0.17, 0.3), (0.06, 0.1)),
    "tub": ((0.08, 0.13), (0.07, 0.12), (0.08, 0.13)),
}  # fmt: skip
"""Meters: ranges of width, height, depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goods:
    """One article: all its pieces look alike.

    Attributes:
        kind: its class.
        wide, tall, deep: meters.
        color, second: sRGB.
        cap: the color of its lid or cap.
        seed: of its print.
        form: 0..1, which of the forms of its kind.
    """

    kind: str
    wide: float
    tall: float
    deep: float
    color: np.ndarray
    second: np.ndarray
    cap: np.ndarray
    seed: int
    form: float

    @classmethod
    def draw(cls, rng: Rng, kind: str, room: float, scale: float, variety: float) -> Goods:
        """An article that fits under a board ``room`` above."""
        wide, tall, deep = (float(rng.uniform(*span)) * scale for span in _SIZES[kind])
        if kind in ("bottle", "can", "tub"):
            deep = wide
        shrink = min(1.0, 0.94 * room / tall)
        first, second, cap = (stray(rng, _PRINTS[int(k)], 0.06 * variety) for k in rng.integers(len(_PRINTS), size=3))
        return cls(
            kind=kind,
            wide=wide * max(shrink, 0.75),
            tall=tall * shrink,
            deep=deep,
            color=first,
            second=second,
            cap=cap,
            seed=int(rng.integers(1 << 20)),
            form=float(rng.random()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One piece of an article, where its foot stands, on which board, how it is turned, how dark it is there."""

    goods: Goods
    x: float
    y: float
    z: float
    level: float
    turn: float
    dark: float


def levels_of(rng: Rng, knobs: Knobs) -> list[float]:
    """Heights of the boards."""
    pitch = float(rng.uniform(0.26, 0.42)) * float(np.clip(np.mean(knobs.scale), 0.8, 1.5))
    y, out = float(rng.uniform(0.08, 0.2)), []
    while y < 2.6:
        out.append(y)
        y += pitch * float(rng.uniform(0.9, 1.15))
    return out


def stock(
    rng: Rng, knobs: Knobs, levels: list[float], reach: float
) -> tuple[list[Piece], list[tuple[float, float, int]]]:
    """The pieces on the boards, and the price tags (x, y, seed) below them.

    ``occlusion`` pushes pieces into each other's view: closer, in deeper rows, some out of line.
    """
    scale = float(rng.uniform(*knobs.scale))
    mix = rng.dirichlet([1.2, 0.9, 0.8, 0.6, 0.5])
    kinds = tuple(_SIZES)
    gaps = float(rng.uniform(0.02, 0.12))
    groups: list[list[Piece]] = []
    tags: list[tuple[float, float, int]] = []
    for level, above in zip(levels, [*levels[1:], levels[-1] + 0.4], strict=True):
        x = -reach
        kind = kinds[int(rng.choice(5, p=mix))]
        while x < reach:
            if rng.random() < 0.35:
                kind = kinds[int(rng.choice(5, p=mix))]
            goods = Goods.draw(rng, kind, above - level - 0.05, scale, knobs.variety)
            tags.append((x + 0.06, level, int(rng.integers(1 << 20))))
            full = rng.random() < 0.75
            pitch = goods.wide * (1.1 - 0.3 * knobs.occlusion * float(rng.uniform(0.2, 1.0))) + 0.004
            for _ in range(int(rng.integers(2, 8))):
                if x > reach:
                    break
                x += pitch
                if rng.random() < gaps:
                    continue
                stands: list[Piece] = []
                z = 0.02 + abs(float(rng.normal(0, 0.02 + 0.04 * knobs.occlusion)))
                if rng.random() < 0.08:  # taken from the front
                    z += goods.deep
                rows = 1 + int(rng.random() < 0.3 + 0.7 * knobs.occlusion)
                piled = int((above - level - 0.05) / goods.tall) if goods.kind in ("can", "tub", "box") else 1
                piled = max(1, min(4, piled if full else 1) - int(rng.random() < 0.15))
                for row, floor in product(range(rows), range(piled)):
                    deep = z + row * (goods.deep + 0.01)
                    if deep + goods.deep / 2 > 0.42:
                        break
                    shift = float(rng.normal(0, 0.004 + 0.02 * knobs.occlusion * row))
                    turn = float(rng.normal(0, 0.04)) if rng.random() < 0.85 else float(rng.normal(0, 0.25))
                    stands.append(
                        Piece(
                            goods=goods,
                            x=x - pitch / 2 + shift,
                            y=level + floor * goods.tall,
                            z=deep + goods.deep / 2,
                            level=level,
                            turn=turn,
                            dark=1 - 0.3 * row - 0.6 * z,
                        )
                    )
                groups.append(stands)
            x += float(rng.uniform(0.0, 0.03))
    pieces = [piece for group in groups for piece in group]
    if knobs.count is not None:
        wanted = int(rng.integers(knobs.count[0], knobs.count[1] + 1))
        # The count is of what the camera looks at, so those nearest its middle stay; the tags count too.
        middle = np.array([0.0, 1.2])
        far = [float(np.hypot(*(np.array([p.x, p.y + p.goods.tall / 2]) - middle))) for p in pieces]
        kept = sorted(np.argsort(far, kind="stable")[: max(0, wanted - wanted // 6)].tolist())
        pieces = [pieces[k] for k in kept]
        tags = sorted(tags, key=lambda tag: float(np.hypot(tag[0], tag[1] - 1.2)))[: wanted // 6]
    return pieces, tags
