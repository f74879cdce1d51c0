"""Mask R-CNN: He, Gkioxari, Dollar, Girshick, "Mask R-CNN", ICCV 2017 (arXiv:1703.06870).

A region proposal network proposes boxes on a feature pyramid; each box is cut out of the pyramid by RoIAlign and
classified and refined by one head (section 3); a second, convolutional head draws one binary mask a class inside the
box, trained by a per-pixel sigmoid so that the classes' masks do not compete with each other.

Differences: none of substance. ``nn.conventions`` names the details in which the two public implementations differ
(detectron2's, the default, and torchvision's), so that checkpoints of both compute here what they compute there.

Weights: importers for detectron2 (CC BY-SA 3.0) and torchvision (BSD-3); ``embedded`` is our own (CC0 data).

    tensor        meaning                                        shape
    pixels        RGB, 0..255                                    [B, 3, H, W]
    objectness    one map a level, A anchors a cell              [B, A, H/s, W/s]
    proposals     one tensor an image                            [P, 4]
    class_logits  R boxes of all images, background last         [R, C + 1]
    mask_logits   M boxes of all images, m = 28 by default       [M, C, m, m]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from maskwright.models.parts.two_stage import TwoStage, resnet
from maskwright.nn.heads.roi_box import BoxHead, Detections
from maskwright.nn.heads.roi_mask import MaskHead
from maskwright.nn.heads.roi_sampling import Samples
from maskwright.nn.heads.rpn import RPNHead
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName
from maskwright.structures import Batch, Geometry, Images, Resize, Scene, Taxonomy


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``samples`` with scenes, ``detections`` without."""

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    proposals: list[Tensor]
    class_logits: Tensor
    box_deltas: Tensor
    mask_logits: Tensor
    samples: list[Samples] | None = None
    detections: list[Detections] | None = None
    anchors_sampled: int | None = None


class MaskRCNN(TwoStage):
    """Mask R-CNN on built parts; the arguments are ``TwoStage``'s."""

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Proposals, and the heads on sampled RoIs (with ``scenes``) or on proposals and detections (without)."""
        features, objectness, deltas = self.dense(inputs)
        anchors = self.anchors(features, inputs.pixels.shape[-2:])
        numbers = self.proposals_test if scenes is None else self.proposals_train
        proposals = self.propose(objectness, deltas, anchors, inputs, numbers)
        if scenes is None:
            class_logits, box_deltas = self.box_head(self.pool(features, proposals, self.box_size))
            detections = self.detect(proposals, class_logits, box_deltas, inputs)
            mask_logits = self.mask_head(self.pool(features, [d.boxes for d in detections], self.mask_size))
            return Raw(objectness, deltas, anchors, proposals, class_logits, box_deltas, mask_logits, None, detections)
        samples = [self.sample(features, *each) for each in zip(range(len(scenes)), proposals, scenes, strict=True)]
        class_logits, box_deltas = self.box_head(self.pool(features, [s.boxes for s in samples], self.box_size))
        positive = [s.boxes[s.labels < len(self.taxonomy)] for s in samples]
        mask_logits = self.mask_head(self.pool(features, positive, self.mask_size))
        return Raw(objectness, deltas, anchors, proposals, class_logits, box_deltas, mask_logits, samples)

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_rpn_class, L_rpn_box, L_class, L_box and L_mask, each times its weight (section 3; Faster R-CNN, 3.1.2).

        The mask loss sees the true class's map only: masks are decoupled from the class (section 3).
        """
        sums = self.five_sums(raw, batch)
        return self.weighted(sums, self.loss_counts(raw, batch))

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        return self.five_counts(raw, batch)

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: of each detection's maps the one of its class."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        logits = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        return [
            self.scene(found, self.chosen(maps, found.labels).float().sigmoid(), view)
            for found, maps, view in zip(raw.detections, logits, geometry, strict=True)
        ]


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    channels: int = 256,
    extra: int = 1,
    neck_norm: NormName = None,
    rpn_depth: int = 1,
    box_head: Literal["fc2", "conv4_fc1"] = "fc2",
    box_hidden: int = 1024,
    agnostic_box: bool = False,
    head_norm: NormName = None,
    mask_width: int = 256,
    mask_depth: int = 4,
    box_size: int = 7,
    agnostic_mask: bool = False,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    **options: Any,
) -> MaskRCNN:
    backbone, options = resnet(body, **options)
    classes = len(taxonomy)
    return MaskRCNN(
        backbone,
        FPN(backbone.channels, channels, extra=extra, norm=neck_norm),
        RPNHead(channels, len(anchor_ratios), depth=rpn_depth),
        BoxHead(channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm, agnostic=agnostic_box),
        MaskHead(channels, 1 if agnostic_mask else classes, width=mask_width, depth=mask_depth, norm=head_norm),
        taxonomy=taxonomy,
        box_size=box_size,
        agnostic_mask=agnostic_mask,
        anchor_ratios=anchor_ratios,
        **options,
    )


def mask_rcnn_r18(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-18, FPN 256."""
    return _build(taxonomy, **{"body": "resnet18", **options})


def mask_rcnn_r50(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-50, FPN 256: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def mask_rcnn_r101(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-101, FPN 256."""
    return _build(taxonomy, **{"body": "resnet101", **options})


def mask_rcnn_x101(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNeXt-101 32x8d, FPN 256."""
    return _build(taxonomy, **{"body": "resnext101_32x8d", **options})


def mask_rcnn_mobilenetv3(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """MobileNetV3-Large, FPN 128 and thin heads."""
    numbers: dict[str, Any] = {"body": "mobilenetv3_large_100", "channels": 128, "mask_width": 128, "box_hidden": 512}
    return _build(taxonomy, **{**numbers, **options})


def mask_rcnn_r18_light(taxonomy: Taxonomy, **options: Any) -> MaskRCNN:
    """ResNet-18 up to C4, FPN 96 with batch norm, thin heads: 4.6 million parameters, for small objects on two cores.

    Anchors start at 16 pixels and pictures are enlarged twofold: nuclei are some 20 pixels wide. Its classes are
    shapes of one kind, so a detection of one suppresses those of the others.
    """
    numbers: dict[str, Any] = {
        "body": "resnet18",
        "out_indices": (1, 2, 3),
        "channels": 96,
        "neck_norm": "batch",
        "head_norm": "batch",
        "box_hidden": 256,
        "mask_width": 64,
        "strides": (4, 8, 16, 32),
        "anchor_sizes": (16, 32, 64, 128),
        "roi_levels": 3,
        "canonical_size": 112.0,
        "rpn_batch": 256,
        "roi_batch": 128,
        "agnostic_nms": True,
        "proposals_train": (1000, 500),
        "proposals_test": (1000, 1000),
        "resize": Resize(scale=2.0, long=2048),
    }
    return _build(taxonomy, **{**numbers, **options})
