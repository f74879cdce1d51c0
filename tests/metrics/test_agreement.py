"""Agreement of annotators: definitions read slowly, laws, undefined figures."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.metrics.agreement import Agreement, Opinion, opinion
from maskwright.metrics.confidence import intervals
from maskwright.ops import rle
from maskwright.structures import Masks, Scene, Segments

NAMES, SIZE = ("cat", "dog"), (12, 14)


def drawn(rng: np.random.Generator, raters: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and masks of each rater: boxes that each sees a little differently, and some of their own."""
    things = [
        (int(rng.integers(2)), *rng.integers(0, 8, 2), *rng.integers(2, 7, 2)) for _ in range(int(rng.integers(0, 4)))
    ]
    out = []
    for _ in range(raters):
        seen = [t for t in things if rng.random() < 0.9]
        masks = np.zeros((len(seen), *SIZE), bool)
        labels = np.zeros(len(seen), np.int64)
        for k, (label, y, x, h, w) in enumerate(seen):
            dy, dx = rng.integers(-1, 2, 2)
            masks[k, max(y + dy, 0) : y + dy + h + 1, max(x + dx, 0) : x + dx + w + 1] = True
            labels[k] = label if rng.random() < 0.9 else 1 - label
        out.append((labels, masks))
    return out


def said(labels: np.ndarray, masks: np.ndarray) -> Opinion:
    return opinion(labels, rle.encode(masks), SIZE, len(NAMES))


def fed(images: list[list[tuple[np.ndarray, np.ndarray]]], keys: range | None = None) -> Agreement:
    metric = Agreement(NAMES, [f"rater {i}" for i in range(len(images[0]))])
    for key, image in zip(keys or range(len(images)), images, strict=True):
        metric.update_all([said(*one) for one in image], key)
    return metric


def slow(images: list[list[tuple[np.ndarray, np.ndarray]]]) -> dict[str, float]:
    tally = np.zeros((2, 4))  # matched, first only, second only, IoU
    raters = len(images[0])
    ratings: list[np.ndarray] = []
    for image in images:
        for a, b in combinations(range(raters), 2):
            (la, ma), (lb, mb) = image[a], image[b]
            for label in range(2):
                first, second = ma[la == label], mb[lb == label]
                ious = [[(f & s).sum() / (f | s).sum() for s in second] for f in first]
                matched = [v for row in ious for v in row if v > 0.5]
                tally[label] += len(matched), len(first) - len(matched), len(second) - len(matched), sum(matched)
        maps = [said(*one).semantic for one in image]
        ratings.append(np.stack([[m == k for k in range(3)] for m in maps]).sum(0).reshape(3, -1))
    table = np.concatenate(ratings, axis=1)
    per_pixel = ((table**2).sum(0) - raters) / (raters * (raters - 1))
    expected = ((table.sum(1) / table.sum()) ** 2).sum()
    known = [2 * r[3] / (2 * r[0] + r[1] + r[2]) for r in tally if r[:3].sum()]
    out = {
        "agreement": per_pixel.mean(),
        "fleiss": (per_pixel.mean() - expected) / (1 - expected) if expected < 1 else 1.0,
    }
    return out | {"PQ": np.mean(known) if known else -1.0}


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_definitions(raters: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [drawn(rng, raters) for _ in range(count)]
    got, want = fed(images).compute(), slow(images)
    assert got["objects"]["PQ"] == pytest.approx(want["PQ"], abs=1e-12)
    assert got["pixels"]["agreement"] == pytest.approx(want["agreement"], abs=1e-12)
    assert got["pixels"]["fleiss"] == pytest.approx(want["fleiss"], abs=1e-12)


def test_laws() -> None:
    rng = np.random.default_rng(3)
    images = [drawn(rng, 3) for _ in range(6)]
    whole = fed(images)
    shards = fed(images[4:], range(4, 6)).merge(fed(images[:4], range(4)))
    assert shards.compute() == whole.compute()
    twice = fed([*images, images[1], images[1]])
    weights = np.array([1, 3, 1, 1, 1, 1])
    near(twice.compute()["objects"], whole.compute(weights)["objects"])
    found = intervals(whole, samples=30)
    assert found["objects"]["PQ"]["low"] <= found["objects"]["PQ"]["value"] <= found["objects"]["PQ"]["high"]


def near(a: Any, b: Any) -> None:
    for key, value in a.items():
        near(value, b[key]) if isinstance(value, dict) else pytest.approx(value, abs=1e-12) == b[key]


def test_those_who_agree_and_those_who_do_not() -> None:
    square = np.zeros((1, *SIZE), bool)
    square[0, 2:9, 3:10] = True
    moved = np.roll(square, 1, axis=2)
    one = np.array([0])
    metric = fed([[(one, square), (one, square), (one, moved)]])
    got = metric.compute()
    assert got["pairs"]["rater 0 | rater 1"]["PQ"] == got["pairs"]["rater 0 | rater 1"]["kappa"] == 1.0
    assert got["pairs"]["rater 0 | rater 1"]["distance"] == 0.0
    assert got["pairs"]["rater 0 | rater 2"]["IoU"] == pytest.approx(42 / 56)
    assert 0.4 < got["pairs"]["rater 0 | rater 2"]["distance"] < 1.0
    assert got["annotators"]["rater 2"]["PQ"] < got["annotators"]["rater 0"]["PQ"]
    assert got["objects"]["per_class"]["dog"]["PQ"] == -1.0
    assert metric.per_image()[0][0] == 0


def test_scenes_of_two() -> None:
    dense = torch.zeros(1, *SIZE, dtype=torch.bool)
    dense[0, :5, :5] = True
    segments = Segments(size=SIZE, labels=torch.tensor([1]), masks=Masks.from_dense(dense))
    metric = Agreement(NAMES, ["a", "b"])
    metric.update(Scene(size=SIZE, segments=segments), Scene(size=SIZE, segments=segments), "x")
    assert metric.compute()["objects"]["PQ"] == 1.0


def test_nothing_is_undefined() -> None:
    got = Agreement(NAMES, ["a", "b"]).compute()
    assert got["objects"]["PQ"] == got["pixels"]["agreement"] == -1.0
    assert got["pixels"]["kappa"] is None
    assert got["pixels"]["fleiss"] is None
    empty = (np.zeros(0, np.int64), np.zeros((0, *SIZE), bool))
    got = fed([[empty, empty]]).compute()
    assert (got["objects"]["PQ"], got["pixels"]["agreement"]) == (-1.0, 1.0)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="distinct names"):
        Agreement(NAMES, ["a", "a"])
    metric = Agreement(NAMES, ["a", "b"])
    wrong = opinion(np.array([5]), rle.encode(np.ones((1, *SIZE), bool)), SIZE, 6)
    with pytest.raises(ValueError, match=r"0\.\.1, got 5\.\.5"):
        metric.update_all([wrong, wrong])
    with pytest.raises(ValueError, match="expected 2 opinions"):
        metric.update_all([wrong])
