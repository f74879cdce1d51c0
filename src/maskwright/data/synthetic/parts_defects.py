# pyright: basic
"""Defects on parts: lines (scratches, cracks) and spots (dents, pores, stains, burrs, missing holes) in windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from maskwright.data.synthetic import cells_forms, parts_shapes
from maskwright.data.synthetic.cells_forms import Forms, joined, plain, waves
from maskwright.data.synthetic.cells_windows import Windows, frames_of
from maskwright.data.synthetic.parts_shapes import Parts

Rng = np.random.Generator

STAIN, DENT, MISSING, PORE, SCRATCH, CRACK, BURR = range(7)
"""Defects in the order in which they lie on each other, the last on top."""

NAMES = ("stain", "dent", "missing hole", "pore", "scratch", "crack", "burr")

_SHARES = (0.16, 0.14, 0.1, 0.18, 0.2, 0.14, 0.08)
"""How often each of them is drawn."""

_EDGES = 16
"""Segments a line has at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Defects:
    """N defects, in painting order.

    Attributes:
        kinds: int32 [N], as above.
        parents: int64 [N], the part each is on.
        spots: N forms, centers relative to the part's; those of lines are not looked at.
        lines: float32 [N, 16, 6], (y, x, half width) of both ends of each segment, relative to the part's center;
            unused segments have negative widths.
        strengths: float32 [N], 0 to 1.
        seeds: float32 [N, 3], of its color, 0 to 1.
    """

    kinds: np.ndarray
    parents: np.ndarray
    spots: Forms
    lines: np.ndarray
    strengths: np.ndarray
    seeds: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def take(self, index: np.ndarray) -> Defects:
        """Some of them, in the given order."""
        return Defects(
            kinds=self.kinds[index],
            parents=self.parents[index],
            spots=self.spots.take(index),
            lines=self.lines[index],
            strengths=self.strengths[index],
            seeds=self.seeds[index],
        )


def draw(rng: Rng, parts: Parts, knots: np.ndarray, rate: float) -> tuple[Parts, Defects]:
    """Defects on ``parts``, ``rate`` a part on average; the parts come back without the holes that are missing."""
    kinds: list[int] = []
    parents: list[int] = []
    spots: list[Forms] = []
    lines: list[np.ndarray] = []
    holes = parts.holes.copy()
    for i in range(len(parts)):
        many = min(int(rng.poisson(rate)), 8)
        if not many:
            continue
        reach, surface = float(parts.reaches[i]), None
        # Missing holes come first: the others may lie where a hole should be.
        for kind in sorted(rng.choice(7, many, p=_SHARES).tolist(), key=lambda kind: kind != MISSING):
            if kind == MISSING:
                whole = np.flatnonzero(holes[i, :, 2] > 0)
                if not len(whole):
                    continue
                gone = int(rng.choice(whole))
                u, v, r = (reach * holes[i, gone]).tolist()
                holes[i, gone, 2] = 0
                cos, sin = np.cos(parts.angles[i]), np.sin(parts.angles[i])
                found, line = _spot((u * sin + v * cos, u * cos - v * sin), max(r, 1.0), edges=1.0), None
            else:
                surface = _surface(parts, i, holes[i], knots) if surface is None else surface
                made = _on_surface(rng, kind, *surface, reach)
                if made is None:
                    continue
                found, line = made
            kinds.append(kind)
            parents.append(i)
            spots.append(found)
            lines.append(np.full((_EDGES, 6), -1, np.float32) if line is None else line)
    order = np.argsort(kinds, kind="stable").astype(np.int64)
    out = Defects(
        kinds=np.array(kinds, np.int32).reshape(-1)[order],
        parents=np.array(parents, np.int64).reshape(-1)[order],
        spots=joined(_spot((0, 0), 1), *spots).take(1 + order),
        lines=np.array(lines, np.float32).reshape(-1, _EDGES, 6)[order],
        strengths=rng.uniform(0.35, 1, len(order)).astype(np.float32),
        seeds=rng.random((len(order), 3), np.float32),
    )
    changed = Parts(**{**{name: getattr(parts, name) for name in Parts.__dataclass_fields__}, "holes": holes})
    return changed, out


def _surface(parts: Parts, index: int, holes: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How deep the pixels of one part lie in it, float32 [h, w], and where the first is, relative to its center."""
    c = int(parts.reaches[index]) + parts_shapes.MARGIN + 4
    alone = Parts(
        kinds=parts.kinds[index : index + 1],
        centers=np.full((1, 2), float(c)),
        reaches=parts.reaches[index : index + 1],
        angles=parts.angles[index : index + 1],
        numbers=parts.numbers[index : index + 1],
        holes=holes[None],
        rough=np.zeros(1, np.float32),
        places=parts.places[index : index + 1],
    )
    canvas = parts_shapes.windows(alone, (2 * c, 2 * c), knots)
    return canvas.depth.reshape(canvas.boxes[0, 2], canvas.boxes[0, 3]), canvas.boxes[0, :2] - float(c)


def _spot(center: tuple[float, float] | np.ndarray, radius: float, **values: float | np.ndarray) -> Forms:
    return plain(np.array([center]), np.array([radius]), **values)


def _on_surface(
    rng: Rng, kind: int, deep: np.ndarray, origin: np.ndarray, reach: float
) -> tuple[Forms, np.ndarray | None] | None:
    """One defect somewhere on a part whose depth is ``deep``; ``None`` where there is no room for it."""
    near = (np.abs(deep) < 1.0) if kind == BURR else (deep > min(3.0, 0.06 * reach))
    places = np.flatnonzero(near)
    if not len(places):
        return None
    y, x = np.unravel_index(int(rng.choice(places)), deep.shape)
    at = origin + np.array([y + 0.5, x + 0.5])
    turn = float(rng.uniform(0, np.pi))
    wavy = waves(rng, 1, 0.12, 0.8)
    if kind == STAIN:
        radius = max(reach * float(np.exp(rng.uniform(np.log(0.08), np.log(0.4)))), 2.0)
        return _spot(at, radius, aspects=rng.uniform(0.4, 1), angles=turn, waves=wavy, edges=2.0), None
    if kind == DENT:
        radius = max(reach * float(np.exp(rng.uniform(np.log(0.05), np.log(0.2)))), 2.0)
        return _spot(at, radius, aspects=rng.uniform(0.5, 1), angles=turn, waves=0.3 * wavy), None
    if kind == PORE:
        radius = float(np.clip(reach * np.exp(rng.uniform(np.log(0.012), np.log(0.06))), 0.9, 9))
        return _spot(at, radius, aspects=rng.uniform(0.6, 1), angles=turn, waves=wavy), None
    if kind == BURR:
        gy, gx = np.gradient(deep[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2])
        along = float(np.arctan2(gx.mean(), -gy.mean()))
        radius = float(np.clip(reach * rng.uniform(0.05, 0.16), 2.5, 14))
        thin = float(np.clip(rng.uniform(1.2, 4.5) / radius, 0.15, 0.8))
        return _spot(at, radius, aspects=thin, angles=along, waves=1.5 * wavy), None
    return _spot(at, 1.0), _line(rng, kind, at, turn, reach)


def _line(rng: Rng, kind: int, at: np.ndarray, turn: float, reach: float) -> np.ndarray:
    """A scratch, slightly bent and thin at its ends, or a crack, jagged and branching: [16, 6]."""
    out = np.full((_EDGES, 6), -1, np.float32)
    crack = kind == CRACK
    length = max(reach * float(np.exp(rng.uniform(np.log(0.12), np.log(0.9)))), 5.0)
    half = float(rng.uniform(0.55, 1.1) if crack else rng.uniform(0.5, 1.6)) * float(np.clip(reach / 70, 0.9, 1.6))
    many = int(rng.integers(6, 11))
    heading = (
        turn
        + np.cumsum(rng.normal(0, 0.4 if crack else 0.04, many))
        + (0 if crack else rng.normal(0, 0.05)) * np.arange(many)
    )
    steps = length / many * (rng.uniform(0.5, 1.5, many) if crack else np.ones(many))
    path = np.concatenate(
        [[[0.0, 0.0]], np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1) * steps[:, None], 0)]
    )
    path += at - path[many // 2]
    t = np.linspace(0, 1, many + 1)
    wide = half * np.clip(np.minimum(t, 1 - t) * 8, 0.45 / half if half > 0.45 else 1, 1)
    out[:many] = np.concatenate([path[:-1], wide[:-1, None], path[1:], wide[1:, None]], 1)
    if crack:
        start = int(rng.integers(2, many))
        here, way = path[start], heading[start - 1] + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        for k in range(many, min(many + int(rng.integers(0, 5)), _EDGES)):
            there = here + np.array([np.sin(way), np.cos(way)]) * length / many * rng.uniform(0.5, 1)
            out[k] = *here, 0.8 * half, *there, 0.6 * half
            here, way = there, way + rng.normal(0, 0.4)
    return out


def windows(defects: Defects, centers: np.ndarray, size: tuple[int, int]) -> Windows:
    """Where each defect lies on (H, W), the parts being at ``centers``; ``level`` is 1 in a spot's middle."""
    at = centers[defects.parents].reshape(-1, 2)
    spots = cells_forms.windows(defects.spots.changed(centers=defects.spots.centers + at), size)
    drawn = defects.kinds
    lined = (drawn == SCRATCH) | (drawn == CRACK)
    ends = defects.lines.reshape(len(defects), 2 * _EDGES, 3)
    used = ends[..., 2:] >= 0
    low = np.where(used, ends[..., :2], np.inf).min(1, initial=np.inf)
    high = np.where(used, ends[..., :2], -np.inf).max(1, initial=-np.inf)
    low, high = np.where(lined[:, None], low, 0.0), np.where(lined[:, None], high, 0.0)
    line_boxes, _ = frames_of(at + (low + high) / 2, (high - low) / 2 + 3, size)
    boxes = np.where(lined[:, None], line_boxes, spots.boxes).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(boxes[:, 2].astype(np.int64) * boxes[:, 3])])
    depth, level = np.empty((2, int(starts[-1])), np.float32)
    _lines(
        defects.lines, at.astype(np.float32), lined, boxes, starts, spots.starts, spots.depth, spots.level, depth, level
    )
    return Windows(size=size, boxes=boxes, starts=starts, depth=depth, level=level)


@njit(cache=True, nogil=True)
def _lines(lines, at, lined, boxes, starts, spot_starts, spot_depth, spot_level, depth, level):
    for i in range(len(lined)):
        y0, x0, h, w = boxes[i]
        to = starts[i]
        if not lined[i]:
            many = starts[i + 1] - to
            depth[to : to + many] = spot_depth[spot_starts[i] : spot_starts[i] + many]
            level[to : to + many] = spot_level[spot_starts[i] : spot_starts[i] + many]
            continue
        for y in range(y0, y0 + h):
            v = np.float32(y) + np.float32(0.5) - at[i, 0]
            for x in range(x0, x0 + w):
                u = np.float32(x) + np.float32(0.5) - at[i, 1]
                best = np.float32(-99)
                for k in range(lines.shape[1]):
                    if lines[i, k, 2] < 0:
                        continue
                    ay, ax, aw, by, bx, bw = lines[i, k]
                    ey, ex = by - ay, bx - ax
                    t = ((v - ay) * ey + (u - ax) * ex) / max(ey * ey + ex * ex, np.float32(1e-6))
                    t = min(max(t, np.float32(0)), np.float32(1))
                    gy, gx = v - ay - t * ey, u - ax - t * ex
                    best = max(best, aw + t * (bw - aw) - np.sqrt(gy * gy + gx * gx))
                depth[to] = best
                level[to] = min(max(best, np.float32(0)), np.float32(1))
                to += 1


@njit(cache=True, nogil=True)
def add_burrs(which, parents, boxes, starts, depth, part_boxes, part_starts, part_depth, part_height):
    """Burrs become part of their part: its outline and height."""
    for i in range(len(which)):
        if not which[i]:
            continue
        y0, x0, h, w = boxes[i]
        p = parents[i]
        top, left, high, wide = part_boxes[p]
        tallest = np.float32(1)
        for k in range(part_starts[p], part_starts[p + 1]):
            tallest = max(tallest, part_height[k])
        for y in range(max(y0, top), min(y0 + h, top + high)):
            for x in range(max(x0, left), min(x0 + w, left + wide)):
                d = depth[starts[i] + np.int64(y - y0) * w + x - x0]
                if d > 0:
                    k = part_starts[p] + np.int64(y - top) * wide + x - left
                    part_depth[k] = max(part_depth[k], d)
                    part_height[k] = max(part_height[k], min(np.float32(0.5) * tallest, np.float32(6)) + d)


@njit(cache=True, nogil=True)
def clip(parents, boxes, starts, depth, part_boxes, part_starts, part_depth):
    """Which pixels of the defects' windows are defect and lie on their part, bool [M]."""
    out = np.zeros(len(depth), np.bool_)
    for i in range(len(boxes)):
        y0, x0, h, w = boxes[i]
        p = parents[i]
        top, left, high, wide = part_boxes[p]
        for y in range(max(y0, top), min(y0 + h, top + high)):
            for x in range(max(x0, left), min(x0 + w, left + wide)):
                k = starts[i] + np.int64(y - y0) * w + x - x0
                inside = part_depth[part_starts[p] + np.int64(y - top) * wide + x - left] > 0
                out[k] = inside and depth[k] > 0
    return out


@njit(cache=True, nogil=True)
def owners(inside, parents, boxes, starts, owner, out):
    """Number of the last defect seen at each pixel, written to ``out`` int32 [H, W]; ``owner`` is the part seen."""
    for i in range(len(boxes)):
        y0, x0, h, w = boxes[i]
        k = starts[i]
        for y in range(y0, y0 + h):
            for x in range(x0, x0 + w):
                if inside[k] and owner[y, x] == parents[i]:
                    out[y, x] = i
                k += 1
    return out
