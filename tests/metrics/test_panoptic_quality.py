"""PanopticQuality: panopticapi's and boundary-iou-api's numbers, the laws of measures, clear errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.metrics import _map_kernels
from maskwright.metrics import _panoptic_core as core
from maskwright.metrics.panoptic_quality import MapSegments, PanopticQuality
from maskwright.structures import Masks, Scene, Segments, Taxonomy
from tests.metrics.panoptic_oracle import Segment, Tally, drawn, near, rim
from tests.shared import shared

NAMES, THING = ["cat", "dog", "sky", "road"], [True, True, False, False]


def listed(segments: list[Segment]) -> MapSegments:
    areas = [s.area for s in segments]
    return MapSegments(
        np.array([s.id for s in segments], np.int64),
        np.array([s.label for s in segments], np.int64),
        np.array([s.crowd for s in segments], bool),
        np.array(areas, np.int64) if areas and None not in areas else None,
    )


def feed(metric: PanopticQuality, image: tuple[Any, ...], key: int | str | None = None) -> None:
    truth, found, there, its = image
    metric.update_maps(found, truth, listed(its), listed(there), key)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), dtype=st.sampled_from([np.int32, np.int64, np.uint32]))
def test_random_maps_equal_the_oracle(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    dilation = float(rng.choice([0.01, 0.04, 0.2]))
    metric = PanopticQuality(NAMES, thing=THING, boundary=True, dilation=dilation)
    areas, rims = Tally(), Tally()
    for _ in range(3):
        truth, found, there, its = drawn(rng, shape, len(NAMES))
        if rng.random() < 0.5:  # stated areas may be larger than the pixels
            for s in there:
                s.area = int((truth == s.id).sum() * rng.choice([1, 1, 1.4]))
        feed(metric, (truth.astype(dtype), found.astype(dtype), there, its))
        areas.match(truth, found, there, its)
        rims.match(truth, found, there, its, max(1, round(dilation * np.hypot(*shape))))
    got = metric.compute()
    near(got["panoptic"], areas.figures(NAMES, THING))
    near(got["boundary"], rims.figures(NAMES, THING))
    assert got["images"] == 3


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_pairs_and_rims_are_those_of_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, cell = (int(rng.integers(1, 40)), int(rng.integers(1, 40))), int(rng.integers(1, 9))
    ids = rng.integers(0, 1 << 62 if seed % 2 else 5000, int(rng.integers(1, 3000 if seed % 3 == 0 else 6)))
    first, second = (np.kron(rng.choice(ids, shape), np.ones((cell, cell), np.int64)) for _ in range(2))
    want = dict.fromkeys(zip(first.flat, second.flat, strict=True), 0)
    for pair in zip(first.flat, second.flat, strict=True):
        want[pair] += 1
    pairs = core.count_pairs(first, second)
    assert {(int(a), int(b)): int(n) for a, b, n in pairs} == want
    assert pairs.tolist() == sorted(pairs.tolist())
    reach = int(rng.integers(1, 6))
    few = np.unique(first)[:4]
    counted = core.count_rims(first, second, reach)
    for i in few[few > 0]:
        inside = counted[(counted[:, 0] == i), 2].sum()
        assert inside == rim(first == i, reach).sum()


def test_constants_are_those_of_the_kernels() -> None:
    assert (core.FULL, core.INSIDE, core.ODD) == (_map_kernels.FULL, _map_kernels.INSIDE, _map_kernels.ODD)


def test_metric_reference() -> None:
    recorded = json.loads((shared("parity") / "metric_pq.json").read_text())
    maps = np.load(shared("parity") / "metric_pq.npz")
    categories = recorded["categories"]
    label_of = {c["id"]: k for k, c in enumerate(categories)}
    names, thing = [c["name"] for c in categories], [c["isthing"] == 1 for c in categories]
    metric = PanopticQuality(names, thing=thing, boundary=True)
    entries = recorded["gt_segments"], recorded["pred_segments"]
    for truth, found, there, its in zip(maps["gt_ids"], maps["pred_ids"], *entries, strict=True):
        lists = [
            [Segment(s["id"], label_of[s["category_id"]], bool(s["iscrowd"]), s["area"]) for s in e["segments_info"]]
            for e in (there, its)
        ]
        feed(metric, (truth, found, *lists), there["image_id"])
    got = metric.compute()
    for kind, name in (("panoptic", "result"), ("boundary", "boundary_pq_result")):
        want = recorded[name]
        for suffix, group in (("", "All"), ("_things", "Things"), ("_stuff", "Stuff")):
            for key in ("PQ", "SQ", "RQ"):
                assert abs(got[kind][key + suffix] - want[group][key.lower()]) < 1e-12
        for category in categories:
            figures = got[kind]["per_class"][category["name"]]
            for key, value in want["per_class"][str(category["id"])].items():
                assert abs(figures[key.upper()] - value) < 1e-12


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_laws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [drawn(rng, (30, 40), len(NAMES)) for _ in range(5)]

    def measured(which: list[int]) -> PanopticQuality:
        metric = PanopticQuality(NAMES, thing=THING, boundary=True)
        for i in which:
            feed(metric, images[i], i)
        return metric

    whole = measured([0, 1, 2, 3, 4])
    shards = measured([3, 1]).merge(measured([4])).merge(measured([2, 0]))
    assert shards.compute() == whole.compute()  # bit for bit
    assert shards.keys == [0, 1, 2, 3, 4]
    twice = measured([0, 1, 2, 4])
    feed(twice, images[0], "again")
    near(twice.compute(), whole.compute(np.array([2, 1, 1, 0, 1])))
    assert not len(PanopticQuality(NAMES))
    same = PanopticQuality(NAMES, thing=THING, boundary=True)
    for truth, _, there, _ in images:
        objects = [Segment(s.id, s.label) for s in there]
        feed(same, (truth, truth, objects, objects))
    for kind in ("panoptic", "boundary"):
        for figures in same.compute()[kind]["per_class"].values():
            assert set(figures.values()) <= {1.0, -1.0}


def test_nothing_is_undefined() -> None:
    got = PanopticQuality(NAMES).compute()
    assert got["images"] == 0
    assert {got["panoptic"][key] for key in ("PQ", "SQ_things", "RQ_stuff")} == {-1.0}
    metric = PanopticQuality(NAMES, boundary=True)
    feed(metric, (np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64), [], []))
    assert metric.compute()["boundary"]["PQ"] == -1.0


def scene(ids: np.ndarray, segments: list[Segment], **fields: Any) -> Scene:
    parts = Segments(
        size=ids.shape,
        labels=torch.tensor([s.label for s in segments], dtype=torch.int64),
        ids=torch.tensor([s.id for s in segments], dtype=torch.int64),
        crowd=torch.tensor([s.crowd for s in segments], dtype=torch.bool),
    )
    return Scene(size=ids.shape, panoptic=torch.from_numpy(ids.astype(np.int64)), segments=parts, **fields)


def test_scenes_give_the_numbers_of_maps() -> None:
    taxonomy = Taxonomy(names=tuple(NAMES), thing=tuple(THING))
    of_scenes, of_maps = PanopticQuality(taxonomy), PanopticQuality(NAMES, thing=THING)
    for seed in range(5):
        truth, found, there, its = drawn(np.random.default_rng(seed), (33, 28), len(NAMES))
        of_scenes.update(scene(found, its), scene(truth, there), seed)
        feed(of_maps, (truth, found, there, its), f"{seed}")
    assert of_scenes.compute()["panoptic"] == of_maps.compute()["panoptic"]
    of_scenes.merge(of_maps)  # the same classes, whether they came from a taxonomy or by name
    assert len(of_scenes) == 10


def test_what_the_truth_ignores_is_void() -> None:
    ids = np.repeat([[1, 2, 3]], 6, 0).repeat(4, 1)
    segments = [Segment(1, 0), Segment(2, 1), Segment(3, 2)]
    hidden = torch.zeros(1, 6, 12, dtype=torch.bool)
    hidden[:, :, 4:] = True
    metric = PanopticQuality(NAMES, thing=THING)
    metric.update(scene(ids, segments), scene(ids, segments, ignore=Masks.from_dense(hidden)))
    per_class = metric.compute()["panoptic"]["per_class"]
    assert [per_class[name]["PQ"] for name in NAMES] == [1.0, -1.0, -1.0, -1.0]


def test_errors_name_what_is_wrong() -> None:
    ids = np.array([[1, 1, 0, 2]])
    both = [Segment(1, 0), Segment(2, 1)]

    def fails(match: str, found: np.ndarray, its: list[Segment], there: list[Segment] = both, key: int = 1) -> None:
        with pytest.raises(ValueError, match=match):
            feed(metric, (ids, found, there, its), key)

    metric = PanopticQuality(NAMES)
    feed(metric, (ids, ids, both, both), 0)
    fails("must share one", ids.T, both)
    fails("counted before", ids, both, key=0)
    fails(r"must be listed as segments, but not \[2\]", ids, both[:1])
    fails(r"predicted segments must have pixels.*\[7\]", ids, [*both, Segment(7, 0)])
    fails(r"truth labels must lie in 0..3, got \[9\]", ids, both, [Segment(1, 9), Segment(2, 0)])
    fails("integer ids, got float64", ids * 1.0, both)
    fails(r"must be listed as segments, but not \[-1\]", -(ids > 0).astype(int), both)
    small = [Segment(1, 0, area=1), Segment(2, 1, area=1)]
    fails(r"annotated areas must count all pixels, but not those of \[1\]", ids, both, small)
    fails("distinct", ids, [Segment(1, 0), Segment(1, 1)])
    assert len(metric) == 1
    with pytest.raises(ValueError, match="something of it is unknown"):
        metric.update(Scene(size=(1, 4)), scene(ids, both))
    with pytest.raises(ValueError, match="share classes"):
        metric.merge(PanopticQuality(["other"]))
    with pytest.raises(ValueError, match="in both shards: 0"):
        metric.merge(metric)
    with pytest.raises(ValueError, match="dilation"):
        PanopticQuality(NAMES, dilation=0)
    with pytest.raises(ValueError, match="one flag a class"):
        PanopticQuality(NAMES, thing=[True])
    with pytest.raises(ValueError, match="labels must be dense"):
        MapSegments(np.array([1]), np.array([-1]))
    with pytest.raises(ValueError, match="one integer a segment"):
        MapSegments(np.array([1]), np.array([0.5]))
