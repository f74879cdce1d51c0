# pyright: basic
"""What may be wrong with polygons: rings that cross themselves, rings within rings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

_MOST = 50_000_000  # pairs of edges that are looked at before a hostile ring is given up


def crosses_itself(ring: NDArray[np.floating]) -> bool:
    """Whether two edges of a closed ring meet other than at the corner they share.

    A ring that touches itself in a point crosses itself only where it goes on at the other side; edges that lie on one
    another (a seam cut to a hole) do not count. Rings beyond all measure are given up on and count as not crossing.

    Args:
        ring: float [K, 2], x then y; the last point is joined to the first.
    """
    points = np.ascontiguousarray(ring, np.float64)
    keep = np.ones(len(points), bool)
    keep[1:] = (points[1:] != points[:-1]).any(axis=1)
    points = points[keep]
    if len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    if len(points) < 4:
        return False
    ends = np.roll(points, -1, axis=0)
    order = np.argsort(np.minimum(points[:, 0], ends[:, 0]), kind="stable")
    return bool(_crosses(points[order], ends[order], _MOST))


def rings_inside(rings: Sequence[NDArray[np.floating]]) -> list[int]:
    """The rings that lie wholly inside another ring of the list, by number; of equal ones only the later."""
    out: list[int] = []
    boxes = [(*r.min(axis=0), *r.max(axis=0)) for r in rings]
    for i, inner in enumerate(rings):
        for j, outer in enumerate(rings):
            a, b = boxes[i], boxes[j]
            if i == j or a[0] < b[0] or a[1] < b[1] or a[2] > b[2] or a[3] > b[3] or (a == b and i < j):
                continue
            flat = np.ascontiguousarray(inner, np.float64)
            if _all_inside(flat, np.ascontiguousarray(outer, np.float64)):
                out.append(i)
                break
    return out


@njit(cache=True, nogil=True)
def _turn(ax, ay, bx, by, cx, cy):
    value = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return 1 if value > 0 else (-1 if value < 0 else 0)


@njit(cache=True, nogil=True)
def _crosses(begin, end, most):
    """Edges sorted by their least x; a pair is looked at while the ranges of x meet."""
    looked = 0
    for i in range(len(begin)):
        right = max(begin[i, 0], end[i, 0])
        low, high = min(begin[i, 1], end[i, 1]), max(begin[i, 1], end[i, 1])
        for j in range(i + 1, len(begin)):
            if min(begin[j, 0], end[j, 0]) > right:
                break
            looked += 1
            if looked > most:
                return False
            if max(begin[j, 1], end[j, 1]) < low or min(begin[j, 1], end[j, 1]) > high:
                continue
            a = _turn(begin[i, 0], begin[i, 1], end[i, 0], end[i, 1], begin[j, 0], begin[j, 1])
            b = _turn(begin[i, 0], begin[i, 1], end[i, 0], end[i, 1], end[j, 0], end[j, 1])
            c = _turn(begin[j, 0], begin[j, 1], end[j, 0], end[j, 1], begin[i, 0], begin[i, 1])
            d = _turn(begin[j, 0], begin[j, 1], end[j, 0], end[j, 1], end[i, 0], end[i, 1])
            if a * b < 0 and c * d < 0:
                return True
    return False


@njit(cache=True, nogil=True)
def _all_inside(points, ring):
    """Every point inside of the ring or on it, by counting crossings to the right."""
    for p in range(len(points)):
        x, y = points[p, 0], points[p, 1]
        inside, on = False, False
        k = len(ring) - 1
        for i in range(len(ring)):
            x1, y1, x2, y2 = ring[k, 0], ring[k, 1], ring[i, 0], ring[i, 1]
            k = i
            turn = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
            if turn == 0 and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
                on = True
                break
            if (y1 > y) != (y2 > y) and (turn > 0) == (y2 > y1):
                inside = not inside
        if not (inside or on):
            return False
    return True
