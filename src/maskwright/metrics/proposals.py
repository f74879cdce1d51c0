"""Recall of class-agnostic box proposals: how many objects the first stage lets the second see.

J. Hosang, R. Benenson, P. Dollar, B. Schiele, "What makes for effective detection proposals?", PAMI 2016
(arXiv:1502.05082), section 4: average recall over the IoU thresholds 0.5, 0.55, ..., 0.95, for the N proposals of an
image that score best. Each object is paired with at most one proposal and the reverse, the best IoU first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from maskwright.ops.boxes import iou

THRESHOLDS = np.linspace(0.5, 0.95, 10)


class ProposalRecall:
    """Gathers images; ``compute`` gives the figures.

    Args:
        limits: so many of an image's best proposals count, each a figure of its own.
    """

    def __init__(self, limits: Sequence[int] = (100, 1000)) -> None:
        if not limits or min(limits) < 1:
            raise ValueError(f"limits must be numbers of proposals from 1 on, got {list(limits)}")
        self.limits = tuple(limits)
        self.found = {limit: np.zeros(len(THRESHOLDS), np.int64) for limit in self.limits}
        self.objects, self.images = 0, 0

    def update(self, proposals: Tensor, truth: Tensor) -> None:
        """One image: proposals [P, 4] by falling score and objects' boxes [G, 4], in the same pixels."""
        self.images += 1
        self.objects += len(truth)
        overlap = iou(proposals.cpu(), truth.cpu()).numpy() if len(proposals) and len(truth) else np.zeros((0, 0))
        for limit in self.limits:
            reached = paired(overlap[:limit])
            self.found[limit] += (reached[:, None] >= THRESHOLDS - 1e-9).sum(0)

    def compute(self) -> dict[str, float]:
        """``{"AR_100", "R50_100", ..., "objects", "images"}``: average recall, and that at 0.5; -1 without objects."""
        out: dict[str, float] = {}
        for limit, found in self.found.items():
            recall = found / self.objects if self.objects else np.full(len(THRESHOLDS), -1.0)
            out[f"AR_{limit}"], out[f"R50_{limit}"] = float(recall.mean()), float(recall[0])
        return {**out, "objects": self.objects, "images": self.images}


def paired(overlap: np.ndarray) -> np.ndarray:
    """The IoUs of the pairs of a matrix [P, G] that are chosen greedily from 0.5 on, each row and column once."""
    rows, columns = np.nonzero(overlap >= THRESHOLDS[0] - 1e-9)
    values = overlap[rows, columns]
    used, taken, out = np.zeros(overlap.shape[0], bool), np.zeros(overlap.shape[1], bool), list[float]()
    for i in np.argsort(-values, kind="stable").tolist():
        if not used[rows[i]] and not taken[columns[i]]:
            used[rows[i]] = taken[columns[i]] = True
            out.append(float(values[i]))
    return np.asarray(out, np.float64)
