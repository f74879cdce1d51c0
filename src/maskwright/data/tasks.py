"""From one task's annotation to another's: instances, semantic maps, panoptic segments. Lossless where it can be.

What cannot be known is refused: a semantic map does not say where one object ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor

from maskwright.data.label_maps import resolve
from maskwright.data.source import Base, Loads, Mix, image_sizes, mix
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.ops.rle_maps import encode_map, paint_map, renumber
from maskwright.structures import Record, Shape, Taxonomy

Task = Literal["instances", "semantic", "panoptic"]
Runs = tuple[np.ndarray, np.ndarray]

_MOST_SEGMENTS = 1 << 22  # ids of objects; those of stuff follow, and all must be colors


class Mapped(Base):
    """A source whose records are changed on the way; pixels stay.

    Args:
        source: where records and pixels come from.
        change: called with every record that is asked for.
        taxonomy: the classes afterwards.
    """

    def __init__(self, source: Loads, change: Callable[[Record], Record], taxonomy: Taxonomy) -> None:
        self.source, self.change, self.taxonomy = source, change, taxonomy

    def __len__(self) -> int:
        return len(self.source)

    def record(self, index: int) -> Record:
        """What is annotated on image ``index``, changed."""
        return self.change(self.source.record(index))

    def load(self, index: int) -> tuple[Record, Tensor]:
        """The changed record of image ``index`` and its pixels."""
        record, image = self.source.load(index)
        return self.change(record), image

    @property
    def sizes(self) -> np.ndarray:
        """(H, W) of every image, int [n, 2]; changes leave them."""
        return image_sizes(self.source)

    @property
    def mix(self) -> Mix:
        """Parts, shares and blocks of what is viewed."""
        return mix(self.source)


# ---- numbers of panoptic maps ---------------------------------------------------------------------------------------


def encode_panoptic(semantic: np.ndarray, instance: np.ndarray, radix: int = 1000) -> np.ndarray:
    """``P = S x R + I``: one number a pixel for its class and its instance, int64 [H, W].

    Args:
        semantic: integers [H, W], classes; negative where void.
        instance: integers [H, W], 0 where a class is not counted.
        radix: R; more than any instance number. Cityscapes has 1000, KITTI 256.

    Returns:
        the map, -1 where void.

    Raises:
        ValueError: shapes differ, or an instance number does not fit below ``radix``.
    """
    if semantic.shape != instance.shape:
        raise ValueError(f"classes and instances must lie on one size, got {semantic.shape} and {instance.shape}")
    if radix < 1 or (instance.size and (instance.min() < 0 or instance.max() >= radix)):
        low, high = (int(instance.min()), int(instance.max())) if instance.size else (0, 0)
        raise ValueError(f"instance numbers must lie in 0..{radix - 1}, got {low}..{high}. Choose a larger radix.")
    classes = semantic.astype(np.int64)
    return np.where(classes < 0, -1, classes * radix + instance)


def decode_panoptic(panoptic: np.ndarray, radix: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """``encode_panoptic`` undone: classes int64 [H, W], -1 where void, and instances int64 [H, W], there 0."""
    wide = panoptic.astype(np.int64)
    return np.where(wide < 0, -1, wide // radix), np.where(wide < 0, 0, wide % radix)


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Segment ids [H, W] as COCO's colors, uint8 [H, W, 3]: red + 256 green + 65536 blue.

    Raises:
        ValueError: an id below 0 or above 2^24 - 1.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << 24):
        raise ValueError(f"segment ids must lie in 0..{(1 << 24) - 1}, got {int(ids.min())}..{int(ids.max())}")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def rgb_to_ids(colors: np.ndarray) -> np.ndarray:
    """``ids_to_rgb`` undone: int64 [H, W]."""
    wide = colors.astype(np.int64)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16


# ---- records --------------------------------------------------------------------------------------------------------


def to_semantic(record: Record) -> Record:
    """The class of every pixel, and no objects.

    A semantic map is kept as it is; segments of a panoptic map become their classes. Instances are painted from large
    to small, so that what lies on top of something larger is seen, crowd regions first; what no object covers is void.

    Raises:
        InputError: an object has no outline, only a box.
    """
    record = resolve(record)
    semantic = record.semantic
    if semantic is None and isinstance(record.panoptic, np.ndarray):
        semantic = renumber(record.panoptic, record.ids, record.labels, -1)
    elif semantic is None:
        runs = outlines_of(record)
        order = np.lexsort((-rle.area(*runs), ~record.crowd))
        semantic = paint_map(*rle.take(*runs, order), record.size, record.labels[order], background=-1)
    return _without_objects(replace(record, semantic=np.asarray(semantic).astype(np.int16), panoptic=None))


def to_instances(record: Record, taxonomy: Taxonomy) -> Record:
    """The countable objects only: segments of stuff and the maps are left out.

    Raises:
        InputError: only a semantic map is known: it does not tell objects of a class apart.
    """
    if record.panoptic is None and record.semantic is not None and len(record) == 0:
        raise InputError(
            f"{record.key}: a semantic map cannot become instances: it does not say where one object of a class ends "
            "and the next begins. Annotate objects, or keep the task semantic."
        )
    things = np.array(taxonomy.thing, bool)
    return replace(_chosen(record, things[record.labels]), semantic=None, panoptic=None)


def to_panoptic(record: Record, taxonomy: Taxonomy) -> Record:
    """Segments that cover every pixel at most once: things by object, stuff by class.

    Objects are taken from small to large, each where nothing is yet; stuff fills what is left, from the semantic map;
    a pixel that is of a thing's class but of no object stays void. Objects that vanish are dropped. Ids are kept where
    all of them can be colors, else numbered anew. A panoptic map is kept as it is.

    Raises:
        InputError: an object has no outline; there is no semantic map and the taxonomy has stuff.
    """
    record = resolve(record)
    if record.panoptic is not None:
        return record
    if record.semantic is None and not all(taxonomy.thing):
        raise InputError(
            f"{record.key}: instances become panoptic segments only with a semantic map, which says what the stuff is. "
            "Merge it in, or keep the task instances."
        )
    things = np.flatnonzero(np.array(taxonomy.thing, bool)[record.labels])
    own = _chosen(record, np.isin(np.arange(len(record)), things))
    if len(own) and not 0 < own.ids.min() <= own.ids.max() <= _MOST_SEGMENTS:  # COCO's crowds have ids of 12 digits
        own = replace(own, ids=np.arange(1, len(own) + 1))
    runs = outlines_of(own)
    order = np.lexsort((rle.area(*runs), own.crowd))[::-1]  # painted first: crowd, then the largest
    ids = paint_map(*rle.take(*runs, order), own.size, own.ids[order])
    labels, segments = list(own.labels), list(own.ids)
    if isinstance(record.semantic, np.ndarray):
        free = int(own.ids.max(initial=0)) + 1
        for label in np.unique(record.semantic[record.semantic >= 0]).tolist():
            where = (ids == 0) & (record.semantic == label)
            if taxonomy.thing[label] or not where.any():
                continue
            ids[where] = free
            labels.append(label)
            segments.append(free)
            free += 1
    present = np.isin(segments, ids)
    kept_ids, kept_labels = np.array(segments, np.int64)[present], np.array(labels, np.int64)[present]
    crowd = np.zeros(len(segments), bool)
    crowd[: len(own)] = own.crowd
    counts, offsets = encode_map(ids, kept_ids)
    tracks = None
    if own.tracks is not None:
        tracks = np.full(len(segments), -1, np.int64)
        tracks[: len(own)] = own.tracks
        tracks = tracks[present]
    return replace(
        record,
        labels=kept_labels,
        ids=kept_ids,
        crowd=crowd[present],
        shapes=_shapes(counts, offsets, record.size),
        boxes=rle.boxes(counts, offsets, record.size[0]).astype(np.float32).reshape(-1, 4),
        areas=rle.area(counts, offsets).astype(np.float64),
        tracks=tracks,
        panoptic=ids,
        semantic=None,
    )


def convert(source: Loads, task: Task) -> Mapped:
    """A view of ``source`` for another task; instances leave the classes of stuff in the taxonomy, without objects.

    Raises:
        ValueError: no such task.
    """
    taxonomy = source.taxonomy
    changes: dict[str, Callable[[Record], Record]] = {
        "semantic": to_semantic,
        "instances": lambda record: to_instances(record, taxonomy),
        "panoptic": lambda record: to_panoptic(record, taxonomy),
    }
    if task not in changes:
        raise ValueError(f"a task must be one of {', '.join(changes)}, got {task!r}")
    return Mapped(source, changes[task], taxonomy)


def things_of(source: Loads) -> Loads:
    """A view of the countable objects and classes only; the source itself where there is nothing else.

    Raises:
        InputError: no class is a thing; later, where an image has a semantic map only.
    """
    old = source.taxonomy
    if all(old.thing):
        return source
    kept = [i for i, thing in enumerate(old.thing) if thing]
    if not kept:
        raise InputError("the data set has classes of stuff only, which are not counted: it has no instances to learn")
    taxonomy = Taxonomy(
        names=tuple(old.names[i] for i in kept),
        colors=tuple(old.colors[i] for i in kept),
        source_ids=tuple(old.source_ids[i] for i in kept),
    )
    move = np.full(len(old), -1, np.int64)
    move[kept] = np.arange(len(kept))

    def change(record: Record) -> Record:
        found = to_instances(record, old)
        return replace(found, labels=move[found.labels])

    return Mapped(source, change, taxonomy)


# ---- parts ----------------------------------------------------------------------------------------------------------


def outlines_of(record: Record) -> Runs:
    """The objects' masks on the record's size, in its order; ``InputError`` where one has a box only."""
    record = resolve(record)
    if any(shape is None for shape in record.shapes):
        count = sum(shape is None for shape in record.shapes)
        raise InputError(f"{record.key}: {count} objects have a box only. Masks cannot be made of boxes.")
    if not len(record):
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    pieces: list[np.ndarray] = []
    for shape in record.shapes:
        if isinstance(shape, tuple):
            pieces.append(polygons.rasterize(list(shape), record.size))
        else:
            assert isinstance(shape, dict)
            pieces.append(rle.from_coco([shape], record.size)[0])
    return np.concatenate(pieces), np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)


def _chosen(record: Record, keep: np.ndarray) -> Record:
    index = np.flatnonzero(keep)
    return replace(
        record,
        labels=record.labels[index],
        shapes=tuple(record.shapes[i] for i in index.tolist()),
        boxes=record.boxes[index],
        crowd=record.crowd[index],
        ids=record.ids[index],
        areas=record.areas[index],
        tracks=None if record.tracks is None else record.tracks[index],
    )


def _without_objects(record: Record) -> Record:
    return _chosen(record, np.zeros(len(record), bool))


def _shapes(counts: np.ndarray, offsets: np.ndarray, size: tuple[int, int]) -> tuple[Shape, ...]:
    return tuple({"size": size, "counts": o["counts"].encode("ascii")} for o in rle.to_coco(counts, offsets, size))
