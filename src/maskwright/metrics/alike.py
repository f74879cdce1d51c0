"""Whether two ways of computing a model find the same: scenes compared one by one, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Scene, Segments


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two answers may be apart and be called equal.

    Attributes:
        score: of the same object. iou: of its masks, at least.
        objects: the share of objects that must be found on both sides. pixels: the share of pixels of one class.
    """

    score: float
    iou: float
    objects: float
    pixels: float


TOLERANCES = {
    "fp32": Tolerance(score=1e-3, iou=0.99, objects=0.98, pixels=0.999),
    "fp16": Tolerance(score=0.02, iou=0.95, objects=0.95, pixels=0.99),
    "bf16": Tolerance(score=0.05, iou=0.9, objects=0.9, pixels=0.97),
    "int8": Tolerance(score=0.1, iou=0.85, objects=0.85, pixels=0.95),
}
"""By precision. Rounding alone moves an object near a threshold; those are left out of the comparison."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a comparison found: shares in [0, 1], 1 where nothing was to compare; ``objects`` counts the model's own."""

    shared: float
    pixels: float
    objects: int
    score_error: float

    def holds(self, tolerance: Tolerance) -> bool:
        """Whether the shares reach what is asked."""
        return self.shared >= tolerance.objects and self.pixels >= tolerance.pixels

    def to_json(self) -> dict[str, Any]:
        """For ``artifact.json``."""
        return {
            "objects": self.objects,
            "objects_shared": round(self.shared, 4),
            "pixels_equal": round(self.pixels, 6),
            "score_error": round(self.score_error, 6),
        }


def compare(
    found: Sequence[Scene], wanted: Sequence[Scene], tolerance: Tolerance, *, threshold: float, limit: int
) -> Agreement:
    """Compare scenes, one by one.

    Args:
        threshold, limit: of scores and of objects a picture: what lies within the score's tolerance of either may be
            missing on one side.
    """
    met, counted, pixels, error, objects = 0, 0, 1.0, 0.0, 0
    for ours, theirs in zip(found, wanted, strict=True):
        if theirs.semantic is not None:
            assert ours.semantic is not None
            pixels = min(pixels, float((ours.semantic == theirs.semantic).float().mean()))
        if theirs.segments is None or ours.segments is None:
            continue
        objects += len(theirs.segments)
        for a, b in ((theirs.segments, ours.segments), (ours.segments, theirs.segments)):
            sure = _sure(a, tolerance.score, threshold, limit)
            known, apart = _found_again(a, b, tolerance)
            met, counted = met + int((known & sure).sum()), counted + int(sure.sum())
            error = max(error, float(apart[known].max()) if bool(known.any()) else 0.0)
    return Agreement(met / counted if counted else 1.0, pixels, objects, error)


def _scores(segments: Segments) -> Tensor:
    return segments.scores if segments.scores is not None else torch.ones(len(segments))


def _sure(segments: Segments, margin: float, threshold: float, limit: int) -> Tensor:
    """bool [N]: objects that are not there by a hair."""
    scores = _scores(segments)
    least = threshold + margin
    if len(segments) >= limit:
        least = max(least, float(scores.min()) + margin)
    return scores > least


def _found_again(a: Segments, b: Segments, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
    """Which of ``a`` are in ``b`` too, bool [N], and how far the scores are apart [N]."""
    if len(a) == 0 or len(b) == 0:
        return torch.zeros(len(a), dtype=torch.bool), torch.zeros(len(a))
    assert a.masks is not None
    assert b.masks is not None
    apart = (_scores(a)[:, None] - _scores(b)[None]).abs()
    empty = (a.masks.area() == 0)[:, None] & (b.masks.area() == 0)[None]
    alike = (a.masks.iou(b.masks).float() >= tolerance.iou) | empty
    same = alike & (a.labels[:, None] == b.labels[None]) & (apart <= tolerance.score)
    return same.any(1), torch.where(same, apart, torch.inf).amin(1)
