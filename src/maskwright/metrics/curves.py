"""Precision and recall of compared images: numpy and kernels, no torch.

``Matches`` is what is kept of compared images, ``accumulate`` turns it into ``Curves`` under any weights of the images,
``figures`` turns those into the numbers people quote. With ``Rules()`` all equal pycocotools' ``COCOeval`` (T.-Y. Lin
et al., "Microsoft COCO", 2014) to the last few bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from maskwright.metrics._native import Kernels, processors, run_threads

kernels = Kernels("_number_kernels", "_json_kernels", "_shape_kernels", "_boundary_kernels", "_match_kernels")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is compared at which bounds; the defaults are COCO's.

    Attributes:
        thresholds: T rising IoUs in (0, 1] from which on a detection finds a truth.
        areas: A size classes in pixels, both ends included; the first is the one that the main figures speak of.
        area_names: how each size class ends the name of its figures: "" or "_small".
        limits: M rising numbers of detections (of one class in one image) at which recall is stated; beyond the last
            one none counts.
        recalls: R rising recalls in [0, 1] at which precision is taken.

    Raises:
        ValueError: bounds that do not rise, or lie outside of these ranges.
    """

    thresholds: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
    areas: tuple[tuple[float, float], ...] = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
    area_names: tuple[str, ...] = ("", "_small", "_medium", "_large")
    limits: tuple[int, ...] = (1, 10, 100)
    recalls: tuple[float, ...] = tuple(np.linspace(0.0, 1.0, 101).tolist())

    def __post_init__(self) -> None:
        for name, low, high in (("thresholds", 0.0, 1.0), ("limits", 0, 1 << 31), ("recalls", -1e-300, 1.0)):
            values = getattr(self, name)
            rising = all(a < b for a, b in pairwise(values))
            if not values or not rising or not (values[0] > low and values[-1] <= high):
                first = "0" if name == "recalls" else "more than 0"
                raise ValueError(f"{name} must rise from {first} to {high:g} at most, got {list(values)}")
        if not self.areas or len(self.areas) != len(self.area_names) or not all(a <= b for a, b in self.areas):
            raise ValueError(
                f"areas must be (lowest, highest), with a name each, got {self.areas} and {self.area_names}"
            )

    def at(self, threshold: float) -> int | None:
        """The place of ``threshold`` among the thresholds, ``None`` where it is not one of them."""
        near = [t for t, value in enumerate(self.thresholds) if abs(value - threshold) < 1e-9]
        return near[0] if near else None


COCO = Rules()


def limits_for(max_detections: int) -> tuple[int, ...]:
    """The numbers of detections at which recall is stated: (1, 10, 100) for 100, (1, 10, 400) for 400."""
    return (*(k for k in (1, 10) if k < max_detections), max_detections)


@dataclass(slots=True)
class Matches:
    """What is kept of compared images: D detections, sorted by image, class and falling score, and G truths.

    Attributes:
        image: int [D], position of the image; label: int [D]; score: float64 [D]; rank: int [D] of the detection
            in its image and class, -1 beyond the limit; flags: uint8 [D, A, T], 0 false, 1 true, 2 not counted.
        truth_image, truth_label: int [G]; truth_counts: uint8 [G, A], 1 where a truth counts.
        classes: how many classes there are (K).
        areas: float64 [D], the pixels that a detection's size class goes by; ``None`` where nobody asked.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    flags: np.ndarray
    truth_image: np.ndarray
    truth_label: np.ndarray
    truth_counts: np.ndarray
    classes: int
    areas: np.ndarray | None = None
    _sorted: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def found(self, keep: np.ndarray) -> Matches:
        """These matches with only the detections of a bool mask, [D]."""
        own = {name: getattr(self, name)[keep] for name in ("image", "label", "score", "rank", "flags")}
        return replace(self, **own, areas=None if self.areas is None else self.areas[keep], _sorted=None)

    def positives(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Truths that count, int64 [K, A]; an image counts as often as ``weights`` (int [I]) says."""
        times = None if weights is None else weights[self.truth_image]
        counts: list[np.ndarray] = []
        for counted in self.truth_counts.T:
            each = counted if times is None else counted * times
            counts.append(np.bincount(self.truth_label, each, self.classes).round().astype(np.int64))
        return np.stack(counts, 1) if counts else np.zeros((self.classes, 0), np.int64)

    def by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Detections by class and falling score, those of equal score in order of their images: int64 [D]; where each
        class begins, int64 [K + 1]; and the ranks as int64 [D]. Kept for the next call."""
        if self._sorted is None:
            order = sort_by(self.label, np.argsort(-self.score, kind="stable"))
            start = np.zeros(self.classes + 1, np.int64)
            np.cumsum(np.bincount(self.label, minlength=self.classes), out=start[1:])
            self._sorted = order, start, self.rank.astype(np.int64, copy=False)
        return self._sorted


def join(parts: Sequence[Matches], classes: int, rules: Rules = COCO) -> Matches:
    """Images compared one by one as one; each part is one image."""

    def numbers(name: str) -> np.ndarray:
        return np.repeat(np.arange(len(parts), dtype=np.int32), [len(getattr(part, name)) for part in parts])

    def joined(name: str, kind: type[np.generic], *shape: int) -> np.ndarray:
        none: np.ndarray = np.zeros((0, *shape), kind)
        own: list[np.ndarray] = [none, *(getattr(part, name) for part in parts)]
        return np.concatenate(own)

    count_a, count_t = len(rules.areas), len(rules.thresholds)
    return Matches(
        numbers("label"), joined("label", np.int32), joined("score", np.float64), joined("rank", np.int32),
        joined("flags", np.uint8, count_a, count_t),
        numbers("truth_label"), joined("truth_label", np.int32), joined("truth_counts", np.uint8, count_a),
        classes,
    )  # fmt: skip


def sort_by(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """``order`` sorted by non-negative ``keys``, equal ones as they were (numpy sorts 16 bits in linear time)."""
    small = keys.max(initial=0) < 1 << 16
    return order[np.argsort(keys.astype(np.uint16)[order] if small else keys[order], kind="stable")]


@dataclass(slots=True)
class Curves:
    """Precision and recall of K classes, -1 where a class has no truth.

    Attributes:
        precision: float64 [K, A, T, R], at each recall the highest precision there or beyond, at the last limit.
        recall: float64 [K, M, A, T], the highest recall reached.
        rules: the bounds that the axes A, T, R, M stand for.
        scores: float64 [K, A, T, R], the score at which each recall is reached, 0 where it is not; ``None`` where
            ``accumulate`` was not asked for them.
    """

    precision: np.ndarray
    recall: np.ndarray
    rules: Rules
    scores: np.ndarray | None = None


def accumulate(
    matches: Matches, rules: Rules = COCO, weights: np.ndarray | None = None, *, scores: bool = False
) -> Curves:
    """Precision at each recall and the highest recall, for each class.

    Ties in score keep the order of the images. With ``weights`` (int [I], counts >= 0) an image counts as often as its
    weight says, as though it had been fed that often under keys that follow each other (and its scores differed).

    Args:
        matches: of any number of images.
        rules: those that ``matches`` were made with; the limits may be others, up to the last limit then.
        weights: ``None`` counts each image once.
        scores: also find the score at which each recall is reached.
    """
    positives = matches.positives(weights)
    order, start, ranks = matches.by_class()
    count_k, count_a, count_t = matches.classes, len(rules.areas), len(rules.thresholds)
    count_m, count_r = len(rules.limits), len(rules.recalls)
    precision = np.empty((count_k, count_a, count_t, count_r))
    recall = np.empty((count_k, count_m, count_a, count_t))
    reached = np.zeros((count_k, count_a, count_t, count_r), np.int64) if scores else None
    allowed, points = np.array(rules.limits, np.int64), np.array(rules.recalls, np.float64)
    times = None if weights is None else weights.astype(np.int64)[matches.image]
    stride = int(positives.max(initial=0)) + 2
    flags = np.ascontiguousarray(matches.flags)

    def classes(which: Iterable[int]) -> None:
        counts = np.empty((2 + count_m) * count_a * count_t, np.int64)
        curve = np.empty((count_a * count_t, stride))
        places = np.empty(curve.shape, np.int64) if scores else counts
        own = (allowed.ctypes.data, count_m, points.ctypes.data, count_r)
        for k in which:
            kernels(
                "accumulate", flags.ctypes.data, ranks.ctypes.data, order.ctypes.data,
                int(times is not None), order.ctypes.data if times is None else times.ctypes.data,
                int(start[k]), int(start[k + 1]), count_a, count_t, positives[k].ctypes.data, *own,
                counts.ctypes.data, curve.ctypes.data, stride, precision[k].ctypes.data, recall[k].ctypes.data,
                int(reached is not None), places.ctypes.data, counts.ctypes.data if reached is None else
                reached[k].ctypes.data,
            )  # fmt: skip

    workers = min(processors(), max(count_k, 1))
    run_threads([lambda w=w: classes(range(w, count_k, workers)) for w in range(workers)])
    found = None
    if reached is not None:
        known = np.append(matches.score, 0.0)  # place -1 is a recall that is not reached
        found = np.where(positives[:, :, None, None] > 0, known[reached], -1.0)
    return Curves(precision, recall, rules, found)


def figures(curves: Curves, names: Sequence[str]) -> dict[str, Any]:
    """COCO's numbers (twelve with its rules), as fractions, over all classes and for each; -1.0 without truth."""
    return summary(curves) | {"per_class": {name: summary(curves, slice(k, k + 1)) for k, name in enumerate(names)}}


def summary(curves: Curves, classes: slice | np.ndarray = slice(None)) -> dict[str, float]:
    """``AP``, ``AP50`` and ``AP75`` where these are thresholds, ``AP_small`` .., ``AR_<limit>`` .., ``AR_small`` .. of
    some classes (a slice, or int [k])."""
    precision, recall, rules = curves.precision[classes], curves.recall[classes], curves.rules
    at = {name: rules.at(value) for name, value in (("AP50", 0.5), ("AP75", 0.75))}
    out = {"AP": mean(precision[:, 0])}
    out |= {name: mean(precision[:, 0, t]) for name, t in at.items() if t is not None}
    out |= {f"AP{name}": mean(precision[:, a]) for a, name in enumerate(rules.area_names) if name}
    out |= {f"AR_{limit}": mean(recall[:, m, 0]) for m, limit in enumerate(rules.limits)}
    out |= {f"AR{name}": mean(recall[:, -1, a]) for a, name in enumerate(rules.area_names) if name}
    return out


def mean(values: np.ndarray) -> float:
    """The mean of what is defined (above -1), or -1.0."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
