"""MaskFormer's pixel decoder (section 3.4): an embedding for every pixel at stride 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import ConvNorm
from maskwright.nn.position import sine_position
from maskwright.nn.transformer import Encoder


class PixelDecoder(nn.Module):
    """Top-down path like FPN's, with group norms, and one convolution to pixel embeddings.

    Args:
        in_channels: widths of C2 to C5, finest first.
        channels: of all maps between. embedding: of a pixel.
        encoder: runs over the coarsest map first; ``None`` leaves it as it is (the Swin models).
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, *, embedding: int = 256, encoder: Encoder | None = None
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            ConvNorm(width, channels, 1, norm="group", relu=False) for width in in_channels[:-1]
        )
        self.output = nn.ModuleList(ConvNorm(channels, channels, norm="group") for _ in in_channels[:-1])
        self.project = None if encoder is None else nn.Conv2d(in_channels[-1], channels, 1)
        self.encoder = encoder
        self.top = ConvNorm(channels if encoder is not None else in_channels[-1], channels, norm="group")
        self.embed = nn.Conv2d(channels, embedding, 3, padding=1)
        for module in (*self.lateral, *self.output, self.top, self.embed, self.project or nn.Identity()):
            for part in module.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_uniform_(part.weight, a=1)
                    if part.bias is not None:
                        nn.init.zeros_(part.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """C2 to C5 [B, c, H / s, W / s] -> pixel embeddings [B, embedding, H / 4, W / 4], and the coarsest map."""
        coarse = features[-1]
        if self.project is not None and self.encoder is not None:
            coarse = self.project(coarse)
            coarse = self.encoder(coarse, sine_position(everywhere(coarse), coarse.shape[1]))
        x = self.top(coarse)
        for conv, smooth, level in reversed(list(zip(self.lateral, self.output, features[:-1], strict=True))):
            side = conv(level)
            x = smooth(side + functional.interpolate(x, size=side.shape[-2:], mode="nearest"))
        return self.embed(x), coarse


def everywhere(maps: Tensor) -> Tensor:
    """bool [B, h, w], all true, for maps [B, C, h, w]."""
    return torch.ones(maps.shape[0], *maps.shape[-2:], dtype=torch.bool, device=maps.device)
