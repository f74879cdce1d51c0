"""Which weather, light, optics and compression a training picture gets: drawn once, applied in the order of nature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from maskwright.data.augment.optics import Defocus, Jpeg, LowResolution, MotionBlur, ShotNoise
from maskwright.data.augment.weather import Fog, Night, Rain, Shadow, Snow
from maskwright.errors import InputError

Effect = Callable[[Tensor], Tensor]
"""A change of uint8 [3, H, W]; ``Rain``, ``Jpeg`` ..."""

_CHANCES = ("shadow", "night", "rain", "fog", "snow", "defocus", "motion_blur", "low_resolution", "shot_noise", "jpeg")
_RANGES = (
    "weather_strength",
    "defocus_radius",
    "motion_length",
    "low_resolution_scale",
    "shot_photons",
    "jpeg_quality",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What one picture gets, first to last; calling it applies all of them to uint8 [3, H, W]."""

    effects: tuple[Effect, ...] = ()

    def __call__(self, image: Tensor) -> Tensor:
        """The changed picture; the input itself where nothing was drawn."""
        for effect in self.effects:
            image = effect(image)
        return image


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Probabilities and ranges; the defaults change nothing.

    The order is that of nature: shadow, night, weather (at most one kind), lens, sensor, file.
    """

    shadow: float = 0.0
    """Probability of cast shadows."""
    night: float = 0.0
    """Probability of night: dark, of another color, lamps that glow, noise."""
    rain: float = 0.0
    """Probability of rain; rain, fog and snow exclude each other, so that the three add up to at most 1."""
    fog: float = 0.0
    """Probability of fog."""
    snow: float = 0.0
    """Probability of falling snow."""
    weather_strength: tuple[float, float] = (0.2, 1.0)
    """Range of the strength of shadow, night, rain, fog and snow, from 0 to 1."""
    defocus: float = 0.0
    """Probability of a lens out of focus."""
    defocus_radius: tuple[float, float] = (1.0, 5.0)
    """Range of the radius of its disk, in pixels."""
    motion_blur: float = 0.0
    """Probability of motion blur."""
    motion_length: tuple[float, float] = (3.0, 15.0)
    """Range of the length of the motion's trail, in pixels."""
    low_resolution: float = 0.0
    """Probability of making the picture smaller and enlarging it again."""
    low_resolution_scale: tuple[float, float] = (0.3, 0.8)
    """Range of the scale on the way."""
    shot_noise: float = 0.0
    """Probability of photon noise."""
    shot_photons: tuple[float, float] = (30.0, 500.0)
    """Range of the photons of a white pixel, drawn with a uniform logarithm; fewer are noisier."""
    jpeg: float = 0.0
    """Probability of JPEG compression."""
    jpeg_quality: tuple[int, int] = (30, 90)
    """Range of its quality, 1 to 95."""

    def __post_init__(self) -> None:
        for name in _CHANCES:
            _require(0 <= getattr(self, name) <= 1, name, "a fraction from 0 to 1", getattr(self, name))
        total = self.rain + self.fog + self.snow
        _require(total <= 1 + 1e-9, "rain, fog and snow", "at most 1 together, for a picture has one weather", total)
        for name in _RANGES:
            low, high = getattr(self, name) if len(getattr(self, name)) == 2 else (1, 0)
            _require(0 <= low <= high, name, "a rising range of positive numbers", getattr(self, name))
        _require(self.weather_strength[1] <= 1, "weather_strength", "between 0 and 1", self.weather_strength)
        scale, photons, quality = self.low_resolution_scale, self.shot_photons, self.jpeg_quality
        _require(scale[0] > 0 and scale[1] <= 1, "low_resolution_scale", "above 0 and at most 1", scale)
        _require(photons[0] >= 1 and photons[1] <= 1e5, "shot_photons", "between 1 and 100000", photons)
        _require(quality[0] >= 1 and quality[1] <= 95, "jpeg_quality", "between 1 and 95", quality)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw what one picture gets; what has no chance draws nothing, so that its ranges change nothing either."""
        out: list[Effect] = []

        def happens(chance: float) -> bool:
            return chance > 0 and bool(rng.random() < chance)

        strength = self.weather_strength
        if happens(self.shadow):
            out.append(Shadow.draw(rng, (0.8 * strength[0], 0.8 * strength[1])))
        if happens(self.night):
            out.append(Night.draw(rng, strength))
        if self.rain + self.fog + self.snow > 0:
            at = rng.random()
            for chance, kind in ((self.rain, Rain), (self.fog, Fog), (self.snow, Snow)):
                if 0 <= at < chance:
                    out.append(kind.draw(rng, strength))
                at -= chance
        if happens(self.defocus):
            out.append(Defocus.draw(rng, self.defocus_radius))
        if happens(self.motion_blur):
            out.append(MotionBlur.draw(rng, self.motion_length))
        if happens(self.low_resolution):
            out.append(LowResolution.draw(rng, self.low_resolution_scale))
        if happens(self.shot_noise):
            out.append(ShotNoise.draw(rng, self.shot_photons))
        if happens(self.jpeg):
            out.append(Jpeg.draw(rng, self.jpeg_quality))
        return Drawn(effects=tuple(out))


def _require(holds: bool, name: str, what: str, got: object) -> None:
    if not holds:
        raise InputError(f"the augmentation option {name} must be {what}, got {got}")
