"""RTMDet-Ins: Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", arXiv:2212.07784.

A one-stage detector without anchors whose body and pyramid are made of large depthwise convolutions (section 3.2); an
object takes the cells that already serve it best, and their class probability learns the overlap of their boxes (3.3).
For masks each cell writes the weights of a tiny network, as CondInst's do, that draws its object (3.5).

Differences: in mmdetection, the only public implementation, boxes are read from the tower for classes, which the paper
draws apart; ``box_tower`` restores it. It pads test pictures with gray (114), here zeros follow normalization. A step
learns at most ``max_masks`` masks; mmdetection takes all.

Weights: importer for mmdetection (Apache-2.0).

    tensor         meaning                                                  shape
    pixels         RGB, 0..255                                              [B, 3, H, W]
    classes        logits of each cell of P3..P5                            [B, C, H/s, W/s]
    distances      from a cell's upper left corner to its box, in pixels    [B, 4, H/s, W/s]
    shared         features that all objects' networks read, on P3          [B, 8, H/8, W/8]
    mask_logits    of the objects of all images, one after the other        [N, H/8, W/8]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.models.parts.truth import boxes_of, covered_at, masks_of, split
from maskwright.nn.backbones.csp_next import CSPNeXt
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.dense_box import DenseDetections, flatten_maps
from maskwright.nn.heads.dynamic_masks import DynamicMasks
from maskwright.nn.heads.rtmdet import (
    MaskFeatures,
    RTMDetHead,
    RTMDetMaps,
    SoftTargets,
    boxes_at,
    corner_points,
    detect_rtmdet,
    soft_sums,
)
from maskwright.nn.losses import Dice
from maskwright.nn.necks.csp_pafpn import CSPPathFPN
from maskwright.nn.norm import normalize_pixels
from maskwright.ops import boxes as box_ops
from maskwright.ops.draw_maps import draw_maps
from maskwright.ops.soft_assignment import assign_soft
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
LOSS_WEIGHTS = {"class": 1.0, "box": 2.0, "mask": 2.0}
_PIXELS = 1 << 25
"""How many mask pixels of the truth are held at once."""
_EXTENT = 8
"""How many strides of an object's level one unit of a relative coordinate stands for."""


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``targets`` with scenes, ``detections`` without; ``cells`` [N_i] drew the masks."""

    maps: RTMDetMaps
    shared: Tensor
    cells: list[Tensor]
    mask_logits: Tensor
    targets: list[SoftTargets] | None = None
    detections: list[DenseDetections] | None = None


class RTMDetIns(nn.Module):
    """RTMDet-Ins on built parts.

    Args:
        backbone, neck, head, mask_features, dynamic: the parts; ``neck`` gives a map for each of ``strides``.
        taxonomy: the C classes.
        strides: of the pyramid's levels, finest first.
        mask_stride: of the masks that are learned, at most the finest level's.
        max_masks: how many masks a step learns at most, drawn by chance; ``None`` takes all.
        top_k, radius, iou_weight: of the assignment, see ``ops.soft_assignment``.
        loss_weights: factors of the losses by name; missing ones are mmdetection's.
        pre_nms: cells of each level that NMS sees.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.
    """

    size_divisor = 32
    class_layers = ("head.class_logits",)
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: RTMDetHead,
        mask_features: MaskFeatures,
        dynamic: DynamicMasks,
        *,
        taxonomy: Taxonomy,
        strides: Sequence[int] = (8, 16, 32),
        mask_stride: int = 4,
        max_masks: int | None = 500,
        top_k: int = 13,
        radius: float = 3.0,
        iou_weight: float = 3.0,
        loss_weights: Mapping[str, float] | None = None,
        pre_nms: int = 1000,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.mask_features, self.dynamic = mask_features, dynamic
        self.taxonomy, self.strides = taxonomy, tuple(strides)
        self.mask_stride, self.max_masks, self.pre_nms = mask_stride, max_masks, pre_nms
        self.top_k, self.radius, self.iou_weight = top_k, radius, iou_weight
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.resize = resize or Resize(short=640, long=640, antialias=False)
        self.mask_loss: MaskLoss = Dice()
        self.nms_threshold, self.score_threshold, self.max_per_image = 0.6, 0.05, 100
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Maps of all cells, and masks of the cells that stand for an object (``scenes``) or that detect one."""
        features = self.features(inputs)
        maps, shared = self.head(features), self.mask_features(features)
        targets: list[SoftTargets] | None = None
        found: list[DenseDetections] | None = None
        if scenes is None:
            found = detect_rtmdet(
                maps, self.strides, inputs.sizes, score_threshold=self.score_threshold,
                nms_threshold=self.nms_threshold, pre_nms=self.pre_nms, limit=self.max_per_image,
            )  # fmt: skip
            cells = [d.cells for d in found]
            kernels = self.head.kernels_at(features, cells)
        else:
            targets = self.assign(maps, scenes)
            cells = _draw([t.positive(len(self.taxonomy)) for t in targets], self.max_masks)
            everywhere = flatten_maps(self.head.kernels(features))
            kernels = [everywhere[image, cell] for image, cell in enumerate(cells)]
        return Raw(maps, shared, cells, self.masks(maps, shared, cells, kernels), targets, found)

    def features(self, inputs: Images) -> list[Tensor]:
        """Pyramid maps, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.neck(self.backbone(pixels))

    def masks(self, maps: RTMDetMaps, shared: Tensor, cells: Sequence[Tensor], kernels: Sequence[Tensor]) -> Tensor:
        """Mask logits [N, H/8, W/8] of the networks of ``cells``, whose parameters are ``kernels``."""
        points, strides, _ = corner_points(maps.sizes, self.strides, shared.device)
        points = points + self.strides[0] // 2  # both ends of a relative coordinate are corners here
        logits = [
            self.dynamic(image.float(), weights.float(), points[cell], strides[cell] * _EXTENT, self.strides[0])
            for image, weights, cell in zip(shared, kernels, cells, strict=True)
        ]
        return torch.cat(logits)

    @torch.no_grad()
    def assign(self, maps: RTMDetMaps, scenes: Sequence[Scene]) -> list[SoftTargets]:
        """Which object of its picture each cell stands for."""
        classes, distances = flatten_maps(maps.classes), flatten_maps(maps.distances)
        points, strides, _ = corner_points(maps.sizes, self.strides, classes.device)
        out: list[SoftTargets] = []
        for image, scene in enumerate(scenes):
            objects, void = split(scene)
            boxes, labels = boxes_of(objects).to(points), objects.labels.to(points.device)
            matched, quality = assign_soft(
                points, strides, boxes_at(points, distances[image]), classes[image], boxes, labels,
                top_k=self.top_k, radius=self.radius, iou_weight=self.iou_weight,
            )  # fmt: skip
            wanted = torch.full_like(matched, len(self.taxonomy))
            wanted[matched >= 0] = labels[matched[matched >= 0]]
            ignored = covered_at(void, points)
            if ignored is not None:
                wanted[ignored & (matched < 0)] = -1
            out.append(SoftTargets(wanted, matched, quality, boxes))
        return out

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Classes and boxes by quality (section 3.3), masks (3.5), each times its weight."""
        sums = soft_sums(raw.maps, self.strides, _learned(raw))
        sums["mask"] = self._mask_sum(raw, batch)
        counts = self.loss_counts(raw, batch)
        return {name: sums[name] / counts[name].clamp(min=1.0) * self.loss_weights[name] for name in sums}

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        quality = torch.stack([t.quality.sum() for t in _learned(raw)]).sum()
        masks = quality.new_tensor(float(sum(len(cells) for cells in raw.cells)))
        return {"class": quality, "box": quality, "mask": masks}

    def _mask_sum(self, raw: Raw, batch: Batch) -> Tensor:
        """The mask loss times the number of masks."""
        height, width = (int(side) * self.strides[0] for side in raw.shared.shape[-2:])
        goals: list[Tensor] = []
        for target, cells, scene in zip(_learned(raw), raw.cells, batch.truth(), strict=True):
            which = target.matched[cells]
            used, which = which.unique(return_inverse=True)
            masks = masks_of(split(scene)[0])[used.cpu()]
            goals.append(_sampled(masks, self.mask_stride, (height, width)).to(which.device)[which])
        factor = self.strides[0] // self.mask_stride
        logits = raw.mask_logits.float()
        if factor > 1 and len(logits):
            logits = functional.interpolate(logits[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
        loss = self.mask_loss(logits, torch.cat(goals).float()) * len(logits)
        return loss + (raw.mask_logits.sum() + raw.shared.sum()) * 0.0

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: boxes scaled and clipped, masks enlarged straight to run-lengths."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        scenes: list[Scene] = []
        stride = self.strides[0]
        logits = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        for found, maps, view in zip(raw.detections, logits, geometry, strict=True):
            factor = found.boxes.new_tensor([view.scale[1], view.scale[0]] * 2)
            boxes = box_ops.clip(found.boxes / factor, view.original)
            keep = torch.nonzero(box_ops.nonempty(boxes)).flatten()
            cell = (stride / view.scale[0], stride / view.scale[1])
            runs = draw_maps(maps[keep], cell, view.original, 0.0, stride)
            segments = Segments(
                size=view.original,
                labels=found.labels[keep].cpu(),
                masks=Masks.from_arrays(*runs, view.original),
                boxes=boxes[keep].cpu(),
                scores=found.scores[keep].float().cpu(),
            )
            scenes.append(Scene(size=view.original, segments=segments))
        return scenes


def _learned(raw: Raw) -> list[SoftTargets]:
    if raw.targets is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.targets


def _draw(cells: Sequence[Tensor], limit: int | None) -> list[Tensor]:
    """All ``cells`` [P_i] of each image, or ``limit`` of them by chance over all images."""
    count = sum(len(c) for c in cells)
    if limit is None or count <= limit:
        return list(cells)
    kept = torch.zeros(count, dtype=torch.bool, device=cells[0].device)
    kept[torch.randperm(count, device=kept.device)[:limit]] = True
    return [c[k] for c, k in zip(cells, kept.split([len(c) for c in cells]), strict=True)]


def _sampled(masks: Masks, stride: int, padded: tuple[int, int]) -> Tensor:
    """Every ``stride``-th pixel of the masks on the padded picture, from ``stride // 2`` on, bool [G, H, W]."""
    out = torch.zeros(len(masks), padded[0] // stride, padded[1] // stride, dtype=torch.bool)
    first, step = stride // 2, max(1, _PIXELS // prod(masks.size))
    for start in range(0, len(masks), step):
        part = masks[start : start + step].dense()[:, first::stride, first::stride]
        out[start : start + step, : part.shape[1], : part.shape[2]] = part
    return out


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    *,
    body: str = "cspnext",
    depth: float = 1.0,
    width: float = 1.0,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    pretrained: bool = False,
    zero_init: bool | None = None,
    attention: bool = True,
    channels: int = 256,
    neck_blocks: int = 3,
    head_width: int | None = None,
    head_depth: int = 2,
    share_convs: bool = True,
    box_tower: bool = False,
    prior: float = 0.01,
    mask_depth: int = 4,
    mask_features: int = 8,
    dynamic_width: int = 8,
    dynamic_depth: int = 3,
    **options: Any,
) -> RTMDetIns:
    """``body``: ``"cspnext"`` with ``depth`` and ``width``, or any name that timm knows."""
    if body == "cspnext":
        if pretrained:
            raise ValueError(
                "there are no published weights of CSPNeXt alone here; give a timm body, or import a model"
            )
        backbone = CSPNeXt(depth=depth, width=width, attention=attention, norm=norm, frozen_stages=frozen_stages)
    else:
        backbone = TimmBackbone(
            body, out_indices=(2, 3, 4), norm=norm, frozen_stages=frozen_stages,
            pretrained=pretrained, zero_init=zero_init,
        )  # fmt: skip
    dynamic = DynamicMasks(mask_features, width=dynamic_width, depth=dynamic_depth)
    return RTMDetIns(
        backbone,
        CSPPathFPN(backbone.channels, channels, blocks=neck_blocks),
        RTMDetHead(
            channels, len(taxonomy), backbone.strides, dynamic.parameters_needed, width=head_width, depth=head_depth,
            share_convs=share_convs, box_tower=box_tower, prior=prior,
        ),
        MaskFeatures(channels, width=head_width, depth=mask_depth, out_channels=mask_features),
        dynamic,
        taxonomy=taxonomy,
        **options,
    )  # fmt: skip


def rtmdet_ins_tiny(taxonomy: Taxonomy, **options: Any) -> RTMDetIns:
    """CSPNeXt with a sixth of the blocks and 3/8 of the channels, 96 channels."""
    numbers = {"depth": 0.167, "width": 0.375, "channels": 96, "neck_blocks": 1}
    return _build(taxonomy, **{**numbers, **options})


def rtmdet_ins_s(taxonomy: Taxonomy, **options: Any) -> RTMDetIns:
    """CSPNeXt with a third of the blocks and half of the channels, 128 channels."""
    return _build(taxonomy, **{"depth": 0.33, "width": 0.5, "channels": 128, "neck_blocks": 1, **options})


def rtmdet_ins_m(taxonomy: Taxonomy, **options: Any) -> RTMDetIns:
    """CSPNeXt with two thirds of the blocks and 3/4 of the channels, 192 channels."""
    return _build(taxonomy, **{"depth": 0.67, "width": 0.75, "channels": 192, "neck_blocks": 2, **options})
