"""Several masks of one thing made into one: majority vote and STAPLE; and which objects are one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskwright.errors import InputError

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Staple:
    """What ``staple`` estimates.

    Attributes:
        probability: float64 [*size], that a pixel is of the object.
        sensitivity, specificity: float64 [R], how often each rater is right inside and outside of it.
        rounds: how many were needed.
    """

    probability: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    rounds: int


def majority(masks: Flags) -> Flags:
    """Where more than half of the raters see the object; with two raters, where both do.

    Args:
        masks: bool [R, *size].

    Raises:
        InputError: no raters.
    """
    if not len(masks):
        raise InputError("a vote needs raters, got none")
    return 2 * masks.sum(axis=0) > len(masks)


def staple(masks: Flags, *, prior: float | None = None, rounds: int = 100, tolerance: float = 1e-7) -> Staple:
    """Simultaneous truth and performance level estimation, for one binary mask.

    S. K. Warfield, K. H. Zou, W. M. Wells, IEEE Trans. Med. Imaging 23(7), 2004, section II: expectation maximization
    over the hidden truth. Pixels with equal votes are one term, so it costs what one look at the masks costs. Restrict
    the masks to where they lie: a large empty surrounding makes every rater's specificity 1 and pulls the prior down.

    Args:
        masks: bool [R, *size].
        prior: how likely a pixel is of the object before the votes; by default the mean of all votes.
        rounds: at most so many.
        tolerance: it ends when no rater's figures move by more.

    Raises:
        InputError: no raters or pixels, more than 60 raters, or a prior that is not in (0, 1).
    """
    raters = len(masks)
    if not raters or not masks[0].size or raters > 60:
        raise InputError(f"STAPLE needs 1 to 60 raters and pixels, got masks of shape {masks.shape}")
    votes = masks.reshape(raters, -1)
    if prior is None:
        prior = float(np.clip(votes.mean(), 1e-6, 1 - 1e-6))
    if not 0 < prior < 1:
        raise InputError(f"the prior must lie in (0, 1), got {prior}")
    codes = np.zeros(votes.shape[1], np.int64)
    for rater in votes:
        codes = codes << 1 | rater
    patterns, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    said = (patterns[None] >> np.arange(raters - 1, -1, -1)[:, None] & 1).astype(np.float64)
    sensitivity, specificity = np.full(raters, 0.99999), np.full(raters, 0.99999)
    weight, done = np.zeros(len(patterns)), 0
    while done < rounds:
        done += 1
        weight = _posterior(said, sensitivity, specificity, prior)
        inside, outside = weight * counts, (1 - weight) * counts
        before = np.concatenate([sensitivity, specificity])
        sensitivity = _bounded((said * inside).sum(1) / max(inside.sum(), 1e-300))
        specificity = _bounded(((1 - said) * outside).sum(1) / max(outside.sum(), 1e-300))
        if np.abs(np.concatenate([sensitivity, specificity]) - before).max() < tolerance:
            break
    return Staple(weight[place.reshape(-1)].reshape(masks.shape[1:]), sensitivity, specificity, done)


def same_things(owners: NDArray[np.integer], pairs: NDArray[np.integer], ious: NDArray[np.floating]) -> list[list[int]]:
    """Group the objects of several raters into things: by falling IoU, two groups join that share no rater.

    Args:
        owners: [N], whose each object is.
        pairs: [P, 2], pairs of objects of different raters that may be one thing.
        ious: [P], how much they overlap; of equal ones the first pair counts first.

    Returns:
        groups of objects by number, in the order of their first object; an object that is like no other is alone.
    """
    home = list(range(len(owners)))
    members: dict[int, list[int]] = {i: [i] for i in range(len(owners))}
    for p in np.argsort(-np.asarray(ious), kind="stable").tolist():
        a, b = home[int(pairs[p, 0])], home[int(pairs[p, 1])]
        if a == b or {int(owners[i]) for i in members[a]} & {int(owners[i]) for i in members[b]}:
            continue
        members[a] += members.pop(b)
        for i in members[a]:
            home[i] = a
    return sorted(sorted(group) for group in members.values())


def cohen(table: Sequence[Sequence[float]] | NDArray[np.floating] | NDArray[np.integer]) -> float | None:
    """Cohen's kappa of a table [K, K] of how often one said the row and the other the column; ``None`` of no answers.

    J. Cohen, "A coefficient of agreement for nominal scales", 1960. 1 where both always said one and the same class.
    """
    counts = np.asarray(table, np.float64)
    total = counts.sum()
    if total == 0:
        return None
    expected = float(counts.sum(0) @ counts.sum(1)) / total**2
    return 1.0 if expected == 1 else float((np.trace(counts) / total - expected) / (1 - expected))


def _posterior(
    said: NDArray[np.float64], sensitivity: NDArray[np.float64], specificity: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    """How likely each pattern of votes is of the object, by logarithms: many raters make small products."""
    yes = np.log(prior) + np.log(sensitivity) @ said + np.log1p(-sensitivity) @ (1 - said)
    no = np.log1p(-prior) + np.log1p(-specificity) @ said + np.log(specificity) @ (1 - said)
    return 1 / (1 + np.exp(np.clip(no - yes, -700, 700)))


def _bounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(values, 1e-9, 1 - 1e-9)
