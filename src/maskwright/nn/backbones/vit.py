"""Plain vision transformers with registers, as DINOv2 trained them, open between their blocks.

Dosovitskiy et al. 2021 (arXiv:2010.11929); Oquab et al. 2023 (DINOv2, arXiv:2304.07193); Darcet et al. 2023 (registers,
arXiv:2309.16588). Written out because EoMT adds tokens and masks halfway. Parameters have timm's names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class ViTSize:
    """Width, blocks and heads of a variant, and the side of the patches that its weights were trained with."""

    width: int
    depth: int
    heads: int
    patch: int = 14


VITS: dict[str, ViTSize] = {
    "vit_small_patch14_reg4_dinov2": ViTSize(384, 12, 6),
    "vit_base_patch14_reg4_dinov2": ViTSize(768, 12, 12),
    "vit_large_patch14_reg4_dinov2": ViTSize(1024, 24, 16),
    "vit_nano": ViTSize(32, 4, 2),
}
"""Variants by timm's names; ``vit_nano`` is ours, for tests."""


class SelfAttention(nn.Module):
    """Attention of all tokens among each other."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, allowed: Tensor | None = None) -> Tensor:
        """[B, T, C] -> the same; ``allowed`` bool [B, 1, T, T] says which tokens a token may look at."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.proj(out.transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, channels: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), start))

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return tokens * self.gamma


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Attention and an MLP, each on normalized tokens, scaled and added."""

    def __init__(self, channels: int, heads: int, scale: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = SelfAttention(channels, heads), Mlp(channels, 4 * channels)
        self.ls1, self.ls2 = LayerScale(channels, scale), LayerScale(channels, scale)

    def forward(self, tokens: Tensor, allowed: Tensor | None = None) -> Tensor:
        """[B, T, C] -> the same; ``allowed`` bool [B, 1, T, T]."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), allowed))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class PatchEmbed(nn.Module):
    """Square patches of pixels become tokens."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, H / patch, W / patch]."""
        return self.proj(pixels)


class ViT(nn.Module):
    """The parts of a vision transformer: ``embed``, ``blocks`` and ``norm``, for those who do something in between.

    Args:
        name: a key of ``VITS``. patch: side of a patch in pixels; pretrained weights are resampled to it.
        side: of the pictures that the positions are for, in pixels; for others they are interpolated.
        registers: tokens beside the class token that stand for no place.
        layer_scale: where the scales of the blocks begin. pretrained: ask timm for its weights of that name.

    Raises:
        ValueError: there is no such variant, or ``patch`` does not divide ``side``.
    """

    def __init__(
        self,
        name: str,
        *,
        patch: int = 16,
        side: int = 640,
        registers: int = 4,
        layer_scale: float = 1.0,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if name not in VITS:
            raise ValueError(f"a ViT must be one of {', '.join(VITS)}, got {name!r}")
        if side % patch:
            raise ValueError(f"patch must divide side, got {patch} and {side}")
        size = VITS[name]
        self.width, self.patch, self.side = size.width, patch, side
        self.prefix, cells = 1 + registers, side // patch
        self.patch_embed = PatchEmbed(size.width, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, size.width) * 0.02)
        self.reg_token = nn.Parameter(torch.randn(1, registers, size.width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, cells * cells, size.width) * 0.02)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, layer_scale) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if pretrained:
            source: Any = timm.create_model(name, pretrained=True, img_size=side, patch_size=patch, num_classes=0)
            self.load_state_dict(source.state_dict())

    def embed(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalized pixels [B, 3, H, W] -> tokens [B, prefix + h * w, C], and (h, w)."""
        maps = self.patch_embed(pixels)
        grid = (maps.shape[2], maps.shape[3])
        tokens = maps.flatten(2).transpose(1, 2) + self.positions(grid).to(maps.dtype)
        prefix = torch.cat((self.cls_token, self.reg_token), 1).to(maps.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat((prefix, tokens), 1), grid

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """[1, h * w, C]: the learned positions, interpolated where the grid is another one."""
        cells = self.side // self.patch
        if grid == (cells, cells):
            return self.pos_embed
        maps = self.pos_embed.unflatten(1, (cells, cells)).permute(0, 3, 1, 2).float()
        maps = functional.interpolate(maps, size=grid, mode="bicubic", antialias=True)
        return maps.flatten(2).transpose(1, 2)
