"""Which ground-truth object each candidate box stands for (Faster R-CNN, section 3.1.2)."""

from __future__ import annotations

import torch
from torch import Tensor

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
_ROWS = 64


def match(iou: Tensor, low: float, high: float, allow_low_quality: bool) -> tuple[Tensor, Tensor]:
    """Match N candidates with G objects by their overlap.

    Args:
        iou: float [G, N]; G may be 0, then every candidate is a negative.
        low, high: a candidate is positive when its best overlap is at least ``high``, negative below ``low``, and
            neither in between.
        allow_low_quality: every object also claims the candidates that overlap it most, ties included, however little
            (but not those that miss it altogether). A claimed candidate keeps the object *it* overlaps most.

    Returns:
        The object of each candidate, int64 [N] (the first of equal ones; 0 where G is 0), and its kind, int8 [N]:
        1 positive, 0 negative, -1 to be ignored.
    """
    objects, candidates = iou.shape
    if objects == 0:
        return iou.new_zeros(candidates, dtype=torch.int64), iou.new_zeros(candidates, dtype=torch.int8)
    best, matched = iou.max(0)
    positive = best >= high
    if allow_low_quality and candidates:
        most = iou.amax(1, keepdim=True)
        # an object that nothing touches would otherwise claim every candidate, all of them being tied at zero
        most = torch.where(most > 0, most, torch.full_like(most, torch.inf))
        for start in range(0, objects, _ROWS):  # in strips, as a comparison of the whole matrix doubles its memory
            rows = slice(start, start + _ROWS)
            positive |= (iou[rows] == most[rows]).any(0)
    kind = positive.to(torch.int8)
    kind[~positive & (best >= low)] = IGNORED
    return matched, kind
