"""YOLACT: Bolya, Zhou, Xiao, Lee, "YOLACT: Real-time Instance Segmentation", ICCV 2019 (arXiv:1904.02689).

One branch draws K prototype maps of the whole picture (section 3.1); a one-stage detector predicts, beside each box and
its classes, K coefficients (3.2). An object's mask is the sigmoid of the prototypes' sum under its coefficients, cut to
its box: one matrix product for all objects, and Fast NMS (3.3) leaves no step that walks from object to object.

Differences: the original's anchors are squares by mistake, which its weights have learned; its Fast NMS sees all
anchors, unclipped, without a second score threshold. mmdetection's anchors are not square, each level's best 1000 are
clipped first, and its pyramid has no ReLU and makes P6 from C5. Options name all of these. Our variants are the
original, but with clipped boxes and the second threshold. Both originals stretch pictures to 550 x 550; here any size
will do, and anchors are spread over it.

Weights: importers for dbolya/yolact (MIT) and mmdetection (Apache-2.0).

    tensor         meaning                                                  shape
    pixels         RGB, 0..255                                              [B, 3, H, W]
    class_logits   of all P anchors of P3..P7, background last              [B, P, C + 1]
    deltas         as SSD's, with variances 0.1 and 0.2                     [B, P, 4]
    coefficients   in -1..1                                                 [B, P, K]
    prototypes     at least 0, on twice P3's resolution                     [B, K, h, w]
    semantic       on P3; computed for its loss only                        [B, C, H/8, W/8]
    mask_logits    N objects of all images, one after the other             [N, h, w]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn import functional

from maskwright.models.parts.truth import boxes_of, masks_of, split
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.prototypes import (
    BOX_WEIGHTS,
    AnchorTargets,
    BoxMaskLoss,
    CoefficientHead,
    PrototypeNet,
    anchor_sides,
    assemble,
    cells_within,
    hard_class_sum,
    match_anchors,
    share_covered,
    spread_anchors,
)
from maskwright.nn.losses import smooth_l1_sum
from maskwright.nn.necks.yolact_fpn import YolactFPN
from maskwright.nn.norm import normalize_pixels
from maskwright.ops import boxes as box_ops
from maskwright.ops.draw_maps import draw_maps
from maskwright.ops.fast_nms import fast_nms
from maskwright.protocols import MaskLoss
from maskwright.structures import Batch, Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy

PIXEL_MEAN = (123.68, 116.78, 103.94)
PIXEL_STD = (58.4, 57.12, 57.38)
LOSS_WEIGHTS = {"class": 1.0, "box": 1.5, "mask": 6.125, "semantic": 1.0}
_PIXELS = 1 << 25
"""How many mask pixels of the truth are held at once."""
_SURELY_NOT = -1e4


@dataclass(slots=True)
class Found:
    """Boxes [N, 4], scores [N], labels [N] and anchors [N] of one image, by falling score, in padded pixels."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(slots=True)
class Raw:
    """What ``forward`` computes; ``targets`` and ``semantic`` with scenes, ``detections`` without.

    ``rows`` are the anchors of each image that drew the masks.
    """

    class_logits: Tensor
    deltas: Tensor
    coefficients: Tensor
    prototypes: Tensor
    anchors: Tensor
    padded: tuple[int, int]
    rows: list[Tensor]
    mask_logits: Tensor
    semantic: Tensor | None = None
    targets: list[AnchorTargets] | None = None
    detections: list[Found] | None = None


class Yolact(nn.Module):
    """YOLACT on built parts.

    Args:
        backbone, neck, head, prototypes: the parts; ``neck`` gives a level for each of ``anchor_sizes``.
        channels: of the neck's maps.
        taxonomy: the C classes.
        anchor_sizes: side of each level's anchors in pixels. anchor_ratios: height over width.
        square_anchors: the original's mistake: anchors are as high as they are wide.
        clip_first: boxes are clipped to the picture before NMS.
        pre_nms: how many anchors of each level NMS sees, those of the best classes; ``None`` is all.
        second_threshold, agnostic_nms, top_k: of Fast NMS, see ``ops.fast_nms``; without ``top_k`` it compares twice
            as many boxes as ``max_per_image``, as the originals' 200 and 100 are.
        positive, negative: overlaps with an object from which on an anchor learns it, or below which it is background.
        ignored: background anchors that lie so much in crowds and in what is to be ignored do not learn.
        forced: how every object gets an anchor, ``"greedy"`` or ``"last"``, see ``match_anchors``.
        negatives: how many of the hardest background anchors a positive one is worth (OHEM).
        max_masks: how many masks of an image a step learns at most, drawn by chance; ``None`` takes all.
        loss_weights: factors of the losses by name; missing ones are the original's.
        pixel_mean, pixel_std: RGB statistics of the pixels in 0..255.
        resize: how pictures are resized at test time.
    """

    size_divisor = 1
    forced: Literal["greedy", "last"]
    class_layers = ("head.class_logits", "semantic")
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: CoefficientHead,
        prototypes: PrototypeNet,
        *,
        channels: int,
        taxonomy: Taxonomy,
        anchor_sizes: Sequence[float] = (24, 48, 96, 192, 384),
        anchor_ratios: Sequence[float] = (1.0, 2.0, 0.5),
        square_anchors: bool = True,
        clip_first: bool = True,
        pre_nms: int | None = None,
        second_threshold: bool = True,
        agnostic_nms: bool = False,
        top_k: int | None = None,
        positive: float = 0.5,
        negative: float = 0.4,
        ignored: float = 0.7,
        forced: Literal["greedy", "last"] = "greedy",
        negatives: int = 3,
        max_masks: int | None = 100,
        loss_weights: Mapping[str, float] | None = None,
        pixel_mean: Sequence[float] = PIXEL_MEAN,
        pixel_std: Sequence[float] = PIXEL_STD,
        resize: Resize | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.prototypes = backbone, neck, head, prototypes
        self.semantic = nn.Conv2d(channels, len(taxonomy), 1)
        nn.init.xavier_uniform_(self.semantic.weight)
        assert self.semantic.bias is not None
        nn.init.zeros_(self.semantic.bias)
        self.taxonomy = taxonomy
        self.sides = anchor_sides(anchor_sizes, anchor_ratios, square_anchors)
        self.clip_first, self.pre_nms, self.forced = clip_first, pre_nms, forced
        self.second_threshold, self.agnostic_nms, self.top_k = second_threshold, agnostic_nms, top_k
        self.positive, self.negative, self.ignored = positive, negative, ignored
        self.negatives, self.max_masks = negatives, max_masks
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.resize = resize or Resize(short=550, long=550, antialias=False)
        self.mask_loss: MaskLoss = BoxMaskLoss()
        self.nms_threshold, self.score_threshold, self.max_per_image = 0.5, 0.05, 100
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)))

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> Raw:
        """All anchors' outputs, and masks of those that stand for an object (``scenes``) or that detect one."""
        features = self.features(inputs)
        logits, deltas, coefficients = self.head(features)
        prototypes = self.prototypes(features[0])
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        padded = (inputs.pixels.shape[-2], inputs.pixels.shape[-1])
        anchors = spread_anchors(sizes, padded, self.sides).to(logits.device)
        semantic: Tensor | None = None
        targets: list[AnchorTargets] | None = None
        found: list[Found] | None = None
        if scenes is None:
            per_level = [h * w * len(sides) for (h, w), sides in zip(sizes, self.sides, strict=True)]
            found = self.detect(logits, deltas, anchors, inputs, per_level)
            rows = [d.rows for d in found]
        else:
            semantic = self.semantic(features[0])
            targets = [self.assign(anchors, scene) for scene in scenes]
            rows = [self._draw(target.positive(len(self.taxonomy))) for target in targets]
        parts = zip(prototypes.float(), coefficients.float(), rows, strict=True)
        masks = torch.cat([assemble(maps, weights[row]) for maps, weights, row in parts])
        return Raw(logits, deltas, coefficients, prototypes, anchors, padded, rows, masks, semantic, targets, found)

    def features(self, inputs: Images) -> list[Tensor]:
        """Pyramid maps, finest first."""
        pixels = normalize_pixels(inputs.pixels, self.pixel_mean, self.pixel_std, inputs.sizes)
        if torch.is_autocast_enabled(pixels.device.type):
            pixels = pixels.to(torch.get_autocast_dtype(pixels.device.type))
        return self.neck(self.backbone(pixels))

    def detect(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, inputs: Images, per_level: Sequence[int]
    ) -> list[Found]:
        """The best boxes of each image after Fast NMS, at most ``max_per_image``."""
        out: list[Found] = []
        for scores, moves, size in zip(logits.float().softmax(-1)[..., :-1], deltas, inputs.sizes, strict=True):
            rows = self._best(scores, per_level)
            boxes = box_ops.decode(moves[rows], anchors[rows], BOX_WEIGHTS)
            boxes = box_ops.clip(boxes, size) if self.clip_first else boxes
            kept, labels, values = fast_nms(
                boxes, scores[rows], threshold=self.nms_threshold, score_threshold=self.score_threshold,
                top_k=2 * self.max_per_image if self.top_k is None else self.top_k, limit=self.max_per_image,
                second_threshold=self.second_threshold, agnostic=self.agnostic_nms,
            )  # fmt: skip
            out.append(Found(boxes[kept], values, labels, rows[kept]))
        return out

    def _best(self, scores: Tensor, per_level: Sequence[int]) -> Tensor:
        """The anchors that NMS sees."""
        if self.pre_nms is None:
            if torch.compiler.is_compiling() or is_tracing():
                return torch.arange(scores.shape[0], device=scores.device)
            return torch.nonzero(scores.amax(1) > self.score_threshold).flatten()  # NMS drops the others
        parts: list[Tensor] = []
        start = 0
        for best in scores.amax(1).split(list(per_level)):
            count = best.shape[0]
            rows = torch.arange(count, device=best.device)
            if torch.compiler.is_compiling() or count > self.pre_nms:
                rows = best.topk(torch.sym_min(self.pre_nms, count)).indices
            parts.append(start + rows)
            start += count
        return torch.cat(parts)

    @torch.no_grad()
    def assign(self, anchors: Tensor, scene: Scene) -> AnchorTargets:
        """Which object of one image each anchor stands for."""
        objects, boxes, void = _split(scene)
        ignored = None if void is None else share_covered(_union(void).to(anchors.device), anchors) > self.ignored
        return match_anchors(
            anchors, boxes.to(anchors), objects.labels.to(anchors.device), ignored, background=len(self.taxonomy),
            positive=self.positive, negative=self.negative, forced=self.forced,
        )  # fmt: skip

    def _draw(self, rows: Tensor) -> Tensor:
        if self.max_masks is None or len(rows) <= self.max_masks:
            return rows
        return rows[torch.randperm(len(rows), device=rows.device)[: self.max_masks]]

    # ---- loss ---------------------------------------------------------------------------------------------------

    def loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """L_class, L_box, L_mask (section 3.2) and L_semantic (section 5), each times its weight."""
        targets, semantic = _learned(raw)
        class_sum, class_count = hard_class_sum(raw.class_logits, targets, ratio=self.negatives)
        counts = self._counts(targets, class_count)
        fine, coarse = _size(raw.prototypes), _size(semantic)
        parts = [_split(scene) for scene in batch.truth()]
        masks = [_shrunk(masks_of(objects), raw.padded, (fine, coarse)) for objects, _, _ in parts]
        void = [None if v is None else _shrunk(v, raw.padded, (coarse,))[0].any(0) for _, _, v in parts]
        labels = [objects.labels for objects, _, _ in parts]
        sums = {
            "class": class_sum,
            "box": self._box_sum(raw, targets),
            "mask": self._mask_sum(raw, targets, [of_prototypes for of_prototypes, _ in masks]),
            "semantic": _semantic_sum(semantic, [of_semantic for _, of_semantic in masks], labels, void),
        }
        return {name: sums[name] / counts[name].clamp(min=1.0) * self.loss_weights[name] for name in sums}

    def loss_counts(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """What each loss is a mean over; 0 where nothing counts. ``loss * loss_counts`` may be added over batches."""
        targets, _ = _learned(raw)
        return self._counts(targets, hard_class_sum(raw.class_logits.detach(), targets, ratio=self.negatives)[1])

    def _counts(self, targets: Sequence[AnchorTargets], class_count: Tensor) -> dict[str, Tensor]:
        positive = class_count.new_tensor(float(sum(len(t.positive(len(self.taxonomy))) for t in targets)))
        images = class_count.new_tensor(float(len(targets)))
        return {"class": class_count, "box": positive, "mask": positive, "semantic": images}

    def _box_sum(self, raw: Raw, targets: Sequence[AnchorTargets]) -> Tensor:
        total = raw.deltas.sum() * 0.0
        for deltas, target in zip(raw.deltas, targets, strict=True):
            rows = target.positive(len(self.taxonomy))
            goal = box_ops.encode(target.boxes[target.matched[rows]], raw.anchors[rows], BOX_WEIGHTS)
            total = total + smooth_l1_sum(deltas[rows].float(), goal, 1.0)
        return total

    def _mask_sum(self, raw: Raw, targets: Sequence[AnchorTargets], masks: Sequence[Tensor]) -> Tensor:
        """The mask loss of each image, as many times as it has positive anchors, learned or left out."""
        height, width = _size(raw.prototypes)
        cell = raw.anchors.new_tensor([width / raw.padded[1], height / raw.padded[0]] * 2)
        total = (raw.mask_logits.sum() + raw.prototypes.sum() + raw.coefficients.sum()) * 0.0
        logits = raw.mask_logits.split([len(rows) for rows in raw.rows])
        for found, rows, target, truth in zip(logits, raw.rows, targets, masks, strict=True):
            which = target.matched[rows]
            boxes = target.boxes[which] * cell
            goal = truth.to(found.device)[which].float()
            if isinstance(self.mask_loss, BoxMaskLoss):
                loss = self.mask_loss(found, goal, boxes)
            else:  # what is cut off is background for sure
                loss = self.mask_loss(found.where(cells_within(boxes, (height, width)), _SURELY_NOT), goal)
            total = total + loss * len(target.positive(len(self.taxonomy)))
        return total

    # ---- predict ------------------------------------------------------------------------------------------------

    def predict(self, raw: Raw, geometry: Sequence[Geometry]) -> list[Scene]:
        """Scenes in file pixels: masks cut to their boxes on the prototypes' cells, then enlarged to run-lengths."""
        if raw.detections is None:
            raise ValueError("predict needs the output of forward(inputs); this one was made with scenes")
        scenes: list[Scene] = []
        height, width = _size(raw.prototypes)
        pixels_y, pixels_x = raw.padded
        logits = raw.mask_logits.split([len(d.boxes) for d in raw.detections])
        for found, maps, view in zip(raw.detections, logits, geometry, strict=True):
            factor = found.boxes.new_tensor([view.scale[1], view.scale[0]] * 2)
            boxes = box_ops.clip(found.boxes / factor, view.original)
            keep = box_ops.nonempty(boxes)
            cell = found.boxes.new_tensor([width / pixels_x, height / pixels_y] * 2)
            probs = maps[keep].sigmoid() * cells_within(found.boxes[keep] * cell, (height, width))
            step = (pixels_y / height / view.scale[0], pixels_x / width / view.scale[1])
            segments = Segments(
                size=view.original,
                labels=found.labels[keep].cpu(),
                masks=Masks.from_arrays(*draw_maps(probs, step, view.original), view.original),
                boxes=boxes[keep].cpu(),
                scores=found.scores[keep].float().cpu(),
            )
            scenes.append(Scene(size=view.original, segments=segments))
        return scenes


def _learned(raw: Raw) -> tuple[list[AnchorTargets], Tensor]:
    if raw.targets is None or raw.semantic is None:
        raise ValueError("loss needs the output of forward(inputs, scenes); this one was made without scenes")
    return raw.targets, raw.semantic


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def _semantic_sum(
    logits: Tensor, masks: Sequence[Tensor], labels: Sequence[Tensor], void: Sequence[Tensor | None]
) -> Tensor:
    """Sum over images of the cross-entropy of all classes, a pixel's mean; ``void`` pixels are no background."""
    goal = torch.zeros_like(logits, dtype=torch.float32)
    weight = torch.ones_like(goal)
    for image, (truth, classes, nothing) in enumerate(zip(masks, labels, void, strict=True)):
        for mask, label in zip(truth.to(logits.device), classes.tolist(), strict=True):
            goal[image, label] = torch.maximum(goal[image, label], mask.float())
        if nothing is not None:
            weight[image] = torch.maximum(goal[image], 1.0 - nothing.to(goal))
    losses = functional.binary_cross_entropy_with_logits(logits.float(), goal, weight, reduction="sum")
    return losses / (logits.shape[-2] * logits.shape[-1])


def _split(scene: Scene) -> tuple[Segments, Tensor, Masks | None]:
    """Objects to learn, their boxes, and where nothing is known; boxes without an extent have no logarithm."""
    objects, void = split(scene)
    boxes = boxes_of(objects)
    kept = box_ops.nonempty(boxes)
    return objects[kept.cpu()], boxes[kept], void


def _union(masks: Masks) -> Tensor:
    """bool [H, W]: what lies in one of the masks."""
    covered = torch.zeros(masks.size, dtype=torch.bool)
    for i in range(len(masks)):
        covered |= masks[i : i + 1].dense()[0]
    return covered


def _shrunk(masks: Masks, padded: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Masks on smaller maps of a padded picture, bool [N, h, w] for each (h, w): bilinear, above one half."""
    if len(masks) == 0:
        return [torch.zeros(0, *size, dtype=torch.bool) for size in sizes]
    parts: list[list[Tensor]] = [[] for _ in sizes]
    step = max(1, _PIXELS // (padded[0] * padded[1]))
    for start in range(0, len(masks), step):
        dense = masks[start : start + step].dense().float()[:, None]
        dense = functional.pad(dense, (0, padded[1] - dense.shape[-1], 0, padded[0] - dense.shape[-2]))
        for part, size in zip(parts, sizes, strict=True):
            small = functional.interpolate(dense, size, mode="bilinear", align_corners=False)
            part.append(small[:, 0] > 0.5)
    return [torch.cat(part) for part in parts]


# ---- variants -------------------------------------------------------------------------------------------------------


def _build(
    taxonomy: Taxonomy,
    body: str,
    *,
    norm: Literal["train", "frozen"] = "train",
    frozen_stages: int = 0,
    pretrained: bool = False,
    zero_init: bool | None = None,
    channels: int = 256,
    width: int = 256,
    prototype_width: int = 256,
    prototypes: int = 32,
    extra_from: Literal["output", "input"] = "output",
    neck_relu: bool = True,
    anchor_ratios: Sequence[float] = (1.0, 2.0, 0.5),
    **options: Any,
) -> Yolact:
    backbone = TimmBackbone(
        body, out_indices=(2, 3, 4), norm=norm, frozen_stages=frozen_stages, pretrained=pretrained, zero_init=zero_init
    )
    return Yolact(
        backbone,
        YolactFPN(backbone.channels, channels, extra_from=extra_from, relu=neck_relu),
        CoefficientHead(channels, len(taxonomy), len(anchor_ratios), width=width, prototypes=prototypes),
        PrototypeNet(channels, width=prototype_width, prototypes=prototypes),
        channels=channels,
        taxonomy=taxonomy,
        anchor_ratios=anchor_ratios,
        **options,
    )


def yolact_r50(taxonomy: Taxonomy, **options: Any) -> Yolact:
    """ResNet-50, 32 prototypes."""
    return _build(taxonomy, **{"body": "resnet50", **options})


def yolact_r101(taxonomy: Taxonomy, **options: Any) -> Yolact:
    """ResNet-101, 32 prototypes: the paper's base model."""
    return _build(taxonomy, **{"body": "resnet101", **options})


def yolact_mobilenetv3(taxonomy: Taxonomy, **options: Any) -> Yolact:
    """MobileNetV3-Large, 64 channels, 16 prototypes: ours, for processors without a GPU."""
    numbers = {"channels": 64, "width": 64, "prototype_width": 64, "prototypes": 16}
    return _build(taxonomy, **{"body": "mobilenetv3_large_100", **numbers, **options})
