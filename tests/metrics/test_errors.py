"""Errors by type: the authors' tool to the last bits, each type by hand, any threshold and sharding, clear messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from maskwright.errors import InputError
from maskwright.metrics._error_core import COUNTS, TYPES
from maskwright.metrics.errors import ErrorAnalysis, read_errors
from maskwright.structures import Masks, Scene, Segments
from tests.golden import record_tide
from tests.metrics import oracle
from tests.shared import shared

GOLDEN: dict[str, Any] = json.loads(Path(record_tide.__file__).with_name("tide.json").read_text())


def check(got: dict[str, Any], want: dict[str, Any]) -> None:
    """All figures of tidecv, which states percent."""
    assert abs(got["AP"] * 100 - want["AP"]) < 1e-9
    assert list(got["dAP"]) == list(want["dAP"])
    for name, value in want["dAP"].items():
        assert abs(got["dAP"][name] * 100 - value) < 1e-9, name
    assert {name: got["counts"][name] for name in TYPES} == want["counts"]


@pytest.mark.parametrize("kind", ["mask", "box"])
@pytest.mark.parametrize("name", [*record_tide.CASES, "limited"])
def test_drawn_data_equal_the_authors_tool(tmp_path: Path, name: str, kind: str) -> None:
    drawn = record_tide.CASES["crowded" if name == "limited" else name]
    limit = 5 if name == "limited" else 100
    metric = read_errors(*oracle.write(tmp_path, *record_tide.data(*drawn)), kind, max_detections=limit)
    check(metric.compute()[kind], GOLDEN[name][kind])


@pytest.mark.parametrize("name", list(record_tide.EXAMPLES))
def test_real_data_equal_the_authors_tool(tmp_path: Path, name: str) -> None:
    kind, word = record_tide.EXAMPLES[name]
    folder = shared("data/coco_eval")
    results = json.loads((folder / record_tide.RESULTS.format(word)).read_text())
    path = tmp_path / "untied.json"
    path.write_text(json.dumps(record_tide.untied(results)))
    check(read_errors(folder / record_tide.TRUTH, path, kind).compute()[kind], GOLDEN[name][kind])


# ---- each type by hand ----------------------------------------------------------------------------------------------

CASES = {
    # detections (label, score, overlaps with the truths), truths (label), types of the false ones, number missed
    "true": ([(0, 0.9, [0.8])], [0], [], 0),
    "class": ([(1, 0.9, [0.8])], [0], ["class"], 0),
    "localization": ([(0, 0.9, [0.3])], [0], ["localization"], 0),
    "both": ([(1, 0.9, [0.3])], [0], ["both"], 1),
    "background": ([(0, 0.9, [0.05])], [0], ["background"], 1),
    "duplicate": ([(0, 0.9, [0.8]), (0, 0.8, [0.9])], [0], ["duplicate"], 0),
    "missed": ([], [0], [], 1),
    "nothing there": ([(0, 0.5, [])], [], ["background"], 0),
    "localization before class": ([(0, 0.9, [0.3, 0.9])], [0, 1], ["localization"], 1),
    "class before duplicate": ([(0, 0.9, [0.9, 0.6]), (0, 0.8, [0.8, 0.7])], [0, 1], ["class"], 0),
}


@pytest.mark.parametrize("name", list(CASES))
def test_each_type_is_what_it_says(name: str) -> None:
    found, truths, types, missed = CASES[name]
    metric = ErrorAnalysis(["a", "b"])
    update(metric, found, truths, "x")
    (row,) = metric.per_image(0.0)
    wanted = {kind: types.count(kind) for kind in TYPES} | {"missed": missed}
    assert {kind: row[kind] for kind in TYPES} == wanted
    assert row["false_positives"] == len(types)
    assert row["true_positives"] + row["false_negatives"] == len(truths)


def test_mending_is_worth_what_it_says() -> None:
    # One class, two truths: one found late, behind a background error; the other one missed.
    metric = ErrorAnalysis(["a"])
    update(metric, [(0, 0.9, [0.0, 0.0]), (0, 0.8, [0.7, 0.0])], [0, 0], 1)
    got = metric.compute()["mask"]
    recalled = 51 / 101  # recalls 0, 0.01 .. 0.5
    assert got["AP"] == pytest.approx(recalled / 2)
    assert got["dAP"]["background"] == pytest.approx(recalled - recalled / 2)
    assert got["dAP"]["missed"] == pytest.approx(1 / 2 - recalled / 2)
    assert got["dAP"]["false_positives"] == pytest.approx(recalled / 2)
    assert got["dAP"]["false_negatives"] == pytest.approx(1 / 2 - recalled / 2)
    assert got["dAP"]["class"] == got["dAP"]["duplicate"] == 0.0


def test_only_the_best_of_the_errors_at_one_truth_is_mended() -> None:
    metric = ErrorAnalysis(["a", "b"])
    update(metric, [(0, 0.9, [0.4]), (0, 0.8, [0.45]), (1, 0.7, [0.9])], [0], 1)
    gains = metric.compute()["mask"]["dAP"]
    # The first localization error becomes true. Mending the class error removes it: b has neither truth nor detections
    # then and leaves the mean, which stays 0.
    assert gains["localization"] == pytest.approx(0.5)
    assert gains["class"] == 0.0


def test_a_crowd_neither_counts_nor_punishes() -> None:
    metric = ErrorAnalysis(["a", "b"])
    overlaps = np.array([[0.9, 0.0], [0.8, 0.0], [0.0, 0.9]])
    labels, scores = np.array([0, 1, 0]), np.array([0.9, 0.8, 0.7])
    metric.update_overlaps(labels, scores, np.array([0, 0]), overlaps, np.array([True, False]), "x")
    (row,) = metric.per_image(0.0)
    # In the crowd of its class: nothing; in a crowd of another class: background; on the truth: true.
    assert [row[name] for name in COUNTS[:3]] == [1, 1, 0]
    assert row["background"] == 1
    # For confusion no class is asked: both in the crowd are left out.
    assert metric.confusion(0.5).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_confusion_and_words() -> None:
    metric = ErrorAnalysis(["cat", "dog"])
    update(metric, [(1, 0.9, [0.8, 0.0]), (0, 0.8, [0.7, 0.0]), (0, 0.3, [0.0, 0.9])], [0, 0], "one")
    update(metric, [(1, 0.7, [0.9])], [1], "two")
    assert metric.confusion(0.5).tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert metric.confusion(0.0).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    worst, good = metric.worst(score=0.5)
    assert (worst["key"], worst["why"]) == ("one", "1 class (dog for cat); 1 missed (cat)")
    assert worst["quality"] == pytest.approx(0.7 / 2)
    assert (good["key"], good["why"], good["f1"], good["quality"]) == ("two", "", 1.0, pytest.approx(0.9))
    assert [row["key"] for row in metric.worst(1)] == ["one"]


# ---- laws -----------------------------------------------------------------------------------------------------------


def update(metric: ErrorAnalysis, found: list[tuple[int, float, list[float]]], truths: list[int], key: Any) -> None:
    labels, scores = np.array([f[0] for f in found], np.int64), np.array([f[1] for f in found], np.float64)
    overlaps = np.array([f[2] for f in found], np.float64).reshape(len(found), len(truths))
    metric.update_overlaps(labels, scores, np.array(truths, np.int64), overlaps, key=key)


def drawn(seed: int, images: int) -> list[tuple[np.ndarray, ...]]:
    """Images as arguments of ``update_overlaps``; all scores differ."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(20 * images) / (20 * images)
    out = []
    for i in range(images):
        d, g = int(rng.integers(0, 12)), int(rng.integers(0, 6))
        overlaps = rng.random((d, g)) * rng.choice([0, 0.6, 1], (d, g))
        labels = rng.integers(0, 3, d), rng.integers(0, 3, g)
        out.append((labels[0], scores[20 * i : 20 * i + d], labels[1], overlaps, rng.random(g) < 0.2))
    return out


def fed(images: list[tuple[np.ndarray, ...]], keys: list[Any]) -> ErrorAnalysis:
    metric = ErrorAnalysis(["a", "b", "c"])
    for image, key in zip(images, keys, strict=True):
        metric.update_overlaps(*image, key)
    return metric


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), images=st.integers(0, 8), score=st.floats(0, 1))
def test_a_threshold_is_as_if_nothing_below_had_been_given(seed: int, images: int, score: float) -> None:
    data = drawn(seed, images)
    whole = fed(data, list(range(images)))
    cut = fed([(a[b >= score], b[b >= score], c, d[b >= score], e) for a, b, c, d, e in data], list(range(images)))
    assert whole.per_image(score) == cut.per_image(0.0)
    assert (whole.confusion(score) == cut.confusion(0.0)).all()
    counts = whole.compute()["mask"]["counts"]
    assert counts == {name: sum(row[name] for row in whole.per_image(0.0)) for name in COUNTS}
    for name in COUNTS:
        assert counts[name] == sum(c["counts"][name] for c in whole.compute()["mask"]["per_class"].values())
    truths = sum(int((~e).sum()) for *_, e in data)
    assert whole.confusion(score)[:-1].sum() == truths == counts["true_positives"] + counts["false_negatives"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), images=st.integers(1, 8), cut=st.integers(0, 8))
def test_sharding_and_weights(seed: int, images: int, cut: int) -> None:
    data = drawn(seed, images)
    keys: list[Any] = [i if i % 2 else f"name {i}" for i in range(images)]
    whole, shards = fed(data, keys), fed(data[cut:], keys[cut:]).merge(fed(data[:cut], keys[:cut]))
    assert whole.compute() == shards.compute()
    assert whole.per_image() == shards.per_image()
    weights = np.random.default_rng(seed).integers(0, 3, images)
    order = {key: place for place, key in enumerate(whole.keys)}
    again = [(image, key, n) for image, key in zip(data, keys, strict=True) for n in range(weights[order[key]])]
    twice = fed([image for image, *_ in again], [f"{key} {n}" for _, key, n in again])
    got, want = whole.compute(weights)["mask"], twice.compute()["mask"]
    for part, other in ((got, want), *zip(got["per_class"].values(), want["per_class"].values(), strict=True)):
        assert part["counts"] == other["counts"]
        assert part["AP"] == pytest.approx(other["AP"], abs=1e-12)
        assert part["dAP"] == pytest.approx(other["dAP"], abs=1e-12)
    for name in ("pearson", "spearman"):
        assert got[name] == pytest.approx(want[name], abs=1e-9) if want[name] is not None else got[name] is None
    assert (whole.confusion(0.3, weights) == twice.confusion(0.3)).all()


def test_truth_against_itself_is_perfect_and_nothing_is_undefined() -> None:
    metric = ErrorAnalysis(["a", "b"])
    assert metric.compute()["mask"]["AP"] == metric.compute()["mask"]["dAP"]["class"] == -1.0
    update(metric, [(0, 1.0, [1.0, 0.0]), (1, 1.0, [0.0, 1.0])], [0, 1], 1)
    got = metric.compute()["mask"]
    assert got["AP"] == 1.0
    assert set(got["dAP"].values()) == {0.0}
    assert got["pearson"] is got["spearman"] is None


def test_correlations_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    metric, scores, ious = ErrorAnalysis(["a"]), (rng.integers(0, 12, 60) + 1) / 20, rng.integers(11, 20, 60) / 20
    for i, (score, iou) in enumerate(zip(scores, ious, strict=True)):
        update(metric, [(0, score, [iou])], [0], i)
    got = metric.compute()["mask"]
    assert got["pearson"] == pytest.approx(stats.pearsonr(scores, ious).statistic, abs=1e-12)
    assert got["spearman"] == pytest.approx(stats.spearmanr(scores, ious).statistic, abs=1e-12)


def test_scenes_equal_files(tmp_path: Path) -> None:
    truth, results = record_tide.data(*record_tide.CASES["mixed"])
    side = (60, 60)
    for kind in ("mask", "box"):
        metric = ErrorAnalysis([f"class {c}" for c in range(1, 5)], kind)
        for image in truth["images"]:
            there = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
            found = [r for r in results if r["image_id"] == image["id"]]
            metric.update(*(Scene(size=side, segments=segments(e, side)) for e in (found, there)), image["id"])
        check(metric.compute()[kind], GOLDEN["mixed"][kind])


def segments(entries: list[dict[str, Any]], size: tuple[int, int]) -> Segments:
    if not entries:
        return Segments.empty(size, scored=True)
    corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (e["bbox"] for e in entries)])
    return Segments(
        size=size,
        labels=torch.tensor([e["category_id"] - 1 for e in entries]),
        masks=Masks.from_coco([e["segmentation"] for e in entries], size),
        boxes=corners,
        scores=torch.tensor([e.get("score", 1.0) for e in entries]),
        crowd=torch.tensor([bool(e.get("iscrowd", 0)) for e in entries]),
    )


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_entries_that_cannot_be_used_are_named_or_dropped(tmp_path: Path) -> None:
    truth, results = record_tide.data(*record_tide.CASES["few"])
    good = read_errors(*oracle.write(tmp_path, truth, results)).compute()
    shape = results[0]["segmentation"]
    bad = [
        results[0] | {"image_id": 99},
        results[0] | {"category_id": 99},
        results[0] | {"score": 1.5},
        results[0] | {"segmentation": {"size": [60, 61], "counts": shape["counts"]}},
        results[0] | {"segmentation": {"size": [60, 60], "counts": [1, 2]}},
        results[0] | {"segmentation": [[1, 2, 3, 4, 5]]},
        {k: v for k, v in results[0].items() if k != "score"},
        {k: v for k, v in results[0].items() if k != "segmentation"},
        results[0] | {"score": float("nan")},
    ]
    truth["annotations"].append(truth["annotations"][0])
    paths = oracle.write(tmp_path, truth, [*bad, *results])
    with pytest.raises(InputError, match=r"annotations\[\d+\]: id 1 occurs before"):
        read_errors(*paths)
    metric = read_errors(*paths, lenient=True)
    assert metric.dropped == {"truth": 1, "results": len(bad)}
    assert metric.compute() == good
    truth["annotations"].pop()
    with pytest.raises(InputError, match=r"9 of \d+ results cannot be used - results\[0\]: image 99 .*; and 4 more"):
        read_errors(*oracle.write(tmp_path, truth, [*bad, *results]))
    with pytest.raises(InputError, match="no such file"):
        read_errors(tmp_path / "absent.json", paths[1])
    with pytest.raises(InputError, match="other kind"):
        read_errors(*oracle.write(tmp_path, truth, [{k: r[k] for k in r if k != "bbox"} for r in results]), "box")


def test_wrong_arguments() -> None:
    metric = ErrorAnalysis(["a"])
    for arguments in ({"kind": "masks"}, {"iou": 0.1}, {"background": 0.0}, {"max_detections": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            ErrorAnalysis(["a"], **arguments)
    with pytest.raises(ValueError, match="scores must lie"):
        update(metric, [(0, float("nan"), [0.5])], [0], 1)
    with pytest.raises(ValueError, match="labels must lie"):
        update(metric, [(1, 0.5, [0.5])], [0], 1)
    with pytest.raises(ValueError, match="shapes"):
        metric.update_overlaps(np.zeros(2, int), np.zeros(2), np.zeros(1, int), np.zeros((1, 1)))
    update(metric, [], [0], 1)
    with pytest.raises(ValueError, match="counted before"):
        update(metric, [], [0], 1)
    with pytest.raises(ValueError, match="iou"):
        metric.merge(ErrorAnalysis(["a"], iou=0.7))


def test_files_need_no_torch(tmp_path: Path) -> None:
    paths = oracle.write(tmp_path, *record_tide.data(*record_tide.CASES["few"]))
    code = (
        "import sys; from maskwright.metrics.errors import read_errors; from maskwright.metrics.calibration import *; "
        "from maskwright.metrics.confidence import *; read_errors(*sys.argv[1:]).compute(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
