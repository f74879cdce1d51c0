"""Which measures judge a model: average precision, mean IoU, or panoptic quality and both others beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from maskwright.metrics._form import Key
from maskwright.metrics.average_precision import CocoAP
from maskwright.metrics.mean_iou import MeanIoU
from maskwright.metrics.panoptic_quality import PanopticQuality

if TYPE_CHECKING:
    from maskwright.structures import Scene, Segments, Taxonomy

MAIN_FIGURES: Mapping[str, Mapping[str, str]] = {
    "instance": {"mask": "AP", "box": "AP"},
    "semantic": {"semantic": "mIoU"},
    "panoptic": {"panoptic": "PQ"},
}
"""By task: group of figures -> the one that counts; the first group's chooses the best of a training."""

INSTANCE_KINDS = ("mask", "box")


class Judge(Protocol):
    """A measure of whole scenes; it can be resampled for intervals, as every measure."""

    @property
    def keys(self) -> list[Key | None]: ...

    def update(
        self, predicted: Scene, truth: Scene, key: Key | None = None, areas: np.ndarray | None = None
    ) -> None: ...

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]: ...


def main_figure(task: str) -> str:
    """The figure that chooses between models of a task, ``group.name``."""
    group, name = next(iter(MAIN_FIGURES[task].items()))
    return f"{group}.{name}"


def judge(task: str, taxonomy: Taxonomy, *, kinds: Sequence[str] = INSTANCE_KINDS, max_detections: int = 100) -> Judge:
    """The measures of a task.

    Args:
        task: instance (``CocoAP``), semantic (``SemanticFigures``) or panoptic (``PanopticFigures``).
        taxonomy: the classes of the data.
        kinds: of mask and box, for instances.
        max_detections: objects an image that average precision counts.
    """
    if task == "semantic":
        return SemanticFigures(taxonomy)
    if task == "panoptic":
        return PanopticFigures(taxonomy, max_detections)
    return CocoAP(taxonomy, kinds=tuple(kinds), max_detections=max_detections)


class SemanticFigures(MeanIoU):
    """Mean IoU and the other figures of a confusion matrix, those of boundaries too (B. Cheng et al., CVPR 2021)."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy, ignore=(), boundary=True)

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None, areas: np.ndarray | None = None) -> None:
        """Compare one image, see ``MeanIoU``; ``areas`` are those of objects, of which there are none."""
        super().update(predicted, truth, key)


class PanopticFigures:
    """PQ, SQ and RQ of all classes, things and stuff; of boundaries too; mean IoU; and average precision of the things.

    Predicted scenes need ``panoptic`` and ``segments`` with ids. Masks that segments lack are cut out of the map; where
    they have no scores, average precision takes all for certain.

    Args:
        taxonomy: the classes.
        max_detections: things an image that average precision counts.
    """

    def __init__(self, taxonomy: Taxonomy, max_detections: int = 100) -> None:
        self.taxonomy = taxonomy
        self.quality = PanopticQuality(taxonomy, boundary=True)
        self.semantic = MeanIoU(taxonomy, ignore=())
        self.things = CocoAP(taxonomy, kinds=("mask",), max_detections=max_detections) if any(taxonomy.thing) else None

    @property
    def keys(self) -> list[Key | None]:
        return self.quality.keys

    def __len__(self) -> int:
        return len(self.quality)

    def update(self, predicted: Scene, truth: Scene, key: Key | None = None, areas: np.ndarray | None = None) -> None:
        """Compare one image.

        Args:
            predicted, truth: with ``panoptic`` and ``segments`` with ids.
            key: the image's id.
            areas: float64 [G], annotated areas of the truth's segments, for the size classes of average precision.

        Raises:
            ValueError: something needed is unknown, sizes differ, or ``key`` came before.
        """
        self.quality.update(predicted, truth, key)
        self.semantic.update(*(replace(scene, semantic=scene.classes()) for scene in (predicted, truth)), key=key)
        if self.things is not None:
            there = self._kept(truth.objects())
            own = None if areas is None else areas[there]
            self.things.update(self._only_things(predicted, sure=True), self._only_things(truth), key, own)

    def merge(self, other: PanopticFigures) -> PanopticFigures:
        """Take what another shard counted."""
        self.quality.merge(other.quality)
        self.semantic.merge(other.semantic)
        if self.things is not None and other.things is not None:
            self.things.merge(other.things)
        return self

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """``{"panoptic", "boundary", "semantic", "mask", "images", "max_per_image"}``: see the measures; fractions."""
        semantic = self.semantic.compute(weights)["semantic"]
        left_out = ("confusion", "missed")
        out = self.quality.compute(weights) | {"semantic": {k: v for k, v in semantic.items() if k not in left_out}}
        if self.things is not None:
            found = self.things.compute(weights)
            things = {n for n, thing in zip(self.taxonomy.names, self.taxonomy.thing, strict=True) if thing}
            each = {name: row for name, row in found["mask"]["per_class"].items() if name in things}
            out |= {"mask": {**found["mask"], "per_class": each}, "max_per_image": found["max_per_image"]}
        return out

    def _kept(self, segments: Segments) -> np.ndarray:
        """Which segments are things, bool [N]."""
        return np.array(self.taxonomy.thing, bool)[segments.labels.cpu().numpy()]

    def _only_things(self, scene: Scene, *, sure: bool = False) -> Scene:
        import torch

        segments = scene.with_masks().objects()
        chosen = segments[torch.tensor(np.flatnonzero(self._kept(segments)), dtype=torch.int64)]
        if sure and chosen.scores is None:
            chosen = replace(chosen, scores=torch.ones(len(chosen)))
        return replace(scene, segments=chosen, panoptic=None, semantic=None)
