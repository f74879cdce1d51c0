"""Swin Transformer (Liu et al. 2021, arXiv:2103.14030) as dense predictors use it: any input size.

Written out because timm's shifts a map before it pads it to whole windows, while every published segmentation
checkpoint was trained with the padding first (Swin-Transformer-Object-Detection, MaskFormer, Mask2Former). Parameters
have timm's names, so that its ImageNet weights fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class SwinSize:
    """Numbers of a variant: width of the first stage, blocks and heads of the four, side of a window in patches."""

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int


SWINS: dict[str, SwinSize] = {
    "swin_tiny_patch4_window7_224": SwinSize(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin_small_patch4_window7_224": SwinSize(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin_base_patch4_window7_224": SwinSize(128, (2, 2, 18, 2), (4, 8, 16, 32), 7),
    "swin_base_patch4_window12_384": SwinSize(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin_large_patch4_window7_224": SwinSize(192, (2, 2, 18, 2), (6, 12, 24, 48), 7),
    "swin_large_patch4_window12_384": SwinSize(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
    "swin_nano": SwinSize(16, (1, 1, 2, 1), (1, 2, 4, 8), 4),
}
"""Variants by timm's names; ``swin_nano`` is ours, for tests."""


class WindowAttention(nn.Module):
    """Attention among the tokens of each window, with a learned bias for each offset (section 3.2)."""

    index: Tensor

    def __init__(self, channels: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        down, along = (line.flatten()[:, None] - line.flatten() + window - 1 for line in (rows, columns))
        self.register_buffer("index", down * (2 * window - 1) + along, persistent=False)

    def forward(self, tokens: Tensor, groups: Tensor | None) -> Tensor:
        """[B * G, P, C] -> the same; ``groups`` [G, P] numbers parts of a window that do not see each other."""
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None].to(q.dtype)
        if groups is not None:
            # -100, as published: parts of a window that lie apart hardly see each other.
            apart = (groups[:, None] != groups[:, :, None]).to(q.dtype) * -100.0
            bias = (bias + apart[:, None]).repeat(q.shape[0] // groups.shape[0], 1, 1, 1)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out = out.transpose(1, 2)
        if torch.compiler.is_exporting():  # another runtime's attention lays its output out differently
            out = out.clone(memory_format=torch.contiguous_format)
        return self.proj(out.flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class SwinBlock(nn.Module):
    """Attention in windows, shifted by half a window in every other block, and an MLP (figure 3b)."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, heads)
        self.mlp = Mlp(channels, 4 * channels)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        height, width, side = x.shape[1], x.shape[2], self.window
        # whole windows are counted first: exported graphs have symbols here, whose remainders grow without bound; and
        # nothing negative is divided, since ONNX rounds toward 0
        down, along = (height + side - 1) // side, (width + side - 1) // side
        rows, columns = down * side, along * side
        x = functional.pad(x, (0, 0, 0, columns - width, 0, rows - height))
        groups = None
        if self.shift:
            groups = _windows(_regions(rows, columns, side, self.shift, x.device)[None, ..., None], down, along)
            groups = groups[..., 0]
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        batch, channels = x.shape[0], x.shape[3]
        out = self.attn(_windows(x, down, along), groups)
        out = out.reshape(batch, down, along, side, side, channels)
        out = out.transpose(2, 3).reshape(batch, rows, columns, channels)
        if self.shift:
            out = torch.roll(out, (self.shift, self.shift), (1, 2))
        return out[:, :height, :width]


def _windows(x: Tensor, down: int, along: int) -> Tensor:
    """[B, down * side, along * side, C] -> [B * down * along, side * side, C]."""
    x = x.unflatten(2, (along, -1)).unflatten(1, (down, -1))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _regions(height: int, width: int, side: int, shift: int, device: torch.device) -> Tensor:
    """[h, w]: numbers of the parts of a rolled map that were neighbors before (figure 4)."""
    lines: list[Tensor] = []
    for extent in (height, width):
        place = torch.arange(extent, device=device)
        lines.append((place >= extent - side).long() + (place >= extent - shift).long())
    return lines[0][:, None] * 3 + lines[1]


class PatchMerging(nn.Module):
    """Four neighboring tokens become one of twice the width (section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> [B, ceil(h / 2), ceil(w / 2), 2C]."""
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class SwinStage(nn.Module):
    """Merging, but in the first stage, and blocks."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, drops: list[float], first: bool) -> None:
        super().__init__()
        self.downsample = nn.Identity() if first else PatchMerging(channels // 2)
        self.blocks = nn.Sequential(
            *[SwinBlock(channels, heads, window, window // 2 * (i % 2), drops[i]) for i in range(depth)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C'] -> [B, h', w', C]."""
        return self.blocks(self.downsample(x))


class PatchEmbed(nn.Module):
    """4x4 pixels become a token; pictures are padded with zeros to whole patches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, ceil(H / 4), ceil(W / 4), C]."""
        pixels = functional.pad(pixels, (0, -pixels.shape[3] % 4, 0, -pixels.shape[2] % 4))
        return self.norm(self.proj(pixels).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Pixels [B, 3, H, W] to four maps [B, C_i, H / s_i, W / s_i], strides 4 to 32, each with a layer norm.

    Args:
        name: a key of ``SWINS``. drop_path: the last block is skipped with this chance in training, the first never.
        pretrained: ask timm for its weights of that name (needs a network the first time).
        frozen_stages: as in ``TimmBackbone``: patch embedding and stage 1 are 1, and so on; 0 freezes nothing.

    Raises:
        ValueError: there is no such variant.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, name: str, *, drop_path: float = 0.3, pretrained: bool = False, frozen_stages: int = 0) -> None:
        super().__init__()
        if name not in SWINS:
            raise ValueError(f"a Swin must be one of {', '.join(SWINS)}, got {name!r}")
        size = SWINS[name]
        self.channels = tuple(size.width << i for i in range(4))
        self.patch_embed = PatchEmbed(size.width)
        drops = [drop_path * i / max(sum(size.depths) - 1, 1) for i in range(sum(size.depths))]
        stages: list[SwinStage] = []
        for i, (depth, heads) in enumerate(zip(size.depths, size.heads, strict=True)):
            done = sum(size.depths[:i])
            stages.append(SwinStage(self.channels[i], depth, heads, size.window, drops[done:], i == 0))
        self.layers = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.channels)
        if pretrained:
            source: Any = timm.create_model(name, pretrained=True)
            self.load_state_dict(source.state_dict(), strict=False)
        if frozen_stages:
            for module in (self.patch_embed, *self.layers[:frozen_stages], *self.norms[:frozen_stages]):
                module.requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        x = self.patch_embed(pixels)
        maps: list[Tensor] = []
        for stage, norm in zip(self.layers, self.norms, strict=True):
            x = stage(x)
            maps.append(norm(x).permute(0, 3, 1, 2).contiguous())
        return maps
