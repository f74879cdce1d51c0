"""CenterMask: Lee, Park, "CenterMask: Real-Time Anchor-Free Instance Segmentation", CVPR 2020 (arXiv:1911.06667).

FCOS proposes boxes (section 3.1); each is cut out of the pyramid's level that suits the share of the picture it covers
(section 3.2), and a mask head that weighs places by a spatial attention map draws its mask (SAG-Mask, section 3.3). A
further head estimates the mask's IoU, which times the class score ranks the objects (after Mask Scoring R-CNN).

Differences: none known from CenterMask2, the authors' own. It keeps the class score for boxes beside the mask's score;
a ``Scene`` has one score an object, the mask's, cut to [0, 1]. ``mask_scoring=False`` keeps the class score.

Weights: importer for CenterMask2 (non-commercial).

    tensor         meaning                                            shape
    pixels         RGB, 0..255                                        [B, 3, H, W]
    maps           of FCOS, P3..P7, see ``nn.heads.dense_box``        [B, C | 4 | 1, H/s, W/s]
    mask_logits    M boxes of all images                              [M, C, 28, 28]
    mask_iou       of the mask of the box's class, for each class     [M, C]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.truth import boxes_of, covered_at, split
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.backbones.vovnet import VOVNETS, VoVNet
from maskwright.nn.heads.dense_box import (
    DENSE_RULES,
    DenseBoxHead,
    DenseDetections,
    DenseMaps,
    DenseTargets,
    TopLevels,
    assign_points,
    dense_counts,
    dense_losses,
    dense_points,
    detect_dense,
)
from maskwright.nn.heads.mask_iou import MaskIoUHead
from maskwright.nn.heads.spatial_attention_mask import (
    SpatialAttentionMaskHead,
    mask_iou_targets,
    pool_by_share,
)
from maskwright.nn.losses import mask_bce
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName, normalize_pixels
from maskwright.ops import boxes as box_ops
from maskwright.ops.matching import match
from maskwright.ops.paste import paste
from maskwright.ops.roi import multilevel_roi_align
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(slots=True)
class Rois:
    """Boxes [M, 4] of one image to draw, their classes [M], and of which object [M] while learning."""

    boxes: Tensor
    labels: Tensor
    matched: Tensor


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``targets`` with scenes, ``detections`` without."""

    maps: DenseMaps
    rois: list[Rois]
    mask_logits: Tensor
    mask_iou: Tensor | None
    targets: list[DenseTargets] | None = None
    detections: list[DenseDetections] | None = None


class CenterMask(nn.Module):
    """CenterMask on built parts.

    Args:
        backbone, neck, head, mask_head, iou_head: the parts; ``neck`` gives a map for each of ``strides``; without
            ``iou_head`` objects keep their class scores.
        taxonomy: the C classes.
        strides: of the pyramid's levels, finest first.
        limits: the longest distance, in pixels, that each level but the last learns to predict.
        radius: cells within this many strides of a box's center learn it; ``None`` takes the whole box.
        roi_levels: how many of the finest levels the mask head sees. mask_size: RoIAlign's side; masks are twice it.
        assignment: ``"share"`` of the picture (equation 1), or ``"canonical"`` as Feature Pyramid Networks have it.
        agnostic_mask: one mask for all classes.
        rules: a name in ``DENSE_RULES``.
        proposals: (score threshold, boxes an image) of FCOS's boxes that the mask head learns from.
        max_masks: how many masks an image learns at most.
        loss_weights: factors of the losses by name; missing ones are 1.
        pre_nms: cells of each level that NMS sees.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.

    ``score_threshold`` applies as the origin has it: to the class probability before centerness and mask IoU.
    """

    size_divisor = 32
    class_layers = ("head.class_logits", "mask_head.predictor", "iou_head.iou")
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: DenseBoxHead,
        mask_head: SpatialAttentionMaskHead,
        iou_head: MaskIoUHead | None,
        *,
        taxonomy: Taxonomy,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        limits: Sequence[float] = (64, 128, 256, 512),
        radius: float | None = 1.5,
        roi_levels: int = 3,
        mask_size: int = 14,
        assignment: Literal["share", "canonical"] = "share",
        agnostic_mask: bool = False,
        rules: str = "centermask2",
        proposals: tuple[float, int] = (0.05, 100),
        max_masks: int = 128,
        loss_weights: Mapping[str, float] | None = None,
        pre_nms: int = 1000,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if rules not in DENSE_RULES:
            raise ValueError(f"rules must be one of {', '.join(DENSE_RULES)}, got {rules!r}")
        if assignment not in ("share", "canonical"):
            raise ValueError(f"assignment must be 'share' or 'canonical', got {assignment!r}")
        self.backbone, self.neck, self.head = backbone, neck, head
        self.mask_head, self.iou_head = mask_head, iou_head
        self.taxonomy, self.rules, self.assignment = taxonomy, DENSE_RULES[rules], assignment
        self.strides, self.limits, self.radius = tuple(strides), tuple(limits), radius
        self.roi_levels, self.mask_size, self.agnostic_mask = roi_levels, mask_size, agnostic_mask
        self.proposals, self.max_masks, self.pre_nms = proposals, max_masks, pre_nms
        self.loss_weights = dict(loss_weights or {})
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss: MaskLoss = mask_bce
        self.nms_threshold, self.score_threshold, self.max_per_image = 0.6, 0.05, 50
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """FCOS's maps, and masks of boxes that fit an object (``scenes``) or that are detected."""
        features = self.features(inputs)
        maps = self.head(features)
        targets: list[DenseTargets] | None = None
        found: list[DenseDetections] | None = None
        if scenes is None:
            found = self.detect(maps, inputs, self.score_threshold, self.max_per_image)
            rois = [Rois(d.boxes, d.labels, d.cells) for d in found]
        else:
            targets = [self.assign(maps, scene) for scene in scenes]
            proposed = self.detect(maps, inputs, *self.proposals)
            rois = [self.sample(d.boxes, scene) for d, scene in zip(proposed, scenes, strict=True)]
        pooled = self.pool(features, rois, inputs)
        logits = self.mask_head(pooled)
        iou = None
        if self.iou_head is not None:
            # The estimate learns from the mask and does not change it.
            chosen = self._chosen(logits, torch.cat([r.labels for r in rois])).detach()
            iou = self.iou_head(pooled, chosen)
        return Raw(maps, rois, logits, iou, targets, found)

    def features(self, inputs: Images) -> list[Tensor]:
        """Pyramid maps, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.neck(self.backbone(pixels))

    def detect(self, maps: DenseMaps, inputs: Images, threshold: float, limit: int) -> list[DenseDetections]:
        """The best boxes of each image after NMS in each class."""
        return detect_dense(
            maps, self.strides, inputs.sizes, rules=self.rules, score_threshold=threshold,
            nms_threshold=self.nms_threshold, pre_nms=self.pre_nms, limit=limit,
        )  # fmt: skip

    def pool(self, features: Sequence[Tensor], rois: Sequence[Rois], inputs: Images) -> Tensor:
        """RoIAlign [M, C, s, s] of all images' boxes on the level that fits each."""
        levels, strides, boxes = features[: self.roi_levels], self.strides[: self.roi_levels], [r.boxes for r in rois]
        if self.assignment == "share":
            return pool_by_share(levels, boxes, inputs.sizes, strides, self.mask_size)
        return multilevel_roi_align(levels, boxes, strides, self.mask_size)

    @torch.no_grad()
    def assign(self, maps: DenseMaps, scene: Scene) -> DenseTargets:
        """Which object of one image each cell stands for."""
        points, levels = dense_points(maps.sizes, self.strides, maps.classes[0].device)
        objects, void = split(scene)
        return assign_points(
            points, levels, self.strides, boxes_of(objects).to(points), objects.labels.to(points.device),
            background=len(self.taxonomy), limits=self.limits, radius=self.radius, ignored=covered_at(void, points),
        )  # fmt: skip

    @torch.no_grad()
    def sample(self, proposals: Tensor, scene: Scene) -> Rois:
        """Proposals that overlap an object by half, and the objects' own boxes; by chance, if there are too many."""
        objects, _ = split(scene)
        truth = boxes_of(objects).to(proposals)
        boxes = torch.cat((truth, proposals))
        matched, kind = match(box_ops.iou(truth, boxes), 0.5, 0.5, False)
        positive = torch.nonzero((kind == 1) & box_ops.nonempty(boxes)).flatten()
        if len(positive) > self.max_masks:
            positive = positive[torch.randperm(len(positive), device=positive.device)[: self.max_masks]]
        chosen = matched[positive]
        return Rois(boxes[positive], objects.labels.to(boxes.device)[chosen], chosen)

    def _chosen(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[M, C, m, m] and classes [M] to the classes' maps [M, m, m]."""
        column = torch.zeros_like(labels) if self.agnostic_mask else labels
        return logits[torch.arange(labels.shape[0], device=labels.device), column]

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class, L_box, L_centerness, L_mask (equation 5) and L_mask_iou, each times its weight."""
        sums, _ = dense_losses(raw.maps, _learned(raw), rules=self.rules)
        counts = self.loss_counts(raw, batch)
        mask, mask_iou = self._mask_losses(raw, batch)
        sums["mask"] = mask * counts["mask"]
        if mask_iou is not None:
            sums["mask_iou"] = mask_iou
        least = {name: 1e-6 if name == "box" else 1.0 for name in sums}
        return {n: s / counts[n].clamp(min=least[n]) * self.loss_weights.get(n, 1.0) for n, s in sums.items()}

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        counts = dense_counts(_learned(raw), len(self.taxonomy))
        masks = raw.mask_logits.new_tensor(float(sum(len(r.labels) for r in raw.rois)), dtype=torch.float32)
        return {**counts, "mask": masks, **({} if raw.mask_iou is None else {"mask_iou": masks})}

    def _mask_losses(self, raw: Raw, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The mean loss of the masks, and the summed squared error of the estimated IoUs."""
        targets: list[Tensor] = []
        areas: list[Tensor] = []
        for rois, scene in zip(raw.rois, batch.truth(), strict=True):
            objects, _ = split(scene)
            if objects.masks is None:
                raise ValueError("CenterMask learns from masks, but a scene has none; give masks or another objective")
            masks = objects.masks[rois.matched.cpu()]
            targets.append(masks.crop(rois.boxes.float(), raw.mask_logits.shape[-1]) >= 0.5)
            areas.append(masks.area().to(rois.boxes.device))
        labels = torch.cat([r.labels for r in raw.rois])
        logits, target = self._chosen(raw.mask_logits, labels).float(), torch.cat(targets).float()
        mask = self.mask_loss(logits, target) + raw.mask_logits.sum() * 0.0
        if raw.mask_iou is None:
            return mask, None
        wanted = mask_iou_targets(logits, target, torch.cat(areas), torch.cat([r.boxes for r in raw.rois]))
        guess = raw.mask_iou[torch.arange(len(labels), device=labels.device), labels].float()
        # Masks that miss their object altogether teach nothing, as in Mask Scoring R-CNN.
        missed = (wanted <= 0).to(guess.dtype)
        return mask, (0.5 * (guess - wanted).square() * (1 - missed)).sum() + raw.mask_iou.sum() * 0.0

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels by falling mask score: boxes scaled and clipped, masks pasted to run-lengths."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        scenes: list[Scene] = []
        counts = [len(d.boxes) for d in raw.detections]
        scores = self.mask_scores(raw).split(counts)
        for found, maps, score, view in zip(
            raw.detections, raw.mask_logits.split(counts), scores, geometry, strict=True
        ):
            probs = self._chosen(maps, found.labels).float().sigmoid()
            factor = found.boxes.new_tensor([view.scale[1], view.scale[0]] * 2)
            boxes = box_ops.clip(found.boxes / factor, view.original)
            order = score.clamp(0, 1).argsort(descending=True, stable=True)
            order = order[box_ops.nonempty(boxes)[order]]
            boxes, runs = boxes[order].cpu(), probs[order].cpu()
            segments = Segments(
                size=view.original,
                labels=found.labels[order].cpu(),
                masks=Masks.from_arrays(*paste(runs, boxes, view.original), view.original),
                boxes=boxes,
                scores=score[order].clamp(0, 1).cpu(),
            )
            scenes.append(Scene(size=view.original, segments=segments))
        return scenes

    def mask_scores(self, raw: Raw) -> Tensor:
        """Class score times estimated IoU, [M], not bounded; the class score without an ``iou_head``."""
        found = raw.detections or []
        scores = torch.cat([d.scores for d in found])
        if raw.mask_iou is None:
            return scores
        labels = torch.cat([d.labels for d in found])
        return scores * raw.mask_iou[torch.arange(len(labels), device=labels.device), labels].float()


def _learned(raw: Raw) -> list[DenseTargets]:
    if raw.targets is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.targets


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    stride_in_1x1: bool = False,
    pretrained: bool = False,
    zero_init: bool | None = None,
    channels: int = 256,
    head_depth: int = 4,
    head_norm: NormName = "group",
    prior: float = 0.01,
    mask_width: int = 256,
    mask_depth: int = 4,
    mask_size: int = 14,
    iou_hidden: int = 1024,
    attention: bool = True,
    channel_attention: bool = True,
    mask_scoring: bool = True,
    agnostic_mask: bool = False,
    stages: Sequence[int] = (3, 4, 5),
    **options: Any,
) -> CenterMask:
    """CenterMask from its numbers.

    Args:
        stages: which of C2 to C5 the pyramid is made of; two coarser levels follow. With (2, 3, 4) it begins at stride
            4, where objects of some 30 pixels have a shape. ``strides`` and ``limits`` follow unless they are given.
    """
    backbone: Any
    if body in VOVNETS:
        backbone = VoVNet(
            body, out_stages=tuple(stages), norm=norm, frozen_stages=frozen_stages, attention=channel_attention
        )
    else:
        backbone = TimmBackbone(
            body, out_indices=tuple(stage - 1 for stage in stages), norm=norm, frozen_stages=frozen_stages,
            stride_in_1x1=stride_in_1x1, pretrained=pretrained, zero_init=zero_init,
        )  # fmt: skip
    strides = tuple(2 ** (stages[0] + i) for i in range(len(stages) + 2))
    options = {"strides": strides, "limits": tuple(8 * stride for stride in strides[:-1]), **options}
    classes = len(taxonomy)
    masks = 1 if agnostic_mask else classes
    scorer = MaskIoUHead(channels, mask_size, classes, width=mask_width, depth=mask_depth, hidden=iou_hidden)
    return CenterMask(
        backbone,
        nn.Sequential(FPN(backbone.channels, channels, extra=0), TopLevels(channels)),
        DenseBoxHead(channels, classes, len(strides), depth=head_depth, norm=head_norm, prior=prior),
        SpatialAttentionMaskHead(channels, masks, width=mask_width, depth=mask_depth, attention=attention),
        scorer if mask_scoring else None,
        taxonomy=taxonomy,
        mask_size=mask_size,
        agnostic_mask=agnostic_mask,
        **options,
    )


def centermask_r50(taxonomy: Taxonomy, **options: Any) -> CenterMask:
    """ResNet-50, FPN 256, P3 to P7."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def centermask_v39(taxonomy: Taxonomy, **options: Any) -> CenterMask:
    """VoVNetV2-39, FPN 256: the paper's standard form."""
    return _build(taxonomy, **{"body": "v39", **options})


def centermask_lite(taxonomy: Taxonomy, body: str = "v39", **options: Any) -> CenterMask:
    """VoVNetV2-39 by default, FPN 128, two convolutions of 128 in each head, short side 600 (section 3.5).

    Args:
        taxonomy: the classes.
        body: ``"v19"``, ``"v19_slim"``, ``"v19_slim_dw"`` … of ``VOVNETS``, or a timm model.
        options: of ``CenterMask`` and its parts.
    """
    numbers: dict[str, Any] = {
        "channels": 128,
        "head_depth": 2,
        "mask_width": 128,
        "mask_depth": 2,
        "resize": Resize(short=600, long=1000),
    }
    return _build(taxonomy, body, **{**numbers, **options})
