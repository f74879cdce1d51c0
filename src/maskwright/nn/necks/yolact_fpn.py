"""The feature pyramid of YOLACT (Bolya et al. 2019, section 4): P3 to P5, then P6 and P7 by strided convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional


class YolactFPN(nn.Module):
    """Bilinear top-down path, a 3x3 convolution on each level, and ``extra`` coarser levels on top.

    Args:
        in_channels: widths of the incoming maps, finest first.
        channels: width of every outgoing map.
        extra: how many levels are added, each a 3x3 convolution of stride 2.
        extra_from: what the first of them sees: the coarsest ``"output"`` (the original) or ``"input"``
            (mmdetection's C5).
        relu: after each level's 3x3 convolution (the original; mmdetection has none).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        extra: int = 2,
        extra_from: Literal["output", "input"] = "output",
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        first = channels if extra_from == "output" else in_channels[-1]
        self.extra = nn.ModuleList(
            nn.Conv2d(first if i == 0 else channels, channels, 3, stride=2, padding=1) for i in range(extra)
        )
        self.extra_from, self.relu = extra_from, relu
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[B, C_i, H_i, W_i], finest first -> [B, channels, H_i, W_i] and ``extra`` coarser maps."""
        maps = [conv(feature) for conv, feature in zip(self.lateral, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            size = maps[i - 1].shape[-2:]
            maps[i - 1] = maps[i - 1] + functional.interpolate(maps[i], size=size, mode="bilinear", align_corners=False)
        out = [conv(level) for conv, level in zip(self.output, maps, strict=True)]
        out = [level.relu() for level in out] if self.relu else out
        last = out[-1] if self.extra_from == "output" else features[-1]
        for conv in self.extra:
            last = conv(last)
            out.append(last)
        return out
