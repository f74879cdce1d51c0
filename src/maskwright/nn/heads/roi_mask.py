"""The mask head on RoI features (Mask R-CNN, section 3 and figure 4, right)."""

from __future__ import annotations

from torch import Tensor, nn

from maskwright.nn.norm import ConvNorm, NormName


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
