"""The corruption benchmark against what the published code makes of the same picture, and against its own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.robustness import kernels as corruption_kernels
from maskwright.data.robustness import table as corruption_table
from maskwright.data.robustness.corruptions import KINDS, SEVERITIES, Corrupted, check, corrupt
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from tests.data.make import ANIMALS, record
from tests.golden.record_corruptions import FIXED, RANDOM, picture, sample

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "corruptions.json").read_text())
PICTURE = torch.from_numpy(np.ascontiguousarray(picture().transpose(2, 0, 1)))
PLAIN = torch.full((3, 120, 160), 100, dtype=torch.uint8)


def gray(image: torch.Tensor) -> np.ndarray:
    return image.numpy().astype(np.float64)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", FIXED)
def test_what_is_not_random_equals_the_published_code(kind: str, severity: int) -> None:
    """Within 1 of each value, for the published code cuts off floating point; exactly where libraries do the work."""
    made = corrupt(PICTURE, kind, severity).numpy().transpose(1, 2, 0)
    golden = GOLDEN[kind][str(severity)]
    pixels = np.frombuffer(bytes.fromhex(golden["pixels"]), np.uint8).reshape(-1, 3)
    far = np.abs(sample(made).astype(int) - pixels)
    # The published disks of radius 8 and 10 touch the rim of their array, where smoothing makes them 1.3% too heavy.
    heavy = kind == "defocus_blur" and severity >= 4
    limit = 4 if heavy else 0 if kind in ("contrast", "pixelate") else 1
    assert far.max() <= limit
    np.testing.assert_allclose(made.mean((0, 1)), golden["mean"], rtol=0.014 if heavy else 0, atol=0.6)
    np.testing.assert_allclose(made.std((0, 1)), golden["deviation"], rtol=0.014 if heavy else 0, atol=0.6)
    if kind in ("zoom_blur", "contrast", "pixelate"):
        assert (far > 0).mean() < 0.01


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", RANDOM)
def test_what_is_random_has_the_published_codes_statistics(kind: str, severity: int) -> None:
    """Mean and mean squared change over 30 draws agree with 60 of the published code within 5 standard errors."""
    made = np.stack([gray(corrupt(PICTURE, kind, severity, seed)) for seed in range(30)])
    ours = np.array([made.mean((1, 2, 3)), ((made - gray(PICTURE)) ** 2).mean((1, 2, 3))])
    published = np.array(GOLDEN[kind][str(severity)]).reshape(2, 2)
    error = np.sqrt(ours.std(1) ** 2 / 30 + published[1] ** 2 / 60)
    # Cutting off at other places of the arithmetic moves a mean by up to a quarter, and its square accordingly.
    assert (np.abs(ours.mean(1) - published[0]) <= 5 * error + (0.3, 0.02 * published[0, 1])).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_stated_moments(severity: int) -> None:
    """On a plain gray of 100; where values are clipped at 0, only what clipping leaves alone is compared."""
    count = PLAIN.numel()
    sigma = 255 * corruption_table.GAUSSIAN_NOISE[severity - 1]
    noisy = gray(corrupt(PLAIN, "gaussian_noise", severity, 1))
    low, high = np.quantile(noisy, (0.3085, 0.6915))  # half a deviation to both sides
    assert high - low == pytest.approx(sigma, rel=0.05, abs=1)
    assert np.median(noisy) == pytest.approx(99.5, abs=2.5 * sigma / np.sqrt(count) + 1)

    photons = corruption_table.SHOT_NOISE[severity - 1]
    rate = photons * 100 / 255
    counts = np.round(gray(corrupt(PLAIN, "shot_noise", severity, 1)) * photons / 255)
    unclipped = np.random.default_rng(0).poisson(rate, count)
    drawn = np.minimum(unclipped, np.floor(photons))
    assert counts.mean() == pytest.approx(drawn.mean(), abs=6 * np.sqrt(2 * rate / count))
    assert counts.var() == pytest.approx(drawn.var(), rel=0.05)

    amount = corruption_table.IMPULSE_NOISE[severity - 1]
    spots = gray(corrupt(PLAIN, "impulse_noise", severity, 1))
    for value in (0, 255):
        assert (spots == value).mean() == pytest.approx(amount / 2, abs=5 * np.sqrt(amount / count))
    assert set(np.unique(spots)) == {0, 100, 255}
    assert (spots[0] == spots[1]).mean() < 1, "channels are hit one by one"


def test_frost_has_the_photographs_range() -> None:
    for seed in range(8):
        pane = corruption_kernels.frost(120, 160, np.random.default_rng(seed))
        assert 90 < pane.mean() < 215
        assert 10 < pane.mean(0).std() < 46
        assert pane[0].mean() <= pane[2].mean() + 1e-3, "ice is bluish"
    mild, strong = (gray(corrupt(PLAIN, "frost", severity, 3)).std() for severity in (1, 5))
    assert mild < strong


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_picture_and_worse_with_severity(kind: str) -> None:
    before = PICTURE.clone()
    made = [corrupt(PICTURE, kind, severity, 5) for severity in SEVERITIES]
    assert all(one.dtype == torch.uint8 and one.shape == PICTURE.shape and one.is_contiguous() for one in made)
    assert torch.equal(made[2], corrupt(PICTURE.permute(1, 2, 0).contiguous().permute(2, 0, 1), kind, 3, 5))
    assert torch.equal(PICTURE, before)
    change = [((gray(one) - gray(PICTURE)) ** 2).mean() for one in made]
    assert change[-1] > change[0] > 0
    drawn = kind not in FIXED
    assert torch.equal(made[4], corrupt(PICTURE, kind, 5, 6)) == (not drawn)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), severity=st.integers(1, 5), size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_any_size(kind: str, severity: int, size: tuple[int, int]) -> None:
    """The published code refuses less than 32 pixels."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *size), np.uint8))
    assert corrupt(image, kind, severity, 1).shape == image.shape


@pytest.mark.parametrize("kind", KINDS)
def test_black_and_white_and_one_pixel(kind: str) -> None:
    for value in (0, 255):
        for size in ((1, 1), (1, 50), (50, 1), (33, 65)):
            made = corrupt(torch.full((3, *size), value, dtype=torch.uint8), kind, 5, 0)
            assert made.shape == (3, *size)
    if kind in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "contrast", "pixelate"):
        assert int(corrupt(PLAIN, kind, 5, 0).min()) >= 99, "what is plain stays plain, also at the edges"
        assert int(corrupt(PLAIN, kind, 5, 0).max()) == 100


def test_motion_runs_one_way() -> None:
    """A dot becomes a trail to its left, as the published code draws it."""
    for seed in range(12):
        dot = torch.zeros((3, 64, 160), dtype=torch.uint8)
        dot[:, 30:34, 78:82] = 255
        ys, xs = np.nonzero(corrupt(dot, "motion_blur", 3, seed)[0].numpy())
        assert ys.min() >= 30 - 31
        assert ys.max() <= 34 + 31
        assert xs.max() <= 82, "the trail lies to the left"
        assert xs.min() >= 78 - 31


def test_a_source_is_damaged_by_index_kind_and_severity(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    names = ("a.png", "b.png", "c.png")
    flat = rng.integers(0, 256, (40, 50, 3), np.uint8)
    for name in names:
        Image.fromarray(flat).save(tmp_path / name)
    source = FileSource.from_records(
        [record((40, 50), [], key=name, path=tmp_path / name, image_id=i) for i, name in enumerate(names)], ANIMALS
    )
    damaged = Corrupted(source, "gaussian_noise", 2)
    assert len(damaged) == 3
    assert damaged.taxonomy is source.taxonomy
    assert damaged.sizes.tolist() == [[40, 50]] * 3
    assert damaged.record(1).key == "b.png"
    first, second = damaged.load(0)[1], damaged.load(1)[1]
    assert not torch.equal(first, second)
    assert torch.equal(damaged[1].image, second)
    assert torch.equal(damaged.load(-2)[1], second)
    seeds = {Corrupted(source, k, s).seed(i) for k in KINDS for s in SEVERITIES for i in range(3)}
    assert len(seeds) == 15 * 5 * 3
    assert torch.equal(second, corrupt(source.load(1)[1], "gaussian_noise", 2, damaged.seed(1)))


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match=r"among gaussian_noise, .*got mist"):
        corrupt(PLAIN, "mist", 1)
    for severity in (0, 6):
        with pytest.raises(InputError, match="among 1, 2, 3, 4, 5; got"):
            corrupt(PLAIN, "fog", severity)
    with pytest.raises(InputError, match="got none"):
        check((), (1,))
    with pytest.raises(InputError, match="must differ"):
        check(("fog", "fog"), (1,))
    for image in (PLAIN.float(), PLAIN[:1], PLAIN[0], torch.zeros((3, 0, 5), dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            corrupt(image, "fog", 1)
