"""Surface distances against all pairs of surface pixels, and against what MONAI recorded."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.errors import InputError
from maskwright.metrics._label_images import read_labels
from maskwright.metrics.surface import SurfaceDistance, distances, read_surface
from maskwright.structures import Scene
from tests.golden.record_surface import CASES, TOLERANCES, data
from tests.shared import shared

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "surface.json").read_text())
steps = st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=3, max_size=3)


def points(mask: np.ndarray, spacing: list[float]) -> np.ndarray:
    """Surface pixels in millimeters, one by one."""
    out: list[np.ndarray] = []
    for place in map(tuple, np.argwhere(mask).tolist()):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            near = list(place)
            near[axis] += step
            if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                out.append(np.array(place) * spacing)
                break
    return np.array(out).reshape(-1, mask.ndim)


@settings(max_examples=30)
@given(st.one_of(st.just((6, 7)), st.just((3, 4, 5))), st.integers(0, 10**6), steps)
def test_figures_are_those_of_all_pairs(shape: tuple[int, ...], seed: int, spacing: list[float]) -> None:
    rng = np.random.default_rng(seed)
    found, there = rng.random(shape) < 0.3, rng.random(shape) < 0.3
    step = spacing[: len(shape)]
    a, b = points(found, step), points(there, step)
    far = np.sqrt(((a[:, None] - b) ** 2).sum(-1))
    out = distances(found, there, step)
    if not len(a) or not len(b):
        assert out.hausdorff() == out.mean() == -1.0
        return
    ones = far.min(1), far.min(0)
    assert out.hausdorff() == pytest.approx(max(one.max() for one in ones))
    assert out.hausdorff(95) == pytest.approx(max(np.percentile(one, 95) for one in ones))
    assert out.mean() == pytest.approx(np.concatenate(ones).mean())
    assert out.dice(1.0) == pytest.approx((np.concatenate(ones) <= 1.0).mean())


@pytest.mark.parametrize("name", CASES)
def test_figures_are_those_of_monai(name: str) -> None:
    seed, shape, spacing = CASES[name]
    out, golden = distances(*data(seed, shape), spacing), GOLDEN[name]["monai"]
    assert out.hausdorff() == pytest.approx(golden["HD"], rel=1e-6)
    assert out.hausdorff(95) == pytest.approx(golden["HD95"], rel=1e-6)
    assert out.mean() == pytest.approx(golden["ASSD"], rel=1e-6)
    for tolerance in TOLERANCES:
        assert out.dice(tolerance) == pytest.approx(golden[f"dice {tolerance}"], rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_surfaces_between_pixels_differ_by_less_than_a_voxel(name: str) -> None:
    seed, shape, spacing = CASES[name]
    out, other = distances(*data(seed, shape), spacing), GOLDEN[name]["deepmind"]
    for got, figure in ((out.hausdorff(), "HD"), (out.hausdorff(95), "HD95"), (out.mean(), "ASSD")):
        assert abs(got - other[figure]) < np.linalg.norm(spacing)


def test_a_shifted_cube() -> None:
    metric = SurfaceDistance(("cube", "none"), tolerance=1.0, spacing=(2.0, 1.0, 1.0))
    truth, found = np.full((2, 8, 12, 12), 7, np.int64)  # what is no class is background
    truth[2:5, 2:8, 2:8] = 0
    found[3:6, 2:8, 2:8] = 0
    metric.update_maps(found, truth, "moved up by 2 mm")
    out = metric.compute()["surface"]["per_class"]
    assert out["cube"]["HD"] == 2.0
    assert out["cube"]["Dice"] == pytest.approx(2 / 3)
    assert out["none"] == {"HD": -1, "HD95": -1, "ASSD": -1, "surface_dice": -1, "Dice": -1, "unmatched": 0}


def test_a_class_on_one_side_only_has_no_distance_but_is_counted() -> None:
    metric = SurfaceDistance({"organ": 3, "tumor": 4})
    truth, found = np.zeros((2, 9, 9), np.uint8)
    truth[1:4, 1:4], found[1:4, 1:4] = 3, 3
    metric.update_maps(found, truth, 1)
    truth = truth.copy()
    truth[6:8, 6:8] = 4
    metric.update_maps(np.zeros((9, 9), np.uint8), truth, 2)
    out = metric.compute()["surface"]
    perfect = {"HD": 0.0, "HD95": 0.0, "ASSD": 0.0}
    assert out["per_class"]["organ"] == perfect | {"surface_dice": 0.5, "Dice": 0.5, "unmatched": 1}
    assert out["per_class"]["tumor"] == dict.fromkeys(perfect, -1.0) | {"surface_dice": 0, "Dice": 0, "unmatched": 1}
    assert out["HD"] == 0.0
    assert out["surface_dice"] == 0.25
    assert out["unmatched"] == 2


def maps(seed: int, shape: tuple[int, ...] = (10, 12)) -> tuple[np.ndarray, np.ndarray]:
    found, there = data(seed, shape)
    return found * np.int64(1), there * np.int64(1)


def test_shards_and_weights() -> None:
    whole, twice, parts = SurfaceDistance(("a", "b")), SurfaceDistance(("a", "b")), []
    for i in range(4):
        parts.append(SurfaceDistance(("a", "b")))
        for metric in (whole, twice, parts[-1]):
            metric.update_maps(*maps(i), i)
        if i == 2:
            twice.update_maps(*maps(i), "again")
    merged = parts[2].merge(parts[0]).merge(parts[3].merge(parts[1]))
    assert merged.compute() == whole.compute()
    weighted, fed = whole.compute(np.array([1, 1, 2, 1])), twice.compute()
    assert weighted["images"] == fed["images"] == 5
    for name in ("a", "b"):
        row, other = (out["surface"]["per_class"][name] for out in (weighted, fed))
        assert row == pytest.approx(other)
    with pytest.raises(ValueError, match="tolerance"):
        whole.merge(SurfaceDistance(("a", "b"), 2.0))


def test_scenes_masks_and_maps_agree() -> None:
    by_map, by_scene, by_mask = (SurfaceDistance(("a", "b"), spacing=(0.5, 2)) for _ in range(3))
    found, truth = maps(3)
    truth[:3] = -1
    by_map.update_maps(found, truth)
    by_scene.update(*(Scene(size=found.shape, semantic=torch.from_numpy(m)) for m in (found, truth)))
    assert by_map.compute() == by_scene.compute()
    known = np.where(truth == -1, -1, found)
    by_mask.update_masks(*(np.stack([m == 0, m == 1]) for m in (known, truth)))
    assert by_map.compute() == by_mask.compute()
    unsigned = np.where(truth == -1, 255, truth).astype(np.uint8)
    again = SurfaceDistance(("a", "b"), spacing=(0.5, 2))
    again.update_maps(found.astype(np.uint8), unsigned)
    assert again.compute() == by_map.compute()


def test_wrong_input_is_refused() -> None:
    metric = SurfaceDistance(("a",))
    with pytest.raises(ValueError, match="share one shape"):
        metric.update_maps(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="spacing"):
        metric.update_maps(np.zeros((2, 2), int), np.zeros((2, 2), int), spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="one for each of 1"):
        metric.update_masks(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool))
    with pytest.raises(ValueError, match="tolerance"):
        SurfaceDistance(("a",), -1.0)
    with pytest.raises(ValueError, match="distinct"):
        SurfaceDistance({"a": 1, "b": 1})
    with pytest.raises(ValueError, match="semantic"):
        metric.update(Scene(size=(2, 2)), Scene(size=(2, 2)))


def test_volumes_from_files(tmp_path: Path) -> None:
    found, truth = (m.astype(np.uint8) for m in maps(5, (4, 10, 12)))
    for name, volume in (("t", truth), ("p", found)):
        (tmp_path / name).mkdir()
        pages = [Image.fromarray(page) for page in volume]
        pages[0].save(tmp_path / name / "case.tif", save_all=True, append_images=pages[1:])
    metric = read_surface(tmp_path / "t", tmp_path / "p", {"organ": 1}, spacing=(5, 1, 1))
    wanted = SurfaceDistance({"organ": 1}, spacing=(5, 1, 1))
    wanted.update_maps(found, truth, "case")
    assert metric.compute() == wanted.compute()
    (tmp_path / "p" / "case.tif").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"case\.tif: cannot be read"):
        read_surface(tmp_path / "t", tmp_path / "p", {"organ": 1})
    assert read_surface(tmp_path / "t", tmp_path / "p", {"organ": 1}, lenient=True).dropped == {
        "truth": 0,
        "results": 1,
    }


def test_a_real_volume_moved_by_a_voxel() -> None:
    path = shared("data/volume/nuclei/mask3d.tif")
    metric = read_surface(path, path, {"nucleus": 1})
    assert len(metric) == 1
    assert metric.compute()["surface"]["HD"] in (0.0, -1.0)
    truth = np.pad((read_labels(path) > 0).astype(np.uint8), 1)
    moved = np.zeros_like(truth)
    moved[:, 1:] = truth[:, :-1]
    metric = SurfaceDistance({"nuclei": 1}, spacing=(2.0, 0.5, 0.5))
    metric.update_maps(moved, truth)
    assert metric.compute()["surface"]["HD"] == 0.5
