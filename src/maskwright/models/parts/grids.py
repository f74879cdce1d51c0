"""What SOLO and SOLOv2 share: which cells of which grids stand for which objects, and from ranked masks to scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from maskwright.models.parts.truth import boxes_of, covered_at, masks_of, split
from maskwright.nn.heads.grids import local_maxima
from maskwright.nn.losses import focal_sum
from maskwright.ops.aligned import draw_aligned
from maskwright.ops.nms import matrix_nms
from maskwright.structures import Geometry, Masks, Scene, Segments

_PIXELS = 1 << 25
IGNORED = -1

# ---- truth ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class GridTruth:
    """What one image teaches.

    Attributes:
        labels: int64 [S^2] of each level's cells: a class, ``background`` (their number) or ``IGNORED``.
        cells, objects: int64 [P] of each level: cells that learn a mask, and whose.
        masks: of all objects.
    """

    labels: list[Tensor]
    cells: list[Tensor]
    objects: list[Tensor]
    masks: Masks


@torch.no_grad()
def assign(
    scene: Scene,
    padded: tuple[int, int],
    grids: Sequence[int],
    ranges: Sequence[tuple[float, float]],
    shrink: float,
    background: int,
    device: torch.device,
) -> GridTruth:
    """An object belongs to the levels whose range holds the root of its box's area, and there to the cells within the
    middle ``shrink`` of its box around its center of mass, at most 3 x 3 (section 3.3, "Label Assignment").

    Args:
        padded: (H, W) that the grids cover. ranges: (lowest, highest) of each level, in pixels, both ends included.
    """
    objects, void = split(scene)
    masks, boxes = masks_of(objects), boxes_of(objects).cpu().double()
    sides = boxes[:, 2:] - boxes[:, :2]
    scale = sides.prod(1).clamp(min=0).sqrt()
    area, centers = masks.area() > 0, _centers(masks)
    labels, cells, numbers = list[Tensor](), list[Tensor](), list[Tensor]()
    for grid, (low, high) in zip(grids, ranges, strict=True):
        label = torch.full((grid, grid), background)
        if void is not None:
            place = (torch.arange(grid) + 0.5) / grid
            y, x = torch.meshgrid(place * padded[0], place * padded[1], indexing="ij")
            hidden = covered_at(void, torch.stack((x, y), -1).reshape(-1, 2))
            if hidden is not None:
                label[hidden.reshape(grid, grid)] = IGNORED
        here: list[Tensor] = []
        whose: list[Tensor] = []
        for number in torch.nonzero((scale >= low) & (scale <= high) & area).flatten().tolist():
            # vertical, horizontal: the cell of the center, and those of its surroundings
            spans = [
                _span(float(centers[number, axis]), float(sides[number, 1 - axis]) * shrink / 2, padded[axis], grid)
                for axis in (0, 1)
            ]
            rows, columns = (torch.arange(a, b + 1) for a, b in spans)
            label[rows[:, None], columns[None]] = int(objects.labels[number])
            index = (rows[:, None] * grid + columns[None]).flatten()
            here.append(index)
            whose.append(torch.full_like(index, number))
        labels.append(label.flatten().to(device))
        cells.append(torch.cat(here).to(device) if here else torch.zeros(0, dtype=torch.int64, device=device))
        numbers.append(torch.cat(whose) if whose else torch.zeros(0, dtype=torch.int64))
    return GridTruth(labels, cells, numbers, masks)


def _span(center: float, reach: float, side: int, grid: int) -> tuple[int, int]:
    """First and last cell along one axis."""
    middle, low, high = (int((center + step) / side * grid) for step in (0.0, -reach, reach))
    return max(low, middle - 1, 0), min(high, middle + 1, grid - 1)


def _centers(masks: Masks) -> Tensor:
    """Centers of mass [G, 2] (vertical, horizontal) in whole pixels' indices; 0 for empty masks."""
    out = torch.zeros(len(masks), 2, dtype=torch.float64)
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in masks.size)
    step = max(1, _PIXELS // prod(masks.size))
    for start in range(0, len(masks), step):
        dense = masks[start : start + step].dense()
        down, along = dense.sum(2).double(), dense.sum(1).double()
        total = down.sum(1).clamp(min=1)
        out[start : start + step] = torch.stack(((down * rows).sum(1), (along * columns).sum(1)), 1) / total[:, None]
    return out


def shrunk(masks: Masks, which: Tensor, stride: int, size: tuple[int, int], rounded: bool = False) -> Tensor:
    """Masks ``which`` [P] at an even ``stride`` as float [P, *size]: a cell is set if half of its middle 2 x 2 is.

    ``rounded`` brings the unpadded masks to whole cells first, by up to half a cell a side (AdelaiDet).
    """
    used, back = which.unique(return_inverse=True)
    out = torch.zeros(len(used), *size)
    middle = stride // 2
    step = max(1, _PIXELS // prod(masks.size))
    for start in range(0, len(used), step):
        dense = masks[used[start : start + step]].dense()
        if rounded:
            sides = tuple(int(side / stride + 0.5) for side in masks.size)
            small = functional.interpolate(dense[:, None].float(), sides, mode="bilinear", align_corners=False)[:, 0]
            out[start : start + step, : sides[0], : sides[1]] = (small >= 0.5).float()
            continue
        dense = functional.pad(
            dense, (0, max(0, size[1] * stride - dense.shape[2]), 0, max(0, size[0] * stride - dense.shape[1]))
        )
        corners = [dense[:, middle - i :: stride, middle - j :: stride] for i in (0, 1) for j in (0, 1)]
        total = sum(corner[:, : size[0], : size[1]].to(torch.uint8) for corner in corners)
        assert isinstance(total, Tensor)
        out[start : start + step] = (total >= 2).float()
    return out[back]


def class_sum(logits: Sequence[Tensor], truth: Sequence[GridTruth]) -> Tensor:
    """Sum of the focal loss over all cells that know what they are; logits [B, K, S, S] of each level."""
    flat = torch.cat([level.flatten(2).transpose(1, 2) for level in logits], 1)
    labels = torch.stack([torch.cat(each.labels) for each in truth])
    learn = labels != IGNORED
    wanted = functional.one_hot(labels[learn], flat.shape[-1] + 1)[:, :-1]
    return focal_sum(flat[learn].float(), wanted.float()) + flat.sum() * 0.0


def positives(truth: Sequence[GridTruth], background: int) -> tuple[int, int]:
    """Cells that have a class, and masks that are learned."""
    cells = sum(int(((labels >= 0) & (labels < background)).sum()) for each in truth for labels in each.labels)
    return cells, sum(len(level) for each in truth for level in each.cells)


# ---- decoding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GridRules:
    """How cells become objects (SOLO, section 3.3, "Inference"; SOLOv2, section 3.3).

    Attributes:
        candidates: the likeliest (cell, class) pairs whose masks are computed. pre_nms: the best of them that are
            compared with one another, by class score times the mean probability of their mask's pixels.
        mask_threshold: probability above which a pixel belongs to a mask. update_threshold: decayed scores below it go.
        kernel, sigma: of matrix NMS.
    """

    candidates: int = 2000
    pre_nms: int = 500
    mask_threshold: float = 0.5
    update_threshold: float = 0.05
    kernel: Literal["gaussian", "linear"] = "gaussian"
    sigma: float = 2.0

    @classmethod
    def of(cls, rules: GridRules | Mapping[str, Any] | None) -> GridRules:
        """Rules, or some of them by name as a checkpoint's options have them."""
        return rules if isinstance(rules, GridRules) else cls(**(rules or {}))


@dataclass(slots=True)
class GridDetections:
    """Mask probabilities [N, h, w], scores [N] and labels [N] of one image, by falling score."""

    probs: Tensor
    scores: Tensor
    labels: Tensor


def candidates(logits: Sequence[Tensor], threshold: float, limit: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Cells [N] (numbered through all levels), labels [N] and class probabilities [N] > ``threshold`` of each image."""
    prob = torch.cat([local_maxima(level.float().sigmoid()).flatten(2).transpose(1, 2) for level in logits], 1)
    classes = prob.shape[2]
    best, place = prob.flatten(1).topk(min(limit, prob.shape[1] * classes), dim=1)
    out: list[tuple[Tensor, Tensor, Tensor]] = []
    for scores, places in zip(best, place, strict=True):
        keep = torch.nonzero(scores > threshold).flatten()
        out.append((places[keep] // classes, places[keep] % classes, scores[keep]))
    return out


def ranked(
    probs: Tensor, scores: Tensor, labels: Tensor, strides: Tensor, rules: GridRules, limit: int
) -> GridDetections:
    """Masks of more cells than their level's stride, rescored by what they are made of and by matrix NMS.

    Args:
        probs: [N, h, w]. scores, labels: [N]. strides: [N] of the level that each was found on.
    """
    masks = probs > rules.mask_threshold
    area = masks.flatten(1).sum(1)
    keep = torch.nonzero(area > strides).flatten()
    probs, masks, area, scores, labels = probs[keep], masks[keep], area[keep], scores[keep], labels[keep]
    scores = scores * (probs * masks).flatten(1).sum(1) / area
    order = scores.argsort(descending=True, stable=True)[: rules.pre_nms]
    decayed = matrix_nms(masks[order], scores[order], labels[order], kernel=rules.kernel, sigma=rules.sigma)
    left = torch.nonzero(decayed >= rules.update_threshold).flatten()
    left = left[decayed[left].argsort(descending=True, stable=True)][:limit]
    return GridDetections(probs[order[left]], decayed[left], labels[order[left]])


def scene_of(found: GridDetections, stride: int, threshold: float, view: Geometry) -> Scene:
    """One picture's masks in file pixels, enlarged straight to run-lengths; boxes are those of the masks."""
    runs = draw_aligned(found.probs.float(), stride, view.valid, view.original, threshold, aligned=False)
    masks = Masks.from_arrays(*runs, view.original)
    keep = torch.nonzero(masks.area() > 0).flatten()
    masks = masks[keep]
    segments = Segments(
        size=view.original,
        labels=found.labels.cpu()[keep],
        masks=masks,
        boxes=masks.boxes(),
        scores=found.scores.float().cpu()[keep].clamp(0, 1),
    )
    return Scene(size=view.original, segments=segments)
