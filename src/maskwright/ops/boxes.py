"""Boxes (x1, y1, x2, y2): continuous coordinates in pixels, far edges exclusive, pixel centers at +0.5.

Everything is computed in float32 (or float64 where that came in), also under autocast: bfloat16 has eight bits, which
places a box at 1,000 pixels on a grid of 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

DELTA_CLAMP = log(1000.0 / 16)
"""Largest log-scale that ``decode`` believes: a box grows at most 62.5-fold, so that ``exp`` cannot overflow."""


def exact(values: Tensor) -> Tensor:
    """``values`` in at least float32: half precision and integers become float32."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def area(boxes: Tensor) -> Tensor:
    """Areas [...] of boxes [..., 4], in square pixels; negative sides are not clamped."""
    x1, y1, x2, y2 = exact(boxes).unbind(-1)
    return (x2 - x1) * (y2 - y1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union float [N, M] in [0, 1] of boxes [N, 4] and [M, 4]; 0 where they do not overlap."""
    overlap, union = _overlap(exact(a)[:, None], exact(b)[None])
    return overlap / union.clamp(min=torch.finfo(union.dtype).tiny)


def iou_matched(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union float [N] of boxes [N, 4] row by row."""
    overlap, union = _overlap(exact(a), exact(b))
    return overlap / union.clamp(min=torch.finfo(union.dtype).tiny)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU float [N, M] in (-1, 1] of boxes [N, 4] and [M, 4] (Rezatofighi et al. 2019, algorithm 1)."""
    return _giou(exact(a)[:, None], exact(b)[None])


def giou_matched(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU float [N] in (-1, 1] of boxes [N, 4] row by row; ``1 - giou_matched`` is the loss."""
    return _giou(exact(a), exact(b))


def clip(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes [..., 4] moved into a picture of ``size`` (H, W); their dtype is kept."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), -1)


def nonempty(boxes: Tensor, min_size: float = 0.0) -> Tensor:
    """bool [...]: whether both sides of boxes [..., 4] are longer than ``min_size`` pixels (false for NaN)."""
    return (boxes[..., 2] - boxes[..., 0] > min_size) & (boxes[..., 3] - boxes[..., 1] > min_size)


def from_xywh(boxes: Tensor) -> Tensor:
    """(x, y, width, height) [..., 4], as COCO files have them, to (x1, y1, x2, y2)."""
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), -1)


def to_xywh(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) [..., 4] to (x, y, width, height), as COCO files have them."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] - boxes[..., :2]), -1)


def encode(target: Tensor, reference: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The deltas [N, 4] that move ``reference`` boxes [N, 4] onto ``target`` boxes [N, 4] (R-CNN, appendix C).

    Center offsets are in units of the reference's sides, sizes are log-ratios; each is multiplied by its weight.
    Both boxes must have positive sides.
    """
    cx, cy, width, height = _center(exact(reference))
    to_cx, to_cy, to_width, to_height = _center(exact(target))
    wx, wy, ww, wh = weights
    return torch.stack(
        (
            wx * (to_cx - cx) / width,
            wy * (to_cy - cy) / height,
            ww * torch.log(to_width / width),
            wh * torch.log(to_height / height),
        ),
        -1,
    )


def decode(
    deltas: Tensor, reference: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0), clamp: float = DELTA_CLAMP
) -> Tensor:
    """Move ``reference`` boxes [N, 4] by ``deltas`` [N, 4K]: the inverse of ``encode``, K boxes of each reference.

    Log-ratios above ``clamp`` count as ``clamp``. Returns float32 [N, 4K].
    """
    cx, cy, width, height = (value[:, None] for value in _center(exact(reference)))
    # a view with an explicit count, since -1 is ambiguous for N = 0
    moves = exact(deltas).reshape(deltas.shape[0], deltas.shape[1] // 4, 4)
    dx, dy, dw, dh = (move / weight for move, weight in zip(moves.unbind(-1), weights, strict=True))
    to_cx, to_cy = dx * width + cx, dy * height + cy
    half_width = 0.5 * (torch.exp(dw.clamp(max=clamp)) * width)
    half_height = 0.5 * (torch.exp(dh.clamp(max=clamp)) * height)
    corners = (to_cx - half_width, to_cy - half_height, to_cx + half_width, to_cy + half_height)
    return torch.stack(corners, -1).reshape(deltas.shape)


def _center(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    # one axis at a time: the pairwise form then never holds [N, M, 2]
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    overlap = width * height
    return overlap, area(a) + area(b) - overlap


def _giou(a: Tensor, b: Tensor) -> Tensor:
    overlap, union = _overlap(a, b)
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    tiny = torch.finfo(union.dtype).tiny
    hull = width * height
    return overlap / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)
