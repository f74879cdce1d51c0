"""Feature pyramid network (Lin et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import ConvNorm, NormName


class FPN(nn.Module):
    """Top-down path with lateral connections: maps C_i, finest first, to maps of equal width, plus pooled ones on top.

    Args:
        in_channels: widths of the incoming maps, finest first.
        channels: width of every outgoing map.
        extra: how many stride-2 subsampled copies of the coarsest map are added (P6 of Mask R-CNN is one).
        norm: after each convolution; ``None`` is the paper's form.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = 256, *, extra: int = 1, norm: NormName = None
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_conv(width, channels, 1, norm) for width in in_channels)
        self.output = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in in_channels)
        self.extra = extra
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[B, C_i, H_i, W_i], finest first -> [B, channels, H_i, W_i] and ``extra`` coarser maps."""
        maps = [conv(feature) for conv, feature in zip(self.lateral, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + functional.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="nearest")
        out = [conv(level) for conv, level in zip(self.output, maps, strict=True)]
        for _ in range(self.extra):
            out.append(functional.max_pool2d(out[-1], 1, 2))
        return out


def _conv(channels: int, out_channels: int, kernel: int, norm: NormName) -> nn.Module:
    if norm is None:
        return nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2)
    return ConvNorm(channels, out_channels, kernel, norm=norm, relu=False)
