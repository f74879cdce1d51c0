"""COCO's average precision on flat tables: numpy and kernels, no torch.

``match`` compares detections with truth image by image and keeps, for each detection, its score and one flag per lane
(a pair of size class and IoU threshold). ``accumulate`` turns kept matches into precision and recall, ``figures`` into
the numbers people quote. All equal pycocotools' ``COCOeval`` to the last few bits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskwright.metrics._native import Kernels

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)
AREA_NAMES = ("", "_small", "_medium", "_large")

REASONS = {
    2: "malformed run-lengths (they must be non-negative and add up to height x width)",
    3: "a malformed polygon (at least three points, x and y in turn, finite)",
    4: "neither a mask nor a box to compare",
    5: "a mask of another size than its image",
}
"""What a status above 0 says about a row."""

RUNS = 4
"""The kind of a segmentation that is given as run-lengths in ``Table.runs`` (see ``_shape_kernels``)."""

kernels = Kernels("_number_kernels", "_json_kernels", "_shape_kernels", "_match_kernels")


@dataclass(slots=True)
class Table:
    """Objects of one file, or of scenes.

    Attributes:
        rows: int64 [N, 12], floats: float64 [N, 6]: columns as in ``_json_kernels``.
        text: uint8 [bytes], the JSON that segmentations lie in; runs: int32 [R], run-lengths where they are numbers.
        image, label: int64 [N], dense; label -1 for none.
        source: int64 [N], the position in the file, where rows were dropped.
    """

    rows: np.ndarray
    floats: np.ndarray
    text: np.ndarray
    runs: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int32))
    image: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    label: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    source: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """What kernels read of a table."""
        return self.text, self.runs, self.rows, self.floats, self.label

    def take(self, keep: np.ndarray) -> Table:
        """The rows of a bool mask or integer index."""
        source = np.arange(len(self)) if self.source is None else self.source
        image = self.image[keep] if len(self.image) else self.image
        label = self.label[keep] if len(self.label) else self.label
        rows, floats = np.ascontiguousarray(self.rows[keep]), np.ascontiguousarray(self.floats[keep])
        return Table(rows, floats, self.text, self.runs, image, label, source[keep])


@dataclass(slots=True)
class Matches:
    """What is kept of compared images: D detections, sorted by image, class and falling score; K classes, A, T lanes.

    Attributes:
        image: int64 [D] position of the image; label: int64 [D]; score: float64 [D]; rank: int64 [D] of the detection
            in its image and class, -1 beyond the limit; flags: uint8 [D, A, T], 0 false, 1 true, 2 not counted.
        positives: int64 [K, A], truths that count.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    flags: np.ndarray
    positives: np.ndarray


def limits_for(max_detections: int) -> list[int]:
    """The numbers of detections at which recall is stated: [1, 10, 100] for 100, [1, 10, 400] for 400."""
    return [k for k in (1, 10) if k < max_detections] + [max_detections]


def run_threads(work: Sequence[Callable[[], None]]) -> None:
    """Run ``work`` on as many threads as there are processors for this process; the first error is raised."""
    errors: list[Exception] = []
    waiting = iter(work)
    lock = threading.Lock()

    def worker() -> None:
        while not errors:
            with lock:
                task = next(waiting, None)
            if task is None:
                return
            try:
                task()
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=worker) for _ in range(min(len(work), processors()) - 1)]
    for thread in threads:
        thread.start()
    worker()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def processors() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def match(
    truth: Table,
    results: Table,
    sizes: np.ndarray,
    classes: int,
    *,
    mask: bool,
    max_detections: int,
    by_box: bool = False,
    lost: np.ndarray | None = None,
) -> tuple[Matches, np.ndarray, np.ndarray]:
    """Compare results with truth, image by image, on all processors.

    Args:
        truth, results: with ``image`` and ``label`` set; scores in ``results.floats[:, 0]``.
        sizes: int64 [I, 2], height and width of each image.
        classes: how many classes there are.
        mask: compare masks, else boxes.
        max_detections: best-scored detections of one class in one image that count.
        by_box: a detection's area is that of its box where it has one, else that of its mask.
        lost: bool [G], truths whose matches do not count as found (see ``files.evaluate``).

    Returns:
        the matches, and a status for each row of truth and results (uint8; 0, or a key of ``REASONS``). Where a status
        is not 0 the matches mean nothing: raise, or drop the row and match again.
    """
    count_i, count_a, count_t = len(sizes), len(AREAS), len(THRESHOLDS)
    t_order, t_start = _grouped(truth, count_i, None)
    d_order, d_start = _grouped(results, count_i, results.floats[:, 0])
    dead = (truth.rows[:, 4] == 1).astype(np.uint8)
    if lost is not None:
        dead |= lost.astype(np.uint8) << 1
    ignored = np.empty((len(truth), count_a), np.uint8)
    t_status, d_status = np.zeros(len(truth), np.uint8), np.zeros(len(results), np.uint8)
    ranks, flags = np.empty(len(results), np.int64), np.empty((len(results), count_a, count_t), np.uint8)
    heights, widths = np.ascontiguousarray(sizes[:, 0]), np.ascontiguousarray(sizes[:, 1])
    most_t = int(np.diff(t_start).max(initial=0))
    most_d = min(int(np.diff(d_start).max(initial=0)), max_detections)
    shared = (THRESHOLDS, AREAS, heights, widths)
    addresses = [a.ctypes.data for a in (*shared, *truth.arrays(), t_order, t_start, dead, ignored, t_status)]
    addresses += [a.ctypes.data for a in (*results.arrays(), d_order, d_start, d_status, ranks, flags)]
    scratch = threading.local()

    def images(first: int, last: int) -> None:
        if not hasattr(scratch, "arena"):
            scratch.arena, scratch.whole = np.empty(1 << 18, np.int32), np.empty(8, np.int64)
            scratch.spans, scratch.ious = np.empty(6 * most_t + 1, np.int64), np.empty((most_t + 2) * most_d + 1)
        while first < last:
            own = (scratch.whole, scratch.whole, scratch.spans, scratch.ious)
            first = kernels(
                "evaluate", first, last, int(mask), int(by_box), most_d, count_a, count_t, *addresses,
                scratch.arena.ctypes.data, len(scratch.arena), *(a.ctypes.data for a in own),
            )  # fmt: skip
            if first < last:
                scratch.arena = np.empty(4 * len(scratch.arena), np.int32)

    step = max(1, -(-count_i // (8 * processors())))
    run_threads([lambda i=i: images(i, min(count_i, i + step)) for i in range(0, count_i, step)])
    positives = np.stack(
        [np.bincount(truth.label[t_order[ignored[:, a] == 0]], minlength=classes) for a in range(count_a)], axis=1
    )
    in_order = (results.image[d_order], results.label[d_order], results.floats[d_order, 0])
    return Matches(*in_order, ranks, flags, positives.astype(np.int64)), t_status, d_status


def _grouped(table: Table, images: int, scores: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows by image, class and falling score, in file order where these tie; and where each image begins."""
    order = np.arange(len(table)) if scores is None else np.argsort(-scores, kind="stable")
    order = _by(table.image, _by(table.label, order))
    start = np.zeros(images + 1, np.int64)
    np.cumsum(np.bincount(table.image, minlength=images), out=start[1:])
    return order, start


def _by(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """``order`` sorted by non-negative ``keys``, equal ones as they were (numpy sorts 16 bits in linear time)."""
    small = keys.max(initial=0) < 1 << 16
    return order[np.argsort(keys.astype(np.uint16)[order] if small else keys[order], kind="stable")]


@dataclass(slots=True)
class Curves:
    """Precision float64 [K, A, T, R] at the last limit, recall float64 [K, M, A, T], -1 where there is no truth."""

    precision: np.ndarray
    recall: np.ndarray
    limits: list[int]


def accumulate(matches: Matches, limits: Sequence[int]) -> Curves:
    """Precision at 101 recalls and the highest recall, for each class; ties in score keep the order of the images."""
    count_k, count_a = matches.positives.shape
    count_t, count_m = len(THRESHOLDS), len(limits)
    order = _by(matches.label, np.argsort(-matches.score, kind="stable"))
    start = np.zeros(count_k + 1, np.int64)
    np.cumsum(np.bincount(matches.label, minlength=count_k), out=start[1:])
    precision = np.empty((count_k, count_a, count_t, len(RECALLS)))
    recall = np.empty((count_k, count_m, count_a, count_t))
    allowed = np.array(limits, np.int64)
    stride = int(matches.positives.max(initial=0)) + 2

    def classes(which: Iterable[int]) -> None:
        counts = np.empty((2 + count_m) * count_a * count_t, np.int64)
        curve = np.empty((count_a * count_t, stride))
        kept = (matches.flags, matches.rank, order)
        kept_at = [a.ctypes.data for a in kept]
        for k in which:
            kernels(
                "accumulate", *kept_at, int(start[k]), int(start[k + 1]), count_a, count_t,
                matches.positives[k].ctypes.data, allowed.ctypes.data, count_m, RECALLS.ctypes.data, len(RECALLS),
                counts.ctypes.data, curve.ctypes.data, stride, precision[k].ctypes.data, recall[k].ctypes.data,
            )  # fmt: skip

    workers = min(processors(), max(count_k, 1))
    run_threads([lambda w=w: classes(range(w, count_k, workers)) for w in range(workers)])
    return Curves(precision, recall, list(limits))


def figures(curves: Curves, names: Sequence[str]) -> dict[str, Any]:
    """COCO's twelve numbers, as fractions, over all classes and for each; -1.0 where there is no truth."""
    return _twelve(curves, slice(None)) | {
        "per_class": {name: _twelve(curves, slice(k, k + 1)) for k, name in enumerate(names)}
    }


def _twelve(curves: Curves, classes: slice) -> dict[str, float]:
    precision, recall = curves.precision[classes], curves.recall[classes]
    at = {name: int(np.argmin(np.abs(THRESHOLDS - value))) for name, value in (("AP50", 0.5), ("AP75", 0.75))}
    out = {"AP": _mean(precision[:, 0])}
    out |= {name: _mean(precision[:, 0, t]) for name, t in at.items()}
    out |= {f"AP{name}": _mean(precision[:, a]) for a, name in enumerate(AREA_NAMES) if name}
    out |= {f"AR_{limit}": _mean(recall[:, m, 0]) for m, limit in enumerate(curves.limits)}
    out |= {f"AR{name}": _mean(recall[:, -1, a]) for a, name in enumerate(AREA_NAMES) if name}
    return out


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
