"""Knobs do what they say, each turned alone while the scenes stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.data.synthetic.scenes import Synthetic
from maskwright.ops import rle

MINE = ("street", "shelf", "orchard")
SIZE = (96, 128)
QUIET: dict[str, Any] = {"noise": (0, 0), "blur": (0, 0)}
# How many pictures a mean is taken over: enough for its sign to be sure, few enough to be quick.
MANY = 2


def drawn(kind: str, many: int = MANY, **knobs: Any) -> list[Drawn]:
    source = Synthetic(kind, many, SIZE, seed=11, knobs=Knobs(**{**QUIET, **knobs}))
    return [source.drawn(i) for i in range(many)]


def mean(pictures: list[Drawn], measure: Callable[[np.ndarray], float]) -> float:
    return float(np.mean([measure(d.image.astype(float)) for d in pictures]))


def things(kind: str, d: Drawn) -> np.ndarray:
    return np.array(Synthetic(kind, 0, SIZE, instances=False).taxonomy.thing)[d.labels]


def detail(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image, axis=1)).mean() + np.abs(np.diff(image, axis=2)).mean())


@pytest.mark.parametrize("kind", MINE)
def test_light_and_sensor(kind: str) -> None:
    dark, bright = drawn(kind, brightness=(0.5, 0.5)), drawn(kind, brightness=(1.4, 1.4))
    assert mean(bright, np.mean) > 1.2 * mean(dark, np.mean)
    assert (dark[0].panoptic == bright[0].panoptic).all(), "light changes no label"

    def redness(image: np.ndarray) -> float:
        return float(image[0].mean() - image[2].mean())

    assert mean(drawn(kind, warmth=(0.9, 0.9)), redness) > mean(drawn(kind, warmth=(-0.9, -0.9)), redness) + 10
    plain = drawn(kind)
    noisy = drawn(kind, noise=(10, 10))
    off = [float((a.image.astype(float) - b.image).std()) for a, b in zip(noisy, plain, strict=True)]
    assert 4 < np.mean(off) < 14
    assert mean(drawn(kind, blur=(2, 2)), detail) < 0.7 * mean(plain, detail)


@pytest.mark.parametrize("kind", MINE)
def test_texture(kind: str) -> None:
    assert mean(drawn(kind, texture=0.0), detail) < mean(drawn(kind), detail) < mean(drawn(kind, texture=2.5), detail)


def test_the_sun_shines_from_where_it_is() -> None:
    # On the fruit in the orchard: lit from the right, its right half is brighter.
    def lit_side(d: Drawn) -> list[float]:
        gray, out = d.image.astype(float).mean(0), []
        for track in d.tracks[things("orchard", d)].tolist():
            ys, xs = np.nonzero(d.panoptic == track)
            if len(xs) > 50:
                right = xs > xs.mean()
                out.append(gray[ys[right], xs[right]].mean() - gray[ys[~right], xs[~right]].mean())
        return out

    fixed: dict[str, Any] = {"count": (12, 12), "occlusion": 0.0, "scale": (1.5, 1.5)}
    right = [side for d in drawn("orchard", 7, sun=20, **fixed) for side in lit_side(d)]
    left = [side for d in drawn("orchard", 7, sun=160, **fixed) for side in lit_side(d)]
    assert len(right) == len(left) >= 10
    assert np.mean(right) > 5 > -5 > np.mean(left)


def test_shadows_darken() -> None:
    def road(pictures: list[Drawn]) -> float:
        grays = [d.image.astype(float).mean(0)[d.semantic == 0] for d in pictures]
        return float(np.mean([g.std() / g.mean() for g in grays]))

    assert road(drawn("street", 5, shadows=1.0, texture=0.0)) > road(drawn("street", 5, shadows=0.0, texture=0.0))


@pytest.mark.parametrize("kind", MINE)
def test_count(kind: str) -> None:
    none, few, many = (drawn(kind, count=(n, n)) for n in (0, 5, 25))
    counts = [np.mean([things(kind, d).sum() for d in some]) for some in (none, few, many)]
    assert counts[0] == 0
    assert 1 <= counts[1] <= 10, "a rider comes on top of the bicycle that is counted"
    assert counts[1] < counts[2] <= 50
    assert all((d.panoptic > 0).all() for d in none)


@pytest.mark.parametrize("kind", MINE)
def test_occlusion_grows(kind: str) -> None:
    def hidden(occlusion: float) -> float:
        # Objects that are hidden altogether count as well: none of what was placed may vanish from the mean.
        shares = [d.occluded[things(kind, d)] for d in drawn(kind, 8, occlusion=occlusion, count=(24, 24))]
        return float(np.mean(np.concatenate(shares)))

    low, middle, high = hidden(0.0), hidden(0.5), hidden(1.0)
    assert low < middle < high, (low, middle, high)
    assert high > low + 0.08


@pytest.mark.parametrize("kind", MINE)
def test_scale_and_focal_make_things_larger(kind: str) -> None:
    def area(**knobs: Any) -> float:
        areas: list[float] = []
        for d in drawn(kind, count=(12, 12), **knobs):
            areas.append(rle.area(*d.amodal)[things(kind, d)].mean())
        return float(np.mean(areas))

    assert area(scale=(1.4, 1.4)) > 1.2 * area(scale=(0.8, 0.8))
    assert area(focal=(1.5, 1.5), scale=(1, 1)) > 1.2 * area(focal=(0.8, 0.8), scale=(1, 1))


def test_height_and_tilt() -> None:
    def near(d: Drawn) -> float:
        return float(d.depth[-1].min())

    low, high = drawn("street", height=0.6, tilt=0.0), drawn("street", height=3.0, tilt=0.0)
    assert np.mean([near(d) for d in high]) > 1.5 * np.mean([near(d) for d in low])
    level = drawn("street", tilt=0.0, count=(0, 0))
    for d in level:
        sky = np.isinf(d.depth)
        assert not sky[SIZE[0] // 2 + 1 :].any(), "the horizon of a level camera is the middle"


@pytest.mark.parametrize("kind", MINE)
def test_motion(kind: str) -> None:
    def moved(motion: float) -> float:
        source = Synthetic(kind, 2, SIZE, 3, Knobs(**QUIET, motion=motion), frames=2)
        flows = [source.drawn(2 * k).flow for k in range(2)]
        return float(np.mean([np.nanmean(np.abs(flow)) for flow in flows if flow is not None]))

    still, slow, fast = moved(0.0), moved(0.5), moved(2.0)
    assert still < 1e-5
    assert still < slow < fast


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"brightness": (2.0, 1.0)}, "brightness must be a range"),
        ({"occlusion": 1.5}, "occlusion must lie in 0..1"),
        ({"texture": -1.0}, "texture must lie in 0..10"),
        ({"height": 0.0}, "height must lie in"),
        ({"count": (-1, 4)}, "count must lie in"),
        ({"sun": float("nan")}, "sun must be an angle"),
        ({"noise": (0.0, float("inf"))}, "noise must lie in"),
    ],
)
def test_refusals(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Knobs(**wrong)
