"""Which RoIs a second stage learns from (Fast R-CNN, section 2.3; hard examples after Shrivastava et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskwright.ops import boxes as box_ops
from maskwright.ops.matching import match
from maskwright.ops.sampling import sample_balanced, sample_focal, sample_hard


@dataclass(slots=True)
class Samples:
    """RoIs of one image: boxes [S, 4], labels [S] (``background`` for none), matched truth index [S].

    ``kind`` [S] is 1 for positives, 0 for negatives and -1 for those that neither learn nor count; ``given`` [S] is
    true for the boxes of the truth itself.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    kind: Tensor
    given: Tensor | None = None

    def draw(
        self, count: int, positive_fraction: float, losses: Tensor | None = None, *, focal: bool = False
    ) -> Samples:
        """At most ``count`` of them, positives first, by chance or by falling ``losses`` [S].

        With ``focal``, by chance in proportion to how wrong the losses say they are, see ``ops.sampling.sample_focal``.
        """
        if losses is None:
            positive, negative = sample_balanced(self.kind, count, positive_fraction)
        elif focal:
            positive, negative = sample_focal(self.kind, losses, count, positive_fraction)
        else:
            positive, negative = sample_hard(self.kind, losses, count, positive_fraction)
        chosen = torch.cat([positive, negative])
        given = None if self.given is None else self.given[chosen]
        return Samples(self.boxes[chosen], self.labels[chosen], self.matched[chosen], self.kind[chosen], given)


def label_rois(
    proposals: Tensor,
    truth: Tensor,
    truth_labels: Tensor,
    ignored: Tensor,
    *,
    background: int,
    threshold: float = 0.5,
    claims: bool = False,
) -> Samples:
    """Match proposals [P, 4] and the truth [G, 4] itself with the truth.

    A RoI with IoU of at least ``threshold`` takes the label of its best match; others are background, except those
    that overlap a region of ``ignored`` [I, 4] as much. With ``claims``, objects claim proposals as ``claim`` has it.
    """
    boxes = torch.cat([proposals, truth])
    overlap = box_ops.iou(truth, boxes)
    matched, kind = match(overlap, threshold, threshold, False)
    if claims and len(proposals):
        claimed = claim(overlap[:, : len(proposals)], matched[: len(proposals)], kind[: len(proposals)], threshold)
        matched, kind = (torch.cat((a, b[len(proposals) :])) for a, b in zip(claimed, (matched, kind), strict=True))
    if len(ignored):
        inside = box_ops.iou(ignored, boxes).amax(0) > threshold
        kind = torch.where((kind == 0) & inside, torch.full_like(kind, -1), kind)
    labels = torch.full_like(matched, background)
    if len(truth):
        labels = torch.where(kind == 1, truth_labels[matched], labels)
    given = torch.arange(len(boxes), device=boxes.device) >= len(proposals)
    return Samples(boxes, labels, matched, kind, given)


def claim(overlap: Tensor, matched: Tensor, kind: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Let every object claim the candidates it overlaps most, ties included, if by at least ``least`` (mmdetection).

    Unlike ``ops.matching.match``, a claimed candidate then belongs to the claimer, the last one of several, even if it
    overlaps another object more.

    Args:
        overlap: float [G, N]. matched, kind: of the N candidates, from ``match``.

    Returns:
        ``matched`` and ``kind`` after the claims.
    """
    if not overlap.numel():
        return matched, kind
    most = overlap.amax(1)
    for number in range(len(overlap)):  # one row at a time: a comparison of the whole matrix would double its memory
        claimed = (overlap[number] == most[number]) & (most[number] >= least)
        matched = torch.where(claimed, torch.full_like(matched, number), matched)
        kind = torch.where(claimed, torch.ones_like(kind), kind)
    return matched, kind
