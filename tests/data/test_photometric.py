"""Color temperature, lens, sensor and file: what each does to pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.augment import pixel_kernels as kernels
from maskwright.data.augment.optics import Defocus, Jpeg, LowResolution, MotionBlur, ShotNoise
from maskwright.data.augment.photometric import Photometric, light_gains

COLOR = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 60), np.uint8))
SMOOTH = torch.from_numpy(
    np.stack([np.add.outer(np.arange(48) * a, np.arange(64) * b) for a, b in ((1, 2), (2, 1), (1.5, 1.5))]).astype(
        np.uint8
    )
)
LUMA = np.array((0.299, 0.587, 0.114))


def plain(value: int, height: int = 100, width: int = 120) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def dot(height: int = 41, width: int = 41) -> torch.Tensor:
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    image[:, height // 2, width // 2] = 255
    return image


def test_light_of_another_temperature() -> None:
    """Warmer is redder, cooler is bluer, gray keeps its luma, no shift is no change."""
    assert light_gains(0.0).tolist() == pytest.approx([1, 1, 1])
    for mireds in (-100, -40, 40, 150):
        red, green, blue = light_gains(mireds)
        assert (red > green > blue) == (mireds > 0)
        assert light_gains(mireds) @ LUMA == pytest.approx(1.0)
    # Planck's law by hand: a halogen lamp (3200 K) has 3.2 times as much red for each blue as daylight.
    red, _, blue = light_gains(1e6 / 3200 - 1e6 / 6504)
    power = np.expm1(0.01438777 / (464e-9 * 3200)) / np.expm1(0.01438777 / (611e-9 * 3200))
    power /= np.expm1(0.01438777 / (464e-9 * 6504)) / np.expm1(0.01438777 / (611e-9 * 6504))
    assert (red / blue) ** 2.2 == pytest.approx(power)
    gray = Photometric(temperature=80.0)(plain(120)).numpy()[:, 0, 0]
    assert gray @ LUMA == pytest.approx(120, abs=1)
    assert gray[0] >= 130 > 110 > gray[2]
    assert torch.equal(Photometric(temperature=0.0)(COLOR), COLOR)
    assert np.isfinite(light_gains(-1e9)).all()
    assert np.isfinite(light_gains(1e9)).all()


def test_motion_is_a_centered_trail() -> None:
    image = MotionBlur(length=9.0, angle=0.0)(dot())[0].numpy()
    rows, columns = np.nonzero(image)
    assert set(rows) == {20}
    assert (columns.min(), columns.max()) == (16, 24)
    assert int(image.sum()) == pytest.approx(255, abs=9)
    upright = MotionBlur(length=9.0, angle=90.0)(dot())[0].numpy()
    assert np.array_equal(upright, image.T)
    slanted = MotionBlur(length=9.0, angle=45.0)(dot())[0].numpy().astype(float)
    ys, xs = np.nonzero(slanted)
    assert np.corrcoef(ys, xs)[0, 1] > 0.9
    assert torch.equal(MotionBlur(length=1.0, angle=30.0)(COLOR), COLOR)


def test_defocus_is_a_disk() -> None:
    for radius in (0.0, 0.5, 2.0, 3.7, 6.0):
        image = Defocus(radius=radius)(dot())[0].numpy()
        assert np.array_equal(image, image[::-1])
        assert np.array_equal(image, image[:, ::-1])
        ys, xs = np.nonzero(image)
        assert np.hypot(ys - 20, xs - 20).max() <= radius + 1
        spread = [np.average((place - 20) ** 2, weights=image[ys, xs]) for place in (ys, xs)]
        assert spread[0] == pytest.approx(spread[1], rel=0.08, abs=0.15)
        # A disk's second moment is a quarter of its squared radius, here with half a pixel around.
        assert spread[0] + spread[1] == pytest.approx((radius + 0.5) ** 2 / 2, abs=0.25)
    assert torch.equal(Defocus(radius=0.0)(COLOR), COLOR)


@pytest.mark.parametrize("effect", [MotionBlur(length=12.5, angle=33.0), Defocus(radius=4.3)])
def test_blur_keeps_what_is_plain_and_the_mean(effect: MotionBlur | Defocus) -> None:
    assert torch.equal(effect(plain(77)), plain(77))
    flat = torch.zeros((3, 80, 80), dtype=torch.uint8)
    flat[:, 30:50, 30:50] = 200
    assert effect(flat).float().mean() == pytest.approx(float(flat.float().mean()), rel=0.02)


@pytest.mark.parametrize("photons", [3.0, 40.0, 1000.0])
@pytest.mark.parametrize("value", [5, 100, 180])
def test_photons_are_counted(photons: float, value: int) -> None:
    """Mean and variance are those of Poisson's law; numpy's own numbers agree in distribution."""
    image = ShotNoise(photons=photons, seed=3)(plain(value, 200, 200)).numpy()
    rate, count = photons * value / 255, image.size
    drawn = np.random.default_rng(1).poisson(rate, count) * 255 / photons
    drawn = np.minimum(np.floor(drawn + 0.5), 255)
    error = drawn.std() * np.sqrt(2 / count)
    assert image.mean() == pytest.approx(drawn.mean(), abs=5 * error)
    assert image.std() == pytest.approx(drawn.std(), rel=0.03)
    for level in np.quantile(drawn, (0.1, 0.5, 0.9)):
        assert (image <= level).mean() == pytest.approx((drawn <= level).mean(), abs=0.01)


def test_noise_does_not_repeat() -> None:
    noise = ShotNoise(photons=50.0, seed=3)(plain(128)).numpy().astype(float) - 128
    for one, other in ((noise[0], noise[1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    first, second = (ShotNoise(photons=50.0, seed=s)(plain(128)).numpy().astype(float).ravel() for s in (3, 4))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert torch.equal(ShotNoise(photons=50.0)(plain(0)), plain(0)), "the dark has no photons"


def test_low_resolution_and_compression_lose_detail_not_color() -> None:
    for effect in (LowResolution(scale=0.4), LowResolution(scale=0.4, smooth=False), Jpeg(quality=30)):
        made = effect(SMOOTH)
        assert made.shape == SMOOTH.shape
        assert made.is_contiguous()
        assert (made.float() - SMOOTH.float()).abs().mean() < 4
        assert (effect(plain(90)).int() - 90).abs().max() <= 1
    blocks = LowResolution(scale=0.25, smooth=False)(COLOR[:, :40, :60])
    assert torch.equal(blocks[:, 0::4], blocks[:, 1::4])
    assert torch.equal(LowResolution(scale=1.0)(COLOR), COLOR)
    error = [(Jpeg(quality=q)(COLOR).float() - COLOR.float()).pow(2).mean() for q in (10, 50, 95)]
    assert error[0] > error[1] > error[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.booleans())
def test_any_size_and_memory_order(seed: int, size: tuple[int, int], interleaved: bool) -> None:
    """As small as one pixel, and as ``read_image`` lays pixels out; the input stays as it was."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8))
    if interleaved:
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    before = image.clone()
    for kind in (MotionBlur, Defocus, ShotNoise, LowResolution, Jpeg):
        effect = kind.draw(np.random.default_rng(seed))
        assert effect == kind.draw(np.random.default_rng(seed))
        made = effect(image)
        assert made.shape == image.shape
        assert torch.equal(made, effect(before.clone()))
        assert torch.equal(image, before)
    assert Photometric(temperature=50.0)(image).shape == image.shape


@pytest.mark.parametrize("symmetric", [False, True])
def test_filters_are_scipys(symmetric: bool) -> None:
    from scipy import ndimage

    plane = np.random.default_rng(0).random((23, 31)).astype(np.float32)
    mode = "reflect" if symmetric else "nearest"
    for sigma in ((0.7, 1.9), (12.0, 3.0)):
        down, along = (kernels.gaussian(s) for s in sigma)
        ours = kernels.smooth(plane, down, along, symmetric)
        np.testing.assert_allclose(ours, ndimage.gaussian_filter(plane, sigma, mode=mode), atol=1e-5)


def test_uniform_numbers_fill_the_unit_interval() -> None:
    numbers = kernels.uniforms(np.uint64(7), 300, 400)
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() <= 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.005)
    counts = np.histogram(numbers, 50, (0, 1))[0]
    assert np.square(counts - 2400).sum() / 2400 < 90, "chi squared of 49 degrees of freedom"
    # SplitMix64's published first outputs for the seed 1234567.
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    for i, number in enumerate(published):
        assert int(kernels.uniform(np.uint64(1234567), i) * 2**53) == number >> 11
