"""CocoAP on scenes: pycocotools' numbers, any sharding, clear errors."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from maskwright.metrics.average_precision import CocoAP
from maskwright.structures import Masks, Scene, Segments, Taxonomy
from tests.metrics import oracle
from tests.shared import ROOT, shared

Pair = tuple[Scene, Scene, int, np.ndarray]


def scenes(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[Taxonomy, list[Pair]]:
    """The same data as scenes: predicted, truth, image id, annotated areas."""
    categories = sorted(truth["categories"], key=lambda c: c["id"])
    taxonomy = Taxonomy(names=tuple(c["name"] for c in categories), source_ids=tuple(c["id"] for c in categories))
    out: list[Pair] = []
    for image in truth["images"]:
        size = (image["height"], image["width"])
        found = [r for r in results if r["image_id"] == image["id"]]
        there = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        areas = np.array([a["area"] for a in there])
        out.append((_scene(found, size, taxonomy), _scene(there, size, taxonomy), image["id"], areas))
    return taxonomy, out


def _scene(entries: list[dict[str, Any]], size: tuple[int, int], taxonomy: Taxonomy) -> Scene:
    if not entries:
        return Scene(size=size, segments=Segments.empty(size, scored=True))
    boxes = masks = scores = None
    if "bbox" in entries[0]:
        corners = torch.tensor([e["bbox"] for e in entries], dtype=torch.float64)
        boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], 1).float()
    if "segmentation" in entries[0]:
        plain = [_rle(e["segmentation"], size) for e in entries]
        masks = Masks.from_coco(plain, size)
    if "score" in entries[0]:
        scores = torch.tensor([e["score"] for e in entries], dtype=torch.float32)
    segments = Segments(
        size=size,
        labels=torch.tensor([taxonomy.label_of[e["category_id"]] for e in entries]),
        boxes=boxes,
        masks=masks,
        scores=scores,
        crowd=torch.tensor([bool(e.get("iscrowd", 0)) for e in entries]),
    )
    return Scene(size=size, segments=segments)


def _rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    return segmentation


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([2, 100]))
def test_random_masks_equal_pycocotools(seed: int, limit: int) -> None:
    truth, results = oracle.random_data(seed, "mask", limit)
    if not results:
        return
    taxonomy, pairs = scenes(truth, results)
    metric = CocoAP(taxonomy, ("mask",), limit)
    for predicted, annotated, key, areas in pairs:
        metric.update(predicted, annotated, key, areas)
    names = dict(zip(taxonomy.source_ids, taxonomy.names, strict=True))
    oracle.check(metric.compute()["mask"], oracle.evaluated(truth, results, "mask", limit), names)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_boxes_equal_pycocotools(seed: int) -> None:
    truth, results = oracle.random_data(seed, "box", 100)
    if not results:
        return
    for entry in (*truth["annotations"], *results):  # scenes keep boxes as float32: take numbers these hold exactly
        entry["bbox"] = [round(max(v, 0) * 4) / 4 for v in entry["bbox"]]
    taxonomy, pairs = scenes(truth, results)
    metric = CocoAP(taxonomy, ("box",))
    for predicted, annotated, key, areas in pairs:
        metric.update(predicted, annotated, key, areas)
    names = dict(zip(taxonomy.source_ids, taxonomy.names, strict=True))
    oracle.check(metric.compute()["box"], oracle.evaluated(truth, results, "box"), names)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_any_sharding_merged_in_any_order_gives_the_same_bits(seed: int, data: st.DataObject) -> None:
    truth, results = oracle.random_data(seed, "mask", 100)
    taxonomy, pairs = scenes(truth, results)
    whole = CocoAP(taxonomy)
    shards = [CocoAP(taxonomy) for _ in range(3)]
    for predicted, annotated, key, areas in pairs:
        whole.update(predicted, annotated, key, areas)
    for predicted, annotated, key, areas in data.draw(st.permutations(pairs)):
        shards[data.draw(st.integers(0, 2))].update(predicted, annotated, key, areas)
    first, *rest = data.draw(st.permutations(shards))
    for shard in rest:
        first = first.merge(shard)
    assert len(first) == len(whole) == len(pairs)
    assert first.compute() == whole.compute()


def test_truth_against_itself_is_perfect() -> None:
    truth, _ = oracle.random_data(11, "mask", 100)
    taxonomy, pairs = scenes(truth, [])
    metric = CocoAP(taxonomy)
    for _, annotated, key, _ in pairs:
        objects = annotated.objects()
        assert objects.crowd is not None
        objects = objects[~objects.crowd]
        same = Segments(
            size=objects.size, labels=objects.labels, masks=objects.masks, boxes=objects.boxes,
            scores=torch.ones(len(objects)),
        )  # fmt: skip
        metric.update(Scene(size=annotated.size, segments=same), annotated, key)
    got = metric.compute()
    assert got["mask"]["AP"] == got["box"]["AP"] == got["mask"]["AR_100"] == 1.0


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_parity_with_the_recorded_reference(kind: str) -> None:
    shared("parity/metric_coco_ap.npz")
    reference = np.load(shared("parity/metric_coco_ap.npz"))
    sys.path.insert(0, str(ROOT / "parity"))
    try:
        import recipe  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    size = (240, 320)
    metric = CocoAP(Taxonomy(names=tuple("abcde")), (kind,))
    for key, image in enumerate(recipe.metric_set("coco", 24, *size, 5, scale=2)):
        sides = []
        for name in ("pred", "gt"):
            items = image[name]
            masks = Masks.from_dense(torch.from_numpy(np.array([i["mask"] for i in items]).reshape(-1, *size)))
            sides.append(
                Segments(
                    size=size,
                    labels=torch.tensor([i["category"] for i in items], dtype=torch.int64),
                    masks=masks,
                    boxes=masks.boxes() if name == "gt" else None,  # the recorded results had masks only
                    scores=torch.tensor([i["score"] for i in items], dtype=torch.float32) if name == "pred" else None,
                    crowd=torch.tensor([bool(i.get("crowd")) for i in items], dtype=torch.bool),
                )
            )
        there = sides[1]
        assert there.masks is not None
        metric.update(*(Scene(size=size, segments=side) for side in sides), key=key, areas=there.masks.area())
    got = metric.compute()[kind]
    got.pop("per_class")
    name = {"mask": "segm", "box": "bbox"}[kind]
    assert np.abs(np.array(list(got.values())) - reference[f"{name}_stats"]).max() < 1e-10


def test_nothing_counted_is_undefined() -> None:
    got = CocoAP(Taxonomy(names=("a",)), max_detections=400).compute()
    assert got["images"] == 0
    assert got["max_per_image"] == 400
    assert set(got["mask"]) >= {"AP", "AR_1", "AR_10", "AR_400"}
    assert got["mask"]["AP"] == got["box"]["per_class"]["a"]["AR_400"] == -1.0


def test_errors_name_what_is_wrong() -> None:
    size = (4, 5)
    taxonomy = Taxonomy(names=("a",))
    empty = Scene(size=size, segments=Segments.empty(size, scored=True))
    metric = CocoAP(taxonomy)
    metric.update(empty, empty, 3)
    with pytest.raises(ValueError, match="image 3 was counted before"):
        metric.update(empty, empty, 3)
    with pytest.raises(ValueError, match="must share one"):
        metric.update(empty, Scene(size=(5, 4), segments=Segments.empty((5, 4))))
    one = Segments(size=size, labels=torch.zeros(1, dtype=torch.int64), boxes=torch.tensor([[0.0, 0.0, 2.0, 2.0]]))
    with pytest.raises(ValueError, match="must have scores"):
        metric.update(Scene(size=size, segments=one), empty)
    with pytest.raises(ValueError, match="must have masks"):
        metric.update(empty, Scene(size=size, segments=one))
    wrong = Segments(size=size, labels=torch.ones(1, dtype=torch.int64), boxes=one.boxes)
    with pytest.raises(ValueError, match="dense in"):
        metric.update(empty, Scene(size=size, segments=wrong))
    assert len(metric) == 1
    with pytest.raises(ValueError, match="kinds"):
        CocoAP(taxonomy, ("edge",))
    with pytest.raises(ValueError, match="max_detections"):
        CocoAP(taxonomy, max_detections=0)
    with pytest.raises(ValueError, match="must share taxonomy"):
        metric.merge(CocoAP(Taxonomy(names=("b",))))
    other = CocoAP(taxonomy)
    other.update(empty, empty, 3)
    with pytest.raises(ValueError, match="in both shards: 3"):
        metric.merge(other)
