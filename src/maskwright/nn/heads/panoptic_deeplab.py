"""Panoptic-DeepLab's decoders and heads (Cheng et al. 2020, arXiv:1911.10194, section 3.1 and figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.heads.aspp import ASPP
from maskwright.nn.norm import ConvNorm, NormName


class Decoder(nn.Module):
    """ASPP on the coarsest map, then finer maps one after the other: [B, K, H_0, W_0].

    Args:
        channels: of the maps, finest first. width: K. aspp_width: ASPP's. projected: channels that each map but the
            last is reduced to, finest first (section 4: 32 and 64).
        separable: one separable 5x5 convolution after each join in place of two 3x3 ones.
        rates, norm, dropout, pool: as ``ASPP``'s.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        *,
        aspp_width: int = 256,
        projected: Sequence[int] = (32, 64),
        rates: Sequence[int] = (6, 12, 18),
        norm: NormName = "batch",
        dropout: float = 0.1,
        separable: bool = False,
        pool: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(
            channels[-1], aspp_width, rates=rates, norm=norm, dropout=dropout, whole_norm=None, pool=pool,
            separable=separable,
        )  # fmt: skip
        self.project = nn.ModuleList(ConvNorm(c, p, 1, norm=norm) for c, p in zip(channels, projected, strict=False))
        before = [width] * (len(projected) - 1) + [aspp_width]
        self.fuse = nn.ModuleList(
            _pair(p + b, width, width, norm, separable) for p, b in zip(projected, before, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps [B, C_i, H_i, W_i], finest first."""
        out = self.aspp(features[-1])
        for level in range(len(self.project) - 1, -1, -1):
            fine = self.project[level](features[level])
            out = functional.interpolate(out, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            out = self.fuse[level](torch.cat((fine, out), 1))
        return out


class MapHead(nn.Module):
    """Two convolutions and a predictor: [B, C, H, W] -> [B, K, H, W].

    Args:
        channels: C. width: before the predictor. out: K. norm, separable: as ``Decoder``'s.
    """

    def __init__(self, channels: int, width: int, out: int, *, norm: NormName, separable: bool = False) -> None:
        super().__init__()
        self.convs = _pair(channels, channels, width, norm, separable)
        self.predictor = nn.Conv2d(width, out, 1)
        for module in self.convs.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        assert self.predictor.bias is not None
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, H, W]."""
        return self.predictor(self.convs(features))


def _pair(channels: int, middle: int, out: int, norm: NormName, separable: bool) -> nn.Sequential:
    """Two 3x3 convolutions, or a separable 5x5 one, which sees as far."""
    if separable:
        depthwise = ConvNorm(channels, channels, 5, norm=norm, groups=channels)
        return nn.Sequential(depthwise, ConvNorm(channels, out, 1, norm=norm))
    return nn.Sequential(ConvNorm(channels, middle, norm=norm), ConvNorm(middle, out, norm=norm))


# ---- losses ---------------------------------------------------------------------------------------------------------


def hard_pixels(logits: Tensor, target: Tensor, weights: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The sum of the largest cross-entropies, and how many pixels these are (section 3.2, as DeeperLab has it).

    Args:
        logits: [B, C, H, W]. target: int64 [B, H, W], -1 where void; those cost nothing, but count.
        weights: float [B, H, W]. share: of all pixels.
    """
    losses = functional.cross_entropy(logits.float(), target, ignore_index=-1, reduction="none") * weights
    count = losses.numel() if share >= 1 else max(1, int(share * losses.numel()))
    total = losses.sum() if share >= 1 else losses.flatten().topk(count).values.sum()
    return total, total.new_tensor(float(count))
