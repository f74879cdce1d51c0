"""Maps of ids: every value's mask in one pass, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map, paint_map

MAPS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-2, 5))


@given(MAPS, st.lists(st.integers(-3, 7), unique=True, max_size=8))
def test_equal_to_one_mask_after_the_other(ids: np.ndarray, values: list[int]) -> None:
    counts, offsets = encode_map(ids, np.array(values, np.int64))
    wanted = np.stack([ids == v for v in values]) if values else np.zeros((0, *ids.shape), bool)
    expected_counts, expected_offsets = rle.encode(wanted)
    assert np.array_equal(counts, expected_counts)
    assert np.array_equal(offsets, expected_offsets)


@given(MAPS)
def test_painting_brings_the_map_back(ids: np.ndarray) -> None:
    values = np.unique(ids)
    painted = paint_map(*encode_map(ids, values), ids.shape, values, background=99)
    assert np.array_equal(painted, ids)


def test_later_masks_cover_earlier_ones() -> None:
    runs = rle.encode(np.array([[[1, 1, 0]], [[0, 1, 1]]], bool))
    assert paint_map(*runs, (1, 3), np.array([4, 9])).tolist() == [[4, 9, 9]]


def test_what_cannot_be_cut() -> None:
    with pytest.raises(InputError, match=r"\[H, W\]"):
        encode_map(np.zeros((2, 2, 2), np.int32), np.array([1]))
    with pytest.raises(InputError, match="distinct"):
        encode_map(np.zeros((2, 2), np.int32), np.array([1, 1]))
