"""VPQ and STQ: the recorded numbers of the official tools, slow oracles, the laws of measures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.metrics.video_panoptic import STQ, VideoPanopticQuality
from maskwright.structures import Scene, Segments, Taxonomy
from tests.metrics.panoptic_oracle import Segment, Tally, blobs, near
from tests.shared import shared

NAMES, THING = ["cat", "dog", "sky"], [True, True, False]
Maps = tuple[np.ndarray, np.ndarray]


def drawn(rng: np.random.Generator, frames: int = 5) -> tuple[Maps, Maps]:
    """Prediction and truth of a clip, each (classes, instances); segments come and go."""
    shape = (frames, int(rng.integers(1, 14)), int(rng.integers(1, 14)))
    kinds = np.array([255, 0, 1, 2, 256, 257, 512])  # 256 * instance + class
    cell = int(rng.integers(2, 7))
    truth = blobs(rng, shape, rng.choice(kinds, 5), cell)
    truth[rng.random(frames) < 0.3] = 255
    part = blobs(rng, shape, np.array([0, 0, 1]), cell) == 1
    found = np.where(part, blobs(rng, shape, rng.choice(kinds, 5), cell), np.where(truth == 255, 0, truth))
    return (found % 256, found // 256), (truth % 256, truth // 256)


def segments(maps: Maps, crowds: bool) -> tuple[np.ndarray, list[Segment]]:
    """Ids of (class, instance), instances of stuff left out, and what they are."""
    labels, instances = maps
    instances = np.where(np.isin(labels, np.flatnonzero(THING)), instances, 0)
    ids = np.where(labels == 255, 0, 1000 * (labels + 1) + instances)
    known = [int(i) for i in np.unique(ids) if i]
    return ids, [Segment(i, i // 1000 - 1, crowds and THING[i // 1000 - 1] and i % 1000 == 0) for i in known]


def vpq(clips: list[tuple[Maps, Maps]], window: int, official: bool) -> dict[str, Any]:
    """Panoptic quality of tubes; ``official``: with areas kept in records of frames and added up in place."""
    tally = Tally()
    for found_maps, truth_maps in clips:
        (found, _), (truth, there) = segments(found_maps, False), segments(truth_maps, True)
        records = [
            {s.id: {"area": int((frame == s.id).sum())} for s in there if (frame == s.id).any()} for frame in truth
        ]
        for first in range(len(truth) - window + 1):
            part = slice(first, first + window)
            tubes: dict[int, dict[str, int]] = {}
            for record in records[part]:
                for i, entry in record.items():
                    if i in tubes:
                        tubes[i]["area"] += entry["area"]
                    else:
                        tubes[i] = entry if official else dict(entry)
            its = segments((found_maps[0][part], found_maps[1][part]), False)[1]
            inside = [Segment(s.id, s.label, s.crowd, tubes[s.id]["area"]) for s in there if s.id in tubes]
            tally.match(truth[part], found[part], inside, its)
    return tally.figures(NAMES, THING)


def stq(clips: list[tuple[Maps, Maps]]) -> tuple[float, float]:
    """AQ and SQ, tube by tube and pixel by pixel, in double precision."""
    followed, tubes = 0.0, 0
    confusion = np.zeros((len(NAMES), len(NAMES) + 1))
    for found_maps, truth_maps in clips:
        (found, its), (truth, there) = segments(found_maps, False), segments(truth_maps, True)
        crowd = np.isin(truth, [s.id for s in there if s.crowd])
        for t, p in zip(truth_maps[0].flat, found_maps[0].flat, strict=True):
            if t < 255:
                confusion[t, min(p, len(NAMES))] += 1
        for s in there:
            if s.crowd or not THING[s.label]:
                continue
            tubes += 1
            tube = truth == s.id
            for q in its:
                other = (found == q.id) & ~crowd
                shared_pixels = (tube & other).sum()
                if THING[q.label] and shared_pixels:
                    followed += shared_pixels / tube.sum() * (shared_pixels / (tube | other).sum())
    hits = np.append(np.diag(confusion), 0)
    unions = confusion.sum(0) + np.append(confusion.sum(1), 0) - hits
    known = unions > 0
    return followed / max(tubes, 1), float((hits[known] / unions[known]).mean()) if known.any() else -1.0


def fed(metric: Any, clips: list[tuple[Maps, Maps]], which: list[int] | None = None) -> Any:
    for i in range(len(clips)) if which is None else which:
        metric.update_maps(*clips[i], i)
    return metric


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_clips_equal_the_oracles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clips = [drawn(rng, int(rng.integers(1, 6))) for _ in range(2)]
    for official in (True, False):
        metric = fed(VideoPanopticQuality(NAMES, thing=THING, official=official), clips)
        got = metric.compute()["video_panoptic"]
        for k in (1, 2, 3, 4):
            near(got["per_window"][str(k)], vpq(clips, k, official))
        known = [w["PQ_things"] for w in got["per_window"].values() if w["PQ_things"] >= 0]
        assert got["VPQ_things"] == (pytest.approx(np.mean(known), abs=1e-12) if known else -1.0)
    aq, sq = stq(clips)
    for official, within in ((True, 1e-6), (False, 1e-12)):
        got = fed(STQ(NAMES, thing=THING, official=official), clips).compute()["stq"]
        if sq >= 0:
            want = {"STQ": np.sqrt(aq * sq), "AQ": aq, "SQ": sq}
            near({key: got[key] for key in want}, want, within)


def test_areas_in_place_differ_where_a_segment_comes_late() -> None:
    """It comes with frame 1: the window that begins there finds its area counted from the window before."""
    labels, instances = np.zeros((2, 4, 2, 8), np.int64)
    labels[0] = 255
    found = labels.copy()
    found[:, :, 6:] = 255
    clip = (found, instances), (labels, instances + 1)
    right = VideoPanopticQuality(NAMES, windows=(1, 2, 3), official=False)
    official = VideoPanopticQuality(NAMES, windows=(1, 2, 3))
    for metric in (right, official):
        metric.update_maps(*clip)
    a, b = (m.compute()["video_panoptic"]["per_window"] for m in (right, official))
    assert a["1"] == b["1"]
    assert a["2"] == b["2"]
    assert a["3"]["PQ"] == 0.75
    assert b["3"]["PQ"] < 0.75
    near(b["3"]["per_class"]["cat"], vpq([clip], 3, True)["per_class"]["cat"])


def recorded() -> tuple[dict[str, Any], list[tuple[Maps, Maps]]]:
    said = json.loads((shared("parity") / "metric_stq_vpq.json").read_text())
    with np.load(shared("parity") / "metric_stq_vpq.npz") as stored:
        arrays = {name: stored[name].reshape(said["arrays"][name]["shape"]) for name in said["arrays"]}
    videos = range(len(arrays["gt_class"]))
    return said, [
        ((arrays["pred_class"][v], arrays["pred_instance"][v]), (arrays["gt_class"][v], arrays["gt_instance"][v]))
        for v in videos
    ]


def test_metric_reference() -> None:
    said, clips = recorded()
    names, thing = [f"class {k}" for k in range(7)], [k < 5 for k in range(7)]
    windows = fed(VideoPanopticQuality(names, thing=thing), clips).compute()["video_panoptic"]["per_window"]
    for k, groups in said["vpq"].items():
        for suffix, group in (("", "All"), ("_things", "Things"), ("_stuff", "Stuff")):
            for key in ("pq", "sq", "rq"):
                assert abs(windows[k][key.upper() + suffix] - groups[group][key]) < 1e-12
    metric = fed(STQ(names, thing=thing), clips)
    want = said["stq"]
    got = metric.compute()["stq"]
    for ours, theirs in (("STQ", "STQ"), ("AQ", "AQ"), ("SQ", "IoU")):
        assert abs(got[ours] - want[theirs]) < 1e-12
        for v in range(len(clips)):
            alone = metric.compute(np.eye(len(clips), dtype=np.int64)[v])["stq"]
            assert abs(alone[ours] - want[f"{theirs}_per_seq"][v]) < 1e-12
    double = fed(STQ(names, thing=thing, official=False), clips).compute()["stq"]
    assert abs(double["AQ"] - want["AQ"]) < 1e-7


@pytest.mark.parametrize("make", [VideoPanopticQuality, STQ])
def test_laws(make: Any) -> None:
    rng = np.random.default_rng(7)
    clips = [drawn(rng) for _ in range(5)]

    def new() -> Any:
        return make(NAMES, thing=THING, official=False)

    whole = fed(new(), clips)
    shards = fed(new(), clips, [3, 1]).merge(fed(new(), clips, [4])).merge(fed(new(), clips, [2, 0]))
    assert shards.compute() == whole.compute()
    twice = fed(new(), clips, [0, 1, 2, 4])
    twice.update_maps(*clips[0], "again")
    got, want = twice.compute(), whole.compute(np.array([2, 1, 1, 0, 1]))
    assert got.pop("images") == want.pop("images") == 5
    near(got, want)
    same = new()
    for _, truth in clips:
        labels, instances = truth
        perfect = labels, np.where(labels == 2, instances, instances + 1)  # no crowds
        same.update_maps(perfect, perfect)
    (figures,) = (v for k, v in same.compute().items() if k != "images")
    for name in ("VPQ", "VPQ_things", "VPQ_stuff") if make is VideoPanopticQuality else ("STQ", "AQ", "SQ"):
        assert figures[name] == pytest.approx(1.0, abs=1e-12)
    (nothing,) = (v for k, v in new().compute().items() if k != "images")
    assert -1.0 in nothing.values()


def scene(maps: Maps, crowds: bool) -> Scene:
    ids, there = segments(maps, crowds)
    parts = Segments(
        size=ids.shape,
        labels=torch.tensor([s.label for s in there], dtype=torch.int64),
        ids=torch.tensor([s.id for s in there], dtype=torch.int64),
        crowd=torch.tensor([s.crowd for s in there], dtype=torch.bool),
    )
    return Scene(size=ids.shape, panoptic=torch.from_numpy(ids), segments=parts)


@pytest.mark.parametrize("make", [VideoPanopticQuality, STQ])
def test_scenes_give_the_numbers_of_maps(make: Any) -> None:
    clips = [drawn(np.random.default_rng(seed)) for seed in range(4)]
    of_scenes = make(Taxonomy(names=tuple(NAMES), thing=tuple(THING)))
    for i, (found, truth) in enumerate(clips):
        of_scenes.update(scene(found, False), scene(truth, True), i)
    assert of_scenes.compute() == fed(make(NAMES, thing=THING), clips).compute()


def test_a_class_that_is_void_is_not_seen_in_truth_and_a_miss_in_a_prediction() -> None:
    """As in the official tool: void that is predicted is one more class, of IoU 0, in the mean."""
    labels = np.array([[[0, 0, 255, -3]]])
    found = np.array([[[0, 255, 0, 0]]])
    zero = np.zeros_like(labels)
    got = STQ(NAMES, thing=THING)
    got.update_maps((found, zero), (labels, zero + 1))
    figures = got.compute()["stq"]
    assert figures["SQ"] == 0.25
    assert figures["per_class"]["cat"]["IoU"] == 0.5
    assert figures["AQ"] == pytest.approx(1 / 2 * 1 / 4)  # the prediction keeps its pixels on void


def test_errors_name_what_is_wrong() -> None:
    maps = np.zeros((2, 3, 4), np.int64)
    metric = VideoPanopticQuality(NAMES)
    metric.update_maps((maps, maps), (maps, maps), "a")

    def fails(match: str, found: Maps, truth: Maps = (maps, maps), key: str = "b") -> None:
        with pytest.raises(ValueError, match=match):
            metric.update_maps(found, truth, key)

    fails("counted before", (maps, maps), key="a")
    fails("must share one", (maps[:1], maps[:1]))
    fails("must share one", (maps[0], maps[0]), (maps[0], maps[0]))
    fails("integers of one shape, got int64 .* and int64", (maps, maps[:1]))
    fails("integers of one shape, got float64", (maps * 1.0, maps))
    fails(r"predicted classes must lie in 0..2 or be 255 .void., got \[7\]", (maps + 7, maps))
    fails(r"truth instances must lie in 0..2\^31 - 1, got -1..-1", (maps, maps), (maps, maps - 1))
    assert len(metric) == 1
    with pytest.raises(ValueError, match="void must be no class"):
        STQ(NAMES, void=1)
    for windows in ((), (0,), (2, 2)):
        with pytest.raises(ValueError, match="distinct numbers of frames"):
            VideoPanopticQuality(NAMES, windows=windows)
    with pytest.raises(ValueError, match="share official"):
        metric.merge(VideoPanopticQuality(NAMES, official=False))
    with pytest.raises(ValueError, match="something of it is unknown"):
        metric.update(Scene(size=(2, 3, 4)), Scene(size=(2, 3, 4)))
