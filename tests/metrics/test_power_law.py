from __future__ import annotations

import numpy as np
import pytest

from maskwright.metrics.power_law import fit


def test_a_known_law_is_found_again() -> None:
    counts = [50, 100, 200, 400, 800]
    found = fit(counts, [2.0 * n**-0.35 for n in counts])
    assert found.law.a == pytest.approx(2.0)
    assert found.law.b == pytest.approx(0.35)
    value, low, high = found.expect(1600)
    assert value == pytest.approx(2.0 * 1600**-0.35)
    assert low <= value <= high


def test_a_floor_is_found() -> None:
    counts = [10, 30, 100, 300, 1000, 3000]
    found = fit(counts, [1.5 * n**-0.8 + 0.2 for n in counts])
    assert found.floored is not None
    assert found.floored.c == pytest.approx(0.2, rel=0.1)
    assert found.expect(30000)[2] > 0.19  # the interval knows of the floor, the plain law does not


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([50, 100, 200, 400])
    hits = 0
    for _ in range(40):
        errors = 1.2 * counts**-0.3 * np.exp(rng.normal(0, 0.03, 4))
        _, low, high = fit(counts.tolist(), errors.tolist(), samples=200).expect(800)
        hits += low <= 1.2 * 800**-0.3 <= high
    assert hits >= 34


@pytest.mark.parametrize(
    ("counts", "errors"), [([1, 2, 2], [0.5, 0.4, 0.4]), ([1, 2, 3], [0.5, 0.0, 0.1]), ([1, 2, 3], [0.5, np.nan, 0.1])]
)
def test_what_cannot_be_fitted(counts: list[float], errors: list[float]) -> None:
    with pytest.raises(ValueError, match=r"three amounts|above 0"):
        fit(counts, errors)
