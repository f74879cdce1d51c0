"""Assignments against all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.ops.assignment import assign, assign_pairs


def every_pairing(rows: int, columns: int) -> list[list[tuple[int, int]]]:
    if rows <= columns:
        return [list(zip(range(rows), p, strict=True)) for p in permutations(range(columns), rows)]
    return [[(r, c) for c, r in pairs] for pairs in every_pairing(columns, rows)]


def matrix(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 11, (rows, columns)) / 10


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_the_greatest_worth_of_all_pairings(rows: int, columns: int, seed: int) -> None:
    worth = matrix(rows, columns, seed) - 0.5
    r, c = assign(worth)
    assert len(r) == min(rows, columns) == len(set(r.tolist())) == len(set(c.tolist()))
    assert (np.diff(r) > 0).all()
    best = max(sum(worth[pair] for pair in pairs) for pairs in every_pairing(rows, columns))
    assert worth[r, c].sum() == pytest.approx(best)


@settings(max_examples=80)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6), st.booleans())
def test_pairs_chosen_are_the_worthiest(rows: int, columns: int, seed: int, most: bool) -> None:
    worth = matrix(rows, columns, seed)
    worth[worth < 0.5] = 0
    r, c = np.nonzero(worth)
    chosen = assign_pairs(r, c, worth[r, c], most=most)
    assert (np.diff(chosen) > 0).all()
    r, c = r[chosen], c[chosen]
    assert len(r) == len(set(r.tolist())) == len(set(c.tolist()))
    every = [[pair for pair in pairs if worth[pair] > 0] for pairs in every_pairing(rows, columns)]
    if most:
        assert len(r) == max(map(len, every))
        every = [pairs for pairs in every if len(pairs) == len(r)]
    assert worth[r, c].sum() == pytest.approx(max(sum(worth[pair] for pair in pairs) for pairs in every))


def test_groups_of_pairs_are_chosen_apart_and_together_alike() -> None:
    rng = np.random.default_rng(0)
    pairs = sorted({(int(i), int(i + rng.integers(-2, 3)) % 60) for i in rng.integers(0, 60, 150)})
    rows, columns = np.array(pairs).T
    worth = rng.random(len(rows)) + 0.01
    whole = np.zeros((60, 60))
    whole[rows, columns] = worth
    r, c = assign(whole)
    assert worth[assign_pairs(rows, columns, worth)].sum() == pytest.approx(whole[r, c].sum())


def test_nothing_to_assign_and_nonsense() -> None:
    none = np.zeros(0, np.int64)
    assert all(len(part) == 0 for part in assign(np.zeros((0, 3))))
    assert len(assign_pairs(none, none, np.zeros(0))) == 0
    with pytest.raises(ValueError, match="finite"):
        assign(np.array([[np.nan]]))
    with pytest.raises(ValueError, match=r"\[N, M\]"):
        assign(np.zeros(3))
    with pytest.raises(ValueError, match="above 0"):
        assign_pairs(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1))
