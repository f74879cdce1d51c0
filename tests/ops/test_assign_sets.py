"""One-to-one matching of several matrices at the least cost."""

from __future__ import annotations

import itertools

import pytest
import torch

from maskwright.ops.assign_sets import match_sets


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (4, 4), (1, 5)])
def test_the_sum_of_costs_is_least(shape: tuple[int, int]) -> None:
    cost = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    [(rows, columns)] = match_sets([cost])
    assert rows.dtype == columns.dtype == torch.int64
    assert len(rows) == min(shape)
    assert (rows.diff() > 0).all()
    assert len(columns.unique()) == len(columns)
    small = cost if shape[0] <= shape[1] else cost.T
    ways = itertools.permutations(range(small.shape[1]), small.shape[0])
    least = min(float(small[torch.arange(len(way)), torch.tensor(way)].sum()) for way in ways)
    assert float(cost[rows, columns].sum()) == pytest.approx(least, abs=1e-5)


def test_sizes_may_differ_and_be_empty() -> None:
    out = match_sets([torch.rand(3, 2), torch.rand(0, 4), torch.rand(5, 0), torch.rand(2, 6)])
    assert [len(rows) for rows, _ in out] == [2, 0, 0, 2]
    assert match_sets([]) == []


@pytest.mark.parametrize("wild", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_taken_last(wild: float) -> None:
    cost = torch.tensor([[wild, 1e6], [0.0, wild], [wild, wild]])
    [(rows, columns)] = match_sets([cost])
    assert rows.tolist() == [0, 1]
    assert columns.tolist() == [1, 0]
    [(rows, _)] = match_sets([torch.full((2, 2), wild)])
    assert len(rows) == 2


def test_half_precision_and_gradients_are_no_matter() -> None:
    cost = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.bfloat16, requires_grad=True)
    [(_, columns)] = match_sets([cost])
    assert columns.tolist() == [1, 0]


def test_costs_are_matrices() -> None:
    with pytest.raises(ValueError, match="matrix"):
        match_sets([torch.rand(3)])
