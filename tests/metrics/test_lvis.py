"""LVIS's rules: the authors' numbers on recorded data, and what the rules say on cases small enough to see."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskwright.errors import InputError
from maskwright.metrics.average_precision import Objects
from maskwright.metrics.lvis import LvisAP, read_lvis
from tests.metrics import oracle

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "lvis.json").read_text())
RUNS = [(run["boxed"], run["kind"], run["limit"], run["figures"]) for run in GOLDEN["runs"]]
NAMES = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}
NAMES |= {"AR": "AR", "ARs": "AR_small", "ARm": "AR_medium", "ARl": "AR_large"}


def _check(got: dict[str, Any], want: dict[str, float], limit: int) -> None:
    for name, value in want.items():
        name, *stated = name.split("@")
        ours = NAMES.get(name, name) + (f"_{limit}" if stated and name == "AR" else "")
        assert abs(got[ours] - value) < 1e-10, (name, got[ours], value)


@pytest.mark.parametrize(("boxed", "kind", "limit", "want"), RUNS)
def test_files_have_the_recorded_numbers(
    tmp_path: Path, boxed: bool, kind: str, limit: int, want: dict[str, float]
) -> None:
    results = copy.deepcopy(GOLDEN["results"])
    for result in results if boxed else []:
        result["bbox"] = [float(v) for v in coco_mask.toBbox(result["segmentation"])]
    name = {"segm": "mask", "bbox": "box"}[kind]
    metric = read_lvis(*oracle.write(tmp_path, GOLDEN["truth"], results), [name], max_detections=limit)
    _check(metric.compute()[name], want, limit)


@pytest.mark.parametrize(("boxed", "kind", "limit", "want"), [run for run in RUNS if not run[0]][::2])
def test_arrays_have_the_recorded_numbers(boxed: bool, kind: str, limit: int, want: dict[str, float]) -> None:
    truth = GOLDEN["truth"]
    categories = truth["categories"]
    metric = LvisAP([c["name"] for c in categories], [c["frequency"] for c in categories], ["mask"], limit)
    for image in truth["images"]:
        size = image["height"], image["width"]
        sides = [[e for e in entries if e["image_id"] == image["id"]]
                 for entries in (GOLDEN["results"], truth["annotations"])]  # fmt: skip
        named = {"negative": "neg_category_ids", "not_exhaustive": "not_exhaustive_category_ids"}
        lists = {ours: [c - 1 for c in image[its]] for ours, its in named.items()}
        metric.update_arrays(*(_objects(side, size) for side in sides), size, image["id"], **lists)
    lost = read_without_id_zero(limit)  # the tool takes a match with id 0 for none; arrays have no ids
    assert metric.compute() == lost.compute()
    assert metric.compute(np.arange(len(metric)) % 3) == lost.compute(np.arange(len(metric)) % 3)


def read_without_id_zero(limit: int) -> LvisAP:
    """The same files with annotations numbered from 1."""
    import tempfile

    truth = copy.deepcopy(GOLDEN["truth"])
    for annotation in truth["annotations"]:
        annotation["id"] += 1
    with tempfile.TemporaryDirectory() as folder:
        return read_lvis(*oracle.write(Path(folder), truth, GOLDEN["results"]), ["mask"], max_detections=limit)


def _objects(entries: list[dict[str, Any]], size: tuple[int, int]) -> Objects:
    masks = [coco_mask.decode(e["segmentation"]) for e in entries]
    return Objects(
        np.array([e["category_id"] - 1 for e in entries], np.int64),
        scores=np.array([e["score"] for e in entries]) if entries and "score" in entries[0] else None,
        masks=np.array(masks, bool).reshape(-1, *size),
    )


def test_which_detections_are_punished() -> None:
    boxes = np.array([[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0]])
    truth = Objects(np.zeros(1, np.int64), boxes=boxes[:1])

    def ap(label: int, **known: Any) -> float:
        """AP of class 0: a better-scored detection elsewhere of ``label`` comes before a true one."""
        metric = LvisAP("abc", "rcf", ["box"])
        found = Objects(np.array([label, 0]), np.array([0.9, 0.8]), boxes=boxes[::-1])
        metric.update_arrays(found, truth, (100, 100), 0, **known)
        other = Objects(np.array([1]), boxes=boxes[:1])
        metric.update_arrays(Objects(np.array([1]), np.array([0.7]), boxes=boxes[:1]), other, (100, 100), 1)
        got = metric.compute()["box"]
        assert got["APf"] == -1.0
        return round(got["APr"] if label == 0 else got["APc"], 12)

    assert ap(0) == 0.5
    assert ap(0, not_exhaustive=[0]) == 1.0
    assert ap(1) == 1.0
    assert ap(1, negative=[1]) == 0.5
    assert ap(1, negative=[1], not_exhaustive=[1]) == 1.0
    assert ap(2, negative=[2]) == 1.0


def test_shards_merge_to_the_same_bits() -> None:
    whole, (first, second) = LvisAP("ab", "rf", ["box"]), [LvisAP("ab", "rf", ["box"]) for _ in range(2)]
    rng = np.random.default_rng(0)
    for key in range(8):
        low = rng.uniform(0, 50, (4, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 40, (4, 2))], 1)
        found = Objects(rng.integers(0, 2, 4), rng.random(4), boxes=boxes + rng.normal(0, 1, (4, 4)))
        truth = Objects(rng.integers(0, 2, 4), boxes=boxes)
        for metric in (whole, first if key % 3 else second):
            metric.update_arrays(found, truth, (99, 99), key, negative=[1])
    assert second.merge(first).compute() == whole.compute()
    with pytest.raises(ValueError, match="must share frequency"):
        whole.merge(LvisAP("ab", "rr", ["box"]))


def test_files_that_are_not_lvis_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frequency must be"):
        LvisAP("ab", "rx")
    for change, says in (
        (lambda t: t["categories"][2].pop("frequency"), "1 have none: class 3"),
        (lambda t: t["images"][1].pop("neg_category_ids"), "has no list neg_category_ids"),
        (lambda t: t["images"][1]["not_exhaustive_category_ids"].append(77), "unknown categories: .77."),
    ):
        truth = copy.deepcopy(GOLDEN["truth"])
        change(truth)
        with pytest.raises(InputError, match=says):
            read_lvis(*oracle.write(tmp_path, truth, GOLDEN["results"]))
    results = [*GOLDEN["results"], GOLDEN["results"][0] | {"image_id": 12345}]
    paths = oracle.write(tmp_path, GOLDEN["truth"], results)
    with pytest.raises(InputError, match="1 of 95 results"):
        read_lvis(*paths)
    assert read_lvis(*paths, lenient=True).dropped == {"truth": 0, "results": 1}
