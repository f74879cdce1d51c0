"""How an error falls with the amount of data: a fitted power law, and what more data would bring.

Errors of trained networks fall as ``a n^-b`` over a wide range of data (Hestness et al. 2017, arXiv:1712.00409), toward
a floor ``c`` that no data lowers. From few points the floor can hardly be told, and which law is fitted decides what is
foreseen (Mahmood et al., CVPR 2022, arXiv:2207.01725): so both laws are fitted, without and with a floor, and the
interval covers what either says under noise of the size of the residuals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FLOORS = np.concatenate([[0.0], 1 - np.geomspace(0.999, 0.002, 60)])
"""Floors that are tried, as shares of the lowest error."""

_LEAST_SIGMA = 0.01
"""Standard deviation of the logarithm of an error that is assumed at least: no evaluation is surer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """``error = a n^-b + c``."""

    a: float
    b: float
    c: float

    def at(self, n: float) -> float:
        """The error expected of ``n`` images."""
        return self.a * n**-self.b + self.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A law and what it rests on.

    Attributes:
        law: the law without a floor.
        floored: the law with the floor that fits best; ``None`` with fewer than four amounts of data.
        sigma: standard deviation of the logarithms of the errors about the law.
    """

    law: Law
    floored: Law | None
    sigma: float
    _draws: tuple[np.ndarray, ...]

    def expect(self, n: float, level: float = 0.95) -> tuple[float, float, float]:
        """(error, low, high) at ``n`` images: the law without a floor, and the ends of the interval of both laws."""
        found = np.concatenate([a * n**-b + c for a, b, c in self._draws])
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
        value = self.law.at(n)
        return value, float(min(low, value)), float(max(high, value))


def fit(counts: Sequence[float], errors: Sequence[float], *, samples: int = 1000, seed: int = 0) -> Fit:
    """Fit errors in (0, 1] measured at ``counts`` images; counts may repeat (several seeds).

    Args:
        counts, errors: one pair a training.
        samples: draws of the parametric bootstrap.
        seed: of the draws.

    Raises:
        ValueError: fewer than three different counts, or errors that are not above 0.
    """
    n, e = np.asarray(counts, np.float64), np.asarray(errors, np.float64)
    if len(np.unique(n)) < 3:
        raise ValueError(f"a power law needs at least three amounts of data, got {len(np.unique(n))}")
    if n.shape != e.shape or (n <= 0).any() or not np.isfinite(e).all() or (e <= 0).any():
        raise ValueError(f"counts and errors must be pairs above 0, got {n.tolist()} and {e.tolist()}")
    x = np.log(n)
    plain = _line(x, np.log(e)[None])
    law = Law(a=float(np.exp(plain[0][0])), b=float(plain[1][0]), c=0.0)
    left = np.log(e) - np.log(law.a * n**-law.b)
    free = len(n) - 2
    sigma = max(_LEAST_SIGMA, float(np.sqrt((left**2).sum() / free)))
    rng = np.random.default_rng(seed)
    # a sigma of so few residuals is itself uncertain: Student's noise, not Gauss's
    noise = rng.normal(0, sigma, (samples, len(n))) * np.sqrt(free / rng.chisquare(free, (samples, 1)))
    base = np.log(law.a * n**-law.b)
    offsets, slopes = _line(x, base + noise)
    draws = [np.stack([np.exp(offsets), slopes, np.zeros(samples)])]
    floored = None
    if len(np.unique(n)) >= 4:
        a, b, c = _floored(n, e[None])
        floored = Law(a=float(a[0]), b=float(b[0]), c=float(c[0]))
        expected = floored.a * n**-floored.b + floored.c
        draws.append(np.stack(_floored(n, expected * np.exp(noise))))
    return Fit(law=law, floored=floored, sigma=sigma, _draws=tuple(draws))


def _line(x: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of each row of ``ys`` [m, k] on ``x`` [k]: (offset, negated slope), float64 [m] each."""
    centered = x - x.mean()
    slope = (ys * centered).sum(-1) / (centered**2).sum()
    return ys.mean(-1) - slope * x.mean(), -slope


def _floored(n: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best of the floors tried for each row of ``errors`` [m, k], by squares of the errors' own logarithms."""
    x = np.log(n)
    best: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    cost = np.full(len(errors), np.inf)
    for share in _FLOORS:
        c = share * errors.min(-1)
        offset, slope = _line(x, np.log(errors - c[:, None]))
        expected = np.exp(offset)[:, None] * n ** -slope[:, None] + c[:, None]
        own = ((np.log(expected) - np.log(errors)) ** 2).sum(-1)
        row = (np.exp(offset), slope, c)
        if best is None:
            best, cost = row, own
            continue
        better = own < cost
        best = (
            np.where(better, row[0], best[0]),
            np.where(better, row[1], best[1]),
            np.where(better, row[2], best[2]),
        )
        cost = np.minimum(cost, own)
    assert best is not None
    return best
