"""Mask2Former's pixel decoder: deformable attention over three maps, then a finer one beside it.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022 (arXiv:2112.01527),
section 4.1 and appendix; the encoder is Deformable DETR's (Zhu et al., arXiv:2010.04159, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import make_norm
from maskwright.nn.position import sine_position
from maskwright.ops.deformable_attention import deformable_attention


class DeformableAttention(nn.Module):
    """Multi-scale deformable self-attention (Deformable DETR, equation 3).

    Args:
        channels: width C. heads, levels, points: M, L and P; each query reads M * L * P points.
    """

    def __init__(self, channels: int, heads: int = 8, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels must be a multiple of heads, got {channels} and {heads}")
        self.heads, self.levels, self.points = heads, levels, points
        self.value = nn.Linear(channels, channels)
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.output = nn.Linear(channels, channels)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.offsets, self.weights):
            nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(_rays(heads, levels, points))

    def forward(self, query: Tensor, cells: Tensor, reference: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """[B, Q, C] and cells [B, S, C] of maps of ``shapes`` (H, W), queries at ``reference`` [Q, 2] -> [B, Q, C]."""
        batch, queries = query.shape[:2]
        values = self.value(cells).view(batch, -1, self.heads, cells.shape[-1] // self.heads)
        grouped = (batch, queries, self.heads, self.levels, self.points)
        sides = torch.tensor([[w, h] for h, w in shapes], dtype=torch.float32, device=query.device)
        steps = self.offsets(query).view(*grouped, 2).float() / sides[:, None]
        locations = reference[None, :, None, None, None].float() + steps
        weights = self.weights(query).view(*grouped[:3], -1).float().softmax(-1).view(grouped)
        return self.output(deformable_attention(values, shapes, locations, weights))


def _rays(heads: int, levels: int, points: int) -> Tensor:
    """Where a fresh head looks: its own direction, point k at k + 1 cells (Deformable DETR, section A.4); flat."""
    angles = torch.arange(heads, dtype=torch.float32) * (2.0 * math.pi / heads)
    rays = torch.stack([angles.cos(), angles.sin()], -1)
    rays = rays / rays.abs().amax(-1, keepdim=True)
    far = torch.arange(1, points + 1, dtype=torch.float32)
    return (rays[:, None, None] * far[None, None, :, None]).expand(heads, levels, points, 2).reshape(-1)


class DeformableLayer(nn.Module):
    """Deformable self-attention and a two-layer perceptron, each added and normalized."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, levels, points)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm2 = nn.LayerNorm(channels)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, cells: Tensor, positions: Tensor, reference: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """[B, S, C] -> [B, S, C]; ``positions`` [S, C] are added to the queries."""
        cells = self.norm1(cells + self.attention(cells + positions, cells, reference, shapes))
        return self.norm2(cells + self.linear2(functional.relu(self.linear1(cells))))


class DeformablePixelDecoder(nn.Module):
    """Backbone maps to a fine map of mask features and to the encoder's maps.

    Args:
        in_channels: widths of the incoming maps, finest first; all but the first go through the encoder.
        channels: width of the encoder and of its maps.
        mask_channels: width of the mask features.
        depth, heads, points, hidden: of the encoder's layers.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        mask_channels: int = 256,
        *,
        depth: int = 6,
        heads: int = 8,
        points: int = 4,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        coarse = list(in_channels)[:0:-1]
        self.project = nn.ModuleList(_conv_norm(width, channels, 1, bias=True) for width in coarse)
        self.level = nn.Parameter(torch.randn(len(coarse), channels))
        self.layers = nn.ModuleList(DeformableLayer(channels, heads, len(coarse), points, hidden) for _ in range(depth))
        self.lateral = _conv_norm(in_channels[0], channels, 1)
        self.smooth = _conv_norm(channels, channels, 3)
        self.mask_features = nn.Conv2d(channels, mask_channels, 1)
        for module in self.project.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
        for conv in (self.lateral, self.smooth, self.mask_features):
            for module in conv.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, a=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps [B, C_i, H_i, W_i], finest first -> mask features [B, K, H_0, W_0] and encoded maps, coarsest first."""
        maps = [project(map_) for project, map_ in zip(self.project, list(features)[:0:-1], strict=True)]
        shapes = [(m.shape[-2], m.shape[-1]) for m in maps]
        cells = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        positions, reference = self.places(shapes, cells)
        for layer in self.layers:
            cells = layer(cells, positions, reference, shapes)
        parts = cells.split([h * w for h, w in shapes], 1)
        maps = [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]
        fine = self.lateral(features[0])
        fine = fine + functional.interpolate(maps[-1], fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_features(functional.relu(self.smooth(fine))), maps

    def places(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
        """What says where a cell is: an embedding [S, C] of position and level, and its center [S, 2] in 0..1."""
        embeddings: list[Tensor] = []
        centers: list[Tensor] = []
        for level, (height, width) in enumerate(shapes):
            position = whole_position((height, width), like.shape[-1], like.device)
            embeddings.append(position.flatten(1).T + self.level[level])
            y = (torch.arange(height, device=like.device) + 0.5) / height
            x = (torch.arange(width, device=like.device) + 0.5) / width
            centers.append(torch.stack([x.repeat(height), y[:, None].expand(-1, width).flatten()], -1))
        return torch.cat(embeddings).to(like.dtype), torch.cat(centers)


def whole_position(size: tuple[int, int], channels: int, device: torch.device) -> Tensor:
    """``sine_position`` [C, H, W] of a map without padding, from that of one column and one row."""
    rows, columns = (torch.ones(1, *line, dtype=torch.bool, device=device) for line in ((size[0], 1), (1, size[1])))
    half = channels // 2
    down, along = sine_position(rows, channels)[0, :half], sine_position(columns, channels)[0, half:]
    return torch.cat([down.expand(-1, -1, size[1]), along.expand(-1, size[0], -1)])


def _conv_norm(channels: int, out_channels: int, kernel: int, bias: bool = False) -> nn.Sequential:
    conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(conv, make_norm("group", out_channels))
