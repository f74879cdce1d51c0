"""Votes and STAPLE against slow readings of their definitions; grouping of objects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.errors import InputError
from maskwright.ops.consensus import cohen, majority, same_things, staple

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))


def slow_staple(masks: np.ndarray, prior: float, rounds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Warfield et al., equations 14 to 19, pixel by pixel."""
    votes = masks.reshape(len(masks), -1)
    p, q = np.full(len(masks), 0.99999), np.full(len(masks), 0.99999)
    weight = np.zeros(votes.shape[1])
    for _ in range(rounds):
        for pixel in range(votes.shape[1]):
            yes, no = prior, 1 - prior
            for rater, vote in enumerate(votes[:, pixel]):
                yes *= p[rater] if vote else 1 - p[rater]
                no *= 1 - q[rater] if vote else q[rater]
            weight[pixel] = yes / (yes + no)
        p = np.clip([(weight * v).sum() / weight.sum() for v in votes], 1e-9, 1 - 1e-9)
        q = np.clip([((1 - weight) * ~v).sum() / (1 - weight).sum() for v in votes], 1e-9, 1 - 1e-9)
    return weight.reshape(masks.shape[1:]), p, q


@given(st.integers(2, 5), st.integers(0, 10**6))
def test_staple_is_its_definition(raters: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((6, 7)) < 0.4
    masks = np.stack([truth ^ (rng.random(truth.shape) < rng.uniform(0.02, 0.25)) for _ in range(raters)])
    found = staple(masks, prior=0.4, rounds=8, tolerance=0)
    weight, p, q = slow_staple(masks, 0.4, 8)
    assert np.allclose(found.probability, weight, atol=1e-9)
    assert np.allclose(found.sensitivity, p, atol=1e-9)
    assert np.allclose(found.specificity, q, atol=1e-9)


def test_staple_trusts_those_who_are_right() -> None:
    """Two careless raters outvote a careful one in a majority, not here; and it says how careful each is."""
    rng = np.random.default_rng(5)
    truth = np.zeros((64, 64), bool)
    truth[16:48, 16:48] = True
    rates = (0.01, 0.01, 0.3, 0.35, 0.4)
    masks = np.stack([truth ^ (rng.random(truth.shape) < rate) for rate in rates])
    found = staple(masks)
    assert np.abs(found.sensitivity - (1 - np.array(rates))).max() < 0.05
    wrong = [int((m != truth).sum()) for m in (majority(masks), found.probability > 0.5)]
    assert 2 * wrong[1] < wrong[0]


@given(MASKS)
def test_majority(masks: np.ndarray) -> None:
    assert np.array_equal(majority(masks), masks.mean(axis=0) > 0.5)


def test_what_cannot_be_joined() -> None:
    for masks in (np.zeros((0, 3, 3), bool), np.zeros((2, 0, 3), bool), np.zeros((61, 2, 2), bool)):
        with pytest.raises(InputError, match="STAPLE needs"):
            staple(masks)
    with pytest.raises(InputError, match="prior"):
        staple(np.ones((2, 2, 2), bool), prior=1.0)
    with pytest.raises(InputError, match="needs raters"):
        majority(np.zeros((0, 2), bool))
    alike = staple(np.ones((3, 4), bool))
    assert (alike.probability > 0.5).all()


def test_things_have_one_object_of_a_rater() -> None:
    owners = np.array([0, 0, 1, 1, 2])
    pairs = np.array([[0, 2], [1, 2], [1, 3], [2, 4], [0, 4]])
    ious = np.array([0.6, 0.8, 0.7, 0.9, 0.5])
    assert same_things(owners, pairs, ious) == [[0], [1, 2, 4], [3]]
    assert same_things(owners, np.zeros((0, 2), int), np.zeros(0)) == [[i] for i in range(5)]


def test_kappa() -> None:
    assert cohen([[20, 5], [10, 15]]) == pytest.approx(0.4)  # the textbook's example
    assert cohen([[7, 0], [0, 0]]) == 1.0
    assert cohen([[0, 5], [5, 0]]) == -1.0
    assert cohen(np.zeros((2, 2))) is None
