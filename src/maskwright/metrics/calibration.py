"""Whether scores mean what they say: ``Calibration`` of detections, from the matches that ``ErrorAnalysis`` keeps.

A score is calibrated if, of the detections that have it, that share is true (C. Guo et al., "On Calibration of Modern
Neural Networks", ICML 2017; for detections F. Küppers et al., "Multivariate Confidence Calibration for Object
Detection", CVPR Workshops 2020: precision takes the place of accuracy). A score that should also tell how well a mask
fits is compared with the mean IoU, 0 for false detections (K. Oksuz et al., "Towards Building Self-Aware Object
Detectors", CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskwright.metrics._form import Key
from maskwright.metrics.errors import ErrorAnalysis

_SUMS = ("count", "score", "precision", "iou")


class Calibration:
    """Reliability curves and expected calibration errors; ``intervals`` and ``compare`` take it as they take a measure.

    A detection is true as ``errors`` says: at its IoU, of its class, and the first for its truth. Detections inside
    crowds are left out. What is kept of ``errors`` is read once; make it anew when images are added. An ECE is a mean
    of distances, so few detections raise it, and so does resampling: its interval leans upwards.

    Args:
        errors: matched images.
        bins: intervals of equal width that [0, 1] is cut into; a score on a border lies in the upper one, 1 in the
            last. 10 to 20 are usual; figures of different numbers of bins cannot be compared.
        min_score: detections below are left out. Detectors give many of low score, which outweigh all others.
    """

    def __init__(self, errors: ErrorAnalysis, *, bins: int = 15, min_score: float = 0.0) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score must lie in [0, 1], got {min_score}")
        self.kind, self.names, self.bins, self.min_score = errors.kind, errors.names, bins, min_score
        self._keys = errors.keys
        found = errors.detections()
        shown = found["score"] >= min_score
        self._image, self._label = found["image"][shown], found["label"][shown].astype(np.int64)
        score = found["score"][shown]
        self._bin = np.clip(np.searchsorted(self.edges, score, "right") - 1, 0, bins - 1)
        self._values = np.ones(len(score)), score, found["true"][shown].astype(np.float64), found["iou"][shown]

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Sequence[Key | None]:
        """The images in the order of weights, as ``errors`` had them."""
        return self._keys

    @property
    def edges(self) -> np.ndarray:
        """Borders of the bins, float64 [bins + 1]."""
        return np.linspace(0.0, 1.0, self.bins + 1)

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{kind: {"ECE", "MCE", "bias", "ECE_iou", "bias_iou", "mean_ECE", "detections", "per_class"}, ...}``.

        ``ECE``: the mean distance of score and precision over bins, by how many detections each holds; ``MCE`` the
        largest. ``bias``: mean score less precision, above 0 where a model is too sure. ``ECE_iou``, ``bias_iou``: the
        same with the mean IoU in place of precision. ``mean_ECE``: the mean over classes that have detections, where
        errors of different classes cannot cancel. -1.0 where there are no detections, ``None`` for a bias.

        Raises:
            ValueError: ``weights`` are not counts of shape [images].
        """
        sums = self._sums(weights)
        classes = [_figures(sums[:, k]) for k in range(len(self.names))]
        known = [figures["ECE"] for figures in classes if figures["ECE"] >= 0]
        out = _figures(sums.sum(1)) | {"mean_ECE": float(np.mean(known)) if known else -1.0}
        out["per_class"] = dict(zip(self.names, classes, strict=True))
        return {self.kind: out, "images": len(self), "bins": self.bins}

    def curves(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """What to draw: ``{"edges", "count", "score", "precision", "iou", "per_class": {name: the same less edges}}``.

        Arrays [bins]: detections in each bin (int64), and float64 means of score, of being true, and of IoU (0 for
        false ones), NaN for an empty bin.
        """
        sums = self._sums(weights)
        per_class = {name: _means(sums[:, k]) for k, name in enumerate(self.names)}
        return {"edges": self.edges, **_means(sums.sum(1)), "per_class": per_class}

    def _sums(self, weights: np.ndarray | None) -> np.ndarray:
        """Sums over detections of ``_SUMS``, float64 [4, classes, bins]."""
        size = len(self.names) * self.bins
        times = np.ones(len(self._image))
        if weights is not None:
            if weights.shape != (len(self),) or weights.dtype.kind not in "iu" or (weights < 0).any():
                raise ValueError(f"weights must be counts (integers >= 0) of shape ({len(self)},), got {weights!r:.80}")
            times = weights[self._image].astype(np.float64)
        place = self._label * self.bins + self._bin
        sums = [np.bincount(place, times * value, size) for value in self._values]
        return np.stack(sums).reshape(len(_SUMS), len(self.names), self.bins)


def _figures(sums: np.ndarray) -> dict[str, Any]:
    """Figures of sums [4, bins]."""
    count, score, true, iou = sums
    total = count.sum()
    if not total:
        none = {"ECE": -1.0, "MCE": -1.0, "bias": None, "ECE_iou": -1.0, "bias_iou": None}
        return none | {"detections": 0}
    apart, apart_iou = np.abs(score - true), np.abs(score - iou)
    return {
        "ECE": float(apart.sum() / total),
        "MCE": float((apart / np.maximum(count, 1)).max()),
        "bias": float((score - true).sum() / total),
        "ECE_iou": float(apart_iou.sum() / total),
        "bias_iou": float((score - iou).sum() / total),
        "detections": int(total),
    }


def _means(sums: np.ndarray) -> dict[str, np.ndarray]:
    count = sums[0]
    means = np.where(count > 0, sums[1:] / np.maximum(count, 1), np.nan)
    return {"count": count.astype(np.int64), **dict(zip(_SUMS[1:], means, strict=True))}
