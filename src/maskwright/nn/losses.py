"""Losses on tensors, each a scalar.

``*_sum`` are sums, for families that divide by counts of their own. Those of masks take logits and targets in [0, 1],
both [N, h, w], give a mean over the N masks, and zero, with a gradient, for N = 0: ``protocols.MaskLoss``. They have
names in ``MASK_LOSSES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MaskTerm = Callable[[Tensor, Tensor], Tensor]

# ---- sums -----------------------------------------------------------------------------------------------------------


def smooth_l1_sum(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Sum of the smooth L1 loss (Fast R-CNN, section 2.3); plain L1 for ``beta`` 0."""
    if beta <= 0:
        return (predicted - target).abs().sum()
    return functional.smooth_l1_loss(predicted, target, beta=beta, reduction="sum")


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the softmax cross-entropy of [N, C] against int64 [N]; zero, with a gradient, for N = 0."""
    if len(labels) == 0:
        return logits.sum() * 0.0
    return functional.cross_entropy(logits.float(), labels, reduction="sum")


def binary_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the binary cross-entropy between logits and targets of one shape."""
    return functional.binary_cross_entropy_with_logits(logits.float(), targets.to(torch.float32), reduction="sum")


def focal_sum(logits: Tensor, targets: Tensor, alpha: float | None = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum of the focal loss (Lin et al. 2017, equation 5) over independent sigmoids of one shape with their targets.

    Args:
        alpha: weight of positives, ``1 - alpha`` that of negatives; ``None`` weighs both as 1.
    """
    return _focal(logits, targets, alpha, gamma).sum()


def _focal(logits: Tensor, targets: Tensor, alpha: float | None, gamma: float) -> Tensor:
    prob = logits.sigmoid()
    missing = prob * (1 - targets) + (1 - prob) * targets
    loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") * missing.pow(gamma)
    return loss if alpha is None else loss * (alpha * targets + (1 - alpha) * (1 - targets))


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of the product of two probabilities given as logits; shapes may broadcast."""
    log_a, log_b = functional.logsigmoid(a), functional.logsigmoid(b)
    rest = torch.logaddexp(functional.logsigmoid(-a).expand_as(a + b), log_a + functional.logsigmoid(-b))
    return log_a + log_b - rest


# ---- masks ----------------------------------------------------------------------------------------------------------


def mask_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, a mean over pixels (Mask R-CNN, section 3)."""
    if logits.numel() == 0:
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


@dataclass(frozen=True, slots=True)
class Dice:
    """``1 - (2 |pt| + smooth) / (|p| + |t| + smooth + epsilon)`` of each mask, a mean over masks.

    Attributes:
        smooth: above and below (MaskFormer has 1, with ``squares`` off). epsilon: below only (CondInst, SOLO: 1e-5).
        squares: |p| is the sum of squares (V-Net, section 3), not of probabilities.
    """

    smooth: float = 0.0
    epsilon: float = 1e-5
    squares: bool = True

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.numel() == 0:
            return logits.sum() * 0.0
        prob, target = logits.sigmoid().flatten(1), targets.to(logits.dtype).flatten(1)
        both = prob.square().sum(1) + target.square().sum(1) if self.squares else prob.sum(1) + target.sum(1)
        return (1 - (2 * (prob * target).sum(1) + self.smooth) / (both + self.smooth + self.epsilon)).mean()


mask_dice = Dice(smooth=1.0, epsilon=0.0)
"""The Dice loss as V-Net has it, with 1 added above and below, so that an empty target is learned too."""


@dataclass(frozen=True, slots=True)
class Focal:
    """Focal loss, a mean over pixels (Lin et al. 2017, equation 5; for masks: DETR, appendix A.2)."""

    alpha: float | None = 0.25
    gamma: float = 2.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.numel() == 0:
            return logits.sum() * 0.0
        return _focal(logits, targets.to(logits.dtype), self.alpha, self.gamma).mean()


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """``1 - IoU`` of probabilities and targets (Rahman & Wang 2016, equation 3), with 1 added above and below."""
    if logits.numel() == 0:
        return logits.sum() * 0.0
    prob, target = logits.sigmoid().flatten(1), targets.to(logits.dtype).flatten(1)
    overlap = (prob * target).sum(1)
    return (1 - (overlap + 1) / (prob.sum(1) + target.sum(1) - overlap + 1)).mean()


@dataclass(frozen=True, slots=True)
class Boundary:
    """``1 - F1`` of soft outlines (Bokhovkin & Burnaev 2019, section 3: "Boundary Loss for Remote Sensing Imagery").

    An outline is what a mask loses when eroded by ``width`` pixels. A predicted outline pixel is right to the degree
    that the true outline passes within ``tolerance`` pixels, and the other way round, which gives F1. Without any
    outline, true or predicted, it is 0. It says nothing about a mask's inside: add another loss.
    """

    width: int = 1
    tolerance: int = 1

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.numel() == 0:
            return logits.sum() * 0.0
        found, true = self._outline(logits.sigmoid()), self._outline(targets.to(logits.dtype))
        side = 2 * self.tolerance + 1
        near_true = functional.max_pool2d(true[:, None], side, 1, self.tolerance)[:, 0]
        near_found = functional.max_pool2d(found[:, None], side, 1, self.tolerance)[:, 0]
        right = (found * near_true).flatten(1).sum(1) + (near_found * true).flatten(1).sum(1)
        both = found.flatten(1).sum(1) + true.flatten(1).sum(1)
        return (1 - (right + 1e-3) / (both + 1e-3)).mean()

    def _outline(self, prob: Tensor) -> Tensor:
        """What erosion takes away; where the map's border cuts a mask, it has no outline."""
        side = 2 * self.width + 1
        outside = functional.max_pool2d((1 - prob)[:, None], side, 1, self.width)[:, 0]
        return (outside - (1 - prob)).clamp(min=0)


def lovasz_hinge(logits: Tensor, targets: Tensor) -> Tensor:
    """The Lovász hinge of each mask: a convex surrogate of ``1 - IoU`` (Berman et al. 2018, section 3.2)."""
    if logits.numel() == 0:
        return logits.sum() * 0.0
    target = (targets >= 0.5).to(logits.dtype).flatten(1)
    margin = 1 - logits.flatten(1) * (2 * target - 1)
    return _lovasz(margin.clamp(min=0), target).mean()


def lovasz_softmax(logits: Tensor, labels: Tensor, ignored: int = -1) -> Tensor:
    """The Lovász softmax over the classes that are present (Berman et al. 2018, section 3.1).

    Args:
        logits: [B, C, ...]. labels: int64 [B, ...]; pixels of ``ignored`` do not learn.

    Returns:
        A scalar; zero, with a gradient, where no pixel has a label.
    """
    prob = logits.float().softmax(1).movedim(1, -1)[labels != ignored]
    wanted = labels[labels != ignored]
    present = wanted.unique()
    if not len(present):
        return logits.sum() * 0.0
    target = (wanted[None] == present[:, None]).to(prob.dtype)
    return _lovasz((prob[:, present].T - target).abs(), target).mean()


def _lovasz(errors: Tensor, target: Tensor) -> Tensor:
    """Lovász extension [N] of the Jaccard loss at ``errors`` [N, P] for binary ``target`` [N, P] (algorithm 1)."""
    ordered, order = errors.sort(1, descending=True)
    truth = target.gather(1, order)
    total = truth.sum(1, keepdim=True)
    overlap, union = total - truth.cumsum(1), total + (1 - truth).cumsum(1)
    jaccard = 1 - overlap / union.clamp(min=1)
    steps = torch.cat((jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]), 1)
    return (ordered * steps).sum(1)


class Weighted:
    """A sum of mask losses, each with its factor."""

    def __init__(self, terms: Sequence[tuple[float, MaskTerm]]) -> None:
        self.terms = tuple(terms)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        parts = [factor * term(logits, targets) for factor, term in self.terms]
        return torch.stack(parts).sum()


MASK_LOSSES: Mapping[str, MaskTerm] = {
    "bce": mask_bce,
    "dice": Dice(),
    "focal": Focal(),
    "iou": mask_iou,
    "lovasz": lovasz_hinge,
    "bce+dice": Weighted(((1.0, mask_bce), (1.0, Dice()))),
    "bce+boundary": Weighted(((1.0, mask_bce), (1.0, Boundary()))),
    "bce+lovasz": Weighted(((1.0, mask_bce), (1.0, lovasz_hinge))),
}
"""Mask losses by name; any family that learns masks takes any of them as ``model.mask_loss``."""
