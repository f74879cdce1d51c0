"""Scenes on one canvas: beside each other (``join``), or one in front of another (``cover``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map, paint_map
from maskwright.structures import Masks, Scene, Segments


@dataclass(frozen=True, slots=True)
class Placed:
    """A scene and where its top left corner lies on a larger, or just another, canvas."""

    scene: Scene
    top: int
    left: int


def join(parts: Sequence[Placed], size: tuple[int, int]) -> Scene:
    """The scene of all parts on a canvas (H, W). Ids are counted from 1 in the order of the parts.

    What is known of some parts and not of others: pixels without a semantic label are void; a part whose objects are
    unknown becomes a region to ignore; objects with boxes only become crowd regions filling them, unless all are so.
    A panoptic map needs one in every part that has objects. Label maps take the last part that has a label there.
    """
    segments = _all_segments([_segments(part, size) for part in parts], size)
    unknown = [_rectangle(part, size) for part in parts if part.scene.segments is None]
    ignored = [_moved(part.scene.ignore, part, size) for part in parts if part.scene.ignore is not None]
    if segments is not None:
        ignored += unknown
    ignore = Masks.cat(ignored) if ignored else None
    semantic = None
    if any(part.scene.semantic is not None for part in parts):
        semantic = torch.full(size, -1, dtype=torch.int64)
        for part in parts:
            if part.scene.semantic is not None:
                _write(semantic, part.scene.semantic, part, void=-1)
    panoptic = None
    mapped = [p.scene.panoptic is not None for p in parts if p.scene.segments is None or len(p.scene.segments)]
    if segments is not None and all(mapped) and any(part.scene.panoptic is not None for part in parts):
        panoptic, first = torch.zeros(size, dtype=torch.int64), 1
        for part in parts:
            if part.scene.panoptic is not None:
                assert part.scene.segments is not None
                _write(panoptic, _recounted(part.scene.panoptic, part.scene.segments, first), part, void=0)
            first += len(part.scene.segments or ())
    scene = Scene(size=size, segments=segments, semantic=semantic, panoptic=panoptic, ignore=ignore)
    return _without_empty(scene)


def cover(scene: Scene, front: Placed, *, min_visible: float = 0.0) -> tuple[Scene, np.ndarray]:
    """The objects of ``front`` before a scene whose masks are known.

    Ids are counted from 1, first the scene's objects, then those in front. What is left of the scene's own regions to
    ignore stays. The semantic map takes the front's labels, or where it has none the labels of its objects.

    Args:
        scene: what lies behind; it gives the size.
        front: objects with masks; its own ``ignore`` is not looked at.
        min_visible: objects behind of which less than this fraction remains become regions to ignore.

    Returns:
        The scene, and bool [H, W], where something lies in front.
    """
    height, width = scene.size
    size = (height, width)
    behind = scene.segments if scene.segments is not None and len(scene.segments) else Segments.empty(size)
    before = _segments(front, size)
    assert before is not None
    assert before.masks is not None
    assert behind.masks is not None
    before = before[torch.nonzero(before.masks.area() > 0).reshape(-1)]
    assert before.masks is not None
    shown = np.zeros(size, bool)
    if len(before) == 0:
        return scene, shown
    over = rle.union(before.masks.counts.numpy(), before.masks.offsets.numpy())
    shown = rle.decode(over, np.array([0, len(over)]), size)[0]
    was = behind.masks.area()
    left = _minus(behind.masks, over)
    share = left.area() / was.clamp(min=1)
    sliver = (share < min_visible) & (left.area() > 0) & (left.area() < was)
    behind = replace(behind, masks=left, boxes=left.boxes(), crowd=_crowd(behind))
    ignore = None if scene.ignore is None else _minus(scene.ignore, over)
    if bool(sliver.any()):
        slivers = left[sliver]
        ignore = slivers if ignore is None else Masks.cat([ignore, slivers])
    count = len(behind)
    joined = Segments.cat([_bare(behind), _bare(before)])
    ids = torch.arange(1, len(joined) + 1)
    semantic = None
    if scene.semantic is not None:
        there = _semantic_of(before, front, size)
        semantic = torch.where(torch.from_numpy(shown) & (there >= 0), there, scene.semantic)
    panoptic = None
    if scene.panoptic is not None:
        there = paint_map(before.masks.counts.numpy(), before.masks.offsets.numpy(), size, ids[count:].numpy())
        panoptic = torch.where(torch.from_numpy(shown), torch.from_numpy(there), _recounted(scene.panoptic, behind, 1))
        panoptic[torch.isin(panoptic, ids[:count][sliver])] = 0
    gone = torch.cat([sliver, torch.zeros(len(before), dtype=torch.bool)])
    made = Scene(
        size=size, segments=replace(joined, ids=ids)[~gone], semantic=semantic, panoptic=panoptic, ignore=ignore
    )
    return _without_empty(made), shown


def _segments(part: Placed, size: tuple[int, int]) -> Segments | None:
    """The objects on the canvas, those that lost all pixels too; masks, if they are known, give the boxes."""
    segments = part.scene.segments
    if segments is None:
        return None
    if segments.masks is not None:
        masks = _moved(segments.masks, part, size)
        return replace(segments, size=size, masks=masks, boxes=masks.boxes())
    assert segments.boxes is not None
    boxes = segments.boxes + torch.tensor([part.left, part.top] * 2, dtype=torch.float32)
    limits = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
    return replace(segments, size=size, boxes=torch.minimum(boxes.clamp(min=0), limits))


def _all_segments(parts: list[Segments | None], size: tuple[int, int]) -> Segments | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    full = [part for part in known if len(part)]
    if not full:
        return replace(Segments.empty(size), ids=torch.zeros(0, dtype=torch.int64), crowd=torch.zeros(0).bool())
    if any(part.masks is not None for part in full):
        full = [part if part.masks is not None else _filled(part) for part in full]
    joined = Segments.cat([_bare(part) for part in full])
    return replace(joined, ids=torch.arange(1, len(joined) + 1))


def _bare(segments: Segments) -> Segments:
    """Without ids and scores, crowd told."""
    return replace(segments, ids=None, scores=None, crowd=_crowd(segments))


def _crowd(segments: Segments) -> Tensor:
    return torch.zeros(len(segments), dtype=torch.bool) if segments.crowd is None else segments.crowd


def _filled(segments: Segments) -> Segments:
    """Boxes without masks as crowd regions that fill them."""
    height, width = segments.size
    assert segments.boxes is not None
    dense = np.zeros((height, width), bool)
    pieces: list[Masks] = []
    for x1, y1, x2, y2 in segments.boxes.round().long().tolist():
        dense[:] = False
        dense[y1:y2, x1:x2] = True
        pieces.append(Masks.from_dense(torch.from_numpy(dense[None])))
    masks = Masks.cat(pieces)
    return replace(segments, masks=masks, boxes=masks.boxes(), crowd=torch.ones(len(segments), dtype=torch.bool))


def _moved(masks: Masks, part: Placed, size: tuple[int, int]) -> Masks:
    place = (-part.top, -part.left, *size)
    return Masks.from_arrays(*rle.window(masks.counts.numpy(), masks.offsets.numpy(), masks.size, place), size)


def _rectangle(part: Placed, size: tuple[int, int]) -> Masks:
    return _moved(Masks.from_dense(torch.ones(1, *part.scene.size, dtype=torch.bool)), part, size)


def _write(canvas: Tensor, values: Tensor, part: Placed, void: int) -> None:
    """Write the labels that are not void at the part's place; what lies outside of the canvas is cut off."""
    rows, columns = (
        slice(max(at, 0), max(min(at + int(length), int(full)), max(at, 0)))
        for at, length, full in zip((part.top, part.left), values.shape, canvas.shape, strict=True)
    )
    seen = values[rows.start - part.top : rows.stop - part.top, columns.start - part.left : columns.stop - part.left]
    target = canvas[rows, columns]
    canvas[rows, columns] = torch.where(seen == void, target, seen)


def _recounted(panoptic: Tensor, segments: Segments, first: int) -> Tensor:
    """A panoptic map whose segments are numbered from ``first`` in their order."""
    out = torch.zeros_like(panoptic)
    idents = [] if segments.ids is None else segments.ids.tolist()
    for k, ident in enumerate(idents):
        out[panoptic == ident] = first + k
    return out


def _minus(masks: Masks, over: np.ndarray) -> Masks:
    """The masks without the pixels of ``over``, int32 [R]."""
    counts, offsets = masks.counts.numpy(), masks.offsets.numpy()
    touched = rle.intersection(counts, offsets, over, np.array([0, len(over)]))[:, 0] > 0
    if not touched.any():
        return masks
    # The complement of a mask starts with an empty run.
    rest = np.concatenate([np.zeros(1, np.int32), over]) if over[0] > 0 else over[1:]
    pieces = np.split(counts, offsets[1:-1])
    for i in np.flatnonzero(touched).tolist():
        pair = np.concatenate([pieces[i], rest])
        pieces[i] = rle.intersect(pair, np.array([0, len(pieces[i]), len(pair)]))
    cuts = np.cumsum([0, *map(len, pieces)]).astype(np.int64)
    return Masks.from_arrays(np.concatenate(pieces).astype(np.int32), cuts, masks.size)


def _semantic_of(before: Segments, front: Placed, size: tuple[int, int]) -> Tensor:
    """The label of each pixel in front, int64 [H, W], -1 where there is none."""
    assert before.masks is not None
    counts, offsets = before.masks.counts.numpy(), before.masks.offsets.numpy()
    out = torch.from_numpy(paint_map(counts, offsets, size, before.labels.numpy(), -1))
    if front.scene.semantic is not None:
        _write(out, front.scene.semantic, front, void=-1)
    return out


def _without_empty(scene: Scene) -> Scene:
    """Without objects and regions that have no pixel; where there is a panoptic map the masks are cut out of it."""
    segments = scene.segments
    if segments is not None and segments.masks is not None and len(segments):
        if scene.panoptic is not None:
            assert segments.ids is not None
            masks = Masks.from_arrays(*encode_map(scene.panoptic.numpy(), segments.ids.numpy()), scene.size)
            segments = replace(segments, masks=masks, boxes=masks.boxes())
        assert segments.masks is not None
        segments = segments[segments.masks.area() > 0]
    elif segments is not None and segments.boxes is not None:
        segments = segments[(segments.boxes[:, 2:] > segments.boxes[:, :2]).all(1)]
    ignore = scene.ignore
    if ignore is not None:
        ignore = ignore[ignore.area() > 0]
    return replace(scene, segments=segments, ignore=ignore if ignore is not None and len(ignore) else None)
