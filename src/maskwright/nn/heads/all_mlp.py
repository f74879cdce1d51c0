"""SegFormer's decoder, all of linear layers (Xie et al. 2021, arXiv:2105.15203, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import NormName, make_norm


class AllMLPHead(nn.Module):
    """Maps of L levels [B, C_i, H_i, W_i], finest first, to logits [B, K, H_0, W_0].

    A linear layer gives each level the same width; enlarged to the finest one they are joined by a second, and a third
    classifies (equation 4). All three act on each pixel alone. Enlarging is linear, too, and keeps constants: so the
    second layer's part of a level is computed before that level is enlarged, and where nothing lies between the first
    two layers they are one. Outputs are the same, and most of the decoder's work is gone.

    Args:
        channels: C_i of the levels. classes: K. width: of the linear layers.
        norm: after the second layer, with a ReLU.
        level_norm: norm and ReLU after the first layers too, as mmsegmentation has them.
        dropout: of whole maps, before the classifier.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        *,
        width: int = 256,
        norm: NormName = "batch",
        level_norm: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(count, width, 1, bias=not level_norm) for count in channels)
        self.level_norms = nn.ModuleList(make_norm(norm, width) for _ in channels if level_norm)
        self.join = nn.Conv2d(len(channels) * width, width, 1, bias=norm is None)
        self.norm = make_norm(norm, width)
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = nn.Conv2d(width, classes, 1)
        nn.init.kaiming_normal_(self.join.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.01)
        if self.predictor.bias is not None:
            nn.init.zeros_(self.predictor.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits at the finest level's size."""
        size = features[0].shape[-2:]
        total = None
        for i, weight in enumerate(self.join.weight.chunk(len(self.levels), 1)):
            part = self._part(i, features[i], weight)
            if total is None:
                total = part
                continue
            total = total + functional.interpolate(part, size=size, mode="bilinear", align_corners=False)
        assert total is not None
        if self.join.bias is not None:
            total = total + self.join.bias[:, None, None]
        return self.predictor(self.dropout(self.norm(total).relu()))

    def _part(self, i: int, maps: Tensor, weight: Tensor) -> Tensor:
        """What level ``i`` adds to the second layer's output, at its own size; ``weight`` [K, K, 1, 1] is its part."""
        level = self.levels[i]
        assert isinstance(level, nn.Conv2d)
        if self.level_norms:
            return functional.conv2d(self.level_norms[i](level(maps)).relu(), weight)
        assert level.bias is not None
        joined, matrix = weight.flatten(1), level.weight.flatten(1)
        return functional.conv2d(maps, (joined @ matrix)[..., None, None], joined @ level.bias)
