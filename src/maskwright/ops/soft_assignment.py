"""Which cells stand for which object, by what the network says itself (Lyu et al. 2022, RTMDet, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from maskwright.ops.boxes import exact, iou


@torch.no_grad()
def assign_soft(
    points: Tensor,
    strides: Tensor,
    predicted: Tensor,
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    *,
    top_k: int = 13,
    radius: float = 3.0,
    iou_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """Dynamic soft label assignment: each object takes the cells that cost least, as many as its best overlaps add up
    to (SimOTA's rule; Ge et al. 2021, YOLOX, section 2.1).

    A pair's cost (equations 1 to 4) is the cross-entropy of the cell's class logits with the overlap as a soft label,
    times the squared distance between the two; plus ``-iou_weight * log(IoU)``; plus ``10 ** (d - radius)``, d being
    the distance from the object's center in strides. Only cells in at least one object's box take part.

    Args:
        points: [L, 2] (x, y) in pixels. strides: [L]. predicted: [L, 4] boxes. logits: [L, C].
        boxes: [G, 4]. labels: int64 [G].
        top_k: an object takes at most so many cells.

    Returns:
        The object int64 [L] of each cell, -1 for none, and its overlap float [L] with the cell's box, 0 for none.
    """
    objects = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    overlaps = torch.zeros(len(points), device=points.device)
    used = torch.nonzero(_inside_any(points, boxes)).flatten()
    if not len(used):
        return objects, overlaps
    overlap = iou(predicted[used], boxes)
    cost = _class_cost(exact(logits[used]), overlap, labels) - iou_weight * torch.log(overlap + 1e-7)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    cost = cost + torch.pow(10.0, torch.cdist(points[used], center) / strides[used, None] - radius)
    limit = min(top_k, len(used))
    wanted = overlap.topk(limit, dim=0).values.sum(0).int().clamp(min=1)
    cheapest = cost.topk(limit, dim=0, largest=False).indices
    taken = torch.arange(limit, device=points.device)[:, None] < wanted
    pairs = torch.zeros_like(cost, dtype=torch.bool).scatter_(0, cheapest, taken)
    count = pairs.sum(1)
    # a cell that several objects take goes to the cheapest of all objects
    best = torch.where(count > 1, cost.argmin(1), pairs.to(torch.uint8).argmax(1))
    found = count > 0
    objects[used[found]] = best[found]
    overlaps[used[found]] = overlap[found].gather(1, best[found, None])[:, 0].to(overlaps.dtype)
    return objects, overlaps


def _inside_any(points: Tensor, boxes: Tensor) -> Tensor:
    """bool [L]: points strictly inside of a box."""
    x, y = points[:, 0:1], points[:, 1:2]
    return ((x > boxes[:, 0]) & (x < boxes[:, 2]) & (y > boxes[:, 1]) & (y < boxes[:, 3])).any(1)


def _class_cost(logits: Tensor, overlap: Tensor, labels: Tensor) -> Tensor:
    """[V, G]: that of logits [V, C] as if each were 0, but for the object's class, which shall be the overlap.

    Classes that no object has cost the same for all objects, so that no [V, G, C] is needed.
    """
    nothing = functional.softplus(logits) * logits.sigmoid().square()
    own = logits[:, labels]
    right = functional.binary_cross_entropy_with_logits(own, overlap, reduction="none")
    right = right * (overlap - own.sigmoid()).square()
    return right + nothing.sum(1, keepdim=True) - nothing[:, labels]
