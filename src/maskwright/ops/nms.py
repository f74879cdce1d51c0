"""Non-maximum suppression: of boxes (at once, per group, soft) and of masks as run-lengths."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.jit._trace import is_tracing

from maskwright.ops import rle
from maskwright.ops.boxes import exact, iou
from maskwright.ops.mask_nms import matrix_nms

__all__ = ["batched_nms", "grouped_nms", "mask_nms", "matrix_nms", "nms", "soft_nms"]

_LOOP_GROUPS = 16


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy suppression of boxes [N, 4] with scores [N]: a box goes when a better kept one overlaps it too much.

    Args:
        threshold: the overlap (IoU) above which the worse box goes.

    Returns:
        Indices int64 [K] of the kept boxes by falling score; of equal scores the first comes first.
    """
    return torchvision.ops.nms(exact(boxes), exact(scores), threshold)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """``nms`` within each group (class or pyramid level), boxes of different groups leaving each other alone.

    The groups are walked one by one, which is exact and on the CPU also the fastest, since the work grows with the
    square of a group. On a GPU each walk waits for the device, so that many groups are moved apart instead, each to its
    own part of the plane, and suppressed at once; so they are in a traced or exported graph, which cannot loop over
    data. Coordinates are moved in float64: in float32, moving 80 classes apart would round boxes to 0.01 pixel and
    change which overlaps exceed the threshold.

    Args:
        boxes: [N, 4]. scores: [N]. groups: integer [N].
        threshold: the overlap (IoU) above which the worse box goes.

    Returns:
        Indices int64 [K] of the kept boxes by falling score; of equal scores the first comes first.
    """
    boxes, scores = exact(boxes), exact(scores)
    if torch.compiler.is_exporting():
        return grouped_nms(boxes, scores, groups, threshold)
    if torch.compiler.is_compiling() or is_tracing():
        return _apart(boxes, scores, groups, threshold)
    if len(boxes) == 0:
        return groups.new_zeros(0, dtype=torch.int64)
    order = scores.argsort(descending=True, stable=True)
    by_group, members = groups[order].sort(stable=True)
    sizes = by_group.unique_consecutive(return_counts=True)[1].tolist()
    if len(sizes) == 1:
        return nms(boxes, scores, threshold)
    if boxes.device.type != "cpu" and len(sizes) > _LOOP_GROUPS:
        return _apart(boxes, scores, groups, threshold)
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    index = order[members]
    sorted_boxes, sorted_scores = boxes[index], scores[index]
    start = 0
    for size in sizes:
        here = slice(start, start + size)
        rank = members[here]
        kept[rank if size == 1 else rank[nms(sorted_boxes[here], sorted_scores[here], threshold)]] = True
        start += size
    return order[kept]


@torch.library.custom_op("maskwright::grouped_nms", mutates_args=())
def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """``batched_nms`` as one operator of exported graphs, so that runtimes with an NMS of their own can use it."""
    return batched_nms(boxes, scores, groups, threshold)


@grouped_nms.register_fake
def _grouped_shape(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    # tracers ask for each 0 and 1 whether to broadcast; at least 2, as torchvision's NMS has it, spares the questions
    return groups.new_empty(torch.library.get_ctx().new_dynamic_size(min=2), dtype=torch.int64)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    groups: Tensor | None = None,
    threshold: float = 0.3,
    sigma: float = 0.5,
    method: Literal["linear", "gaussian"] = "linear",
    min_score: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al. 2017, section 3): overlapped boxes lose score instead of going.

    The best box left is taken, then the others' scores are multiplied by ``1 - iou`` where the overlap exceeds
    ``threshold`` (linear), or by ``exp(-iou ** 2 / sigma)`` (gaussian), until no score reaches ``min_score``.

    Args:
        boxes: [N, 4]. scores: [N] in [0, 1].
        groups: integer [N]; boxes of different groups leave each other alone.

    Returns:
        Indices int64 [K] in the order taken, which is by falling new score, and their new scores float32 [K].
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"method must be 'linear' or 'gaussian', got {method!r}")
    overlap = iou(boxes, boxes)
    if groups is not None:
        overlap = torch.where(groups[:, None] == groups[None], overlap, torch.zeros_like(overlap))
    decay = torch.where(overlap > threshold, 1 - overlap, torch.ones_like(overlap))
    if method == "gaussian":
        decay = torch.exp(-overlap.square() / sigma)
    # one box after the other, each step a row of numbers: the host is faster at that than any device
    factors = decay.cpu().numpy()
    left = exact(scores).detach().cpu().numpy().astype(np.float32, copy=True)
    taken: list[int] = []
    rescored: list[float] = []
    for _ in range(len(left)):
        best = int(left.argmax())
        if not left[best] >= min_score:
            break
        taken.append(best)
        rescored.append(float(left[best]))
        left *= factors[best]
        left[best] = -1.0
        left[taken] = -1.0
    indices = torch.tensor(taken, dtype=torch.int64, device=scores.device)
    return indices, torch.tensor(rescored, dtype=torch.float32, device=scores.device)


def mask_nms(runs: tuple[np.ndarray, np.ndarray], scores: Tensor, groups: Tensor | None, threshold: float) -> Tensor:
    """Greedy suppression by the overlap of masks, within each group.

    Args:
        runs: counts int32 [R] and offsets int64 [N + 1], as ``ops.rle`` has them.
        scores: float [N]. groups: integer [N], or ``None`` for one group.
        threshold: the overlap (IoU of pixels) above which the worse mask goes.

    Returns:
        Indices int64 [K] of the kept masks by falling score; of equal scores the first comes first.
    """
    counts, offsets = runs
    order = scores.detach().cpu().argsort(descending=True, stable=True).numpy()
    labels = np.zeros(len(order), np.int64) if groups is None else groups.cpu().numpy()
    kept = np.ones(len(order), bool)
    for label in np.unique(labels):
        ranks = np.flatnonzero(labels[order] == label)
        some = rle.take(counts, offsets, order[ranks])
        too_close = np.triu(rle.iou(*some, *some, None) > threshold, 1)
        for i, rank in enumerate(ranks):
            if kept[rank]:
                kept[ranks[too_close[i]]] = False
    return torch.from_numpy(order[kept]).to(scores.device)


def _apart(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Suppress all groups at once, each moved to its own part of the plane."""
    wide = boxes.double()
    # a zero is appended because there may be no boxes, and neither max nor a branch on their number can be traced then
    everywhere = torch.cat((wide.flatten(), wide.new_zeros(1)))
    extent = everywhere.max() - everywhere.min() + 1
    return torchvision.ops.nms(wide + (groups.to(wide.dtype) * extent)[:, None], scores.double(), threshold)
