"""DETR's mask head (appendix A.1, figure 8): where each query looks, drawn finer and finer with the pyramid's help."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class AttentionMaps(nn.Module):
    """Attention of a query over the picture, for each head; one softmax over cells and heads together.

    Args:
        channels: of queries and memory. heads: must divide it.
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        for layer in (self.query, self.key):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def keys(self, memory: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w], the same for all queries."""
        return self.key(memory.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(self, states: Tensor, keys: Tensor, inside: Tensor | None = None) -> Tensor:
        """N queries [N, C], each with the keys of its own picture.

        Args:
            keys: [N, C, h, w]. inside: bool [N, h, w], what is no padding.

        Returns:
            [N, heads, h, w], of sum 1 for each query.
        """
        query = self.query(states).unflatten(1, (self.heads, -1))
        key = keys.unflatten(1, (self.heads, -1))
        scores = torch.einsum("nac,nachw->nahw", query * query.shape[-1] ** -0.5, key)
        if inside is not None:
            scores = scores.masked_fill(~inside[:, None], -torch.inf)
        return scores.flatten(1).softmax(1).view_as(scores)


class MaskHead(nn.Module):
    """From attention maps to mask logits, joined by C4, C3 and C2 on the way.

    The first convolution reads the picture's features beside the attention maps. It is linear, so the features' part
    is computed once for all queries of a picture.

    Args:
        channels: of the picture's features. heads: attention maps of each query.
        laterals: widths of C4, C3 and C2, in this order.
    """

    def __init__(self, channels: int, heads: int, laterals: Sequence[int]) -> None:
        super().__init__()
        first = channels + heads
        widths = [first, *(max(8, channels // n // 8 * 8) for n in (2, 4, 8, 16))]
        inputs = [first, *widths[:-1]]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(inputs, widths, strict=True))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths)
        self.laterals = nn.ModuleList(
            nn.Conv2d(i, o, 1) for i, o in zip(laterals, widths[1:4], strict=True)
        )  # fmt: skip
        self.output = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def prepare(self, features: Tensor, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """What all queries of a picture share: the first convolution's part, and the lateral maps, coarsest first.

        Args:
            features: [B, channels, h, w]. pyramid: C2, C3, C4 [B, c, H / s, W / s].
        """
        first: nn.Module = self.convs[0]
        assert isinstance(first, nn.Conv2d)
        weight = first.weight[:, : features.shape[1]]
        shared = functional.conv2d(features, weight, first.bias, padding=1)
        return [shared, *(conv(level) for conv, level in zip(self.laterals, reversed(pyramid), strict=True))]

    def forward(self, maps: Tensor, prepared: Sequence[Tensor], picture: Tensor) -> Tensor:
        """Attention maps [N, heads, h, w] of the pictures [N] -> mask logits [N, H / 4, W / 4]."""
        first = self.convs[0]
        assert isinstance(first, nn.Conv2d)
        x = functional.conv2d(maps, first.weight[:, -maps.shape[1] :], padding=1)
        x = functional.relu(self.norms[0](x + prepared[0][picture]))
        for i in range(1, 5):
            x = functional.relu(self.norms[i](self.convs[i](x)))
            if i < 4:
                lateral = prepared[i]
                x = functional.interpolate(x, size=lateral.shape[-2:], mode="nearest") + lateral[picture]
        return self.output(x)[:, 0]
