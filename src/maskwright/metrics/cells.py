"""Nuclei and cells: ``CellMetric``. ``metrics.cell_files`` makes one of files; neither imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics._form import Key, PerImage
from maskwright.metrics._label_maps import check_maps, overlaps
from maskwright.ops.assignment import assign_pairs

if TYPE_CHECKING:
    from maskwright.structures import Scene

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""The IoUs of the 2018 Data Science Bowl."""

Runs = tuple[np.ndarray, np.ndarray]
"""Run-lengths of masks as in ``ops.rle``: counts int32 [R], offsets int64 [N + 1]."""

_PAIRS = 1 << 22  # pairs of objects whose common pixels are counted at a time
_COUNTS = 8  # truths, found, AJI's two, AJI+'s two, Dice's two; then matches above and at each threshold, above 0.5


@dataclass(slots=True)
class Meeting:
    """The objects of an image: how large they are and which share pixels.

    Attributes:
        areas: int64 [N], predicted. truth_areas: int64 [M]. All above 0.
        rows, columns: int64 [P], the predicted and the true object of each pair that meets, ordered by both.
        common: int64 [P], pixels of each pair, above 0.
        foreground: pixels that are in any predicted and any true object; in any predicted; in any true one.
    """

    areas: np.ndarray
    truth_areas: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    common: np.ndarray
    foreground: tuple[int, int, int]


@dataclass(slots=True)
class Joined:
    """All images: counts int64 [I, 9 + 2 T], sums of IoUs float64 [I, 1 + T] (pairs above 0.5; at each threshold), and
    the figures of each image by name, float64 [I], NaN where undefined."""

    counts: np.ndarray
    sums: np.ndarray
    figures: dict[str, np.ndarray]


class CellMetric(PerImage[tuple[np.ndarray, np.ndarray], Joined]):
    """How well nuclei, cells or other objects of one kind are told apart, by the measures of that field.

    Two forms of each figure: ``per_image`` computes it for each image and takes the mean over images, ``pooled`` counts
    over all objects of all images first. Images where neither side has an object define nothing and are left out of
    means.

    - ``AP``: TP / (TP + FP + FN), a mean over the thresholds. ``per_image`` is the score of the 2018 Data Science Bowl
      (J. Caicedo et al., "Nucleus segmentation across imaging experiments", Nature Methods 2019), whose IoU must exceed
      a threshold. ``pooled`` is the accuracy of StarDist's ``matching_dataset`` and what Cellpose calls average
      precision (U. Schmidt et al., 2018; C. Stringer et al., 2021), whose IoU must reach it. ``thresholds`` holds it
      for each, with precision, recall and F1; pooled also the mean IoU of matched pairs and the counts.
    - ``AJI``: the aggregated Jaccard index (N. Kumar et al., "A Dataset and a Technique for Generalized Nuclear
      Segmentation", 2017): each true object takes the predicted one of greatest IoU (the first, where these tie), which
      may be taken again. ``AJI+`` pairs each once, by the greatest sum of IoUs (S. Graham et al., "HoVer-Net", 2019).
    - ``DQ``, ``SQ``, ``PQ``: detection, segmentation and panoptic quality at IoU above 0.5 (HoVer-Net, section 4.2; A.
      Kirillov et al., 2019). SQ is 0 where nothing is matched. The official script adds 1e-6 to the denominator of
      SQ; this does not. The mean of per-image PQs is HoVer-Net's; ``pooled`` is that of later challenges (PQ+).
    - ``Dice``: of all objects' pixels against background.
    - ``count``: of objects: ``MAE`` the mean absolute error, ``signed`` the mean of found less true (``None`` without
      images), ``over`` and ``under`` its two parts, ``relative`` the mean of the absolute error over the true number,
      where there are any.

    Matching is one to one at every threshold: as many pairs as can be made, and of those ways the greatest sum of IoUs.

    Objects that overlap (possible in scenes and result files, not in label images) are compared as they are: each keeps
    all of its pixels, a pixel that two share counts for both in IoUs and in AJI, once in Dice. The official scripts
    read label images, where a pixel has one owner; ``flatten`` gives contested pixels to the best-scored prediction
    (the first of equals) to be comparable with them. An object that loses all of its pixels, or has none, is no object.

    Classes are not looked at. Truths marked crowd are left out, and with them predictions of which more than half lies
    in one of them.

    Args:
        thresholds: rising IoUs in (0, 1).
        min_score: predictions with a lower score are left out; those without scores all count.
        flatten: let predicted objects not overlap, as said.

    Raises:
        ValueError: thresholds do not rise within (0, 1), or ``min_score`` lies outside of [0, 1].
    """

    def __init__(
        self, thresholds: Sequence[float] = THRESHOLDS, *, min_score: float = 0.5, flatten: bool = False
    ) -> None:
        super().__init__()
        self.thresholds = tuple(map(float, thresholds))
        rising = np.diff([0.0, *self.thresholds, 1.0])
        if not self.thresholds or not (rising > 0).all():
            raise ValueError(f"thresholds must rise within (0, 1), got {self.thresholds}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score must lie in [0, 1], got {min_score}")
        self.min_score, self.flatten = float(min_score), bool(flatten)

    def settings(self) -> Mapping[str, Any]:
        return {"thresholds": self.thresholds, "min_score": self.min_score, "flatten": self.flatten}

    # ---- images -----------------------------------------------------------------------------------------------------

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare the objects of one image or volume.

        Raises:
            ValueError: sizes differ, masks are missing, a score lies outside of [0, 1], or ``key`` came before.
        """
        self._check_key(key)
        if predicted.size != truth.size:
            raise ValueError(f"scenes to compare must share one size, got {predicted.size} and {truth.size}")
        sides: list[Runs] = []
        for segments in (predicted.objects(), truth.objects()):
            segments.validate()
            if segments.masks is None:
                raise ValueError("objects to compare must have masks, got none")
            sides.append((segments.masks.counts.numpy(), segments.masks.offsets.numpy()))
        scores, crowd = predicted.objects().scores, truth.objects().crowd
        self.update_runs(
            sides[0], sides[1], truth.size, key,
            scores=None if scores is None else scores.detach().cpu().double().numpy(),
            crowd=None if crowd is None else crowd.cpu().numpy(),
        )  # fmt: skip

    def update_runs(
        self,
        predicted: Runs,
        truth: Runs,
        size: Sequence[int],
        key: Key | None = None,
        *,
        scores: np.ndarray | None = None,
        crowd: np.ndarray | None = None,
    ) -> None:
        """Compare the objects of one image given as run-lengths.

        Args:
            predicted, truth: N and M masks on ``size`` as in ``ops.rle``.
            size: (H, W), or any other that masks can have.
            key: the image's id.
            scores: float [N] in [0, 1]. crowd: bool [M].

        Raises:
            ValueError: run-lengths do not fit ``size``, scores are of another number or outside of [0, 1], or ``key``
                came before.
        """
        from maskwright.ops import rle

        self._check_key(key)
        frames, height, width = rle.canvas(size)
        found, there = (rle.checked(*runs, frames * height * width) for runs in (predicted, truth))
        keep = rle.area(*found) > 0
        if scores is not None:
            if scores.shape != keep.shape or not ((scores >= 0) & (scores <= 1)).all():
                raise ValueError(f"scores must be {len(keep)} numbers in [0, 1], got {scores!r:.80}")
            keep &= scores >= self.min_score
        rows = height if frames == 1 else None
        if crowd is not None and crowd.any():
            regions = rle.take(*there, np.flatnonzero(crowd))
            within = rle.iou(*found, *regions, np.ones(len(regions[1]) - 1, bool), height=rows)
            keep &= ~(within > 0.5).any(1)
            there = rle.take(*there, np.flatnonzero(~crowd))
        order = np.flatnonzero(keep)
        if scores is not None:
            order = order[np.argsort(-scores[order], kind="stable")]
        found = rle.take(*found, order)
        there = rle.take(*there, np.flatnonzero(rle.area(*there) > 0))
        if self.flatten:
            found = _flattened(found, frames * height * width)
        self._keep(key, self._compare(_meeting(found, there, rows)))

    def update_labels(self, predicted: np.ndarray, truth: np.ndarray, key: Key | None = None) -> None:
        """Compare two label images: integers [H, W] or [D, H, W], 0 for background, any other value an object.

        Raises:
            ValueError: shapes differ, they hold no integers, or ``key`` came before.
        """
        self._check_key(key)
        check_maps(predicted, truth, (2, 3))
        areas, truth_areas, rows, columns, common = overlaps(predicted, truth)
        both = int(common.sum()), int(areas.sum()), int(truth_areas.sum())
        self._keep(key, self._compare(Meeting(areas, truth_areas, rows, columns, common, both)))

    def _compare(self, m: Meeting) -> tuple[np.ndarray, np.ndarray]:
        """What is kept of an image: counts int64 [9 + 2 T] and sums of IoUs float64 [1 + T], as in ``Joined``."""
        unions = m.areas[m.rows] + m.truth_areas[m.columns] - m.common
        ious = m.common / unions
        pairs = m.rows, m.columns
        # Kumar's: the best of each true object, the first of equals. It may be taken again.
        order = np.lexsort((m.rows, -ious, m.columns))
        best = order[np.unique(m.columns[order], return_index=True)[1]]
        once = assign_pairs(*pairs, ious)
        out = [len(m.truth_areas), len(m.areas)]
        for chosen in (best, once):
            left, left_truth = np.ones(len(m.areas), bool), np.ones(len(m.truth_areas), bool)
            left[m.rows[chosen]], left_truth[m.columns[chosen]] = False, False
            rest = int(m.areas[left].sum()) + int(m.truth_areas[left_truth].sum())
            out += [int(m.common[chosen].sum()), int(unions[chosen].sum()) + rest]
        out += [2 * m.foreground[0], m.foreground[1] + m.foreground[2]]
        above = [_matched(pairs, ious, ious > t) for t in self.thresholds]
        reached = [_matched(pairs, ious, ious >= t) for t in self.thresholds]
        out += [len(chosen) for chosen in (*above, *reached)]
        half = _matched(pairs, ious, ious > 0.5)
        sums = [float(ious[chosen].sum()) for chosen in (half, *reached)]
        return np.array([*out, len(half)], np.int64), np.array(sums)

    # ---- figures ----------------------------------------------------------------------------------------------------

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"per_image": {...}, "pooled": {...}, "count": {...}, "images": I, "min_score": ..}``.

        ``per_image`` and ``pooled`` hold ``AP``, ``F1`` (means over thresholds), ``AJI``, ``AJI+``, ``DQ``, ``SQ``,
        ``PQ``, ``Dice`` and ``thresholds`` (``{"0.50": {"AP", "precision", "recall", "F1", ..}}``). Fractions; -1.0
        where undefined. An image of weight 2 counts as though it came twice.
        """
        times, joined = self._weights(weights), self._joined()
        by_image = {name: _mean(values, times) for name, values in joined.figures.items()}
        pooled = _figures((times @ joined.counts)[None], (times @ joined.sums)[None], self.thresholds, reached=True)
        plain = {name: _mean(values, np.ones(1, np.int64)) for name, values in pooled.items()}
        out: dict[str, Any] = {"per_image": _nested(by_image), "pooled": _nested(plain)}
        count = len(self.thresholds)
        total = times @ joined.counts
        for i, row in enumerate(out["pooled"]["thresholds"].values()):
            matched = int(total[_COUNTS + count + i])
            row |= {"TP": matched, "FP": int(total[1]) - matched, "FN": int(total[0]) - matched}
        off = joined.counts[:, 1] - joined.counts[:, 0]
        there = np.where(joined.counts[:, 0] > 0, joined.counts[:, 0], np.nan)
        errors = {"MAE": abs(off), "over": np.maximum(off, 0), "under": np.maximum(-off, 0), "signed": off}
        means: dict[str, float | None] = {name: _mean(values.astype(float), times) for name, values in errors.items()}
        means["signed"] = means["signed"] if times.any() else None
        out["count"] = means | {
            "relative": _mean(abs(off) / there, times),
            "true": int(total[0]),
            "found": int(total[1]),
        }
        return out | {"images": int(times.sum()), "min_score": self.min_score}

    def _join(self, images: Sequence[tuple[np.ndarray, np.ndarray]]) -> Joined:
        count = len(self.thresholds)
        counts = np.array([kept[0] for kept in images], np.int64).reshape(-1, _COUNTS + 2 * count + 1)
        sums = np.array([kept[1] for kept in images], np.float64).reshape(-1, 1 + count)
        return Joined(counts, sums, _figures(counts, sums, self.thresholds, reached=False))


def _matched(pairs: tuple[np.ndarray, np.ndarray], ious: np.ndarray, may: np.ndarray) -> np.ndarray:
    """The pairs among those that ``may`` be (bool [P]) that are made."""
    which = np.flatnonzero(may)
    return which[assign_pairs(pairs[0][which], pairs[1][which], ious[which], most=True)]


def _figures(
    counts: np.ndarray, sums: np.ndarray, thresholds: Sequence[float], *, reached: bool
) -> dict[str, np.ndarray]:
    """Figures of counts as in ``Joined``, [I] each, NaN where undefined; those of thresholds as ``t/AP``."""
    true, found = counts[:, 0], counts[:, 1]
    total = true + found
    out: dict[str, np.ndarray] = {}
    first = _COUNTS + (len(thresholds) if reached else 0)
    for i, t in enumerate(thresholds):
        matched = counts[:, first + i]
        its = {
            "AP": _ratio(matched, total - matched),
            "precision": _ratio(matched, found),
            "recall": _ratio(matched, true),
            "F1": _ratio(2 * matched, total),
        }
        if reached:
            its["IoU"] = _ratio(sums[:, 1 + i], matched)
        out |= {f"{t:.2f}/{name}": values for name, values in its.items()}
    means = {name: np.mean([out[f"{t:.2f}/{name}"] for t in thresholds], axis=0) for name in ("AP", "F1")}
    half = counts[:, -1]
    quality = {"DQ": _ratio(2 * half, total), "SQ": np.where(total > 0, sums[:, 0] / np.maximum(half, 1), np.nan)}
    quality["PQ"] = _ratio(2 * sums[:, 0], total)
    shares = {name: _ratio(counts[:, k], counts[:, k + 1]) for name, k in (("AJI", 2), ("AJI+", 4), ("Dice", 6))}
    return means | shares | quality | out


def _nested(flat: Mapping[str, float]) -> dict[str, Any]:
    """``{"t/AP": v}`` as ``{"thresholds": {"t": {"AP": v}}}``."""
    out: dict[str, Any] = {name: value for name, value in flat.items() if "/" not in name}
    rows: dict[str, dict[str, float]] = {}
    for name, value in flat.items():
        threshold, slash, figure = name.partition("/")
        if slash:
            rows.setdefault(threshold, {})[figure] = value
    return out | {"thresholds": rows}


def _meeting(found: Runs, there: Runs, height: int | None) -> Meeting:
    from maskwright.ops import rle

    areas, truth_areas = rle.area(*found), rle.area(*there)
    step = max(1, _PAIRS // max(len(truth_areas), 1))
    rows, columns, common = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first in range(0, len(areas), step):
        part = rle.take(*found, np.arange(first, min(first + step, len(areas))))
        shared = rle.intersection(*part, *there, height=height)
        row, column = np.nonzero(shared)
        rows.append(row + first)
        columns.append(column)
        common.append(shared[row, column])
    sides = [rle.union(*runs) if len(runs[1]) > 1 else np.zeros(0, np.int32) for runs in (found, there)]
    ends = [np.array([0, len(side)], np.int64) for side in sides]
    joint = 0
    if len(areas) and len(truth_areas):
        joint = int(rle.intersection(sides[0], ends[0], sides[1], ends[1])[0, 0])
    foreground = joint, int(sides[0][1::2].sum(dtype=np.int64)), int(sides[1][1::2].sum(dtype=np.int64))
    row, column, pixels = (np.concatenate(part) for part in (rows, columns, common))
    return Meeting(areas, truth_areas, row, column, pixels, foreground)


def _flattened(runs: Runs, pixels: int) -> Runs:
    """Masks by falling rank without what those before them cover; those of which nothing is left are dropped."""
    owners = np.zeros(pixels, np.int32)
    for i in range(len(runs[1]) - 2, -1, -1):
        borders = np.cumsum(runs[0][runs[1][i] : runs[1][i + 1]]).tolist()
        for start, end in zip(borders[0::2], borders[1::2], strict=False):
            owners[start:end] = i + 1
    changes = np.flatnonzero(np.diff(owners, prepend=0, append=0))
    starts, ends = changes[:-1], changes[1:]
    names = owners[starts]
    order = np.argsort(names, kind="stable")[int((names == 0).sum()) :]
    names, starts, ends = names[order], starts[order], ends[order]
    first = np.diff(names, prepend=0) > 0
    place = 2 * np.arange(len(names)) + np.cumsum(first) - 1  # two runs a stretch, and one to close each mask before
    counts = np.empty(2 * len(names) + int(first.sum()), np.int32)
    counts[place] = starts - np.where(first, 0, np.concatenate([[0], ends[:-1]]))
    counts[place + 1] = ends - starts
    last = np.append(first[1:], True)[: len(first)]
    counts[place[last] + 2] = pixels - ends[last]
    return counts, np.concatenate([place[first], [len(counts)]]).astype(np.int64)


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """``parts / wholes``, NaN where there is no whole."""
    return np.where(wholes > 0, parts / np.maximum(wholes, 1), np.nan)


def _mean(values: np.ndarray, times: np.ndarray) -> float:
    """The mean of the known values; -1.0 without any."""
    known = ~np.isnan(values)
    total = int(times[known].sum())
    return float((values[known] * times[known]).sum() / total) if total else -1.0
