"""How well outlines are drawn: precision, recall and F of boundaries within a tolerance, ``BoundaryF``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskwright.metrics._form import Key, PerImage
from maskwright.metrics._label_images import compare_folders
from maskwright.metrics._label_maps import check_maps
from maskwright.metrics.mean_iou import named
from maskwright.ops.assignment import assign_pairs
from maskwright.ops.distance import changes, nearest, spacing_of, surface

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

DAVIS_RATIO = 0.008
"""The tolerance of DAVIS as a share of the image's diagonal, rounded up to whole pixels."""

_VOID = -1
_FIGURES: tuple[str, ...] = ("precision", "recall", "F")
Runs = tuple[np.ndarray, np.ndarray]


@dataclass(slots=True)
class Kept:
    """One image: the class of each comparison (int64 [N]), its precision, recall and F (float64 [N, 3], NaN where
    undefined), and how many truths each class has (int64 [K])."""

    labels: np.ndarray
    figures: np.ndarray
    truths: np.ndarray


@dataclass(slots=True)
class Joined:
    """The comparisons of all images: whose each is (int64 [N]), then as in ``Kept``; truths int64 [I, K]."""

    image: np.ndarray
    labels: np.ndarray
    figures: np.ndarray
    truths: np.ndarray


def boundary_figures(
    predicted: np.ndarray,
    truth: np.ndarray,
    tolerance: float | Literal["davis"],
    spacing: Sequence[float] | None = None,
    *,
    diagonal: float | None = None,
) -> tuple[float, float, float]:
    """Precision, recall and F of the boundaries of two masks (see ``BoundaryF``).

    Args:
        predicted, truth: bool [H, W]; [D, H, W] too unless ``tolerance`` is DAVIS's.
        tolerance: in the unit of ``spacing``, or ``"davis"``. spacing: the distance of neighbors along each axis.
        diagonal: of the image in pixels, for DAVIS, where the masks are cut out of it.

    Raises:
        ValueError: ``spacing`` does not fit.
    """
    if tolerance == "davis":
        sides = [np.argwhere(changes(side)) for side in (predicted, truth)]
        near, steps = float(ceil(DAVIS_RATIO * (hypot(*truth.shape) if diagonal is None else diagonal))), None
    else:
        sides = [np.argwhere(surface(side, edge=False)) for side in (predicted, truth)]
        near, steps = float(tolerance), spacing_of(spacing, truth.ndim)
    found, there = sides
    if not len(found) or not len(there):
        if tolerance == "davis":
            precision, recall = float(not len(found)), float(not len(there))
            return precision, recall, 1.0 if precision and recall else 0.0
        one = bool(len(found) or len(there))
        return 0.0 if len(found) else np.nan, 0.0 if len(there) else np.nan, 0.0 if one else np.nan
    precision = float((nearest(found, there, steps) <= near).mean())
    recall = float((nearest(there, found, steps) <= near).mean())
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


class BoundaryF(PerImage[Kept, Joined]):
    """Boundary precision, recall and F: which share of either boundary lies within a tolerance of the other.

    Precision is the share of the predicted boundary within the tolerance of the true one, recall the other way, F their
    harmonic mean (G. Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013, section
    3). A boundary pixel is one of the mask beside one outside of it along an axis; the image's edge is no boundary.
    Distances are Euclidean, between centers.

    Kind ``"semantic"`` compares the mask of each class in each image that has it in truth or prediction; a class on one
    side only has F 0 and either recall 0 or precision 0, the other being undefined. ``per_class`` are means over such
    images, the figures above them means over classes, and ``F_per_image`` is Csurka's: the mean over images of the
    mean over the classes in each.

    Kind ``"instance"`` compares objects that were found: pairs of one class with IoU above 0.5, each object in one
    pair at most, by the greatest sum of IoUs. ``per_class`` are means over pairs; what was missed or invented shows in
    ``found`` only, the share of truths in pairs. So it says how sharply objects are cut out, not whether they are
    detected. Truths marked crowd are left out.

    ``tolerance="davis"`` gives the F of DAVIS (F. Perazzi et al., CVPR 2016, section 4): within 0.008 of the diagonal,
    rounded up to pixels, of boundaries half a pixel off (``ops.distance.changes``); in its convention, what neither
    side has is found (1.0), and of what one side has alone F is 0 while the empty side's figure is 1. Feed all
    frames that count (DAVIS leaves out the first and, in its semi-supervised task, the last of a clip).

    Args:
        taxonomy: the classes, or their names, maps then holding 0 .. K - 1; or ``{name: value}``, values of maps.
        tolerance: in millimeters where there is a spacing, else in pixels; at least 0; or ``"davis"``.
        kind: ``"semantic"`` or ``"instance"``.
        spacing: the distance between neighbors along each axis, (y, x) or (z, y, x).
        ignore: value of maps that does not count where truth holds it, besides -1.
        min_score: objects predicted with less are left out.

    Raises:
        ValueError: no classes, or arguments out of range.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str] | Mapping[str, int],
        tolerance: float | Literal["davis"] = 2.0,
        kind: Literal["semantic", "instance"] = "semantic",
        *,
        spacing: Sequence[float] | None = None,
        ignore: int = 255,
        min_score: float = 0.0,
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.names, self.values = named(taxonomy)
        if not self.names or len(set(self.values)) < len(self.values) or {_VOID, ignore} & set(self.values):
            raise ValueError(f"classes must be distinct values, none of them void, got {self.values}, ignore {ignore}")
        if kind not in ("semantic", "instance"):
            raise ValueError(f"kind must be 'semantic' or 'instance', got {kind!r}")
        if tolerance == "davis" and spacing is not None:
            raise ValueError("DAVIS's tolerance is in pixels and takes no spacing")
        if tolerance != "davis" and not 0 <= float(tolerance) < np.inf:
            raise ValueError(f"tolerance must be at least 0 and finite, or 'davis', got {tolerance!r}")
        self.tolerance: float | Literal["davis"] = "davis" if tolerance == "davis" else float(tolerance)
        self.kind, self.ignore, self.min_score = kind, int(ignore), float(min_score)
        self.spacing = None if spacing is None else spacing_of(spacing, len(spacing))

    def settings(self) -> Mapping[str, Any]:
        out = {"taxonomy": self.names, "tolerance": self.tolerance, "kind": self.kind, "spacing": self.spacing}
        return out | ({"min_score": self.min_score} if self.kind == "instance" else {})

    # ---- images -----------------------------------------------------------------------------------------------------

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare one image: its ``semantic`` maps, or its segments with masks, as ``kind`` says.

        Raises:
            ValueError: what to compare is unknown, sizes differ, or ``key`` came before.
        """
        self._check_key(key)
        if predicted.size != truth.size:
            raise ValueError(f"scenes to compare must share one size, got {predicted.size} and {truth.size}")
        if self.kind == "semantic":
            if predicted.semantic is None or truth.semantic is None:
                raise ValueError("scenes to compare must have semantic maps, got none")
            maps = predicted.semantic.cpu().numpy(), truth.semantic.cpu().numpy()
            self._keep(key, self._classes(*maps, tuple(range(len(self.names))), (_VOID,)))
            return
        sides: list[tuple[Runs, np.ndarray]] = []
        for segments in (predicted.objects(), truth.objects()):
            segments.validate(len(self.names))
            if segments.masks is None:
                raise ValueError("objects to compare must have masks, got none")
            keep = np.ones(len(segments), bool)
            if segments.scores is not None:
                keep &= segments.scores.detach().cpu().numpy() >= self.min_score
            if segments.crowd is not None:
                keep &= ~segments.crowd.cpu().numpy()
            runs = segments.masks.counts.numpy(), segments.masks.offsets.numpy()
            sides.append((_taken(runs, keep), segments.labels.cpu().numpy()[keep]))
        self._keep(key, self._instances(*sides[0], *sides[1], truth.size))

    def update_maps(self, predicted: np.ndarray, truth: np.ndarray, key: Key | None = None) -> None:
        """Compare the classes of one image (kind ``"semantic"``) given as maps: integers [H, W] or [D, H, W].

        Raises:
            ValueError: the kind is another, shapes differ, or ``key`` came before.
        """
        self._check_key(key)
        if self.kind != "semantic":
            raise ValueError("maps are compared by kind 'semantic'; use update_masks")
        self._keep(key, self._classes(predicted, truth, self.values, (_VOID, self.ignore)))

    def update_masks(
        self,
        predicted: np.ndarray,
        labels: np.ndarray,
        truth: np.ndarray,
        truth_labels: np.ndarray,
        key: Key | None = None,
    ) -> None:
        """Compare the objects of one image (kind ``"instance"``).

        Args:
            predicted: bool [N, H, W]; labels: int [N], 0 .. K - 1. truth: bool [M, H, W]; truth_labels: int [M].
            key: the image's id.

        Raises:
            ValueError: the kind is another, shapes or lengths differ, labels are unknown, or ``key`` came before.
        """
        from maskwright.ops import rle

        self._check_key(key)
        if self.kind != "instance":
            raise ValueError("masks are compared by kind 'instance'; use update_maps")
        sides = ((predicted, np.asarray(labels)), (truth, np.asarray(truth_labels)))
        if predicted.shape[1:] != truth.shape[1:] or any(m.ndim != 3 or c.shape != m.shape[:1] for m, c in sides):
            raise ValueError(f"masks must be [N, H, W] with a label each, got {[(m.shape, c.shape) for m, c in sides]}")
        if any(((c < 0) | (c >= len(self.names))).any() for _, c in sides):
            raise ValueError(f"labels must lie in 0 .. {len(self.names) - 1}, got {labels!r:.80}, {truth_labels!r:.80}")
        size = truth.shape[1:]
        self._keep(key, self._instances(rle.encode(predicted), sides[0][1], rle.encode(truth), sides[1][1], size))

    def _classes(self, predicted: np.ndarray, truth: np.ndarray, values: Sequence[int], void: Sequence[int]) -> Kept:
        check_maps(predicted, truth, (2,) if self.tolerance == "davis" else (2, 3))
        for value in {v for v in void if v != _VOID or truth.dtype.kind == "i"}:
            if (truth == value).any():
                predicted = np.where(truth == value, value, predicted)
        labels: list[int] = []
        rows: list[tuple[float, float, float]] = []
        truths = np.zeros(len(values), np.int64)
        for label, value in enumerate(values):
            found, there = predicted == value, truth == value
            truths[label] = there.any()
            present = bool(truths[label]) or found.any()
            if not present and self.tolerance != "davis":
                continue
            place = _around([found, there]) if present else ...
            row = boundary_figures(
                found[place], there[place], self.tolerance, self.spacing, diagonal=hypot(*truth.shape)
            )
            if not np.isnan(row[2]):
                labels.append(label)
                rows.append(row)
        return Kept(np.array(labels, np.int64), np.array(rows, np.float64).reshape(-1, 3), truths)

    def _instances(
        self, found: Runs, labels: np.ndarray, there: Runs, truth_labels: np.ndarray, size: tuple[int, ...]
    ) -> Kept:
        from maskwright.ops import rle

        if len(size) != 2:
            raise ValueError(f"instances are compared on (H, W), got {size}")
        ious = rle.iou(*found, *there, height=size[0])
        rows, columns = np.nonzero((ious > 0.5) & (labels[:, None] == truth_labels))
        chosen = assign_pairs(rows, columns, ious[rows, columns])
        figures: list[tuple[float, float, float]] = []
        kept: list[int] = []
        for i, j in zip(rows[chosen], columns[chosen], strict=True):
            pair = [_taken(found, np.array([i])), _taken(there, np.array([j]))]
            boxes = np.concatenate([rle.boxes(*runs, size[0]) for runs in pair])
            low = np.maximum(boxes[:, 1::-1].min(0).astype(int) - 1, 0)
            high = np.minimum(boxes[:, :1:-1].max(0).astype(int) + 1, size)
            window = (int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
            masks = [rle.decode(*rle.window(*runs, size, window), window[2:])[0] for runs in pair]
            far = hypot(*size)
            figures.append(boundary_figures(masks[0], masks[1], self.tolerance, self.spacing, diagonal=far))
            kept.append(int(truth_labels[j]))
        truths = np.bincount(truth_labels, minlength=len(self.names))
        return Kept(np.array(kept, np.int64), np.array(figures, np.float64).reshape(-1, 3), truths)

    # ---- figures ----------------------------------------------------------------------------------------------------

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{kind: {"F": .., "precision": .., "recall": .., "per_class": {name: {...}}, ..}, "images": I}``.

        Fractions; -1.0 where undefined. Semantic figures add ``F_per_image``, those of instances ``found``.
        """
        times, joined, k = self._weights(weights), self._joined(), len(self.names)
        each = times[joined.image]
        means = np.array([_means(joined.labels, each, column, k) for column in joined.figures.T]).reshape(3, k)
        truths = times @ joined.truths if len(joined.truths) else np.zeros(k, np.int64)
        out: dict[str, Any] = {name: _mean(row) for name, row in zip(_FIGURES, means, strict=True)}
        per_class: dict[str, dict[str, float]] = {
            name: dict(zip(_FIGURES, column, strict=True))
            for name, column in zip(self.names, means.T.tolist(), strict=True)
        }
        out["per_class"] = per_class
        if self.kind == "semantic":
            by_image = _means(joined.image, np.ones(len(each)), joined.figures[:, 2], len(times))
            known = (by_image >= 0) * times
            total = int(known.sum())
            out["F_per_image"] = float((known * by_image).sum() / total) if total else -1.0
        else:
            pairs = np.bincount(joined.labels, weights=each, minlength=k)
            out["found"] = float(pairs.sum() / truths.sum()) if truths.sum() else -1.0
            for name, made, total in zip(self.names, pairs, truths, strict=True):
                per_class[name]["found"] = float(made / total) if total else -1.0
        return {self.kind: out, "images": int(times.sum()), "tolerance": self.tolerance}

    def _join(self, images: Sequence[Kept]) -> Joined:
        image = np.repeat(np.arange(len(images)), [len(kept.labels) for kept in images])
        labels = np.concatenate([np.zeros(0, np.int64), *(kept.labels for kept in images)])
        figures = np.concatenate([np.zeros((0, 3)), *(kept.figures for kept in images)])
        return Joined(image, labels, figures, np.array([kept.truths for kept in images], np.int64))


def read_boundary(
    truth: str | Path,
    results: str | Path,
    classes: Taxonomy | Sequence[str] | Mapping[str, int],
    *,
    tolerance: float | Literal["davis"] = 2.0,
    spacing: Sequence[float] | None = None,
    ignore: int = 255,
    truth_suffix: str = "",
    results_suffix: str = "",
    lenient: bool = False,
) -> BoundaryF:
    """Two folders of label images compared by the boundaries of their classes.

    Args:
        truth, results, truth_suffix, results_suffix, lenient: as in ``semantic_files.read_semantic``.
        classes, tolerance, spacing, ignore: as in ``BoundaryF``.

    Raises:
        InputError: as ``read_semantic``. ValueError: arguments that ``BoundaryF`` refuses.
    """
    metric = BoundaryF(classes, tolerance, spacing=spacing, ignore=ignore)
    dropped = compare_folders(
        metric.update_maps, truth, results, truth_suffix=truth_suffix, results_suffix=results_suffix, lenient=lenient
    )
    if lenient:
        metric.dropped = dropped
    return metric


def _taken(runs: Runs, which: np.ndarray) -> Runs:
    from maskwright.ops import rle

    return rle.take(*runs, np.flatnonzero(which) if which.dtype == bool else which)


def _around(masks: Sequence[np.ndarray]) -> tuple[slice, ...]:
    """Where any mask is and one pixel more, so that a cut is not taken for an edge of the image."""
    return tuple(_spans(masks))


def _spans(masks: Sequence[np.ndarray]) -> Iterator[slice]:
    for axis, length in enumerate(masks[0].shape):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        there = np.flatnonzero(np.any([mask.any(others) for mask in masks], axis=0))
        yield slice(max(int(there[0]) - 1, 0), min(int(there[-1]) + 2, length))


def _means(groups: np.ndarray, times: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The weighted mean of the known values of each group, float64 [count]; -1.0 where it has none."""
    known = ~np.isnan(values)
    totals = np.bincount(groups[known], weights=times[known], minlength=count)
    sums = np.bincount(groups[known], weights=times[known] * values[known], minlength=count)
    return np.where(totals > 0, sums / np.maximum(totals, 1), -1.0)


def _mean(values: np.ndarray) -> float:
    known = values[values >= 0]
    return float(known.mean()) if known.size else -1.0
