"""Measures of nuclei against slow, obvious implementations on dense masks."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.errors import InputError
from maskwright.metrics._label_images import read_labels
from maskwright.metrics.cell_files import read_cells
from maskwright.metrics.cells import THRESHOLDS, CellMetric
from maskwright.ops import rle
from maskwright.structures import Masks, Scene, Segments
from tests.golden.record_cells import THRESHOLDS as RECORDED
from tests.golden.record_cells import data
from tests.shared import shared

FIGURES = ("AP", "F1", "AJI", "AJI+", "DQ", "SQ", "PQ", "Dice")
SIZE = (16, 18)
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cells.json").read_text())


def boxes(rng: np.random.Generator, most: int = 4) -> np.ndarray:
    """Up to ``most`` rectangles that may overlap: bool [N, H, W]."""
    out = np.zeros((int(rng.integers(0, most + 1)), *SIZE), bool)
    for mask in out:
        y, x = int(rng.integers(0, 12)), int(rng.integers(0, 14))
        mask[y : y + int(rng.integers(3, 9)), x : x + int(rng.integers(3, 9))] = True
    return out


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true masks; most predictions are truths moved a little."""
    rng = np.random.default_rng(seed)
    there = boxes(rng)
    moved = [np.roll(m, int(rng.integers(0, 3)), int(rng.integers(0, 2))) for m in there if rng.random() < 0.8]
    return np.concatenate([boxes(rng, 2), *(m[None] for m in moved)]), there


def painted(masks: np.ndarray) -> np.ndarray:
    """A label image in which later masks lie above."""
    out = np.zeros(SIZE, np.int32)
    for i, mask in enumerate(masks):
        out[mask] = 7 * i + 3
    return out


def split(labels: np.ndarray) -> np.ndarray:
    return np.array([labels == v for v in np.unique(labels) if v], bool).reshape(-1, *labels.shape)


def best(ious: np.ndarray, may: np.ndarray, most: bool) -> list[list[tuple[int, int]]]:
    """The pairs that may be, each index once, of greatest number (if asked), then greatest sum: all ways that tie."""
    turned = ious.shape[0] > ious.shape[1]
    a, m = (ious.T, may.T) if turned else (ious, may)
    ways = [[(r, c) for r, c in enumerate(p) if m[r, c]] for p in permutations(range(a.shape[1]), a.shape[0])]
    worth = [(len(way) if most else 0, round(sum(float(a[p]) for p in way), 9)) for way in ways]
    first = [way for way, value in zip(ways, worth, strict=True) if value == max(worth)]
    return [[(c, r) for r, c in pairs] if turned else pairs for pairs in first]


def oracle(found: np.ndarray, there: np.ndarray) -> dict[str, Any]:
    """All counts of an image, by loops."""
    inter = np.array([[(p & t).sum() for t in there] for p in found], float).reshape(len(found), len(there))
    union = np.array([[(p | t).sum() for t in there] for p in found], float).reshape(len(found), len(there))
    ious = inter / np.maximum(union, 1)
    out: dict[str, Any] = {"true": len(there), "found": len(found)}
    out["above"] = [len(best(ious, ious > t, True)[0]) for t in THRESHOLDS]
    out["reached"] = [len(best(ious, ious >= t, True)[0]) for t in THRESHOLDS]
    half = best(ious, ious > 0.5, True)[0]
    out["half"], out["half_sum"] = len(half), sum(ious[p] for p in half)
    once = best(ious, ious > 0, False)
    again = [(int(ious[:, t].argmax()), t) for t in range(len(there)) if len(found) and ious[:, t].max() > 0]

    def jaccard(pairs: list[tuple[int, int]]) -> tuple[float, float]:
        common, whole = sum(inter[p] for p in pairs), sum(union[p] for p in pairs)
        whole += sum(found[p].sum() for p in range(len(found)) if p not in [a for a, _ in pairs])
        whole += sum(there[t].sum() for t in range(len(there)) if t not in [b for _, b in pairs])
        return float(common), float(whole)

    ways = {jaccard(pairs) for pairs in once}
    assume(len(ways) == 1)  # ways of pairing that tie, but differ in area, have no one answer
    out["AJI"], out["AJI+"] = np.array(jaccard(again)), np.array(*ways)
    sides = [m.any(0) for m in (found, there)]
    out["Dice"] = np.array([2 * (sides[0] & sides[1]).sum(), sides[0].sum() + sides[1].sum()], float)
    return out


def figures(o: dict[str, Any], matches: str) -> dict[str, float] | None:
    """Figures of the counts of one image, or of the sums over several."""
    total = o["true"] + o["found"]
    if not total:
        return None
    ap = [m / (total - m) for m in o[matches]]
    out = {"AP": np.mean(ap), "F1": np.mean([2 * m / total for m in o[matches]])}
    out |= {name: o[name][0] / o[name][1] for name in ("AJI", "AJI+", "Dice")}
    out |= {"DQ": 2 * o["half"] / total, "SQ": o["half_sum"] / o["half"] if o["half"] else 0.0}
    out["PQ"] = out["DQ"] * out["SQ"]
    return {name: float(value) for name, value in out.items()} | {"AP at 0.5": ap[0], "AP at 0.75": ap[5]}


def check(metric: CellMetric, images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    counts = [oracle(*image) for image in images]
    each = [row for row in (figures(o, "above") for o in counts) if row]
    sums = {name: sum(np.array(o[name], float) for o in counts) for name in counts[0]}
    pooled = figures(sums, "reached")
    out = metric.compute()
    for name in FIGURES:
        assert out["per_image"][name] == pytest.approx(np.mean([row[name] for row in each]) if each else -1.0)
        assert out["pooled"][name] == pytest.approx(pooled[name] if pooled else -1.0)
    for t in ("0.50", "0.75"):
        wanted = np.mean([row[f"AP at {float(t):g}"] for row in each]) if each else -1.0
        assert out["per_image"]["thresholds"][t]["AP"] == pytest.approx(wanted)
    row = out["pooled"]["thresholds"]["0.50"]
    assert (row["TP"], row["TP"] + row["FN"]) == (sums["reached"][0], sums["true"])
    assert row["TP"] + row["FP"] == sums["found"]
    off = np.array([o["found"] - o["true"] for o in counts])
    count = out["count"]
    assert count["MAE"] == pytest.approx(abs(off).mean())
    assert count["signed"] == pytest.approx(off.mean())
    assert count["over"] - count["under"] == pytest.approx(off.mean())
    relative = [abs(o["found"] - o["true"]) / o["true"] for o in counts if o["true"]]
    assert count["relative"] == pytest.approx(np.mean(relative) if relative else -1.0)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_label_images(seeds: list[int]) -> None:
    metric = CellMetric()
    images: list[tuple[np.ndarray, np.ndarray]] = []
    for seed in seeds:
        found, there = map(painted, drawn(seed))
        metric.update_labels(found, there)
        images.append((split(found), split(there)))
    check(metric, images)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
@example([177])
def test_masks_that_overlap_are_compared_as_they_are(seeds: list[int]) -> None:
    metric = CellMetric()
    for seed in seeds:
        found, there = drawn(seed)
        metric.update_runs(rle.encode(found), rle.encode(there), SIZE)
    check(metric, [drawn(seed) for seed in seeds])


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_flatten_gives_contested_pixels_to_the_best_scored(seed: int) -> None:
    found, there = drawn(seed)
    scores = np.random.default_rng(seed).integers(5, 9, len(found)) / 10
    metric, wanted = CellMetric(flatten=True), CellMetric()
    metric.update_runs(rle.encode(found), rle.encode(there), SIZE, 1, scores=scores)
    order = np.lexsort((np.arange(len(found)), -scores))
    wanted.update_runs(rle.encode(split(painted(found[order[::-1]]))), rle.encode(there), SIZE, 1)
    got, expected = metric.compute(), wanted.compute()
    for form in ("per_image", "pooled"):
        for name in FIGURES:
            assert got[form][name] == pytest.approx(expected[form][name])
    assert got["count"] == expected["count"]


@pytest.mark.parametrize("seed", GOLDEN)
def test_figures_are_those_of_the_authors_scripts(seed: str) -> None:
    golden, whole = GOLDEN[seed], CellMetric(RECORDED)
    for i, (found, there) in enumerate(data(int(seed))):
        one = CellMetric()
        one.update_labels(found, there)
        whole.update_labels(found, there, i)
        row = one.compute()["per_image"]
        for name, value in golden["hover_net"][i].items():  # which adds 1e-6 to a denominator of SQ, and so of PQ
            assert row[name] == pytest.approx(value, rel=1e-6 if name in ("SQ", "PQ") else 1e-12)
    out = whole.compute()
    for name in golden["hover_net"][0]:
        assert out["per_image"][name] == pytest.approx(np.mean([row[name] for row in golden["hover_net"]]), rel=1e-6)
    names = {"AP": "accuracy", "precision": "precision", "recall": "recall", "F1": "f1"}
    for form, recorded in (("pooled", "pooled"), ("per_image", "per_image above")):
        for t, wanted in zip(RECORDED, golden[recorded], strict=True):
            row = out[form]["thresholds"][f"{t:.2f}"]
            assert [row[name] for name in names] == pytest.approx([wanted[name] for name in names.values()])
            if form == "pooled":  # the mean over no pairs is 0 there, undefined here
                assert row["IoU"] == pytest.approx(wanted["mean_matched_score"] if wanted["accuracy"] else -1.0)
    assert out["pooled"]["PQ"] == pytest.approx(golden["pooled above"][0]["panoptic_quality"])


def test_published_rules_where_they_differ() -> None:
    truth, found = np.zeros((10, 20), int), np.zeros((10, 20), int)
    truth[0:4, 0:10], found[0:4, 0:5] = 1, 1  # IoU exactly 0.5
    truth[6:8, :], found[6:8, 0:18], found[6:8, 18:] = 2, 2, 3
    metric = CellMetric()
    metric.update_labels(found, truth)
    out = metric.compute()
    # The Bowl asks for more than a threshold, StarDist for no less.
    assert out["per_image"]["thresholds"]["0.50"]["AP"] == pytest.approx(1 / 4)
    assert out["pooled"]["thresholds"]["0.50"]["AP"] == pytest.approx(2 / 3)
    assert out["pooled"]["thresholds"]["0.90"]["IoU"] == pytest.approx(0.9)
    # Truths 40 and 40, predictions 20, 36 and 4: the last is left over.
    assert out["per_image"]["AJI"] == pytest.approx((20 + 36) / (40 + 40 + 4))
    assert out["per_image"]["SQ"] == pytest.approx(0.9)
    # One prediction over two truths counts twice in AJI, once in AJI+.
    truth, found = np.zeros((4, 10), int), np.ones((4, 10), int)
    truth[:, :6], truth[:, 6:] = 1, 2
    metric = CellMetric()
    metric.update_labels(found, truth)
    out = metric.compute()["per_image"]
    assert out["AJI"] == pytest.approx((24 + 16) / (40 + 40))
    assert out["AJI+"] == pytest.approx(24 / (40 + 16))


def test_empty_images() -> None:
    metric, none = CellMetric(), np.zeros((5, 5), np.uint8)
    metric.update_labels(none, none)
    out = metric.compute()
    assert all(out["per_image"][name] == out["pooled"][name] == -1.0 for name in FIGURES)
    assert out["count"]["MAE"] == 0.0
    one = none.copy()
    one[1:3, 1:3] = 5
    metric.update_labels(one, none)
    out = metric.compute()
    assert all(out["per_image"][name] == out["pooled"][name] == 0.0 for name in FIGURES)
    assert out["count"]["relative"] == -1.0


def scene(masks: np.ndarray, **more: Any) -> Scene:
    runs = Masks.from_dense(torch.from_numpy(masks))
    segments = Segments(size=SIZE, labels=torch.zeros(len(masks), dtype=torch.int64), masks=runs, **more)
    return Scene(size=SIZE, segments=segments)


def test_scenes_scores_and_crowds() -> None:
    rng = np.random.default_rng(5)
    found, there = np.concatenate([boxes(rng) for _ in range(9)])[:5], boxes(np.random.default_rng(8), 4)
    assert len(found) == 5
    assert len(there) > 1
    scores = torch.tensor([0.9, 0.49, 0.5, 0.8, 0.1])
    crowd = torch.zeros(len(there), dtype=torch.bool)
    crowd[0] = True
    metric, wanted = CellMetric(), CellMetric()
    metric.update(scene(found, scores=scores), scene(there, crowd=crowd), 1)
    kept = [m for m, s in zip(found, scores, strict=True) if s >= 0.5 and (m & there[0]).sum() <= 0.5 * m.sum()]
    wanted.update_runs(rle.encode(np.array(kept, bool).reshape(-1, *SIZE)), rle.encode(there[1:]), SIZE, 1)
    assert metric.compute() == wanted.compute()
    with pytest.raises(ValueError, match="masks"):
        metric.update(Scene(size=SIZE, segments=Segments(size=SIZE, labels=torch.zeros(0).long())), scene(there))


def test_truth_against_itself_shards_and_weights() -> None:
    whole, twice, same, parts = CellMetric(), CellMetric(), CellMetric(), []
    for i in range(6):
        found, there = map(painted, drawn(i))
        parts.append(CellMetric())
        for metric in (whole, twice, parts[-1]):
            metric.update_labels(found, there, i)
        same.update_labels(there, there, i)
        if i in (1, 4):
            twice.update_labels(found, there, f"again {i}")
    out = same.compute()
    assert all(out[form][name] == 1.0 for form, name in product(("per_image", "pooled"), FIGURES))
    merged = parts[5].merge(parts[2].merge(parts[0])).merge(parts[1].merge(parts[4]).merge(parts[3]))
    assert merged.compute() == whole.compute()
    weighted, fed = whole.compute(np.array([1, 2, 1, 1, 2, 1])), twice.compute()
    assert weighted["pooled"]["thresholds"]["0.50"] == pytest.approx(fed["pooled"]["thresholds"]["0.50"])
    for form, name in product(("per_image", "pooled"), FIGURES):
        assert weighted[form][name] == pytest.approx(fed[form][name])
    assert weighted["count"] == pytest.approx(fed["count"])
    assert whole.compute(np.zeros(6, np.int64))["pooled"]["PQ"] == -1.0
    with pytest.raises(ValueError, match="flatten"):
        whole.merge(CellMetric(flatten=True))


def test_wrong_input_is_refused() -> None:
    for wrong in ({"thresholds": (0.5, 0.5)}, {"thresholds": ()}, {"thresholds": (1.0,)}, {"min_score": 1.5}):
        with pytest.raises(ValueError, match="must"):
            CellMetric(**wrong)
    metric, empty = CellMetric(), rle.encode(np.zeros((1, *SIZE), bool))
    with pytest.raises(ValueError, match="scores"):
        metric.update_runs(empty, empty, SIZE, scores=np.array([np.nan]))
    with pytest.raises(ValueError, match="add up"):
        metric.update_runs(empty, empty, (3, 3))
    with pytest.raises(ValueError, match="integer"):
        metric.update_labels(np.zeros((3, 3)), np.zeros((3, 3), int))
    with pytest.raises(ValueError, match="share one shape"):
        metric.update_labels(np.zeros((3, 4), int), np.zeros((3, 3), int))


# ---- files ----------------------------------------------------------------------------------------------------------


def coco(images: dict[int, tuple[np.ndarray, np.ndarray]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def coded(masks: np.ndarray) -> list[dict[str, Any]]:
        return rle.to_coco(*rle.encode(masks), SIZE)

    there = [{"id": 9 * i + k, "image_id": i, "category_id": 1, "iscrowd": 0, "segmentation": s}
             for i, (_, truth) in images.items() for k, s in enumerate(coded(truth))]  # fmt: skip
    found = [{"image_id": i, "category_id": 1, "score": 0.4 + 0.1 * k, "segmentation": s}
             for i, (masks, _) in images.items() for k, s in enumerate(coded(masks))]  # fmt: skip
    where = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in images]
    return {"images": where, "annotations": there, "categories": [{"id": 1, "name": "nucleus"}]}, found


def test_coco_files(tmp_path: Path) -> None:
    images = {i: drawn(40 + i) for i in range(4)}
    data, found = coco(images)
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"

    def read(**more: Any) -> CellMetric:
        truth.write_text(json.dumps(data))
        results.write_text(json.dumps(found))
        return read_cells(truth, results, **more)

    wanted = CellMetric()
    for i, (masks, there) in images.items():
        wanted.update_runs(rle.encode(masks[1:]), rle.encode(there), SIZE, i)  # the first has a score of 0.4
    assert read().compute() == wanted.compute()
    assert read().keys == [0, 1, 2, 3]
    good = len(found)
    square = {"image_id": 3, "score": 0.9, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
    found.append(square)
    assert read().compute()["count"]["found"] == wanted.compute()["count"]["found"] + 1
    del found[good:]
    runs = found[0]["segmentation"]
    found += [
        {**square, "image_id": 8}, {**square, "score": 2}, {**square, "score": float("nan")},
        {**square, "segmentation": {"size": [3, 3], "counts": [9]}}, {**square, "segmentation": [[1, 2, 3]]},
        {**square, "segmentation": {**runs, "counts": runs["counts"][:-1]}}, "text", {"image_id": 3, "score": 0.9},
        {**square, "segmentation": {**runs, "counts": [-5, 293]}},
    ]  # fmt: skip
    data["annotations"].append({"image_id": [1], "segmentation": []})
    with pytest.raises(InputError, match=r"truth\.json: 1 of \d+ annotations cannot be used - annotations"):
        read()
    data["annotations"].pop()
    with pytest.raises(InputError) as caught:
        read()
    text = str(caught.value)
    assert f"9 of {len(found)} results cannot be used - results[{good}]: image 8 is not known; " in text
    assert "score must lie in [0, 1], got nan" in text
    assert "and 4 more" in text
    lenient = read(lenient=True)
    assert lenient.dropped == {"truth": 0, "results": 9}
    assert lenient.compute() == wanted.compute()
    with pytest.raises(InputError, match="swap"):
        read_cells(results, truth)
    with pytest.raises(InputError, match="cannot read"):
        read_cells(truth, tmp_path / "none.json")
    results.write_text("[{")
    with pytest.raises(InputError, match="not JSON"):
        read_cells(truth, results)


def test_folders_of_label_images(tmp_path: Path) -> None:
    wanted = CellMetric()
    for i in range(3):
        found, there = map(painted, drawn(i))
        for folder, labels, ending in (("t", there, "_masks.tif"), ("p", found, ".png")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(labels.astype(np.uint16)).save(tmp_path / folder / f"{i}{ending}")
        wanted.update_labels(found, there, str(i))
    assert read_cells(tmp_path / "t", tmp_path / "p", truth_suffix="_masks").compute() == wanted.compute()
    with pytest.raises(InputError, match="has no result"):
        read_cells(tmp_path / "t", tmp_path / "p")


def test_real_nuclei() -> None:
    folder = shared("data/volume/nuclei")
    for name in ("mask2d.tif", "mask3d.tif"):
        metric = read_cells(folder / name, folder / name)
        out = metric.compute()
        assert out["count"]["true"] > 10
        assert all(out[form][figure] == 1.0 for form, figure in product(("per_image", "pooled"), FIGURES))
    truth = read_labels(folder / "mask2d.tif")
    metric, by_runs = CellMetric(), CellMetric()
    moved = np.roll(truth, 2, 1)
    metric.update_labels(moved, truth, 1)
    by_runs.update_runs(rle.encode(split(moved)), rle.encode(split(truth)), truth.shape, 1)
    assert metric.compute() == by_runs.compute()
    assert 0.1 < metric.compute()["pooled"]["AJI"] < 1.0


def test_real_annotations_against_themselves(tmp_path: Path) -> None:
    data = json.loads(shared("data/nuclei/val.json").read_text())
    chosen = [image["id"] for image in data["images"][:10]]
    data["images"] = data["images"][:10]
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in chosen]
    results = [{k: a[k] for k in ("image_id", "segmentation")} | {"score": 1.0} for a in data["annotations"]]
    for name, value in (("t.json", data), ("p.json", results)):
        (tmp_path / name).write_text(json.dumps(value))
    out = read_cells(tmp_path / "t.json", tmp_path / "p.json").compute()
    assert out["count"]["true"] == len(results) > 100
    assert all(out[form][figure] == 1.0 for form, figure in product(("per_image", "pooled"), FIGURES))
