"""Which matched candidates a loss sees, at a set ratio of positives to negatives."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_balanced(
    kind: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw ``count`` candidates at random without replacement (Fast R-CNN, section 2.3).

    At most ``count * positive_fraction`` are positive; negatives fill the rest, as far as there are any.

    Args:
        kind: integer [N]: 1 positive, 0 negative, anything else is never drawn.
        generator: source of randomness; torch's own when absent. Nothing is drawn from it where nothing is dropped.

    Returns:
        Indices of positives and of negatives, int64, each ascending.
    """
    positive, negative = _split(kind)
    positives, negatives = _shares(positive, negative, count, positive_fraction)
    return _draw(positive, positives, generator), _draw(negative, negatives, generator)


def sample_hard(kind: Tensor, losses: Tensor, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Keep the ``count`` candidates with the largest losses, positives and negatives apart at the same ratio.

    Online hard example mining (Shrivastava et al. 2016), with the share of positives bounded as in ``sample_balanced``.

    Args:
        kind: integer [N]: 1 positive, 0 negative, anything else is never kept.
        losses: float [N], each candidate's own loss; of equal ones the first is kept.

    Returns:
        Indices of positives and of negatives, int64, each ascending.
    """
    positive, negative = _split(kind)
    positives, negatives = _shares(positive, negative, count, positive_fraction)
    return _hardest(positive, positives, losses), _hardest(negative, negatives, losses)


def sample_focal(
    kind: Tensor,
    losses: Tensor,
    count: int,
    positive_fraction: float,
    *,
    gamma: float = 2.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw ``count`` candidates without replacement, each in proportion to ``(1 - p) ** gamma``, at the same ratio.

    ``p = exp(-loss)`` is the probability that a classifier gives to what is right: the focal loss's factor (Lin et al.
    2017, section 3.2) as a chance to be seen, between ``sample_balanced`` (gamma 0) and ``sample_hard``.

    Args:
        kind: integer [N]: 1 positive, 0 negative, anything else is never drawn.
        losses: float [N], each candidate's cross-entropy. generator: source of randomness; torch's own when absent.
            Nothing is drawn from it where nothing is dropped.

    Returns:
        Indices of positives and of negatives, int64, each ascending.
    """
    positive, negative = _split(kind)
    positives, negatives = _shares(positive, negative, count, positive_fraction)
    if positives == len(positive) and negatives == len(negative):
        return positive, negative
    log_chance = gamma * torch.log(-torch.expm1(-losses.detach().float().clamp(min=1e-6)))
    device = losses.device if generator is None else generator.device
    noise = torch.rand(len(losses), generator=generator, device=device).to(losses.device)
    # the largest of log-chances with Gumbel noise are a draw without replacement (Vieira 2014)
    keys = log_chance - torch.log(-torch.log(noise.clamp(1e-20, 1 - 1e-7)))
    return _hardest(positive, positives, keys), _hardest(negative, negatives, keys)


def _split(kind: Tensor) -> tuple[Tensor, Tensor]:
    return (kind == 1).nonzero().flatten(), (kind == 0).nonzero().flatten()


def _shares(positive: Tensor, negative: Tensor, count: int, positive_fraction: float) -> tuple[int, int]:
    positives = min(len(positive), int(count * positive_fraction))
    return positives, min(len(negative), count - positives)


def _draw(candidates: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if count >= len(candidates):
        return candidates
    device = candidates.device if generator is None else generator.device
    chosen = torch.randperm(len(candidates), generator=generator, device=device)[:count]
    return candidates[chosen.sort().values.to(candidates.device)]


def _hardest(candidates: Tensor, count: int, losses: Tensor) -> Tensor:
    if count >= len(candidates):
        return candidates
    order = losses.detach()[candidates].argsort(descending=True, stable=True)
    return candidates[order[:count].sort().values]
