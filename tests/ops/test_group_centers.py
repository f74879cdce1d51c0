from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.ops.group_centers import center_targets, find_centers, group


def slow(centers: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest center's number and all distances [K, H, W]."""
    places = np.indices(offsets.shape[1:]).astype(np.float32) + offsets
    far = np.sqrt(((centers.astype(np.float32)[:, :, None, None] - places[None]) ** 2).sum(1))
    return far.argmin(0) + 1, far


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.floats(0, 80), st.integers(0, 2**32 - 1))
def test_every_pixel_has_the_nearest_center(height: int, width: int, count: int, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centers = np.stack([rng.integers(0, height, count), rng.integers(0, width, count)], 1)
    offsets = rng.normal(0, spread, (2, height, width)).astype(np.float32)
    found = group(centers, offsets)
    wanted, far = slow(centers, offsets)
    chosen = np.take_along_axis(far, found[None].astype(np.int64) - 1, 0)[0]
    assert (chosen <= far.min(0) * (1 + 1e-6) + 1e-5).all()
    assert (found == wanted).mean() > 0.99 or count > height * width  # equal places tie


def test_ties_go_to_the_first_and_what_is_outside_is_none() -> None:
    centers = np.array([[2, 1], [2, 5]])
    inside = np.ones((5, 7), bool)
    inside[:, 6] = False
    found = group(centers, np.zeros((2, 5, 7), np.float32), inside)
    assert found[0].tolist() == [1, 1, 1, 1, 2, 2, 0]


def test_without_centers_or_pixels() -> None:
    assert not group(np.zeros((0, 2), np.int64), np.zeros((2, 3, 4), np.float32)).any()
    assert group(np.zeros((1, 2), np.int64), np.zeros((2, 0, 4), np.float32)).shape == (0, 4)


def test_places_that_are_no_numbers_belong_to_the_first() -> None:
    offsets = np.zeros((2, 4, 4), np.float32)
    offsets[:, 1, 1] = np.nan
    offsets[:, 2, 2] = np.inf
    found = group(np.array([[0, 0], [3, 3]]), offsets)
    assert set(np.unique(found)) == {1, 2}


def test_centers_are_local_maxima() -> None:
    heat = torch.zeros(20, 30)
    heat[5, 5], heat[5, 7], heat[12, 20], heat[18, 2] = 0.9, 0.8, 0.5, 0.05
    assert find_centers(heat).tolist() == [[5, 5], [12, 20]]
    assert find_centers(heat, kernel=3).tolist() == [[5, 5], [5, 7], [12, 20]]
    assert find_centers(heat, threshold=0.01, limit=2).tolist() == [[5, 5], [12, 20]]
    assert find_centers(heat, threshold=1.0).shape == (0, 2)
    assert find_centers(heat, limit=0).shape == (0, 2)


def test_targets_are_the_papers() -> None:
    ids = np.zeros((40, 50), np.int64)
    ids[3:9, 4:21], ids[20:22, 40:50], ids[39, 0] = 1, 2, 4  # nothing has number 3
    heat, offsets, areas = center_targets(ids, 4, sigma=3.0)
    assert areas.tolist() == [6 * 17, 20, 0, 1]
    y, x = np.indices(ids.shape)
    wanted = np.zeros(ids.shape)
    for name in (1, 2, 4):
        rows, columns = np.nonzero(ids == name)
        middle = rows.mean(), columns.mean()
        np.testing.assert_allclose(
            offsets[:, rows, columns], np.stack([middle[0] - rows, middle[1] - columns]), atol=1e-5
        )
        peak = np.rint(middle)
        near = (abs(y - peak[0]) <= 10) & (abs(x - peak[1]) <= 10)
        wanted = np.maximum(wanted, near * np.exp(-((y - peak[0]) ** 2 + (x - peak[1]) ** 2) / 18))
    np.testing.assert_allclose(heat, wanted, atol=1e-6)
    assert not offsets[:, ids == 0].any()


@pytest.mark.parametrize("count", [0, 1])
def test_targets_of_nothing(count: int) -> None:
    heat, offsets, areas = center_targets(np.zeros((6, 5), np.int64), count)
    assert not heat.any()
    assert not offsets.any()
    assert areas.tolist() == [0] * count


def test_targets_group_back_to_the_objects() -> None:
    rng = np.random.default_rng(0)
    ids = np.kron(rng.permutation(12).reshape(3, 4), np.ones((20, 20), np.int64))
    heat, offsets, _ = center_targets(ids, 11)
    found = group(find_centers(torch.from_numpy(heat)).numpy(), offsets, ids > 0)
    for name in range(1, 12):
        assert len(np.unique(found[ids == name])) == 1
    assert len(np.unique(found)) == 12
