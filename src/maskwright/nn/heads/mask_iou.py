"""The MaskIoU head and what it learns from (Mask Scoring R-CNN: Huang et al. 2019, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

MaskInput = Literal["concatenate", "multiply", "all", "fine"]
"""How masks meet RoI features (figure 4 a to d): the mask as one more channel; its product with the features; the masks
of all classes as channels; the mask unpooled beside features of its own resolution."""


class MaskIoUHead(nn.Module):
    """RoI features [R, C, s, s] and the masks of their classes [R, 2s, 2s] to the IoU [R, K] to expect, a class each.

    The mask's probabilities, max-pooled to s x s, are one more channel (figure 3); ``design`` has the paper's others.

    Args:
        channels: C. size: s. classes: K.
        design: what the head sees; for ``"all"`` masks are [R, K', 2s, 2s] with K' ``maps``, for ``"fine"`` features
            [R, C, 2s, 2s].
        width: channels of the ``depth`` 3x3 convolutions, the last of which has stride 2.
        hidden: width of the two hidden layers.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        *,
        width: int = 256,
        depth: int = 4,
        hidden: int = 1024,
        design: MaskInput = "concatenate",
        maps: int = 1,
    ) -> None:
        super().__init__()
        if design not in ("concatenate", "multiply", "all", "fine"):
            raise ValueError(f"design must be 'concatenate', 'multiply', 'all' or 'fine', got {design!r}")
        self.design: MaskInput = design
        first = channels + {"multiply": 0, "all": maps}.get(design, 1)
        strides = [2 if i == depth - 1 or (i == 0 and design == "fine") else 1 for i in range(depth)]
        self.convs = nn.ModuleList(
            nn.Conv2d(first if i == 0 else width, width, 3, stride, 1) for i, stride in enumerate(strides)
        )
        side = (size + 1) // 2
        self.fcs = nn.ModuleList((nn.Linear(width * side * side, hidden), nn.Linear(hidden, hidden)))
        self.iou = nn.Linear(hidden, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.iou.weight, std=0.01)

    def forward(self, features: Tensor, mask_logits: Tensor) -> Tensor:
        """[R, C, s, s], [R, 2s, 2s] -> [R, K], unbounded."""
        mask = mask_logits.sigmoid() if self.design == "all" else mask_logits.sigmoid()[:, None]
        if self.design != "fine":
            mask = functional.max_pool2d(mask, 2, 2)
        mask = mask.to(features.dtype)
        hidden = features * mask if self.design == "multiply" else torch.cat((features, mask), 1)
        for conv in self.convs:
            hidden = conv(hidden).relu()
        hidden = hidden.flatten(1)
        for layer in self.fcs:
            hidden = layer(hidden).relu()
        return self.iou(hidden)


@torch.no_grad()
def mask_iou_targets(logits: Tensor, targets: Tensor, inside: Tensor, threshold: float = 0.0) -> Tensor:
    """The IoU [R] of predicted masks with whole objects, seen through boxes (section 3.2, "Training").

    Args:
        logits: [R, m, m], foreground where above ``threshold``.
        targets: the objects' masks within the boxes, binary [R, m, m].
        inside: which share of each object's area lies within its box, [R].
    """
    mask = (logits > threshold).to(targets.dtype)
    overlap = (mask * targets).sum((1, 2))
    whole = targets.sum((1, 2)) / (inside + 1e-7)
    return overlap / (mask.sum((1, 2)) + whole - overlap).clamp(min=1)


def mask_iou_sum(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of half the squared error of IoUs [R] over those whose target is above 0, and how many these are."""
    learned = target > 0
    error = torch.where(learned, predicted.float() - target, torch.zeros_like(target))
    return 0.5 * error.square().sum() + predicted.sum() * 0.0, learned.sum()
