"""CSPNeXt (Lyu et al. 2022, RTMDet, arXiv:2212.07784, section 3.2).

Each stage halves the picture and then splits its channels: one half passes a chain of blocks (a 3x3 convolution, then a
5x5 one of each channel alone and a 1x1 one), the other goes around them; both are weighed channel by channel and mixed
(cross-stage partial networks: Wang et al. 2019). The last stage first pools over windows of three sizes (SPP).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.backbones.vovnet import ChannelAttention

_STAGES = ((128, 3), (256, 6), (512, 6), (1024, 3))
"""Channels and blocks of the stages of size l."""


class ConvSiLU(nn.Sequential):
    """Convolution without a bias, batch norm, SiLU."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.add_module("conv", conv)
        self.add_module("norm", nn.BatchNorm2d(out_channels))
        self.add_module("act", nn.SiLU(inplace=True))


class CSPNeXtBlock(nn.Module):
    """3x3 convolution, 5x5 convolution of each channel, 1x1 convolution; ``residual`` adds the input (figure 3)."""

    def __init__(self, channels: int, *, residual: bool, kernel: int = 5) -> None:
        super().__init__()
        self.first = ConvSiLU(channels, channels)
        self.depth = ConvSiLU(channels, channels, kernel, groups=channels)
        self.point = ConvSiLU(channels, channels, 1)
        self.residual = residual

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        out = self.point(self.depth(self.first(features)))
        return out + features if self.residual else out


class CSPLayer(nn.Module):
    """Two halves of a stage's channels, one of them through ``blocks``, mixed by a 1x1 convolution.

    Args:
        expand: what share of ``out_channels`` each half has. residual: of the blocks.
        attention: weigh both halves' channels before they are mixed.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        blocks: int,
        *,
        expand: float = 0.5,
        residual: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        width = int(out_channels * expand)
        self.main = ConvSiLU(channels, width, 1)
        self.short = ConvSiLU(channels, width, 1)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(width, residual=residual) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * width) if attention else nn.Identity()
        self.final = ConvSiLU(2 * width, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out_channels, H, W]."""
        parts = (self.blocks(self.main(features)), self.short(features))
        return self.final(self.attention(torch.cat(parts, 1)))


class PooledPyramid(nn.Module):
    """Maxima over windows of three sizes beside the map itself (SPP: He et al. 2014, as YOLOv3-SPP has it)."""

    def __init__(self, channels: int, windows: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        self.reduce = ConvSiLU(channels, channels // 2, 1)
        self.mix = ConvSiLU(channels // 2 * (len(windows) + 1), channels, 1)
        self.windows = tuple(windows)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        parts = [self.reduce(features)]
        reached = 1
        for window in self.windows:  # a window's maximum is that of the smaller window's maxima
            step = window - reached + 1
            parts.append(functional.max_pool2d(parts[-1], step, 1, step // 2))
            reached = window
        return self.mix(torch.cat(parts, 1))


class CSPNeXt(nn.Module):
    """Pixels [B, 3, H, W] to maps of strides 8, 16 and 32, finest first.

    Args:
        depth, width: factors of the numbers of blocks and of channels; size l has 1 and 1.
        expand: share of the channels in each half of a stage.
        attention: channel attention in every stage.
        norm: ``"train"``, or ``"frozen"`` for fixed affine maps.
        frozen_stages: this many leading parts, of stem and stages, take no gradient.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(
        self,
        *,
        depth: float = 1.0,
        width: float = 1.0,
        expand: float = 0.5,
        attention: bool = True,
        norm: Literal["train", "frozen"] = "train",
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        outputs = [int(channels * width) for channels, _ in _STAGES]
        channels = int(64 * width)
        half = int(64 * width // 2)
        parts = [nn.Sequential(ConvSiLU(3, half, stride=2), ConvSiLU(half, half), ConvSiLU(half, channels))]
        for i, (out, (_, blocks)) in enumerate(zip(outputs, _STAGES, strict=True)):
            last = i == len(_STAGES) - 1
            number = max(round(blocks * depth), 1)
            layers: list[nn.Module] = [ConvSiLU(channels, out, stride=2)]
            if last:
                layers.append(PooledPyramid(out))
            layers.append(CSPLayer(out, out, number, expand=expand, residual=not last, attention=attention))
            parts.append(nn.Sequential(*layers))
            channels = out
        self.channels, self.strides = tuple(outputs[1:]), (8, 16, 32)
        body = nn.ModuleList(parts)
        self.stages: nn.Module = freeze_batch_norm_2d(body) if norm == "frozen" else body
        for module in list(self.stages.children())[:frozen_stages]:
            module.requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        out: list[Tensor] = []
        features = pixels
        for stage in self.stages.children():
            features = stage(features)
            out.append(features)
        return out[2:]
