"""Boundary figures against loops over all pixels and, for DAVIS, dilation by a disk as its authors do."""

from __future__ import annotations

from itertools import pairwise, product
from math import ceil, hypot
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from maskwright.metrics._label_images import read_labels
from maskwright.metrics.boundary import BoundaryF, boundary_figures, read_boundary
from maskwright.structures import Masks, Scene, Segments
from tests.golden.record_surface import data
from tests.shared import shared

Three = tuple[float, float, float]


def blobs(seed: int, shape: tuple[int, ...] = (20, 24)) -> tuple[np.ndarray, np.ndarray]:
    return data(seed, shape)


def f_of(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def davis(found: np.ndarray, there: np.ndarray) -> Three:
    """Boundaries where a pixel differs from its right, lower or lower right neighbor; dilated by a disk."""
    edges: list[np.ndarray] = []
    height, width = there.shape
    for mask in (found, there):
        edge = np.zeros(mask.shape, bool)
        for y, x in product(range(height), range(width)):
            near = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edge[y, x] = any(p[0] < height and p[1] < width and mask[p] != mask[y, x] for p in near)
        edges.append(edge)
    radius = ceil(0.008 * hypot(height, width))
    ys, xs = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    wide = [ndimage.binary_dilation(edge, ys**2 + xs**2 <= radius**2) for edge in edges]
    if not edges[0].any() or not edges[1].any():
        precision, recall = float(not edges[0].any()), float(not edges[1].any())
    else:
        precision = (edges[0] & wide[1]).sum() / edges[0].sum()
        recall = (edges[1] & wide[0]).sum() / edges[1].sum()
    return precision, recall, f_of(precision, recall)


def plain(found: np.ndarray, there: np.ndarray, tolerance: float, spacing: tuple[float, ...]) -> Three:
    sides = [np.argwhere(m & ~ndimage.binary_erosion(m, border_value=1)) * spacing for m in (found, there)]
    far = np.sqrt(((sides[0][:, None] - sides[1]) ** 2).sum(-1))
    precision, recall = (far.min(1) <= tolerance).mean(), (far.min(0) <= tolerance).mean()
    return precision, recall, f_of(precision, recall)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 1.5, 3.0]), st.sampled_from([(1.0, 1.0), (0.5, 2.0)]))
def test_figures_are_those_of_all_pairs(seed: int, tolerance: float, spacing: tuple[float, float]) -> None:
    found, there = blobs(seed)
    if found.any() and there.any():
        got = boundary_figures(found, there, tolerance, spacing)
        assert got == pytest.approx(plain(found, there, tolerance, spacing))


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([(20, 24), (9, 150)]))
def test_davis_dilates_boundaries_by_a_disk(seed: int, shape: tuple[int, int]) -> None:
    found, there = blobs(seed, shape)
    assert boundary_figures(found, there, "davis") == pytest.approx(davis(found, there))
    metric = BoundaryF({"object": 1}, "davis")  # cuts masks out, which must not matter
    metric.update_maps(found.astype(np.uint8), there.astype(np.uint8))
    row = metric.compute()["semantic"]["per_class"]["object"]
    assert (row["precision"], row["recall"], row["F"]) == pytest.approx(davis(found, there))


def test_real_clips_by_davis_rule() -> None:
    folder = shared("data/video/davis/Annotations/blackswan")
    frames = sorted(folder.glob("*.png"))[:21:10]
    metric = BoundaryF({"swan": 1}, "davis")
    wanted: list[float] = []
    masks = [(read_labels(path) > 0)[::4, ::4] for path in frames]
    for i, (found, there) in enumerate(pairwise(masks)):
        metric.update_maps(found.astype(np.uint8), there.astype(np.uint8), i)
        wanted.append(davis(found, there)[2])
    got = metric.compute()["semantic"]["F"]
    assert got == pytest.approx(np.mean(wanted))
    assert 0.1 < got < 1.0
    same = read_boundary(
        frames[0], frames[0], {"swan": int(read_labels(frames[0]).max())}, tolerance="davis", ignore=-1
    )
    assert same.compute()["semantic"]["F"] == 1.0


def test_what_one_side_or_none_has() -> None:
    none, one = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    one[2:5, 2:5] = True
    assert boundary_figures(none, one, "davis") == (1.0, 0.0, 0.0)
    assert boundary_figures(one, none, "davis") == (0.0, 1.0, 0.0)
    assert boundary_figures(none, none, "davis") == (1.0, 1.0, 1.0)
    assert boundary_figures(none, one, 1.0) == pytest.approx((np.nan, 0.0, 0.0), nan_ok=True)
    assert boundary_figures(one, none, 1.0) == pytest.approx((0.0, np.nan, 0.0), nan_ok=True)
    assert np.isnan(boundary_figures(none, none, 1.0)).all()
    assert np.isnan(boundary_figures(~none, ~none, 1.0)).all()  # the image's edge is no boundary


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_classes_of_maps_are_means_over_the_images_that_have_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric = BoundaryF(("a", "b", "c"), 1.0)
    rows: dict[int, list[Three]] = {0: [], 1: [], 2: []}
    by_image: list[float] = []
    for _ in range(3):
        pair: list[np.ndarray] = []
        for mask in blobs(int(rng.integers(10**6)), (12, 14)):
            pair.append(np.where(mask, int(rng.integers(1, 3)), 0))
        found, there = pair
        there[:2] = 255
        metric.update_maps(found, there)
        found = np.where(there == 255, 255, found)
        here: list[Three] = []
        for c in range(3):
            row = boundary_figures(found == c, there == c, 1.0)
            if not np.isnan(row[2]):
                rows[c].append(row)
                here.append(row)
        by_image += [float(np.mean([row[2] for row in here]))] if here else []
    out = metric.compute()["semantic"]
    means = []
    for c, name in enumerate("abc"):
        for place, figure in enumerate(("precision", "recall", "F")):
            known = [row[place] for row in rows[c] if not np.isnan(row[place])]
            assert out["per_class"][name][figure] == pytest.approx(np.mean(known) if known else -1.0)
        means += [np.mean([row[2] for row in rows[c]])] if rows[c] else []
    assert out["F"] == pytest.approx(np.mean(means) if means else -1.0)
    assert out["F_per_image"] == pytest.approx(np.mean(by_image) if by_image else -1.0)


def objects(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Squares and the same moved by at most two pixels, with classes; one more on either side."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, 5, 40, 50), bool)
    for i in range(5):
        y, x, h, w = 20 * (i // 3), 16 * (i % 3), int(rng.integers(5, 18)), int(rng.integers(5, 14))
        for side, by in zip(masks, (0, int(rng.integers(0, 3))), strict=True):
            side[i, y + by : y + by + h, x + by : x + by + w] = True
    labels = np.array([0, 1, 0, 1, 0])
    return masks[1, 1:], labels[1:], masks[0, :4], labels[:4]


@pytest.mark.parametrize("tolerance", [1.0, "davis"])
@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_instances_are_compared_pair_by_pair(tolerance: float | Literal["davis"], seed: int) -> None:
    found, labels, there, truth_labels = objects(seed)
    metric = BoundaryF(("a", "b"), tolerance, "instance")
    metric.update_masks(found, labels, there, truth_labels)
    rows: dict[int, list[Three]] = {0: [], 1: []}
    for (i, mask), (j, other) in product(enumerate(found), enumerate(there)):
        if labels[i] == truth_labels[j] and (mask & other).sum() > 0.5 * (mask | other).sum():
            rows[int(labels[i])].append(boundary_figures(mask, other, tolerance))
    out = metric.compute()["instance"]
    for c, name in enumerate("ab"):
        for place, figure in enumerate(("precision", "recall", "F")):
            known = [row[place] for row in rows[c] if not np.isnan(row[place])]
            assert out["per_class"][name][figure] == pytest.approx(np.mean(known) if known else -1.0)
        assert out["per_class"][name]["found"] == len(rows[c]) / 2
    assert out["found"] == sum(map(len, rows.values())) / 4


def test_scenes_count_as_arrays_do() -> None:
    found, labels, there, truth_labels = objects(3)
    by_array, by_scene = (BoundaryF(("a", "b"), 1.0, "instance", min_score=0.5) for _ in range(2))
    by_array.update_masks(found, labels, there[:3], truth_labels[:3])
    scenes: list[Scene] = []
    more: dict[str, Any] = {"scores": torch.tensor([0.9, 0.6, 0.5, 0.8, 0.4])}
    found, labels = np.concatenate([found, there[3:]]), np.append(labels, 0)
    for masks, its in ((found, labels), (there, truth_labels)):
        runs = Masks.from_dense(torch.from_numpy(masks))
        segments = Segments(size=(40, 50), labels=torch.from_numpy(its), masks=runs, **more)
        scenes.append(Scene(size=(40, 50), segments=segments))
        more = {"crowd": torch.tensor([False, False, False, True])}
    by_scene.update(*scenes)
    assert by_scene.compute() == by_array.compute()

    by_map, by_scene = BoundaryF(("a", "b")), BoundaryF(("a", "b"))
    maps = [m.astype(np.int64) for m in blobs(4)]
    by_map.update_maps(*maps)
    by_scene.update(*(Scene(size=(20, 24), semantic=torch.from_numpy(m)) for m in maps))
    assert by_map.compute() == by_scene.compute()


def test_truth_against_itself_is_perfect_in_volumes_too() -> None:
    metric = BoundaryF({"organ": 1}, 0.0, spacing=(3, 1, 1))
    volume = data(2, (8, 10, 12))[0].astype(np.uint8)
    metric.update_maps(volume, volume)
    assert metric.compute()["semantic"]["per_class"]["organ"] == {"precision": 1.0, "recall": 1.0, "F": 1.0}


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_shards_and_weights(kind: Literal["semantic", "instance"]) -> None:
    def fresh() -> BoundaryF:
        return BoundaryF(("a", "b"), 0.0, kind)

    whole, twice, parts = fresh(), fresh(), []
    for i in range(4):
        parts.append(fresh())
        for metric, keys in ((whole, [i]), (twice, [i, "again"] if i == 1 else [i]), (parts[-1], [i])):
            for key in keys:
                if kind == "semantic":
                    metric.update_maps(*(m.astype(np.int64) for m in blobs(i)), key)
                else:
                    metric.update_masks(*objects(i), key)
    merged = parts[3].merge(parts[1]).merge(parts[0].merge(parts[2]))
    assert merged.compute() == whole.compute()
    weighted, fed = whole.compute(np.array([1, 2, 1, 1])), twice.compute()
    for name in ("a", "b"):
        assert weighted[kind]["per_class"][name] == pytest.approx(fed[kind]["per_class"][name])
    last = "F_per_image" if kind == "semantic" else "found"
    assert weighted[kind][last] == pytest.approx(fed[kind][last])
    with pytest.raises(ValueError, match="tolerance"):
        whole.merge(BoundaryF(("a", "b"), 1.0, kind))
    assert fresh().compute()[kind]["F"] == -1.0


def test_wrong_input_is_refused() -> None:
    for wrong in ({"tolerance": -1.0}, {"kind": "panoptic"}, {"ignore": 0}):
        with pytest.raises(ValueError, match=r"must be"):
            BoundaryF(("a",), **wrong)
    with pytest.raises(ValueError, match="no spacing"):
        BoundaryF(("a",), "davis", spacing=(1, 1))
    semantic, instance = BoundaryF(("a",)), BoundaryF(("a",), kind="instance")
    flat, mask = np.zeros((3, 3), np.int64), np.zeros((1, 3, 3), bool)
    with pytest.raises(ValueError, match="update_masks"):
        instance.update_maps(flat, flat)
    with pytest.raises(ValueError, match="update_maps"):
        semantic.update_masks(mask, flat[0, :1], mask, flat[0, :1])
    with pytest.raises(ValueError, match="label each"):
        instance.update_masks(mask, flat[0, :2], mask, flat[0, :1])
    with pytest.raises(ValueError, match=r"0 \.\. 0"):
        instance.update_masks(mask, flat[0, :1] + 1, mask, flat[0, :1])
    with pytest.raises(ValueError, match="share one shape"):
        semantic.update_maps(flat, flat[:2])
    with pytest.raises(ValueError, match="semantic maps"):
        semantic.update(Scene(size=(3, 3)), Scene(size=(3, 3)))
