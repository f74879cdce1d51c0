"""RoIAlign (Mask R-CNN, section 3) on one map and on a pyramid (Feature Pyramid Networks, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Literal

import torch
import torchvision
from torch import Tensor
from torch.jit._trace import is_tracing

from maskwright.ops import roi_rows
from maskwright.ops.boxes import area, exact

Reduce = Literal["mean", "max"]


def roi_align(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    size: int | tuple[int, int],
    scale: float,
    sampling_ratio: int = 0,
    aligned: bool = True,
    reduce: Reduce = "mean",
) -> Tensor:
    """Cut boxes out of feature maps: bilinear samples on a regular grid in each of h x w bins, then reduced.

    Args:
        features: floating [B, C, H, W]; computed in float32, returned in their own dtype.
        rois: float [K, 5] as (image, x1, y1, x2, y2), or one tensor [k, 4] an image.
        size: (h, w) of the result, or one number for both.
        scale: features per pixel, one over the map's stride.
        sampling_ratio: samples a side of each bin; 0 takes as many as the bin is long on the map, rounded up.
        aligned: pixel centers at +0.5, as everywhere here; ``False`` is the older way, half a cell off, with boxes at
            least one cell long.
        reduce: mean or maximum of the samples of a bin (section 3 allows both).

    Returns:
        [K, C, h, w] in the order of ``rois``; samples more than one cell outside the map are 0.
    """
    out_size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    table = rois if isinstance(rois, Tensor) else _table(rois)
    maps = exact(features)
    table = table.to(maps.dtype)
    if reduce == "max":
        out = _max_align(maps, table, out_size, scale, sampling_ratio, aligned)
    elif _by_rows(maps):
        levels = torch.zeros(table.shape[0], dtype=torch.int64)
        out = roi_rows.align([maps], table, levels, (scale,), out_size, sampling_ratio, aligned)
    else:
        out = torchvision.ops.roi_align(maps, table, out_size, scale, sampling_ratio, aligned)
    return out.to(features.dtype)


def assign_levels(
    boxes: Tensor,
    k_min: int,
    k_max: int,
    canonical: float = 224.0,
    canonical_level: int = 4,
    *,
    epsilon: float | None = None,
    epsilon_inside: bool = True,
) -> Tensor:
    """The pyramid level, int64 [N] in k_min..k_max, of boxes [N, 4] (Feature Pyramid Networks, equation 1).

    ``floor(canonical_level + log2(sqrt(area) / canonical))``: a box of ``canonical`` pixels a side belongs to
    ``canonical_level``, one of half the side to the level below.

    Args:
        epsilon: keeps a box on the border from falling below it by rounding; 1e-8 within the logarithm and 1e-6 outside
            unless given.
        epsilon_inside: within the logarithm, as detectron2, or added to it, as torchvision has it.
    """
    side = area(boxes).clamp(min=0).sqrt()
    small = (1e-8 if epsilon_inside else 1e-6) if epsilon is None else epsilon
    if epsilon_inside:
        level = torch.floor(canonical_level + torch.log2(side / canonical + small))
    else:
        level = torch.floor(canonical_level + torch.log2(side / canonical) + small)
    return level.clamp(k_min, k_max).to(torch.int64)


def multilevel_roi_align(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    strides: Sequence[int],
    size: int | tuple[int, int],
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
    canonical: float = 224.0,
    canonical_level: int = 4,
    epsilon: float | None = None,
    epsilon_inside: bool = True,
    reduce: Reduce = "mean",
    far_edge: float = 0.0,
) -> Tensor:
    """RoIAlign of each box on the pyramid level that fits its size.

    Args:
        features: floating [B, C, H_i, W_i], finest first.
        boxes: one tensor [k, 4] an image, in pixels; ``k`` may be 0, and gradients stay connected then.
        strides: pixels per cell of each level, powers of two that double from level to level.
        size, sampling_ratio, aligned, reduce: as in ``roi_align``.
        canonical, canonical_level, epsilon, epsilon_inside: as in ``assign_levels``.
        far_edge: taken off the far edges once the levels are chosen; 1 for maskrcnn-benchmark, which sizes boxes up to
            their last pixel and cuts them before it.

    Returns:
        [sum of k, C, h, w] in the features' dtype: the boxes of the first image, then of the second, and so on.
    """
    table = _table(boxes)
    cut = table - table.new_tensor([0.0, 0.0, 0.0, far_edge, far_edge]) if far_edge else table
    if len(features) == 1:
        return roi_align(features[0], cut, size, 1 / strides[0], sampling_ratio, aligned, reduce)
    k_min = round(log2(strides[0]))
    levels = assign_levels(
        table[:, 1:], k_min, k_min + len(features) - 1, canonical, canonical_level,
        epsilon=epsilon, epsilon_inside=epsilon_inside,
    )  # fmt: skip
    maps = [exact(feature) for feature in features]
    out_size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if reduce == "mean" and all(_by_rows(m) for m in maps):
        scales = [1 / stride for stride in strides]
        out = roi_rows.align(maps, cut.float(), levels - k_min, scales, out_size, sampling_ratio, aligned)
        return out.to(features[0].dtype)
    out = maps[0].new_zeros((table.shape[0], maps[0].shape[1], *out_size))
    for i, (feature, stride) in enumerate(zip(maps, strides, strict=True)):
        # every level is asked, also for no boxes: all maps then get a gradient, and the graph has no branch
        place = (levels == k_min + i).nonzero().flatten()
        part = roi_align(feature, cut[place], out_size, 1 / stride, sampling_ratio, aligned, reduce)
        out = out.index_copy_(0, place, part)
    return out.to(features[0].dtype)


def every_level_roi_align(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    strides: Sequence[int],
    size: int | tuple[int, int],
    *,
    sampling_ratio: int = 0,
    aligned: bool = True,
    reduce: Reduce = "mean",
    far_edge: float = 0.0,
) -> Tensor:
    """RoIAlign of each box on every one of L pyramid levels (adaptive feature pooling: PANet, section 3.2).

    Arguments are those of ``multilevel_roi_align``. Returns [sum of k, L, C, h, w] in the features' dtype.
    """
    table = _table(boxes)
    if far_edge:
        table = table - table.new_tensor([0.0, 0.0, 0.0, far_edge, far_edge])
    parts = [
        roi_align(feature, table, size, 1 / stride, sampling_ratio, aligned, reduce)
        for feature, stride in zip(features, strides, strict=True)
    ]
    return torch.stack(parts, 1)


def _by_rows(features: Tensor) -> bool:
    """Whether our own kernel takes these features: float32 on the CPU, outside graphs that are traced."""
    traced = torch.compiler.is_compiling() or is_tracing()
    return features.device.type == "cpu" and features.dtype == torch.float32 and not traced


def _table(boxes: Sequence[Tensor]) -> Tensor:
    """One tensor [k, 4] an image to [K, 5] with the image's number in front."""
    numbers = [box.new_full((box.shape[0], 1), float(i)) for i, box in enumerate(boxes)]
    return torch.cat([exact(torch.cat((n, b), 1)) for n, b in zip(numbers, boxes, strict=True)])


def _max_align(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """The maximum over each bin's samples; one pass a sample, so that only h x w values of a RoI are held at a time."""
    batch, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    first = rois[:, 0].to(torch.int64) * (height * width)
    y_start, y_bin, y_count = _bins(rois[:, 2], rois[:, 4], size[0], scale, sampling_ratio, aligned)
    x_start, x_bin, x_count = _bins(rois[:, 1], rois[:, 3], size[1], scale, sampling_ratio, aligned)
    best = rows.new_full((rois.shape[0], *size, channels), -torch.inf) + features.sum() * 0.0
    y_most, x_most = sampling_ratio, sampling_ratio
    if sampling_ratio <= 0:
        y_most, x_most = (int(count.max()) if rois.shape[0] else 0 for count in (y_count, x_count))
    for i in range(y_most):
        y_low, y_high, y_part, y_in = _taps(y_start, y_bin, y_count, i, size[0], height)
        for j in range(x_most):
            x_low, x_high, x_part, x_in = _taps(x_start, x_bin, x_count, j, size[1], width)
            value = rows.new_zeros(())
            for y, y_weight in ((y_low, 1 - y_part), (y_high, y_part)):
                for x, x_weight in ((x_low, 1 - x_part), (x_high, x_part)):
                    index = first[:, None, None] + y[:, :, None] * width + x[:, None, :]
                    value = value + rows[index] * (y_weight[:, :, None] * x_weight[:, None, :])[..., None]
            inside = (y_in[:, :, None] & x_in[:, None, :])[..., None]
            exists = ((i < y_count)[:, None] & (j < x_count)[:, None])[..., None, None]
            best = torch.where(exists, torch.maximum(best, torch.where(inside, value, 0.0)), best)
    return torch.where(best == -torch.inf, 0.0, best).permute(0, 3, 1, 2)


def _bins(
    low: Tensor, high: Tensor, count: int, scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Start [K] and bin length [K] of RoIs along one axis of the map, and the samples [K] a bin."""
    shift = 0.5 if aligned else 0.0
    start, end = low * scale - shift, high * scale - shift
    length = end - start if aligned else (end - start).clamp(min=1.0)
    samples = torch.full_like(length, sampling_ratio) if sampling_ratio > 0 else torch.ceil(length / count)
    return start, length / count, samples


def _taps(
    start: Tensor, length: Tensor, samples: Tensor, i: int, count: int, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample ``i`` of every bin, [K, count] each: the cells below and above, the latter's weight, and if it counts."""
    bins = torch.arange(count, device=start.device, dtype=start.dtype)
    step = length / samples.clamp(min=1)
    at = start[:, None] + bins * length[:, None] + ((i + 0.5) * step)[:, None]
    inside = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.floor()
    return low.to(torch.int64), (low + 1).clamp(max=size - 1).to(torch.int64), at - low, inside
