"""RTMDet's pyramid: a top-down and a bottom-up path of CSP layers (Lyu et al. 2022, section 3.2 and figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.backbones.csp_next import ConvSiLU, CSPLayer


class CSPPathFPN(nn.Module):
    """Maps are concatenated with those of the next level, mixed by CSP layers, and brought to one width.

    Args:
        in_channels: widths of the incoming maps, finest first, each level half the size of the one before.
        channels: width of every outgoing map. blocks: of each CSP layer. expand: its halves' share of the channels.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, *, blocks: int = 3, expand: float = 0.5
    ) -> None:
        super().__init__()
        lower = list(in_channels[:-1])
        upper = list(in_channels[1:])
        options = {"expand": expand, "residual": False}
        self.reduce = nn.ModuleList(ConvSiLU(high, low, 1) for low, high in zip(lower, upper, strict=True))
        self.top_down = nn.ModuleList(CSPLayer(2 * low, low, blocks, **options) for low in lower)
        self.downsample = nn.ModuleList(ConvSiLU(low, low, stride=2) for low in lower)
        self.bottom_up = nn.ModuleList(
            CSPLayer(2 * low, high, blocks, **options) for low, high in zip(lower, upper, strict=True)
        )
        self.output = nn.ModuleList(ConvSiLU(width, channels) for width in in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[B, C_i, H_i, W_i], finest first -> [B, channels, H_i, W_i]."""
        maps = list(features)
        for i in range(len(maps) - 1, 0, -1):
            maps[i] = self.reduce[i - 1](maps[i])
            above = functional.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="nearest")
            maps[i - 1] = self.top_down[i - 1](torch.cat((above, maps[i - 1]), 1))
        for i in range(len(maps) - 1):
            below = self.downsample[i](maps[i])
            maps[i + 1] = self.bottom_up[i](torch.cat((below, maps[i + 1]), 1))
        return [conv(level) for conv, level in zip(self.output, maps, strict=True)]
