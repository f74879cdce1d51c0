"""Weather and light: determined by their numbers, plausible by measure, drawn in the order of nature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.augment.conditions import Conditions, Drawn
from maskwright.data.augment.optics import Jpeg, ShotNoise
from maskwright.data.augment.weather import Fog, Night, Rain, Shadow, Snow
from maskwright.errors import InputError

WEATHER: tuple[Any, ...] = (Rain, Fog, Snow, Night, Shadow)


def street() -> torch.Tensor:
    """A bright sky over a textured ground, with a dark block and a small lamp: uint8 [3, 120, 160]."""
    rng = np.random.default_rng(0)
    image = np.empty((3, 120, 160), np.float64)
    image[:, :50] = np.array((170, 190, 215))[:, None, None]
    image[:, 50:] = np.array((110, 105, 100))[:, None, None] + rng.normal(0, 12, (3, 70, 160))
    image[:, 30:90, 20:60] = np.array((60, 30, 25))[:, None, None]
    image[:, 60:64, 120:124] = 255
    return torch.from_numpy(np.clip(image, 0, 255).astype(np.uint8))


STREET = street()


def values(image: torch.Tensor) -> np.ndarray:
    return image.numpy().astype(np.float64)


@pytest.mark.parametrize("kind", WEATHER)
def test_same_numbers_same_picture(kind: Any) -> None:
    effect = kind.draw(np.random.default_rng(4))
    assert effect == kind.draw(np.random.default_rng(4))
    assert effect != kind.draw(np.random.default_rng(5))
    before = STREET.clone()
    made = effect(STREET)
    assert made.dtype == torch.uint8
    assert made.shape == STREET.shape
    assert torch.equal(made, effect(STREET.permute(1, 2, 0).contiguous().permute(2, 0, 1)))
    assert torch.equal(STREET, before)
    assert not torch.equal(made, STREET)


@pytest.mark.parametrize("kind", WEATHER)
def test_more_strength_changes_more(kind: Any) -> None:
    change = [np.abs(values(kind(strength=s, seed=1)(STREET)) - values(STREET)).mean() for s in (0.05, 0.4, 1.0)]
    assert change[0] < change[1] < change[2]
    assert change[0] < 0.5 * change[2]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(WEATHER), st.integers(0, 2**31), st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_any_size(kind: Any, seed: int, size: tuple[int, int]) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, *size), np.uint8))
    assert kind.draw(np.random.default_rng(seed))(image).shape == image.shape


def test_fog_hides_the_distance() -> None:
    """Contrast falls, most at the horizon, least in the foreground; the color goes to the air's."""
    stripes = torch.zeros((3, 120, 160), dtype=torch.uint8)
    stripes[:, :, ::2] = 200
    made = values(Fog(strength=0.8, horizon=0.3, patches=0.0, seed=0)(stripes))[0]
    contrast = made[:, ::2].mean(1) - made[:, 1::2].mean(1)
    assert (np.diff(contrast[40:]) > -1.5).all()
    assert contrast[10] < 0.35 * contrast[-1]
    # Koschmieder: what is left of a contrast is exp(-density x distance), whatever the values.
    assert contrast[10] == pytest.approx(200 * np.exp(-2.3 * 0.8), abs=2)
    assert contrast[-1] == pytest.approx(200 * np.exp(-2.3 * 0.8 * 0.25), abs=2)
    flat = values(Fog(strength=0.8, patches=0.7, seed=0)(torch.full((3, 120, 160), 30, dtype=torch.uint8)))
    assert flat[0, 20].std() > 0.5, "patches differ along a row"


def test_rain_falls_along_its_angle() -> None:
    dark = torch.full((3, 480, 480), 20, dtype=torch.uint8)
    for angle in (-20.0, 0.0, 15.0):
        made = values(Rain(strength=0.8, angle=angle, seed=2)(dark))[0]
        made -= made.mean(1, keepdims=True)
        shifts = range(-14, 15)
        rows = 16
        likeness = [(made[60:-rows, 20:-20] * made[60 + rows :, 20 + s : 460 + s]).mean() for s in shifts]
        best = shifts[int(np.argmax(likeness))]
        assert best == pytest.approx(rows * np.tan(np.deg2rad(angle)), abs=2)
    streaks = values(Rain(strength=0.8, angle=0.0, seed=2)(dark))[0]
    assert np.abs(np.diff(streaks, axis=1)).mean() > 1.5 * np.abs(np.diff(streaks, axis=0)).mean()


def test_snow_is_brighter_than_what_it_hides() -> None:
    dark = torch.full((3, 200, 200), 40, dtype=torch.uint8)
    for strength, low, high in ((0.1, 0.002, 0.1), (1.0, 0.03, 0.4)):
        made = values(Snow(strength=strength, seed=3)(dark))
        assert (made >= 39).all()
        flakes = made[1] > np.median(made[1], axis=1, keepdims=True) + 25
        assert low < flakes.mean() < high
        assert np.ptp(made[:, flakes], axis=0).mean() < 12, "flakes are white"


def test_night_is_dark_and_lamps_glow() -> None:
    made = values(Night(strength=0.9, warmth=-1.0, seed=1)(STREET))
    before = values(STREET)
    assert made[:, 70:, :90].mean() < 0.4 * before[:, 70:, :90].mean()
    assert made[:, :40].mean() < 0.5 * before[:, :40].mean(), "a bright sky is no lamp"
    assert made[:, 61:63, 121:123].mean() > 230, "the lamp stays lit"
    near, far = made[:, 56:68, 126:130].mean(), made[:, 56:68, 148:160].mean()
    assert near > far + 4, "and has a halo"
    wall = torch.full((3, 120, 160), 150, dtype=torch.uint8)
    moon, sodium = (values(Night(strength=0.5, warmth=w)(wall)).mean((1, 2)) for w in (-1.0, 1.0))
    assert moon[2] > 1.15 * moon[0]
    assert sodium[0] > 1.3 * sodium[2]
    grain = [values(Night(strength=s, seed=2)(wall))[0].std() for s in (0.1, 1.0)]
    assert 1 < grain[0] < grain[1] < 15


def test_shadows_only_darken_and_have_edges() -> None:
    wall = torch.full((3, 150, 200), 180, dtype=torch.uint8)
    for seed in range(10):
        made = values(Shadow(strength=0.6, count=2, softness=0.01, seed=seed)(wall))
        assert made.max() <= 180
        assert made[0].min() >= 180 * 0.4 - 1
        assert (made[2] >= made[0]).all(), "the sky's light in the shade is blue"
    covered = [(values(Shadow(strength=0.6, seed=s)(wall))[0] < 170).mean() for s in range(30)]
    assert 0.1 < np.mean(covered) < 0.8
    steps = [
        np.abs(np.diff(values(Shadow(strength=0.6, count=1, softness=soft, seed=1)(wall))[0], axis=1)).max()
        for soft in (0.004, 0.06)
    ]
    assert steps[0] > 2 * steps[1]


EVERYTHING = Conditions(
    shadow=0.5,
    night=0.3,
    rain=0.3,
    fog=0.3,
    snow=0.4,
    defocus=0.3,
    motion_blur=0.3,
    low_resolution=0.3,
    shot_noise=0.3,
    jpeg=0.5,
)


def test_conditions_are_drawn_with_their_chances_and_in_order() -> None:
    order = ["Shadow", "Night", "Rain", "Fog", "Snow", "Defocus", "MotionBlur", "LowResolution", "ShotNoise", "Jpeg"]
    rng = np.random.default_rng(0)
    found = dict.fromkeys(order, 0)
    for _ in range(1500):
        names = [type(effect).__name__ for effect in EVERYTHING.draw(rng).effects]
        assert names == sorted(names, key=order.index)
        assert sum(name in ("Rain", "Fog", "Snow") for name in names) == 1
        for name in names:
            found[name] += 1
    chances = (0.5, 0.3, 0.3, 0.3, 0.4, 0.3, 0.3, 0.3, 0.3, 0.5)
    for name, chance in zip(order, chances, strict=True):
        assert found[name] / 1500 == pytest.approx(chance, abs=0.06)


def test_conditions_draw_within_their_ranges_and_repeat() -> None:
    narrow = Conditions(jpeg=1.0, jpeg_quality=(40, 42), shot_noise=1.0, shot_photons=(90.0, 100.0))
    rng = np.random.default_rng(0)
    qualities = set()
    for _ in range(60):
        noise, jpeg = narrow.draw(rng).effects
        assert isinstance(noise, ShotNoise)
        assert isinstance(jpeg, Jpeg)
        assert 90 <= noise.photons <= 100
        qualities.add(jpeg.quality)
    assert qualities == {40, 41, 42}
    one, other = (EVERYTHING.draw(np.random.default_rng(9)) for _ in range(2))
    assert one == other
    assert torch.equal(one(STREET), other(STREET))
    assert Drawn()(STREET) is STREET


def test_without_chances_nothing_is_drawn() -> None:
    """So that adding these options to a recipe that does not use them leaves its random numbers as they were."""
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    assert Conditions().draw(rng) == Drawn()
    assert rng.bit_generator.state == state


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rain": 1.5}, "rain must be a fraction"),
        ({"rain": 0.5, "fog": 0.4, "snow": 0.2}, "one weather"),
        ({"jpeg_quality": (90, 30)}, "rising range"),
        ({"jpeg_quality": (0, 30)}, "between 1 and 95"),
        ({"weather_strength": (0.5, 1.5)}, "between 0 and 1"),
        ({"low_resolution_scale": (0.0, 0.5)}, "above 0"),
        ({"shot_photons": (0.1, 5.0)}, "between 1 and 100000"),
        ({"defocus_radius": (1.0, 2.0, 3.0)}, "rising range"),
        ({"motion_length": (float("nan"), 2.0)}, "rising range"),
        ({"night": float("nan")}, "night must be a fraction"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Conditions(**options)
