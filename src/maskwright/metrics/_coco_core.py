"""COCO's comparison of detections with truth on flat tables: numpy and kernels, no torch.

``match`` compares detections with truth image by image and keeps, for each detection, its score and one flag per lane
(a pair of size class and IoU threshold); ``match_ious`` does so where the IoUs are known already (tubes of a video,
sets of points). ``curves`` turns kept matches into numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from maskwright.metrics._native import processors, run_threads
from maskwright.metrics.curves import (
    COCO,
    Curves,
    Matches,
    Rules,
    accumulate,
    figures,
    join,
    kernels,
    limits_for,
    mean,
    sort_by,
    summary,
)

__all__ = [
    "COCO", "KINDS", "REASONS", "RUNS", "Curves", "Group", "Matches", "Rules", "Table", "accumulate", "figures", "join",
    "kernels", "limits_for", "margins", "match", "match_ious", "mean", "processors", "run_threads", "sort_by",
    "summary",
]  # fmt: skip

KINDS = {"box": 0, "mask": 1, "boundary": 2}
"""What can be compared, and the number that the kernels know it by."""

BOUNDARY_RATIO = 0.02
"""The width of a boundary as a share of the picture's diagonal (Boundary IoU, section 4)."""

REASONS = {
    2: "malformed run-lengths (they must be non-negative and add up to height x width)",
    3: "a malformed polygon (at least three points, x and y in turn, finite)",
    4: "neither a mask nor a box to compare",
    5: "a mask of another size than its image",
}
"""What a status above 0 says about a row."""

RUNS = 4
"""The kind of a segmentation that is given as run-lengths in ``Table.runs`` (see ``_shape_kernels``)."""


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


def margins(sizes: np.ndarray, ratio: float = BOUNDARY_RATIO) -> np.ndarray:
    """How many pixels wide boundaries are in images of these sizes (int64 [I, 2]): int64 [I], at least 1."""
    return np.maximum(1, np.rint(ratio * np.sqrt((sizes.astype(np.float64) ** 2).sum(1)))).astype(np.int64)


def match(
    truth: Table,
    results: Table,
    sizes: np.ndarray,
    classes: int,
    *,
    kind: str = "mask",
    rules: Rules = COCO,
    by_box: bool = False,
    lost: np.ndarray | None = None,
    boundary_ratio: float = BOUNDARY_RATIO,
) -> tuple[Matches, np.ndarray, np.ndarray]:
    """Compare results with truth, image by image, on all processors.

    Args:
        truth, results: with ``image`` and ``label`` set; scores in ``results.floats[:, 0]``. Boxes of masks are written
            to rows without one, and the areas of detections to ``results.floats[:, 1]``.
        sizes: int64 [I, 2], height and width of each image.
        classes: how many classes there are.
        kind: of ``KINDS``; ``"boundary"`` compares by the lesser of the masks' IoU and their boundaries'.
        rules: thresholds and size classes; beyond the last limit detections of a class in an image do not count.
        by_box: a detection's area is that of its box where it has one, else that of its mask.
        lost: bool [G], truths whose matches do not count as found (see ``files.score``).
        boundary_ratio: the width of boundaries as a share of the image's diagonal.

    Returns:
        the matches, and a status for each row of truth and results (uint8; 0, or a key of ``REASONS``). Where a status
        is not 0 the matches mean nothing: raise, or drop the row and match again.
    """
    count_i, count_a, count_t = len(sizes), len(rules.areas), len(rules.thresholds)
    t_order, t_start = _grouped(truth, count_i, None)
    d_order, d_start = _grouped(results, count_i, results.floats[:, 0])
    dead = (truth.rows[:, 4] == 1).astype(np.uint8)
    if lost is not None:
        dead |= lost.astype(np.uint8) << 1
    ignored = np.empty((len(truth), count_a), np.uint8)
    t_status, d_status = np.zeros(len(truth), np.uint8), np.zeros(len(results), np.uint8)
    ranks, flags = np.empty(len(results), np.int64), np.empty((len(results), count_a, count_t), np.uint8)
    heights, widths = np.ascontiguousarray(sizes[:, 0]), np.ascontiguousarray(sizes[:, 1])
    wide = margins(sizes, boundary_ratio) if kind == "boundary" else heights
    most_t = int(np.diff(t_start).max(initial=0))
    most_d = min(int(np.diff(d_start).max(initial=0)), rules.limits[-1])
    shared = (np.array(rules.thresholds), np.array(rules.areas, np.float64), heights, widths, wide)
    addresses = [a.ctypes.data for a in (*shared, *truth.arrays(), t_order, t_start, dead, ignored, t_status)]
    addresses += [a.ctypes.data for a in (*results.arrays(), d_order, d_start, d_status, ranks, flags)]
    scratch = threading.local()

    def images(first: int, last: int) -> None:
        if not hasattr(scratch, "arena"):
            scratch.arena, scratch.whole = np.empty(1 << 18, np.int32), np.empty(8, np.int64)
            scratch.spans, scratch.ious = np.empty(6 * most_t + 1, np.int64), np.empty((most_t + 2) * most_d + 1)
            scratch.words, scratch.bounds = np.empty(1 << 15, np.uint64), np.empty(8 * (most_t + 1), np.int64)
        while first < last:
            own = (scratch.whole, scratch.whole, scratch.spans, scratch.ious)
            first = kernels(
                "evaluate", first, last, KINDS[kind], int(by_box), most_d, count_a, count_t, *addresses,
                scratch.arena.ctypes.data, len(scratch.arena), *(a.ctypes.data for a in own),
                scratch.words.ctypes.data, len(scratch.words), scratch.bounds.ctypes.data,
            )  # fmt: skip
            if first < last:
                name = "words" if scratch.whole[5] else "arena"
                old: np.ndarray = getattr(scratch, name)
                setattr(scratch, name, np.empty(4 * len(old), old.dtype))

    step = max(1, -(-count_i // (8 * processors())))
    run_threads([lambda i=i: images(i, min(count_i, i + step)) for i in range(0, count_i, step)])
    in_order = (results.image[d_order], results.label[d_order], results.floats[d_order, 0])
    there = (truth.image[t_order], truth.label[t_order], 1 - ignored)
    return Matches(*in_order, ranks, flags, *there, classes, results.floats[d_order, 1]), t_status, d_status


@dataclass(slots=True)
class Group:
    """Detections and truths of one class in one image (or video, or cloud) whose IoUs are known.

    Attributes:
        image, label: places, from 0 on.
        scores: float64 [D], falling; put those first that shall win where they tie.
        ious: float64 [D, G] in [0, 1]. Against a crowd: what share of the detection it covers.
        areas: float64 [D] and ``truth_areas`` [G], what size classes go by; zeros where there is one class only.
        crowd: bool [G], truths that do not count and may be matched again and again.
        ignored: bool [G], truths that do not count and are matched once.
        uncounted: bool [D], detections that do not count unless they match a truth that does.
    """

    image: int
    label: int
    scores: np.ndarray
    ious: np.ndarray
    areas: np.ndarray | None = None
    truth_areas: np.ndarray | None = None
    crowd: np.ndarray | None = None
    ignored: np.ndarray | None = None
    uncounted: np.ndarray | None = None


def match_ious(groups: Sequence[Group], classes: int, rules: Rules = COCO) -> Matches:
    """Match groups whose IoUs are known, by the rules that ``match`` goes by.

    Args:
        groups: in any order, at most one for each (image, label); those without detections carry truths that count.
        classes: how many classes there are.
        rules: thresholds, size classes and limits.

    Raises:
        ValueError: an array has another length than its group, or scores rise.
    """
    groups = sorted(groups, key=lambda group: (group.image, group.label))
    detections, truths = np.array([g.ious.shape for g in groups], np.int64).reshape(-1, 2).T
    count_d = int(detections.sum())
    for group in groups:
        shape = group.ious.shape
        if group.scores.shape != shape[:1] or (np.diff(group.scores) > 0).any():
            raise ValueError(f"scores must fall and be one for each row of ious {shape}, got {group.scores!r:.80}")
        for name, axis in (("areas", 0), ("uncounted", 0), ("truth_areas", 1), ("crowd", 1), ("ignored", 1)):
            value = getattr(group, name)
            if value is not None and value.shape != shape[axis : axis + 1]:
                raise ValueError(f"{name} must have shape ({shape[axis]},) as ious is {shape}, got {value.shape}")

    def joined(name: str, kind: type[np.generic], axis: int) -> np.ndarray:
        parts: list[np.ndarray] = [np.zeros(0)]
        for group in groups:
            own: np.ndarray | None = getattr(group, name)
            parts.append(np.zeros(int(group.ious.shape[axis])) if own is None else own)
        return np.concatenate(parts).astype(kind)

    starts = [np.concatenate([[0], np.cumsum(n)]).astype(np.int64) for n in (detections, truths, detections * truths)]
    ious = np.concatenate([g.ious.ravel() for g in groups]).astype(np.float64) if groups else np.zeros(0)
    areas, truth_areas = joined("areas", np.float64, 0), joined("truth_areas", np.float64, 1)
    crowd, uncounted = joined("crowd", np.uint8, 1), joined("uncounted", np.uint8, 0)
    out = (crowd | joined("ignored", np.uint8, 1)).astype(bool)
    low, high = np.array(rules.areas, np.float64).T
    inside = (truth_areas[:, None] >= low) & (truth_areas[:, None] <= high)
    ignored = np.ascontiguousarray(out[:, None] | ~inside).astype(np.uint8)
    ranks = np.empty(count_d, np.int64)
    flags = np.zeros((count_d, len(low), len(rules.thresholds)), np.uint8)
    most_d, most_t = min(int(detections.max(initial=0)), rules.limits[-1]), int(truths.max(initial=0))
    best, marks = np.empty((most_t + 2) * most_d + 1), np.empty(3 * most_t + 1, np.int64)
    bounds = np.array(rules.thresholds), np.array(rules.areas, np.float64)
    kernels(
        "match_groups", 0, len(groups), most_d, bounds[0].ctypes.data, len(bounds[0]), bounds[1].ctypes.data, len(low),
        *(a.ctypes.data for a in (*starts, ious, areas, crowd, ignored, ranks, flags, best, marks)),
    )  # fmt: skip
    flags[(uncounted == 1)[:, None, None] & (flags == 0)] = 2
    places = np.array([(g.image, g.label) for g in groups], np.int64).reshape(-1, 2)
    found, there = np.repeat(places, detections, 0), np.repeat(places, truths, 0)
    scores = joined("scores", np.float64, 0)
    d_image, d_label, t_image, t_label = *found.T, *there.T
    return Matches(d_image, d_label, scores, ranks, flags, t_image, t_label, 1 - ignored, classes)


def _grouped(table: Table, images: int, scores: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows by image, class and falling score, in file order where these tie; and where each image begins."""
    order = np.arange(len(table)) if scores is None else np.argsort(-scores, kind="stable")
    order = sort_by(table.image, sort_by(table.label, order))
    start = np.zeros(images + 1, np.int64)
    np.cumsum(np.bincount(table.image, minlength=images), out=start[1:])
    return order, start
