"""Pascal VOC's average precision at one IoU, for boxes and masks: ``VocAP``.

M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, and the development
kit of 2010 and later; for masks (AP^r) B. Hariharan et al., "Simultaneous Detection and Segmentation", ECCV 2014.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maskwright.metrics._coco_core import mean, sort_by
from maskwright.metrics._form import Key, PerImage

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

FALSE, TRUE, UNCOUNTED = 0, 1, 2


@dataclass(slots=True)
class Kept:
    """One image: labels int32 [D], scores float64 [D], outcomes uint8 [T, D] of detections by falling score, and
    truths that count, int64 [C]."""

    label: np.ndarray
    score: np.ndarray
    outcome: np.ndarray
    positives: np.ndarray


@dataclass(slots=True)
class Joined:
    """All images: detections by class and falling score, the image of each, where classes begin; positives [I, C]."""

    image: np.ndarray
    outcome: np.ndarray
    start: np.ndarray
    positives: np.ndarray


class VocAP(PerImage[Kept, Joined]):
    """Pascal VOC's average precision of each class at one IoU or several, and its mean.

    Detections of a class take truths in order of falling score: each looks at the one truth of its image and class
    that it overlaps most. At ``thresholds`` or more it is true, or false where that truth is taken (a better match does
    not look for another one, unlike COCO). Truths that are ``difficult`` do not count, nor do detections whose best
    truth is one. Crowds of a scene are difficult.

    AP is the area under the precision made monotone (``"area"``, from 2010 on), or the mean of it at recalls 0, 0.1 ..
    1 (``"11-point"``, until 2009). Boxes lie on continuous coordinates, as everywhere in this package: the kit's
    corners are pixels, counted from 1, that belong to the box; its (x1, y1, x2, y2) is (x1 - 1, y1 - 1, x2, y2) here.

    Args:
        taxonomy: the classes, or their names.
        kind: ``"box"`` or ``"mask"``.
        thresholds: IoUs in (0, 1]; .5 for boxes, .5 and .7 are usual for masks.
        form: ``"area"`` or ``"11-point"``.

    Raises:
        ValueError: an unknown kind or form, or thresholds outside of (0, 1].
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str],
        kind: str = "box",
        thresholds: Sequence[float] = (0.5,),
        form: str = "area",
    ) -> None:
        super().__init__()
        if kind not in ("box", "mask"):
            raise ValueError(f"kind must be 'box' or 'mask', got {kind!r}")
        if form not in ("area", "11-point"):
            raise ValueError(f"form must be 'area' or '11-point', got {form!r}")
        if not thresholds or not all(0 < t <= 1 for t in thresholds):
            raise ValueError(f"thresholds must lie in (0, 1], got {list(thresholds)}")
        self.names: tuple[str, ...] = tuple(cast("Iterable[str]", getattr(taxonomy, "names", taxonomy)))
        self.kind = kind
        self.thresholds = tuple(map(float, thresholds))
        self.form = form

    def settings(self) -> Mapping[str, Any]:
        return {"taxonomy": self.names, "kind": self.kind, "thresholds": self.thresholds, "form": self.form}

    def update(
        self, predicted: Scene, truth: Scene, key: Key | None = None, difficult: np.ndarray | None = None
    ) -> None:
        """Compare one image.

        Args:
            predicted: with scores, and boxes or masks as ``kind`` says.
            truth: on the same size; crowds count as difficult.
            key: the image's id; decides between equal scores of different images.
            difficult: bool [G], truths that do not count.

        Raises:
            ValueError: sizes differ, scores, boxes or masks are missing, labels outside of the taxonomy, or ``key``
                came before.
        """
        if predicted.size != truth.size:
            raise ValueError(f"scenes to compare must share one (H, W), got {predicted.size} and {truth.size}")
        self._check_key(key)
        found, there = predicted.objects(), truth.objects()
        if len(found) and found.scores is None:
            raise ValueError("predicted objects must have scores, got none")
        sides: list[np.ndarray] = []
        for segments in (found, there):
            segments.validate(len(self.names))
            shapes = segments.boxes if self.kind == "box" else segments.masks
            if shapes is None and len(segments):
                raise ValueError(f"objects to compare as {self.kind} must have one, got none")
        if self.kind == "box":
            sides = [np.zeros((0, 4)) if s.boxes is None else s.boxes.double().numpy() for s in (found, there)]
            overlaps = box_ious(*sides)
        elif found.masks is None or there.masks is None:
            overlaps = np.zeros((len(found), len(there)))
        else:
            overlaps = found.masks.iou(there.masks).double().numpy()
        out = np.zeros(len(there), bool) if difficult is None else np.asarray(difficult, bool)
        if there.crowd is not None:
            out = out | there.crowd.numpy()
        scores = np.zeros(0) if found.scores is None else found.scores.double().numpy()
        self.update_ious(overlaps, found.labels.numpy(), scores, there.labels.numpy(), out, key)

    def update_boxes(
        self,
        boxes: np.ndarray,
        labels: np.ndarray,
        scores: np.ndarray,
        truth_boxes: np.ndarray,
        truth_labels: np.ndarray,
        difficult: np.ndarray | None = None,
        key: Key | None = None,
    ) -> None:
        """Compare one image's boxes, float [D, 4] and [G, 4] as (x1, y1, x2, y2); the rest as ``update_ious``."""
        ious = box_ious(np.asarray(boxes, np.float64), np.asarray(truth_boxes, np.float64))
        self.update_ious(ious, labels, scores, truth_labels, difficult, key)

    def update_ious(
        self,
        ious: np.ndarray,
        labels: np.ndarray,
        scores: np.ndarray,
        truth_labels: np.ndarray,
        difficult: np.ndarray | None = None,
        key: Key | None = None,
    ) -> None:
        """Compare one image whose IoUs are known.

        Args:
            ious: float [D, G].
            labels: int [D], scores: float [D] in [0, 1]; truth_labels: int [G].
            difficult: bool [G], truths that do not count.
            key: the image's id.

        Raises:
            ValueError: lengths differ, scores or labels outside of their ranges, or ``key`` came before.
        """
        self._check_key(key)
        labels, truth_labels = np.asarray(labels, np.int64), np.asarray(truth_labels, np.int64)
        scores = np.asarray(scores, np.float64)
        hard = np.zeros(len(truth_labels), bool) if difficult is None else np.asarray(difficult, bool)
        shapes = {"ious": (ious.shape, (len(labels), len(truth_labels))), "scores": (scores.shape, labels.shape)}
        shapes["difficult"] = (hard.shape, truth_labels.shape)
        for name, (got, want) in shapes.items():
            if got != want:
                raise ValueError(f"{name} must have shape {want}, got {got}")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"scores must lie in [0, 1], got {scores!r:.80}")
        for values in (labels, truth_labels):
            if ((values < 0) | (values >= len(self.names))).any():
                raise ValueError(f"labels must lie in 0 .. {len(self.names) - 1}, got {values!r:.80}")
        order = sort_by(labels, np.argsort(-scores, kind="stable"))
        outcome = np.zeros((len(self.thresholds), len(order)), np.uint8)
        same = np.where(labels[order, None] == truth_labels, ious[order], -1.0)
        if len(truth_labels):
            best, overlap = same.argmax(1), same.max(1)
            for t, threshold in enumerate(self.thresholds):
                hit = overlap >= threshold
                outcome[t, hit & hard[best]] = UNCOUNTED
                sure = np.flatnonzero(hit & ~hard[best])
                outcome[t, sure[np.unique(best[sure], return_index=True)[1]]] = TRUE
        positives = np.bincount(truth_labels[~hard], minlength=len(self.names))
        self._keep(key, Kept(labels[order].astype(np.int32), scores[order], outcome, positives))

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{kind: {"mAP": .., "AP50": .., "per_class": {name: {"AP50": .., "recall50": ..}}}, "images": I}``.

        Fractions; -1.0 where a class has no truth. ``mAP`` is the mean over thresholds and classes. An image counts as
        often as its weight says; its copies follow each other.
        """
        joined, times = self._joined(), self._weights(weights)
        count, classes = len(self.thresholds), len(self.names)
        ap, recall = np.full((classes, count), -1.0), np.full((classes, count), -1.0)
        positives = times @ joined.positives
        for k in np.flatnonzero(positives):
            rows = slice(joined.start[k], joined.start[k + 1])
            places: np.ndarray = np.arange(int(joined.start[k]), int(joined.start[k + 1]))
            each = np.repeat(places, times[joined.image[rows]])
            for t in range(count):
                outcome = joined.outcome[t, each]
                true, false = np.cumsum(outcome == TRUE), np.cumsum(outcome == FALSE)
                ap[k, t] = self._area(true, false, int(positives[k]))
                recall[k, t] = true[-1] / positives[k] if len(true) else 0.0
        names = [f"{round(100 * t)}" for t in self.thresholds]
        out: dict[str, Any] = {"mAP": mean(ap)} | {f"AP{n}": mean(ap[:, t]) for t, n in enumerate(names)}
        out["per_class"] = {
            name: {f"AP{n}": float(ap[k, t]) for t, n in enumerate(names)}
            | {f"recall{n}": float(recall[k, t]) for t, n in enumerate(names)}
            for k, name in enumerate(self.names)
        }
        return {self.kind: out, "images": int(times.sum())}

    def _area(self, true: np.ndarray, false: np.ndarray, positives: int) -> float:
        """AP from running counts of true and false detections, int [D]."""
        seen = true + false > 0  # before the first that counts, precision is not defined
        recall, precision = true[seen] / positives, true[seen] / (true[seen] + false[seen])
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        if self.form == "area":
            return float((np.diff(recall, prepend=0.0) * highest).sum())
        places = np.searchsorted(recall, np.arange(11) / 10)
        return float(np.append(highest, 0.0)[places].mean())

    def _join(self, images: Sequence[Kept]) -> Joined:
        count, classes = len(self.thresholds), len(self.names)
        label = np.concatenate([np.zeros(0, np.int32), *(image.label for image in images)])
        score = np.concatenate([np.zeros(0), *(image.score for image in images)])
        number = np.repeat(np.arange(len(images)), [len(image.label) for image in images])
        order = sort_by(label, np.argsort(-score, kind="stable"))
        outcome = np.concatenate([np.zeros((count, 0), np.uint8), *(image.outcome for image in images)], 1)[:, order]
        start = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=classes))])
        positives = np.array([image.positives for image in images], np.int64).reshape(-1, classes)
        return Joined(number[order], outcome, start, positives)


def box_ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes float64 [N, 4] and [M, 4], (x1, y1, x2, y2): float64 [N, M]; 0 where both are empty."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    sizes = [(box[:, 2:] - box[:, :2]).prod(1) for box in (a, b)]
    return shared / np.maximum(sizes[0][:, None] + sizes[1] - shared, np.finfo(np.float64).tiny)
