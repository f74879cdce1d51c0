"""Where a cell of a map lies, as a vector: sines of its coordinates, or vectors that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional


def inside_map(
    sizes: Sequence[tuple[int, int]] | Tensor, padded: tuple[int, int], cells: tuple[int, int], device: torch.device
) -> Tensor:
    """bool [B, h, w]: which cells of a map of ``cells`` (h, w) lie in each picture (H, W) and not in its padding.

    A cell is what the nearest pixel of the padded picture is, as DETR shrinks its padding masks.
    """
    lines: list[Tensor] = []
    table = sizes if isinstance(sizes, Tensor) else torch.tensor(sizes, device=device)
    for axis in (0, 1):
        valid = table[:, axis]
        known = torch.arange(padded[axis], device=device) < valid[:, None]
        lines.append(functional.interpolate(known[:, None].float(), size=cells[axis], mode="nearest")[:, 0] > 0)
    return lines[0][:, :, None] & lines[1][:, None]


def sine_position(
    inside: Tensor, channels: int, *, normalize: bool = True, temperature: float = 10000.0, scale: float = 2 * pi
) -> Tensor:
    """Sines and cosines of row and column (DETR, appendix A.4; Vaswani et al. 2017, section 3.5, in two dimensions).

    Args:
        inside: bool [B, h, w]; only these cells are counted, from 1.
        channels: divisible by 4; the first half speaks of rows, the second of columns.
        normalize: coordinates become shares of the picture's extent, times ``scale``; else they are counts of cells.

    Returns:
        float32 [B, channels, h, w].
    """
    half = channels // 2
    count = inside.float()
    rows, columns = count.cumsum(1), count.cumsum(2)
    if normalize:
        rows = rows / (rows[:, -1:] + 1e-6) * scale
        columns = columns / (columns[:, :, -1:] + 1e-6) * scale
    index = torch.arange(half, dtype=torch.float32, device=inside.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    parts: list[Tensor] = []
    for place in (rows, columns):
        angle = place[..., None] / period
        parts.append(torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), -1).flatten(3))
    return torch.cat(parts, -1).permute(0, 3, 1, 2)


class LearnedPosition(nn.Module):
    """A learned vector for each row and each column, side by side (DETR, table 3); nothing beyond ``extent`` cells."""

    def __init__(self, channels: int, extent: int = 50) -> None:
        super().__init__()
        self.rows, self.columns = nn.Embedding(extent, channels // 2), nn.Embedding(extent, channels // 2)
        nn.init.uniform_(self.rows.weight)
        nn.init.uniform_(self.columns.weight)

    def forward(self, inside: Tensor) -> Tensor:
        """bool [B, h, w] -> [B, channels, h, w]; only the map's size matters."""
        batch, height, width = inside.shape
        rows = self.rows.weight[:height, None].expand(-1, width, -1)
        columns = self.columns.weight[None, :width].expand(height, -1, -1)
        return torch.cat((columns, rows), -1).permute(2, 0, 1)[None].expand(batch, -1, -1, -1)
