"""Anchor boxes of a region proposal network (Faster R-CNN, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], rounded: bool = False) -> Tensor:
    """The A = len(sizes) * len(ratios) anchors of one cell, float32 [A, 4], centered at 0.

    Args:
        sizes: side in pixels of the square with the anchor's area.
        ratios: height over width.
        rounded: ``False`` is detectron2's way: sizes outside, ratios inside, exact corners. ``True`` is torchvision's:
            ratios outside, sizes inside, corners rounded to integers (half to even).
    """
    if rounded:
        root = torch.tensor(list(ratios), dtype=torch.float32).sqrt()[:, None]
        side = torch.tensor(list(sizes), dtype=torch.float32)[None]
        width, height = ((1 / root) * side).flatten(), (root * side).flatten()
        return (torch.stack((-width, -height, width, height), 1) / 2).round()
    boxes: list[tuple[float, float, float, float]] = []
    for size in sizes:
        for ratio in ratios:
            width = sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def grid_anchors(
    feature_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int | tuple[int, int]],
    cells: Sequence[Tensor],
    offset: float = 0.0,
) -> list[Tensor]:
    """Each level's cell anchors at every cell of its map, float32 [H * W * A, 4] in (y, x, anchor) order.

    Args:
        feature_sizes: (H, W) of each level's map.
        strides: pixels from cell to cell, one number or (vertical, horizontal).
        cells: each level's [A, 4], as ``cell_anchors`` makes them; the result is on their device.
        offset: where in its cell an anchor's center lies, in strides: 0 is the cell's corner, 0.5 its middle.
    """
    levels: list[Tensor] = []
    for (height, width), stride, cell in zip(feature_sizes, strides, cells, strict=True):
        step_y, step_x = (stride, stride) if isinstance(stride, int) else stride
        y = (torch.arange(height, device=cell.device, dtype=torch.float32) + offset) * step_y
        x = (torch.arange(width, device=cell.device, dtype=torch.float32) + offset) * step_x
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        shift = torch.stack((grid_x, grid_y, grid_x, grid_y), -1).reshape(-1, 1, 4)
        levels.append((shift + cell).reshape(-1, 4))
    return levels
