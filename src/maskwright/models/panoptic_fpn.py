"""Panoptic FPN: Kirillov, Girshick, He, Dollar, "Panoptic Feature Pyramid Networks", CVPR 2019 (arXiv:1901.02446).

Mask R-CNN finds things on a feature pyramid, and a light head on the same pyramid classifies every pixel: its levels
are brought to one size by convolutions and bilinear enlargement and are summed (section 3.1). The two are trained
together, and fused by rule: instances by falling score take what is free, stuff fills the rest, small stuff becomes
void (section 3.2; Kirillov et al., "Panoptic Segmentation", section 5).

Differences: none of substance from detectron2's. The semantic head knows one class "thing" beside those of stuff, so
that it is not told to name things (section 4.1); ``merge_things=False`` lets it name them. Stuff has no score in the
original; here it has the mean probability of its class, and no threshold.

Weights: importer for detectron2 (CC BY-SA 3.0).

    tensor           meaning                                     shape
    pixels           RGB, 0..255                                 [B, 3, H, W]
    class_logits     R boxes of all images, background last      [R, T + 1]
    mask_logits      M boxes of all images                       [M, T, 28, 28]
    semantic_logits  all things together first, then stuff       [B, 1 + S, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskwright.models.parts.panoptic import fused_scene
from maskwright.models.parts.panoptic_two_stage import PanopticRaw, PanopticTwoStage, thing_detector
from maskwright.models.parts.two_stage import TwoStage
from maskwright.nn.heads.semantic_fpn import SemanticFPNHead, pixel_cross_entropy
from maskwright.nn.norm import NormName
from maskwright.ops.panoptic import fuse
from maskwright.structures import Batch, Geometry, Images, Scene, Segments, Taxonomy

Raw = PanopticRaw


class PanopticFPN(PanopticTwoStage):
    """Panoptic FPN on built parts.

    Args:
        detector, semantic_head, taxonomy, merge_things: as ``PanopticTwoStage``'s.
        overlap: an instance disappears if more than this share of it is taken by better ones.
        stuff_area: stuff with fewer pixels of the file than this disappears.
    """

    def __init__(
        self,
        detector: TwoStage,
        semantic_head: nn.Module,
        *,
        taxonomy: Taxonomy,
        merge_things: bool = True,
        overlap: float = 0.5,
        stuff_area: int = 4096,
    ) -> None:
        super().__init__(detector, semantic_head, taxonomy=taxonomy, merge_things=merge_things)
        self.merge_things, self.overlap, self.stuff_area = merge_things, overlap, stuff_area

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """The semantic head everywhere, the others on sampled RoIs (with ``scenes``) or on detections (without)."""
        return self.run(inputs, scenes)[0]

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Mask R-CNN's five losses on things, and the cross-entropy of all pixels that are not void (section 3.2)."""
        sums = self.detector.five_sums(raw, self.things(batch))
        sums["semantic"], pixels = self._semantic(raw, batch)
        return self.detector.weighted(sums, {**self.detector.five_counts(raw, batch), "semantic": pixels})

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        target = self.semantic_truth(batch, raw.semantic_logits.device)
        return {**self.detector.five_counts(raw, batch), "semantic": (target >= 0).sum().float()}

    def _semantic(self, raw: Raw, batch: Batch) -> tuple[Tensor, Tensor]:
        target = self.semantic_truth(batch, raw.semantic_logits.device)
        return pixel_cross_entropy(raw.semantic_logits, target)

    # ---- predict ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Panoptic scenes in file pixels; ``instances`` has the things before they were fused."""
        found = [scene.objects() for scene in self.instances(raw, geometry)]
        return [self._fused(*each) for each in zip(found, raw.semantic_logits, geometry, strict=True)]

    def _fused(self, things: Segments, logits: Tensor, view: Geometry) -> Scene:
        assert things.masks is not None
        assert things.scores is not None
        named = self.likeliest(logits, view)
        stuff = named.masked_fill(torch.tensor([*self.taxonomy.thing, True])[named], -1)
        fused = fuse(
            (things.masks.counts.numpy(), things.masks.offsets.numpy()), things.labels.numpy(), things.scores.numpy(),
            stuff.numpy(), overlap=self.overlap, stuff_area=self.stuff_area, limit=self.max_per_image,
        )  # fmt: skip
        of_class, source = self.class_scores(logits, view), torch.from_numpy(fused.source)
        scores = of_class[torch.from_numpy(fused.labels)]
        scores[source >= 0] = things.scores[source[source >= 0]]
        return fused_scene(fused, scores, None if self.merge_things else named)


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    channels: int = 256,
    semantic_width: int = 128,
    semantic_norm: NormName = "group",
    merge_things: bool = True,
    overlap: float = 0.5,
    stuff_area: int = 4096,
    loss_weights: Mapping[str, float] | None = None,
    **options: Any,
) -> PanopticFPN:
    weights = {"semantic": 0.5, **(loss_weights or {})}
    detector = thing_detector(taxonomy, body, channels=channels, loss_weights=weights, **options)
    stuff = sum(not thing for thing in taxonomy.thing)
    head = SemanticFPNHead(
        channels, 1 + stuff if merge_things else len(taxonomy), levels=detector.roi_levels,
        width=semantic_width, norm=semantic_norm,
    )  # fmt: skip
    return PanopticFPN(
        detector, head, taxonomy=taxonomy, merge_things=merge_things, overlap=overlap, stuff_area=stuff_area
    )


def panoptic_fpn_r50(taxonomy: Taxonomy, **options: Any) -> PanopticFPN:
    """ResNet-50, FPN 256, semantic head 128: the paper's form on COCO."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def panoptic_fpn_r101(taxonomy: Taxonomy, **options: Any) -> PanopticFPN:
    """ResNet-101, FPN 256, semantic head 128."""
    return _build(taxonomy, **{"body": "resnet101", **options})
