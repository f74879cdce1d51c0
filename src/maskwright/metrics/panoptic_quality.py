"""Panoptic quality of images: ``PanopticQuality``. Files are read by ``metrics.panoptic_files``.

A. Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4; with boundaries, B. Cheng et al., "Boundary IoU",
CVPR 2021, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.metrics import _panoptic_core as core
from maskwright.metrics._form import Key, PerImage
from maskwright.metrics._panoptic_core import Classes, MapSegments, Tallies

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy

__all__ = ["MapSegments", "PanopticQuality"]

Kept = tuple[np.ndarray, ...]


class PanopticQuality(PerImage[Kept, list[Tallies]]):
    """PQ, SQ and RQ, equal to panopticapi's ``pq_compute``; with boundaries, to the boundary-iou-api.

    A segment is found where one of its class has an IoU above 0.5 with it: PQ is the sum of such IoU over
    TP + FP / 2 + FN / 2, SQ their mean, RQ = TP / (TP + FP / 2 + FN / 2). Each is taken for a class over all images;
    the mean is over classes that occur. Id 0 is void: it counts neither in a union nor against a prediction.

    Kept of each image: five numbers for each class in it.

    Args:
        taxonomy: the classes, or their names.
        thing: which are things, where ``taxonomy`` does not say so; ``None``: all.
        boundary: measure boundary PQ too: the IoU is the smaller of that of areas and of rims. About doubles the time.
        dilation: the width of a rim as a fraction of the image's diagonal.

    Raises:
        ValueError: ``dilation`` is not in (0, 1), or there is not one flag a class.
    """

    def __init__(
        self,
        taxonomy: Taxonomy | Sequence[str],
        *,
        thing: Sequence[bool] | None = None,
        boundary: bool = False,
        dilation: float = 0.02,
    ) -> None:
        super().__init__()
        if not 0 < dilation < 1:
            raise ValueError(f"dilation must lie in (0, 1), a fraction of the image's diagonal, got {dilation}")
        self.classes = Classes.of(taxonomy, thing)
        self.boundary = boundary
        self.dilation = dilation

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None) -> None:
        """Compare one image.

        Args:
            predicted, truth: with ``panoptic`` and ``segments`` (``ids``, ``labels``; of the truth ``crowd`` too). What
                the truth ignores is void.
            key: the image's id.

        Raises:
            ValueError: something needed is unknown, sizes differ, an id of a map is not listed or a listed one not in
                it, labels are outside of the taxonomy, or ``key`` came before.
        """
        found, its = core.panoptic_of(predicted, "predicted")
        there, listed = core.panoptic_of(truth, "truth", ignore=True)
        self.update_maps(found, there, its, listed, key)

    def update_maps(
        self,
        predicted: np.ndarray,
        truth: np.ndarray,
        predicted_segments: MapSegments,
        truth_segments: MapSegments,
        key: Key | None = None,
    ) -> None:
        """Compare one image given as maps of ids, integers [H, W], 0 where void.

        Args:
            predicted, truth: the maps.
            predicted_segments, truth_segments: what their ids are. Where the truth annotates ``areas``, unions count
                these, as panopticapi does.
            key: the image's id.

        Raises:
            ValueError: as ``update``; or an annotated area is less than the pixels of its segment.
        """
        self._check_key(key)
        if predicted.shape != truth.shape or truth.ndim != 2:
            raise ValueError(f"maps to compare must share one [H, W], got {predicted.shape} and {truth.shape}")
        found, there = core.as_map(predicted, "predicted"), core.as_map(truth, "truth")
        pairs = core.count_pairs(there, found)
        kept, agree = self.match(pairs, self.rims(there, found), predicted_segments, truth_segments)
        if not agree:
            for side, (segments, what) in enumerate(((truth_segments, "truth"), (predicted_segments, "predicted"))):
                segments.check(pairs, side, len(self.classes), what)
        self._keep(key, kept)

    def match(
        self, pairs: np.ndarray, rims: np.ndarray | None, predicted: MapSegments, truth: MapSegments, together: int = 1
    ) -> tuple[Kept, bool]:
        """What is kept of counted pairs, and whether maps and lists agree; for readers.

        Args:
            pairs, rims: int64 [., 3], ids of truth and prediction, rising, and pixels.
            predicted, truth: the segments.
            together: images in one, whose ids differ; the classes of the next begin where those of one end.
        """
        parts = [
            core.tally(pairs, thin, truth, predicted, together * len(self.classes))
            for thin in (None, rims)[: 1 + self.boundary]
        ]
        return tuple(rows for rows, _ in parts), all(agree for _, agree in parts)

    def rims(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray | None:
        """The counted pairs of rims of two maps, int32 or int64 in C order; ``None`` where areas alone count."""
        if not self.boundary:
            return None
        return core.count_rims(truth, predicted, core.reach_of(truth.shape[0], truth.shape[1], self.dilation))

    def keep(self, key: Key | None, kept: Kept) -> None:
        """Count an image that a reader compared.

        Raises:
            ValueError: ``key`` came before.
        """
        self._keep(key, kept)

    def settings(self) -> Mapping[str, Any]:
        """Classes, boundary and its dilation."""
        return {"classes": self.classes, "boundary": self.boundary, "dilation": self.dilation}

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"panoptic": {"PQ": ..., "SQ_things": ..., "per_class": {name: {...}}}, "images": I}``.

        ``"boundary"`` holds the same for boundaries where these are measured. Fractions; -1.0 where nothing is to be
        found (panopticapi gives 0 for such a class, and leaves it out of the mean as well).

        Args:
            weights: int64 [len(self)], how often each image counts, in the order of ``keys``; ``None``: once.
        """
        times = self._weights(weights)
        kinds = ("panoptic", "boundary")[: 1 + self.boundary]
        out: dict[str, Any] = {
            kind: part.figures(times, self.classes) for kind, part in zip(kinds, self._joined(), strict=True)
        }
        return out | {"images": len(self)}

    def _join(self, images: Sequence[Kept]) -> list[Tallies]:
        return [Tallies.join([image[kind] for image in images]) for kind in range(1 + self.boundary)]
