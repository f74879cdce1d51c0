"""What the panoptic measures share: counted pairs of ids, matched segments, quality of the sums. numpy, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics._native import Kernels

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

kernels = Kernels("_map_kernels")
FULL, INSIDE, ODD = -1, -1, 1 << 40  # as in _map_kernels, which imports numba


@dataclass(frozen=True, slots=True)
class Classes:
    """What the measures need of a taxonomy: names, and which are things."""

    names: tuple[str, ...]
    thing: tuple[bool, ...]

    @classmethod
    def of(cls, taxonomy: Taxonomy | Sequence[str], thing: Sequence[bool] | None) -> Classes:
        """Those of a taxonomy, or of names; ``thing`` overrules the taxonomy, without either all are things.

        Raises:
            ValueError: there is not one flag a class.
        """
        listed: Any = getattr(taxonomy, "names", taxonomy)
        names: tuple[str, ...] = tuple(listed)
        known: Sequence[bool] = getattr(taxonomy, "thing", (True,) * len(names)) if thing is None else thing
        if len(known) != len(names):
            raise ValueError(f"thing must be one flag a class ({len(names)}), got {len(known)}")
        return cls(names, tuple(bool(flag) for flag in known))

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class MapSegments:
    """What is known of the segments of a map of ids.

    Attributes:
        ids: int64 [N], above 0 and distinct.
        labels: int64 [N], dense classes 0..C-1.
        crowd: bool [N], regions of many objects; ``None``: none are.
        areas: int64 [N], annotated pixels; ``None`` or -1: those in the map count. COCO's files annotate them.

    Raises:
        ValueError: lengths differ, or ids repeat or are not above 0, or a label is negative.
    """

    ids: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("ids", "labels", "crowd", "areas"):
            value = getattr(self, name)
            if value is None:
                continue
            array = np.asarray(value)
            if array.shape != (len(self.ids),) or (array.size and array.dtype.kind not in "iub"):
                raise ValueError(f"{name} must be one integer a segment ({len(self.ids)}), got {array!r:.80}")
            object.__setattr__(self, name, np.ascontiguousarray(array, bool if name == "crowd" else np.int64))
        if len(self) and (self.ids.min() <= 0 or len(set(self.ids.tolist())) < len(self)):
            raise ValueError(f"ids must be above 0 (0 is void) and distinct, got {self.ids[:20].tolist()}")
        if len(self) and self.labels.min() < 0:
            raise ValueError(f"labels must be dense, 0..C-1, got {self.labels[:20].tolist()}")

    def __len__(self) -> int:
        return len(self.ids)

    def is_crowd(self) -> np.ndarray:
        """``crowd``, also where none was given."""
        return np.zeros(len(self), bool) if self.crowd is None else self.crowd

    def take(self, keep: np.ndarray) -> MapSegments:
        """The segments of a bool mask or integer index."""
        return MapSegments(
            self.ids[keep],
            self.labels[keep],
            None if self.crowd is None else self.crowd[keep],
            None if self.areas is None else self.areas[keep],
        )

    def places(self, ids: np.ndarray) -> np.ndarray:
        """For each of ``ids`` its place + 1, 0 for void (id 0), -1 for an unknown id."""
        if not len(self):
            return np.where(ids == 0, 0, -1)
        order = np.argsort(self.ids)
        at = np.minimum(np.searchsorted(self.ids, ids, sorter=order), len(self) - 1)
        found = order[at]
        return np.where(ids == 0, 0, np.where(self.ids[found] == ids, found + 1, -1))

    def check(self, pairs: np.ndarray, side: int, classes: int, what: str) -> None:
        """Say what column ``side`` of counted pairs and this list do not agree on.

        Raises:
            ValueError: an id of the map is not listed, a listed one is not in it, a label is no class, or an annotated
                area is less than the pixels.
        """
        wrong = self.labels[self.labels >= classes]
        if wrong.size:
            raise ValueError(f"{what} labels must lie in 0..{classes - 1}, got {wrong[:5].tolist()}")
        places = self.places(pairs[:, side])
        unknown = np.unique(pairs[places < 0, side])
        if unknown.size:
            raise ValueError(f"ids of the {what} map must be listed as segments, but not {unknown[:5].tolist()}")
        pixels = np.bincount(places, pairs[:, 2], len(self) + 1)[1:]
        absent = self.ids[pixels == 0]
        if absent.size:
            raise ValueError(f"listed {what} segments must have pixels in the map, but not {absent[:5].tolist()}")
        less = self.ids[(self.areas >= 0) & (self.areas < pixels)] if self.areas is not None else absent
        if less.size:
            raise ValueError(f"annotated areas must count all pixels, but not those of {less[:5].tolist()}")


def as_map(values: np.ndarray, what: str) -> np.ndarray:
    """``values`` as int32 or int64 in C order.

    Raises:
        ValueError: they are not integers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"a {what} map must hold integer ids, got {array.dtype}")
    narrow = array.dtype.itemsize < 4 or array.dtype == np.int32
    array = array.astype(np.int32 if narrow else np.int64, copy=False)
    return np.ascontiguousarray(array)


def count_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The pairs of ids that lie upon each other in two maps of one shape: int64 [M, 3] rising, with their pixels.

    Args:
        first, second: int32 or int64, in C order.
    """
    if first.dtype != second.dtype:
        first, second = first.astype(np.int64), second.astype(np.int64)
    name, capacity = f"count{8 * first.dtype.itemsize}", 1 << 10
    while True:
        table = np.zeros((capacity, 3), np.int64)
        used = kernels(name, first.ctypes.data, second.ctypes.data, first.size, table.ctypes.data, capacity)
        if used != FULL:
            pairs = table[:used]
            return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        capacity *= 4


def reach_of(height: int, width: int, dilation: float) -> int:
    """How many pixels a boundary is wide: a fraction of the image's diagonal, at least 1."""
    return max(1, round(dilation * float(np.sqrt(height**2 + width**2))))


def count_rims(first: np.ndarray, second: np.ndarray, reach: int) -> np.ndarray:
    """As ``count_pairs``, with ``INSIDE`` for what lies deeper than ``reach`` in its segment; void (0) stays as it is.

    A rim is what ``reach`` erosions by 3 x 3, with nothing beyond the frame, take away (B. Cheng et al., "Boundary
    IoU", CVPR 2021, section 4).
    """
    height, width = first.shape
    deep = np.empty(width, np.int64)
    rims = [np.empty_like(ids) for ids in (first, second)]
    for ids, out in zip((first, second), rims, strict=True):
        kernels(
            f"rims{8 * ids.dtype.itemsize}", ids.ctypes.data, height, width, reach, deep.ctypes.data, out.ctypes.data
        )
    return count_pairs(rims[0], rims[1])


def tally(
    pairs: np.ndarray, rims: np.ndarray | None, truth: MapSegments, predicted: MapSegments, classes: int
) -> tuple[np.ndarray, bool]:
    """Match the segments of one image and count for each class, as panopticapi's ``pq_compute`` does.

    Segments of one class match where their IoU is above 0.5; the union leaves out what of the prediction lies on void.
    Crowds are neither found nor missed. A prediction that is not matched counts as false unless more than half of it
    lies on void and the crowd of its class - on the one listed last, where a class has several.

    Args:
        pairs: from ``count_pairs``: truth, prediction, pixels. Ids that are not listed are void.
        rims: from ``count_rims``: the IoU is then the smaller of that of areas and of rims.
        truth, predicted: the segments; those without pixels do not count. A union counts stated ``areas`` (-1: none).
        classes: how many there are.

    Returns:
        float64 [S, 5]: class, sum of matched IoU, true positives, false positives, false negatives, for classes that
        have any; and whether maps and lists agree: all ids listed and all listed there, classes in range, no stated
        area less than the pixels. Where they do not ``MapSegments.check`` says what is wrong.
    """
    count_t, count_p = len(truth), len(predicted)
    work = np.zeros(2 * len(pairs) + 3 * count_t + 6 * count_p + classes, np.int64)
    sums, out = np.zeros(4 * classes), np.empty((count_t + count_p, 5))
    thin = pairs if rims is None else rims
    areas = np.full(count_t, -1) if truth.areas is None else truth.areas
    orders = np.argsort(truth.ids), np.argsort(predicted.ids)
    crowd = truth.is_crowd()
    rows = kernels(
        "tally",
        *(pairs.ctypes.data, len(pairs), thin.ctypes.data, -1 if rims is None else len(rims)),
        *(a.ctypes.data for a in (truth.ids, orders[0], truth.labels, crowd, areas)),
        *(count_t, predicted.ids.ctypes.data, orders[1].ctypes.data, predicted.labels.ctypes.data, count_p),
        *(classes, work.ctypes.data, sums.ctypes.data, out.ctypes.data),
    )
    return out[: rows % ODD].copy(), rows < ODD


@dataclass(slots=True)
class Tallies:
    """The rows of ``tally`` of many images: ``image`` and ``label`` int64 [E], ``values`` float64 [4, E]."""

    image: np.ndarray
    label: np.ndarray
    values: np.ndarray

    @classmethod
    def join(cls, images: Sequence[np.ndarray]) -> Tallies:
        """Those of ``images``, in their order."""
        rows = np.concatenate([np.zeros((0, 5)), *images])
        image = np.repeat(np.arange(len(images)), [len(part) for part in images])
        return cls(image, rows[:, 0].astype(np.int64), np.ascontiguousarray(rows[:, 1:].T))

    def figures(self, weights: np.ndarray, classes: Classes) -> dict[str, Any]:
        """PQ, SQ, RQ over all classes, things and stuff, and for each; -1.0 where there is nothing."""
        times = weights[self.image]
        iou, tp, fp, fn = (np.bincount(self.label, v * times, len(classes.names)) for v in self.values)
        known = tp + fp + fn > 0
        total = np.where(known, tp + 0.5 * fp + 0.5 * fn, 1.0)
        figures = {"PQ": iou / total, "SQ": iou / np.maximum(tp, 1.0), "RQ": tp / total}
        thing = np.array(classes.thing, bool)
        out: dict[str, Any] = {}
        for suffix, group in (("", known), ("_things", known & thing), ("_stuff", known & ~thing)):
            out |= {f"{k}{suffix}": float(v[group].mean()) if group.any() else -1.0 for k, v in figures.items()}
        rows = np.where(known, np.stack(list(figures.values())), -1.0).T.tolist()
        out["per_class"] = {n: dict(zip(figures, row, strict=True)) for n, row in zip(classes.names, rows, strict=True)}
        return out


def panoptic_of(scene: Scene, what: str, *, ignore: bool = False) -> tuple[np.ndarray, MapSegments]:
    """The map of a scene and its segments; with ``ignore``, its ignored regions are void.

    Raises:
        ValueError: the map, the segments or their ids are unknown.
    """
    segments = scene.segments
    if scene.panoptic is None or segments is None or segments.ids is None:
        raise ValueError(f"the {what} scene must have a panoptic map and segments with ids; something of it is unknown")
    crowd = None if segments.crowd is None else segments.crowd.cpu().numpy()
    listed = MapSegments(segments.ids.cpu().numpy(), segments.labels.cpu().numpy(), crowd)
    ids = scene.panoptic.cpu().numpy()
    if ignore and scene.ignore is not None and len(scene.ignore):
        ids = np.where(scene.ignore.dense().numpy().any(0), 0, ids)
        listed = listed.take(np.isin(listed.ids, ids))
    return as_map(ids, what), listed
