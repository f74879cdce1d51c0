"""The heads of YOLACT (Bolya et al. 2019): prototype maps, boxes with mask coefficients, and what they learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.ops import boxes as box_ops

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""SSD's variances 0.1 and 0.2, as factors of the deltas."""


class PrototypeNet(nn.Module):
    """Prototypes [B, K, 2H, 2W] from the finest level [B, C, H, W] (section 3.1, figure 3)."""

    def __init__(self, channels: int = 256, *, width: int = 256, depth: int = 3, prototypes: int = 32) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels if i == 0 else width, width, 3, padding=1) for i in range(depth))
        self.upsampled = nn.Conv2d(width, width, 3, padding=1)
        self.output = nn.Conv2d(width, prototypes, 1)
        _init(self)

    def forward(self, feature: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, 2H, 2W], at least 0: an unbounded positive map can say "surely here"."""
        for conv in self.convs:
            feature = conv(feature).relu()
        feature = functional.interpolate(feature, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.output(self.upsampled(feature).relu()).relu()


class CoefficientHead(nn.Module):
    """Classes, box deltas and mask coefficients of A anchors a cell, shared by all levels (section 3.2, figure 4)."""

    def __init__(
        self, channels: int, classes: int, anchors: int, *, width: int = 256, prototypes: int = 32, depth: int = 1
    ) -> None:
        super().__init__()
        self.tower = nn.ModuleList(nn.Conv2d(channels if i == 0 else width, width, 3, padding=1) for i in range(depth))
        self.class_logits = nn.Conv2d(width, anchors * (classes + 1), 3, padding=1)
        self.box_deltas = nn.Conv2d(width, anchors * 4, 3, padding=1)
        self.coefficients = nn.Conv2d(width, anchors * prototypes, 3, padding=1)
        self.anchors = anchors
        _init(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Levels [B, C, H_i, W_i] -> logits [B, P, classes + 1] (background last), deltas [B, P, 4] and coefficients
        [B, P, K] in -1..1 of all P = sum(H_i W_i A) anchors, in (level, y, x, anchor) order."""
        parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for feature in features:
            for conv in self.tower:
                feature = conv(feature).relu()
            for part, layer in zip(parts, (self.class_logits, self.box_deltas, self.coefficients), strict=True):
                part.append(self._flat(layer(feature)))
        logits, deltas, coefficients = (torch.cat(part, 1) for part in parts)
        return logits, deltas, coefficients.tanh()

    def _flat(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, maps.shape[1] // self.anchors)


def _init(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            assert part.bias is not None
            nn.init.zeros_(part.bias)


# ---- anchors --------------------------------------------------------------------------------------------------------


def anchor_sides(sizes: Sequence[float], ratios: Sequence[float], square: bool) -> list[list[tuple[float, float]]]:
    """(width, height) of each level's anchors: of ``sizes[i]`` squared pixels, ``ratios`` high over wide.

    ``square`` repeats the original's bug, kept there for its weights: heights are widths.
    """
    sides = [[(size / ratio**0.5, size * ratio**0.5) for ratio in ratios] for size in sizes]
    return [[(w, w) for w, _ in level] for level in sides] if square else sides


def spread_anchors(
    sizes: Sequence[tuple[int, int]], padded: tuple[int, int], sides: Sequence[Sequence[tuple[float, float]]]
) -> Tensor:
    """Anchors float32 [P, 4] of all levels for a padded picture (H, W), centered in their cells.

    A cell is the picture's side over the map's, which is no power of 2 where a side does not divide: 7.97 for 550.
    """
    levels: list[Tensor] = []
    for (height, width), level in zip(sizes, sides, strict=True):
        y = (torch.arange(height, dtype=torch.float64) + 0.5) * (padded[0] / height)
        x = (torch.arange(width, dtype=torch.float64) + 0.5) * (padded[1] / width)
        cell = torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for w, h in level], dtype=torch.float64)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        shift = torch.stack((grid_x, grid_y, grid_x, grid_y), -1).reshape(-1, 1, 4)
        levels.append((shift + cell).reshape(-1, 4))
    return torch.cat(levels).float()


@dataclass(slots=True)
class AnchorTargets:
    """What the P anchors of one image learn: ``labels`` [P], C for background, -1 for nothing; ``matched`` [P] objects,
    and the objects' ``boxes`` [G, 4]."""

    labels: Tensor
    matched: Tensor
    boxes: Tensor

    def positive(self, background: int) -> Tensor:
        """Indices of the anchors that stand for an object."""
        return torch.nonzero((self.labels >= 0) & (self.labels < background)).flatten()


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    ignored: Tensor | None,
    *,
    background: int,
    positive: float = 0.5,
    negative: float = 0.4,
    forced: Literal["greedy", "last"] = "greedy",
) -> AnchorTargets:
    """Which object each anchor stands for: the one it overlaps most, if by at least ``positive``.

    Args:
        anchors: [P, 4]. boxes: [G, 4]. labels: [G]. ignored: bool [P], anchors that make no negatives.
        negative: anchors that overlap no object so much are background.
        forced: each object gets its best anchor anyway: ``"greedy"``, the best pair of all first and no anchor twice
            (the original), or ``"last"``, where a later object takes the anchor from an earlier one (mmdetection).
    """
    count = len(boxes)
    if count == 0:
        target = labels.new_full((len(anchors),), background)
        matched = torch.zeros_like(target)
    else:
        overlap = box_ops.iou(boxes, anchors)
        best, matched = overlap.max(0)
        which, whose = _greedy(overlap) if forced == "greedy" else _last(overlap)
        best[which], matched[which] = 2.0, whose.to(matched)
        target = labels[matched].clone()
        target[best < positive] = -1
        target[best < negative] = background
    if ignored is not None:
        target[ignored & (target == background)] = -1
    return AnchorTargets(target, matched, boxes)


def _greedy(overlap: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors and objects of the best pair, the best pair of those left, and so on."""
    overlap = overlap.detach().cpu().clone()
    value, anchor = overlap.max(1)
    anchors, objects = [0] * len(overlap), [0] * len(overlap)
    for k in range(len(overlap)):
        j = int(value.argmax())
        i = int(anchor[j])
        anchors[k], objects[k] = i, j
        overlap[:, i] = -1
        value[j] = -2
        again = torch.nonzero((anchor == i) & (value > -2)).flatten()
        if len(again):
            value[again], anchor[again] = overlap[again].max(1)
    return torch.tensor(anchors), torch.tensor(objects)


def _last(overlap: Tensor) -> tuple[Tensor, Tensor]:
    taken = {i: j for j, i in enumerate(overlap.max(1).indices.tolist())}
    return torch.tensor(list(taken)), torch.tensor(list(taken.values()))


def share_covered(region: Tensor, boxes: Tensor) -> Tensor:
    """The share [P] of each box [P, 4] that lies in ``region``, bool [H, W]; sides are rounded to whole pixels."""
    height, width = region.shape
    sums = functional.pad(region.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    x1, y1, x2, y2 = box_ops.clip(boxes, (height, width)).round().long().unbind(1)
    covered = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return (covered / box_ops.area(boxes)).to(boxes.dtype)


# ---- classes --------------------------------------------------------------------------------------------------------


def hard_class_sum(
    logits: Tensor, targets: Sequence[AnchorTargets], *, ratio: int = 3, least: int = 99
) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy over the positives and the hardest negatives, ``ratio`` a positive (SSD, section 2.2).

    The originals leave pictures without objects out; here their ``least`` hardest negatives are learned.

    Returns:
        The sum, and how many positives it stands for: ``ratio`` negatives of a picture without any count as one.
    """
    background = logits.shape[-1] - 1
    total, count = logits.sum() * 0.0, logits.new_zeros((), dtype=torch.float32)
    for values, target in zip(logits.float(), targets, strict=True):
        losses = functional.cross_entropy(values, target.labels, ignore_index=-1, reduction="none")
        positive, negative = target.positive(background), torch.nonzero(target.labels == background).flatten()
        wanted = min(ratio * len(positive) if len(positive) else least, len(negative))
        hardest = losses[negative].topk(wanted).values
        total = total + losses[positive].sum() + hardest.sum()
        count = count + (len(positive) if len(positive) else wanted / ratio)
    return total, count


# ---- masks ----------------------------------------------------------------------------------------------------------


def assemble(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Mask logits [N, h, w] from prototypes [K, h, w] and coefficients [N, K] (equation 1)."""
    return (coefficients @ prototypes.flatten(1)).reshape(-1, *prototypes.shape[-2:])


def cells_within(boxes: Tensor, size: tuple[int, int], padding: float = 1.0) -> Tensor:
    """bool [N, h, w]: the cells of a map of ``size`` (h, w) whose number lies in the box [N, 4], given in cells,
    grown by ``padding`` (section 3.2, "Cropping Masks")."""
    y, x = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) for side in size)
    low_x, low_y = boxes[:, 0:1] - padding, boxes[:, 1:2] - padding
    high_x, high_y = boxes[:, 2:3] + padding, boxes[:, 3:4] + padding
    across, down = (x >= low_x) & (x < high_x), (y >= low_y) & (y < high_y)
    return down[:, :, None] & across[:, None, :]


class BoxMaskLoss:
    """Cross-entropy inside each object's box, over the box's area, the mean over N masks (section 3.2)."""

    def __call__(self, logits: Tensor, targets: Tensor, boxes: Tensor | None = None) -> Tensor:
        """[N, h, w] each, and the objects' ``boxes`` [N, 4] in cells; without them the whole map is the box."""
        if logits.numel() == 0:
            return logits.sum() * 0.0
        losses = functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
        if boxes is None:
            return losses.mean()
        within = cells_within(boxes, (logits.shape[1], logits.shape[2]))
        return ((losses * within).sum((1, 2)) / box_ops.area(boxes).clamp(min=1e-6)).mean()
