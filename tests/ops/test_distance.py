"""Distances and surfaces against loops over all pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from maskwright.ops import distance
from maskwright.ops.distance import changes, distance_to, nearest, surface

shapes = st.one_of(st.tuples(*[st.integers(1, 7)] * 2), st.tuples(*[st.integers(1, 5)] * 3))
steps = st.lists(st.sampled_from([0.5, 0.1, 1.0, 2.5]), min_size=3, max_size=3)


def drawn(shape: tuple[int, ...], seed: int, share: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


@settings(max_examples=40)
@given(shapes, st.integers(0, 10**6), steps)
def test_distances_are_those_of_all_pairs(shape: tuple[int, ...], seed: int, spacing: list[float]) -> None:
    mask, step = drawn(shape, seed, 0.2), np.array(spacing[: len(shape)])
    there = np.argwhere(mask)
    out = distance_to(mask, step.tolist())
    for place in np.ndindex(shape):
        far = np.sqrt((((there - place) * step) ** 2).sum(1)).min(initial=np.inf)
        assert out[place] == pytest.approx(far)


@pytest.mark.parametrize("worth", [0, 10**9])
@settings(max_examples=25)
@given(shapes, st.integers(0, 10**6), steps)
def test_tree_and_transform_agree_to_the_bit(
    worth: int, shape: tuple[int, ...], seed: int, spacing: list[float]
) -> None:
    start, goal = drawn(shape, seed), drawn(shape, seed + 1, 0.2)
    kept, distance._POINTS_WORTH_A_TREE = distance._POINTS_WORTH_A_TREE, worth
    try:
        found = nearest(np.argwhere(start), np.argwhere(goal), spacing[: len(shape)])
    finally:
        distance._POINTS_WORTH_A_TREE = kept
    wanted = distance_to(goal, spacing[: len(shape)])[start]
    # Ties between unequal steps may be broken differently, which moves the last bit.
    np.testing.assert_allclose(found, wanted, rtol=1e-15)


@settings(max_examples=40)
@given(shapes, st.integers(0, 10**6), st.booleans())
def test_surfaces_are_what_erosion_takes(shape: tuple[int, ...], seed: int, edge: bool) -> None:
    mask = drawn(shape, seed, 0.8)
    left = ndimage.binary_erosion(mask, border_value=0 if edge else 1)
    np.testing.assert_array_equal(surface(mask, edge=edge), mask & ~left)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_changes_look_right_and_down(height: int, width: int, seed: int) -> None:
    mask = drawn((height, width), seed, 0.5)
    out = changes(mask)
    for y, x in product(range(height), range(width)):
        others = [(y + a, x + b) for a, b in ((0, 1), (1, 0), (1, 1))]
        assert out[y, x] == any(mask[y, x] != mask[p] for p in others if p[0] < height and p[1] < width)


def test_nothing_to_go_to_and_nonsense() -> None:
    assert np.isinf(distance_to(np.zeros((2, 2), bool))).all()
    assert np.isinf(nearest(np.zeros((3, 2), np.int64), np.zeros((0, 2), np.int64))).all()
    assert surface(np.zeros((0, 3), bool)).shape == (0, 3)
    with pytest.raises(ValueError, match="spacing"):
        distance_to(np.ones((2, 2), bool), (1.0,))
    with pytest.raises(ValueError, match="spacing"):
        distance_to(np.ones((2, 2), bool), (1.0, -1.0))
    with pytest.raises(ValueError, match="plane"):
        changes(np.zeros((2, 2, 2), bool))
