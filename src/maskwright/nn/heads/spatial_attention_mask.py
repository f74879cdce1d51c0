"""CenterMask's second stage (Lee & Park 2020): RoIs by their share of the picture, masks with spatial attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor, nn

from maskwright.ops import boxes as box_ops
from maskwright.ops.roi import roi_align


class SpatialAttentionMaskHead(nn.Module):
    """RoI features [R, C, s, s] to mask logits [R, K, 2s, 2s] (section 3.3).

    Args:
        channels: C. classes: K, or 1 for a class-agnostic head.
        width: of the hidden convolutions. depth: number of 3x3 convolutions.
        attention: weigh the places of the hidden map by what its mean and maximum over channels say.
    """

    def __init__(
        self, channels: int, classes: int, *, width: int = 256, depth: int = 4, attention: bool = True
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width if i else channels, width, 3, 1, 1) for i in range(depth))
        self.attention = nn.Conv2d(2, 1, 3, padding=1, bias=False) if attention else None
        self.upsample = nn.ConvTranspose2d(width, width, 2, 2)
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
            features = conv(features).relu()
        if self.attention is not None:
            seen = torch.cat((features.mean(1, keepdim=True), features.amax(1, keepdim=True)), 1)
            features = features * self.attention(seen).sigmoid()
        return self.predictor(self.upsample(features).relu())


def levels_by_share(boxes: Tensor, picture: float, low: int, high: int) -> Tensor:
    """The pyramid level, int64 [N] in low..high, of boxes [N, 4] in a picture of so many pixels (equation 1).

    ``ceil(high - log2(picture / area))``: a box of the whole picture belongs to ``high``, a half to the level below.
    """
    area = box_ops.area(boxes).clamp(min=1e-6)
    return torch.ceil(high - torch.log2(picture / area)).clamp(low, high).to(torch.int64)


def pool_by_share(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    size: int,
) -> Tensor:
    """RoIAlign [sum of k, C, size, size] of each image's boxes [k, 4] on the level that their share of it asks for.

    Args:
        features: [B, C, H_i, W_i], finest first, of ``strides`` that double from level to level.
        sizes: (H, W) of each picture without its padding.
    """
    low = round(log2(strides[0]))
    high = low + len(strides) - 1
    levels = torch.cat([levels_by_share(b, 1.0 * h * w, low, high) for b, (h, w) in zip(boxes, sizes, strict=True)])
    table = torch.cat([torch.cat((b.new_full((b.shape[0], 1), float(i)), b), 1) for i, b in enumerate(boxes)]).float()
    out = features[0].new_zeros((table.shape[0], features[0].shape[1], size, size))
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True), start=low):
        # Every level is asked, also for no boxes: all maps then get a gradient, and the graph has no branch.
        place = (levels == level).nonzero().flatten()
        out = out.index_copy_(0, place, roi_align(feature, table[place], size, 1 / stride))
    return out


def mask_iou_targets(logits: Tensor, targets: Tensor, areas: Tensor, boxes: Tensor) -> Tensor:
    """The IoU [N] of binarized masks with whole objects, also with what of them lies outside the box.

    Args:
        logits: [N, m, m] of the masks. targets: [N, m, m], the objects within the boxes.
        areas: pixels [N] of the whole objects. boxes: [N, 4].
    """
    cells = logits.shape[-2] * logits.shape[-1] / box_ops.area(boxes).clamp(min=1e-6)
    mask, truth = logits > 0, targets >= 0.5
    overlap = (mask & truth).flatten(1).sum(1).float()
    inside = truth.flatten(1).sum(1).float()
    whole = torch.maximum(areas.to(inside) * cells, inside)
    return overlap / (mask.flatten(1).sum(1).float() + whole - overlap).clamp(min=1.0)
