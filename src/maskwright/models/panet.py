"""PANet: Liu, Qi, Qin, Shi, Jia, "Path Aggregation Network for Instance Segmentation", CVPR 2018 (arXiv:1803.01534).

Mask R-CNN in which a second, bottom-up path brings the pyramid's fine detail to its coarse levels within a few layers
(section 3.1); each RoI is cut out of all levels, and the heads fuse these grids behind their first layer, by maximum or
sum (adaptive feature pooling, 3.2); a fully-connected path beside the mask head's convolutions adds a view of the whole
RoI to its maps (fully-connected fusion, 3.3). The RPN sees the new levels too.

Differences: there is no official code that still runs, so the paper rules. The authors' code has group norm in neck and
heads (``neck_norm`` and ``head_norm`` "group"; also behind linear layers, which this has not), no ReLUs in the new path
without norms, and a ReLU behind the fully-connected prediction, which the paper does not mention and which could only
ever add to a mask. mmdetection's PAFPN has no ReLUs in the new path and leads it past the fusing convolutions
(``bottom_up="mmdetection"``); it has none of the other two parts.

Options for every ablation: ``bottom_up``, ``adaptive``, ``fuse_after`` (table 4), ``fully_connected``, ``full_start``
and ``full_combine`` (table 5), ``box_head="conv4_fc1"`` (the heavier head of table 3), ``neck_norm``, ``head_norm``.

Weights: an importer for mmdetection's Mask R-CNN with PAFPN (Apache-2.0).

    tensor        meaning                                        shape
    pixels        RGB, 0..255                                    [B, 3, H, W]
    objectness    one map a level, A anchors a cell              [B, A, H/s, W/s]
    proposals     one tensor an image                            [P, 4]
    pooled        R boxes on L levels, s = 7 or 14               [R, L, D, s, s]
    class_logits  R boxes of all images, background last         [R, C + 1]
    mask_logits   M boxes of all images, m = 28 by default       [M, C, m, m]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from maskwright.models.parts.two_stage import TwoStage, resnet
from maskwright.nn.heads.roi_box import BoxHead, Detections, FusedBoxHead, Fusion
from maskwright.nn.heads.roi_mask import FusedMaskHead, MaskFusion
from maskwright.nn.heads.roi_sampling import Samples
from maskwright.nn.heads.rpn import RPNHead
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.necks.path_aggregation import PathAggregation
from maskwright.nn.norm import NormName
from maskwright.ops.roi import every_level_roi_align
from maskwright.structures import Batch, Geometry, Images, Scene, Taxonomy

BottomUp = Literal["paper", "mmdetection"] | None


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


class PANet(TwoStage):
    """PANet on built parts.

    Args:
        backbone, neck, rpn, box_head, mask_head: the parts; with ``every_level``, the heads take [R, L, D, s, s].
        every_level: RoIs are cut out of all L levels (adaptive feature pooling), not of the one that fits them.
        options: as ``TwoStage``'s.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPNHead,
        box_head: nn.Module,
        mask_head: nn.Module,
        *,
        every_level: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(backbone, neck, rpn, box_head, mask_head, **options)
        self.every_level = every_level

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
            boxes = [found.boxes for found in detections]
        else:
            samples = [self.sample(features, *each) for each in zip(range(len(scenes)), proposals, scenes, strict=True)]
            class_logits, box_deltas = self.box_head(self.pool(features, [s.boxes for s in samples], self.box_size))
            boxes = [s.boxes[s.labels < len(self.taxonomy)] for s in samples]
        mask_logits = self.mask_head(self.pool(features, boxes, self.mask_size))
        return Raw(objectness, deltas, anchors, proposals, class_logits, box_deltas, mask_logits, samples, detections)

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
        """Adaptive feature pooling [R, L, D, size, size], or RoIAlign [R, D, size, size] on the level that fits."""
        if not self.every_level:
            return super().pool(features, boxes, size)
        return every_level_roi_align(
            features[: self.roi_levels], boxes, self.strides[: self.roi_levels], size,
            sampling_ratio=self.convention.sampling_ratio, aligned=self.convention.aligned, reduce=self.pooling,
            far_edge=float(self.convention.inclusive),
        )  # fmt: skip

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Mask R-CNN's five losses: the path's two kinds of mask are fused before, so that one loss sees both."""
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
    bottom_up: BottomUp = "paper",
    rpn_depth: int = 1,
    adaptive: Fusion | None = "max",
    fuse_after: int = 1,
    roi_levels: int = 4,
    box_head: Literal["fc2", "conv4_fc1"] = "fc2",
    box_hidden: int = 1024,
    agnostic_box: bool = False,
    head_norm: NormName = None,
    mask_width: int = 256,
    mask_depth: int = 4,
    fully_connected: bool = True,
    full_start: int = 3,
    full_combine: MaskFusion = "sum",
    box_size: int = 7,
    mask_size: int = 14,
    agnostic_mask: bool = False,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    **options: Any,
) -> PANet:
    """PANet from its numbers.

    Args:
        bottom_up: the new path as the paper has it or as mmdetection has; ``None`` leaves it out.
        adaptive: how the levels' grids are fused; ``None`` cuts each RoI out of one level.
        fuse_after: layers of the box head before the fusion; in the mask head it is one.
        fully_connected, full_start, full_combine: the mask head's second path, where it branches off and how it joins.
    """
    backbone, options = resnet(body, **options)
    classes, maps = len(taxonomy), 1 if agnostic_mask else len(taxonomy)
    neck: nn.Module = FPN(backbone.channels, channels, extra=0 if bottom_up else extra, norm=neck_norm)
    if bottom_up:
        paper = bottom_up == "paper"
        neck = PathAggregation(neck, channels, extra=extra, norm=neck_norm, relu=paper, chained=paper)
    levels = roi_levels if adaptive else 0
    if adaptive:
        boxes: nn.Module = FusedBoxHead(
            levels, channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm,
            agnostic=agnostic_box, fuse=adaptive, fuse_after=fuse_after,
        )  # fmt: skip
    else:
        boxes = BoxHead(
            channels, box_size, classes, kind=box_head, hidden=box_hidden, norm=head_norm, agnostic=agnostic_box
        )
    masks = FusedMaskHead(
        levels, channels, mask_size, maps, width=mask_width, depth=mask_depth, norm=head_norm,
        fuse=adaptive or "max", fully_connected=fully_connected, start=full_start, combine=full_combine,
    )  # fmt: skip
    return PANet(
        backbone,
        neck,
        RPNHead(channels, len(anchor_ratios), depth=rpn_depth),
        boxes,
        masks,
        every_level=adaptive is not None,
        taxonomy=taxonomy,
        roi_levels=roi_levels,
        box_size=box_size,
        mask_size=mask_size,
        agnostic_mask=agnostic_mask,
        anchor_ratios=anchor_ratios,
        **options,
    )


def panet_r50(taxonomy: Taxonomy, **options: Any) -> PANet:
    """ResNet-50, pyramid and new path 256 wide, maximum over levels: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def panet_r101(taxonomy: Taxonomy, **options: Any) -> PANet:
    """ResNet-101, pyramid and new path 256 wide, maximum over levels."""
    return _build(taxonomy, **{"body": "resnet101", **options})
