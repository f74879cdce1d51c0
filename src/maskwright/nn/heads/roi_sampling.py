"""Which RoIs a second stage learns from (Fast R-CNN, section 2.3; hard examples after Shrivastava et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskwright.ops import boxes as box_ops
from maskwright.ops.matching import match
from maskwright.ops.sampling import sample_balanced, sample_hard


@dataclass(slots=True)
class Samples:
    """RoIs of one image: boxes [S, 4], labels [S] (``background`` for none), matched truth index [S].

    ``kind`` [S] is 1 for positives, 0 for negatives and -1 for those that neither learn nor count.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    kind: Tensor

    def draw(self, count: int, positive_fraction: float, losses: Tensor | None = None) -> Samples:
        """At most ``count`` of them, positives first, by chance or by falling ``losses`` [S]."""
        if losses is None:
            positive, negative = sample_balanced(self.kind, count, positive_fraction)
        else:
            positive, negative = sample_hard(self.kind, losses, count, positive_fraction)
        chosen = torch.cat([positive, negative])
        return Samples(self.boxes[chosen], self.labels[chosen], self.matched[chosen], self.kind[chosen])


def label_rois(
    proposals: Tensor,
    truth: Tensor,
    truth_labels: Tensor,
    ignored: Tensor,
    *,
    background: int,
    threshold: float = 0.5,
) -> Samples:
    """Match proposals [P, 4] and the truth [G, 4] itself with the truth.

    A RoI with IoU of at least ``threshold`` takes the label of its best match; others are background, except those
    that overlap a region of ``ignored`` [I, 4] as much.
    """
    boxes = torch.cat([proposals, truth])
    matched, kind = match(box_ops.iou(truth, boxes), threshold, threshold, False)
    if len(ignored):
        inside = box_ops.iou(ignored, boxes).amax(0) > threshold
        kind = torch.where((kind == 0) & inside, torch.full_like(kind, -1), kind)
    labels = torch.full_like(matched, background)
    if len(truth):
        labels = torch.where(kind == 1, truth_labels[matched], labels)
    return Samples(boxes, labels, matched, kind)
