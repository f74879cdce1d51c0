"""What SOLO's heads share (Wang et al. 2020, sections 3.1 and 3.2): towers on S x S grids, coordinates, maxima."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.nn.norm import ConvNorm, NormName


def tower(channels: int, width: int, depth: int, norm: NormName) -> nn.ModuleList:
    """``depth`` 3x3 convolutions with norms and ReLUs, the first of which takes ``channels``."""
    return nn.ModuleList(ConvNorm(width if i else channels, width, norm=norm) for i in range(depth))


def initialize(head: nn.Module, classes: nn.Conv2d, prior: float) -> None:
    """Convolutions begin small; every cell's class with probability ``prior``."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    assert classes.bias is not None
    nn.init.constant_(classes.bias, -log((1 - prior) / prior))


def resize(features: Tensor, size: int | Sequence[int]) -> Tensor:
    """Bilinear, half-pixel centers: [B, C, H, W] to another size (a number for a square one)."""
    sides = (size, size) if isinstance(size, int) else (size[0], size[1])
    return functional.interpolate(features, size=sides, mode="bilinear", align_corners=False)


def enlarge(features: Tensor, factor: int) -> Tensor:
    """``resize`` by a whole number."""
    return resize(features, [side * factor for side in features.shape[-2:]])


def balanced(features: Sequence[Tensor]) -> list[Tensor]:
    """P2 to P6 on strides 8, 8, 16, 32, 32: P2 is halved and P6 brought to P5's size (section 3.3, "Inference")."""
    if torch.compiler.is_compiling():  # a graph knows no factors; the sides are even there
        first = resize(features[0], [side // 2 for side in features[0].shape[-2:]])
    else:
        first = functional.interpolate(features[0], scale_factor=0.5, mode="bilinear", align_corners=False)
    last = resize(features[-1], features[-2].shape[-2:])
    return [first, *features[1:-1], last]


def coordinates(features: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical place of each cell from -1 to 1, [B, 1, H, W] each (section 3.2, CoordConv)."""
    height, width = features.shape[-2:]
    x, y = _spread(width, features), _spread(height, features)
    shape = (features.shape[0], 1, height, width)
    return x[None, None, None].expand(shape), y[None, None, :, None].expand(shape)


def _spread(count: int, like: Tensor) -> Tensor:
    """``count`` numbers from -1 to 1, evenly."""
    if not torch.compiler.is_compiling():
        return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype)
    # linspace takes no symbols
    return (torch.arange(count, device=like.device) * (2 / (count - 1)) - 1).to(like.dtype)


def local_maxima(prob: Tensor) -> Tensor:
    """[B, C, S, S] where no cell above, to the left or between them is larger, 0 elsewhere (points NMS, 2x2)."""
    highest = functional.max_pool2d(prob, 2, stride=1, padding=1)[:, :, :-1, :-1]
    return prob * (highest == prob)


class CategoryBranch(nn.Module):
    """Maps of any size to class logits [B, K, S, S]: resized to the grid first (section 3.2)."""

    def __init__(self, channels: int, classes: int, *, width: int, depth: int, norm: NormName, prior: float) -> None:
        super().__init__()
        self.tower = tower(channels, width, depth, norm)
        self.logits = nn.Conv2d(width, classes, 3, padding=1)
        initialize(self, self.logits, prior)

    def forward(self, features: Tensor, grid: int) -> Tensor:
        """[B, C, H, W] -> [B, K, grid, grid]."""
        hidden = resize(features, grid)
        for layer in self.tower:
            hidden = layer(hidden)
        return self.logits(hidden)


class GridMasks(nn.Module):
    """SOLO's mask branch: one map for each of S^2 cells, or of S rows and S columns (decoupled head, section 5).

    Args:
        channels: of the pyramid. grids: S of each level. decoupled: two towers and S + S maps, whose product is a mask.
    """

    def __init__(
        self,
        channels: int,
        grids: Sequence[int],
        *,
        width: int,
        depth: int,
        norm: NormName,
        decoupled: bool = False,
    ) -> None:
        super().__init__()
        self.decoupled = decoupled
        extra = 1 if decoupled else 2
        self.towers = nn.ModuleList(tower(channels + extra, width, depth, norm) for _ in range(3 - extra))
        kernel = 3 if decoupled else 1
        self.maps = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width, s if decoupled else s * s, kernel, padding=kernel // 2) for s in grids)
            for _ in range(3 - extra)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, level: int) -> list[Tensor]:
        """[B, C, H, W] -> what ``at`` takes: hidden maps [B, width, 2H, 2W]; decoupled, the S columns' and S rows'."""
        x, y = coordinates(features)
        inputs = [torch.cat((features, part), 1) for part in ((x, y) if self.decoupled else (torch.cat((x, y), 1),))]
        out: list[Tensor] = []
        for hidden, layers, maps in zip(inputs, self.towers, self.maps, strict=True):
            for layer in cast(nn.ModuleList, layers):
                hidden = layer(hidden)
            hidden = enlarge(hidden, 2)
            out.append(cast(nn.ModuleList, maps)[level](hidden) if self.decoupled else hidden)
        return out

    def at(self, hidden: Sequence[Tensor], level: int, image: int, cells: Tensor) -> tuple[Tensor, ...]:
        """Mask logits [N, 2H, 2W] of ``cells`` [N] of one image; decoupled, those of their columns and of their rows.

        Of the S^2 maps only these are computed.
        """
        if self.decoupled:
            side = hidden[0].shape[1]
            return hidden[0][image][cells % side], hidden[1][image][cells // side]
        conv = cast(nn.Conv2d, cast(nn.ModuleList, self.maps[0])[level])
        assert conv.bias is not None
        weight = conv.weight[cells, :, 0, 0]
        maps = weight @ hidden[0][image].flatten(1) + conv.bias[cells, None]
        return (maps.unflatten(1, (hidden[0].shape[-2], hidden[0].shape[-1])),)


class UnifiedMaskFeatures(nn.Module):
    """SOLOv2's mask branch: P2 to P5 summed on P2, coordinates on the coarsest (section 3.2.2, figure 3).

    Args:
        channels: of the pyramid. width: of the hidden maps. out_channels: of the feature.
    """

    def __init__(
        self, channels: int, *, width: int, out_channels: int, levels: int = 4, norm: NormName = "group"
    ) -> None:
        super().__init__()

        def chain(level: int) -> nn.ModuleList:
            first = channels + 2 * (level == levels - 1)
            return nn.ModuleList(
                ConvNorm(width if i else first, width, norm=norm) for i in range(max(level, 1))
            )  # fmt: skip

        self.levels = nn.ModuleList(chain(level) for level in range(levels))
        self.output = ConvNorm(width, out_channels, 1, norm=norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> [B, out_channels, H_0, W_0]."""
        count = len(self.levels)
        total: Tensor | None = None
        for level, layers in enumerate(self.levels):
            hidden = features[level]
            if level == count - 1:
                hidden = torch.cat((hidden, *coordinates(hidden)), 1)
            for layer in cast(nn.ModuleList, layers):
                hidden = layer(hidden)
                if level:
                    hidden = enlarge(hidden, 2)
            total = hidden if total is None else total + hidden
        assert total is not None
        return self.output(total)


class DynamicKernels(nn.Module):
    """SOLOv2's kernel branch: a 1x1 convolution for each cell of the grid (section 3.2.1).

    Args:
        channels: of the pyramid. kernels: numbers a cell predicts, the width of the mask feature.
    """

    def __init__(self, channels: int, kernels: int, *, width: int, depth: int, norm: NormName) -> None:
        super().__init__()
        self.tower = tower(channels + 2, width, depth, norm)
        self.kernels = nn.Conv2d(width, kernels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        assert self.kernels.bias is not None
        nn.init.zeros_(self.kernels.bias)

    def forward(self, features: Tensor, grid: int) -> Tensor:
        """[B, C, H, W] -> [B, kernels, grid, grid]."""
        hidden = resize(torch.cat((features, *coordinates(features)), 1), grid)
        for layer in self.tower:
            hidden = layer(hidden)
        return self.kernels(hidden)
