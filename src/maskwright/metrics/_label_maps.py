"""Maps of labels compared: how often each pair of labels meets, and where labels change. Plain numpy.

Neighboring pixels mostly hold the same pair, so pairs are counted run by run: two comparisons a pixel, which numpy does
many at a time, and everything else a run.
"""

from __future__ import annotations

import numpy as np


def check_maps(predicted: np.ndarray, truth: np.ndarray, axes: tuple[int, ...] = (2,)) -> None:
    """Refuse what are not two maps of integers of one shape.

    Raises:
        ValueError: as said.
    """
    for name, value in (("predicted", predicted), ("truth", truth)):
        if value.dtype.kind not in "iub":
            raise ValueError(f"{name} must hold integer labels, got {value.dtype} {value.shape}")
    if predicted.shape != truth.shape or truth.ndim not in axes:
        forms = " or ".join("[H, W]" if n == 2 else "[D, H, W]" for n in axes)
        raise ValueError(f"maps to compare must share one shape {forms}, got {predicted.shape} and {truth.shape}")


def pair_runs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal pairs, walking two maps of one shape in memory's order: labels of ``a`` and ``b`` and lengths, [R]
    each; a pair may come again."""
    flat_a, flat_b = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    if not flat_a.size:
        return flat_a, flat_b, np.zeros(0, np.int64)
    change = np.empty(flat_a.size, bool)
    change[0] = True
    np.not_equal(flat_a[1:], flat_a[:-1], out=change[1:])
    change[1:] |= flat_b[1:] != flat_b[:-1]
    starts = np.flatnonzero(change)
    return flat_a[starts], flat_b[starts], np.diff(starts, append=flat_a.size)


def summed(index: np.ndarray, amounts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of ``index`` (int64 [R], >= 0), rising, and the sum of the ``amounts`` of each, int64."""
    if not index.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    top = int(index.max()) + 1
    if top <= 8 * len(index) + 1024:
        totals = np.bincount(index, weights=amounts, minlength=top)  # float64, exact below 2^53
        there = np.flatnonzero(totals)
        return there, totals[there].astype(np.int64)
    there, places = np.unique(index, return_inverse=True)
    return there.astype(np.int64), np.bincount(places, weights=amounts).astype(np.int64)


def overlaps(
    a: np.ndarray, b: np.ndarray, background: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The objects of two label images and the pixels that they share.

    Args:
        a, b: integers of one shape; each value but ``background`` is an object.

    Returns:
        areas of the objects of ``a`` and of ``b`` (int64 [N], [M], by rising label), then the pairs that meet: places
        in either and shared pixels, int64 [P] each, ordered by the place in ``a``, then in ``b``.
    """
    labels_a, labels_b, lengths = pair_runs(a, b)
    names_a, runs_a = np.unique(labels_a, return_inverse=True)
    names_b, runs_b = np.unique(labels_b, return_inverse=True)
    areas_a = np.bincount(runs_a, weights=lengths, minlength=len(names_a)).astype(np.int64)
    areas_b = np.bincount(runs_b, weights=lengths, minlength=len(names_b)).astype(np.int64)
    keep_a, keep_b = names_a != background, names_b != background
    there = keep_a[runs_a] & keep_b[runs_b]
    place_a, place_b = np.cumsum(keep_a) - 1, np.cumsum(keep_b) - 1
    count_b = max(int(keep_b.sum()), 1)
    index, common = summed(place_a[runs_a[there]] * count_b + place_b[runs_b[there]], lengths[there])
    return areas_a[keep_a], areas_b[keep_b], index // count_b, index % count_b, common


def inner(labels: np.ndarray, margin: int) -> np.ndarray:
    """Pixels that see their own label only, ``margin`` pixels far in all directions, diagonals included; bool [H, W].

    What lies beyond the map is another label. So ``labels == c`` and not inner is the boundary region that Boundary IoU
    takes of the mask of class c (B. Cheng et al., CVPR 2021: the mask less its erosion by ``margin`` steps of 3 x 3).
    """
    height, width = labels.shape
    out = np.zeros(labels.shape, bool)
    if min(height, width) <= 2 * margin:
        return out
    across = _all_of(labels[:, 1:] == labels[:, :-1], 2 * margin, 1)
    down = _all_of((labels[1:] == labels[:-1])[:, margin : width - margin], 2 * margin, 0)
    # Equal along each row of the window, and rows equal to each other at the center column.
    rows = _all_of(across, 2 * margin + 1, 0)
    out[margin : height - margin, margin : width - margin] = rows & down
    return out


def _all_of(flags: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Whether ``count`` flags in a row are all set, for each place that has so many: by doubling."""
    moved = np.moveaxis(flags, axis, 0)
    reach, out = 1, moved
    while reach < count:
        step = min(reach, count - reach)
        out = out[:-step] & out[step:]
        reach += step
    return np.moveaxis(out, 0, axis)


def borders(labels: np.ndarray) -> np.ndarray:
    """Pixels beside a pixel of another label, right, left, above or below; bool [H, W]."""
    out = np.zeros(labels.shape, bool)
    right, below = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    out[:, 1:] |= right
    out[:, :-1] |= right
    out[1:] |= below
    out[:-1] |= below
    return out


def some(values: np.ndarray, counts: np.ndarray | None = None) -> str:
    """The first five of ``values`` and how many there are, for messages."""
    first = ", ".join(
        f"{value}" if counts is None else f"{value} ({n} pixels)"
        for value, n in zip(values[:5].tolist(), (values if counts is None else counts)[:5].tolist(), strict=True)
    )
    return first + (f" and {len(values) - 5} more" if len(values) > 5 else "")
