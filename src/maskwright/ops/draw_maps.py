"""Mask maps of whole pictures, straight to run-lengths: each object's part of its map alone is enlarged."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.ops import rle
from maskwright.ops.paste import paste
from maskwright.ops.rle_core import Runs


def draw_maps(
    maps: Tensor, cell: tuple[float, float], size: tuple[int, int], threshold: float = 0.5, enlarge: int = 1
) -> Runs:
    """Run-lengths of N masks: maps laid over a picture from its top left corner, bilinear, where above ``threshold``.

    Equal to ``interpolate(maps, scale_factor=enlarge)`` and then another ``interpolate`` to the picture (bilinear,
    corners not aligned, borders repeated), up to pixels within 1e-6 of the threshold. Only the cells above it and
    their neighbors are looked at: a pixel is between cells, so it is above the threshold only if one of them is.

    Args:
        maps: floating [N, h, w]; probabilities or logits.
        cell: (vertical, horizontal) pixels of the picture that a cell of the map covers before ``enlarge``.
        size: (H, W) of the picture; maps may reach beyond it.
        threshold: any number. enlarge: an integer factor, at least 1.

    Returns:
        Runs as ``ops.rle`` has them: counts int32 [R] and offsets int64 [N + 1].
    """
    maps = maps.detach().float().cpu() - threshold
    above = maps > 0
    rows, columns = above.any(2).numpy(), above.any(1).numpy()
    step_y, step_x = cell[0] / enlarge, cell[1] / enlarge
    empty = rle.encode(np.zeros((1, *size), bool))
    parts: list[Runs] = []
    for values, row, column in zip(maps, rows, columns, strict=True):
        if not row.any():
            parts.append(empty)
            continue
        top, bottom = _around(row)
        left, right = _around(column)
        part = values[None, None, top:bottom, left:right]
        if enlarge > 1:
            part = functional.interpolate(part, scale_factor=enlarge, mode="bilinear", align_corners=False)
        part = functional.pad(part, (1, 1, 1, 1), mode="replicate")[0]
        box = (
            (left * enlarge - 1) * step_x,
            (top * enlarge - 1) * step_y,
            (right * enlarge + 1) * step_x,
            (bottom * enlarge + 1) * step_y,
        )
        # paste wants probabilities; a common factor moves no zero
        part = 0.5 + part / (2 * part.abs().max())
        parts.append(paste(part, torch.tensor([box], dtype=torch.float64), size))
    if not parts:
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    return np.concatenate([counts for counts, _ in parts]), np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _around(used: np.ndarray) -> tuple[int, int]:
    """From the cell before the first used one to after the cell that follows the last."""
    cells = np.flatnonzero(used)
    return max(int(cells[0]) - 1, 0), min(int(cells[-1]) + 2, len(used))
