"""Intervals hold the truth as often as they say, differences are found where they are, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from maskwright.metrics._form import Key, PerImage
from maskwright.metrics.confidence import compare, intervals, sentence
from maskwright.metrics.errors import ErrorAnalysis


class Mean(PerImage[float, np.ndarray]):
    """The mean of a number for each image, and a figure that is undefined without image 0."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def update(self, value: float, key: Key | None = None) -> None:
        self._keep(key, value)

    def settings(self) -> Mapping[str, Any]:
        return {}

    def _join(self, images: Sequence[float]) -> np.ndarray:
        return np.array(images)

    def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        times = self._weights(weights)
        self.seen.append(times)
        mean = float(times @ self._joined() / times.sum())
        fragile = mean if times[0] else -1.0
        figures: dict[str, Any] = {"mean": mean, "fragile": fragile, "never": -1.0, "none": None, "count": 3}
        return {"mask": figures | {"per_class": {"dog": {"mean": 2 * mean}}}, "images": len(self), "note": "x"}


def mean_of(values: Sequence[float] | np.ndarray, keys: Sequence[Key | None] | None = None) -> Mean:
    metric = Mean()
    for value, key in zip(values, range(len(values)) if keys is None else keys, strict=True):
        metric.update(float(value), key)
    return metric


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = errors = 0.0
    for trial in range(120):
        found = intervals(mean_of(rng.normal(0.5, 0.2, 40)), samples=120, seed=trial)["mask"]["mean"]
        held += found["low"] <= 0.5 <= found["high"]
        errors += found["error"]
    assert 0.88 <= held / 120 <= 0.99
    assert errors / 120 == pytest.approx(0.2 / 40**0.5, rel=0.05)


def test_form_and_weights() -> None:
    metric = mean_of(np.linspace(0, 1, 30))
    found = intervals(metric, samples=400, level=0.9)
    assert found["images"] == 30
    assert found["note"] == "x"
    assert found["mask"]["count"] == 3
    mean, double = found["mask"]["mean"], found["mask"]["per_class"]["dog"]["mean"]
    assert mean["value"] == pytest.approx(0.5)
    assert mean["undefined"] == 0
    assert double == {name: pytest.approx(2 * value) for name, value in mean.items()}
    assert len(metric.seen) == 401
    assert all(w.dtype == np.int64 and w.shape == (30,) and w.sum() == 30 for w in metric.seen)
    draws = np.sort([w @ np.linspace(0, 1, 30) / 30 for w in metric.seen if (w != 1).any()])
    assert mean["error"] == pytest.approx(draws.std(ddof=1))
    # The (n + 1) p-th of n draws: 20.05 and 380.95, counted from 1.
    assert mean["low"] == pytest.approx(draws[19] + 0.05 * (draws[20] - draws[19]))
    assert mean["high"] == pytest.approx(draws[379] + 0.95 * (draws[380] - draws[379]))


def test_undefined_draws_are_left_out_and_counted() -> None:
    found = intervals(mean_of(np.linspace(0.2, 1, 20)), samples=500)["mask"]
    assert found["fragile"]["undefined"] == pytest.approx(500 * (1 - 1 / 20) ** 20, abs=40)  # draws without image 0
    assert 0.2 < found["fragile"]["low"] < found["fragile"]["value"] < found["fragile"]["high"] < 1
    assert found["never"] == {"value": -1.0, "low": -1.0, "high": -1.0, "error": -1.0, "undefined": 500}
    assert found["none"] == {"value": None, "low": None, "high": None, "error": None, "undefined": 500}


def test_minus_one_is_a_value_of_signed_figures() -> None:
    """A tracker that finds nothing right and as much wrong has a MOTSA of exactly -1; precision has no such value."""

    class Signed:
        keys: Sequence[int] = (0, 1, 2)

        def compute(self, weights: np.ndarray | None = None) -> dict[str, Any]:
            return {"mask": {"MOTSA": -1.0, "HOTA": -1.0, "sMOTSA": None}}

    found = intervals(Signed(), samples=20)["mask"]
    assert found["MOTSA"] == {"value": -1.0, "low": -1.0, "high": -1.0, "error": 0.0, "undefined": 0}
    assert (found["HOTA"]["undefined"], found["HOTA"]["error"]) == (20, -1.0)
    assert (found["sMOTSA"]["undefined"], found["sMOTSA"]["value"]) == (20, None)


def test_order_and_seed() -> None:
    values = np.random.default_rng(3).random(25)
    keys: list[Key] = [i if i % 3 else f"image {i}" for i in range(25)]
    first = intervals(mean_of(values, keys), samples=50, seed=7)
    assert first == intervals(mean_of(values[::-1], keys[::-1]), samples=50, seed=7)
    assert first != intervals(mean_of(values, keys), samples=50, seed=8)
    assert intervals(mean_of(values, [None] * 25), samples=50)["images"] == 25


def test_groups_are_drawn_whole() -> None:
    values = np.random.default_rng(4).normal(size=40)
    alone = intervals(mean_of(values), samples=400)["mask"]["mean"]["error"]
    metric = mean_of(np.repeat(values, 9))
    clips = intervals(metric, samples=400, groups={key: key // 9 for key in range(360)})["mask"]["mean"]["error"]
    blind = intervals(metric, samples=400)["mask"]["mean"]["error"]
    assert clips == pytest.approx(alone, rel=0.15)
    assert blind == pytest.approx(alone / 3, rel=0.15)  # nine frames of one clip are not nine images
    assert all((w.reshape(40, 9) == w[::9, None]).all() for w in metric.seen[1:401])


def test_equal_systems_are_not_told_apart() -> None:
    values = np.random.default_rng(5).random(30)
    same = compare(mean_of(values), mean_of(values), samples=200)["mask"]["mean"]
    assert (same["difference"], same["error"], same["p"]) == (0.0, 0.0, 1.0)
    rng, small = np.random.default_rng(6), 0
    for trial in range(100):
        hard = rng.normal(0.5, 0.3, 40)  # shared by both: what pairing takes away
        a, b = (mean_of(hard + rng.normal(0, 0.1, 40)) for _ in range(2))
        found = compare(a, b, samples=100, seed=trial)["mask"]["mean"]
        small += found["p"] <= 0.05
        assert found["error"] < 0.04  # 0.022 by theory; 0.07 unpaired
    assert small <= 12  # of 100, where 5 are expected


def test_a_planted_difference_is_found() -> None:
    rng = np.random.default_rng(7)
    hard = rng.normal(0.5, 0.3, 50)
    better, worse = mean_of(hard + 0.05 + rng.normal(0, 0.05, 50)), mean_of(hard + rng.normal(0, 0.05, 50))
    found = compare(better, worse, samples=500)
    leaf = found["mask"]["mean"]
    assert leaf["difference"] == pytest.approx(0.05, abs=0.03)
    assert leaf["difference"] == leaf["a"] - leaf["b"]
    assert 0 < leaf["low"] < leaf["difference"] < leaf["high"]
    assert leaf["p"] == pytest.approx(2 / 501)  # no draw was beyond zero; p is never 0
    back = compare(worse, better, samples=500)["mask"]["mean"]
    assert back["difference"] == -leaf["difference"]
    assert (back["low"], back["high"], back["p"]) == pytest.approx((-leaf["high"], -leaf["low"], leaf["p"]))
    assert found["mask"]["never"]["difference"] is found["mask"]["none"]["p"] is None
    assert 100 < found["mask"]["fragile"]["undefined"] < 250
    assert (np.array(better.seen) == np.array(worse.seen)).all()


def test_average_precision_of_two_detectors() -> None:
    rng = np.random.default_rng(8)
    a, b = ErrorAnalysis(["x", "y"]), ErrorAnalysis(["x", "y"])
    for key in range(60):
        truths = rng.integers(0, 2, 4)
        for metric, quality in ((a, 0.9), (b, 0.6)):
            overlaps = np.where(np.eye(4) > 0, np.where(rng.random((4, 4)) < quality, 0.8, 0.3), 0.0)
            metric.update_overlaps(truths, rng.random(4), truths, overlaps, key=key)
    found = compare(a, b, samples=200)
    leaf = found["mask"]["AP"]
    assert leaf["low"] > 0.1
    assert leaf["p"] < 0.02
    assert found["mask"]["dAP"]["localization"]["difference"] < 0
    text = sentence(found, "mask/AP", "large", "small")
    assert text.startswith("large is better than small by ")
    assert text.endswith(f"{100 * leaf['difference']:.1f} ± {100 * leaf['error']:.1f} AP (mask), p = 0.01")
    assert "is better" in sentence(found, "mask/dAP/localization", lower_is_better=True)
    assert "(mask, x)" in sentence(found, "mask/per_class/x/AP")


def test_sentences() -> None:
    leaf = {"a": 0.4, "b": 0.392, "difference": 0.008, "low": 0.002, "high": 0.014, "error": 0.003, "p": 0.01}
    found: dict[str, Any] = {"mask": {"AP": leaf, "AR": leaf | {"difference": -0.008, "p": 0.4}}, "images": 5}
    assert sentence(found, "mask/AP") == "A is better than B by 0.8 ± 0.3 AP (mask), p = 0.01"
    assert sentence(found, "mask/AR") == "A and B do not differ beyond chance: -0.8 ± 0.3 AR (mask), p = 0.40"
    found["mask"]["AP"] = leaf | {"difference": None, "p": None}
    assert sentence(found, "mask/AP") == "A and B cannot be compared by AP (mask): it is undefined for one of them."
    for wrong in ("mask/PQ", "images", "mask"):
        with pytest.raises(KeyError, match="there are 2: mask/AP, mask/AR"):
            sentence(found, wrong)


def test_clear_errors() -> None:
    one, three = mean_of([1.0]), mean_of([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at least two images, got 1"):
        intervals(one)
    with pytest.raises(ValueError, match="at least two images, got 0"):
        intervals(Mean())
    with pytest.raises(ValueError, match="at least two groups of images, got 1"):
        intervals(three, groups=dict.fromkeys(range(3), "patient"))
    with pytest.raises(ValueError, match=r"1 have none: \[2\]"):
        intervals(three, groups={0: "x", 1: "y"})
    with pytest.raises(ValueError, match=r"only in a: 0, 2 \(2\); only in b: 'new' \(1\)"):
        compare(three, mean_of([1.0, 2.0], ["new", 1]))
    with pytest.raises(ValueError, match="1 of b have none"):
        compare(three, mean_of([1.0, 2.0, 3.0], [0, 1, None]))
    with pytest.raises(ValueError, match="samples"):
        intervals(three, samples=1)
    with pytest.raises(ValueError, match="level"):
        intervals(three, level=95)
