"""Losses on tensors, each a scalar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def smooth_l1_sum(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Sum of the smooth L1 loss (Fast R-CNN, section 2.3); plain L1 for ``beta`` 0."""
    if beta <= 0:
        return (predicted - target).abs().sum()
    return functional.smooth_l1_loss(predicted, target, beta=beta, reduction="sum")


def mask_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over pixels of [N, h, w] (Mask R-CNN, section 3); zero, with a gradient, for N = 0."""
    if logits.numel() == 0:
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def mask_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - Dice over N masks [N, h, w] (V-Net, section 3); zero, with a gradient, for N = 0."""
    if logits.numel() == 0:
        return logits.sum() * 0.0
    prob, target = logits.sigmoid().flatten(1), targets.to(logits.dtype).flatten(1)
    overlap = 2 * (prob * target).sum(1)
    return (1 - (overlap + 1) / (prob.square().sum(1) + target.square().sum(1) + 1)).mean()


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the softmax cross-entropy of [N, C] against int64 [N]; zero, with a gradient, for N = 0."""
    if len(labels) == 0:
        return logits.sum() * 0.0
    return functional.cross_entropy(logits.float(), labels, reduction="sum")


def binary_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the binary cross-entropy between logits and targets of one shape."""
    return functional.binary_cross_entropy_with_logits(logits.float(), targets.to(torch.float32), reduction="sum")
