"""The transformer of DETR (appendix A.3) and MaskFormer: norms after each step, positions added to queries and keys."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.attention import Attention


class MLP(nn.Sequential):
    """``depth`` linear layers with ReLU between them."""

    def __init__(self, channels: int, hidden: int, out_channels: int, depth: int = 3) -> None:
        super().__init__()
        widths = [channels, *[hidden] * (depth - 1), out_channels]
        for i, (before, after) in enumerate(pairwise(widths)):
            self.add_module(f"linear{i}", nn.Linear(before, after))
            if i + 1 < depth:
                self.add_module(f"relu{i}", nn.ReLU(inplace=True))


class FeedForward(nn.Module):
    """Two linear layers on every token, added to it and normalized."""

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(channels)
        for layer in (self.widen, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        change = self.narrow(self.dropout(functional.relu(self.widen(tokens))))
        return self.norm(tokens + self.dropout(change))


class EncoderLayer(nn.Module):
    """Every token looks at every other one."""

    def __init__(self, channels: int, heads: int = 8, hidden: int = 2048, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention, self.norm = Attention(channels, heads, dropout), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.feed = FeedForward(channels, hidden, dropout)

    def forward(self, tokens: Tensor, position: Tensor, allowed: Tensor | None = None) -> Tensor:
        """[B, N, C] and their positions -> [B, N, C]; ``allowed`` bool [B, 1, 1, N]."""
        placed = tokens + position
        tokens = self.norm(tokens + self.dropout(self.attention(placed, placed, tokens, allowed)))
        return self.feed(tokens)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the picture."""

    def __init__(self, channels: int, heads: int = 8, hidden: int = 2048, dropout: float = 0.0) -> None:
        super().__init__()
        self.among, self.among_norm = Attention(channels, heads, dropout), nn.LayerNorm(channels)
        self.across, self.across_norm = Attention(channels, heads, dropout), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.feed = FeedForward(channels, hidden, dropout)

    def forward(
        self, state: Tensor, queries: Tensor, memory: Tensor, placed: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        """The queries' ``state`` [B, Q, C] -> [B, Q, C].

        Args:
            queries: what tells them apart, [Q, C]. memory: tokens of the picture [B, N, C].
            placed: ``memory`` with its positions added. allowed: bool [B, 1, 1, N].
        """
        told = state + queries
        state = self.among_norm(state + self.dropout(self.among(told, told, state)))
        seen = self.across(state + queries, placed, memory, allowed)
        return self.feed(self.across_norm(state + self.dropout(seen)))


class Encoder(nn.Module):
    """``depth`` encoder layers over the cells of a map; with depth 0 the map itself."""

    def __init__(
        self, channels: int, *, depth: int = 6, heads: int = 8, hidden: int = 2048, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, hidden, dropout) for _ in range(depth))

    def forward(self, features: Tensor, position: Tensor, inside: Tensor | None = None) -> Tensor:
        """[B, C, h, w], their positions, and bool [B, h, w] where there is padding -> [B, C, h, w]."""
        tokens, places, allowed = to_tokens(features), to_tokens(position.to(features.dtype)), keys(inside)
        for layer in self.layers:
            tokens = layer(tokens, places, allowed)
        return tokens.transpose(1, 2).unflatten(2, features.shape[-2:])


class Decoder(nn.Module):
    """``depth`` decoder layers whose states, normalized by one norm, are all given, for auxiliary losses."""

    def __init__(
        self, channels: int, *, depth: int = 6, heads: int = 8, hidden: int = 2048, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(channels, heads, hidden, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, queries: Tensor, features: Tensor, position: Tensor, inside: Tensor | None = None
    ) -> list[Tensor]:
        """Queries [Q, C] on a map [B, C, h, w] -> the states [B, Q, C] after each layer."""
        memory, allowed = to_tokens(features), keys(inside)
        placed = memory + to_tokens(position.to(features.dtype))
        queries = queries.to(features.dtype)
        state = torch.zeros_like(queries).expand(features.shape[0], -1, -1)
        states: list[Tensor] = []
        for layer in self.layers:
            state = layer(state, queries, memory, placed, allowed)
            states.append(self.norm(state))
        return states


def to_tokens(maps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h * w, C]."""
    return maps.flatten(2).transpose(1, 2)


def keys(inside: Tensor | None) -> Tensor | None:
    """bool [B, h, w] -> [B, 1, 1, h * w], as ``Attention`` wants it."""
    return None if inside is None else inside.flatten(1)[:, None, None]
