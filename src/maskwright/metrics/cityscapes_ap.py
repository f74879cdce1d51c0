"""Cityscapes' instance average precision: ``CityscapesAP``. ``metrics.cityscapes_files`` makes one of files.

Equal to ``evalInstanceLevelSemanticLabeling.py`` of cityscapesScripts without distances (M. Cordts et al., "The
Cityscapes Dataset", CVPR 2016, section 4.2). AP at 50 m and at 100 m are not offered: they need the depth of every
annotated object, which scenes and id maps do not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics._form import Key, PerImage
from maskwright.metrics.average_precision import Objects

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

IDS: Mapping[str, int] = {
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33
}  # fmt: skip
"""The classes whose objects Cityscapes compares, and their label ids."""

VOID = (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
"""Label ids that do not count in Cityscapes."""

_FALSE, _TRUE, _UNCOUNTED = 0, 1, 2


class IdMap:
    """An id map taken apart: which ids it has, how large they are, and how much of each lies under a mask.

    Args:
        ids: int [H, W]: class * 1000 + n for an object, below 1000 for the rest (stuff, void, groups of objects).

    Attributes:
        ids: int64 [U], rising. areas: int64 [U], pixels.

    Raises:
        ValueError: ``ids`` is no integer map, or spans more than 2^20 ids.
    """

    def __init__(self, ids: np.ndarray) -> None:
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(f"an id map must be integers [H, W], got {ids.dtype} {ids.shape}")
        low = int(ids.min()) if ids.size else 0
        high = int(ids.max()) if ids.size else -1
        if high - low >= 1 << 20:
            raise ValueError(f"ids must be class * 1000 + n, got {low} .. {high}")
        places = (ids.ravel() if low == 0 else ids.ravel().astype(np.int64) - low).astype(np.intp)
        counts = np.bincount(places, minlength=high - low + 1)
        there = np.flatnonzero(counts)
        names = np.zeros(len(counts), np.int32)
        names[there] = np.arange(len(there))
        self.shape = ids.shape
        self.ids = there + low
        self.areas = counts[there]
        self._places = names[places].reshape(ids.shape)

    def under(self, mask: np.ndarray) -> np.ndarray:
        """How many pixels of each id lie under ``mask`` (bool [H, W]): int64 [U]."""
        rows = np.flatnonzero(mask.any(1))
        if not rows.size:
            return np.zeros(len(self.ids), np.int64)
        span = slice(int(rows[0]), int(rows[-1]) + 1)
        return np.bincount(self._places[span][mask[span]], minlength=len(self.ids))


@dataclass(slots=True)
class Overlaps:
    """How the D detections of an image meet its G truths and its void.

    Attributes:
        labels: int64 [D], the place of the class. scores: float64 [D] in [0, 1]. areas: int64 [D], pixels, above 0.
        truth_labels: int64 [G]. truth_areas: int64 [G]. group: bool [G], regions of many objects.
        common: int64 [D, G], shared pixels. void: int64 [D], pixels on void.
    """

    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    truth_labels: np.ndarray
    truth_areas: np.ndarray
    group: np.ndarray
    common: np.ndarray
    void: np.ndarray


@dataclass(slots=True)
class Kept:
    """One image: labels int64 [D], scores float64 [D], flags uint8 [D, T] (false, true, uncounted) and truths that
    count, int64 [K]."""

    labels: np.ndarray
    scores: np.ndarray
    flags: np.ndarray
    truths: np.ndarray


@dataclass(slots=True)
class Joined:
    """All images: detections of each class by rising score, and where each score begins.

    Attributes:
        image: int64 [D]. flags: uint8 [D, T]. starts: int64 [K + 1], where each class begins.
        scores: for each class the places, from its start on, at which another score begins.
        truths: int64 [I, K].
    """

    image: np.ndarray
    flags: np.ndarray
    starts: np.ndarray
    scores: list[np.ndarray]
    truths: np.ndarray


class CityscapesAP(PerImage[Kept, Joined]):
    """Cityscapes' AP and AP50 of instances, over all classes and for each.

    The rules, where they differ from COCO's: IoU must exceed a threshold (.5 to .95 in steps of .05); of all detections
    that match a truth the best-scored is true and the others are false; truths below ``min_region`` pixels do not
    count; a detection without a match is left out when more than the threshold's share of it lies on void, on groups
    and on small truths of its class; detections of equal score enter the curve together; precision is integrated over
    recall by steps centered on its points, without an envelope.

    Args:
        taxonomy: classes and the ids that id maps know them by: ``{name: id}``, or a ``Taxonomy``, of which the things
            are compared. Labels of scenes are dense in it.
        void: label ids of id maps that do not count; as in the official script it is the pixel's id that must be one,
            so numbered caravans (29001) are not void.
        min_region: pixels from which on a truth counts.

    Raises:
        ValueError: there are no classes, or ``min_region`` is negative.
    """

    def __init__(
        self, taxonomy: Taxonomy | Mapping[str, int] = IDS, *, void: Sequence[int] = VOID, min_region: int = 100
    ) -> None:
        super().__init__()
        if isinstance(taxonomy, Mapping):
            names, ids, things = tuple(taxonomy), tuple(taxonomy.values()), (True,) * len(taxonomy)
        else:
            names, ids, things = taxonomy.names, taxonomy.source_ids, taxonomy.thing
        if not any(things) or min_region < 0:
            raise ValueError(f"there must be classes of things, and min_region >= 0, got {names} and {min_region}")
        self.taxonomy = taxonomy
        self.names = tuple(name for name, thing in zip(names, things, strict=True) if thing)
        self.ids = tuple(i for i, thing in zip(ids, things, strict=True) if thing)
        self.void = tuple(int(i) for i in void)
        self.min_region = int(min_region)
        self.thresholds = np.arange(0.5, 1.0, 0.05)  # the official floats, 0.6 being 0.6000000000000001
        self._place = np.cumsum(things) - 1
        self._place[~np.array(things)] = -1

    def settings(self) -> Mapping[str, Any]:
        return {"classes": self.names, "ids": self.ids, "void": self.void, "min_region": self.min_region}

    # ---- images -----------------------------------------------------------------------------------------------------

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare one image.

        Args:
            predicted: segments with masks and scores.
            truth: segments with masks; ``crowd`` marks groups. Void is what its ``ignore`` covers and where its
                ``semantic`` is -1, as far as it has these.
            key: the image's id.

        Raises:
            ValueError: sizes differ, masks or scores are missing, values lie outside of their ranges, or ``key`` came
                before.
        """
        from maskwright.ops import rle

        if predicted.size != truth.size or len(truth.size) != 2:
            raise ValueError(f"scenes to compare must share one (H, W), got {predicted.size} and {truth.size}")
        self._check_key(key)
        found, there = predicted.objects(), truth.objects()
        for segments in (found, there):
            segments.validate(len(self._place))
            if segments.masks is None:
                raise ValueError("objects to compare must have masks, got none")
        assert found.masks is not None
        assert there.masks is not None
        if len(found) and found.scores is None:
            raise ValueError("predicted objects must have scores in [0, 1], got none")
        runs, truth_runs = ((m.counts.numpy(), m.offsets.numpy()) for m in (found.masks, there.masks))
        areas, height = rle.area(*runs), truth.size[0]
        void = np.zeros(len(areas), np.int64)
        covers = [] if truth.ignore is None else [(truth.ignore.counts.numpy(), truth.ignore.offsets.numpy())]
        if truth.semantic is not None:
            covers.append(rle.encode((truth.semantic < 0).cpu().numpy()[None]))
        counts = np.concatenate([np.zeros(0, np.int32), *(c for c, _ in covers)])
        lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(o) for _, o in covers)])
        if len(lengths):
            whole = rle.union(counts, np.concatenate([[0], np.cumsum(lengths)]))
            void = rle.intersection(*runs, whole, np.array([0, len(whole)]), height=height)[:, 0]
        scores = np.zeros(0) if found.scores is None else found.scores.detach().cpu().double().numpy()
        crowd = np.zeros(len(there), bool) if there.crowd is None else there.crowd.cpu().numpy()
        overlaps = Overlaps(
            self._place[found.labels.cpu().numpy()], scores, areas,
            self._place[there.labels.cpu().numpy()], rle.area(*truth_runs), crowd,
            rle.intersection(*runs, *truth_runs, height=height), void,
        )  # fmt: skip
        self.update_overlaps(overlaps, key)

    def update_arrays(self, predicted: Objects, truth: np.ndarray, key: Key | None = None) -> None:
        """Compare one image, given as arrays.

        Args:
            predicted: labels, the places of classes in the taxonomy; scores and masks.
            truth: an id map, int [H, W], as ``*_instanceIds.png`` hold one (see ``IdMap``).
            key: the image's id.

        Raises:
            ValueError: as ``update`` does.
        """
        self._check_key(key)
        ids = IdMap(truth)
        labels = np.asarray(predicted.labels, np.int64)
        masks = predicted.masks
        if masks is None or masks.shape != (len(labels), *ids.shape):
            got = None if masks is None else masks.shape
            raise ValueError(f"masks must be {(len(labels), *ids.shape)}, got {got}")
        if labels.ndim != 1 or ((labels < 0) | (labels >= len(self._place))).any():
            raise ValueError(f"labels must be [N], dense in 0 .. {len(self._place) - 1}, got {labels!r:.80}")
        under = np.array([ids.under(np.asarray(mask, bool)) for mask in masks]).reshape(len(labels), len(ids.ids))
        scores = np.zeros(0) if predicted.scores is None else np.asarray(predicted.scores, np.float64)
        self.update_overlaps(self.overlaps(ids, self._place[labels], scores, under), key)

    def overlaps(self, ids: IdMap, labels: np.ndarray, scores: np.ndarray, under: np.ndarray) -> Overlaps:
        """What ``update_overlaps`` takes, of an id map.

        Args:
            labels: int64 [D], places in ``names``, or -1 for other classes. scores: float64 [D].
            under: int64 [D, U], what ``IdMap.under`` gives for each detection's mask.
        """
        group = ids.ids < 1000
        classes = np.where(group, ids.ids, ids.ids // 1000)
        truth_labels = np.full(len(classes), -1)
        for place, number in enumerate(self.ids):
            truth_labels[classes == number] = place
        void = under[:, np.isin(ids.ids, self.void)].sum(1)
        return Overlaps(labels, scores, under.sum(1), truth_labels, ids.areas, group, under, void)

    def update_overlaps(self, overlaps: Overlaps, key: Key | None = None) -> None:
        """Compare one image whose common pixels are known; labels are places in ``names``, -1 for other classes.

        Raises:
            ValueError: scores are missing or outside of [0, 1], or ``key`` came before.
        """
        scores = overlaps.scores
        if scores.shape != overlaps.labels.shape or not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"predicted objects must have scores in [0, 1], one each, got {scores!r:.80}")
        self._keep(key, self._match(overlaps))

    def _match(self, o: Overlaps) -> Kept:
        small = o.truth_areas < self.min_region
        counts = ~o.group & ~small & (o.truth_labels >= 0)
        truths = np.bincount(o.truth_labels[counts], minlength=len(self.names))
        rows = np.flatnonzero((o.labels >= 0) & (o.areas > 0))
        labels, scores, areas = o.labels[rows], o.scores[rows], o.areas[rows]
        common = np.where(labels[:, None] == o.truth_labels, o.common[rows], 0)
        flags = np.zeros((len(rows), len(self.thresholds)), np.uint8)
        if not len(rows):
            return Kept(labels, scores, flags, truths)
        # A small group counts twice in the official script, and here.
        ignored = (o.void[rows] + common @ (o.group.astype(np.int64) + small)) / areas
        best = np.zeros(len(rows), np.int64)
        overlap = np.zeros(len(rows))
        if common.shape[1]:
            ious = common / np.maximum(areas[:, None] + o.truth_areas - common, 1)
            best = ious.argmax(1)
            overlap = ious[np.arange(len(rows)), best]
        by_score = np.argsort(-scores, kind="stable")
        for t, threshold in enumerate(self.thresholds):
            matched = overlap > threshold
            flags[~matched & (ignored > threshold), t] = _UNCOUNTED
            flags[matched, t] = np.where(counts[best[matched]], _FALSE, _UNCOUNTED)
            order = by_score[matched[by_score]]
            _, first = np.unique(best[order], return_index=True)
            winners = order[first]
            flags[winners[counts[best[winners]]], t] = _TRUE
        return Kept(labels, scores, flags, truths)

    # ---- figures ----------------------------------------------------------------------------------------------------

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"mask": {"AP": .., "AP50": .., "per_class": {name: {"AP": .., "AP50": ..}}}, "images": I}``.

        Figures are fractions; -1.0 where there is no truth, and such classes do not enter the mean.
        """
        times = self._weights(weights)
        joined = self._joined()
        truths = times @ joined.truths
        each = times[joined.image]
        precision = np.full((len(self.names), len(self.thresholds)), -1.0)
        for k in np.flatnonzero(truths):
            span = slice(int(joined.starts[k]), int(joined.starts[k + 1]))
            precision[k] = _integrated(joined.flags[span], each[span], joined.scores[k], int(truths[k]))
        known = precision[truths > 0]
        out: dict[str, Any] = {"AP": float(known.mean()) if len(known) else -1.0}
        out["AP50"] = float(known[:, 0].mean()) if len(known) else -1.0
        rows = zip(self.names, precision, strict=True)
        out["per_class"] = {name: {"AP": float(row.mean()), "AP50": float(row[0])} for name, row in rows}
        return {"mask": out, "images": int(times.sum())}

    def _join(self, images: Sequence[Kept]) -> Joined:
        count_t, count_k = len(self.thresholds), len(self.names)
        image = np.repeat(np.arange(len(images)), [len(kept.labels) for kept in images])
        labels = np.concatenate([np.zeros(0, np.int64), *(kept.labels for kept in images)])
        scores = np.concatenate([np.zeros(0), *(kept.scores for kept in images)])
        flags = np.concatenate([np.zeros((0, count_t), np.uint8), *(kept.flags for kept in images)])
        order = np.lexsort((scores, labels))
        starts = np.searchsorted(labels[order], np.arange(count_k + 1))
        parts = (scores[order[a:b]] for a, b in pairwise(starts.tolist()))
        borders = [np.flatnonzero(np.diff(part, prepend=-1.0)) for part in parts]
        truths = np.array([kept.truths for kept in images], np.int64).reshape(-1, count_k)
        return Joined(image[order], flags[order], starts, borders, truths)


def _integrated(flags: np.ndarray, times: np.ndarray, borders: np.ndarray, truths: int) -> np.ndarray:
    """The area under the curve for each threshold, float64 [T].

    Args:
        flags: uint8 [D, T], by rising score. times: int64 [D], how often each counts.
        borders: int64 [U], where each score begins. truths: how many there are, above 0.
    """
    if not len(borders):
        return np.zeros(flags.shape[1:], np.float64)

    def reached(kind: int) -> np.ndarray:  # everything from a score on, for each score; exact, being integers
        each: np.ndarray = np.add.reduceat((flags == kind) * times[:, None], borders, 0)
        return np.cumsum(each[::-1], 0)[::-1]

    true, false = reached(_TRUE), reached(_FALSE)
    # The curve begins at precision 1 and recall 0. A score that nothing at this threshold has repeats its neighbor, and
    # a repeated point does not change the sum.
    found = true + false
    precision = np.where(found > 0, true / np.maximum(found, 1), 1.0)
    recall = true / truths
    after = np.concatenate([recall[1:], np.zeros((2, recall.shape[1]))])
    before = np.concatenate([recall[:1], recall])
    widths = 0.5 * (before - after)
    return np.sum(precision * widths[:-1], axis=0) + widths[-1]
