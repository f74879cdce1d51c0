"""Polygons as pycocotools draws them, and outlines that draw the mask again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from scipy import ndimage

from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.polygons import fill_outlines, outlines, rasterize, signed_area

quick = settings(deadline=None, max_examples=100)


def reference(polygons: list[np.ndarray], size: tuple[int, int]) -> bytes:
    """pycocotools' string for the union of ``polygons``."""
    return coco.merge(coco.frPyObjects([polygon.reshape(-1).tolist() for polygon in polygons], *size))["counts"]


def polygon(rng: np.random.Generator, kind: int, size: tuple[int, int]) -> np.ndarray:
    """Points [K, 2] of one of eight sorts, from plain to degenerate."""
    points, wh = int(rng.integers(3, 12)), np.array([size[1], size[0]], np.float64)
    unit = rng.uniform(0, 1, (points, 2))
    if kind == 0:  # half outside
        return (2 * unit - 0.5) * wh
    if kind == 1:  # whole numbers, so edges lie on pixel corners
        return rng.integers(-3, int(wh.max()) + 3, (points, 2)).astype(np.float64)
    if kind == 2:  # smaller than a pixel or two
        return unit[:1] * wh + rng.normal(0, 0.6, (points, 2))
    if kind == 3:  # half numbers
        return np.round(unit * wh * 2) / 2
    if kind == 4:  # all points but one the same
        out = np.repeat(unit[:1] * wh, points, axis=0)
        out[0] += 3 * rng.integers(0, 2)
        return out
    if kind == 5:  # far outside
        return (40 * unit - 20) * wh
    if kind == 6:  # on and beside the fine grid
        return np.round(unit * wh * 5) / 5 + rng.choice([0, 0.1, -0.1, 0.3])
    angle = np.sort(rng.uniform(0, 2 * np.pi, 30))
    radius = 0.45 * (1 + 0.2 * np.sin(5 * angle))
    return wh / 2 + wh * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


@pytest.mark.parametrize("kind", range(8))
def test_thousands_of_random_polygons_are_drawn_as_pycocotools_draws_them(kind: int) -> None:
    rng = np.random.default_rng(kind)
    for _ in range(600):
        size = (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
        parts = [polygon(rng, kind, size) for _ in range(rng.integers(1, 4))]
        counts = rasterize(parts, size)
        assert counts.dtype == np.int32
        assert rle.compress(counts) == reference(parts, size), (parts, size)


@quick
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.lists(
        hnp.arrays(np.float64, st.tuples(st.integers(3, 6), st.just(2)), elements=st.floats(-1e4, 1e4, width=32)),
        min_size=1,
        max_size=3,
    ),
)
def test_any_polygons_are_drawn_as_pycocotools_draws_them(size: tuple[int, int], parts: list[np.ndarray]) -> None:
    assert rle.compress(rasterize(parts, size)) == reference(parts, size)


def test_a_large_picture_too() -> None:
    rng = np.random.default_rng(11)
    for _ in range(30):
        parts = [polygon(rng, 7, (3000, 4000)) + rng.uniform(-500, 500, 2)]
        assert rle.compress(rasterize(parts, (3000, 4000))) == reference(parts, (3000, 4000))


@quick
@given(hnp.arrays(np.bool_, st.tuples(st.just(1), st.integers(1, 10), st.integers(1, 10))))
def test_outlines_fill_to_the_same_mask_and_count_parts_and_holes(mask: np.ndarray) -> None:
    size = mask.shape[1:]
    counts, _ = rle.encode(mask)
    rings = outlines(counts, size)
    np.testing.assert_array_equal(fill_outlines(rings, size), counts)
    assert sum(map(signed_area, rings)) == mask.sum()
    outer = [ring for ring in rings if signed_area(ring) > 0]
    assert rings[: len(outer)] == outer or all(a is b for a, b in zip(rings, outer, strict=False))
    assert len(outer) == ndimage.label(mask[0])[1]
    background = np.pad(~mask[0], 1, constant_values=True)
    assert len(rings) - len(outer) == ndimage.label(background, np.ones((3, 3)))[1] - 1
    for ring in rings:
        assert ring.dtype == np.float64
        steps = np.roll(ring, -1, axis=0) - ring
        assert ((steps != 0).sum(1) == 1).all()  # along pixel edges …
        assert all((a[0] == 0) != (b[0] == 0) for a, b in pairwise(steps))  # … and corners only
    if outer and len(outer) == len(rings):
        np.testing.assert_array_equal(rasterize(rings, size), counts)


def test_a_ring_with_a_hole() -> None:
    mask = np.zeros((1, 5, 6), bool)
    mask[0, 1:4, 1:5] = True
    mask[0, 2, 2:4] = False
    outer, hole = outlines(rle.encode(mask)[0], (5, 6))
    assert sorted(map(tuple, outer.tolist())) == [(1, 1), (1, 4), (5, 1), (5, 4)]
    assert sorted(map(tuple, hole.tolist())) == [(2, 2), (2, 3), (4, 2), (4, 3)]
    assert signed_area(outer) == 12
    assert signed_area(hole) == -2
    both = rasterize([outer, hole], (5, 6))
    assert rle.area(both, np.array([0, len(both)])).tolist() == [12]  # COCO's union cannot say holes


def test_diagonal_neighbors_are_apart_and_nothing_has_no_outline() -> None:
    rings = outlines(rle.encode(np.eye(2, dtype=bool)[None])[0], (2, 2))
    assert [signed_area(ring) for ring in rings] == [1, 1]
    assert outlines(np.array([12], np.int32), (3, 4)) == []
    np.testing.assert_array_equal(fill_outlines([], (3, 4)), [12])


def test_filling_goes_by_pixel_centers() -> None:
    box = np.array([[0.6, 0.4], [2.6, 0.4], [2.6, 1.6], [0.6, 1.6]])
    wanted = np.zeros((1, 3, 4), bool)
    wanted[0, 0:2, 1:3] = True
    np.testing.assert_array_equal(fill_outlines([box], (3, 4)), rle.encode(wanted)[0])
    np.testing.assert_array_equal(fill_outlines([box[::-1]], (3, 4)), rle.encode(wanted)[0])


def test_a_hundred_megapixels_by_its_outline_alone() -> None:
    box = np.array([[10.0, 20.0], [9000.0, 20.0], [9000.0, 9990.0], [10.0, 9990.0]])
    counts = rasterize([box], (10_000, 10_000))
    assert rle.area(counts, np.array([0, len(counts)])).tolist() == [8990 * 9970]
    (ring,) = outlines(counts, (10_000, 10_000))
    assert sorted(map(tuple, ring.tolist())) == sorted(map(tuple, box.tolist()))
    np.testing.assert_array_equal(fill_outlines([ring], (10_000, 10_000)), counts)


BOX = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0]])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (BOX[:2], "at least 3 points, got 2"),
        (BOX[:0], "at least 3 points, got 0"),
        (BOX.reshape(-1), r"shape \(K, 2\), got \(6,\)"),
        (np.zeros((4, 3)), r"shape \(K, 2\), got \(4, 3\)"),
        (np.array([[0, 0], [1, np.nan], [2, 2]]), "finite"),
        (np.array([[0, 0], [1, np.inf], [2, 2]]), "finite"),
        (np.array([[0, 0], [1, 1e300], [2, 2]]), "finite points within"),
        ([["a", "b"]] * 3, "numbers"),
        ([[1, 2], [3]], "numbers"),
        (None, "shape|numbers"),
    ],
)
def test_a_broken_polygon_is_named(bad: np.ndarray, message: str) -> None:
    for draw in (rasterize, fill_outlines):
        with pytest.raises(InputError, match=rf"polygon 1 .*({message})"):
            draw([BOX, bad], (5, 5))


def test_what_else_is_refused() -> None:
    with pytest.raises(InputError, match="at least one polygon"):
        rasterize([], (5, 5))
    with pytest.raises(InputError, match=r"\(H, W\)"):
        rasterize([BOX], (2, 5, 5))
    with pytest.raises(InputError, match="mask 0"):
        outlines(np.array([3, 5], np.int32), (5, 5))
