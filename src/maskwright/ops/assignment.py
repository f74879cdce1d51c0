"""Which of one side goes with which of the other: the assignment of greatest total worth. No torch here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(worth: NDArray[np.floating] | NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair rows with columns, each at most once, so that the worth of all pairs is greatest.

    The linear assignment problem (H. Kuhn, "The Hungarian method", 1955), solved exactly by scipy (D. Crouse, "On
    implementing 2D rectangular assignment algorithms", 2016). To minimize a cost, pass its negative. All of the shorter
    side are paired, worth it or not: drop pairs that mean nothing afterwards.

    Args:
        worth: [N, M], finite, of any sign.

    Returns:
        rows and columns of the pairs, int64 [min(N, M)] each, rows rising.

    Raises:
        ValueError: ``worth`` is not [N, M], or not finite.
    """
    values = np.asarray(worth, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"worth must be finite numbers [N, M], got shape {values.shape}: {values!r:.80}")
    if not values.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    from scipy.optimize import linear_sum_assignment  # slow to import, and most images do without

    rows, columns = linear_sum_assignment(values, maximize=True)
    return rows.astype(np.int64), columns.astype(np.int64)


def assign_pairs(
    rows: NDArray[np.int64], columns: NDArray[np.int64], worth: NDArray[np.floating], *, most: bool = False
) -> NDArray[np.int64]:
    """Choose among possible pairs so that no row and no column is in two, and the worth of the chosen is greatest.

    Pairs that share neither row nor column, directly or by others between them, are chosen apart; so thousands of
    objects that each meet a few cost little.

    Args:
        rows, columns: int64 [P] each, at least 0, no pair twice. worth: float [P], finite and above 0, such as IoUs.
        most: choose as many as can be, and of those ways the worthiest.

    Returns:
        the places of the chosen, int64, rising.

    Raises:
        ValueError: worth is not above 0.
    """
    if not (np.isfinite(worth) & (worth > 0)).all():
        raise ValueError(f"worth must be finite and above 0, got {worth!r:.80}")
    lone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1) if len(rows) else np.zeros(0, bool)
    if lone.all():
        return np.arange(len(rows))
    chosen = [np.flatnonzero(lone)]
    for group in _connected(np.flatnonzero(~lone), rows, columns):
        r, row = np.unique(rows[group], return_inverse=True)
        c, column = np.unique(columns[group], return_inverse=True)
        values = np.zeros((len(r), len(c)))
        values[row, column] = worth[group]
        if most:  # what pairs are worth besides their number stays below one more pair
            share = worth[group] / worth[group].max()
            values[row, column] = 1 + share / (2 * min(values.shape))
        place = np.full(values.shape, -1)
        place[row, column] = group
        found = place[assign(values)]
        chosen.append(found[found >= 0])
    return np.sort(np.concatenate(chosen))


def _connected(
    which: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """The pairs ``which`` in groups that share neither row nor column."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(rows.max()) + 1
    count = first + int(columns.max()) + 1
    edges = coo_array((np.ones(len(which)), (rows[which], first + columns[which])), shape=(count, count))
    _, name = connected_components(edges, directed=False)
    order = np.argsort(name[rows[which]], kind="stable")
    cuts = np.flatnonzero(np.diff(name[rows[which]][order])) + 1
    return np.split(which[order], cuts)
