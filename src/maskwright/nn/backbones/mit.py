"""Mix Transformer, SegFormer's encoder (Xie et al. 2021, arXiv:2105.15203, section 3.1): any input size.

Written out because timm has none. It knows no positions: the padding of its 3x3 convolutions tells them. Tokens are
kept as maps [B, h, w, C], which convolutions read as channels-last maps without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.attention import Attention


@dataclass(frozen=True, slots=True)
class MiTSize:
    """Numbers of a variant (table 6): width, blocks and heads of the four stages."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)


_WIDE = (64, 128, 320, 512)
MITS: dict[str, MiTSize] = {
    "mit_b0": MiTSize((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": MiTSize(_WIDE, (2, 2, 2, 2)),
    "mit_b2": MiTSize(_WIDE, (3, 4, 6, 3)),
    "mit_b3": MiTSize(_WIDE, (3, 4, 18, 3)),
    "mit_b4": MiTSize(_WIDE, (3, 8, 27, 3)),
    "mit_b5": MiTSize(_WIDE, (3, 6, 40, 3)),
    "mit_nano": MiTSize((8, 16, 24, 32), (1, 1, 2, 1), (1, 2, 3, 4)),
}
"""Variants by their published names; ``mit_nano`` is ours, for tests."""

REDUCTIONS = (8, 4, 2, 1)
"""Each side of a stage's keys and values is that much shorter (table 6: R is their square)."""
_EXPANSION = 4


class OverlapPatchEmbed(nn.Module):
    """Overlapping patches become tokens: a strided convolution and a layer norm (section 3.1)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, epsilon: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width, epsilon)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, ceil(H / s), ceil(W / s), K]."""
        return self.norm(self.conv(maps).permute(0, 2, 3, 1))


class EfficientAttention(nn.Module):
    """Attention whose keys and values are a map of shorter sides (equations 1 and 2).

    Args:
        channels: C. heads: must divide it. reduction: stride of the convolution that shortens; 1 is none.
        epsilon: of the norm behind that convolution.
    """

    def __init__(self, channels: int, heads: int, reduction: int, epsilon: float) -> None:
        super().__init__()
        self.attention = Attention(channels, heads)
        self.reduction = reduction
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same; h and w are at least ``reduction``."""
        seen = x
        if self.reduction > 1:
            seen = self.norm(self.reduce(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        seen = seen.flatten(1, 2)
        return self.attention(x.flatten(1, 2), seen, seen).unflatten(1, (x.shape[1], x.shape[2]))


class MixFeedForward(nn.Module):
    """Two linear layers, a depthwise 3x3 convolution and GELU between them (equation 3)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same."""
        mixed = self.mix(self.widen(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.narrow(functional.gelu(mixed))


class MiTBlock(nn.Module):
    """Efficient attention and the mixing feed-forward, each after a norm and with a way around it (figure 2)."""

    def __init__(
        self, channels: int, heads: int, reduction: int, drop_path: float, epsilon: tuple[float, float]
    ) -> None:
        super().__init__()
        outer, inner = epsilon
        self.norm1, self.norm2 = nn.LayerNorm(channels, outer), nn.LayerNorm(channels, outer)
        self.attention = EfficientAttention(channels, heads, reduction, inner)
        self.feed = MixFeedForward(channels, _EXPANSION * channels)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.feed(self.norm2(x)))


class MiTStage(nn.Module):
    """Patches, blocks and a last norm."""

    def __init__(self, embed: OverlapPatchEmbed, blocks: list[MiTBlock], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.embed, self.blocks, self.norm = embed, nn.Sequential(*blocks), norm

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, ceil(H / s), ceil(W / s)]."""
        return self.norm(self.blocks(self.embed(maps))).permute(0, 3, 1, 2)


class MiT(nn.Module):
    """Pixels [B, 3, H, W] to four maps [B, C_i, H / s_i, W / s_i], strides 4 to 32, each with a layer norm.

    Args:
        name: a key of ``MITS``.
        drop_path: the last block is skipped with this chance in training, the first never (paper, section 4.1: 0.1).
        epsilon: of the norms before and after blocks, and of those inside them and of patches. Implementations differ:
            the authors' have 1e-6 and 1e-5, transformers' 1e-5 twice, mmsegmentation's 1e-6 twice.
        frozen_stages: so many leading stages take no gradient.

    Sides of the pixels are at least 32.

    Raises:
        ValueError: there is no such variant.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        name: str,
        *,
        drop_path: float = 0.1,
        epsilon: tuple[float, float] = (1e-6, 1e-5),
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        if name not in MITS:
            raise ValueError(f"a Mix Transformer must be one of {', '.join(MITS)}, got {name!r}")
        size = MITS[name]
        self.channels = size.widths
        last = max(sum(size.depths) - 1, 1)
        drops = iter([drop_path * i / last for i in range(sum(size.depths))])
        stages: list[MiTStage] = []
        for i, (width, depth, heads) in enumerate(zip(size.widths, size.depths, size.heads, strict=True)):
            embed = OverlapPatchEmbed(
                size.widths[i - 1] if i else 3, width, 3 if i else 7, 2 if i else 4, epsilon[1]
            )  # fmt: skip
            blocks = [MiTBlock(width, heads, REDUCTIONS[i], next(drops), epsilon) for _ in range(depth)]
            stages.append(MiTStage(embed, blocks, nn.LayerNorm(width, epsilon[0])))
        self.stages = nn.ModuleList(stages)
        _init(self)
        for stage in stages[:frozen_stages]:
            stage.requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        maps: list[Tensor] = []
        hidden = pixels
        for stage in self.stages:
            hidden = stage(hidden)
            maps.append(hidden)
        return maps


def _init(encoder: nn.Module) -> None:
    """Linear layers from a narrow normal distribution, convolutions from one as wide as their outputs ask for."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            fan = module.out_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=(2.0 / fan) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
