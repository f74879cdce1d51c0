"""Drawn parts: defects cut out of their parts, labels that agree, and knobs that do what they say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.synthetic import parts_defects, parts_shapes
from maskwright.data.synthetic.cells_forms import grid
from maskwright.data.synthetic.drawn import Drawn, Kind, Knobs
from maskwright.data.synthetic.parts import PARTS, Parts
from maskwright.ops import rle
from tests.data.test_synthetic_cells import check, draw

NAMES = Parts.taxonomy.names
BACKGROUND = NAMES.index("background")


def flaws(drawn: Drawn) -> np.ndarray:
    return (drawn.labels >= len(PARTS)) & (drawn.labels < BACKGROUND)


def test_every_class_is_drawn_and_labels_agree() -> None:
    kind = Parts(defects=2.0)
    assert isinstance(kind, Kind)
    assert Parts.taxonomy.thing == (True,) * (len(NAMES) - 1) + (False,)
    seen: set[int] = set()
    for seed in range(32):
        drawn = draw(kind, seed, (120, 160), occlusion=(0.0, 0.5, 1.0)[seed % 3])
        check(drawn, kind)
        seen |= set(drawn.labels.tolist())
    assert seen == set(range(len(NAMES)))


def test_a_defect_is_cut_out_of_its_part_and_the_part_has_it_amodally() -> None:
    found = 0
    for seed in range(12):
        drawn = draw(Parts(defects=3.0), seed, (140, 160), occlusion=0.0)
        visible, amodal = check(drawn, Parts())
        parts = np.flatnonzero(drawn.labels < len(PARTS))
        for i in np.flatnonzero(flaws(drawn)):
            holders = [p for p in parts if not (amodal[i] & ~amodal[p]).any()]
            assert holders, "a defect lies on one part, all of it"
            assert any(not (visible[i] & visible[p]).any() for p in holders)
            found += 1
    assert found > 20


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_any_size_can_be_drawn(height: int, width: int, seed: int) -> None:
    check(draw(Parts(), seed, (height, width)), Parts())


@pytest.mark.parametrize(
    "knobs",
    [
        {"count": (0, 0)},
        {"scale": (0.1, 0.1), "height": 10},
        {"scale": (10, 10), "focal": (10, 10), "height": 0.1},
        {"texture": 0, "shadows": 0, "variety": 0, "noise": (0, 0), "blur": (0, 0), "warmth": (0, 0)},
        {"texture": 10, "shadows": 10, "variety": 10, "noise": (100, 100), "blur": (10, 10), "brightness": (5, 5)},
    ],
)
def test_the_ends_of_the_knobs(knobs: dict[str, object]) -> None:
    for seed in range(4):
        drawn = draw(Parts(), seed, (64, 64), **knobs)
        check(drawn, Parts())
        if knobs.get("count") == (0, 0):
            assert drawn.labels.tolist() == [BACKGROUND]


def test_the_same_seed_draws_the_same() -> None:
    one, other = draw(Parts(), 5), draw(Parts(), 5)
    assert (one.image == other.image).all()
    assert (one.panoptic == other.panoptic).all()
    assert (one.depth == other.depth).all()
    assert not (one.image == draw(Parts(), 6).image).all()


def test_count_scale_occlusion_and_defects() -> None:
    def parts(seed: int, **knobs: object) -> Drawn:
        return draw(Parts(0.0), seed, (160, 200), **knobs)

    assert not any(flaws(parts(seed)).any() for seed in range(6))
    counts = [int((parts(s, count=(8, 12), occlusion=0.0).labels < BACKGROUND).sum()) for s in range(8)]
    assert max(counts) <= 12
    assert np.median(counts) >= 7

    def size_at(scale: float) -> float:
        drawn = [parts(s, count=(5, 5), occlusion=0.0, scale=(scale, scale)) for s in range(10)]
        areas = [np.median(rle.area(*d.amodal)[d.labels < BACKGROUND]) for d in drawn]
        return float(np.mean(np.sqrt(areas)))

    assert size_at(1.0) > 1.4 * size_at(0.6)

    def hidden(occlusion: float) -> float:
        shares = [
            d.occluded[d.labels < BACKGROUND]
            for d in (parts(s, count=(15, 15), occlusion=occlusion, scale=(0.5, 0.5)) for s in range(10))
        ]
        return float(np.mean(np.concatenate(shares)))

    assert hidden(1.0) > 2 * hidden(0.0)


def test_parts_are_nearer_than_the_ground_and_the_height_knob_moves_the_camera() -> None:
    for seed in range(5):
        drawn = draw(Parts(), seed, (100, 100), count=(3, 6))
        ground = drawn.depth[drawn.semantic == BACKGROUND]
        assert np.ptp(ground) < 1e-6
        on = drawn.depth[drawn.semantic < len(PARTS)]
        assert not len(on) or on.max() < ground.max()
    near, far = draw(Parts(), 3, height=1.0).depth.max(), draw(Parts(), 3, height=2.0).depth.max()
    assert far == pytest.approx(2 * near)


def test_shadows_darken_the_ground_beside_parts() -> None:
    with_, without = (draw(Parts(), 4, (120, 120), shadows=s, noise=(0, 0), texture=0.0) for s in (1.0, 0.0))
    ground = (with_.semantic == BACKGROUND) & (without.semantic == BACKGROUND)
    change = without.image.mean(0)[ground] - with_.image.mean(0)[ground]
    assert change.max() > 8
    assert change.min() > -3


def test_clips_carry_the_parts_along() -> None:
    frames = Parts().draw(np.random.default_rng(7), (100, 140), Knobs(motion=1.5, count=(8, 8)), frames=4)
    assert frames[-1].flow is None
    moved = 0.0
    for now, then in pairwise(frames):
        check(now, Parts())
        assert now.flow is not None
        belt = now.flow[:, now.semantic == BACKGROUND]
        assert (belt == belt[:, :1]).all(), "the belt goes as one"
        moved += float(np.abs(belt[:, 0]).sum())
        ys, xs = np.nonzero(now.semantic < BACKGROUND)
        ty = np.floor(ys + 0.5 + now.flow[1, ys, xs]).astype(int)
        tx = np.floor(xs + 0.5 + now.flow[0, ys, xs]).astype(int)
        stays = (ty >= 0) & (tx >= 0) & (ty < 100) & (tx < 140)
        same = then.panoptic[ty[stays], tx[stays]] == now.panoptic[ys[stays], xs[stays]]
        assert same.mean() > 0.8
    assert moved > 0


def test_the_number_of_defects_is_checked() -> None:
    with pytest.raises(ValueError, match="must lie in 0"):
        Parts(defects=-1)


@pytest.mark.parametrize("kind", range(len(parts_shapes.NAMES)))
def test_forms_lie_in_their_circle_and_have_their_holes(kind: int) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        numbers, holes = parts_shapes.form(rng, kind)
        part = parts_shapes.Parts(
            kinds=np.array([kind], np.int32),
            centers=np.array([[60.0, 60.0]]),
            reaches=np.array([40.0]),
            angles=np.zeros(1),
            numbers=numbers[None],
            holes=holes[None],
            rough=np.zeros(1, np.float32),
            places=np.zeros((1, 2), np.float32),
        )
        at = parts_shapes.windows(part, (120, 120), grid(rng))
        mask = rle.decode(*at.amodal(), (120, 120))[0]
        assert 150 < mask.sum() < np.pi * 41.5**2
        y, x = np.mgrid[:120, :120] + 0.5
        assert np.hypot(y - 60, x - 60)[mask].max() < 48
        for u, v, _ in holes[holes[:, 2] > 0.03].tolist():
            assert not mask[int(60 + 40 * v), int(60 + 40 * u)]


def test_defects_come_without_a_part_too() -> None:
    none = draw(Parts(defects=50.0), 1, (60, 60), count=(0, 0))
    assert none.labels.tolist() == [BACKGROUND]
    assert len(parts_defects.NAMES) == 7
