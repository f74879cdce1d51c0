"""From instances and a semantic map to one panoptic map: each pixel has one segment at most. No torch here.

Masks stay run-lengths and meet on one canvas, so that nothing has the size of all masks at once. A panoptic map holds
segment ids, int64 [H, W], 0 where void; ids count from 1, things by falling score first, then stuff by rising label.

    fuse        masks with scores, and the classes of what they leave (Kirillov et al. 2019, section 5)
    fuse_maps   objects that are a map already, named by what most of their pixels say (Panoptic-DeepLab, section 3.3)
    from_map    segments that competed for each pixel already
    prune       masks that lie mostly on better ones of their class disappear (UPSNet, section 3.4)
"""
# pyright: basic

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from maskwright.errors import InputError
from maskwright.ops.rle_core import Runs, canvas, checked


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """A panoptic map of S segments, whose ids are 1 .. S.

    Attributes:
        ids: int64 [H, W], 0 where void.
        labels: int64 [S], the class of each segment.
        source: int64 [S], which instance each was, -1 for stuff.
        areas: int64 [S], their pixels, never 0.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    source: NDArray[np.int64]
    areas: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


# ---- fusion ---------------------------------------------------------------------------------------------------------


def fuse(
    masks: Runs,
    labels: ArrayLike,
    scores: ArrayLike,
    stuff: NDArray[np.integer],
    *,
    score_threshold: float = 0.0,
    overlap: float = 0.5,
    stuff_area: int = 4096,
    limit: int | None = None,
) -> Fused:
    """Instances by falling score take what is free; stuff fills the rest (Kirillov et al. 2019, Panoptic FPN, 4.1).

    Args:
        masks: of N instances on (H, W), as ``ops.rle`` has them. labels, scores: [N]; equal scores keep their order.
        stuff: integers [H, W], the class of stuff at each pixel; below 0 where there is none.
        score_threshold: instances below it take no part.
        overlap: an instance disappears if more than this share of it is taken already.
        stuff_area: stuff with fewer pixels than this disappears, and what it had is void.
        limit: so many instances are left at most, the best ones.

    Raises:
        InputError: masks do not lie on the map, or numbers of masks, labels and scores differ.
    """
    classes, points = np.asarray(labels, np.int64).reshape(-1), np.asarray(scores, np.float64).reshape(-1)
    runs = _on_map(masks, stuff.shape, len(classes), len(points))
    order = np.argsort(-points, kind="stable")
    order = order[points[order] >= score_threshold]
    flat = np.zeros(stuff.size, np.int32)
    most = len(order) if limit is None else limit
    kept, areas = _claim(*runs, order, float(overlap), most, flat)
    height, width = stuff.shape
    ids = np.ascontiguousarray(flat.reshape(width, height).T, np.int64)
    return _filled(ids, classes[kept], kept, areas, stuff, stuff_area)


def fuse_maps(
    objects: NDArray[np.integer],
    semantic: NDArray[np.integer],
    thing: Sequence[bool],
    *,
    stuff_area: int = 4096,
    thing_area: int = 1,
) -> Fused:
    """Objects of no class take the one that most of their pixels have (Cheng et al. 2020, Panoptic-DeepLab, 3.3).

    Args:
        objects: integers [H, W], which object each pixel is of, 0 for none.
        semantic: integers [H, W], the class of each pixel, below 0 where void; an object has pixels of things only.
        thing: C flags. stuff_area, thing_area: segments with fewer pixels disappear.

    Returns:
        Segments of things by rising object number, their ``source`` that number; a pixel of a thing's class that is of
        no object stays void. Of classes that are equally frequent the first counts.

    Raises:
        InputError: shapes differ.
    """
    if objects.shape != semantic.shape or objects.ndim != 2:
        raise InputError(f"maps to fuse must share one [H, W], got {objects.shape} and {semantic.shape}")
    countable = np.append(np.asarray(thing, bool), False)
    classes = semantic.astype(np.int64, copy=False)
    inside = (objects > 0) & countable[np.where(classes < 0, len(countable) - 1, classes)]
    numbers, place = np.unique(objects[inside], return_inverse=True)
    votes = np.bincount(place * len(countable) + classes[inside], minlength=len(numbers) * len(countable))
    votes = votes.reshape(len(numbers), len(countable))
    areas = votes.sum(1)
    kept = np.flatnonzero(areas >= max(thing_area, 1))
    name = np.zeros(len(numbers), np.int64)
    name[kept] = np.arange(1, len(kept) + 1)
    ids = np.zeros(objects.shape, np.int64)
    ids[inside] = name[place]
    rest = np.where(countable[np.where(classes < 0, len(countable) - 1, classes)], -1, classes)
    return _filled(ids, votes[kept].argmax(1), numbers[kept].astype(np.int64), areas[kept], rest, stuff_area)


def from_map(owner: NDArray[np.integer], labels: ArrayLike, stuff: int, *, stuff_area: int = 4096) -> Fused:
    """Segments from a map that says whose each pixel is.

    Args:
        owner: integers [H, W], which of K candidates, below 0 where void.
        labels: [K], their classes; the first ``stuff`` of them are stuff, one a class, the rest instances.
        stuff_area: stuff with fewer pixels than this disappears.

    Returns:
        Segments; ``source`` of an instance is its place among instances. Those without pixels are left out.
    """
    classes = np.asarray(labels, np.int64).reshape(-1)
    areas = np.bincount(owner[owner >= 0].astype(np.int64, copy=False), minlength=len(classes))
    things = stuff + np.flatnonzero(areas[stuff:] > 0)
    name = np.zeros(len(classes) + 1, np.int64)
    name[things] = np.arange(1, len(things) + 1)
    rest = np.append(np.where(np.arange(len(classes)) < stuff, classes, -1), -1)
    return _filled(name[owner], classes[things], things - stuff, areas[things], rest[owner], stuff_area)


def prune(masks: Runs, labels: ArrayLike, scores: ArrayLike, size: tuple[int, int], overlap: float = 0.3) -> np.ndarray:
    """Instances that stay, int64 by falling score: no more of them than ``overlap`` lies on kept ones of their class.

    UPSNet, section 3.4, mask pruning. Empty masks do not stay.

    Args:
        masks: of N instances on ``size`` (H, W). labels, scores: [N]; equal scores keep their order.

    Raises:
        InputError: masks do not lie on ``size``, or numbers of masks, labels and scores differ.
    """
    classes, points = np.asarray(labels, np.int64).reshape(-1), np.asarray(scores, np.float64).reshape(-1)
    runs = _on_map(masks, size, len(classes), len(points))
    order = np.argsort(-points, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    kept: list[np.ndarray] = []
    flat = np.zeros(size[0] * size[1], np.int32)
    for label in np.unique(classes):
        flat[:] = 0
        kept.append(_claim(*runs, order[classes[order] == label], float(overlap), len(order), flat, True)[0])
    found = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    return found[np.argsort(rank[found])]


def _on_map(masks: Runs, size: Sequence[int], *numbers: int) -> Runs:
    if len(size) != 2:
        raise InputError(f"a panoptic map must have shape [H, W], got {tuple(size)}")
    frames, height, width = canvas(size)
    runs = checked(*masks, frames * height * width)
    if any(number != len(runs[1]) - 1 for number in numbers):
        raise InputError(
            f"labels and scores must be one per mask ({len(runs[1]) - 1}), got {', '.join(map(str, numbers))}"
        )
    return runs


def _filled(
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    source: NDArray[np.int64],
    areas: NDArray[np.int64],
    stuff: NDArray[np.integer],
    least: int,
) -> Fused:
    """Things [H, W] with ids 1 .. K, and stuff where nothing is yet."""
    free = (ids == 0) & (stuff >= 0)
    counts = np.bincount(stuff[free].astype(np.int64, copy=False))
    there = np.flatnonzero(counts >= max(least, 1))
    name = np.zeros(max(len(counts), 1), np.int64)
    name[there] = len(labels) + np.arange(1, len(there) + 1)
    ids[free] = name[stuff[free]]
    return Fused(
        ids=ids,
        labels=np.concatenate((labels, there)).astype(np.int64),
        source=np.concatenate((source, np.full(len(there), -1))).astype(np.int64),
        areas=np.concatenate((areas, counts[there])).astype(np.int64),
    )


@njit(cache=True, nogil=True)
def _claim(counts, offsets, order, overlap, limit, out, shared=False):
    """Masks take free pixels of ``out`` one after the other; which did, and how many each has.

    With ``shared`` a mask's area is what it covers, whoever took it first.
    """
    kept = np.empty(len(order), np.int64)
    areas = np.empty(len(order), np.int64)
    number = 0
    for k in range(len(order)):
        if number >= limit:
            break
        mask = order[k]
        first, last = offsets[mask], offsets[mask + 1]
        at, area, free = 0, 0, 0
        for r in range(first, last):
            if (r - first) % 2 == 1:
                area += counts[r]
                for p in range(at, at + counts[r]):
                    free += out[p] == 0
            at += counts[r]
        if area == 0 or (area - free) / area > overlap or free == 0:
            continue
        kept[number] = mask
        areas[number] = area if shared else free
        number += 1
        at = 0
        for r in range(first, last):
            if (r - first) % 2 == 1:
                for p in range(at, at + counts[r]):
                    if out[p] == 0:
                        out[p] = number
            at += counts[r]
    return kept[:number].copy(), areas[:number].copy()


# ---- ids and colors -------------------------------------------------------------------------------------------------


def ids_to_rgb(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Segment ids [H, W] as COCO's colors, uint8 [H, W, 3]: red + 256 green + 65536 blue.

    Raises:
        ValueError: an id below 0 or above 2^24 - 1.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << 24):
        raise ValueError(f"segment ids must lie in 0..{(1 << 24) - 1}, got {int(ids.min())}..{int(ids.max())}")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def rgb_to_ids(colors: NDArray[np.integer]) -> NDArray[np.int64]:
    """``ids_to_rgb`` undone: int64 [H, W]."""
    wide = colors.astype(np.int64)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
