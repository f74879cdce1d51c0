"""Atrous spatial pyramid pooling and DeepLab's heads (Chen et al. 2017, arXiv:1706.05587; 2018, arXiv:1802.02611)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import ConvNorm, NormName, make_norm


class ASPP(nn.Module):
    """Maps [B, C, H, W] seen at several dilations and as a whole: [B, K, H, W] (Chen et al. 2017, section 3.3).

    A 1x1 convolution, a dilated 3x3 convolution for each of ``rates``, and the mean of the picture through a 1x1
    convolution; all are joined by a last 1x1 convolution.

    Args:
        channels: C. width: K, of each branch too. rates: dilations. dropout: after the last convolution.
        norm: after each convolution; ``"batch"`` on the mean takes running statistics where a batch has one picture.
        whole_norm: of the mean's convolution; as ``norm`` by default.
        separable: the dilated convolutions are depthwise, each followed by a 1x1 one.
        pool: the mean is of windows (h, w) with a step of one cell, enlarged to the map, as detectron2's models see
            pictures larger than those they learned from; by default of the whole map.
    """

    def __init__(
        self,
        channels: int,
        width: int = 256,
        *,
        rates: Sequence[int] = (6, 12, 18),
        norm: NormName = "batch",
        dropout: float = 0.0,
        whole_norm: NormName | Literal["same"] = "same",
        separable: bool = False,
        pool: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNorm(channels, width, 1, norm=norm)])
        for rate in rates:
            if separable:
                depthwise = ConvNorm(channels, channels, 3, norm=norm, groups=channels, dilation=rate)
                self.branches.append(nn.Sequential(depthwise, ConvNorm(channels, width, 1, norm=norm)))
            else:
                self.branches.append(ConvNorm(channels, width, 3, norm=norm, dilation=rate))
        mean_norm = norm if whole_norm == "same" else whole_norm
        self.pool = pool
        self.whole = nn.Conv2d(channels, width, 1, bias=mean_norm is None)
        self.whole_norm = _SteadyBatchNorm(width) if mean_norm == "batch" else make_norm(mean_norm, width)
        self.join = ConvNorm((len(rates) + 2) * width, width, 1, norm=norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, H, W]."""
        mean = self.whole_norm(self.whole(self._mean(features))).relu()
        maps = [branch(features) for branch in self.branches]
        if self.pool is None:
            mean = mean.expand_as(maps[0])
        else:
            mean = functional.interpolate(mean, size=features.shape[-2:], mode="bilinear", align_corners=False)
        return self.dropout(self.join(torch.cat([*maps, mean], 1)))

    def _mean(self, features: Tensor) -> Tensor:
        if self.pool is None:
            return features.mean((2, 3), keepdim=True)
        window = [min(side, size) for side, size in zip(self.pool, features.shape[-2:], strict=True)]
        return functional.avg_pool2d(features, window, stride=1)


class DeepLabHead(nn.Module):
    """ASPP, a convolution, and a classifier: DeepLabv3 (Chen et al. 2017); logits [B, K, H, W] at the input's stride.

    Args:
        channels: of the coarsest map. classes: K. width, rates, norm, dropout: as ``ASPP``'s.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        width: int = 256,
        rates: Sequence[int] = (12, 24, 36),
        norm: NormName = "batch",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(channels, width, rates=rates, norm=norm, dropout=dropout)
        self.conv = ConvNorm(width, width, norm=norm)
        self.predictor = nn.Conv2d(width, classes, 1)
        _init(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first, of which the last one is read."""
        return self.predictor(self.conv(self.aspp(features[-1])))


class DeepLabPlusHead(nn.Module):
    """DeepLabv3+ (Chen et al. 2018, section 3.1): ASPP's map enlarged, joined to a fine one, refined and classified.

    Logits [B, K, H_0, W_0] at the finest map's size.

    Args:
        channels: of the coarsest map. fine_channels: of the finest one. classes: K.
        fine_width: channels that the finest map is reduced to (table 1: 48).
        depth: 3x3 convolutions after the join (table 2: 2).
        width, rates, norm, dropout: as ``ASPP``'s.
    """

    def __init__(
        self,
        channels: int,
        fine_channels: int,
        classes: int,
        *,
        width: int = 256,
        fine_width: int = 48,
        depth: int = 2,
        rates: Sequence[int] = (6, 12, 18),
        norm: NormName = "batch",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(channels, width, rates=rates, norm=norm, dropout=dropout)
        self.fine = ConvNorm(fine_channels, fine_width, 1, norm=norm)
        self.convs = nn.Sequential(
            *(ConvNorm(width + fine_width if k == 0 else width, width, norm=norm) for k in range(depth))
        )
        self.predictor = nn.Conv2d(width, classes, 1)
        _init(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first; the first and the last are read."""
        fine = self.fine(features[0])
        coarse = functional.interpolate(
            self.aspp(features[-1]), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        return self.predictor(self.convs(torch.cat((coarse, fine), 1)))


class _SteadyBatchNorm(nn.BatchNorm2d):
    """Batch norm that a single value a channel does not fail: then the running statistics serve."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def _init(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
