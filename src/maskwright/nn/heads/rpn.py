"""Region proposal network (Faster R-CNN, section 3): the head, and what is made of its output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskwright.nn.heads.roi_sampling import claim
from maskwright.nn.losses import binary_sum, smooth_l1_sum
from maskwright.ops import boxes as box_ops
from maskwright.ops.matching import match
from maskwright.ops.nms import batched_nms
from maskwright.ops.sampling import sample_balanced


class RPNHead(nn.Module):
    """``depth`` 3x3 convolutions shared by all levels, then objectness and box deltas for A anchors a cell."""

    def __init__(self, channels: int, anchors: int, *, depth: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level objectness logits [B, A, H, W] and deltas [B, 4A, H, W]."""
        objectness: list[Tensor] = []
        deltas: list[Tensor] = []
        for feature in features:
            hidden = feature
            for conv in self.convs:
                hidden = conv(hidden).relu()
            objectness.append(self.objectness(hidden))
            deltas.append(self.deltas(hidden))
        return objectness, deltas


def flatten_levels(objectness: Sequence[Tensor], deltas: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """[B, A, H, W] -> [B, HWA] and [B, 4A, H, W] -> [B, HWA, 4] per level, in the anchors' order (y, x, anchor)."""
    scores = [o.permute(0, 2, 3, 1).flatten(1) for o in objectness]
    boxes = [d.permute(0, 2, 3, 1).reshape(d.shape[0], -1, 4) for d in deltas]
    return scores, boxes


def propose(
    objectness: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    *,
    pre_nms: int,
    post_nms: int,
    threshold: float,
    min_size: float,
    inclusive: bool = False,
) -> list[Tensor]:
    """Proposals [K <= post_nms, 4] of each image, by falling objectness; no gradient flows through them.

    The best ``pre_nms`` of each level are decoded, clipped to the image, rid of boxes not larger than ``min_size`` and
    thinned by NMS within their level. ``inclusive`` clips as ``clip`` does.
    """
    with torch.no_grad():
        scores, offsets = flatten_levels(objectness, deltas)
        top_scores: list[Tensor] = []
        top_boxes: list[Tensor] = []
        top_levels: list[Tensor] = []
        for level, (score, offset, anchor) in enumerate(zip(scores, offsets, anchors, strict=True)):
            best, index = score.float().topk(torch.sym_min(pre_nms, score.shape[1]), dim=1)
            chosen = offset.gather(1, index[..., None].expand(-1, -1, 4))
            decoded = box_ops.decode(chosen.reshape(-1, 4), anchor[index].reshape(-1, 4))
            top_scores.append(best)
            top_boxes.append(decoded.view(*index.shape, 4))
            top_levels.append(torch.full_like(index[0], level))
        all_scores, all_boxes, levels = torch.cat(top_scores, 1), torch.cat(top_boxes, 1), torch.cat(top_levels)
        proposals: list[Tensor] = []
        for image, size in enumerate(sizes):
            box = clip(all_boxes[image], size, inclusive)
            keep = box_ops.nonempty(box, min_size) & torch.isfinite(all_scores[image])
            box, score, level = box[keep], all_scores[image][keep], levels[keep]
            kept = batched_nms(box, score, level, threshold)[:post_nms]
            proposals.append(box[kept])
        return proposals


def clip(boxes: Tensor, size: Sequence[int], inclusive: bool = False) -> Tensor:
    """Boxes [..., 4] moved into a picture (H, W); ``inclusive`` leaves each the row and column of its last pixel."""
    if not inclusive:
        return box_ops.clip(boxes, size)
    edge = boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    return box_ops.clip(boxes - edge, (size[0] - 1, size[1] - 1)) + edge


def legacy_cell_anchors(stride: int, size: float, ratios: Sequence[float]) -> Tensor:
    """The anchors of Faster R-CNN's first code for one cell, float32 [A, 4] with exclusive far edges.

    They lie around the middle pixel of the cell (0, 0)..(stride - 1, stride - 1), whose sides for each of ``ratios``
    (height over width) are rounded to pixels before they grow to ``size`` (maskrcnn-benchmark).
    """
    ratio = torch.tensor(list(ratios), dtype=torch.float64)
    width = (stride / ratio.sqrt()).round()
    half = torch.stack((width, (width * ratio).round()), 1) * (size / stride) / 2
    return torch.cat((stride / 2 - half, stride / 2 + half), 1).float()


def rpn_losses(
    objectness: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    truth: Sequence[Tensor],
    ignore: Sequence[Tensor],
    *,
    count: int,
    positive_fraction: float,
    beta: float,
    inside: Sequence[tuple[int, int]] | None = None,
    border: float = 0.0,
    claims: bool = False,
) -> tuple[Tensor, Tensor, int]:
    """Sums of the objectness and of the box loss over sampled anchors, and how many were sampled.

    Args:
        truth: boxes [G, 4] of each image.
        ignore: boxes of regions (crowds) that make no anchor a negative.
        count, positive_fraction: anchors sampled an image, and the largest share of positives.
        beta: of the smooth L1 loss.
        inside: the pictures' (H, W): anchors that reach ``border`` pixels or more beyond them do not learn.
        claims: objects claim anchors as ``roi_sampling.claim`` has it, from an overlap of 0.3 on.
    """
    scores, offsets = flatten_levels(objectness, deltas)
    all_scores, all_offsets, all_anchors = torch.cat(scores, 1), torch.cat(offsets, 1), torch.cat(list(anchors))
    class_sum, box_sum, sampled = all_scores.sum() * 0.0, all_offsets.sum() * 0.0, 0
    for image, boxes in enumerate(truth):
        with torch.no_grad():
            overlap = box_ops.iou(boxes, all_anchors)
            outside = None if inside is None else _outside(all_anchors, inside[image], border)
            if outside is not None:
                overlap[:, outside] = -1.0
            matched, kind = match(overlap, 0.3, 0.7, not claims)
            if claims:
                matched, kind = claim(overlap, matched, kind, 0.3)
            if outside is not None:
                kind[outside] = -1
            if len(ignore[image]):
                covered = _covered(all_anchors, ignore[image])
                kind = torch.where((kind == 0) & covered, torch.full_like(kind, -1), kind)
            positive, negative = sample_balanced(kind, count, positive_fraction)
        sampled += len(positive) + len(negative)
        chosen = torch.cat([positive, negative])
        target = torch.zeros(len(chosen), device=chosen.device)
        target[: len(positive)] = 1.0
        class_sum = class_sum + binary_sum(all_scores[image, chosen], target)
        if len(positive):
            goal = box_ops.encode(boxes[matched[positive]], all_anchors[positive])
            box_sum = box_sum + smooth_l1_sum(all_offsets[image, positive].float(), goal, beta)
    return class_sum, box_sum, sampled


def _outside(boxes: Tensor, size: tuple[int, int], border: float) -> Tensor:
    low, high = boxes[:, :2], boxes[:, 2:] - boxes.new_tensor([float(size[1]), float(size[0])])
    return (low < -border).any(1) | (high >= border).any(1)


def _covered(boxes: Tensor, regions: Tensor) -> Tensor:
    """Whether more than half of each box [N, 4] lies in one of ``regions`` [M, 4]."""
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    return (inside > 0.5 * box_ops.area(boxes)[:, None]).any(1)
