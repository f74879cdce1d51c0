"""``Discs``: pictures of round objects with perfect outlines, drawn on demand and the same for every index.

Coins with a relief on uneven ground, plain discs and balls, nuclei in fluorescence, in stained tissue and in glands
marked brown by an antibody. Nothing is photographed: the pixels come from ``paint``, the outlines from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numba import njit
from torch import Tensor

from maskwright.data.source import Base
from maskwright.data.synthetic import paint
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Record, Taxonomy

KINDS: Mapping[str, str] = {
    "coins": "coin",
    "discs": "coin",
    "fluorescence": "nucleus",
    "stained": "nucleus",
    "glands": "nucleus",
}
"""What can be drawn, and the class its objects have where the taxonomy knows it."""

_WEIGHTS = {"coins": 0.42, "discs": 0.1, "fluorescence": 0.12, "stained": 0.12, "glands": 0.24}

_MARGIN = 7
"""Pixels around an object that know their distance from it: room for soft edges and shadows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """N objects as wobbly ellipses, before they are rasterized.

    Attributes:
        centers: float64 [N, 2], (y, x) in pixels.
        radii: float64 [N], the longer half axis in pixels.
        aspects: float64 [N], the shorter over the longer half axis.
        angles: float64 [N], of the longer axis from the x axis, radians.
        wobble: complex128 [N, 4], amplitude and phase of the outline's waves of order 2 to 5, relative to the radius.
        flat: float64 [N], where a straight side cuts the object, in radii from its center (above 1: none).
        over: whether later objects lie on top of earlier ones; otherwise a pixel goes to the object it lies deepest in.
    """

    centers: np.ndarray
    radii: np.ndarray
    aspects: np.ndarray
    angles: np.ndarray
    wobble: np.ndarray
    flat: np.ndarray
    over: bool


class Discs(Base):
    """``count`` drawn pictures of one kind each; a ``protocols.Source``.

    Args:
        count: how many pictures; picture ``i`` depends on ``seed`` and ``i`` only.
        size: (H, W) of every picture, at least 64 pixels a side.
        seed: another seed, another set of pictures.
        taxonomy: an object takes the class named as in ``KINDS`` where there is one, else class 0.
        kinds: relative weight of each kind; those left out are not drawn.
        scale: all diameters are multiplied with it (at 1 they go from 8 to 110 pixels).

    Raises:
        InputError: a negative count, a picture too small, an unknown kind, or no positive weight.
    """

    def __init__(
        self,
        count: int,
        size: tuple[int, int] = (256, 256),
        seed: int = 0,
        taxonomy: Taxonomy | None = None,
        kinds: Mapping[str, float] | None = None,
        scale: float = 1.0,
    ) -> None:
        weights = dict(_WEIGHTS if kinds is None else kinds)
        unknown = sorted(set(weights) - set(KINDS))
        if unknown or sum(weights.values()) <= 0 or min(weights.values()) < 0:
            raise InputError(f"kinds must give weights to some of {', '.join(KINDS)}, got {weights}")
        if count < 0 or min(size) < 64 or scale <= 0:
            raise InputError(f"drawing needs count >= 0, sides >= 64 and scale > 0, got {count}, {size}, {scale}")
        self.taxonomy = taxonomy or Taxonomy(names=("nucleus",))
        self.size = (int(size[0]), int(size[1]))
        self._count, self._seed, self._scale = count, seed, scale
        self._kinds = tuple(weights)
        self._chances = np.array([weights[k] for k in self._kinds]) / sum(weights.values())

    def __len__(self) -> int:
        return self._count

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every picture, int64 [count, 2]."""
        return np.tile(np.array(self.size, np.int64), (self._count, 1))

    def kind(self, index: int) -> str:
        """Which of ``KINDS`` picture ``index`` is."""
        return str(self._rng(index, 0).choice(self._kinds, p=self._chances))

    def record(self, index: int) -> Record:
        """The outlines of picture ``index``, as run-lengths of their visible parts; paints nothing."""
        index = range(self._count)[index]
        return self._record(index, self._surface(index))

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The record of picture ``index`` and its pixels, uint8 [3, H, W]."""
        index = range(self._count)[index]
        surface = self._surface(index)
        painted = paint.PAINTERS[self.kind(index)](self._rng(index, 2), surface)
        return self._record(index, surface), torch.from_numpy(painted)

    def _surface(self, index: int) -> paint.Surface:
        kind = self.kind(index)
        return _rasterize(lay_out(self._rng(index, 1), kind, self.size, self._scale), self.size)

    def _rng(self, index: int, part: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, range(self._count)[index], part]))

    def _record(self, index: int, surface: paint.Surface) -> Record:
        shown = np.flatnonzero(np.bincount(surface.owner[surface.inside], minlength=len(surface.radii)) > 0)
        visible = np.where(surface.inside, surface.owner, -1)
        counts, offsets = rle.encode(visible[None] == shown[:, None, None])
        shapes = tuple(
            {"size": self.size, "counts": rle.compress(counts[a:b])}
            for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        )
        name = KINDS[self.kind(index)]
        label = self.taxonomy.index(name) if name in self.taxonomy.names else 0
        key = f"discs-{self._seed}-{index}"
        return Record(
            key=key,
            path=Path(key),
            size=self.size,
            labels=np.full(len(shown), label, np.int64),
            shapes=shapes,
            boxes=rle.boxes(counts, offsets, self.size[0]),
            crowd=np.zeros(len(shown), bool),
            ids=np.arange(1, len(shown) + 1, dtype=np.int64),
            areas=rle.area(counts, offsets).astype(np.float64),
            image_id=index + 1,
        )


_RADII = {"fluorescence": (4.0, 20.0), "stained": (4.0, 20.0), "glands": (6.0, 18.0)}
"""Longer half axes of nuclei, pixels."""


# ---- where objects lie ----------------------------------------------------------------------------------------------


def lay_out(rng: np.random.Generator, kind: str, size: tuple[int, int], scale: float) -> Layout:
    """Draw the objects of one picture of ``size`` (H, W): in rows, scattered or heaped."""
    tissue = KINDS[kind] == "nucleus"
    lowest, highest = _RADII.get(kind, (8.0, 55.0))
    radius = scale * float(np.exp(rng.uniform(np.log(lowest), np.log(highest))))
    spread = rng.choice([0.03, 0.15, 0.3])
    squeeze = rng.uniform(0.35, 0.95 if kind != "glands" else 0.7) if tissue else 0.95
    turn = rng.uniform(0, np.pi)
    if kind == "glands":
        centers, radii = _packed(rng, size, radius, spread, squeeze, turn)
    elif not tissue and rng.random() < 0.55:
        centers, radii = _rows(rng, size, radius, spread)
    else:
        centers, radii = _scattered(rng, size, radius, spread, crowded=rng.random() < 0.4)
    count = len(radii)
    aspects = np.clip(squeeze + rng.normal(0, 0.12 if tissue else 0.03, count), 0.35, 1)
    # Cells of a tissue lie along its fibers: one slowly turning direction for all.
    bend = rng.normal(0, 0.002 if kind == "glands" else 0.006, 2)
    angles = turn + (centers - np.array(size) / 2) @ bend + rng.normal(0, 0.3 if kind != "glands" else 0.15, count)
    strength = rng.uniform(0.005, 0.05) if not tissue else rng.uniform(0.02, 0.1)
    amplitude = np.abs(rng.normal(0, strength, (count, 4))) / np.array([1.0, 1.3, 1.8, 2.4])
    wobble = amplitude * np.exp(1j * rng.uniform(0, 2 * np.pi, (count, 4)))
    chipped = (rng.random(count) < 0.12) & (not tissue)
    flat = np.where(chipped, rng.uniform(0.75, 0.98, count), 9.0)
    over = bool(not tissue or (kind != "glands" and rng.random() < 0.3))
    return Layout(centers=centers, radii=radii, aspects=aspects, angles=angles, wobble=wobble, flat=flat, over=over)


def _sized(rng: np.random.Generator, radius: float, spread: float, count: int) -> np.ndarray:
    return radius * np.exp(np.clip(rng.normal(0, spread, count), -0.7, 0.5))


def _rows(
    rng: np.random.Generator, size: tuple[int, int], radius: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns as a collector lays coins out, a little shifted and some places empty."""
    pitch = 2 * radius * rng.uniform(1.03, 1.9) * (1 + spread)
    rows, columns = (max(1, min(8, int(side / pitch))) for side in size)
    ys = (np.arange(rows) + 0.5) * size[0] / rows
    xs = (np.arange(columns) + 0.5) * size[1] / columns
    centers = np.stack(np.meshgrid(ys, xs, indexing="ij"), -1)
    centers[..., 1] += np.where(np.arange(rows) % 2 == 1, rng.choice([0, 0.5]) * size[1] / columns, 0)[:, None]
    centers = centers.reshape(-1, 2) + rng.normal(0, rng.uniform(0, 0.12) * radius, (rows * columns, 2))
    centers = centers[rng.random(len(centers)) > rng.choice([0, 0.05, 0.3])]
    centers = rng.permutation(centers if len(centers) else np.array([[size[0] / 2, size[1] / 2]]))[:34]
    return centers, _sized(rng, radius, spread, len(centers))


def _packed(
    rng: np.random.Generator, size: tuple[int, int], radius: float, spread: float, squeeze: float, turn: float
) -> tuple[np.ndarray, np.ndarray]:
    """Shoulder to shoulder along ``turn``, as in an epithelium, in one or two patches; loosely strewn elsewhere."""
    along, across = 2 * radius * rng.uniform(1.0, 1.8), 2 * radius * squeeze * rng.uniform(1.1, 1.7)
    reach = 0.75 * float(np.hypot(*size))
    u, v = np.arange(-reach, reach, along), np.arange(-reach, reach, across)
    grid = np.stack(np.meshgrid(u, v, indexing="ij"), -1)
    grid[:, :, 0] += along * rng.uniform(-0.4, 0.4, len(v))[None]
    grid = grid.reshape(-1, 2) + rng.normal(0, 0.1, (grid.size // 2, 2)) * np.array([along, across])
    c, s = np.cos(turn), np.sin(turn)
    centers = grid @ np.array([[s, c], [c, -s]]) + np.array(size) / 2
    centers = centers[((centers > -0.5 * radius) & (centers < np.array(size) + 0.5 * radius)).all(1)]
    near = np.zeros(len(centers))
    for _ in range(rng.integers(1, 3)):
        away = (centers - rng.uniform(0, 1, 2) * size) / (rng.uniform(0.25, 0.7, 2) * size)
        near = np.maximum(near, np.where((away**2).sum(1) < 1, rng.choice([0.8, 0.95, 1.0]), 0))
    kept = centers[rng.random(len(centers)) < np.maximum(near, rng.choice([0.0, 0.1, 0.3]))]
    kept = rng.permutation(kept if len(kept) else np.array([[size[0] / 2, size[1] / 2]]))[:120]
    return kept, _sized(rng, radius, min(spread, 0.15), len(kept))


def _scattered(
    rng: np.random.Generator, size: tuple[int, int], radius: float, spread: float, *, crowded: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Random places that keep a distance; where crowded they touch, and some lie a little on one another."""
    limit = int(min(30, 0.55 * size[0] * size[1] / (np.pi * radius**2) + 1))
    wanted = int(rng.integers(min(3, limit), limit + 1))
    tries = _sized(rng, radius, spread, 6 * wanted)
    low, high = (-0.3 * radius * np.ones(2), np.array(size) + 0.3 * radius)
    if crowded:  # a heap somewhere, rather than all over the picture
        middle, reach = rng.uniform(0.2, 0.8, 2) * size, radius * np.sqrt(wanted) * rng.uniform(1.1, 1.8)
        low, high = np.maximum(low, middle - reach), np.minimum(high, middle + reach)
    places = rng.uniform(low, high, (len(tries), 2))
    apart = rng.uniform(0.78, 1.0) if crowded else rng.uniform(1.0, 1.35)
    kept: list[int] = []
    for i, (place, own) in enumerate(zip(places, tries, strict=True)):
        gap = np.hypot(*(places[kept] - place).T) - apart * (tries[kept] + own)
        if len(kept) < wanted and bool((gap > 0).all()):
            kept.append(i)
    return places[kept], tries[kept]


def _rasterize(layout: Layout, size: tuple[int, int]) -> paint.Surface:
    """Every pixel's object, its depth in it and its place on it."""
    owner, depth = np.zeros(size, np.int32), np.full(size, -1e3, np.float32)
    place = np.zeros((2, *size), np.float32)
    for i, ((cy, cx), radius) in enumerate(zip(layout.centers, layout.radii, strict=True)):
        numbers = (cy, cx, radius, layout.aspects[i], layout.angles[i], layout.flat[i])
        _stamp(
            i, np.array(numbers, np.float32), layout.wobble[i].astype(np.complex64), layout.over, owner, depth, place
        )
    return paint.Surface(owner=owner, depth=depth, place=place, inside=depth > 0, radii=layout.radii)


@njit(cache=True, nogil=True)
def _stamp(number, numbers, waves, over, owner, depth, place):
    """One object on the pixels around it: it takes those that lie deeper in it, or ``over`` all that lie in it."""
    cy, cx, radius, aspect, angle, flat = numbers
    height, width = owner.shape
    reach = np.float32(1.25) * radius + _MARGIN
    cos, sin = np.cos(angle), np.sin(angle)
    for y in range(max(0, int(cy - reach)), min(height, int(cy + reach) + 2)):
        v = (y + np.float32(0.5) - cy) / radius
        for x in range(max(0, int(cx - reach)), min(width, int(cx + reach) + 2)):
            u = (x + np.float32(0.5) - cx) / radius
            along, across = u * cos + v * sin, (v * cos - u * sin) / aspect
            r = np.sqrt(along * along + across * across) + np.float32(1e-6)
            z = np.complex64(complex(along / r, across / r))
            outline = 1 + (z * z * (waves[0] + z * (waves[1] + z * (waves[2] + z * waves[3])))).real
            # Distance from the outline in pixels, exact enough near it: the radial gap times the local half axis.
            own = (outline - r) * radius * (1 + aspect) / 2
            if flat < 1:
                own = min(own, (flat - along) * radius)
            if own > depth[y, x] or (over and own > 0):
                depth[y, x], owner[y, x] = own, number
                place[0, y, x], place[1, y, x] = v, u
