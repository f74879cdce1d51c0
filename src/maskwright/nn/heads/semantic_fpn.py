"""Semantic FPN: all levels of a pyramid brought to one size and summed (Kirillov et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import ConvNorm, NormName


class SemanticFPNHead(nn.Module):
    """Maps of L levels [B, C, H_i, W_i], finest first and each half the one before, to logits [B, K, H_0, W_0].

    Level i passes i stages of a 3x3 convolution, norm, ReLU and twofold enlargement; the finest one passes one without
    the enlargement. The sum is classified by a 1x1 convolution.

    Args:
        channels: C. classes: K. levels: L. width: channels of the convolutions. norm: after each of them.
    """

    def __init__(
        self, channels: int, classes: int, *, levels: int = 4, width: int = 128, norm: NormName = "group"
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(ConvNorm(channels if k == 0 else width, width, norm=norm) for k in range(max(i, 1)))
            for i in range(levels)
        )
        self.predictor = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits at the finest level's size; more levels than L are not looked at."""
        total = None
        for i, convs in enumerate(self.levels):
            hidden = features[i]
            for k, conv in enumerate(cast(nn.ModuleList, convs)):
                hidden = conv(hidden)
                if i > 0:  # the very size, where a level has an odd side
                    size = features[i - k - 1].shape[-2:]
                    hidden = functional.interpolate(hidden, size=size, mode="bilinear", align_corners=False)
            total = hidden if total is None else total + hidden
        assert total is not None
        return self.predictor(total)


def pixel_cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropy over pixels that have a class, and how many these are.

    Args:
        logits: [B, K, h, w], enlarged here to the target's size, a picture at a time.
        target: int64 [B, H, W], -1 where void.

    Returns:
        Two scalars; the sum is zero, with a gradient, where no pixel has a class.
    """
    total = logits.sum() * 0.0
    for maps, wanted in zip(logits, target, strict=True):
        full = functional.interpolate(maps[None].float(), size=wanted.shape, mode="bilinear", align_corners=False)
        total = total + functional.cross_entropy(full, wanted[None], ignore_index=-1, reduction="sum")
    return total, (target >= 0).sum().to(total.dtype)
