"""Panoptic measures of video, fed clip by clip: ``VideoPanopticQuality`` (VPQ) and ``STQ``.

D. Kim et al., "Video Panoptic Segmentation", CVPR 2020, section 3; M. Weber et al., "STEP: Segmenting and Tracking
Every Pixel", NeurIPS 2021, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics import _panoptic_core as core
from maskwright.metrics._clips import Clip, OfClips
from maskwright.metrics._panoptic_core import MapSegments, Tallies

if TYPE_CHECKING:
    from maskwright.structures import Taxonomy


class VideoPanopticQuality(OfClips[list[np.ndarray], list[Tallies]]):
    """VPQ: panoptic quality of tubes, the segments of windows of consecutive frames; its mean over window lengths.

    Windows begin at every frame of a clip; a segment in a window is all that has its id there. Beyond that the rules
    are those of ``PanopticQuality``.

    Kept of each clip: five numbers for each class in it and length of windows.

    Args:
        taxonomy: the classes, or their names.
        thing: which are things, where ``taxonomy`` does not say so; ``None``: all.
        void: the class of void pixels in ``update_maps``; negative classes are void as well.
        windows: lengths in frames. The paper steps over frames that are not annotated; leave those out of the clips.
        official: as the paper's tool counts. It adds up the areas of truths in place, in the records of single frames:
            where a segment appears within a window, and not with its first frame, later windows that begin at that
            frame find its area too large, and its IoU is too small. With ``False`` areas are what they are. The two
            differ for windows of three frames and more only.

    Raises:
        ValueError: there are no windows, or one is shorter than a frame; ``void`` is a class; or there is not one flag
            a class.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str],
        *,
        thing: Sequence[bool] | None = None,
        void: int = 255,
        windows: Sequence[int] = (1, 2, 3, 4),
        official: bool = True,
    ) -> None:
        super().__init__(taxonomy, thing=thing, void=void)
        self.windows = tuple(windows)
        if not self.windows or min(self.windows) < 1 or len(set(self.windows)) < len(self.windows):
            raise ValueError(f"windows must be distinct numbers of frames, 1 or more, got {self.windows}")
        self.official = official

    def settings(self) -> Mapping[str, Any]:
        """Classes, void, windows, and whether counting is official."""
        return {name: getattr(self, name) for name in ("classes", "void", "windows", "official")}

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"video_panoptic": {"VPQ", "VPQ_things", "VPQ_stuff", "per_window": {"1": {"PQ", ...}}}, "images": I}``.

        Each window has what ``PanopticQuality`` gives; the VPQ are means over windows. Fractions; -1.0 where undefined.

        Args:
            weights: int64 [len(self)], how often each clip counts, in the order of ``keys``; ``None``: once.
        """
        times = self._weights(weights)
        parts = zip(self.windows, self._joined(), strict=True)
        each = {str(k): part.figures(times, self.classes) for k, part in parts}
        out: dict[str, Any] = {}
        for suffix in ("", "_things", "_stuff"):
            known = [v for figures in each.values() if (v := figures[f"PQ{suffix}"]) >= 0]
            out[f"VPQ{suffix}"] = float(np.mean(known)) if known else -1.0
        return {"video_panoptic": out | {"per_window": each}, "images": len(self)}

    def _compare(self, clip: Clip) -> list[np.ndarray]:
        stride = len(clip.predicted) + 1
        codes = [frame[:, 0] * stride + frame[:, 1] for frame in clip.frames]
        inside = [_areas(frame, len(clip.truth)) for frame in clip.frames]
        # Segments by place + 1 instead of by id
        places = [np.arange(1, len(side) + 1) for side in (clip.truth, clip.predicted)]
        predicted = MapSegments(places[1], clip.predicted.labels)
        out: list[np.ndarray] = []
        for k in self.windows:
            written = [areas.copy() for areas in inside]
            rows = [np.zeros((0, 5))]
            for first in range(len(codes) - k + 1):
                window = slice(first, first + k)
                both, place = np.unique(np.concatenate(codes[window]), return_inverse=True)
                pixels = np.bincount(place, np.concatenate([frame[:, 2] for frame in clip.frames[window]]), len(both))
                pairs = np.stack([both // stride, both % stride, pixels.astype(np.int64)], 1)
                areas = _accumulated(written[window], inside[window]) if self.official else None
                truth = MapSegments(places[0], clip.truth.labels, clip.truth.crowd, areas)
                rows.append(core.tally(pairs, None, truth, predicted, len(self.classes))[0])
            out.append(_summed(np.concatenate(rows)))
        return out

    def _join(self, images: Sequence[list[np.ndarray]]) -> list[Tallies]:
        return [Tallies.join([image[k] for image in images]) for k in range(len(self.windows))]


def _areas(frame: np.ndarray, truths: int) -> np.ndarray:
    """The pixels of each truth in a frame: int64 [truths]."""
    return np.bincount(frame[:, 0], frame[:, 2], truths + 1)[1:].astype(np.int64)


def _accumulated(written: Sequence[np.ndarray], inside: Sequence[np.ndarray]) -> np.ndarray:
    """Areas of truths in a window as the official tool has them: added up in the frame where each appears first.

    ``written``: areas by frame, which this changes for the windows to come; ``inside``: the true ones.
    """
    out = np.zeros_like(inside[0])
    home = np.full(len(out), -1)
    for f, (areas, there) in enumerate(zip(written, inside, strict=True)):
        home[(home < 0) & (there > 0)] = f
        out += areas
    for f, areas in enumerate(written):
        areas[home == f] = out[home == f]
    return out


def _summed(rows: np.ndarray) -> np.ndarray:
    """Rows of ``tally``, one for each class."""
    labels, place = np.unique(rows[:, 0], return_inverse=True)
    sums = [np.bincount(place, column, len(labels)) for column in rows[:, 1:].T]
    return np.stack([labels, *sums], 1)


@dataclass(slots=True)
class TrackedClips:
    """What ``STQ`` keeps of clips.

    Attributes:
        association: float64 [I], sum over truth tubes of how well predictions follow them; tubes: int64 [I], how many.
        image, truth, predicted: int64 [M], entries of confusion matrices: the clip, the class of the truth (never
            void) and of the prediction (C where void); pixels: float64 [M], whole numbers.
    """

    association: np.ndarray
    tubes: np.ndarray
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    pixels: np.ndarray


class STQ(OfClips[tuple[float, int, np.ndarray], TrackedClips]):
    """Segmentation and tracking quality: the geometric mean of association (AQ) and segmentation quality (SQ).

    Equal to deeplab2's ``STQuality``. AQ: for each truth tube the mean, over its pixels, of the IoU of that prediction
    which covers the pixel, whatever its class; averaged over all tubes of all clips. Pixels of crowds count in no
    tube. SQ: mean IoU of classes over all pixels that are not void in the truth. As in the official tool, void that is
    predicted on such pixels is a class of IoU 0 in that mean, and a predicted tube keeps its pixels on void.

    Kept of each clip: two numbers and its confusion matrix.

    Args:
        taxonomy: the classes, or their names.
        thing: which are things, where ``taxonomy`` does not say so; ``None``: all.
        void: the class of void pixels in ``update_maps``; negative classes are void as well.
        official: as the official tool adds on numpy 2, where its association is in single precision throughout; which
            moves AQ by about 1e-8. With ``False`` all is in double precision.

    Raises:
        ValueError: ``void`` is a class, or there is not one flag a class.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str],
        *,
        thing: Sequence[bool] | None = None,
        void: int = 255,
        official: bool = True,
    ) -> None:
        super().__init__(taxonomy, thing=thing, void=void)
        self.official = official

    def settings(self) -> Mapping[str, Any]:
        """Classes, void, and whether adding is official."""
        return {name: getattr(self, name) for name in ("classes", "void", "official")}

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"stq": {"STQ", "AQ", "SQ", "per_class": {name: {"IoU"}}}, "images": I}``, fractions.

        AQ is 0 without truth tubes, as in the official tool; -1.0 where nothing is to be segmented.

        Args:
            weights: int64 [len(self)], how often each clip counts, in the order of ``keys``; ``None``: once.
        """
        times, kept, count = self._weights(weights), self._joined(), len(self.classes)
        code = kept.truth * (count + 1) + kept.predicted
        sums = np.bincount(code, kept.pixels * times[kept.image], count * (count + 1)).reshape(count, count + 1)
        hits = np.append(np.diag(sums), 0.0)
        unions = sums.sum(0) + np.append(sums.sum(1), 0.0) - hits
        ious = np.where(unions > 0, hits / np.maximum(unions, 1.0), -1.0)
        per_class = {name: {"IoU": iou} for name, iou in zip(self.classes.names, ious[:-1].tolist(), strict=True)}
        known = ious >= 0
        out = {"STQ": -1.0, "AQ": -1.0, "SQ": -1.0}
        if known.any():
            tubes = int((kept.tubes * times).sum())
            followed = (kept.association * times).astype(np.float32 if self.official else np.float64)
            out["AQ"] = float(followed.sum()) / max(tubes, 1)
            out["SQ"] = float(ious[known].sum() / known.sum())
            out["STQ"] = float(np.sqrt(out["AQ"] * out["SQ"]))
        return {"stq": out | {"per_class": per_class}, "images": len(self)}

    def _compare(self, clip: Clip) -> tuple[float, int, np.ndarray]:
        count = len(self.classes)
        t, p, n = np.concatenate([np.zeros((0, 3), np.int64), *clip.frames]).T
        frame = np.repeat(np.arange(len(clip.frames)), [len(part) for part in clip.frames])
        thing = np.array([*self.classes.thing, False], bool)
        of_truth, of_found = np.append(-1, clip.truth.labels)[t], np.append(-1, clip.predicted.labels)[p]
        crowd = np.append(False, clip.truth.is_crowd())[t] & thing[of_truth]
        tube, follows = thing[of_truth] & ~crowd, thing[of_found] & ~crowd
        sizes = np.bincount(t[tube], n[tube], len(clip.truth) + 1)
        others = np.bincount(p[follows], n[follows], len(clip.predicted) + 1)
        both = tube & follows
        ranks = _ranks(clip.truth, t[tube], frame[tube])[t], _ranks(clip.predicted, p[follows], frame[follows])[p]
        codes, first, place = np.unique(
            ranks[0][both] * (len(others) + 1) + ranks[1][both], return_index=True, return_inverse=True
        )
        shared = np.bincount(place, n[both], len(codes))
        pairs = t[both][first], p[both][first], shared
        valid = of_truth >= 0
        cells = of_truth[valid] * (count + 1) + np.where(of_found < 0, count, of_found)[valid]
        cell, row = np.unique(cells, return_inverse=True)
        pixels = np.bincount(row, n[valid], len(cell))
        matrix = np.stack([cell // (count + 1), cell % (count + 1), pixels.astype(np.int64)], 1)
        followed = _association(*pairs, sizes, others, np.float32 if self.official else np.float64)
        return followed, int((sizes > 0).sum()), matrix

    def _join(self, images: Sequence[tuple[float, int, np.ndarray]]) -> TrackedClips:
        rows = np.concatenate([np.zeros((0, 3), np.int64), *(matrix for _, _, matrix in images)])
        image = np.repeat(np.arange(len(images)), [len(matrix) for _, _, matrix in images])
        association = np.array([value for value, _, _ in images], np.float64)
        tubes = np.array([number for _, number, _ in images], np.int64)
        return TrackedClips(association, tubes, image, rows[:, 0], rows[:, 1], rows[:, 2].astype(np.float64))


def _ranks(segments: MapSegments, places: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The order in which the official tool meets segments, by place + 1: by first frame, then class, then id."""
    first = np.full(len(segments) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, places, frames)
    out = np.empty(len(segments) + 1, np.int64)
    out[np.lexsort((np.append(0, segments.ids), np.append(0, segments.labels), first))] = np.arange(len(out))
    return out


def _association(
    truth: np.ndarray, found: np.ndarray, shared: np.ndarray, sizes: np.ndarray, others: np.ndarray, kind: Any
) -> float:
    """The sum over truth tubes of how well predictions follow them, added one after another in numbers of ``kind``.

    Args:
        truth, found: int64 [M], pairs of tubes, those of a truth together; shared: [M], their pixels.
        sizes, others: the pixels of truths and of predictions.
    """
    if not len(truth):
        return 0.0
    n, size, other = (np.asarray(values, kind) for values in (shared, sizes[truth], others[found]))
    gained = n * (n / (size + other - n))
    begins = np.flatnonzero(np.diff(truth, prepend=-1))
    # Unlike sum(), cumsum() adds in order.
    inner = np.array([np.cumsum(part)[-1] for part in np.split(gained, begins[1:])], kind)
    return float(np.cumsum(kind(1) / size[begins] * inner)[-1])
