"""YouTube-VIS average precision of tubes: ``VideoAP``. ``metrics.video_files`` makes one of files.

L. Yang et al., "Video Instance Segmentation", ICCV 2019, section 3.2. A tube is an object's mask in all frames; two
tubes are compared by the pixels they share in all frames over those that either has. All else is COCO's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics import _coco_core as core
from maskwright.metrics._coco_core import Group, Matches, Rules
from maskwright.metrics._form import Key, PerImage
from maskwright.metrics._tubes import areas as frame_areas
from maskwright.metrics.average_precision import Objects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maskwright.structures import Scene, Segments, Taxonomy

AREAS: tuple[tuple[float, float], ...] = ((0.0, 1e10), (0.0, 128.0**2), (128.0**2, 256.0**2), (256.0**2, 1e10))
"""Size classes of YouTube-VIS in pixels: all, small, medium, large."""


@dataclass(slots=True)
class Tubes:
    """N tubes of one video, found or annotated.

    Attributes:
        labels: int [N], dense, 0 .. C - 1.
        pixels: int64 [N], of all frames together.
        areas: float64 [N], what size classes go by: the mean over the frames in which a tube is visible.
        scores: float64 [N] in [0, 1]; needed of what was found.
        crowd: bool [N], annotated tubes of many objects.
    """

    labels: np.ndarray
    pixels: np.ndarray
    areas: np.ndarray
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None


class VideoAP(PerImage[Matches, Matches]):
    """YouTube-VIS's twelve numbers; its "images" are videos.

    Equal to ``YTVOSeval`` of youtubevos/cocoapi, with its size classes (up to 128^2 pixels, up to 256^2, above) by the
    mean area over the frames in which a tube is visible. Two of its habits are not kept: the tubes of a video must have
    as many frames as it (it cuts them to the shortest), and the annotation of id 0 is one like any other (it counts its
    matches as false).

    Annotated crowds neither count nor punish; they are compared by IoU like any truth. Where detections of different
    videos have equal scores their order is that of ``key``, as in ``CocoAP``.

    Args:
        taxonomy: the classes, or their names; labels lie in it.
        max_detections: best-scored detections of a class in a video that count, or the rising numbers at which recall
            is stated, the last of which is that one.
        thresholds: rising IoUs, the ten of COCO by default.

    Raises:
        ValueError: numbers that do not rise.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str],
        max_detections: int | Sequence[int] = 100,
        *,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        limits = core.limits_for(max_detections) if isinstance(max_detections, int) else tuple(max_detections)
        self.taxonomy = taxonomy
        self.names = tuple(taxonomy if isinstance(taxonomy, Sequence) else taxonomy.names)
        self.rules = Rules(areas=AREAS, limits=limits)
        if thresholds is not None:
            self.rules = replace(self.rules, thresholds=tuple(map(float, thresholds)))

    def settings(self) -> Mapping[str, Any]:
        return {"taxonomy": self.names, "rules": self.rules}

    # ---- videos -----------------------------------------------------------------------------------------------------

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None, areas: np.ndarray | None = None) -> None:
        """Compare one video.

        Args:
            predicted: of size (T, H, W); segments with masks, the tubes, and scores.
            truth: on the same size; ``crowd`` marks tubes of many objects.
            key: the video's id; decides between equal scores of different videos.
            areas: float [G], the annotated mean areas in pixels; by default those of the masks.

        Raises:
            ValueError: sizes differ, masks or scores are missing, values lie outside of their ranges, or ``key`` came
                before.
        """
        from maskwright.ops import rle

        if predicted.size != truth.size or len(truth.size) != 3:
            raise ValueError(f"scenes to compare must share one (T, H, W), got {predicted.size} and {truth.size}")
        self._check_key(key)
        found, there = predicted.objects(), truth.objects()
        size = (truth.size[0], truth.size[1], truth.size[2])
        runs = [self._runs(segments) for segments in (found, there)]
        sides = [_tubes(s.labels.cpu().numpy(), r, size) for s, r in zip((found, there), runs, strict=True)]
        sides[0].scores = None if found.scores is None else found.scores.detach().cpu().double().numpy()
        sides[1].crowd = None if there.crowd is None else there.crowd.cpu().numpy()
        sides[1].areas = sides[1].areas if areas is None else np.asarray(areas, np.float64)
        self.update_tubes(sides[0], sides[1], rle.intersection(*runs[0], *runs[1]), key)

    def update_arrays(
        self, predicted: Objects, truth: Objects, size: tuple[int, int, int], key: Key | None = None
    ) -> None:
        """Compare one video of ``size`` (T, H, W), given as arrays: ``masks`` bool [N, T, H, W]; boxes are not used.

        Raises:
            ValueError: as ``update`` does; or arrays of one side differ in length.
        """
        from maskwright.ops import rle

        self._check_key(key)
        runs: list[tuple[np.ndarray, np.ndarray]] = []
        sides: list[Tubes] = []
        for side in (predicted, truth):
            labels, masks = np.asarray(side.labels, np.int64), side.masks
            if masks is None or masks.shape != (len(labels), *size):
                got = None if masks is None else masks.shape
                raise ValueError(f"masks must be {(len(labels), *size)}, got {got}")
            runs.append(rle.encode(np.asarray(masks, bool)))
            tubes = _tubes(labels, runs[-1], size)
            areas = tubes.areas if side.areas is None else np.asarray(side.areas, np.float64)
            scores = None if side.scores is None else np.asarray(side.scores, np.float64)
            sides.append(replace(tubes, areas=areas, scores=scores, crowd=side.crowd))
        self.update_tubes(sides[0], sides[1], rle.intersection(*runs[0], *runs[1]), key)

    def update_tubes(self, predicted: Tubes, truth: Tubes, common: np.ndarray, key: Key | None = None) -> None:
        """Compare one video whose tubes' common pixels, int64 [D, G], are known.

        Raises:
            ValueError: arrays are not as ``Tubes`` states, or ``key`` came before.
        """
        self._check_key(key)
        scores = np.zeros(0) if predicted.scores is None else predicted.scores
        if scores.shape != predicted.labels.shape or not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"predicted objects must have scores in [0, 1], one each, got {scores!r:.80}")
        for side in (predicted, truth):
            labels = side.labels
            if labels.ndim != 1 or ((labels < 0) | (labels >= len(self.names))).any():
                raise ValueError(f"labels must be [N], dense in 0 .. {len(self.names) - 1}, got {labels!r:.80}")
            for name, value in (("pixels", side.pixels), ("areas", side.areas), ("crowd", side.crowd)):
                if value is not None and value.shape != labels.shape:
                    raise ValueError(f"{name} must be one for each of {len(labels)} objects, got {value.shape}")
        if common.shape != (len(scores), len(truth.labels)):
            raise ValueError(f"common must be {(len(scores), len(truth.labels))}, got {common.shape}")
        ious = common / np.maximum(predicted.pixels[:, None] + truth.pixels - common, 1)
        order = np.argsort(-scores, kind="stable")
        groups: list[Group] = []
        for label in np.union1d(predicted.labels, truth.labels).tolist():
            d, g = order[predicted.labels[order] == label], np.flatnonzero(truth.labels == label)
            crowd = None if truth.crowd is None else truth.crowd[g]
            groups.append(
                Group(0, int(label), scores[d], ious[np.ix_(d, g)], predicted.areas[d], truth.areas[g], crowd)
            )
        matches = core.match_ious(groups, len(self.names), self.rules)
        self._keep(key, matches.found(matches.rank >= 0))

    def _runs(self, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
        segments.validate(len(self.names))
        if segments.masks is None:
            raise ValueError("objects to compare must have masks, got none")
        return segments.masks.counts.numpy(), segments.masks.offsets.numpy()

    # ---- figures ----------------------------------------------------------------------------------------------------

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"mask": {"AP": .., "AP50": .., "AR_10": .., "per_class": {name: {..}}}, "images": I, ..}``.

        Figures are fractions; -1.0 where there is no truth. ``"images"`` says how many videos there were.
        """
        times = None if weights is None else self._weights(weights)
        figures = core.figures(core.accumulate(self._joined(), self.rules, times), self.names)
        count = len(self) if times is None else int(times.sum())
        return {"mask": figures, "images": count, "max_per_image": self.rules.limits[-1]}

    def _join(self, images: Sequence[Matches]) -> Matches:
        return core.join(images, len(self.names), self.rules)


def mean_areas(areas: np.ndarray) -> np.ndarray:
    """The mean over the frames in which a tube is visible, float64 [N], of its area in each, [N, T]; 0 if in none."""
    return areas.sum(1) / np.maximum((areas > 0).sum(1), 1)


def _tubes(labels: np.ndarray, runs: tuple[np.ndarray, np.ndarray], size: tuple[int, int, int]) -> Tubes:
    areas = frame_areas(*runs, size)
    return Tubes(labels.astype(np.int64), areas.sum(1), mean_areas(areas))
