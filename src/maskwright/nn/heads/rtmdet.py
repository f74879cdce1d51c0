"""The heads of RTMDet-Ins (Lyu et al. 2022, arXiv:2212.07784, sections 3.2 and 3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn import functional

from maskwright.nn.backbones.csp_next import ConvSiLU
from maskwright.nn.heads.dense_box import DenseDetections, dense_points, flatten_maps
from maskwright.ops import boxes as box_ops
from maskwright.ops.nms import batched_nms


class LevelTower(nn.Module):
    """``depth`` 3x3 convolutions with batch norm and SiLU; every level has norms of its own.

    Args:
        shared: all levels use the same convolutions.
    """

    def __init__(self, channels: int, width: int, levels: int, depth: int, *, shared: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width if i else channels, width, 3, padding=1, bias=False) for i in range(depth))
            for _ in range(1 if shared else levels)
        )
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth)) for _ in range(levels))

    def layers(self, level: int) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """The convolutions and norms of a level."""
        convs = list(self.convs)[level if len(self.convs) > 1 else 0]
        norms = list(self.norms)[level]
        assert isinstance(convs, nn.ModuleList)
        assert isinstance(norms, nn.ModuleList)
        out: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
        for conv, norm in zip(convs, norms, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            out.append((conv, norm))
        return out

    def forward(self, feature: Tensor, level: int) -> Tensor:
        """[B, C, H, W] of ``level`` -> [B, width, H, W]."""
        for conv, norm in self.layers(level):
            feature = functional.silu(norm(conv(feature)), inplace=True)
        return feature

    def at(self, feature: Tensor, level: int, y: Tensor, x: Tensor) -> Tensor:
        """What ``forward`` would give in evaluation mode at some cells of one picture's map.

        Args:
            feature: [C, H, W]. y, x: int64 [N].

        Returns:
            [N, width]; norms use their running statistics and leave them alone.
        """
        layers = self.layers(level)
        height, width = feature.shape[-2:]
        reach = len(layers)
        around = torch.arange(-reach, reach + 1, device=feature.device)
        rows, columns = y[:, None] + around, x[:, None] + around
        wide = functional.pad(feature, (reach, reach, reach, reach))
        patch = wide[:, (rows + reach)[:, :, None], (columns + reach)[:, None, :]].transpose(0, 1)
        for k, (conv, norm) in enumerate(layers):
            patch = functional.conv2d(patch, conv.weight)
            patch = functional.batch_norm(
                patch, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
            patch = functional.silu(patch)
            if k + 1 < reach:  # beyond the map's border the next convolution sees zeros
                part = slice(k + 1, 2 * reach - k)
                inside_y = (rows[:, part] >= 0) & (rows[:, part] < height)
                inside_x = (columns[:, part] >= 0) & (columns[:, part] < width)
                patch = patch * (inside_y[:, None, :, None] & inside_x[:, None, None, :])
        return patch.flatten(1)


@dataclass(slots=True)
class RTMDetMaps:
    """Class logits [B, C, H_i, W_i] and distances [B, 4, H_i, W_i] to a box's sides in pixels, finest level first."""

    classes: list[Tensor]
    distances: list[Tensor]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each level."""
        return [(m.shape[-2], m.shape[-1]) for m in self.classes]


class RTMDetHead(nn.Module):
    """Classes, boxes, and the parameters of each cell's own mask network.

    Args:
        channels: of the pyramid's maps. classes: C. strides: of its levels. parameters: of a mask network.
        width, depth: of the towers. share_convs: those of classes and boxes are shared by all levels.
        box_tower: a tower for boxes, as the paper has it. Without, they are read from that for classes, as in
            mmdetection, whose published weights have no other.
        prior: what the class probabilities begin with.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        strides: Sequence[int],
        parameters: int,
        *,
        width: int | None = None,
        depth: int = 2,
        share_convs: bool = True,
        box_tower: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        width = channels if width is None else width
        levels = len(strides)
        self.class_tower = LevelTower(channels, width, levels, depth, shared=share_convs)
        self.box_tower = LevelTower(channels, width, levels, depth, shared=share_convs) if box_tower else None
        self.kernel_tower = LevelTower(channels, width, levels, depth, shared=False)
        self.class_logits = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in strides)
        self.distances = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in strides)
        self.parameters_of = nn.ModuleList(nn.Conv2d(width, parameters, 1) for _ in strides)
        self.strides = tuple(strides)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for logits, distances in zip(self.class_logits, self.distances, strict=True):
            nn.init.constant_(logits.bias, -log((1 - prior) / prior))  # pyright: ignore[reportArgumentType]
            nn.init.ones_(distances.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Sequence[Tensor]) -> RTMDetMaps:
        """[B, C, H_i, W_i], finest first -> maps of every level; distances are not negative."""
        maps = RTMDetMaps([], [])
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            hidden = self.class_tower(feature, level)
            maps.classes.append(self.class_logits[level](hidden))
            hidden = hidden if self.box_tower is None else self.box_tower(feature, level)
            maps.distances.append(self.distances[level](hidden).float().relu() * stride)
        return maps

    def kernels(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Parameters [B, K, H_i, W_i] of every cell's mask network."""
        return [self.parameters_of[i](self.kernel_tower(feature, i)) for i, feature in enumerate(features)]

    def kernels_at(self, features: Sequence[Tensor], cells: Sequence[Tensor]) -> list[Tensor]:
        """Parameters [N_b, K] at ``cells`` [N_b] of each picture, counted over all levels, as in evaluation mode.

        Few cells are computed from what they see alone: the tower is an eighth of the whole network.
        """
        sizes = [(f.shape[-2], f.shape[-1]) for f in features]
        if torch.compiler.is_compiling() or is_tracing():
            kernels = flatten_maps(self.kernels(features))
            return [kernels[image, cell] for image, cell in enumerate(cells)]
        parameters = self.parameters_of[0].out_channels
        assert isinstance(parameters, int)
        out: list[Tensor] = []
        for image, cell in enumerate(cells):
            found = features[0].new_zeros(len(cell), parameters)
            start = 0
            for level, (height, width) in enumerate(sizes):
                rows = torch.nonzero((cell >= start) & (cell < start + height * width)).flatten()
                if len(rows):
                    place = cell[rows] - start
                    hidden = self.kernel_tower.at(features[level][image], level, place // width, place % width)
                    found[rows] = self.parameters_of[level](hidden[:, :, None, None]).flatten(1).to(found)
                start += height * width
            out.append(found)
        return out


class MaskFeatures(nn.Module):
    """The features that all mask networks read: all levels on the finest one, mixed, then a tower (figure 2).

    Args:
        channels: of the pyramid's maps. levels: how many there are.
        width, depth: of the tower. out_channels: of its output.
    """

    def __init__(
        self, channels: int, levels: int = 3, *, width: int | None = None, depth: int = 4, out_channels: int = 8
    ) -> None:
        super().__init__()
        width = channels if width is None else width
        self.fuse = nn.Conv2d(levels * channels, channels, 1)
        self.tower = nn.Sequential(*(ConvSiLU(width if i else channels, width) for i in range(depth)))
        self.output = nn.Conv2d(width, out_channels, 1)
        self.channels = channels

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """[B, C, H_i, W_i], finest first -> [B, out_channels, H_0, W_0]."""
        # The 1x1 convolution of the concatenated maps is a sum over levels, each mixed before it is enlarged.
        weights = self.fuse.weight.split(self.channels, 1)
        total = functional.conv2d(features[0], weights[0], self.fuse.bias)
        for feature, weight in zip(features[1:], weights[1:], strict=True):
            part = functional.conv2d(feature, weight)
            total = total + functional.interpolate(part, total.shape[-2:], mode="bilinear", align_corners=False)
        return self.output(self.tower(total))


# ---- decoding -------------------------------------------------------------------------------------------------------


def corner_points(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Upper left corners [L, 2] (x, y) of all cells, in pixels, their strides [L] and levels int64 [L]."""
    points, levels = dense_points(sizes, strides, device)
    steps = torch.tensor([float(s) for s in strides], device=device)
    first = torch.tensor([float(s // 2) for s in strides], device=device)
    return points - first[levels, None], steps[levels], levels


def boxes_at(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes [..., 4] from points [..., 2] and the distances [..., 4] to their sides."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


@torch.no_grad()
def detect_rtmdet(
    maps: RTMDetMaps,
    strides: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    *,
    score_threshold: float,
    nms_threshold: float,
    pre_nms: int,
    limit: int,
) -> list[DenseDetections]:
    """Threshold, keep the best ``pre_nms`` of each level, NMS in each class, the best ``limit`` of each picture.

    Args:
        sizes: (H, W) of each picture without its padding.
    """
    points, _, _ = corner_points(maps.sizes, strides, maps.classes[0].device)
    distances = flatten_maps(maps.distances)
    least = _logit(score_threshold)
    out: list[DenseDetections] = []
    for image, size in enumerate(sizes):
        parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        before = 0
        for logits in maps.classes:
            count = logits.shape[-2] * logits.shape[-1]
            value, place = _best(logits[image].flatten(), least, pre_nms)
            for part, found in zip(parts, (value, place // count, place % count + before), strict=True):
                part.append(found)
            before += count
        value, label, cell = (torch.cat(part) for part in parts)
        box = box_ops.clip(boxes_at(points[cell], distances[image, cell]), size)
        real = torch.nonzero(box_ops.nonempty(box)).flatten()
        box, score, label, cell = box[real], value[real].sigmoid(), label[real], cell[real]
        kept = batched_nms(box, score, label, nms_threshold)[:limit]
        out.append(DenseDetections(box[kept], score[kept], label[kept], cell[kept]))
    return out


def _best(logits: Tensor, least: float, limit: int) -> tuple[Tensor, Tensor]:
    """Values and places of the at most ``limit`` greatest logits [M] above ``least``."""
    if torch.compiler.is_compiling() or is_tracing():
        value, place = torch.where(logits > least, logits.float(), -inf).topk(torch.sym_min(limit, logits.shape[0]))
        keep = torch.nonzero(value > -inf).flatten()
        return value[keep], place[keep]
    place = torch.nonzero(logits > least).flatten()
    value = logits[place].float()
    if len(place) > limit:
        value, best = value.topk(limit)
        place = place[best]
    return value, place


def _logit(probability: float) -> float:
    if probability <= 0 or probability >= 1:
        return -inf if probability <= 0 else inf
    return log(probability / (1 - probability))


# ---- learning -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SoftTargets:
    """What the L cells of one picture learn.

    ``labels`` [L], C for background, -1 for nothing; ``matched`` [L] objects; ``quality`` [L], the overlap of a cell's
    box with its object when it was chosen, 0 elsewhere; the objects' ``boxes`` [G, 4].
    """

    labels: Tensor
    matched: Tensor
    quality: Tensor
    boxes: Tensor

    def positive(self, background: int) -> Tensor:
        """Indices of the cells that stand for an object."""
        return torch.nonzero((self.labels >= 0) & (self.labels < background)).flatten()


def quality_focal_sum(logits: Tensor, labels: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """Sum of the quality focal loss (Li et al. 2020, Generalized Focal Loss, equation 2).

    Args:
        logits: [N, C]. labels: int64 [N], C for none. quality: [N] in [0, 1], what the label's probability shall be.
    """
    target = functional.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype) * quality[:, None]
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * (logits.sigmoid() - target).abs().pow(beta)).sum()


def soft_sums(maps: RTMDetMaps, strides: Sequence[int], targets: Sequence[SoftTargets]) -> dict[str, Tensor]:
    """Sums of the quality focal loss, ``class``, and of the GIoU loss weighted by quality, ``box``."""
    classes, distances = flatten_maps(maps.classes), flatten_maps(maps.distances)
    points, _, _ = corner_points(maps.sizes, strides, classes.device)
    labels, quality = torch.stack([t.labels for t in targets]), torch.stack([t.quality for t in targets])
    learn = labels >= 0
    image, cell = torch.nonzero(learn & (labels < classes.shape[-1]), as_tuple=True)
    found = boxes_at(points[cell], distances[image, cell])
    goal = torch.cat([t.boxes[t.matched[t.positive(classes.shape[-1])]] for t in targets])
    box = ((1 - box_ops.giou_matched(found, goal)) * quality[image, cell]).sum()
    return {
        "class": quality_focal_sum(classes[learn].float(), labels[learn], quality[learn]) + classes.sum() * 0.0,
        "box": box + distances.sum() * 0.0,
    }
