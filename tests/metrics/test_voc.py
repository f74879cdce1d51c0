"""Pascal VOC's rules against a slow reading of the development kit, and cases small enough to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.metrics.voc import VocAP
from maskwright.structures import Masks, Scene, Segments, Taxonomy

Image = dict[str, np.ndarray]


def random_images(seed: int, count: int = 5) -> list[Image]:
    """Two classes, boxes on pixels, difficult truths, distinct scores."""
    rng = np.random.default_rng(seed)
    out: list[Image] = []
    for _ in range(count):
        truths, found = int(rng.integers(0, 5)), int(rng.integers(0, 8))
        low = rng.integers(0, 40, (truths, 2))
        there = np.concatenate([low, low + rng.integers(4, 25, (truths, 2))], 1).astype(float)
        moved = rng.integers(0, 40, (found, 4)).astype(float)
        moved[:, 2:] += moved[:, :2] + 2
        if truths:
            near = rng.random(found) < 0.8
            moved[near] = there[rng.integers(truths, size=near.sum())] + rng.integers(-2, 3, (near.sum(), 4))
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        out.append({"boxes": moved, "labels": rng.integers(0, 2, found), "scores": rng.random(found)})
        out[-1] |= {"truth_boxes": there, "truth_labels": rng.integers(0, 2, truths)}
        out[-1]["difficult"] = rng.random(truths) < 0.2
    return out


def reading_of_the_kit(images: list[Image], label: int, threshold: float, form: str) -> float:
    """One class, detection by detection, with the kit's corners (pixels that belong to the box)."""
    taken = {(i, g): False for i, image in enumerate(images) for g in range(len(image["truth_boxes"]))}
    total = sum(int(((m["truth_labels"] == label) & ~m["difficult"]).sum()) for m in images)
    found = [(-image["scores"][d], i, d) for i, image in enumerate(images) for d in range(len(image["labels"]))
             if image["labels"][d] == label]  # fmt: skip
    tp, fp = [], []
    for _, i, d in sorted(found):
        image = images[i]
        (x1, y1), (x2, y2) = image["boxes"][d][:2] + 1, image["boxes"][d][2:]
        best, which = -1.0, -1
        for g, truth in enumerate(image["truth_boxes"]):
            if image["truth_labels"][g] != label:
                continue
            (u1, v1), (u2, v2) = truth[:2] + 1, truth[2:]
            width, height = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
            if width > 0 and height > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - width * height
                if width * height / union > best:
                    best, which = width * height / union, g
        hit = best >= threshold
        if hit and image["difficult"][which]:
            tp.append(0), fp.append(0)
            continue
        true = hit and not taken[i, which]
        tp.append(int(true)), fp.append(int(not true))
        if true:
            taken[i, which] = True
    if not total:
        return -1.0
    recall = np.cumsum(tp) / total
    precision = np.nan_to_num(np.cumsum(tp) / (np.cumsum(tp) + np.cumsum(fp)))
    if form == "11-point":
        return sum(max(precision[recall >= r], default=0.0) for r in np.arange(11) / 10) / 11
    recall, precision = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    return sum((recall[k] - recall[k - 1]) * precision[k] for k in range(1, len(recall)))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), form=st.sampled_from(["area", "11-point"]))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_random_boxes_follow_the_kit(seed: int, form: str) -> None:
    images = random_images(seed)
    metric = VocAP("ab", thresholds=(0.5, 0.7), form=form)
    for key, image in enumerate(images):
        metric.update_boxes(**image, key=key)
    got = metric.compute()["box"]["per_class"]
    for label, name in enumerate("ab"):
        for threshold in (0.5, 0.7):
            want = reading_of_the_kit(images, label, threshold, form)
            assert abs(got[name][f"AP{round(100 * threshold)}"] - want) < 1e-10


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_shards_and_weights(seed: int, data: st.DataObject) -> None:
    images = random_images(seed)
    whole, copies, shards = VocAP("ab"), VocAP("ab"), [VocAP("ab") for _ in range(3)]
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=5, max_size=5)))
    for key, image in data.draw(st.permutations(list(enumerate(images)))):
        whole.update_boxes(**image, key=key)
        shards[data.draw(st.integers(0, 2))].update_boxes(**image, key=key)
        for copy in range(weights[key]):
            copies.update_boxes(**image, key=f"{key} {copy}")
    first, *rest = data.draw(st.permutations(shards))
    for shard in rest:
        first.merge(shard)
    assert first.compute() == whole.compute()
    assert whole.compute(weights) == copies.compute()


def test_a_detection_looks_at_its_best_truth_only() -> None:
    metric = VocAP("a")
    ious = np.array([[0.9, 0.6], [0.8, 0.7]])  # COCO would give the second detection the second truth
    metric.update_ious(ious, np.zeros(2), np.array([0.9, 0.8]), np.zeros(2))
    got = metric.compute()["box"]
    assert got["AP50"] == 0.5
    assert got["per_class"]["a"]["recall50"] == 0.5


def test_eleven_points_and_area_of_a_known_curve() -> None:
    for form, want in (("area", 0.5 + 0.5 * 2 / 3), ("11-point", (6 + 5 * 2 / 3) / 11)):
        metric = VocAP("a", form=form)
        metric.update_ious(np.array([[1.0, 0], [0, 0], [0, 1.0]]), np.zeros(3), np.array([0.9, 0.8, 0.7]), np.zeros(2))
        assert metric.compute()["box"]["AP50"] == pytest.approx(want, abs=1e-12)


def test_scenes_of_masks() -> None:
    rng = np.random.default_rng(3)
    size = (40, 50)
    dense = torch.from_numpy(rng.random((3, *size)) < 0.5)
    dense[0, :10] = False
    labels = torch.tensor([0, 1, 1])
    crowd = torch.tensor([False, False, True])
    there = Segments(size=size, labels=labels, masks=Masks.from_dense(dense), crowd=crowd)
    found = Segments(size=size, labels=labels, masks=Masks.from_dense(dense), scores=torch.tensor([0.9, 0.8, 0.7]))
    metric = VocAP(Taxonomy(names=("a", "b", "c")), "mask", (0.5, 0.7))
    metric.update(Scene(size=size, segments=found), Scene(size=size, segments=there), 1)
    got = metric.compute()["mask"]
    assert got["mAP"] == got["AP70"] == got["per_class"]["b"]["AP50"] == 1.0
    assert got["per_class"]["c"]["AP50"] == -1.0
    with pytest.raises(ValueError, match="image 1 was counted before"):
        metric.update(Scene(size=size, segments=found), Scene(size=size, segments=there), 1)
    with pytest.raises(ValueError, match="must have one"):
        VocAP("abc", "box").update(Scene(size=size, segments=found), Scene(size=size, segments=there))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scores": np.array([1.5])}, "scores must lie in"),
        ({"scores": np.array([np.nan])}, "scores must lie in"),
        ({"labels": np.array([2])}, "labels must lie in"),
        ({"scores": np.ones(2)}, "scores must have shape"),
        ({"ious": np.ones((2, 1))}, "ious must have shape"),
        ({"difficult": np.ones(3, bool)}, "difficult must have shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], says: str) -> None:
    fine = {"ious": np.ones((1, 1)), "labels": np.zeros(1), "scores": np.ones(1), "truth_labels": np.zeros(1)}
    metric = VocAP("ab")
    with pytest.raises(ValueError, match=says):
        metric.update_ious(**(fine | change))
    assert len(metric) == 0
    assert metric.compute()["box"]["mAP"] == -1.0


def test_options_that_make_no_sense_are_refused() -> None:
    for options, says in (
        ({"kind": "edge"}, "kind must be"),
        ({"form": "12-point"}, "form must be"),
        ({"thresholds": (0.0,)}, "thresholds must lie"),
        ({"thresholds": ()}, "thresholds must lie"),
    ):
        with pytest.raises(ValueError, match=says):
            VocAP("a", **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must share form"):
        VocAP("a").merge(VocAP("a", form="11-point"))
