"""One-to-one matching of predictions with objects at the least total cost (DETR, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskwright.ops.assignment import assign


@torch.no_grad()
def match_sets(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pair the rows with the columns of each matrix, every one at most once, so that the sum of costs is least.

    All matrices go to the host in one transfer.

    Args:
        costs: real [Q_i, G_i] of each image, on one device; Q_i and G_i may be 0. What is not finite counts as very
            dear, whatever its sign: such a pair is made only where no other is left.

    Returns:
        For each image the rows and columns of its pairs, int64 [min(Q_i, G_i)] each, rows rising, on the costs' device.

    Raises:
        ValueError: a cost is not a matrix.
    """
    shapes = [tuple(cost.shape) for cost in costs]
    if any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"each cost must be a matrix [Q, G], got shapes {shapes}")
    if not shapes:
        return []
    device = costs[0].device
    flat = torch.cat([cost.detach().flatten() for cost in costs]).cpu().to(torch.float64).numpy()
    parts = np.split(flat, np.cumsum([rows * columns for rows, columns in shapes])[:-1])
    pairs = [assign(-_finite(part.reshape(shape))) for part, shape in zip(parts, shapes, strict=True)]
    return [(torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)) for rows, columns in pairs]


def _finite(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """``cost`` with what is not finite at more than all other pairs could make up for."""
    known = np.isfinite(cost)
    if known.all():
        return cost
    dear = 1.0 + 2.0 * max(min(cost.shape), 1) * float(np.abs(cost[known]).max(initial=0.0))
    return np.where(known, cost, dear)
