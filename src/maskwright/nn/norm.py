"""Convolution with an optional norm and activation, and the norms by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

NormName = Literal["batch", "group"] | None


def make_norm(name: NormName, channels: int) -> nn.Module:
    """The norm called ``name`` for ``channels`` maps: batch norm, group norm with 32 groups (fewer for thin maps)."""
    if name is None:
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0), channels)
    raise ValueError(f"norm must be 'batch', 'group' or None, got {name!r}")


class ConvNorm(nn.Sequential):
    """``conv`` -> ``norm`` -> ReLU, [B, C, H, W] to [B, K, H', W']; the convolution has a bias only without a norm."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        norm: NormName = None,
        relu: bool = True,
        groups: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        conv = nn.Conv2d(channels, out_channels, kernel, stride, padding, dilation, groups, bias=norm is None)
        self.add_module("conv", conv)
        if norm is not None:
            self.add_module("norm", make_norm(norm, out_channels))
        if relu:
            self.add_module("relu", nn.ReLU(inplace=True))


def normalize_pixels(pixels: Tensor, mean: Tensor, std: Tensor, sizes: Sequence[tuple[int, int]] | Tensor) -> Tensor:
    """``(pixels - mean) / std`` for RGB [B, 3, H, W] in 0..255, with zeros outside each picture's (H, W)."""
    out = (pixels.to(mean.dtype) - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    # in a graph sizes are symbols, which cannot be compared; in one for any number of pictures they are a tensor
    if isinstance(sizes, Tensor) or (len(sizes) > 0 and (torch.compiler.is_compiling() or _padded(pixels, sizes))):
        rows = torch.arange(pixels.shape[-2], device=pixels.device)
        columns = torch.arange(pixels.shape[-1], device=pixels.device)
        valid = sizes if isinstance(sizes, Tensor) else torch.tensor(sizes, device=pixels.device)
        inside = (rows[None, :, None] < valid[:, :1, None]) & (columns[None, None, :] < valid[:, 1:, None])
        out = out * inside[:, None]
    return out


def _padded(pixels: Tensor, sizes: Sequence[tuple[int, int]]) -> bool:
    """Whether a picture is smaller than its pixels."""
    return any(size != tuple(pixels.shape[-2:]) for size in sizes)
