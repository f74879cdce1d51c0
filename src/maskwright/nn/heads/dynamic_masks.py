"""Masks from a small network of their own for every object (CondInst: Tian, Shen, Chen 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from maskwright.nn.norm import ConvNorm, NormName
from maskwright.ops.aligned import aligned_bilinear


class MaskBranch(nn.Module):
    """The shared features that all objects' networks read: P3..P5 summed on P3, then a tower (figure 3).

    Args:
        channels: of the pyramid's maps. levels: how many of its finest maps are used.
        width, depth: of the tower. out_channels: of its output.
        norm: after each convolution but the last.
        classes: if not 0, an auxiliary semantic head on P3 with so many classes (section 4.6).
    """

    def __init__(
        self,
        channels: int,
        *,
        levels: int = 3,
        width: int = 128,
        depth: int = 4,
        out_channels: int = 8,
        norm: NormName = "batch",
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.refine = nn.ModuleList(ConvNorm(channels, width, norm=norm) for _ in range(levels))
        self.tower = nn.Sequential(*(ConvNorm(width, width, norm=norm) for _ in range(depth)))
        self.output = nn.Conv2d(width, out_channels, 1)
        self.semantic: nn.Sequential | None = None
        if classes:
            layers = [ConvNorm(channels if i == 0 else width, width, norm=norm) for i in range(2)]
            self.semantic = nn.Sequential(*layers, nn.Conv2d(width, classes, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.semantic is not None:
            last = self.semantic[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.constant_(last.bias, -4.595)  # a probability of 0.01, as the classes begin with

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Maps, finest first -> features [B, out_channels, H_0, W_0], and semantic logits [B, classes, H_0, W_0]."""
        total = self.refine[0](features[0])
        for conv, feature in zip(list(self.refine)[1:], features[1 : len(self.refine)], strict=True):
            part = conv(feature)
            total = total + aligned_bilinear(part, total.shape[-1] // part.shape[-1])
        semantic = None if self.semantic is None else self.semantic(features[0])
        return self.output(self.tower(total)), semantic


class DynamicMasks(nn.Module):
    """Runs each object's own network of ``depth`` 1x1 convolutions; it has no weights, it is given them (section 3.2).

    The originals write the N networks as one convolution with N groups over N copies of the features. The same sums are
    here batched matrix products, and in the first layer the features' part is one product without copies, to which the
    coordinates, being linear along x and y, are added by broadcasting.

    Args:
        channels: C of the shared features. width, depth: of each network.
        coordinates: two more input channels tell each cell where it lies: ``"relative"`` to the object's point,
            ``"absolute"`` in the picture (table 3), or ``None``.
    """

    def __init__(self, channels: int, *, width: int = 8, depth: int = 3, coordinates: str | None = "relative") -> None:
        super().__init__()
        if coordinates not in ("relative", "absolute", None):
            raise ValueError(f"coordinates must be 'relative', 'absolute' or None, got {coordinates!r}")
        self.coordinates = coordinates
        ends = [channels + (2 if coordinates else 0), *[width] * (depth - 1), 1]
        self.weights = [a * b for a, b in pairwise(ends)]
        self.ends = ends
        self.biases = ends[1:]

    @property
    def parameters_needed(self) -> int:
        """How many numbers an object's network has."""
        return sum(self.weights) + sum(self.biases)

    def forward(self, features: Tensor, parameters: Tensor, points: Tensor, extents: Tensor, stride: int) -> Tensor:
        """Mask logits [N, H, W] of one image's objects.

        Args:
            features: [C, H, W] with cells of ``stride`` pixels.
            parameters: [N, ``parameters_needed``]: all weights (out x in, coordinates first), then all biases.
            points: [N, 2] (x, y) in pixels: where each object was found.
            extents: [N], pixels that one unit of a relative coordinate stands for.
        """
        count = parameters.shape[0]
        parts = parameters.split([*self.weights, *self.biases], dim=1)
        weights = [
            part.reshape(count, b, a)
            for part, (a, b) in zip(parts[: len(self.weights)], pairwise(self.ends), strict=True)
        ]
        biases = parts[len(self.weights) :]
        height, width = features.shape[-2:]
        first, hidden = weights[0], self.ends[1]
        out = biases[0][:, :, None, None]
        if self.coordinates is not None:
            x, y = self._offsets(points, extents, height, width, stride)
            out = (
                out
                + first[:, :, 0, None, None] * x[:, None, None, :]
                + first[:, :, 1, None, None] * y[:, None, :, None]
            )
            first = first[:, :, 2:]
        mixed = first.reshape(count * hidden, first.shape[2]) @ features.flatten(1)
        out = (mixed.reshape(count, hidden, height, width) + out).flatten(2)
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            out = torch.baddbmm(bias[:, :, None], weight, out.relu())
        return out.reshape(count, height, width)

    def _offsets(self, points: Tensor, extents: Tensor, height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
        """Horizontal [N, W] and vertical [N, H] coordinates of the cells for each object."""
        x = torch.arange(width, device=points.device, dtype=points.dtype) * stride + stride // 2
        y = torch.arange(height, device=points.device, dtype=points.dtype) * stride + stride // 2
        if self.coordinates == "relative":
            return (points[:, :1] - x) / extents[:, None], (points[:, 1:] - y) / extents[:, None]
        along, down = 2 * x / (width * stride) - 1, 2 * y / (height * stride) - 1
        return along.expand(points.shape[0], width), down.expand(points.shape[0], height)
