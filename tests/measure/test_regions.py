"""Centroids from run-lengths against centroids from pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskwright.measure.regions import centroids


def _runs(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column-major run-lengths by hand, so that this test does not lean on the code it measures with."""
    counts: list[int] = []
    offsets = [0]
    for mask in masks:
        flat = mask.T.reshape(-1)
        edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
        runs = np.diff(np.concatenate([[0], edges, [len(flat)]]))
        counts += [0, *runs] if len(flat) and flat[0] else [*runs]
        offsets.append(len(counts))
    return np.array(counts, np.int32), np.array(offsets, np.int64)


@settings(deadline=None)
@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9), elements=st.booleans()))
def test_centroids_equal_those_of_the_pixels(masks: np.ndarray) -> None:
    counts, offsets = _runs(masks)
    got = centroids(counts, offsets, masks.shape[1])
    for mask, (x, y) in zip(masks, got, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows) == 0:
            assert np.isnan(x)
            assert np.isnan(y)
        else:
            np.testing.assert_allclose((x, y), (columns.mean() + 0.5, rows.mean() + 0.5), atol=1e-9)


def test_no_masks() -> None:
    assert centroids(np.zeros(0, np.int32), np.zeros(1, np.int64), 5).shape == (0, 2)


def test_large_canvas_does_not_overflow() -> None:
    side = 40_000
    got = centroids(np.array([0, side * side], np.int32), np.array([0, 2]), side)
    np.testing.assert_allclose(got, [[side / 2, side / 2]])
