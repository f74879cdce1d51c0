"""Enlarging maps so that cell (i, j) of stride s keeps standing for the pixel (s i + s // 2, s j + s // 2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.ops import rle
from maskwright.ops.rle_core import Runs

_PIXELS = 1 << 25


def aligned_bilinear(maps: Tensor, factor: int) -> Tensor:
    """Bilinear enlargement [N, C, H, W] to [N, C, factor * H, factor * W] (CondInst, section 3.1).

    Result pixel ``p`` has the value at ``(p - factor // 2) / factor`` of the map, whose border is repeated. Plain
    bilinear enlargement takes ``(p + 0.5) / factor - 0.5`` instead, half a pixel of the result off.

    Args:
        maps: floating [N, C, H, W]; N may be 0.
        factor: at least 1; 1 returns ``maps``.
    """
    if factor == 1:
        return maps
    height, width = maps.shape[-2:]
    # One repeated row and column, so that corners lie exactly ``factor`` apart in a grid of factor * side + 1.
    maps = functional.pad(maps, (0, 1, 0, 1), mode="replicate")
    size = (factor * height + 1, factor * width + 1)
    maps = functional.interpolate(maps, size=size, mode="bilinear", align_corners=True)
    before = factor // 2
    maps = functional.pad(maps, (before, 0, before, 0), mode="replicate")
    return maps[..., : factor * height, : factor * width]


def draw_aligned(
    probs: Tensor,
    factor: int,
    valid: tuple[int, int],
    size: tuple[int, int],
    threshold: float = 0.5,
    *,
    aligned: bool = True,
) -> Runs:
    """Run-lengths of N masks: maps enlarged by ``factor``, cut to ``valid``, resized to ``size``, > ``threshold``.

    On the host only the rows and columns that a map can reach are computed, as two matrix products (both steps are
    linear along each axis); on a device a few masks at a time.

    Args:
        probs: float [N, h, w] with cells of ``factor`` pixels of the padded picture.
        valid: (H, W) of the picture without its padding. size: (H, W) of the result.
        aligned: enlarge by ``aligned_bilinear``; ``False`` does it by the usual half-pixel centers (SOLO).

    Returns:
        Runs as ``ops.rle`` has them: counts int32 [R] and offsets int64 [N + 1].
    """
    count, height, width = probs.shape
    parts: list[Runs] = []
    if probs.device.type == "cpu":
        down = _axis(height, factor, valid[0], size[0], aligned)
        across = _axis(width, factor, valid[1], size[1], aligned)
        reach_down, reach_across = _reach(down), _reach(across)
        above = probs > threshold
        for i in range(count):
            y = _window(above[i].any(1), *reach_down)
            x = _window(above[i].any(0), *reach_across)
            if y is None or x is None:
                parts.append(rle.encode(np.zeros((1, *size), bool)))
                continue
            (top, bottom, y0, y1), (left, right, x0, x1) = y, x
            part = down[top:bottom, y0:y1] @ probs[i, y0:y1, x0:x1] @ across[left:right, x0:x1].T
            runs = rle.encode((part > threshold)[None].numpy())
            parts.append(rle.window(*runs, (bottom - top, right - left), (-top, -left, *size)))
        return _joined(parts)
    step = max(1, _PIXELS // max(size[0] * size[1], height * width * factor**2))
    for start in range(0, count, step):
        some = _enlarge(probs[start : start + step, None], factor, aligned)[..., : valid[0], : valid[1]]
        if tuple(size) != tuple(valid):
            some = functional.interpolate(some, size, mode="bilinear", align_corners=False)
        parts.append(rle.encode((some[:, 0] > threshold).cpu().numpy()))
    return _joined(parts)


def _enlarge(maps: Tensor, factor: int, aligned: bool) -> Tensor:
    if aligned or factor == 1:
        return aligned_bilinear(maps, factor)
    return functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)


def _axis(cells: int, factor: int, valid: int, side: int, aligned: bool) -> Tensor:
    """What each pixel of one axis takes from each cell, float [side, cells]: each cell enlarged alone."""
    alone = torch.eye(cells)[:, None, :, None]
    alone = _enlarge(alone, factor, aligned)[:, :, :valid, :1]
    if side != valid:
        alone = functional.interpolate(alone, (side, 1), mode="bilinear", align_corners=False)
    return alone[:, 0, :, 0].T.contiguous()


def _reach(axis: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The first cell, and the one after the last, that each pixel takes something from; both never fall."""
    used = (axis > 0).numpy()
    return used.argmax(1), used.shape[1] - used[:, ::-1].argmax(1)


def _window(above: Tensor, first: np.ndarray, end: np.ndarray) -> tuple[int, int, int, int] | None:
    """Pixels [a, b) that may be above the threshold, and the cells [c, d) they take from; ``None`` for none."""
    cells = np.flatnonzero(above.numpy())
    if len(cells) == 0:
        return None
    a = int(np.searchsorted(end, cells[0], side="right"))
    b = int(np.searchsorted(first, cells[-1], side="right"))
    return (a, b, int(first[a]), int(end[b - 1])) if a < b else None


def _joined(parts: list[Runs]) -> Runs:
    if not parts:
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    return np.concatenate([counts for counts, _ in parts]), np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
