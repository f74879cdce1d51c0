"""The objects of one image looked over: outlines, boxes, duplicates, maps; and what of it can be put right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from maskwright.data.audit.findings import Finding
from maskwright.data.label_maps import read_map, resolve
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.ops.polygon_checks import crosses_itself, rings_inside
from maskwright.structures import LabelMap, Record, Region, Shape, Taxonomy

_SAME, _SAME_OF_OTHER_CLASS = 0.9, 0.95  # IoU of outlines that are one
_EDGE = 1.0  # pixels that an outline may leave its picture by: rounding
_OFF, _OFF_SHARE = 3.0, 0.1  # a box side may be off by so many pixels, or by this share of the side
_WHOLE = 0.98


def check_objects(record: Record, split: str, taxonomy: Taxonomy) -> list[Finding]:
    """What is wrong with the objects of one image, in their order."""
    out: list[Finding] = []

    def add(check: str, text: str, i: int | None = None, others: Sequence[int] = ()) -> None:
        ident = None if i is None else int(record.ids[i])
        out.append(
            Finding(check=check, text=text, split=split, key=record.key, ident=ident, others=tuple(map(int, others)))
        )

    try:
        for text in _map_problems(record):
            add("map disagrees", text)
        whole = resolve(record)
    except InputError as error:
        add("broken picture", str(error))
        return out
    height, width = record.size
    outlined = any(shape is not None for shape in whole.shapes)
    runs = [_runs(shape, record.size) for shape in whole.shapes]
    for i, (shape, counts) in enumerate(zip(whole.shapes, runs, strict=True)):
        name = taxonomy.names[int(record.labels[i])]
        low, high = _extent(shape, record.boxes[i])
        if high[0] <= 0 or high[1] <= 0 or low[0] >= width or low[1] >= height:
            add("outside", f"a {name} at {_points(low, high)} of a picture of {width} x {height} pixels", i)
            continue
        beyond = max(-low.min(), high[0] - width, high[1] - height)
        if beyond > _EDGE:
            add("beyond the edge", f"a {name} leaves its picture by {beyond:.1f} pixels", i)
        if counts is None:
            if outlined:
                add("box only", f"a {name} has a box, but no outline", i)
            continue
        area = int(counts[1::2].sum())
        if area == 0:
            add("no pixels", f"a {name} covers the center of no pixel", i)
            continue
        if area <= 2:
            add("tiny", f"a {name} of {area} {'pixel' if area == 1 else 'pixels'}", i)
        own = rle.boxes(counts, np.array([0, len(counts)], np.int64), height)[0].astype(np.float64)
        off = np.abs(own - np.clip(record.boxes[i], 0, (width, height, width, height)))
        if (off > np.maximum(_OFF, _OFF_SHARE * np.tile(own[2:] - own[:2], 2))).any():
            add("box disagrees", f"the box of a {name} is off its mask by {off.max():.0f} pixels", i)
        if area > _WHOLE * height * width and taxonomy.thing[int(record.labels[i])] and not record.crowd[i]:
            add("whole picture", f"a {name} covers {100 * area / (height * width):.0f} % of its picture", i)
        if isinstance(shape, tuple):
            if any(crosses_itself(ring) for ring in shape):
                add("self-crossing", f"the outline of a {name} crosses itself", i)
            for _ in rings_inside(shape):
                add("lost hole", f"a {name} has a ring inside another one, which is filled", i)
    for check, i, j, overlap in _pairs(whole, runs):
        a, b = (taxonomy.names[int(record.labels[k])] for k in (i, j))
        said = {
            "duplicate object": f"a {a} is annotated twice (IoU {overlap:.2f})",
            "two classes": f"one outline is a {a} and a {b} (IoU {overlap:.2f})",
            "overlap": f"segments {record.ids[i]} ({a}) and {record.ids[j]} ({b}) share pixels",
        }
        add(check, said[check], j, [record.ids[i]])
    return out


def repaired(record: Record, findings: Sequence[Finding]) -> Record:
    """The record with what ``fixable`` findings of it say put right."""
    record = resolve(record)
    gone = {f.ident for f in findings if f.check in ("outside", "no pixels", "duplicate object")}
    clip = {f.ident for f in findings if f.check == "beyond the edge"}
    refit = {f.ident for f in findings if f.check == "box disagrees"} | clip
    height, width = record.size
    shapes, boxes, areas = list(record.shapes), record.boxes.copy(), record.areas.copy()
    keep = np.array([int(ident) not in gone for ident in record.ids], bool)
    for i in np.flatnonzero(keep).tolist():
        ident = int(record.ids[i])
        counts = _runs(shapes[i], record.size)
        if ident in clip and isinstance(shapes[i], tuple) and counts is not None:
            # Clipping a ring may tear it into several; its pixels inside of the picture stay exactly what they were.
            shapes[i] = {"size": record.size, "counts": rle.compress(counts)}
            areas[i] = float(counts[1::2].sum())
        if ident in refit:
            if counts is None:
                boxes[i] = np.clip(boxes[i], 0, (width, height, width, height))
            else:
                boxes[i] = rle.boxes(counts, np.array([0, len(counts)], np.int64), height)[0]
    index = np.flatnonzero(keep)
    panoptic = record.panoptic
    if isinstance(panoptic, np.ndarray):
        panoptic = np.where(np.isin(panoptic, record.ids[index]), panoptic, 0)
    return replace(
        record,
        labels=record.labels[index],
        shapes=tuple(shapes[i] for i in index.tolist()),
        boxes=boxes[index],
        crowd=record.crowd[index],
        ids=record.ids[index],
        areas=areas[index],
        tracks=None if record.tracks is None else record.tracks[index],
        panoptic=panoptic,
    )


def _runs(shape: Shape, size: tuple[int, int]) -> np.ndarray | None:
    if isinstance(shape, tuple):
        return polygons.rasterize(list(shape), size)
    return rle.from_coco([shape], size)[0] if isinstance(shape, dict) else None


def _extent(shape: Shape, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Near and far corner (x, y) of all that is annotated."""
    low, high = box[:2].astype(np.float64), box[2:].astype(np.float64)
    if isinstance(shape, tuple):
        points = np.concatenate(shape)
        return np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0))
    return low, high


def _pairs(record: Record, runs: Sequence[np.ndarray | None]) -> Iterator[tuple[str, int, int, float]]:
    """Objects that are one, or segments that overlap: (check, first, second, IoU)."""
    masked = [i for i, counts in enumerate(runs) if counts is not None and not record.crowd[i]]
    if len(masked) > 1:
        pieces = [counts for i, counts in enumerate(runs) if counts is not None and not record.crowd[i]]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)
        flat = np.concatenate(pieces)
        ious = np.triu(rle.iou(flat, offsets, flat, offsets, height=record.size[0]), 1)
        least = 0.0 if record.panoptic is not None else min(_SAME, _SAME_OF_OTHER_CLASS)
        for a, b in np.argwhere(ious > least).tolist():
            i, j, overlap = masked[a], masked[b], float(ious[a, b])
            if record.labels[i] == record.labels[j] and overlap >= _SAME:
                yield "duplicate object", i, j, overlap
            elif record.labels[i] != record.labels[j] and overlap >= _SAME_OF_OTHER_CLASS:
                yield "two classes", i, j, overlap
            elif record.panoptic is not None:
                yield "overlap", i, j, overlap
    boxed = [i for i, counts in enumerate(runs) if counts is None and not record.crowd[i]]
    seen: dict[tuple[object, ...], int] = {}
    for i in boxed:
        first = seen.setdefault((int(record.labels[i]), *record.boxes[i].round(1).tolist()), i)
        if first != i:
            yield "duplicate object", first, i, 1.0


def _map_problems(record: Record) -> Iterator[str]:
    """What a panoptic map and the list of its segments do not share, and what its picture's list says wrongly."""
    regions = [s for s in record.shapes if isinstance(s, Region)]
    source = record.panoptic
    if isinstance(source, LabelMap):
        present = np.unique(read_map(source.path, source.form, record.size))
    elif isinstance(source, np.ndarray):
        present = np.unique(source)
    else:
        for region in regions:
            if region.value is not None and not (read_map(region.path, region.form, record.size) == region.value).any():
                yield f"{region.path.name} has no pixel of {region.value}"
        return
    listed = set(record.ids.tolist())
    shown = set(present[present != 0].tolist())
    if shown - listed:
        yield f"its map shows {len(shown - listed)} segments that are not listed: {_few(shown - listed)}"
    if listed - shown:
        yield f"{len(listed - shown)} listed segments are not in its map: {_few(listed - shown)}"


def _few(values: set[int]) -> str:
    ordered = sorted(values)
    return ", ".join(map(str, ordered[:5])) + (", ..." if len(ordered) > 5 else "")


def _points(low: np.ndarray, high: np.ndarray) -> str:
    return f"({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f})"
