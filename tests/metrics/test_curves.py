"""Curves, weights, rules and known IoUs: what other measures build on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from maskwright.metrics import _coco_core as core
from maskwright.metrics.average_precision import CocoAP, Objects
from maskwright.metrics.files import read_coco
from tests.metrics import oracle

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["mask", "box"]))
def test_curves_are_those_of_pycocotools(tmp_path: Path, seed: int, kind: str) -> None:
    truth, results = oracle.random_data(seed, kind, 100)
    if not results:
        return
    curves = read_coco(*oracle.write(tmp_path, truth, results), [kind]).curves()[kind]
    run = oracle.evaluated(truth, results, kind)
    assert curves["areas"] == ["all", "small", "medium", "large"]
    names = {c["id"]: c["name"] for c in truth["categories"]}
    for k, category in enumerate(run.params.catIds):
        own = curves["per_class"][names[category]]
        for name in ("precision", "scores"):  # [T, R, K, A, M] there
            assert np.abs(own[name] - run.eval[name][:, :, k, :, -1].transpose(2, 0, 1)).max() < 1e-10
        assert np.abs(own["recall"] - run.eval["recall"][:, k, :, -1].T).max() < 1e-10


@quick
@given(seed=st.integers(0, 2**32))
def test_any_thresholds_areas_and_limits_equal_pycocotools(tmp_path: Path, seed: int) -> None:
    truth, results = oracle.random_data(seed, "mask", 100)
    if not results:
        return
    rng = np.random.default_rng(seed)
    thresholds = np.unique(rng.integers(1, 100, int(rng.integers(1, 6)))) / 100
    limits = np.unique(rng.integers(1, 9, int(rng.integers(1, 5)))).tolist()
    areas = {"tiny": (0.0, 50.0), "rest": (50.0, 1e6)}
    metric = read_coco(
        *oracle.write(tmp_path, truth, results), max_detections=limits, thresholds=thresholds.tolist(), areas=areas
    )
    bounds = [[0, 1e10], *map(list, areas.values())]
    run = oracle.evaluated(
        truth, results, "mask", iouThrs=thresholds, maxDets=limits, areaRng=bounds, areaRngLbl=["all", *areas]
    )
    got, (precision, recall) = metric.compute()["mask"], (run.eval["precision"], run.eval["recall"])

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    want = {"AP": mean(precision[..., 0, -1])}
    want |= {f"AP_{name}": mean(precision[..., a, -1]) for a, name in enumerate(areas, 1)}
    want |= {f"AR_{limit}": mean(recall[..., 0, m]) for m, limit in enumerate(limits)}
    want |= {f"AR_{name}": mean(recall[..., a, -1]) for a, name in enumerate(areas, 1)}
    assert {k for k in got if k not in ("per_class", "AP50", "AP75")} == set(want)
    assert ("AP50" in got) == (0.5 in thresholds)
    assert all(abs(got[name] - value) < 1e-10 for name, value in want.items())


# ---- weights --------------------------------------------------------------------------------------------------------


def _arrays(rng: np.random.Generator, images: int) -> list[tuple[Objects, Objects]]:
    """Images of distinct scores: boxes, crowds, three classes."""
    out: list[tuple[Objects, Objects]] = []
    for _ in range(images):
        count, found = int(rng.integers(0, 5)), int(rng.integers(0, 7))
        corners = rng.uniform(0, 60, (count, 2))
        there = np.concatenate([corners, corners + rng.uniform(5, 40, (count, 2))], 1)
        moved = there[rng.integers(0, count, found)] + rng.normal(0, 2, (found, 4)) if count else np.zeros((found, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
        labels, crowd = rng.integers(0, 3, count), rng.random(count) < 0.15
        guess = Objects(rng.integers(0, 3, found), scores=rng.random(found), boxes=moved)
        out.append((guess, Objects(labels, boxes=there, crowd=crowd)))
    return out


@quick
@given(seed=st.integers(0, 2**32))
def test_a_weight_counts_an_image_as_often_as_copies_of_it_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = _arrays(rng, 6)
    weights = rng.integers(0, 4, 6)
    once, copies = CocoAP("abc", ("box",)), CocoAP("abc", ("box",))
    for key, pair in enumerate(pairs):
        once.update_arrays(*pair, (100, 100), key)
        for copy in range(int(weights[key])):
            copies.update_arrays(*pair, (100, 100), f"{key} {copy}")
    assert once.compute(weights) == copies.compute()
    assert once.compute(np.ones(6, np.int64)) == once.compute()
    got, want = once.curves(weights)["box"]["per_class"], copies.curves()["box"]["per_class"]
    assert all((got[name][field] == want[name][field]).all() for name in got for field in got[name])


def test_files_take_weights_and_merge_with_others(tmp_path: Path) -> None:
    truth, results = oracle.random_data(18, "mask", 100)
    assert len(truth["images"]) > 2
    for k, result in enumerate(results):
        result["score"] = (k + 1) / 1000
    whole = read_coco(*oracle.write(tmp_path, truth, results))
    count = len(whole)
    weights = np.arange(count) % 3
    parts = []
    for image in truth["images"]:
        own = truth | {"images": [image]}
        own["annotations"] = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        mine = [r for r in results if r["image_id"] == image["id"]]
        parts.append(read_coco(*oracle.write(tmp_path, own, mine)))
    joined = parts[0]
    for part in parts[1:]:
        joined.merge(part)
    assert joined.keys == whole.keys
    assert joined.compute() == whole.compute()
    assert joined.compute(weights) == whole.compute(weights) != whole.compute()
    with pytest.raises(ValueError, match="in both shards"):
        joined.merge(whole)
    with pytest.raises(ValueError, match="weights must be counts"):
        whole.compute(np.ones(count + 1, np.int64))


# ---- known IoUs -----------------------------------------------------------------------------------------------------


@quick
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([2, 100]))
def test_known_ious_match_as_masks_do(seed: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, images, classes = 60, 70, 4, 2
    rules = core.Rules(limits=core.limits_for(limit))
    metric = CocoAP("ab", ("mask",), limit)
    groups: list[core.Group] = []
    for image in range(images):
        there = np.array([oracle.random_mask(rng, height, width) for _ in range(4)]).astype(bool)
        found = np.array([np.roll(there[rng.integers(4)], int(rng.integers(-3, 4)), 1) for _ in range(6)])
        labels, guess, crowd = rng.integers(0, 2, 4), rng.integers(0, 2, 6), rng.random(4) < 0.2
        scores = rng.integers(0, 5, 6) / 4
        sides = Objects(guess, scores, found), Objects(labels, masks=there, crowd=crowd)
        metric.update_arrays(*sides, (height, width), image)
        for label in range(classes):
            d, g = np.flatnonzero(guess == label), np.flatnonzero(labels == label)
            d = d[np.argsort(-scores[d], kind="stable")]
            rles = [[coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in s] for s in (found[d], there[g])]
            ious = np.reshape(coco_mask.iou(*rles, crowd[g]) if len(d) and len(g) else [], (len(d), len(g)))
            sizes = found[d].sum((1, 2)).astype(float), there[g].sum((1, 2)).astype(float)
            groups.append(core.Group(image, label, scores[d], ious, *sizes, crowd=crowd[g]))
    order = rng.permutation(len(groups))
    matches = core.match_ious([groups[i] for i in order], classes, rules)
    assert core.figures(core.accumulate(matches, rules), "ab") == metric.compute()["mask"]


def test_what_does_not_count_among_known_ious() -> None:
    scores, ious = np.array([0.9, 0.8, 0.7]), np.array([[0.9], [0.8], [0.1]])
    rules = core.Rules((0.5,), ((0.0, 1e10),), ("",))

    def flags(**options: Any) -> list[int]:
        matches = core.match_ious([core.Group(0, 0, scores, ious, **options)], 1, rules)
        assert matches.positives()[0, 0] == (0 if "crowd" in options or "ignored" in options else 1)
        return matches.flags[:, 0, 0].tolist()

    yes = np.ones(1, bool)
    assert flags() == [1, 0, 0]
    assert flags(crowd=yes) == [2, 2, 0]
    assert flags(ignored=yes) == [2, 0, 0]
    assert flags(uncounted=np.ones(3, bool)) == [1, 2, 2]
    assert core.match_ious([], 2, rules).positives().tolist() == [[0], [0]]
    with pytest.raises(ValueError, match="scores must fall"):
        core.match_ious([core.Group(0, 0, scores[::-1], ious)], 1, rules)
    with pytest.raises(ValueError, match="crowd must have shape"):
        core.match_ious([core.Group(0, 0, scores, ious, crowd=np.ones(3, bool))], 1, rules)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"thresholds": (0.5, 0.4)}, "thresholds must rise"),
        ({"thresholds": ()}, "thresholds must rise"),
        ({"thresholds": (0.0,)}, "thresholds must rise"),
        ({"limits": (0, 1)}, "limits must rise"),
        ({"recalls": (0.0, 1.5)}, "recalls must rise"),
        ({"areas": ((1.0, 0.0),), "area_names": ("",)}, "areas must be"),
        ({"area_names": ("",)}, "areas must be"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        core.Rules(**rules)


def test_arrays_that_do_not_fit_are_refused() -> None:
    metric = CocoAP("ab", ("box",))
    one, box = np.zeros(1, np.int64), np.array([[0.0, 0.0, 4.0, 4.0]])
    truth = Objects(one, boxes=box)
    for wrong, says in (
        (Objects(one, boxes=box), "must have scores"),
        (Objects(one, np.array([np.nan]), boxes=box), "must have scores"),
        (Objects(one + 2, np.ones(1), boxes=box), "dense in 0"),
        (Objects(one, np.ones(1), boxes=box[:0]), "boxes must be one for each"),
        (Objects(one, np.ones(1), masks=np.ones((1, 4, 5), bool)), "masks must be"),
        (Objects(one, np.ones(1)), "neither a mask nor a box"),
    ):
        with pytest.raises(ValueError, match=says):
            metric.update_arrays(wrong, truth, (5, 4))
    with pytest.raises(ValueError, match="must have masks"):
        CocoAP("ab", ("boundary",)).update_arrays(Objects(one, np.ones(1), boxes=box), truth, (5, 4))
    assert len(metric) == 0
