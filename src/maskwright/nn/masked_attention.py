"""Mask2Former's decoder: queries that look only where their own mask is.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022 (arXiv:2112.01527),
section 3.2: masked attention (equation 2), maps of three scales in turn, and learned query features that are masks too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.attention import Attention
from maskwright.nn.necks.deformable_encoder import whole_position
from maskwright.nn.transformer import MLP, FeedForward, to_tokens


@dataclass(slots=True)
class QueryMasks:
    """What one layer's Q queries stand for.

    ``class_logits`` [B, Q, C + 1], the last for no object; ``mask_logits`` [B, Q, H, W]; ``states`` [B, Q, K] before
    their norm.
    """

    class_logits: Tensor
    mask_logits: Tensor
    states: Tensor


class MaskedLayer(nn.Module):
    """Queries look at the cells of their masks, then at each other, then think alone (section 3.2.2)."""

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.across, self.across_norm = Attention(channels, heads, dropout), nn.LayerNorm(channels)
        self.among, self.among_norm = Attention(channels, heads, dropout), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.feed = FeedForward(channels, hidden, dropout)

    def forward(self, state: Tensor, places: Tensor, memory: Tensor, placed: Tensor, allowed: Tensor) -> Tensor:
        """The queries' ``state`` [B, Q, C] -> [B, Q, C].

        Args:
            places: the queries' positions [Q, C]. memory: cells [B, K, C]; ``placed`` the same with positions added.
            allowed: bool [B, 1, Q, K].
        """
        seen = self.across(state + places, placed, memory, allowed)
        state = self.across_norm(state + self.dropout(seen))
        told = state + places
        state = self.among_norm(state + self.dropout(self.among(told, told, state)))
        return self.feed(state)


class MaskedDecoder(nn.Module):
    """Queries to classes and masks.

    Args:
        channels: width C of queries and maps. classes: without "no object". mask_channels: of the mask features.
        queries: their number Q. levels: maps that the layers see in turn, coarsest first. depth: layers.
        heads, hidden, dropout: of the layers.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        mask_channels: int = 256,
        *,
        queries: int = 100,
        levels: int = 3,
        depth: int = 9,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(queries, channels))
        self.places = nn.Parameter(torch.randn(queries, channels))
        self.level = nn.Parameter(torch.randn(levels, channels))
        self.layers = nn.ModuleList(MaskedLayer(channels, heads, hidden, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)
        self.class_logits = nn.Linear(channels, classes + 1)
        self.mask_embedding = MLP(channels, channels, mask_channels)

    def forward(self, mask_features: Tensor, maps: Sequence[Tensor], every: bool = False) -> list[QueryMasks]:
        """Mask features [B, K, H, W] and maps [B, C, h, w], coarsest first -> the last layer's classes and masks.

        Args:
            every: give those of all layers, of the untouched queries first: what auxiliary losses need. Else only the
                cells of the next map are drawn in between: resizing and the inner product may change places.
        """
        memory = [to_tokens(m) + self.level[i].to(m.dtype) for i, m in enumerate(maps)]
        positions = [whole_position((m.shape[-2], m.shape[-1]), m.shape[1], m.device) for m in maps]
        placed = [m + p.flatten(1).T.to(m.dtype) for m, p in zip(memory, positions, strict=True)]
        sizes = [m.shape[-2:] for m in maps]
        small = [] if every else [_resize(mask_features, size) for size in sizes]
        state = self.features.to(mask_features.dtype).expand(mask_features.shape[0], -1, -1)
        places = self.places.to(mask_features.dtype)
        out: list[QueryMasks] = []
        for i, layer in enumerate(self.layers):
            level = i % len(maps)
            if every:
                out.append(self.read(state, mask_features))
                masks = _resize(out[-1].mask_logits, sizes[level])
            else:
                masks = draw(self.mask_embedding(self.norm(state)), small[level])
            inside = (masks.detach() >= 0).flatten(2)
            allowed = inside | ~inside.any(-1, keepdim=True)  # who would see nothing sees everything
            state = layer(state, places, memory[level], placed[level], allowed[:, None])
        return [*out, self.read(state, mask_features)]

    def read(self, state: Tensor, mask_features: Tensor) -> QueryMasks:
        """What the queries' ``state`` [B, Q, C] stands for."""
        normed = self.norm(state)
        return QueryMasks(self.class_logits(normed), draw(self.mask_embedding(normed), mask_features), state)


def draw(embeddings: Tensor, features: Tensor) -> Tensor:
    """Inner products [B, Q, H, W] of [B, Q, K] with the cells of [B, K, H, W]."""
    return (embeddings @ features.flatten(2)).unflatten(2, features.shape[-2:])


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
