"""Anchor-free boxes from every cell of a pyramid (FCOS: Tian et al. 2019, arXiv:1904.01355; section numbers are its).

A cell of stride s stands for the point (s x + s // 2, s y + s // 2). It has class logits, four distances to the sides
of its box in units of its stride, and a centerness that lowers the scores of cells far from the box's center.

    tensor      meaning                                     shape
    class       one map a level, sigmoid, no background     [B, C, H, W]
    distances   left, top, right, bottom, in strides        [B, 4, H, W]
    centerness  logits                                      [B, 1, H, W]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from maskwright.nn.losses import binary_sum, focal_sum
from maskwright.nn.norm import NormName, make_norm
from maskwright.ops import boxes as box_ops
from maskwright.ops.nms import batched_nms

IGNORED = -1
_CELLS = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseRules:
    """Details in which public implementations of FCOS differ.

    Attributes:
        root: the score is the square root of class probability times centerness, not the product itself.
        threshold_product: the score threshold applies to the product before the root, not to the class probability.
        rank_product: the best cells of a level are chosen by the product, not by the class probability.
        clip_first: boxes are clipped to the picture, and empty ones dropped, before NMS.
        smooth_iou: the GIoU loss adds 1 to intersection and union, in units of the stride.
    """

    root: bool = True
    threshold_product: bool = True
    rank_product: bool = True
    clip_first: bool = False
    smooth_iou: bool = True


DENSE_RULES: Mapping[str, DenseRules] = {
    "adelaidet": DenseRules(),
    "centermask2": DenseRules(threshold_product=False),
    "mmdetection": DenseRules(
        root=False, threshold_product=False, rank_product=False, clip_first=True, smooth_iou=False
    ),
}


# ---- modules --------------------------------------------------------------------------------------------------------


class TopLevels(nn.Module):
    """Adds P6 and P7 to P3..P5: 3x3 convolutions of stride 2 on the coarsest map, a ReLU between them (RetinaNet)."""

    def __init__(self, channels: int, extra: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(extra))
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[B, C, H_i, W_i], finest first -> the same and the added ones."""
        out = list(features)
        for i, conv in enumerate(self.convs):
            out.append(conv(out[-1].relu() if i else out[-1]))
        return out


class _Layer(nn.Sequential):
    def __init__(self, channels: int, out_channels: int, norm: NormName) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(channels, out_channels, 3, padding=1))  # with a bias also before a norm
        if norm is not None:
            self.add_module("norm", make_norm(norm, out_channels))
        self.add_module("relu", nn.ReLU(inplace=True))


@dataclass(slots=True)
class DenseMaps:
    """What ``DenseBoxHead`` says, one map a level; ``hidden`` is the box tower's output, for further predictors."""

    classes: list[Tensor]
    distances: list[Tensor]
    centerness: list[Tensor]
    hidden: list[Tensor]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each level."""
        return [(m.shape[-2], m.shape[-1]) for m in self.classes]


class DenseBoxHead(nn.Module):
    """Two towers shared by all levels (figure 2): classes from the one, boxes and centerness from the other.

    Args:
        channels: of the pyramid's maps. classes: C. levels: how many maps there are.
        width: of the towers. depth: 3x3 convolutions in each. norm: after each of them.
        prior: what the class probabilities begin with (Focal Loss, section 4.1).
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        levels: int = 5,
        *,
        width: int | None = None,
        depth: int = 4,
        norm: NormName = "group",
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        width = channels if width is None else width
        self.class_tower = nn.Sequential(*(_Layer(width if i else channels, width, norm) for i in range(depth)))
        self.box_tower = nn.Sequential(*(_Layer(width if i else channels, width, norm) for i in range(depth)))
        self.class_logits = nn.Conv2d(width, classes, 3, padding=1)
        self.distances = nn.Conv2d(width, 4, 3, padding=1)
        self.centerness = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        assert self.class_logits.bias is not None
        assert self.distances.bias is not None
        nn.init.constant_(self.class_logits.bias, -log((1 - prior) / prior))
        # One stride to each side: at zero, where the originals begin, the ReLU lets half of the gradients through.
        nn.init.ones_(self.distances.bias)

    def forward(self, features: Sequence[Tensor]) -> DenseMaps:
        """[B, C, H_i, W_i] to maps of every level; distances are not negative."""
        maps = DenseMaps([], [], [], [])
        for level, feature in enumerate(features):
            hidden = self.box_tower(feature)
            maps.classes.append(self.class_logits(self.class_tower(feature)))
            maps.distances.append((self.distances(hidden) * self.scales[level]).relu())
            maps.centerness.append(self.centerness(hidden))
            maps.hidden.append(hidden)
        return maps


def dense_points(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Points [L, 2] (x, y) in pixels of all cells, level by level and row by row, and the level int64 [L] of each."""
    points: list[Tensor] = []
    levels: list[Tensor] = []
    for level, ((height, width), stride) in enumerate(zip(sizes, strides, strict=True)):
        y = torch.arange(height, device=device) * stride + stride // 2
        x = torch.arange(width, device=device) * stride + stride // 2
        grid = torch.stack((x[None].expand(height, width), y[:, None].expand(height, width)), -1)
        points.append(grid.reshape(height * width, 2).float())
        levels.append(torch.full((height * width,), level, dtype=torch.int64, device=device))
    return torch.cat(points), torch.cat(levels)


def flatten_maps(maps: Sequence[Tensor]) -> Tensor:
    """[B, K, H_i, W_i] of all levels to [B, L, K], in the order of ``dense_points``."""
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)


# ---- learning -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class DenseTargets:
    """What the L cells of one image shall say.

    ``labels`` [L] is the class, ``background`` (C) for none, -1 for cells that do not learn; ``matched`` [L] the
    object; ``distances`` [L, 4] to its sides in strides, of use where there is an object.
    """

    labels: Tensor
    matched: Tensor
    distances: Tensor

    def positive(self, background: int) -> Tensor:
        """Indices int64 [P] of the cells that stand for an object."""
        return torch.nonzero((self.labels >= 0) & (self.labels < background)).flatten()


def assign_points(
    points: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    boxes: Tensor,
    labels: Tensor,
    *,
    background: int,
    limits: Sequence[float] = (64, 128, 256, 512),
    radius: float | None = 1.5,
    centers: Tensor | None = None,
    ignored: Tensor | None = None,
) -> DenseTargets:
    """Which object each cell stands for: the smallest one that it lies in and that its level is meant for (3.1, 3.2).

    Args:
        points, levels: of ``dense_points``.
        boxes: [G, 4]. labels: int64 [G].
        limits: the longest distance, in pixels, that each level but the last learns, and the shortest of the next.
        radius: cells must lie within this many strides of the object's center; ``None`` takes the whole box.
        centers: [G, 2], by default those of the boxes.
        ignored: bool [L], cells that make no negatives.
    """
    strides_at = torch.tensor([float(s) for s in strides], device=points.device)[levels]
    edges = [-1.0, *map(float, limits[: len(strides) - 1]), torch.inf]
    low, high = torch.tensor(edges[:-1]).to(points)[levels], torch.tensor(edges[1:]).to(points)[levels]
    labels_at = torch.full((len(points),), background, dtype=torch.int64, device=points.device)
    matched = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    distances = torch.zeros(len(points), 4, device=points.device)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 if centers is None else centers.to(boxes)
    area = box_ops.area(boxes)
    step = max(1, _CELLS // max(len(boxes), 1))
    for start in range(0, len(points) if len(boxes) else 0, step):
        part = slice(start, start + step)
        point, reach = points[part, None], None if radius is None else radius * strides_at[part, None, None]
        sides = torch.cat((point - boxes[None, :, :2], boxes[None, :, 2:] - point), -1)
        inside = sides.amin(-1) > 0
        if reach is not None:
            near = torch.maximum(middle[None] - reach, boxes[None, :, :2])
            far = torch.minimum(middle[None] + reach, boxes[None, :, 2:])
            inside = (torch.cat((point - near, far - point), -1)).amin(-1) > 0
        longest = sides.amax(-1)
        meant = (longest >= low[part, None]) & (longest <= high[part, None])
        cost = torch.where(inside & meant, area[None], torch.inf)
        best, index = cost.min(1)
        found = best < torch.inf
        labels_at[part] = torch.where(found, labels[index], labels_at[part])
        matched[part] = torch.where(found, index, matched[part])
        chosen = sides[torch.arange(len(index), device=index.device), index] / strides_at[part, None]
        distances[part] = torch.where(found[:, None], chosen, distances[part])
    if ignored is not None:
        labels_at = torch.where(ignored & (labels_at == background), torch.full_like(labels_at, IGNORED), labels_at)
    return DenseTargets(labels_at, matched, distances)


def centerness_of(distances: Tensor) -> Tensor:
    """How central a point is in its box, [P] in [0, 1], from distances [P, 4] (equation 3)."""
    left, top, right, bottom = distances.unbind(-1)
    across = torch.minimum(left, right) / torch.maximum(left, right).clamp(min=1e-12)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom).clamp(min=1e-12)
    return (across * down).clamp(min=0).sqrt()


def dense_losses(
    maps: DenseMaps,
    targets: Sequence[DenseTargets],
    *,
    rules: DenseRules,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sums of the focal loss, of the GIoU loss weighted by centerness and of the centerness loss (equation 2).

    Returns:
        (sums, counts) with keys ``class``, ``box`` and ``centerness``; positives are what class and centerness losses
        are divided by, the sum of the centerness targets what the box loss is.
    """
    classes, distances, centerness = (flatten_maps(m) for m in (maps.classes, maps.distances, maps.centerness))
    background = classes.shape[-1]
    labels = torch.stack([t.labels for t in targets])
    learn = labels != IGNORED
    logits = classes[learn].float()
    wanted = nn.functional.one_hot(labels[learn], background + 1)[:, :background].to(logits.dtype)
    image, cell = torch.nonzero((labels >= 0) & (labels < background), as_tuple=True)
    goal = torch.stack([t.distances for t in targets])[image, cell]
    weight = centerness_of(goal)
    predicted = distances[image, cell].float()
    box = ((1 - giou_of_distances(predicted, goal, rules.smooth_iou)) * weight).sum()
    sums = {
        "class": focal_sum(logits, wanted, alpha, gamma),
        "box": box + distances.sum() * 0.0,
        "centerness": binary_sum(centerness[image, cell, 0], weight) + centerness.sum() * 0.0,
    }
    return sums, dense_counts(targets, background)


def dense_counts(targets: Sequence[DenseTargets], background: int) -> dict[str, Tensor]:
    """What the sums of ``dense_losses`` are divided by."""
    labels = torch.stack([t.labels for t in targets])
    positive = (labels >= 0) & (labels < background)
    count = positive.sum().float()
    weight = centerness_of(torch.stack([t.distances for t in targets])[positive]).sum()
    return {"class": count, "box": weight, "centerness": count}


def giou_of_distances(predicted: Tensor, goal: Tensor, smooth: bool) -> Tensor:
    """Generalized IoU [P] of boxes given by their distances [P, 4] from a common point.

    Args:
        smooth: add 1 to intersection and union, so that a box of no extent still has a slope.
    """
    size, wanted = predicted[:, :2] + predicted[:, 2:], goal[:, :2] + goal[:, 2:]
    inner, outer = torch.minimum(predicted, goal), torch.maximum(predicted, goal)
    overlap = (inner[:, :2] + inner[:, 2:]).clamp(min=0).prod(-1)
    hull = (outer[:, :2] + outer[:, 2:]).prod(-1)
    union = size.prod(-1) + wanted.prod(-1) - overlap
    if smooth:
        return (overlap + 1) / (union + 1) - (hull - union) / hull.clamp(min=1e-12)
    return overlap / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


# ---- decoding -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class DenseDetections:
    """Boxes [N, 4], scores [N], labels [N] of one image by falling score, and the cell [N] that found each."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    cells: Tensor


@torch.no_grad()
def detect_dense(
    maps: DenseMaps,
    strides: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    *,
    rules: DenseRules,
    score_threshold: float,
    nms_threshold: float,
    pre_nms: int,
    limit: int,
    agnostic: bool = False,
) -> list[DenseDetections]:
    """Score, threshold, keep the best ``pre_nms`` of each level, NMS in each class, the best ``limit`` of each image.

    Args:
        sizes: (H, W) of each picture without its padding.
        score_threshold: what the class probability (or its product with the centerness, see ``rules``) must exceed.
        agnostic: classes suppress each other.
    """
    points, levels = dense_points(maps.sizes, strides, maps.classes[0].device)
    distances = flatten_maps(maps.distances).float()
    ranks: list[Tensor] = []
    places: list[Tensor] = []
    scores: list[Tensor] = []
    classes, before = maps.classes[0].shape[1], 0
    for class_logits, center_logits in zip(maps.classes, maps.centerness, strict=True):
        prob = class_logits.float().flatten(2).transpose(1, 2).sigmoid()
        center = center_logits.float().flatten(2).transpose(1, 2).sigmoid()
        product = prob * center
        passes = (product if rules.threshold_product else prob) > score_threshold
        rank = torch.where(passes, product if rules.rank_product else prob, torch.full_like(prob, -1.0)).flatten(1)
        best, place = rank.topk(torch.sym_min(pre_nms, rank.shape[1]), dim=1)
        ranks.append(best)
        scores.append(product.flatten(1).gather(1, place))
        places.append(place + before * classes)
        before += prob.shape[1]
    rank, place, score = torch.cat(ranks, 1), torch.cat(places, 1), torch.cat(scores, 1)
    stride = torch.tensor([float(s) for s in strides], device=points.device)[levels]
    out: list[DenseDetections] = []
    for image, size in enumerate(sizes):
        keep = torch.nonzero(rank[image] >= 0).flatten()
        cell, label = place[image, keep] // classes, place[image, keep] % classes
        sides = distances[image, cell] * stride[cell, None]
        box = torch.cat((points[cell] - sides[:, :2], points[cell] + sides[:, 2:]), -1)
        value = score[image, keep]
        if rules.clip_first:
            box = box_ops.clip(box, size)
            real = torch.nonzero(box_ops.nonempty(box)).flatten()
            box, value, label, cell = box[real], value[real], label[real], cell[real]
        value = value.sqrt() if rules.root else value
        kept = batched_nms(box, value, torch.zeros_like(label) if agnostic else label, nms_threshold)
        kept = kept[box_ops.nonempty(box_ops.clip(box[kept], size))][:limit]  # what lies outside takes no place
        out.append(DenseDetections(box[kept], value[kept], label[kept], cell[kept]))
    return out
