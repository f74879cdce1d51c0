"""Mask heads on RoI features (Mask R-CNN, section 3 and figure 4, right; PANet, section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from maskwright.nn.heads.roi_box import Fusion, fuse_levels
from maskwright.nn.losses import product_logit
from maskwright.nn.norm import ConvNorm, NormName

MaskFusion = Literal["sum", "max", "product"]


class MaskHead(nn.Module):
    """RoI features [R, C, s, s] to mask logits [R, K, 2s, 2s], one map a class, so that masks do not compete.

    Args:
        channels: C. classes: K, or 1 for a class-agnostic head.
        width: channels of the hidden convolutions and of the 2x deconvolution.
        depth: number of 3x3 convolutions.
        norm: after each of them.
    """

    def __init__(self, channels: int, classes: int, *, width: int = 256, depth: int = 4, norm: NormName = None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvNorm(channels if i == 0 else width, width, norm=norm) for i in range(depth))
        self.upsample = nn.ConvTranspose2d(width if depth else channels, width, 2, 2)
        self.predictor = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.predictor.weight, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        """[R, C, s, s] -> [R, K, 2s, 2s]."""
        for conv in self.convs:
            features = conv(features)
        return self.predictor(self.upsample(features).relu())


class FusedMaskHead(nn.Module):
    """PANet's mask head: levels fused behind the first convolution, and a fully-connected path beside the others.

    A convolution sees every place alike, a fully-connected layer each place on its own: the second path predicts one
    mask for all classes from the third convolution on, and is fused with the maps of the classes (figure 4).

    Args:
        levels: L of adaptive feature pooling; 0 for features of one level [R, C, s, s].
        channels: C. size: s. classes: K, or 1 for a class-agnostic head.
        width, depth, norm: as ``MaskHead``'s.
        fuse: elementwise ``"max"`` or ``"sum"`` over the levels. fuse_after: convolutions before it.
        fully_connected: with the second path.
        start: the convolution it branches off (table 5: 3 is best).
        combine: ``"sum"`` or ``"max"`` of the paths' logits, or the ``"product"`` of their probabilities (table 5).
    """

    def __init__(
        self,
        levels: int,
        channels: int,
        size: int,
        classes: int,
        *,
        width: int = 256,
        depth: int = 4,
        norm: NormName = None,
        fuse: Fusion = "max",
        fuse_after: int = 1,
        fully_connected: bool = True,
        start: int = 3,
        combine: MaskFusion = "sum",
    ) -> None:
        super().__init__()
        before = fuse_after if levels else 0
        if not 0 <= fuse_after <= start <= depth:
            raise ValueError(
                f"the fully-connected path must branch off between the fusion of levels and the last convolution, got "
                f"fuse_after {fuse_after}, start {start}, depth {depth}"
            )

        def conv(index: int) -> nn.Module:
            return ConvNorm(channels if index == 0 else width, width, norm=norm)

        self.fuse: Fusion = fuse
        self.combine: MaskFusion = combine
        self.levels, self.branch = levels, start - before
        self.each = nn.ModuleList(nn.ModuleList(conv(i) for i in range(before)) for _ in range(levels))
        self.rest = nn.ModuleList(conv(i) for i in range(before, depth))
        self.upsample = nn.ConvTranspose2d(width if depth else channels, width, 2, 2)
        self.predictor = nn.Conv2d(width, classes, 1)
        self.full_convs, self.full = nn.ModuleList(), None
        if fully_connected:
            half = max(width // 2, 1)
            first = width if start else channels
            self.full_convs = nn.ModuleList((ConvNorm(first, width, norm=norm), ConvNorm(width, half, norm=norm)))
            self.full = nn.Linear(half * size * size, (2 * size) ** 2)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.predictor.weight, std=0.001)
        if self.full is not None:
            nn.init.normal_(self.full.weight, std=0.01)
            nn.init.zeros_(self.full.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[R, L, C, s, s] (without levels [R, C, s, s]) -> [R, K, 2s, 2s]."""
        hidden = fuse_levels(features, self.each, self.fuse) if self.levels else features
        branch = hidden
        for i, conv in enumerate(self.rest):
            hidden = conv(hidden)
            if i + 1 == self.branch:
                branch = hidden
        logits = self.predictor(self.upsample(hidden).relu())
        if self.full is None:
            return logits
        for conv in self.full_convs:
            branch = conv(branch)
        # the map's sides are known numbers, so that no size needs guessing for R = 0
        one = self.full(branch.flatten(1)).unflatten(1, (1, logits.shape[-2], logits.shape[-1]))
        if self.combine == "sum":
            return logits + one
        return torch.maximum(logits, one) if self.combine == "max" else product_logit(logits, one)
