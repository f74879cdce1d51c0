"""CondInst: Tian, Shen, Chen, "Conditional Convolutions for Instance Segmentation", ECCV 2020 (arXiv:2003.05664).

FCOS finds objects from the cells of a pyramid (section 3.1); at each cell a controller also writes the weights of a
tiny convolutional network that belongs to that object alone (section 3.2). Run over features that all objects share,
beside each cell's position relative to the object, it draws the object's mask on the whole picture, without RoIs.

Differences: AdelaiDet's score is the root of class probability times centerness, mmdetection's the product; see
``nn.heads.dense_box.DENSE_RULES`` for the rest. Objects' centers are their masks' centers of mass in both.

Weights: importers for AdelaiDet (non-commercial) and mmdetection (Apache-2.0).

    tensor         meaning                                                 shape
    pixels         RGB, 0..255                                             [B, 3, H, W]
    maps           of FCOS, P3..P7, see ``nn.heads.dense_box``             [B, C | 4 | 1, H/s, W/s]
    parameters     of each cell's own network                              [B, 169, H/s, W/s]
    shared         features that all objects' networks read, on P3         [B, 8, H/8, W/8]
    mask_logits    of the objects of all images, one after the other       [N, H/4, W/4]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskwright.models.parts.truth import boxes_of, covered_at, split
from maskwright.nn.backbones.timm import TimmBackbone
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
    flatten_maps,
)
from maskwright.nn.heads.dynamic_masks import DynamicMasks, MaskBranch
from maskwright.nn.losses import Dice, focal_sum
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import NormName, normalize_pixels
from maskwright.ops import boxes as box_ops
from maskwright.ops.aligned import aligned_bilinear, draw_aligned
from maskwright.ops.nms import mask_nms
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
_PIXELS = 1 << 25
"""How many mask pixels of the truth are held at once."""


@dataclass(slots=True)
class Truth:
    """What the cells of one image learn from.

    ``targets`` of all cells; ``masks`` bool [G, H/4, W/4] of the objects, ``None`` where unknown; ``semantic``
    [H/8, W/8] the class of each cell of P3, C for none, if that is learned too.
    """

    targets: DenseTargets
    masks: Tensor | None
    semantic: Tensor | None


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``truth`` with scenes, ``detections`` without; ``cells`` [N_i] drew the masks."""

    maps: DenseMaps
    parameters: list[Tensor]
    shared: Tensor
    semantic: Tensor | None
    cells: list[Tensor]
    mask_logits: Tensor
    truth: list[Truth] | None = None
    detections: list[DenseDetections] | None = None


class CondInst(nn.Module):
    """CondInst on built parts.

    Args:
        backbone, neck, head, mask_branch, dynamic: the parts; ``neck`` gives a map for each of ``strides``.
        taxonomy: the C classes.
        strides: of the pyramid's levels, finest first.
        interests: the extent, in pixels, of the objects each level is meant for; relative coordinates are in its units.
        radius: cells within this many strides of an object's center learn it; ``None`` takes its whole box.
        mask_stride: masks are enlarged to this stride, at most the finest level's (the paper takes 2, AdelaiDet 4).
        max_masks: how many masks a step learns at most, drawn by chance; ``None`` takes all.
        rules: a name in ``DENSE_RULES``.
        loss_weights: factors of the losses by name; missing ones are 1.
        pre_nms: cells of each level that NMS sees.
        suppression: NMS by the overlap of ``"box"`` or of ``"mask"`` (section 4.4); the latter draws ``candidates``
            boxes before.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.

    ``score_threshold`` applies as the origin has it: to the probability before the root that makes it a score.
    """

    size_divisor = 32
    class_layers = ("head.class_logits", "mask_branch.semantic.2")
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: DenseBoxHead,
        mask_branch: MaskBranch,
        dynamic: DynamicMasks,
        *,
        taxonomy: Taxonomy,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        interests: Sequence[float] = (64, 128, 256, 512, 1024),
        radius: float | None = 1.5,
        mask_stride: int = 4,
        max_masks: int | None = 500,
        rules: str = "adelaidet",
        loss_weights: Mapping[str, float] | None = None,
        pre_nms: int = 1000,
        suppression: Literal["box", "mask"] = "box",
        candidates: int = 500,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        if rules not in DENSE_RULES:
            raise ValueError(f"rules must be one of {', '.join(DENSE_RULES)}, got {rules!r}")
        self.backbone, self.neck, self.head = backbone, neck, head
        self.mask_branch, self.dynamic = mask_branch, dynamic
        self.controller = nn.Conv2d(head.distances.in_channels, dynamic.parameters_needed, 3, padding=1)
        nn.init.normal_(self.controller.weight, std=0.01)
        assert self.controller.bias is not None
        nn.init.zeros_(self.controller.bias)
        if suppression not in ("box", "mask"):
            raise ValueError(f"suppression must be 'box' or 'mask', got {suppression!r}")
        self.suppression, self.candidates = suppression, candidates
        self.taxonomy, self.rules = taxonomy, DENSE_RULES[rules]
        self.strides, self.interests, self.radius = tuple(strides), tuple(interests), radius
        self.mask_stride, self.max_masks, self.pre_nms = mask_stride, max_masks, pre_nms
        self.loss_weights = dict(loss_weights or {})
        self.resize = resize or Resize(short=800, long=1333)
        self.mask_loss: MaskLoss = Dice()
        self.nms_threshold, self.score_threshold, self.max_per_image = 0.6, 0.05, 100
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """Maps of all cells, and masks of the cells that stand for an object (``scenes``) or that detect one."""
        features = self.features(inputs)
        maps = self.head(features)
        parameters = [self.controller(hidden) for hidden in maps.hidden]
        shared, semantic = self.mask_branch(features)
        truth: list[Truth] | None = None
        found: list[DenseDetections] | None = None
        if scenes is None:
            found = self.detect(maps, inputs)
            cells = [d.cells for d in found]
        else:
            padded = (inputs.pixels.shape[-2], inputs.pixels.shape[-1])
            truth = [self.assign(maps, scene, padded) for scene in scenes]
            cells = _draw([t.targets.positive(len(self.taxonomy)) for t in truth], self.max_masks)
        logits = self.masks(maps, parameters, shared, cells)
        return Raw(maps, parameters, shared, semantic, cells, logits, truth, found)

    def features(self, inputs: Images) -> list[Tensor]:
        """Pyramid maps, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.neck(self.backbone(pixels))

    def detect(self, maps: DenseMaps, inputs: Images) -> list[DenseDetections]:
        """The best cells of each image after NMS in each class, at most ``max_per_image``; all, if NMS comes later."""
        now = self.suppression == "box"
        return detect_dense(
            maps, self.strides, inputs.sizes, rules=self.rules, score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold if now else 1.0, pre_nms=self.pre_nms,
            limit=self.max_per_image if now else self.candidates,
        )  # fmt: skip

    def masks(self, maps: DenseMaps, parameters: Sequence[Tensor], shared: Tensor, cells: Sequence[Tensor]) -> Tensor:
        """Mask logits [N, H/4, W/4] of the networks at ``cells`` of each image."""
        points, levels = dense_points(maps.sizes, self.strides, shared.device)
        extents = torch.tensor([float(e) for e in self.interests], device=shared.device)
        weights = flatten_maps(parameters).float()
        logits = [
            self.dynamic(shared[i].float(), weights[i, cell], points[cell], extents[levels[cell]], self.strides[0])
            for i, cell in enumerate(cells)
        ]
        return aligned_bilinear(torch.cat(logits)[:, None], self.strides[0] // self.mask_stride)[:, 0]

    @torch.no_grad()
    def assign(self, maps: DenseMaps, scene: Scene, padded: tuple[int, int]) -> Truth:
        """Which object of one image each cell stands for, and the objects' masks."""
        points, levels = dense_points(maps.sizes, self.strides, maps.classes[0].device)
        objects, void = split(scene)
        boxes, labels = boxes_of(objects).to(points), objects.labels.to(points.device)
        masks, centers, semantic = None, None, None
        if objects.masks is not None:
            masks, centers = _sample(objects.masks, boxes, self.mask_stride, padded)
        if self.mask_branch.semantic is not None:
            semantic = torch.full(maps.sizes[0], len(self.taxonomy), device=points.device)
            if objects.masks is not None:
                seen, _ = _sample(objects.masks, boxes, self.strides[0], padded)
                for i in objects.masks.area().argsort(descending=True).tolist():  # the smallest lies on top
                    semantic[seen[i]] = labels[i]
        targets = assign_points(
            points, levels, self.strides, boxes, labels, background=len(self.taxonomy),
            limits=self.interests[:-1], radius=self.radius, centers=centers, ignored=covered_at(void, points),
        )  # fmt: skip
        return Truth(targets, masks, semantic)

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class, L_box, L_centerness and L_mask (equation 3), and L_semantic if asked for, each times its weight."""
        truth = _learned(raw)
        sums, _ = dense_losses(raw.maps, [t.targets for t in truth], rules=self.rules)
        counts = self.loss_counts(raw, batch)
        sums["mask"] = self._mask_loss(raw, truth) * counts["mask"]
        if raw.semantic is not None:
            sums["semantic"] = self._semantic_sum(raw.semantic, truth)
        least = {name: 1e-6 if name == "box" else 1.0 for name in sums}
        return {n: s / counts[n].clamp(min=least[n]) * self.loss_weights.get(n, 1.0) for n, s in sums.items()}

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        truth = _learned(raw)
        counts = dense_counts([t.targets for t in truth], len(self.taxonomy))
        counts["mask"] = raw.mask_logits.new_tensor(float(len(raw.mask_logits)))
        if raw.semantic is not None:
            counts["semantic"] = (_semantic(truth) < len(self.taxonomy)).sum().float()
        return counts

    def _mask_loss(self, raw: Raw, truth: Sequence[Truth]) -> Tensor:
        targets: list[Tensor] = []
        for cells, known in zip(raw.cells, truth, strict=True):
            if known.masks is None:
                raise ValueError("CondInst learns from masks, but a scene has none; give masks or another objective")
            targets.append(known.masks[known.targets.matched[cells]])
        loss = self.mask_loss(raw.mask_logits.float(), torch.cat(targets).float())
        return loss + (raw.mask_logits.sum() + raw.shared.sum() + sum(p.sum() for p in raw.parameters)) * 0.0

    def _semantic_sum(self, logits: Tensor, truth: Sequence[Truth]) -> Tensor:
        wanted = nn.functional.one_hot(_semantic(truth), len(self.taxonomy) + 1)[..., :-1]
        return focal_sum(logits.float(), wanted.permute(0, 3, 1, 2).float(), 0.25, 2.0)

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: boxes scaled and clipped, masks enlarged straight to run-lengths."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        scenes: list[Scene] = []
        logits = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        for found, maps, view in zip(raw.detections, logits, geometry, strict=True):
            factor = found.boxes.new_tensor([view.scale[1], view.scale[0]] * 2)
            boxes = box_ops.clip(found.boxes / factor, view.original)
            keep = torch.nonzero(box_ops.nonempty(boxes)).flatten()
            runs = draw_aligned(maps[keep].float().sigmoid(), self.mask_stride, view.valid, view.original)
            masks, keep = Masks.from_arrays(*runs, view.original), keep.cpu()
            scores, labels = found.scores.float().cpu()[keep], found.labels.cpu()[keep]
            if self.suppression == "mask":
                best = mask_nms(runs, scores, labels, self.nms_threshold)[: self.max_per_image]
                masks, keep, scores, labels = masks[best], keep[best], scores[best], labels[best]
            segments = Segments(
                size=view.original, labels=labels, masks=masks, boxes=boxes.cpu()[keep], scores=scores
            )  # fmt: skip
            scenes.append(Scene(size=view.original, segments=segments))
        return scenes


def _learned(raw: Raw) -> list[Truth]:
    if raw.truth is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.truth


def _semantic(truth: Sequence[Truth]) -> Tensor:
    return torch.stack([t.semantic for t in truth if t.semantic is not None])


def _draw(cells: Sequence[Tensor], limit: int | None) -> list[Tensor]:
    """All ``cells`` [P_i] of each image, or ``limit`` of them by chance over all images."""
    count = sum(len(c) for c in cells)
    if limit is None or count <= limit:
        return list(cells)
    kept = torch.zeros(count, dtype=torch.bool, device=cells[0].device)
    kept[torch.randperm(count, device=kept.device)[:limit]] = True
    return [c[k] for c, k in zip(cells, kept.split([len(c) for c in cells]), strict=True)]


def _sample(masks: Masks, boxes: Tensor, stride: int, padded: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Every ``stride``-th pixel of the masks on the padded picture, bool [G, H, W], and their centers of mass [G, 2].

    An empty mask has its box's center.
    """
    out = torch.zeros(len(masks), padded[0] // stride, padded[1] // stride, dtype=torch.bool)
    centers = ((boxes[:, :2] + boxes[:, 2:]) / 2).cpu()
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in masks.size)
    first, step = stride // 2, max(1, _PIXELS // prod(masks.size))
    for start in range(0, len(masks), step):
        dense = masks[start : start + step].dense()
        part = dense[:, first::stride, first::stride]
        out[start : start + step, : part.shape[1], : part.shape[2]] = part
        down, along = dense.sum(2).float(), dense.sum(1).float()
        area = down.sum(1)
        middle = torch.stack(((along * columns).sum(1), (down * rows).sum(1)), 1) / area.clamp(min=1)[:, None]
        centers[start : start + step] = torch.where(area[:, None] > 0, middle, centers[start : start + step])
    return out.to(boxes.device), centers.to(boxes.device)


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
    branch_width: int = 128,
    branch_depth: int = 4,
    branch_norm: NormName = "batch",
    mask_features: int = 8,
    mask_width: int = 8,
    mask_depth: int = 3,
    coordinates: str | None = "relative",
    semantic: bool = False,
    **options: Any,
) -> CondInst:
    backbone = TimmBackbone(
        body, out_indices=(2, 3, 4), norm=norm, frozen_stages=frozen_stages,
        stride_in_1x1=stride_in_1x1, pretrained=pretrained, zero_init=zero_init,
    )  # fmt: skip
    classes = len(taxonomy)
    branch = MaskBranch(
        channels, width=branch_width, depth=branch_depth, out_channels=mask_features, norm=branch_norm,
        classes=classes if semantic else 0,
    )  # fmt: skip
    return CondInst(
        backbone,
        nn.Sequential(FPN(backbone.channels, channels, extra=0), TopLevels(channels)),
        DenseBoxHead(channels, classes, depth=head_depth, norm=head_norm, prior=prior),
        branch,
        DynamicMasks(mask_features, width=mask_width, depth=mask_depth, coordinates=coordinates),
        taxonomy=taxonomy,
        **options,
    )


def condinst_r50(taxonomy: Taxonomy, **options: Any) -> CondInst:
    """ResNet-50, FPN 256, P3 to P7: the paper's standard form."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def condinst_r101(taxonomy: Taxonomy, **options: Any) -> CondInst:
    """ResNet-101, FPN 256, P3 to P7."""
    return _build(taxonomy, **{"body": "resnet101", **options})
