"""PointRend: Kirillov, Wu, He, Girshick, "PointRend: Image Segmentation as Rendering", CVPR 2020 (arXiv:1912.08193).

Mask R-CNN whose mask head draws a coarse 7x7 map from a grid of points on the finest level (section 4.1); a small
perceptron then says of single points, from their own feature and the coarse map there, whether they are inside. At
inference a mask is doubled again and again, up to 224x224, and each time only its least sure points are asked anew
(section 3.1); in training points are drawn at random, most of them where the coarse map is unsure (figure 5).

Differences: none, the public code being the authors' (detectron2's projects/PointRend). As there, masks learn on the
boxes that the box head makes of the RoIs (``refined_boxes``), not on the RoIs; and of the perceptron's maps only the
class's own is computed, which changes no result.

Weights: an importer for detectron2's checkpoints, also those with the names of 2020 (CC BY-SA 3.0).

    tensor        meaning                                             shape
    pixels        RGB, 0..255                                         [B, 3, H, W]
    objectness    one map a level, A anchors a cell                   [B, A, H/s, W/s]
    proposals     one tensor an image                                 [P, 4]
    class_logits  R boxes of all images, background last              [R, C + 1]
    coarse_logits M boxes of all images                               [M, C, 7, 7]
    mask_logits   without scenes: of each detection's own class       [M, 224, 224]
    point_logits  with scenes: at 196 points, of the true class       [M, 196]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.truth import masks_of
from maskwright.models.parts.two_stage import BOX_WEIGHTS, Truth, TwoStage, resnet
from maskwright.nn.heads.point_mask import CoarseMaskHead, PointHead, fine_features, grid_features, subdivide
from maskwright.nn.heads.roi_box import BoxHead, Detections
from maskwright.nn.heads.roi_sampling import Samples
from maskwright.nn.heads.rpn import RPNHead
from maskwright.nn.losses import cross_entropy_sum
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName
from maskwright.ops import boxes as box_ops
from maskwright.ops.point_sample import point_sample, point_sample_runs, points_in_boxes, sample_uncertain
from maskwright.structures import Batch, Geometry, Images, Scene, Taxonomy


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``detections`` and ``mask_logits`` without scenes, what follows them with scenes.

    ``masked`` are the positive RoIs of each image with the boxes that the mask heads saw, ``points`` [M, P, 2] the
    places in these boxes where ``point_logits`` are.
    """

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    proposals: list[Tensor]
    class_logits: Tensor
    box_deltas: Tensor
    coarse_logits: Tensor
    detections: list[Detections] | None = None
    mask_logits: Tensor | None = None
    samples: list[Samples] | None = None
    masked: list[Samples] | None = None
    points: Tensor | None = None
    point_logits: Tensor | None = None
    anchors_sampled: int | None = None


class PointRend(TwoStage):
    """PointRend on built parts.

    Args:
        backbone, neck, rpn, box_head: the parts, as ``TwoStage``'s.
        mask_head: makes the coarse maps; ``mask_size`` is the grid of features that it sees.
        point_head: the perceptron.
        point_levels: how many of the finest levels give the mask heads their features, side by side.
        train_points: P, points a RoI that learn. oversample, importance: k and beta of their choice (section 3.1).
        subdivision_steps: doublings of the coarse map at inference. subdivision_points: asked anew after each.
        refined_boxes: masks learn on the boxes that the box head makes of the RoIs.
        options: as ``TwoStage``'s.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPNHead,
        box_head: BoxHead,
        mask_head: CoarseMaskHead,
        point_head: PointHead,
        *,
        point_levels: int = 1,
        train_points: int = 196,
        oversample: float = 3.0,
        importance: float = 0.75,
        subdivision_steps: int = 5,
        subdivision_points: int = 784,
        refined_boxes: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(backbone, neck, rpn, box_head, mask_head, **options)
        self.point_head = point_head
        self.point_levels, self.train_points = point_levels, train_points
        self.oversample, self.importance = oversample, importance
        self.subdivision_steps, self.subdivision_points = subdivision_steps, subdivision_points
        self.refined_boxes = refined_boxes
        self.class_layers = ("box_head.class_logits", "box_head.box_deltas", "mask_head.predictor", "point_head")

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Proposals, and the heads on sampled RoIs (with ``scenes``) or on proposals and detections (without)."""
        features, objectness, deltas = self.dense(inputs)
        anchors = self.anchors(features, inputs.pixels.shape[-2:])
        numbers = self.proposals_test if scenes is None else self.proposals_train
        proposals = self.propose(objectness, deltas, anchors, inputs, numbers)
        if scenes is None:
            logits, moves = self.box_head(self.pool(features, proposals, self.box_size))
            found = self.detect(proposals, logits, moves, inputs)
            boxes, labels = [each.boxes for each in found], torch.cat([each.labels for each in found])
            coarse = self._coarse(features, boxes)
            masks = self._rendered(features, boxes, coarse, labels)
            return Raw(objectness, deltas, anchors, proposals, logits, moves, coarse, found, masks)
        samples = [self.sample(features, *each) for each in zip(range(len(scenes)), proposals, scenes, strict=True)]
        logits, moves = self.box_head(self.pool(features, [s.boxes for s in samples], self.box_size))
        raw = Raw(objectness, deltas, anchors, proposals, logits, moves, objectness[0], samples=samples)
        raw.masked = self._masked(samples, moves)
        boxes, labels = [s.boxes for s in raw.masked], torch.cat([s.labels for s in raw.masked])
        raw.coarse_logits = self._coarse(features, boxes)
        raw.points = sample_uncertain(
            self.chosen(raw.coarse_logits, labels)[:, None], self.train_points,
            oversample=self.oversample, importance=self.importance,
        )  # fmt: skip
        raw.point_logits = self._asked(features, boxes, raw.coarse_logits, labels, raw.points)
        return raw

    @torch.no_grad()
    def _masked(self, samples: Sequence[Samples], deltas: Tensor) -> list[Samples]:
        """The positive RoIs of each image, moved as the box head says for the true class."""
        out: list[Samples] = []
        for sample, moves in zip(samples, deltas.split([len(s.labels) for s in samples]), strict=True):
            positive = torch.nonzero(sample.labels < len(self.taxonomy)).flatten()
            boxes, labels = sample.boxes[positive].float(), sample.labels[positive]
            if self.refined_boxes:
                each = moves[positive].unflatten(1, (-1, 4))
                column = labels if each.shape[1] > 1 else torch.zeros_like(labels)
                each = each[torch.arange(len(column), device=column.device), column]
                boxes = box_ops.decode(each, boxes, BOX_WEIGHTS).nan_to_num().clamp(-1e6, 1e6)
            out.append(Samples(boxes, labels, sample.matched[positive], sample.kind[positive]))
        return out

    def _coarse(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Coarse logits [M, C, s, s] of boxes [M_i, 4] of each image."""
        levels = self.point_levels
        return self.mask_head(grid_features(features[:levels], self.strides[:levels], boxes, self.mask_size))

    def _asked(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], coarse: Tensor, labels: Tensor, points: Tensor
    ) -> Tensor:
        """Logits [M, P] of the classes ``labels`` [M] at points [M, P, 2] of the boxes."""
        levels = self.point_levels
        fine = fine_features(features[:levels], self.strides[:levels], boxes, points)
        outputs = torch.zeros_like(labels) if self.agnostic_mask else labels
        return self.point_head(fine, point_sample(coarse, points).to(fine.dtype), outputs)

    def _rendered(self, features: Sequence[Tensor], boxes: Sequence[Tensor], coarse: Tensor, labels: Tensor) -> Tensor:
        """Mask logits [M, 224, 224] of boxes [M_i, 4] of each image, of the classes ``labels`` [M]."""
        return subdivide(
            lambda points: self._asked(features, boxes, coarse, labels, points), labels.shape[0],
            side=coarse.shape[-1], steps=self.subdivision_steps, points=self.subdivision_points, on=coarse,
        )  # fmt: skip

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Mask R-CNN's five losses, "mask" on the coarse maps, and L_point at the points, each times its weight.

        Both mask losses see the true class's map only. Points learn the truth there, which is between 0 and 1 next to
        an outline.
        """
        if raw.samples is None or raw.masked is None or raw.point_logits is None:
            raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
        truth = Truth.of(batch, raw.class_logits.device)
        rpn_class, rpn_box = self.rpn_sums(raw, truth, batch.inputs)
        point = self.mask_loss(raw.point_logits.float()[:, None], self._point_targets(raw, truth)[:, None])
        sums = {
            "rpn_class": rpn_class,
            "rpn_box": rpn_box,
            "class": cross_entropy_sum(raw.class_logits, torch.cat([s.labels for s in raw.samples])),
            "box": self.box_sum(raw.samples, raw.box_deltas, truth),
            "mask": self.mask_sum(raw.masked, raw.coarse_logits, truth),
            "point": (point + raw.point_logits.sum() * 0.0) * len(raw.point_logits),
        }
        return self.weighted(sums, self.loss_counts(raw, batch))

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        rois, positive = sum(len(s.labels) for s in raw.samples or []), sum(len(s.labels) for s in raw.masked or [])
        anchors = self.anchors_counted(raw, batch)
        counts = {"rpn_class": anchors, "rpn_box": anchors, "class": rois, "box": rois}
        counts |= {"mask": positive, "point": positive}
        return {name: raw.class_logits.new_tensor(float(count)) for name, count in counts.items()}

    def _point_targets(self, raw: Raw, truth: Truth) -> Tensor:
        """The truth at the points, [M, P] in [0, 1]: bilinear between pixel centers."""
        assert raw.points is not None
        assert raw.masked is not None
        targets: list[Tensor] = []
        points = raw.points.split([len(s.labels) for s in raw.masked])
        for sample, objects, shares in zip(raw.masked, truth.objects, points, strict=True):
            masks = masks_of(objects)[sample.matched.cpu()]
            extent = shares.new_tensor([masks.size[1], masks.size[0]])
            places = points_in_boxes(shares, sample.boxes) / extent
            targets.append(point_sample_runs(masks.counts, masks.offsets, masks.size, places))
        return torch.cat(targets)

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: the rendered masks, pasted into their boxes."""
        if raw.detections is None or raw.mask_logits is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        logits = raw.mask_logits.split([len(found.boxes) for found in raw.detections])
        return [
            self.scene(found, maps.float().sigmoid(), view)
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
    mask_hidden: int = 1024,
    mask_depth: int = 2,
    point_width: int = 256,
    point_depth: int = 3,
    point_levels: int = 1,
    coarse_each_layer: bool = True,
    agnostic_mask: bool = False,
    box_size: int = 7,
    mask_size: int = 14,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    **options: Any,
) -> PointRend:
    backbone, options = resnet(body, **options)
    classes, maps = len(taxonomy), 1 if agnostic_mask else len(taxonomy)
    return PointRend(
        backbone,
        FPN(backbone.channels, channels, extra=extra, norm=neck_norm),
        RPNHead(channels, len(anchor_ratios), depth=rpn_depth),
        BoxHead(channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm, agnostic=agnostic_box),
        CoarseMaskHead(
            channels * point_levels, mask_size, maps, width=mask_width, hidden=mask_hidden, depth=mask_depth
        ),
        PointHead(
            channels * point_levels, maps, maps,
            width=point_width, depth=point_depth, coarse_each_layer=coarse_each_layer,
        ),
        taxonomy=taxonomy,
        point_levels=point_levels,
        box_size=box_size,
        mask_size=mask_size,
        agnostic_mask=agnostic_mask,
        anchor_ratios=anchor_ratios,
        **options,
    )  # fmt: skip


def pointrend_r50(taxonomy: Taxonomy, **options: Any) -> PointRend:
    """ResNet-50, FPN 256, masks of 224x224: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def pointrend_r101(taxonomy: Taxonomy, **options: Any) -> PointRend:
    """ResNet-101, FPN 256, masks of 224x224."""
    return _build(taxonomy, **{"body": "resnet101", **options})


def pointrend_x101(taxonomy: Taxonomy, **options: Any) -> PointRend:
    """ResNeXt-101 32x8d, FPN 256, masks of 224x224."""
    return _build(taxonomy, **{"body": "resnext101_32x8d", **options})
