"""Calibration: textbook sums, calibrated scores give nothing, weights repeat images, curves add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.metrics.calibration import Calibration
from maskwright.metrics.confidence import intervals
from maskwright.metrics.errors import ErrorAnalysis


def analysis(labels: np.ndarray, scores: np.ndarray, ious: np.ndarray, per_image: int = 1) -> ErrorAnalysis:
    """Detections with a truth each, which they have where ``ious`` is 0.5 or more."""
    metric = ErrorAnalysis(["a", "b"])
    for key, i in enumerate(range(0, len(labels), per_image)):
        part = slice(i, i + per_image)
        metric.update_overlaps(labels[part], scores[part], labels[part], np.diag(ious[part]), key=key)
    return metric


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Borders of bins among the scores; 1 too.
    scores = np.where(rng.random(count) < 0.2, rng.integers(0, 11, count) / 10, rng.random(count))
    return rng.integers(0, 2, count), scores, rng.random(count)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 40), bins=st.integers(1, 12))
def test_figures_equal_their_definition(seed: int, count: int, bins: int) -> None:
    labels, scores, ious = drawn(seed, count)
    found = Calibration(analysis(labels, scores, ious, 3), bins=bins).compute()["mask"]
    groups = {"a": labels == 0, "b": labels == 1}
    for name, which in (("", labels >= 0), *groups.items()):
        got = found["per_class"][name] if name else found
        assert got["detections"] == which.sum()
        if not which.any():
            assert (got["ECE"], got["MCE"], got["ECE_iou"], got["bias"]) == (-1.0, -1.0, -1.0, None)
            continue
        true = ious >= 0.5
        for against, figure in ((true, "ECE"), (np.where(true, ious, 0.0), "ECE_iou")):
            gaps = []
            for b in range(bins):
                inside = [
                    i
                    for i in np.flatnonzero(which)
                    if b == max(j for j in range(bins) if scores[i] >= np.linspace(0, 1, bins + 1)[j])
                ]
                if inside:
                    gaps.append((len(inside), abs(np.mean(scores[inside]) - np.mean(against[inside]))))
            assert got[figure] == pytest.approx(sum(n * gap for n, gap in gaps) / which.sum(), abs=1e-12)
            if figure == "ECE":
                assert got["MCE"] == pytest.approx(max(gap for _, gap in gaps), abs=1e-12)
        assert got["bias"] == pytest.approx(scores[which].mean() - true[which].mean(), abs=1e-12)


def test_scores_that_keep_their_word() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(4000)
    honest = np.where(rng.random(4000) < scores, 0.9, 0.1)
    boastful = np.where(rng.random(4000) < scores / 2, 0.9, 0.1)
    figures = [
        Calibration(analysis(np.zeros(4000, int), scores, ious, 40), bins=10).compute()["mask"]
        for ious in (honest, boastful)
    ]
    assert figures[0]["ECE"] < 0.03
    assert abs(figures[0]["bias"]) < 0.02
    assert figures[1]["ECE"] == pytest.approx(0.25, abs=0.03)
    assert figures[1]["bias"] == pytest.approx(0.25, abs=0.03)
    # A score that says how often is not one that says how well.
    assert figures[0]["bias_iou"] == pytest.approx(0.05, abs=0.02)


def test_errors_of_classes_cancel_in_the_pool_only() -> None:
    scores = np.full(100, 0.5)
    labels = np.arange(100) % 2
    found = Calibration(analysis(labels, scores, np.where(labels == 0, 0.9, 0.1), 10)).compute()["mask"]
    assert found["ECE"] == pytest.approx(0.0)
    assert found["mean_ECE"] == pytest.approx(0.5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 30))
def test_weights_repeat_images_and_curves_add_up(seed: int, count: int) -> None:
    labels, scores, ious = drawn(seed, count)
    one = Calibration(analysis(labels, scores, ious), bins=5)
    weights = np.random.default_rng(seed).integers(0, 3, count)
    many = Calibration(analysis(*(np.repeat(v, weights) for v in (labels, scores, ious))), bins=5)
    got, want = one.compute(weights)["mask"], many.compute()["mask"]
    for a, b in ((got, want), (got["per_class"]["b"], want["per_class"]["b"])):
        for name in ("ECE", "MCE", "ECE_iou", "detections"):
            assert a[name] == pytest.approx(b[name], abs=1e-12)
    curves = one.curves()
    assert curves["count"].sum() == count
    assert (curves["count"] == sum(c["count"] for c in curves["per_class"].values())).all()
    assert np.nansum(curves["count"] * curves["precision"]) == pytest.approx((ious >= 0.5).sum())
    assert np.isnan(curves["score"][curves["count"] == 0]).all()
    filled = curves["count"] > 0
    assert (curves["score"][filled] >= curves["edges"][:-1][filled] - 1e-12).all()
    assert (curves["score"][filled] <= curves["edges"][1:][filled] + 1e-12).all()


def test_crowds_and_low_scores_are_left_out() -> None:
    metric = ErrorAnalysis(["a"])
    overlaps = np.array([[1.0, 0.0], [0.0, 0.9], [0.0, 0.0]])
    scores = np.array([0.9, 0.8, 0.05])
    metric.update_overlaps(np.zeros(3, int), scores, np.zeros(2, int), overlaps, np.array([True, False]), 1)
    assert Calibration(metric).compute()["mask"]["detections"] == 2
    assert Calibration(metric, min_score=0.1).compute()["mask"]["detections"] == 1
    assert Calibration(metric, min_score=1.0).compute()["mask"]["ECE"] == -1.0


def test_intervals_and_wrong_arguments() -> None:
    labels, scores, ious = drawn(1, 60)
    one = Calibration(analysis(labels, scores, ious, 2))
    found = intervals(one, samples=100)["mask"]["ECE"]
    assert 0 < found["error"] < 0.1
    assert found["low"] < found["high"]
    for arguments in ({"bins": 0}, {"min_score": 1.1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Calibration(ErrorAnalysis(["a"]), **arguments)
    with pytest.raises(ValueError, match="weights must be counts"):
        one.compute(np.ones(3, int))
