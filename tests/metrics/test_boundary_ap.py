"""Boundary AP: the paper's definition, the authors' recorded numbers, and what lazy boundaries must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from maskwright.metrics.average_precision import CocoAP, Objects
from maskwright.metrics.files import read_coco, score
from tests.metrics import oracle
from tests.parity.harness import recipe
from tests.shared import shared

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("ratio", [0.02, 0.005])
def test_the_oracle_has_the_recorded_boundaries(ratio: float) -> None:
    with np.load(shared("parity/metric_boundary_iou.npz")) as stored:
        bits = stored[f"target_boundaries_{ratio}"]
    want = np.unpackbits(bits)[: 5 * 256 * 320].reshape(5, 256, 320)
    for mask, boundary in zip(recipe().targets(256, 320)[2], want, strict=True):
        assert (oracle.boundary(mask, ratio) == boundary).all()


def test_parity_with_the_recorded_reference() -> None:
    with np.load(shared("parity/metric_boundary_iou.npz")) as stored:
        want = stored["boundary_stats"]
    metric = CocoAP("abcde", ("boundary",))
    for key, image in enumerate(recipe().metric_set("coco", 24, 240, 320, 5, scale=2)):
        metric.update_arrays(*(_objects(image[side], (240, 320)) for side in ("pred", "gt")), (240, 320), key)
    got = metric.compute()["boundary"]
    got.pop("per_class")
    assert np.abs(np.array(list(got.values())) - want).max() < 1e-10


def _objects(items: list[dict[str, Any]], size: tuple[int, int]) -> Objects:
    return Objects(
        np.array([i["category"] for i in items], np.int64),
        scores=np.array([i["score"] for i in items]) if items and "score" in items[0] else None,
        masks=np.array([i["mask"] for i in items], bool).reshape(-1, *size),
        crowd=np.array([bool(i.get("crowd")) for i in items]),
    )


@quick
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([2, 100]))
def test_random_files_equal_the_definition(tmp_path: Path, seed: int, limit: int) -> None:
    truth, results = oracle.random_data(seed, "mask", limit)
    if not results:
        return
    rng = np.random.default_rng(seed)
    for entry in (*truth["annotations"], *results):
        shape = entry["segmentation"]
        if isinstance(shape, dict) and rng.random() < 0.3:
            plain = oracle.uncompressed(coco_mask.decode(_packed(shape)))
            shape["counts"] = oracle.broken_up(plain, rng)
    got = score(*oracle.write(tmp_path, truth, results), ["boundary"], max_detections=limit)
    for entry in (*truth["annotations"], *results):  # pycocotools stops early where two masks have such runs at once
        if isinstance(entry["segmentation"], dict):
            entry["segmentation"] = _text(coco_mask.encode(coco_mask.decode(_packed(entry["segmentation"]))))
    names = {c["id"]: c["name"] for c in truth["categories"]}
    oracle.check(got["boundary"], oracle.evaluated(truth, results, "boundary", limit), names)


def _packed(shape: dict[str, Any]) -> dict[str, Any]:
    return coco_mask.frPyObjects(shape, *shape["size"]) if isinstance(shape["counts"], list) else shape


def _text(shape: dict[str, Any]) -> dict[str, Any]:
    counts = shape["counts"]
    return shape | {"counts": counts if isinstance(counts, str) else counts.decode()}


@pytest.mark.parametrize(("height", "width"), [(200, 330), (330, 64), (40, 900), (1, 70), (129, 1)])
def test_tall_wide_and_thin_pictures(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    metric = CocoAP(["a"], ("boundary", "mask"))
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for key in range(12):
        there = np.array([oracle.random_mask(rng, height, width) for _ in range(3)]).astype(bool)
        there[0] = rng.random((height, width)) < 0.998  # full of holes, on every border
        found = np.array([np.roll(m, int(rng.integers(-3, 4)), int(rng.integers(2))) for m in there])
        scores = rng.random(3)
        labels = np.zeros(3, np.int64)
        metric.update_arrays(Objects(labels, scores, found), Objects(labels, masks=there), (height, width), key)
        for k in range(3):
            rle = [_text(coco_mask.encode(np.asfortranarray(m[k].astype(np.uint8)))) for m in (found, there)]
            results.append({"image_id": key, "category_id": 1, "score": scores[k], "segmentation": rle[0]})
            entry = {"id": len(results), "image_id": key, "category_id": 1, "iscrowd": 0, "segmentation": rle[1]}
            annotations.append(entry | {"area": float(there[k].sum()), "bbox": [0, 0, 1, 1]})
    images = [{"id": k, "height": height, "width": width} for k in range(12)]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    for kind in ("boundary", "mask"):
        oracle.check(metric.compute()[kind], oracle.evaluated(truth, results, kind), {1: "a"})


def test_boundaries_are_harder_than_masks_and_thin_ones_are_equal(tmp_path: Path) -> None:
    y, x = np.mgrid[:300, :400]
    disc = ((y - 150) ** 2 + (x - 200) ** 2 < 90**2)[None]
    moved = np.roll(disc, 4, 2)
    thin = np.zeros((1, 300, 400), bool)
    thin[0, 20:30, 20:380] = True
    one = np.zeros(1, np.int64)
    for masks, found, equal in ((disc, moved, False), (thin, np.roll(thin, 2, 1), True)):
        metric = CocoAP(["a"], ("boundary", "mask"))
        metric.update_arrays(Objects(one, np.ones(1), found), Objects(one, masks=masks), (300, 400))
        got = metric.compute()
        assert (got["boundary"]["AP"] == got["mask"]["AP"]) == equal
        assert got["boundary"]["AP"] <= got["mask"]["AP"]


def test_a_lower_threshold_asks_for_more_boundaries() -> None:
    """Boundaries are made only for pairs that a threshold could accept: lower ones must still see all they need."""
    truth, results = oracle.random_data(5, "mask", 100)
    metric = CocoAP(["a"], ("boundary",), thresholds=[0.05, 0.3])
    rng = np.random.default_rng(1)
    annotations: list[dict[str, Any]] = []
    results = []
    for key in range(10):
        there = np.array([oracle.random_mask(rng, 120, 160) for _ in range(3)]).astype(bool)
        found = np.array([oracle.random_mask(rng, 120, 160) for _ in range(3)]).astype(bool)
        labels, scores = np.zeros(3, np.int64), rng.random(3)
        metric.update_arrays(Objects(labels, scores, found), Objects(labels, masks=there), (120, 160), key)
        for k in range(3):
            rle = [_text(coco_mask.encode(np.asfortranarray(m[k].astype(np.uint8)))) for m in (found, there)]
            results.append({"image_id": key, "category_id": 1, "score": scores[k], "segmentation": rle[0]})
            entry = {"id": len(results), "image_id": key, "category_id": 1, "iscrowd": 0, "segmentation": rle[1]}
            annotations.append(entry | {"area": float(there[k].sum()), "bbox": [0, 0, 1, 1]})
    images = [{"id": k, "height": 120, "width": 160} for k in range(10)]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    run = oracle.evaluated(truth, results, "boundary", iouThrs=np.array([0.05, 0.3]))
    got = metric.compute()["boundary"]
    assert abs(got["AP"] - run.eval["precision"][:, :, :, 0, -1].mean()) < 1e-10
    assert 0 < got["AP"] < 1
    assert "AP50" not in got


def test_one_file_scored_for_all_kinds_at_once(tmp_path: Path) -> None:
    truth, results = oracle.random_data(9, "mask", 100)
    paths = oracle.write(tmp_path, truth, results)
    together = read_coco(*paths, ["mask", "box", "boundary"])
    for kind in ("mask", "box", "boundary"):
        assert together.compute()[kind] == score(*paths, [kind])[kind]
    assert together.keys == sorted(i["id"] for i in truth["images"])
