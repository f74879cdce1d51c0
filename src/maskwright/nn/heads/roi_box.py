"""Box heads on RoI features (Fast R-CNN; the 4-convolution form of Group Normalization, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from maskwright.nn.heads.rpn import clip
from maskwright.nn.norm import ConvNorm, NormName
from maskwright.ops import boxes as box_ops
from maskwright.ops.nms import batched_nms

Fusion = Literal["max", "sum"]


class BoxHead(nn.Module):
    """RoI features [R, C, s, s] to class logits [R, K + 1], background last, and box deltas [R, 4K].

    Args:
        channels: C. size: s. classes: K.
        kind: ``"fc2"`` two hidden layers; ``"conv4_fc1"`` four 3x3 convolutions, then one hidden layer.
        hidden: width of the hidden layers.
        norm: after each convolution of ``"conv4_fc1"``.
        agnostic: one box for all classes ([R, 4]).
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        *,
        kind: Literal["fc2", "conv4_fc1"] = "fc2",
        hidden: int = 1024,
        norm: NormName = None,
        agnostic: bool = False,
    ) -> None:
        super().__init__()
        convs = 4 if kind == "conv4_fc1" else 0
        self.convs = nn.ModuleList(ConvNorm(channels, channels, norm=norm) for _ in range(convs))
        widths = [channels * size * size, hidden] if convs else [channels * size * size, hidden, hidden]
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.class_logits = nn.Linear(hidden, classes + 1)
        self.box_deltas = nn.Linear(hidden, 4 if agnostic else 4 * classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.box_deltas.weight, std=0.001)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[R, C, s, s] -> ([R, K + 1], [R, 4K])."""
        for conv in self.convs:
            features = conv(features)
        hidden = features.flatten(1)
        for layer in self.fcs:
            hidden = layer(hidden).relu()
        return self.class_logits(hidden), self.box_deltas(hidden)


class FusedBoxHead(nn.Module):
    """A box head on adaptive feature pooling (PANet, section 3.2): RoI features of L levels, fused within the head.

    The layers before the fusion exist once a level: they adapt its features.

    Args:
        levels: L. channels, size, classes, kind, hidden, norm, agnostic: as ``BoxHead``'s.
        fuse: elementwise ``"max"`` or ``"sum"`` over the levels.
        fuse_after: how many layers come before the fusion (table 4: 1 is best).
    """

    def __init__(
        self,
        levels: int,
        channels: int,
        size: int,
        classes: int,
        *,
        kind: Literal["fc2", "conv4_fc1"] = "fc2",
        hidden: int = 1024,
        norm: NormName = None,
        agnostic: bool = False,
        fuse: Fusion = "max",
        fuse_after: int = 1,
    ) -> None:
        super().__init__()
        convs = 4 if kind == "conv4_fc1" else 0
        depth = convs + (1 if convs else 2)
        if not 0 <= fuse_after <= depth:
            raise ValueError(f"fuse_after must be 0 to {depth}, the head's layers, got {fuse_after}")

        def layer(index: int) -> nn.Module:
            if index < convs:
                return ConvNorm(channels, channels, norm=norm)
            first = index == convs
            return _Hidden(channels * size * size if first else hidden, hidden)

        self.fuse: Fusion = fuse
        self.each = nn.ModuleList(nn.ModuleList(layer(i) for i in range(fuse_after)) for _ in range(levels))
        self.rest = nn.ModuleList(layer(i) for i in range(fuse_after, depth))
        self.class_logits = nn.Linear(hidden, classes + 1)
        self.box_deltas = nn.Linear(hidden, 4 if agnostic else 4 * classes)
        _initialize(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[R, L, C, s, s] -> ([R, K + 1], [R, 4K])."""
        hidden = fuse_levels(features, self.each, self.fuse)
        for layer in self.rest:
            hidden = layer(hidden)
        hidden = hidden.flatten(1)
        return self.class_logits(hidden), self.box_deltas(hidden)


class _Hidden(nn.Sequential):
    """[R, ...] flattened, a linear layer, ReLU."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.add_module("flatten", nn.Flatten(1))
        self.add_module("linear", nn.Linear(width, out_width))
        self.add_module("relu", nn.ReLU(inplace=True))


def fuse_levels(features: Tensor, each: nn.ModuleList, fuse: Fusion) -> Tensor:
    """Each level of [R, L, ...] through its own layers, then the maximum or sum over the levels, [R, ...]."""
    parts: list[Tensor] = []
    for level, layers in zip(features.unbind(1), each, strict=True):
        for layer in cast(nn.ModuleList, layers):
            level = layer(level)
        parts.append(level)
    stacked = torch.stack(parts)
    return stacked.amax(0) if fuse == "max" else stacked.sum(0)


def _initialize(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias)
    for name, std in (("class_logits", 0.01), ("box_deltas", 0.001)):
        nn.init.normal_(cast(nn.Linear, getattr(head, name)).weight, std=std)


@dataclass(slots=True)
class Detections:
    """Boxes [N, 4], scores [N] and labels [N] of one image, by falling score, in the padded picture's pixels."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def detect(
    proposals: Sequence[Tensor],
    class_logits: Tensor,
    box_deltas: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    box_weights: tuple[float, float, float, float],
    score_threshold: float,
    nms_threshold: float,
    limit: int,
    min_size: float = 0.0,
    agnostic: bool = False,
    inclusive: bool = False,
) -> list[Detections]:
    """Decode, clip, threshold, NMS in each class, keep the best ``limit`` of each image.

    Args:
        proposals: [P_i, 4] of each image. class_logits: [sum P, K + 1], background last. box_deltas: [sum P, 4K or 4].
        min_size: boxes must be larger, in pixels; 0 keeps all.
        agnostic: classes suppress each other.
        inclusive: clip as ``rpn.clip`` does.
    """
    counts = [p.shape[0] for p in proposals]  # not len(): while exporting these are symbols
    classes = class_logits.shape[1] - 1
    scores = class_logits.float().softmax(-1)[:, :classes].split(counts)
    boxes = box_ops.decode(box_deltas, torch.cat(list(proposals)), box_weights).split(counts)
    out: list[Detections] = []
    for score, box, size in zip(scores, boxes, sizes, strict=True):
        box = clip(box.unflatten(1, (-1, 4)), size, inclusive).expand(-1, classes, 4)
        row, label = torch.nonzero((score > score_threshold) & torch.isfinite(score), as_tuple=True)
        score, box = score[row, label], box[row, label]
        if min_size > 0:
            large = box_ops.nonempty(box, min_size)
            score, box, label = score[large], box[large], label[large]
        groups = torch.zeros_like(label) if agnostic else label
        kept = batched_nms(box, score, groups, nms_threshold)[:limit]
        out.append(Detections(box[kept], score[kept], label[kept]))
    return out
