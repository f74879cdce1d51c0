"""Fast NMS (Bolya et al. 2019, section 3.3): what a better box overlaps goes, even if that one goes too."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.jit._trace import is_tracing

from maskwright.ops.boxes import area, exact

_PAIRS = 1 << 22
"""How many pairs of boxes are compared at once."""


def fast_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    threshold: float = 0.5,
    score_threshold: float = 0.05,
    top_k: int = 200,
    limit: int = 100,
    second_threshold: bool = True,
    agnostic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress boxes of each class at once, without walking through them by score.

    All ``top_k`` boxes of a class are compared with each other; one goes if a better one overlaps it by more than
    ``threshold``. Unlike in greedy NMS the better one may be gone itself, so somewhat more goes.

    Args:
        boxes: [N, 4]. scores: [N, C], each box's probability of each class.
        score_threshold: boxes go whose best class does not exceed it.
        top_k: how many boxes of each class are compared. limit: how many are returned at most.
        second_threshold: a box counts only for the classes whose score exceeds ``score_threshold``. The original code
            leaves that out ("+0.2 mAP"): boxes then return for their lesser classes too.
        agnostic: each box stands for its best class only, and classes suppress each other (``cross_class_nms``).

    Returns:
        Rows int64 [K] of ``boxes``, labels int64 [K] and scores float [K], by falling score.
    """
    boxes, scores = exact(boxes), exact(scores)
    if torch.compiler.is_compiling() or is_tracing():
        return _fast_nms(boxes, scores, threshold, score_threshold, top_k, limit, second_threshold, agnostic, True)
    alive = torch.nonzero(scores.amax(1) > score_threshold).flatten()
    rows, labels, values = _fast_nms(
        boxes[alive], scores[alive], threshold, score_threshold, top_k, limit, second_threshold, agnostic, False
    )
    return alive[rows], labels, values


def _fast_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    score_threshold: float,
    top_k: int,
    limit: int,
    second_threshold: bool,
    agnostic: bool,
    traced: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    best, label = scores.max(1)
    table = best[None] if agnostic else scores.T
    counted = (table > score_threshold) if second_threshold else (best > score_threshold).expand_as(table)
    # -1 marks what does not take part: filtering would make shapes that a traced graph does not know
    table = torch.where(counted, table, -torch.ones_like(table))
    classes = torch.arange(scores.shape[1], device=scores.device)
    count = torch.sym_min(top_k, table.shape[1])
    if not traced:
        members = counted.sum(1)
        used = torch.nonzero(members).flatten()
        table, classes = table[used], classes[used]
        count = min(count, int(members.max())) if len(used) else 0
    values, rows = table.topk(count, dim=1)
    keep = (values >= 0) & (_worst_overlap(boxes, rows) <= threshold)
    kinds = label[rows] if agnostic else classes[:, None].expand_as(rows)
    values, rows, kinds = values[keep], rows[keep], kinds[keep]
    order = values.argsort(descending=True, stable=True)[:limit]
    return rows[order], kinds[order], values[order]


def _worst_overlap(boxes: Tensor, rows: Tensor) -> Tensor:
    """The largest IoU [C, k] of each of ``rows`` [C, k], best first, with a better one of its class."""
    if torch.compiler.is_compiling() or is_tracing():
        return _overlaps(boxes[rows])
    step = max(1, _PAIRS // max(1, rows.shape[1] ** 2))
    parts = [_overlaps(boxes[part]) for part in rows.split(step)]
    return torch.cat(parts) if parts else boxes.new_zeros(rows.shape)


def _overlaps(boxes: Tensor) -> Tensor:
    """[C, k, 4] -> [C, k]."""
    if boxes.shape[1] == 0:
        return boxes.new_zeros(boxes.shape[:2])
    a, b = boxes[:, :, None], boxes[:, None]
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    overlap = width * height
    union = area(boxes)[:, :, None] + area(boxes)[:, None] - overlap
    return (overlap / union.clamp(min=torch.finfo(union.dtype).tiny)).triu(1).amax(1)
