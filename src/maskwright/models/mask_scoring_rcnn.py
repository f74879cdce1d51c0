"""Mask Scoring R-CNN: Huang, Huang, Gong, Huang, Wang, "Mask Scoring R-CNN", CVPR 2019 (arXiv:1903.00241).

Mask R-CNN ranks masks by the score of their class, which says little about their outline. A MaskIoU head sees the RoI's
features beside the predicted mask and regresses the IoU that this mask has with its object (section 3.2); the score of
a mask is the score of its class times this IoU (section 3.1), and results are ranked by it.

Differences: ``nn.conventions`` names the details in which the authors' code ("maskrcnn-benchmark") and mmdetection
differ. mmdetection also counts a mask's pixel when its logit, not its probability, exceeds 0.5 (``iou_threshold=0.5``,
here 0). Neither bounds the IoU, so that recorded scores reach from below 0 to above 1: objects are ranked by this score
here too, but a scene's scores are clamped to [0, 1]. Neither ranks its output anew; metrics do.

Weights: importers for the authors' checkpoints (MIT) and mmdetection's (Apache-2.0).

    tensor        meaning                                        shape
    pixels        RGB, 0..255                                    [B, 3, H, W]
    objectness    one map a level, A anchors a cell              [B, A, H/s, W/s]
    proposals     one tensor an image                            [P, 4]
    class_logits  R boxes of all images, background last         [R, C + 1]
    mask_logits   M boxes of all images, m = 28 by default       [M, C, m, m]
    mask_ious     of these, expected for each class              [M, C]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.two_stage import Truth, TwoStage, resnet
from maskwright.nn.heads.mask_iou import MaskInput, MaskIoUHead, mask_iou_sum, mask_iou_targets
from maskwright.nn.heads.roi_box import BoxHead, Detections
from maskwright.nn.heads.roi_mask import MaskHead
from maskwright.nn.heads.roi_sampling import Samples
from maskwright.nn.heads.rpn import RPNHead
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName
from maskwright.ops import boxes as box_ops
from maskwright.structures import Batch, Geometry, Images, Scene, Taxonomy


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
    mask_ious: Tensor
    samples: list[Samples] | None = None
    detections: list[Detections] | None = None
    anchors_sampled: int | None = None
    ious_learned: Tensor | None = None


class MaskScoringRCNN(TwoStage):
    """Mask Scoring R-CNN on built parts.

    Args:
        backbone, neck, rpn, box_head, mask_head: the parts.
        iou_head: sees the mask head's RoI features and the mask of the RoI's class.
        iou_classes: which of the C IoUs learn: the true class's (the paper's best), or ``"all"``: those of classes of
            which the RoI holds nothing are then 0 (table 3).
        iou_threshold: the logit above which a pixel belongs to the mask whose IoU is learned.
        iou_inputs_detached: no gradient of the IoU's loss reaches the mask; both public codes let it.
        options: as ``TwoStage``'s.
    """

    class_layers = ("box_head.class_logits", "box_head.box_deltas", "mask_head.predictor", "iou_head.iou")

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPNHead,
        box_head: BoxHead,
        mask_head: MaskHead,
        iou_head: MaskIoUHead,
        *,
        iou_classes: Literal["true", "all"] = "true",
        iou_threshold: float = 0.0,
        iou_inputs_detached: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(backbone, neck, rpn, box_head, mask_head, **options)
        self.iou_head = iou_head
        self.iou_classes: Literal["true", "all"] = iou_classes
        self.iou_threshold, self.iou_inputs_detached = iou_threshold, iou_inputs_detached

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Proposals, and the heads on sampled RoIs (with ``scenes``) or on proposals and detections (without)."""
        features, objectness, deltas = self.dense(inputs)
        anchors = self.anchors(features, inputs.pixels.shape[-2:])
        numbers = self.proposals_test if scenes is None else self.proposals_train
        proposals = self.propose(objectness, deltas, anchors, inputs, numbers)
        samples, detections = None, None
        if scenes is None:
            class_logits, box_deltas = self.box_head(self.pool(features, proposals, self.box_size))
            detections = self.detect(proposals, class_logits, box_deltas, inputs)
            boxes, labels = [found.boxes for found in detections], torch.cat([found.labels for found in detections])
        else:
            samples = [self.sample(features, *each) for each in zip(range(len(scenes)), proposals, scenes, strict=True)]
            class_logits, box_deltas = self.box_head(self.pool(features, [s.boxes for s in samples], self.box_size))
            boxes = [s.boxes[s.labels < len(self.taxonomy)] for s in samples]
            labels = torch.cat([s.labels[s.labels < len(self.taxonomy)] for s in samples])
        mask_logits, mask_ious = self.masks(features, boxes, labels)
        return Raw(
            objectness, deltas, anchors, proposals, class_logits, box_deltas, mask_logits, mask_ious,
            samples, detections,
        )  # fmt: skip

    def masks(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Masks [M, C, m, m] and their IoUs [M, C] from RoIs of the classes ``labels`` [M]."""
        pooled = self.pool(features, boxes, self.mask_size)
        logits = self.mask_head(pooled)
        mask = logits if self.iou_head.design == "all" else self.chosen(logits, labels)
        if self.iou_head.design == "fine":
            pooled = self.pool(features, boxes, 2 * self.mask_size)
        if self.iou_inputs_detached:
            pooled, mask = pooled.detach(), mask.detach()
        return logits, self.iou_head(pooled, mask)

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Mask R-CNN's five losses and L_mask_iou, half the squared error of the true class's IoU (section 3.2)."""
        sums = self.five_sums(raw, batch)
        samples = raw.samples or []
        labels = torch.cat([s.labels for s in samples])
        truth = Truth.of(batch, raw.mask_logits.device)
        targets = self.mask_targets(samples, truth, raw.mask_logits.shape[-1])
        logits = self.chosen(raw.mask_logits, labels[labels < len(self.taxonomy)]).float()
        wanted = mask_iou_targets(
            logits, (targets >= 0.5).float(), self.shares_inside(samples, truth), self.iou_threshold
        )
        mask_iou, raw.ious_learned = self._mask_iou_sum(raw.mask_ious, samples, truth, wanted)
        sums["mask_iou"] = mask_iou + raw.mask_ious.sum() * 0.0
        return self.weighted(sums, self.loss_counts(raw, batch))

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        learned = len(raw.mask_logits) if raw.ious_learned is None else int(raw.ious_learned)
        return {**self.five_counts(raw, batch), "mask_iou": raw.mask_logits.new_tensor(float(learned))}

    def _mask_iou_sum(
        self, ious: Tensor, samples: Sequence[Samples], truth: Truth, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of L_mask_iou over what learns and how many these are: IoUs [M, C], the true class's target [M]."""
        labels = torch.cat([s.labels for s in samples])
        labels = labels[labels < len(self.taxonomy)]
        rows = torch.arange(len(labels), device=labels.device)
        total, learned = mask_iou_sum(ious[rows, labels], wanted)
        if self.iou_classes == "all":
            absent = torch.ones_like(ious, dtype=torch.bool)
            start = 0
            for sample, boxes, objects in zip(samples, truth.boxes, truth.objects, strict=True):
                positive = sample.boxes[sample.labels < len(self.taxonomy)]
                row, number = torch.nonzero(box_ops.iou(positive, boxes) > 0, as_tuple=True)
                absent[start + row, objects.labels.to(number.device)[number]] = False
                start += len(positive)
            total = total + 0.5 * (ious.float().square() * absent).sum()
            learned = learned + absent.sum()
        return total, learned

    @torch.no_grad()
    def shares_inside(self, samples: Sequence[Samples], truth: Truth) -> Tensor:
        """Which share of its object's pixels each positive RoI holds, [M]; its corners are cut to integers."""
        shares: list[Tensor] = []
        for sample, objects in zip(samples, truth.objects, strict=True):
            positive = sample.labels < len(self.taxonomy)
            corners, matched = sample.boxes[positive].cpu().long(), sample.matched[positive].cpu()
            share = torch.zeros(len(matched))
            for number in matched.unique():
                assert objects.masks is not None
                here = matched == number
                share[here] = _share(objects.masks[number[None]].dense()[0], corners[here])
            shares.append(share.to(sample.boxes.device))
        return torch.cat(shares)

    # ---- predict ------------------------------------------------------------------------------------------------

    def scores(self, raw: Raw) -> list[Tensor]:
        """Class score times expected IoU, [N] of each image: unbounded, since the IoU is."""
        found = raw.detections or []
        labels = torch.cat([d.labels for d in found])
        ious = raw.mask_ious[torch.arange(len(labels), device=labels.device), labels].float()
        parts = ious.split([len(d.labels) for d in found])
        return [d.scores.float() * part for d, part in zip(found, parts, strict=True)]

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels, masks ranked by class score times expected IoU."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        logits = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        return [
            self.scene(found, self.chosen(maps, found.labels).float().sigmoid(), view, scores)
            for found, maps, view, scores in zip(raw.detections, logits, geometry, self.scores(raw), strict=True)
        ]


def _share(mask: Tensor, corners: Tensor) -> Tensor:
    """The share [N] of a mask's pixels [H, W] within integer boxes [N, 4]; each has at least one row and column."""
    height, width = mask.shape
    table = torch.zeros(height + 1, width + 1, dtype=torch.int64)
    table[1:, 1:] = mask.to(torch.int64).cumsum(0).cumsum(1)
    x1, y1, x2, y2 = corners.unbind(1)
    x1, y1 = x1.clamp(0, width), y1.clamp(0, height)
    x2, y2 = torch.maximum(x2, x1 + 1).clamp(max=width), torch.maximum(y2, y1 + 1).clamp(max=height)
    inside = table[y2, x2] - table[y1, x2] - table[y2, x1] + table[y1, x1]
    return inside.float() / table[-1, -1].clamp(min=1)


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
    iou_width: int = 256,
    iou_depth: int = 4,
    iou_hidden: int = 1024,
    iou_design: MaskInput = "concatenate",
    box_size: int = 7,
    mask_size: int = 14,
    agnostic_mask: bool = False,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    **options: Any,
) -> MaskScoringRCNN:
    backbone, options = resnet(body, **options)
    classes, maps = len(taxonomy), 1 if agnostic_mask else len(taxonomy)
    return MaskScoringRCNN(
        backbone,
        FPN(backbone.channels, channels, extra=extra, norm=neck_norm),
        RPNHead(channels, len(anchor_ratios), depth=rpn_depth),
        BoxHead(channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm, agnostic=agnostic_box),
        MaskHead(channels, maps, width=mask_width, depth=mask_depth, norm=head_norm),
        MaskIoUHead(
            channels,
            mask_size,
            classes,
            width=iou_width,
            depth=iou_depth,
            hidden=iou_hidden,
            design=iou_design,
            maps=maps,
        ),
        taxonomy=taxonomy,
        box_size=box_size,
        mask_size=mask_size,
        agnostic_mask=agnostic_mask,
        anchor_ratios=anchor_ratios,
        **options,
    )


def mask_scoring_rcnn_r50(taxonomy: Taxonomy, **options: Any) -> MaskScoringRCNN:
    """ResNet-50, FPN 256, MaskIoU head of four convolutions and two hidden layers: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def mask_scoring_rcnn_r101(taxonomy: Taxonomy, **options: Any) -> MaskScoringRCNN:
    """ResNet-101, FPN 256, MaskIoU head of four convolutions and two hidden layers."""
    return _build(taxonomy, **{"body": "resnet101", **options})
