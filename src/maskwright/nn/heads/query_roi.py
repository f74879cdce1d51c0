"""Heads of queries that each own a box (Sparse R-CNN, section 3 and figure 4; QueryInst, sections 3.1 and 3.2)."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

from maskwright.nn.attention import Attention
from maskwright.nn.heads.roi_mask import MaskHead
from maskwright.nn.norm import NormName


class DynamicConv(nn.Module):
    """Two 1x1 convolutions on a RoI's features, with kernels made by its query (Sparse R-CNN, figure 4).

    Args:
        channels: C of queries and features. width: D between the convolutions.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.kernels = nn.Linear(channels, 2 * channels * width)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(channels)
        nn.init.xavier_uniform_(self.kernels.weight)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """[R, C] and [R, C, h, w] -> [R, h * w, C]."""
        channels = features.shape[1]
        first, second = self.kernels(queries).chunk(2, 1)
        cells = features.flatten(2).transpose(1, 2)
        hidden = torch.bmm(cells, first.reshape(-1, channels, self.width).to(cells.dtype))
        hidden = self.norm_in(hidden).relu()
        out = torch.bmm(hidden, second.reshape(-1, self.width, channels).to(hidden.dtype))
        return self.norm_out(out).relu()


class QueryBoxHead(nn.Module):
    """One stage: queries look at each other, then each at its own RoI, and say class, box and their own successors.

    Args:
        channels: C. size: s of the RoI features. classes: K.
        heads: of the attention. hidden: width of the feed-forward layer. dynamic_width: of ``DynamicConv``.
        class_depth, box_depth: hidden layers before the class logits and the box deltas.
        dropout: of attention, interaction and feed-forward layer. prior: probability that the class logits begin with.
        box_std: standard deviation of the box deltas' first weights; ``None`` is Xavier's, as in the originals, which
            makes fresh boxes leap about the picture.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        *,
        heads: int = 8,
        hidden: int = 2048,
        dynamic_width: int = 64,
        class_depth: int = 1,
        box_depth: int = 3,
        dropout: float = 0.0,
        prior: float = 0.01,
        box_std: float | None = None,
    ) -> None:
        super().__init__()
        self.attention, self.attention_norm = Attention(channels, heads, dropout), nn.LayerNorm(channels)
        self.dynamic = DynamicConv(channels, dynamic_width)
        self.project, self.project_norm = nn.Linear(channels * size * size, channels), nn.LayerNorm(channels)
        self.interaction_norm = nn.LayerNorm(channels)
        self.expand, self.shrink = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.feed_norm = nn.LayerNorm(channels)
        self.class_layers = nn.ModuleList(_layer(channels) for _ in range(class_depth))
        self.box_layers = nn.ModuleList(_layer(channels) for _ in range(box_depth))
        self.class_logits, self.box_deltas = nn.Linear(channels, classes), nn.Linear(channels, 4)
        self.drop = nn.Dropout(dropout)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and not name.startswith("attention."):
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.class_logits.bias, -log((1 - prior) / prior))
        if box_std is not None:
            nn.init.normal_(self.box_deltas.weight, std=box_std)
            nn.init.zeros_(self.box_deltas.bias)

    def forward(self, features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """RoI features [B * Q, C, s, s] and queries [B, Q, C].

        Returns:
            Class logits [B, Q, K]; box deltas [B, Q, 4]; the next stage's queries [B, Q, C]; and the queries [B, Q, C]
            after their attention, which the mask head shares.
        """
        attended = self.attention_norm(queries + self.drop(self.attention(queries, queries, queries)))
        cells = self.dynamic(attended.flatten(0, 1), features)
        seen = self.project_norm(self.project(cells.flatten(1))).relu().view_as(attended)
        queries = self.interaction_norm(attended + self.drop(seen))
        fed = self.shrink(self.drop(self.expand(queries).relu()))
        queries = self.feed_norm(queries + self.drop(fed))
        for_class, for_box = queries, queries
        for layer in self.class_layers:
            for_class = layer(for_class)
        for layer in self.box_layers:
            for_box = layer(for_box)
        return self.class_logits(for_class), self.box_deltas(for_box), queries, attended


def _layer(channels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU(inplace=True))


class QueryMaskHead(MaskHead):
    """A mask head whose features are first convolved with the query's own kernels (QueryInst, section 3.2).

    Args:
        channels, classes, width, depth, norm: as ``MaskHead``'s.
        dynamic_width: of the query's kernels; 0 leaves them out, and the mask head knows of no query (table 5).
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        width: int = 256,
        depth: int = 4,
        norm: NormName = "batch",
        dynamic_width: int = 64,
    ) -> None:
        super().__init__(channels, classes, width=width, depth=depth, norm=norm)
        self.dynamic = DynamicConv(channels, dynamic_width) if dynamic_width else None
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor, queries: Tensor | None = None) -> Tensor:
        """[R, C, s, s] and queries [R, C] -> mask logits [R, K, 2s, 2s]."""
        if self.dynamic is not None:
            if queries is None:
                raise ValueError("a dynamic mask head needs the queries of its RoIs")
            features = self.dynamic(queries, features).transpose(1, 2).unflatten(2, features.shape[-2:])
        return super().forward(features)
