"""Values of maps at points, and which points are worth asking (PointRend, sections 3.1 and 3.2).

Points are (x, y) as shares of the map's width and height: a map spans [0, 1], its cell j has its center at
(j + 0.5) / W. So one point names the same place on maps of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def point_sample(features: Tensor, points: Tensor, *, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
    """Interpolate maps at points.

    Args:
        features: floating [N, C, H, W].
        points: float [N, P, 2] or on a grid [N, h, w, 2], (x, y) in [0, 1]; the map fades to 0 within half a cell
            beyond its outermost centers.
        mode: ``"nearest"`` takes the cell that the point is in.

    Returns:
        [N, C, P] or [N, C, h, w] in the features' dtype; places are computed in the dtype of ``points``.
    """
    grid = points if points.ndim == 4 else points[:, :, None]
    # [-1, 1], edges outermost; places keep their precision where features are half
    exact = features.to(grid.dtype) if features.dtype != grid.dtype else features
    out = functional.grid_sample(exact, grid * 2 - 1, mode=mode, padding_mode="zeros", align_corners=False)
    return (out if points.ndim == 4 else out[..., 0]).to(features.dtype)


def uncertainty(logits: Tensor) -> Tensor:
    """How near to even a binary decision is: minus the logit's distance from 0 (section 4.1; largest is 0)."""
    return -logits.abs()


@torch.no_grad()
def sample_uncertain(
    logits: Tensor,
    count: int,
    *,
    oversample: float = 3.0,
    importance: float = 0.75,
    doubt: Callable[[Tensor], Tensor] = uncertainty,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Points to learn from: mostly where the prediction is unsure, the rest anywhere (section 3.1, training).

    Args:
        logits: [N, 1, H, W], each one's prediction; or [N, C, H, W] with a ``doubt`` that takes C.
        count: P.
        oversample: k: uniform candidates are ``int(k * P)``. importance: beta: of these the most uncertain
            ``int(beta * P)`` are taken; the others are drawn anew, uniformly.
        doubt: from values [N, C, K] at the candidates to [N, 1, K], larger for what is less sure.
        generator: source of randomness; torch's own when absent.

    Returns:
        float32 [N, P, 2], (x, y) in [0, 1], the uncertain ones first by falling doubt.
    """
    if oversample < 1 or not 0 <= importance <= 1:
        raise ValueError(f"oversample must be at least 1 and importance in [0, 1], got {oversample} and {importance}")
    number, device = logits.shape[0], logits.device
    candidates = torch.rand(number, int(count * oversample), 2, device=device, generator=generator)
    doubts = doubt(point_sample(logits.float(), candidates))
    chosen = int(importance * count)
    index = doubts[:, 0].topk(chosen, dim=1).indices
    points = candidates.gather(1, index[..., None].expand(-1, -1, 2))
    if chosen == count:
        return points
    rest = torch.rand(number, count - chosen, 2, device=device, generator=generator)
    return torch.cat((points, rest), 1)


def most_uncertain(doubts: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The least sure cells of maps (section 3.1, inference).

    Args:
        doubts: [N, 1, H, W], larger for what is less sure.
        count: P, at most all cells are taken.

    Returns:
        The cells' places in row-major order, int64 [N, P], and their centers, float32 [N, P, 2], (x, y) in [0, 1].
    """
    height, width = doubts.shape[-2:]
    index = doubts.flatten(1).topk(min(count, height * width), dim=1).indices
    x, y = index % width, torch.div(index, width, rounding_mode="floor")
    return index, torch.stack(((x + 0.5) / width, (y + 0.5) / height), -1)


def grid_points(number: int, side: int, device: torch.device | None = None) -> Tensor:
    """Centers of a regular grid, float32 [number, side * side, 2], (x, y) in [0, 1], row by row."""
    line = (torch.arange(side, device=device) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), -1).reshape(1, side * side, 2).expand(number, -1, -1)


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Shares of boxes [R, 4] at which points [R, P, 2] lie, as places in the picture, in pixels [R, P, 2]."""
    low, side = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    return low + points * side


def point_sample_runs(counts: Tensor, offsets: Tensor, size: tuple[int, ...], points: Tensor) -> Tensor:
    """``point_sample`` of run-length masks: bilinear between pixel centers, without building a mask.

    Args:
        counts, offsets: N masks as ``ops.rle`` has them, on the host. size: (H, W).
        points: float [N, P, 2], (x, y) in [0, 1], on any device; not a number gives 0.

    Returns:
        float32 [N, P] in [0, 1] on the points' device.
    """
    height, width = size
    pixels = height * width
    ends = counts.to(torch.int64).cumsum(0)  # every mask's runs fill the picture, so these count on from mask to mask
    places = points.detach().cpu().float().nan_to_num(-1.0).clamp(-1.0, 2.0)
    x, y = places[..., 0] * width - 0.5, places[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    first = torch.arange(points.shape[0])[:, None]
    out = torch.zeros(x.shape)
    for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            c, r = column.clamp(0, width - 1).to(torch.int64), row.clamp(0, height - 1).to(torch.int64)
            run = torch.searchsorted(ends, first * pixels + c * height + r, right=True)
            # runs of a mask alternate, beginning with the background
            set_ = (run - offsets.to(torch.int64)[:-1, None]) % 2 == 1
            out += torch.where(inside & set_, across * down, 0.0)
    return out.to(points.device)
