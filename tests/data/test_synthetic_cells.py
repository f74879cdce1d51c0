"""Drawn cells: labels that agree with each other and with the pixels, and knobs that do what they say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.synthetic.cells import BACKGROUND, MODALITIES, NUCLEUS, TISSUE, Cells
from maskwright.data.synthetic.cells_forms import plain, windows
from maskwright.data.synthetic.cells_layout import ARRANGEMENTS, lay_out
from maskwright.data.synthetic.cells_windows import blur, joined_runs, runs_of
from maskwright.data.synthetic.drawn import Drawn, Kind, Knobs
from maskwright.ops import rle


def dense(runs: tuple[np.ndarray, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return rle.decode(*runs, size)


def check(drawn: Drawn, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Everything ``Drawn`` promises; the visible and amodal masks."""
    size = drawn.size
    visible, amodal = dense(drawn.visible, size), dense(drawn.amodal, size)
    assert len(visible) == len(amodal) == len(drawn) > 0
    assert (visible.sum(0) == 1).all(), "every pixel shows one segment"
    assert not (visible & ~amodal).any()
    assert visible.any((1, 2)).all(), "no empty masks"
    seen = visible.argmax(0)
    assert (drawn.panoptic == drawn.tracks[seen]).all()
    assert (drawn.semantic == drawn.labels[seen]).all()
    assert len(set(drawn.tracks.tolist())) == len(drawn)
    assert drawn.tracks.min() >= 1
    assert 0 <= drawn.labels.min() <= drawn.labels.max() < len(kind.taxonomy)
    share = visible.sum((1, 2)) / amodal.sum((1, 2))
    assert np.allclose(drawn.occluded, 1 - share, atol=1e-6)
    assert (drawn.image.dtype, drawn.image.shape) == (np.uint8, (3, *size))
    assert (drawn.depth.dtype, drawn.depth.shape) == (np.float32, size)
    assert np.isfinite(drawn.depth).all()
    dtypes = [getattr(drawn, name).dtype for name in ("labels", "tracks", "panoptic", "semantic", "occluded")]
    assert dtypes == [np.int64, np.int64, np.int64, np.int16, np.float32]
    return visible, amodal


def draw(kind: Kind, seed: int, size: tuple[int, int] = (96, 112), **knobs: object) -> Drawn:
    return kind.draw(np.random.default_rng(seed), size, Knobs(**knobs))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", MODALITIES)
def test_labels_agree_with_each_other(modality: str) -> None:
    kind = Cells({modality: 1.0})
    assert isinstance(kind, Kind)
    classes: set[int] = set()
    for seed in range(12):
        drawn = draw(kind, seed, occlusion=(0.0, 0.5, 1.0)[seed % 3])
        check(drawn, kind)
        classes |= set(drawn.labels.tolist())
    assert classes == ({NUCLEUS, BACKGROUND} if modality == "fluorescence" else {NUCLEUS, TISSUE, BACKGROUND})


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_any_size_can_be_drawn(height: int, width: int, seed: int) -> None:
    check(draw(Cells(), seed, (height, width)), Cells())


@pytest.mark.parametrize(
    "knobs",
    [
        {"count": (0, 0)},
        {"scale": (0.1, 0.1)},
        {"scale": (10, 10)},
        {"texture": 0, "shadows": 0, "variety": 0, "noise": (0, 0), "blur": (0, 0), "warmth": (0, 0)},
        {"texture": 10, "shadows": 10, "variety": 10, "noise": (100, 100), "blur": (10, 10), "brightness": (5, 5)},
    ],
)
def test_the_ends_of_the_knobs(knobs: dict[str, object]) -> None:
    for seed in range(4):
        drawn = draw(Cells(), seed, (64, 64), **knobs)
        check(drawn, Cells())
        if knobs.get("count") == (0, 0):
            assert NUCLEUS not in drawn.labels


def test_the_same_seed_draws_the_same() -> None:
    one, other = draw(Cells(), 5), draw(Cells(), 5)
    assert (one.image == other.image).all()
    assert (one.panoptic == other.panoptic).all()
    assert (one.amodal[0] == other.amodal[0]).all()
    assert not (one.image == draw(Cells(), 6).image).all()


def test_count_is_reached_and_never_passed() -> None:
    found: list[int] = []
    for seed in range(10):
        drawn = draw(Cells({"fluorescence": 1}), seed, (160, 160), count=(20, 30), occlusion=0.0, scale=(0.6, 0.6))
        found.append(int((drawn.labels == NUCLEUS).sum()))
    assert max(found) <= 30
    assert np.median(found) >= 18, "places at the border may lie outside"


def test_scale_scales_and_occlusion_occludes() -> None:
    def area(scale: float) -> float:
        sizes = []
        for seed in range(8):
            drawn = draw(Cells({"stained": 1}), seed, (192, 192), scale=(scale, scale), occlusion=0.0)
            masks = rle.area(*drawn.amodal)[drawn.labels == NUCLEUS]
            if len(masks):
                sizes.append(float(np.sqrt(np.median(masks))))
        return float(np.mean(sizes))

    def hidden(occlusion: float) -> float:
        kind = Cells({"fluorescence": 1})
        shares = [draw(kind, seed, (192, 192), occlusion=occlusion, count=(60, 60)).occluded[:-1] for seed in range(8)]
        return float(np.mean(np.concatenate(shares)))

    assert 1.5 < area(2.0) / area(1.0) < 2.4
    assert hidden(1.0) > 2 * hidden(0.0)


def test_nuclei_stand_out_from_what_is_around_them() -> None:
    """Pixels of nuclei differ from the rest by more than the rest differs from itself, in most pictures."""
    for modality in ("fluorescence", "stained"):
        clear = 0
        for seed in range(12):
            drawn = draw(Cells({modality: 1}), seed, (128, 128), occlusion=0.2, noise=(0.5, 1.0))
            gray, inside = drawn.image.mean(0), drawn.semantic == NUCLEUS
            if inside.all() or not inside.any():
                continue
            gap = abs(float(gray[inside].mean()) - float(gray[~inside].mean()))
            clear += gap > float(gray[~inside].std())
        assert clear >= 8, f"{modality}: {clear} of 12"


def test_clips_move_and_divide() -> None:
    kind = Cells({"fluorescence": 1})
    born = 0
    for seed in range(3):
        frames = kind.draw(np.random.default_rng(seed), (128, 128), Knobs(motion=1.0), frames=5)
        assert len(frames) == 5
        for drawn in frames:
            check(drawn, kind)
        assert frames[-1].flow is None
        first, last = set(frames[0].tracks.tolist()), set(frames[-1].tracks.tolist())
        assert first & last
        born += len(last - first)
        for now, then in pairwise(frames):
            assert now.flow is not None
            assert (now.flow[:, now.semantic == BACKGROUND] == 0).all()
            _follow(now, then)
    assert born > 0, "some divided"


def _follow(now: Drawn, then: Drawn) -> None:
    """A pixel well inside a nucleus arrives, by its flow, in the same nucleus or under another."""
    assert now.flow is not None
    ys, xs = np.nonzero(now.semantic == NUCLEUS)
    ty = np.floor(ys + 0.5 + now.flow[1, ys, xs]).astype(int)
    tx = np.floor(xs + 0.5 + now.flow[0, ys, xs]).astype(int)
    stays = (ty >= 0) & (tx >= 0) & (ty < now.size[0]) & (tx < now.size[1])
    stays &= np.isin(now.panoptic[ys, xs], then.tracks)
    ys, xs, ty, tx = ys[stays], xs[stays], ty[stays], tx[stays]
    same = then.panoptic[ty, tx] == now.panoptic[ys, xs]
    assert same.mean() > 0.85


def test_still_clips_are_still() -> None:
    frames = Cells({"phase": 1}).draw(np.random.default_rng(0), (64, 80), Knobs(motion=0), frames=3)
    assert (frames[0].panoptic == frames[2].panoptic).all()
    assert frames[0].flow is not None
    assert not frames[0].flow.any()


def test_wrong_weights_are_refused() -> None:
    for weights in ({"x-ray": 1.0}, {"stained": -1.0}, {"stained": 0.0}, {}):
        with pytest.raises(ValueError, match="modalities must give weights"):
            Cells(weights)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_layouts_stay_near_the_picture(arrangement: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lay = lay_out(rng, (90, 120), 8.0, arrangement, spread=0.2, occlusion=0.3, squeeze=0.7)
        assert len(lay.centers) == len(lay.radii) == len(lay.angles) >= 1
        assert (lay.centers > -30).all()
        assert (lay.centers < np.array([120, 150])).all()


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_runs_of_windows_are_those_of_whole_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    count = int(rng.integers(0, 6))
    forms = plain(rng.uniform(-5, 45, (count, 2)), rng.uniform(1, 30, count), aspects=rng.uniform(0.3, 1, count))
    at = windows(forms, size)
    inside = rng.random(len(at.depth)) < 0.5
    masks = np.zeros((count, *size), bool)
    for i, (y, x, h, w) in enumerate(at.boxes.tolist()):
        masks[i, y : y + h, x : x + w] = inside[at.starts[i] : at.starts[i + 1]].reshape(h, w)
    got, wanted = runs_of(inside, at.boxes, at.starts, size), rle.encode(masks)
    assert (got[0] == wanted[0]).all()
    assert (got[1] == wanted[1]).all()
    twice = joined_runs(got, got)
    assert (dense(twice, size) == np.concatenate([masks, masks])).all()


def test_a_round_form_is_a_disc() -> None:
    at = windows(plain(np.array([[20.0, 25.0]]), np.array([9.0])), (40, 50))
    y, x = np.mgrid[:40, :50] + 0.5
    disc = np.hypot(y - 20, x - 25) < 9
    assert (dense(at.amodal(), (40, 50))[0] == disc).all()


@pytest.mark.parametrize("sigma", [0.5, 2.0, 6.0])
def test_blur_keeps_the_sum_and_has_the_spread_it_says(sigma: float) -> None:
    field = np.zeros((81, 81), np.float32)
    field[40, 40] = 1
    out = blur(field, sigma)
    y = np.arange(81) - 40
    assert out.sum() == pytest.approx(1, abs=1e-4)
    assert np.sqrt((out.sum(1) * y**2).sum()) == pytest.approx(sigma, rel=0.2)
