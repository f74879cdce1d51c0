# pyright: basic
"""``Parts``: machined parts on a belt, table or fixture, and their defects, with perfect labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from maskwright.data.synthetic import parts_defects as flaws
from maskwright.data.synthetic import parts_paint as paint
from maskwright.data.synthetic import parts_shapes as shapes
from maskwright.data.synthetic.cells_forms import GRID, grid
from maskwright.data.synthetic.cells_layout import lay_out
from maskwright.data.synthetic.cells_windows import Windows, blur, joined_runs, runs_of, seen_of
from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import Taxonomy

Rng = np.random.Generator

PARTS = tuple(dict.fromkeys(shapes.NAMES))
"""Names of the part classes."""

_SHARE = (0.18, 0.14, 0.12, 0.14, 0.1, 0.08, 0.12, 0.12)
"""How often each of ``parts_shapes``'s forms is drawn."""

_BELT = 1
"""Track of the background; parts and defects follow."""

_LEAST = 3
"""Pixels that must be seen of a part or defect for it to be there."""


class Parts:
    """Parts as an inspection camera sees them from above; a ``drawn.Kind``.

    Things: plates, washers, nuts, gears, screws, brackets, castings; and on them stains, dents, missing holes, pores,
    scratches, cracks and burrs. Stuff: ``background``. A defect is cut out of what is visible of its part; the part's
    amodal mask has it. Depth is in meters from a camera about half a meter away, parallel to its axis. In clips a belt
    runs by whole pixels a frame and every part with it, sliding a little.

    ``Knobs``: ``count`` is of parts; ``height`` and ``focal`` change their size; ``tilt`` does nothing.

    Args:
        defects: how many a part has on average.

    Raises:
        ValueError: ``defects`` is not in 0..50.
    """

    taxonomy = Taxonomy(
        names=(*PARTS, *flaws.NAMES, "background"),
        thing=(True,) * (len(PARTS) + len(flaws.NAMES)) + (False,),
    )

    def __init__(self, defects: float = 1.2) -> None:
        if not 0 <= defects <= 50:
            raise ValueError(f"defects must lie in 0..50 a part, got {defects}")
        self.defects = float(defects)

    def draw(self, rng: Rng, size: tuple[int, int], knobs: Knobs, frames: int = 1) -> list[Drawn]:
        """The frames of one clip on (H, W), in order; all randomness comes from ``rng``."""
        distance = 0.5 * knobs.height * float(rng.uniform(0.9, 1.1))
        focal = float(rng.uniform(*knobs.focal))
        parts, groups = _arranged(rng, size, knobs, focal / knobs.height)
        knots = grid(rng)
        parts, defects = flaws.draw(rng, parts, knots, self.defects)
        surface = paint.finish(rng, groups, parts.kinds, knobs.variety)
        lamp = paint.light(rng, knobs)
        belt = np.round(rng.normal(0, 0.02, 2) * max(size) * knobs.motion).astype(np.int64) * (frames > 1)
        slips = rng.normal(0, 0.3, (len(parts), 2)) * knobs.motion * (frames > 1)
        room = np.abs(belt) * (frames - 1)
        floor = paint.ground(rng, (size[0] + int(room[0]), size[1] + int(room[1])), knobs)
        pitch = distance * 0.6 / (focal * max(size))
        sigma, noise = 0.42 + float(rng.uniform(*knobs.blur)), float(rng.uniform(*knobs.noise))
        warm = float(rng.uniform(*knobs.warmth)) * 0.12
        out: list[Drawn] = []
        for t in range(frames):
            off = np.where(belt > 0, room - belt * t, -belt * t)
            base = floor[off[0] : off[0] + size[0], off[1] : off[1] + size[1]]
            known = _laid(parts, defects, parts.centers + t * (belt + slips), size, knots)
            amount = np.zeros(size, np.float32)
            own = defects.take(known.defects)
            paint.carve(
                own.kinds, own.strengths, known.defect, known.flaws.boxes, known.flaws.starts, known.flaws.depth,
                known.flaws.level, known.height, amount,
            )  # fmt: skip
            np.maximum(known.height, 0, out=known.height)
            pose = np.stack(
                (*known.centers.T, parts.reaches, np.cos(parts.angles), np.sin(parts.angles), *parts.places.T), 1
            )
            look = paint.shade(
                base, known.height, known.owner, known.defect, own.kinds, amount, own.seeds,
                pose.astype(np.float32), surface, lamp, knots, knobs.texture,
            )  # fmt: skip
            planes = np.stack([blur(look[..., c] * np.float32(1 + warm * (1 - c)), sigma) for c in range(3)])
            planes += np.float32(noise) * rng.standard_normal(size, np.float32)
            image = np.clip(planes + 0.5, 0, 255).astype(np.uint8)
            moved = _flow(known.owner, belt, slips) if t + 1 < frames else None
            depth = np.float32(distance) - known.height * np.float32(pitch)
            out.append(_labeled(image, known, parts, own, depth, moved))
        return out


def _arranged(rng: Rng, size: tuple[int, int], knobs: Knobs, zoom: float) -> tuple[shapes.Parts, np.ndarray]:
    """Where which part lies, and which batch each is of: int64 [N]."""
    side = float(min(size))
    scale = float(np.exp(rng.uniform(*np.log(knobs.scale)))) * zoom
    style = rng.random()

    def bounded(reach: float) -> float:
        """No part smaller than can be seen, none that is all one sees."""
        return min(max(reach, 4.0, 0.02 * side), 0.9 * side + 4)

    sides = np.array(size, np.float64)
    many = knobs.count
    if style < 0.2 and many is None:  # one part fills the picture
        reach = bounded(side * float(rng.uniform(0.32, 0.55)) * scale)
        centers = sides[None] * rng.uniform(0.42, 0.58, (1, 2))
        reaches = np.array([reach])
    elif style < 0.5 and many is None:  # rows on a fixture
        reach = bounded(side * float(np.exp(rng.uniform(np.log(0.07), np.log(0.2)))) * scale)
        step = 2.1 * reach * float(rng.uniform(1.0, 1.4)) * (1 - 0.25 * max(knobs.occlusion - 0.5, 0))
        ys, xs = (np.arange(max(1, int(s / step))) for s in size)
        spots = np.stack(np.meshgrid(ys - (len(ys) - 1) / 2, xs - (len(xs) - 1) / 2, indexing="ij"), -1).reshape(-1, 2)
        centers = sides / 2 + spots * step + rng.normal(0, 0.03 * reach, spots.shape)
        centers = centers[rng.random(len(centers)) < rng.uniform(0.7, 1.1)]
        centers = centers if len(centers) else sides[None] / 2
        reaches = np.full(len(centers), reach)
    else:
        reach = bounded(side * float(np.exp(rng.uniform(np.log(0.06), np.log(0.26)))) * scale)
        lay = lay_out(
            rng,
            size,
            reach,
            "strewn" if rng.random() < 0.7 else "clumps",
            spread=0.25 * knobs.variety,
            occlusion=max(knobs.occlusion * float(rng.uniform(0.0, 1.0)) if knobs.occlusion < 1 else 1.0, 0.0),
            squeeze=0.8,
            count=many,
            crowding=float(rng.uniform(0.1, 1.0)),
        )
        centers, reaches = lay.centers, lay.radii
    count = len(centers)
    batches = int(min(count, rng.integers(1, 3 if style < 0.5 else 7)))
    forms = rng.choice(len(shapes.NAMES), max(batches, 1), p=_SHARE)
    made = [shapes.form(rng, int(kind)) for kind in forms]
    groups = rng.integers(0, max(batches, 1), count)
    turns = rng.uniform(0, 2 * np.pi, count)
    if style < 0.5:
        turns = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.05, count)
    kinds = forms[groups].astype(np.int32)
    reaches = np.maximum(reaches * np.where(kinds == shapes.HEAD, 0.6, 1.0), 3.0)
    rough = rng.uniform(0.0, 0.25, max(batches, 1))[groups] + np.where(kinds == shapes.CASTING, 0.25, 0)
    parts = shapes.Parts(
        kinds=kinds,
        centers=centers.astype(np.float64),
        reaches=reaches.astype(np.float64),
        angles=turns,
        numbers=np.stack([made[g][0] for g in groups]).reshape(count, 12) if count else np.zeros((0, 12), np.float32),
        holes=np.stack([made[g][1] for g in groups]) if count else np.zeros((0, 12, 3), np.float32),
        rough=(rough * np.clip(reaches / 80, 0.05, 1) * knobs.texture).astype(np.float32),
        places=rng.uniform(0, GRID, (count, 2)).astype(np.float32),
    )
    return parts, groups


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """One frame without its pixels.

    Attributes:
        centers: float64 [N, 2], of all parts.
        bodies: windows of all parts, burrs included.
        parts, defects: int64, the numbers of those that are seen.
        flaws: windows of the defects that are seen; inside: bool, which of their pixels lie on their part.
        owner, defect: int32 [H, W], the part and (among those seen) the defect of each pixel, -1 for none.
        height: float32 [H, W], pixels above the ground.
    """

    centers: np.ndarray
    bodies: Windows
    parts: np.ndarray
    defects: np.ndarray
    flaws: Windows
    inside: np.ndarray
    owner: np.ndarray
    defect: np.ndarray
    height: np.ndarray


def _laid(
    parts: shapes.Parts, defects: flaws.Defects, centers: np.ndarray, size: tuple[int, int], knots: np.ndarray
) -> _Known:
    """Parts and defects on a frame; what cannot be seen is left out, until all that is there is seen."""
    at = shapes.Parts(
        **{name: getattr(parts, name) for name in shapes.Parts.__dataclass_fields__} | {"centers": centers}
    )
    there, kept = np.ones(len(parts), bool), np.arange(len(defects))
    stamped = shapes.windows(at, size, knots)
    while True:
        bodies = replace(stamped, depth=stamped.depth.copy(), level=stamped.level.copy())
        _hide(there, bodies.starts, bodies.depth, bodies.level)
        own = defects.take(kept)
        spots = flaws.windows(own, centers, size)
        flaws.add_burrs(
            own.kinds == flaws.BURR, own.parents, spots.boxes, spots.starts, spots.depth, bodies.boxes, bodies.starts,
            bodies.depth, bodies.level,
        )  # fmt: skip
        _hide(there, bodies.starts, bodies.depth, bodies.level)
        owner, height = np.full(size, -1, np.int32), np.zeros(size, np.float32)
        _pile(bodies.boxes, bodies.starts, bodies.depth, bodies.level, owner, height)
        inside = flaws.clip(
            own.parents, spots.boxes, spots.starts, spots.depth, bodies.boxes, bodies.starts, bodies.depth
        )
        defect = np.full(size, -1, np.int32)
        flaws.owners(inside, own.parents, spots.boxes, spots.starts, owner, defect)
        whole = rle.area(*runs_of(inside, spots.boxes, spots.starts, size)) if len(own) else np.zeros(0, np.int64)
        seen = seen_of(defect, len(own))
        enough = (seen >= _LEAST) & (seen >= 0.15 * whole)
        bare = seen_of(np.where(defect >= 0, np.int32(-1), owner), len(parts))
        full = seen_of(owner, len(parts))
        hidden = there & (full < _LEAST)
        # A part all covered by its own defects would have no mask: these go, and the part stays.
        smothered = np.flatnonzero(there & ~hidden & (bare < _LEAST))
        enough &= ~np.isin(own.parents, smothered) & there[own.parents] & ~hidden[own.parents]
        if enough.all() and not hidden.any():
            return _Known(
                centers=centers,
                bodies=bodies,
                parts=np.flatnonzero(there),
                defects=kept,
                flaws=spots,
                inside=inside,
                owner=owner,
                defect=defect,
                height=height,
            )
        kept, there = kept[enough], there & ~hidden


def _labeled(
    image: np.ndarray,
    known: _Known,
    parts: shapes.Parts,
    own: flaws.Defects,
    depth: np.ndarray,
    moved: np.ndarray | None,
) -> Drawn:
    """Everything known about a frame."""
    names = Parts.taxonomy.names
    first = _BELT + 1 + len(parts)
    panoptic = np.where(known.owner >= 0, known.owner + _BELT + 1, _BELT).astype(np.int64)
    on = known.defect >= 0
    panoptic[on] = first + known.defects[known.defect[on]]
    classes = np.array([names.index(name) for name in shapes.NAMES], np.int64)
    labels = np.concatenate([classes[parts.kinds[known.parts]], len(PARTS) + own.kinds.astype(np.int64)])
    tracks = np.concatenate([known.parts + _BELT + 1, known.defects + first]).astype(np.int64)
    bodies = known.bodies
    amodal = joined_runs(
        rle.take(*bodies.amodal(), known.parts),
        runs_of(known.inside, known.flaws.boxes, known.flaws.starts, bodies.size),
    )
    if (panoptic == _BELT).any():
        labels, tracks = np.append(labels, len(names) - 1), np.append(tracks, _BELT)
        amodal = joined_runs(amodal, rle.encode(np.ones((1, *bodies.size), bool)))
    label_of = np.full(int(tracks.max(initial=0)) + 1, -1, np.int16)
    label_of[tracks] = labels
    visible = encode_map(panoptic, tracks)
    shares = rle.area(*visible) / np.maximum(rle.area(*amodal), 1)
    return Drawn(
        image=image,
        labels=labels,
        visible=visible,
        amodal=amodal,
        tracks=tracks,
        semantic=label_of[panoptic],
        panoptic=panoptic,
        depth=depth.astype(np.float32),
        flow=moved,
        occluded=(1 - shares).astype(np.float32),
    )


def _flow(owner: np.ndarray, belt: np.ndarray, slips: np.ndarray) -> np.ndarray:
    """Where each pixel goes: with the belt, and parts with their own slip."""
    steps = np.concatenate([slips + belt, belt[None]]).astype(np.float32)
    return np.ascontiguousarray(steps[owner][..., ::-1].transpose(2, 0, 1))


@njit(cache=True, nogil=True)
def _hide(there, starts, depth, height):
    """Parts that are not there have no pixels."""
    for i in range(len(there)):
        if not there[i]:
            depth[starts[i] : starts[i + 1]] = -1
            height[starts[i] : starts[i + 1]] = 0


@njit(cache=True, nogil=True)
def _pile(boxes, starts, depth, level, owner, height):
    """Lay the parts one after the other, each on the highest thing below it."""
    for i in range(len(boxes)):
        y0, x0, h, w = boxes[i]
        floor = np.float32(0)
        k = starts[i]
        for y in range(y0, y0 + h):
            for x in range(x0, x0 + w):
                if depth[k] > 0:
                    floor = max(floor, height[y, x])
                k += 1
        k = starts[i]
        for y in range(y0, y0 + h):
            for x in range(x0, x0 + w):
                if depth[k] > 0:
                    owner[y, x] = i
                    height[y, x] = floor * np.float32(0.7) + level[k]
                k += 1
