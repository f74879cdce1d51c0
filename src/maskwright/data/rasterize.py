"""Records to scenes: outlines become run-lengths once, on the canvas where they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from maskwright.data.augment.placement import Placement
from maskwright.data.augment.resample import place_runs
from maskwright.data.augment.warp import Warp
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.ops.rle_maps import encode_map, renumber
from maskwright.structures import Masks, Record, Scene, Segments

Place = Placement | Warp
"""Where a sample's pixels come from."""


def scene_of(record: Record, placement: Place | None = None, *, min_visible: float = 0.0) -> Scene:
    """The scene of a record on its own size, or on the size of a placement.

    Boxes are the masks' tight boxes. Objects that have no pixel left are dropped. A record without any outline gives a
    scene whose masks are unknown and whose boxes are the annotated ones, clipped. Where only some objects lack an
    outline they become crowd regions filling their boxes, since to train on a guessed mask, or on a missing object,
    would be wrong. Crowd is kept as annotated.

    Label maps go through the same placement, each pixel taking the file pixel under its center. Where there is a
    panoptic map the masks are cut out of it, so that they and the map agree in every pixel; and where it is all that is
    known of the pixels, ``semantic`` is the classes of its segments, crowd and slivers included.

    ``Segments.ids`` are the record's ids, or its tracks where it has tracks (-1: an object without one). Among
    panoptic segments the ids must tell all apart, so one without a track gets -1 minus its own id, which is below -1.

    Args:
        record: outlines in file pixels; maps in files are read.
        placement: where the sample's pixels come from; ``None`` leaves them as they are.
        min_visible: objects of whose area less than this fraction lies on the canvas become ``ignore`` regions, and
            void in a panoptic map.

    Raises:
        InputError: a map cannot be read, or a panoptic segment has the track 0, which means void.
    """
    if placement is None:
        placement = Placement.whole(record.size)
    if record.panoptic is not None:
        record = resolve(replace(record, shapes=(None,) * len(record)))  # to cut its regions out would be in vain
        scene = _panoptic_scene(record, placement, min_visible)
    else:
        record = resolve(record)
        scene = _objects_scene(record, placement, min_visible)
    if isinstance(record.semantic, np.ndarray):
        scene = replace(scene, semantic=torch.from_numpy(placement.labels(record.semantic, -1).astype(np.int64)))
    if isinstance(placement, Warp) and placement.reflect:
        mirrored = Masks.from_arrays(*placement.mirrored(), placement.size)
        if len(mirrored):
            scene = replace(scene, ignore=Masks.cat([scene.ignore, mirrored]) if scene.ignore else mirrored)
    return scene


def _objects_scene(record: Record, placement: Place, min_visible: float) -> Scene:
    reach = _visible_boxes(record, placement)
    near = np.flatnonzero((reach[:, 2] > reach[:, 0]) & (reach[:, 3] > reach[:, 1]))
    if len(record) and all(shape is None for shape in record.shapes):
        return _boxes_only(record, placement, reach, near, min_visible)
    counts, offsets, lost = _place(record, placement, near)
    areas = rle.area(counts, offsets)
    kept = areas > 0
    sliver = np.zeros(len(near), bool)
    if min_visible > 0:
        kept_share = areas / np.maximum(_full_areas(record, near) * placement.magnification, 1e-9)
        sliver = kept & (kept_share < min_visible) & ~placement.holds(record.boxes)[near]
        kept &= ~sliver
    chosen = np.flatnonzero(kept)
    if len(chosen) < len(near):
        masks = Masks.from_arrays(*rle.take(counts, offsets, chosen), placement.size)
    else:
        masks = Masks.from_arrays(counts, offsets, placement.size)
    index = near[chosen]
    segments = Segments(
        size=placement.size,
        labels=torch.from_numpy(record.labels[index].astype(np.int64)),
        masks=masks,
        boxes=masks.boxes(),
        ids=_ids(record, index),
        crowd=torch.from_numpy(record.crowd[index] | lost[chosen]),
    )
    ignore = None
    if sliver.any():
        ignore = Masks.from_arrays(*rle.take(counts, offsets, np.flatnonzero(sliver)), placement.size)
    return Scene(size=placement.size, segments=segments, ignore=ignore)


def _panoptic_scene(record: Record, placement: Place, min_visible: float) -> Scene:
    """The scene of a record whose panoptic map is read; its outlines are not looked at."""
    assert isinstance(record.panoptic, np.ndarray)
    there = record.panoptic.astype(np.int64, copy=False)
    ids = record.ids.astype(np.int64)
    if record.tracks is not None:
        if (record.tracks == 0).any():
            raise InputError(
                f"{record.key}: tracks of panoptic segments must not be 0, which is void. Count them from 1."
            )
        ids = np.where(record.tracks > 0, record.tracks, -1 - ids)
    here = placement.labels(there, 0)
    counts, offsets = encode_map(here, record.ids)
    areas = rle.area(counts, offsets)
    kept = areas > 0
    sliver = np.zeros(len(record), bool)
    if min_visible > 0:
        whole = rle.area(*encode_map(there, record.ids)) * placement.magnification
        sliver = kept & (areas < min_visible * whole) & ~placement.holds(record.boxes)
        kept &= ~sliver
    index = np.flatnonzero(kept)
    masks = Masks.from_arrays(*rle.take(counts, offsets, index), placement.size)
    segments = Segments(
        size=placement.size,
        labels=torch.from_numpy(record.labels[index].astype(np.int64)),
        masks=masks,
        boxes=masks.boxes(),
        ids=torch.from_numpy(ids[index]),
        crowd=torch.from_numpy(record.crowd[index]),
    )
    ignore = None
    if sliver.any():
        ignore = Masks.from_arrays(*rle.take(counts, offsets, np.flatnonzero(sliver)), placement.size)
    semantic = None
    if record.semantic is None:
        semantic = torch.from_numpy(renumber(here, record.ids, record.labels, -1))
    return Scene(
        size=placement.size, segments=segments, ignore=ignore,
        panoptic=torch.from_numpy(renumber(here, record.ids[index], ids[index])), semantic=semantic,
    )  # fmt: skip


def _ids(record: Record, index: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((record.ids if record.tracks is None else record.tracks)[index].astype(np.int64))


def cut_ids(record: Record, placement: Placement) -> np.ndarray:
    """Annotation ids, int64, of the objects that the window cuts: partly inside, judged by their boxes."""
    touched = _overlap(record.boxes, placement.window) > 0
    return record.ids[touched & ~placement.holds(record.boxes) & ~record.crowd]


def _place(record: Record, placement: Place, near: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs on the canvas of the objects ``near``, and which of them have no outline (their boxes are filled)."""
    shapes = [record.shapes[i] for i in near.tolist()]
    stored = [shape for shape in shapes if isinstance(shape, dict)]
    runs, starts = np.zeros(0, np.int32), np.zeros(1, np.int64)
    if stored:
        runs, starts = rle.from_coco(stored, record.size)
    if stored and isinstance(placement, Warp):
        runs, starts = placement.runs(runs, starts)
    elif stored and isinstance(placement, Placement) and not placement.leaves(record.size):
        runs, starts = place_runs(runs, starts, record.size, placement)
    if len(stored) == len(shapes):
        return runs, starts, np.zeros(len(near), bool)
    lost = np.array([shape is None for shape in shapes])
    outlines: list[Sequence[np.ndarray]] = []
    for i, shape in zip(near.tolist(), shapes, strict=True):
        if isinstance(shape, tuple):
            outlines.append(shape)
        elif shape is None:
            x1, y1, x2, y2 = record.boxes[i].astype(np.float64)
            outlines.append((np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]),))
    if isinstance(placement, Warp):
        drawn = iter([placement.rasterize(rings) for rings in outlines])
    else:
        drawn = iter([polygons.rasterize(rings, placement.size) for rings in _moved(outlines, placement)])
    ready = iter(np.split(runs, starts[1:-1]))
    pieces = [next(ready if isinstance(shape, dict) else drawn) for shape in shapes]
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    return np.concatenate(pieces).astype(np.int32, copy=False), offsets, lost


def _moved(outlines: list[Sequence[np.ndarray]], placement: Placement) -> Iterator[Sequence[np.ndarray]]:
    """The outlines on the canvas, all points moved at once: numpy's cost is in the calls."""
    rings = [ring for outline in outlines for ring in outline]
    if not rings:
        yield from outlines
        return
    moved = np.split(placement.points(np.concatenate(rings)), np.cumsum([len(ring) for ring in rings])[:-1])
    first = 0
    for outline in outlines:
        yield moved[first : first + len(outline)]
        first += len(outline)


def _boxes_only(record: Record, placement: Place, reach: np.ndarray, near: np.ndarray, min_visible: float) -> Scene:
    whole = placement.boxes(record.boxes)[near]
    seen = reach[near]
    share = np.prod(seen[:, 2:] - seen[:, :2], axis=1) / np.maximum(np.prod(whole[:, 2:] - whole[:, :2], axis=1), 1e-9)
    index, boxes = near[share >= min_visible], seen[share >= min_visible]
    segments = Segments(
        size=placement.size,
        labels=torch.from_numpy(record.labels[index].astype(np.int64)),
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        ids=_ids(record, index),
        crowd=torch.from_numpy(record.crowd[index]),
    )
    return Scene(size=placement.size, segments=segments)


def _visible_boxes(record: Record, placement: Place) -> np.ndarray:
    """float64 [N, 4] on the canvas, clipped to it, around all that an object may cover (its outline, not its box)."""
    boxes = placement.boxes(_extents(record))
    height, width = placement.size
    return np.clip(boxes, 0, (width, height, width, height))


def _extents(record: Record) -> np.ndarray:
    """Boxes in file pixels around the outlines: an annotated box may be too small, so polygons speak for themselves."""
    extents = record.boxes.astype(np.float64)
    rings: list[np.ndarray] = []
    owners: list[int] = []
    for i, shape in enumerate(record.shapes):
        if isinstance(shape, tuple):
            known = [ring for ring in shape if len(ring)]
            rings += known
            owners += [i] * len(known)
        elif isinstance(shape, dict):
            extents[i] += (-1, -1, 1, 1)
    if rings:
        starts = np.cumsum([0, *(len(ring) for ring in rings[:-1])])
        points = np.concatenate(rings)
        extents[owners] = (np.inf, np.inf, -np.inf, -np.inf)
        np.minimum.at(extents[:, :2], owners, np.minimum.reduceat(points, starts) - 1)
        np.maximum.at(extents[:, 2:], owners, np.maximum.reduceat(points, starts) + 1)
    return extents


def _overlap(boxes: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    y, x, height, width = window
    wide = np.minimum(boxes[:, 2], x + width) - np.maximum(boxes[:, 0], x)
    tall = np.minimum(boxes[:, 3], y + height) - np.maximum(boxes[:, 1], y)
    return np.maximum(wide, 0) * np.maximum(tall, 0)


def _full_areas(record: Record, index: np.ndarray) -> np.ndarray:
    """Areas in file pixels, float64: the outlines' own, as the annotated ones may be another tool's."""
    areas = np.zeros(len(index))
    for k, i in enumerate(index.tolist()):
        shape = record.shapes[i]
        if isinstance(shape, dict):
            areas[k] = rle.area(*rle.from_coco([shape], record.size))[0]
        elif shape:
            areas[k] = sum(_shoelace(ring) for ring in shape)
        else:
            areas[k] = float(np.prod(record.boxes[i, 2:] - record.boxes[i, :2]))
    return areas


def _shoelace(ring: np.ndarray) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
