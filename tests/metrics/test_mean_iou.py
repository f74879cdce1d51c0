"""Semantic figures against loops over pixels, and against what cityscapesScripts recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from maskwright.errors import InputError
from maskwright.metrics._label_maps import inner, overlaps
from maskwright.metrics.mean_iou import MeanIoU
from maskwright.metrics.semantic_files import CITYSCAPES, CITYSCAPES_CATEGORIES, CITYSCAPES_VOID, read_semantic
from maskwright.structures import Masks, Scene
from tests.golden.record_semantic import data
from tests.shared import shared

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "semantic.json").read_text())
NAMES = ("sky", "sea", "sand")


def drawn(seed: int, height: int = 12, width: int = 15, labels: tuple[int, ...] = (0, 1, 2, 255)) -> np.ndarray:
    """A map of a few blocks."""
    rng = np.random.default_rng(seed)
    out = np.full((height, width), rng.choice(labels), np.int64)
    for _ in range(6):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        out[y : y + int(rng.integers(1, 7)), x : x + int(rng.integers(1, 7))] = rng.choice(labels)
    return out


def ious(pairs: list[tuple[Any, Any]]) -> list[float]:
    """IoU of each class over (true, predicted) labels of pixels."""
    out: list[float] = []
    for c in range(3):
        either = sum(t == c or p == c for t, p in pairs)
        out.append(sum(t == c == p for t, p in pairs) / either if either else -1.0)
    return out


def mean(values: list[float]) -> float:
    known = [value for value in values if value >= 0]
    return sum(known) / len(known) if known else -1.0


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_figures_of_a_confusion_are_those_of_loops_over_pixels(seeds: list[int]) -> None:
    metric = MeanIoU(NAMES)
    pairs: list[tuple[Any, Any]] = []
    for seed in seeds:
        truth, found = drawn(seed), drawn(seed + 1)
        metric.update_maps(found, truth)
        pairs += [(t, p) for t, p in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True) if t != 255]
    out = metric.compute()["semantic"]
    for c, name in enumerate(NAMES):
        true, predicted = sum(t == c for t, _ in pairs), sum(p == c for _, p in pairs)
        common = sum(t == c == p for t, p in pairs)
        row = out["per_class"][name]
        assert row["IoU"] == pytest.approx(ious(pairs)[c])
        assert row["accuracy"] == pytest.approx(common / true if true else -1.0)
        assert row["precision"] == pytest.approx(common / predicted if predicted else -1.0)
        assert row["Dice"] == pytest.approx(2 * common / (true + predicted) if true + predicted else -1.0)
        assert out["confusion"][c] == [sum((t, p) == (c, d) for t, p in pairs) for d in range(3)]
        assert out["missed"][c] == sum((t, p) == (c, 255) for t, p in pairs)
    assert out["mIoU"] == pytest.approx(mean(ious(pairs)))
    assert out["pixel_accuracy"] == pytest.approx(sum(t == p for t, p in pairs) / len(pairs) if pairs else -1.0)
    weighted = sum(sum(t == c for t, _ in pairs) * max(v, 0) for c, v in enumerate(ious(pairs)))
    assert out["fwIoU"] == pytest.approx(weighted / len(pairs) if pairs else -1.0)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_a_trimap_is_the_band_around_the_borders_of_truth(seed: int) -> None:
    truth, found = drawn(seed, 10, 9), drawn(seed + 1, 10, 9)
    widths = (1.0, 1.5, 3.0)
    metric = MeanIoU(NAMES, trimaps=widths)
    metric.update_maps(found, truth)
    got = metric.compute()["semantic"]["trimap_mIoU"]
    places = list(product(range(10), range(9)))
    border = [
        (y, x) for y, x in places
        if any(0 <= y + a < 10 and 0 <= x + b < 9 and truth[y + a, x + b] != truth[y, x]
               for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0)))
    ]  # fmt: skip
    for width in widths:
        band = [p for p in places if any(hypot(p[0] - q[0], p[1] - q[1]) < width for q in border)]
        wanted = mean(ious([(truth[p], found[p]) for p in band if truth[p] != 255]))
        assert got[f"{width:g}"] == pytest.approx(wanted)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_inner_pixels_are_what_erosion_leaves_of_each_class(seed: int, margin: int) -> None:
    labels = drawn(seed)
    wanted = np.zeros(labels.shape, bool)
    for c in np.unique(labels):
        wanted |= ndimage.binary_erosion(labels == c, np.ones((3, 3)), iterations=margin)
    np.testing.assert_array_equal(inner(labels, margin), wanted)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_boundary_iou_erodes_each_class(seed: int) -> None:
    metric = MeanIoU(NAMES, boundary=True, boundary_ratio=0.1)
    totals = np.zeros((3, 2))
    for s in (seed, seed + 7):
        truth, found = drawn(s), drawn(s + 1)
        metric.update_maps(found, truth)
        known = truth != 255
        margin = round(0.1 * hypot(*truth.shape))
        for c in range(3):
            sides = [truth == c, (found == c) & known]
            edges = [m & ~ndimage.binary_erosion(m, np.ones((3, 3)), iterations=margin) for m in sides]
            totals[c] += (edges[0] & edges[1]).sum(), (edges[0] | edges[1]).sum()
    out = metric.compute()["semantic"]
    wanted = [float(a / b) if b else -1.0 for a, b in totals]
    assert [out["per_class"][name]["boundary_IoU"] for name in NAMES] == pytest.approx(wanted)
    assert out["boundary_mIoU"] == pytest.approx(mean(wanted))


@pytest.mark.parametrize("seed", GOLDEN)
def test_cityscapes_numbers_are_those_of_its_own_script(seed: str, tmp_path: Path) -> None:
    for i, (truth, found) in enumerate(data(int(seed))):
        for folder, name, image in (("t/a", f"{i}_gtFine_labelIds", truth), ("p", str(i), found)):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / f"{name}.png")
        Image.fromarray(truth).save(tmp_path / "t/a" / f"{i}_gtFine_color.png")
    metric = read_semantic(
        tmp_path / "t", tmp_path / "p", CITYSCAPES,
        ignore=CITYSCAPES_VOID, categories=CITYSCAPES_CATEGORIES, truth_suffix="_gtFine_labelIds",
    )  # fmt: skip
    out, golden = metric.compute()["semantic"], GOLDEN[seed]

    def close(got: float, wanted: float | None) -> bool:
        return got == pytest.approx(-1.0 if wanted is None else wanted, rel=1e-12)

    assert all(close(out["per_class"][name]["IoU"], golden["classes"][name]) for name in CITYSCAPES)
    assert all(close(out["per_category"][name], golden["categories"][name]) for name in CITYSCAPES_CATEGORIES)
    assert close(out["mIoU"], golden["mean_classes"])
    assert close(out["category_mIoU"], golden["mean_categories"])


def test_truth_against_itself_is_perfect() -> None:
    metric = MeanIoU(NAMES, trimaps=(2,), boundary=True)
    truth = drawn(4)
    metric.update_maps(np.where(truth == 255, 1, truth), truth)  # what is said of void does not matter
    out = metric.compute()["semantic"]
    for name in ("mIoU", "fwIoU", "mDice", "pixel_accuracy", "mean_accuracy", "boundary_mIoU"):
        assert out[name] == 1.0
    assert out["trimap_mIoU"] == {"2": 1.0}


def test_shards_and_weights() -> None:
    options: dict[str, Any] = {"trimaps": (1, 4), "boundary": True}
    whole, twice, parts = MeanIoU(NAMES, **options), MeanIoU(NAMES, **options), []
    for i in range(5):
        truth, found = drawn(i), drawn(i + 50)
        parts.append(MeanIoU(NAMES, **options))
        for metric in (whole, twice, parts[-1]):
            metric.update_maps(found, truth, i)
        if i % 2:
            twice.update_maps(found, truth, f"again {i}")
    merged = parts[3].merge(parts[0]).merge(parts[4].merge(parts[2]).merge(parts[1]))
    assert merged.compute() == whole.compute()
    assert whole.compute(np.array([1, 2, 1, 2, 1])) == twice.compute()
    assert whole.compute(np.zeros(5, np.int64))["semantic"]["mIoU"] == -1.0
    np.testing.assert_array_equal(whole.confusion()[:, :3], whole.compute()["semantic"]["confusion"])
    with pytest.raises(ValueError, match="trimaps"):
        whole.merge(MeanIoU(NAMES))


def test_scenes_count_as_maps_do() -> None:
    truth, found = drawn(1, labels=(0, 1, 2, -1)), drawn(2, labels=(0, 1, 2, -1))
    maps, scenes = MeanIoU(NAMES), MeanIoU(NAMES)
    maps.update_maps(found, truth, 1)
    size = (12, 15)
    scenes.update(*(Scene(size=size, semantic=torch.from_numpy(m)) for m in (found, truth)), key=1)
    assert scenes.compute() == maps.compute()
    cover = torch.zeros(2, *size, dtype=torch.bool)
    cover[0, :4], cover[1, 3:6, 5:] = True, True
    ignored = Scene(size=size, semantic=torch.from_numpy(truth), ignore=Masks.from_dense(cover))
    scenes.update(Scene(size=size, semantic=torch.from_numpy(found)), ignored, key=2)
    maps.update_maps(found, np.where(cover.any(0).numpy(), 255, truth), 2)
    assert scenes.compute() == maps.compute()
    with pytest.raises(ValueError, match="semantic maps"):
        scenes.update(Scene(size=size), ignored)


def test_wrong_maps_are_refused_and_named() -> None:
    metric = MeanIoU(NAMES)
    good = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"truth must be classes \(0 .. 2\).*got 7 \(3 pixels\)"):
        metric.update_maps(good, np.array([[7, 7], [7, 1]]))
    with pytest.raises(ValueError, match=r"prediction.*-3 \(1 pixels\), 3 \(1 pixels\)"):
        metric.update_maps(np.array([[3, -3], [0, 1]]), good)
    with pytest.raises(ValueError, match="share one shape"):
        metric.update_maps(good, np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="integer"):
        metric.update_maps(np.zeros((2, 2)), good)
    metric.update_maps(good, good, "a")
    with pytest.raises(ValueError, match="counted before"):
        metric.update_maps(good, good, "a")
    assert len(metric) == 1
    for wrong in ({"taxonomy": ()}, {"taxonomy": ("a", "a")}, {"taxonomy": NAMES, "ignore": 1}):
        with pytest.raises(ValueError, match="classes"):
            MeanIoU(**wrong)


def test_folders(tmp_path: Path) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    (found / "deep").mkdir(parents=True)
    truth.mkdir()
    maps = [drawn(i, labels=(0, 1, 2, 255)).astype(np.uint8) for i in range(6)]
    Image.fromarray(maps[0]).save(truth / "a.png")
    palette = Image.fromarray(maps[1]).convert("P")
    palette.putdata(maps[1].ravel().tolist())
    palette.putpalette(list(range(256)) * 3)
    palette.save(found / "deep" / "a.png")
    Image.fromarray(maps[2].astype(np.uint16)).save(truth / "b.png")
    np.save(found / "b.npy", maps[3].astype(np.int32))
    wanted = MeanIoU(NAMES)
    wanted.update_maps(maps[1], maps[0], "a")
    wanted.update_maps(maps[3], maps[2], "b")
    assert read_semantic(truth, found, NAMES).compute() == wanted.compute()
    assert read_semantic(truth, found, NAMES).keys == ["a", "b"]
    one = read_semantic(truth / "a.png", found / "deep" / "a.png", NAMES)
    assert one.keys == ["a"]

    Image.fromarray(maps[4]).save(truth / "c.png")
    with pytest.raises(InputError, match=r"1 of 3 files cannot be compared - c.png has no result"):
        read_semantic(truth, found, NAMES)
    Image.fromarray(maps[4][:5]).save(found / "c.png")
    Image.fromarray(np.full((12, 15), 9, np.uint8)).save(truth / "d.png")
    Image.fromarray(maps[4]).save(found / "d.png")
    (truth / "e.png").write_bytes((truth / "a.png").read_bytes()[:60])
    Image.fromarray(np.zeros((12, 15, 3), np.uint8)).save(found / "e.png")
    with pytest.raises(InputError) as caught:
        read_semantic(truth, found, NAMES)
    text = str(caught.value)
    assert "3 of 5 files" in text
    assert "e.png: cannot be read" in text
    assert "c.png: maps to compare must share one shape [H, W], got (5, 15) and (12, 15)" in text
    assert "d.png: labels of truth" in text
    lenient = read_semantic(truth, found, NAMES, lenient=True)
    assert lenient.compute() == wanted.compute()
    assert lenient.dropped == {"truth": 1, "results": 2}
    Image.fromarray(maps[0]).save(truth / "e.png")
    with pytest.raises(InputError, match="one channel or a palette"):
        read_semantic(truth, found, NAMES)
    with pytest.raises(InputError, match="no such folder"):
        read_semantic(tmp_path / "none", found, NAMES)
    with pytest.raises(InputError, match="no label images"):
        read_semantic(truth, found, NAMES, results_suffix="_x")
    Image.fromarray(maps[4]).save(found / "a.png")
    with pytest.raises(InputError, match="twice"):
        read_semantic(truth, found, NAMES)


def test_real_street_scenes_against_themselves() -> None:
    folder = shared("data/formats/camvid/labels")
    names = [line for line in (folder.parent / "codes.txt").read_text().split() if line]
    metric = read_semantic(folder, folder, names)
    assert len(metric) == 5
    assert metric.compute()["semantic"]["mIoU"] == 1.0


def test_scoring_files_imports_no_torch(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    code = (
        "import sys; from maskwright.metrics.semantic_files import read_semantic; "
        f"read_semantic({str(tmp_path)!r}, {str(tmp_path)!r}, ['a']).compute(); "
        "print([m for m in ('torch', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_overlaps_are_counted_pair_by_pair(seed: int) -> None:
    a, b = drawn(seed, labels=(0, 1, 5, 70000)), drawn(seed + 1, labels=(0, 3, 4))
    areas_a, areas_b, rows, columns, common = overlaps(a, b)
    names_a, names_b = ([int(v) for v in np.unique(m) if v] for m in (a, b))
    assert areas_a.tolist() == [int((a == v).sum()) for v in names_a]
    assert areas_b.tolist() == [int((b == v).sum()) for v in names_b]
    wanted = {(v, w): int(((a == v) & (b == w)).sum()) for v in names_a for w in names_b}
    got = {(names_a[r], names_b[c]): int(n) for r, c, n in zip(rows, columns, common, strict=True)}
    assert got == {pair: n for pair, n in wanted.items() if n}
