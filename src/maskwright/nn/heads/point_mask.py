"""PointRend's mask heads: a coarse map of each box, and logits at single points (sections 3.2, 3.3 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskwright.ops.point_sample import grid_points, most_uncertain, point_sample, points_in_boxes, uncertainty


class CoarseMaskHead(nn.Module):
    """RoI features [R, C, s, s] to coarse mask logits [R, K, s / 2, s / 2]: a 2x2 convolution, then hidden layers.

    Args:
        channels: C. size: s, even. classes: K, or 1 for a class-agnostic head.
        width: of the convolution; wider features are first narrowed to it.
        hidden: width of the ``depth`` hidden layers.
    """

    def __init__(
        self, channels: int, size: int, classes: int, *, width: int = 256, hidden: int = 1024, depth: int = 2
    ) -> None:
        super().__init__()
        if size % 2 or size < 2:
            raise ValueError(f"size must be even, as the coarse map has half of it, got {size}")
        self.side = size // 2
        self.narrow = nn.Conv2d(channels, width, 1) if channels > width else None
        first = min(channels, width)
        self.reduce = nn.Conv2d(first, first, 2, 2)
        inputs = first * self.side**2
        self.fcs = nn.ModuleList(nn.Linear(hidden if i else inputs, hidden) for i in range(depth))
        self.predictor = nn.Linear(hidden if depth else inputs, classes * self.side**2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(_bias(module))
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.predictor.weight, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        """[R, C, s, s] -> [R, K, s / 2, s / 2]."""
        hidden = features if self.narrow is None else self.narrow(features).relu()
        hidden = self.reduce(hidden).relu().flatten(1)
        for layer in self.fcs:
            hidden = layer(hidden).relu()
        return self.predictor(hidden).unflatten(1, (-1, self.side, self.side))


class PointHead(nn.Module):
    """Fine features and the coarse prediction of points to mask logits: one small perceptron for all points.

    Args:
        channels: of the fine features. classes: K of the coarse prediction.
        outputs: maps that are predicted, K or 1.
        width: of the ``depth`` hidden layers.
        coarse_each_layer: every layer sees the coarse prediction, not only the first (section 4.1).
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        outputs: int,
        *,
        width: int = 256,
        depth: int = 3,
        coarse_each_layer: bool = True,
    ) -> None:
        super().__init__()
        again = classes if coarse_each_layer else 0
        self.coarse_each_layer = coarse_each_layer
        self.layers = nn.ModuleList(
            nn.Conv1d(width + again if i else channels + classes, width, 1) for i in range(depth)
        )
        self.predictor = nn.Conv1d(width + again if depth else channels + classes, outputs, 1)
        for module in self.layers:
            assert isinstance(module, nn.Conv1d)
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(_bias(module))
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(_bias(self.predictor))

    def forward(self, fine: Tensor, coarse: Tensor, outputs: Tensor) -> Tensor:
        """Logits [R, P] of fine features [R, C, P] and coarse logits [R, K, P], of the one map ``outputs`` [R] each."""
        hidden = torch.cat((fine, coarse), 1)
        for layer in self.layers:
            hidden = layer(hidden).relu()
            if self.coarse_each_layer:
                hidden = torch.cat((hidden, coarse), 1)
        weight = self.predictor.weight[outputs].transpose(1, 2).to(hidden.dtype)
        return torch.bmm(weight, hidden)[:, 0] + _bias(self.predictor)[outputs, None].to(hidden.dtype)


def _bias(layer: nn.Conv1d | nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def fine_features(
    features: Sequence[Tensor], strides: Sequence[int], boxes: Sequence[Tensor], points: Tensor
) -> Tensor:
    """Features of pyramid levels at points of boxes, side by side (section 3.3).

    Args:
        features: [B, C_i, H_i, W_i]. strides: pixels a cell, one each.
        boxes: one tensor [R_b, 4] an image, in pixels.
        points: [R, P, 2], shares of the boxes of all images.

    Returns:
        [R, sum of C_i, P] in the features' dtype.
    """
    places = points_in_boxes(points, torch.cat(list(boxes)).to(points.dtype))
    parts: list[Tensor] = []
    for level, stride in zip(features, strides, strict=True):
        sides = [level.shape[-1] * stride, level.shape[-2] * stride]
        extent = torch.tensor(sides, dtype=places.dtype, device=places.device)
        shares = (places / extent).split([box.shape[0] for box in boxes])  # not len(): while exporting, symbols
        found = [point_sample(level[i : i + 1], part[None]) for i, part in enumerate(shares)]
        parts.append(torch.cat([each[0].transpose(0, 1) for each in found]))
    return torch.cat(parts, 1)


def grid_features(features: Sequence[Tensor], strides: Sequence[int], boxes: Sequence[Tensor], size: int) -> Tensor:
    """``fine_features`` on a regular grid of each box: [R, sum of C_i, size, size], RoIAlign with one sample a bin."""
    total = sum(box.shape[0] for box in boxes)
    grid = grid_points(total, size, features[0].device)
    return fine_features(features, strides, boxes, grid).unflatten(2, (size, size))


def subdivide(
    ask: Callable[[Tensor], Tensor], number: int, *, side: int, steps: int, points: int, on: Tensor
) -> Tensor:
    """Masks drawn like a rendered picture: doubled bilinearly, and asked anew where they are unsure (section 3.1).

    Doublings after which every cell would be asked anew are left out: the first map is so much larger.

    Args:
        ask: logits [R, P] at points [R, P, 2], shares of the boxes.
        number: R masks. side: of the coarsest map. steps: doublings. points: cells asked anew after each.
        on: a tensor on the masks' device.

    Returns:
        Logits [R, side * 2**steps, side * 2**steps].
    """
    while steps > 0 and 4 * side * side <= points:
        side, steps = 2 * side, steps - 1
    logits = ask(grid_points(number, side, on.device)).unflatten(1, (1, side, side))
    for _ in range(steps):
        side *= 2
        logits = functional.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        index, places = most_uncertain(uncertainty(logits), points)
        fresh = ask(places).to(logits.dtype)
        logits = logits.flatten(1).scatter(1, index, fresh).unflatten(1, (1, side, side))
    return logits[:, 0]
