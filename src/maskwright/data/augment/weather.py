"""Weather and light on a picture without a depth map: rain, fog, snow, night, cast shadows.

Each is a frozen dataclass of the numbers drawn for one picture; calling it changes the colors of uint8 [3, H, W] and
leaves the input as it is. ``draw`` takes the numbers from a generator. Objects do not move. Where distance matters it
is guessed from the place in the picture: it grows from the lower edge to a horizon and stays there.

``strength`` runs from 0 (hardly any) to 1 (as bad as one would still annotate).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskwright.data.augment import weather_kernels as kernels
from maskwright.data.augment.pixel_kernels import clouds, gaussian, luma, smooth, stretched

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rain:
    """Streaks of three distances that share one direction, under a darker and hazier sky.

    Attributes:
        strength: number, length and light of the streaks, and the haze; 0 to 1.
        angle: of the streaks from the vertical, in degrees; positive falls to the right.
        seed: of the places of the streaks.
    """

    strength: float = 0.5
    angle: float = 10.0
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: Range = (0.2, 1.0)) -> Rain:
        """Draw the strength uniformly, the angle within 25 degrees, and a seed."""
        return cls(strength=float(rng.uniform(*strength)), angle=float(rng.uniform(-25, 25)), seed=_seed(rng))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        pixels = _pixels(image)
        height, width = pixels.shape[1:]
        rng = np.random.default_rng(self.seed)
        layer = np.zeros((height, width), np.float32)
        unit = np.sqrt(height * width) / 480.0  # streaks keep their share of the picture
        slope = np.tan(np.deg2rad(self.angle))
        # Many, short and thin far away; few, long and wide close by.
        for count, length, thick, light in ((1200, 14, 0.5, 0.28), (400, 28, 0.8, 0.38), (80, 60, 1.3, 0.3)):
            number = int(count * (0.25 + self.strength))
            places = rng.random((number, 2)) * (1.3 * height, 1.3 * width) - (0.2 * height, 0.15 * width)
            lengths = unit * length * (0.6 + 0.5 * self.strength) * rng.uniform(0.6, 1.4, number)
            lights = light * (0.7 + 0.5 * self.strength) * rng.uniform(0.4, 1.2, number)
            kernels.streaks(layer, places, slope, lengths, thick * max(unit, 0.6), lights)
        haze = _far(height, 0.35) * np.float32(0.3 * self.strength)
        sky = _sky(pixels)
        return torch.from_numpy(
            kernels.veiled(pixels, haze[:, None] * _ones(width), layer, sky, 1 - 0.25 * self.strength)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fog:
    """The air's own light instead of what lies behind it: I t + A (1 - t), t = exp(-density distance) (Koschmieder).

    Attributes:
        strength: of the fog; at 1 about a tenth of the light comes through at the horizon.
        horizon: where distance stops growing, as a fraction of the height from above.
        patches: how much the density differs from place to place, 0 to 1.
        seed: of the patches.
    """

    strength: float = 0.5
    horizon: float = 0.35
    patches: float = 0.4
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: Range = (0.2, 1.0)) -> Fog:
        """Draw the strength uniformly, a horizon between 0.2 and 0.5, patches up to 0.7, and a seed."""
        return cls(
            strength=float(rng.uniform(*strength)),
            horizon=float(rng.uniform(0.2, 0.5)),
            patches=float(rng.uniform(0.0, 0.7)),
            seed=_seed(rng),
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        pixels = _pixels(image)
        height, width = pixels.shape[1:]
        cloud = clouds(height, width, 0.5 * max(height, width), 4, np.random.default_rng(self.seed))
        distance = 0.25 + 0.75 * _far(height, self.horizon)[:, None]
        density = 2.3 * self.strength * distance * (1 - self.patches * (cloud - np.float32(0.5)) * 1.6)
        veil = (1 - np.exp(-density)).astype(np.float32)
        return torch.from_numpy(kernels.veiled(pixels, veil, np.zeros_like(veil), _sky(pixels), 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snow:
    """Flakes of three distances, close ones out of focus and drawn long by the wind, under a pale sky.

    Attributes:
        strength: number and size of the flakes, and the haze; 0 to 1.
        angle: of their fall from the vertical, in degrees.
        seed: of their places.
    """

    strength: float = 0.5
    angle: float = 10.0
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: Range = (0.2, 1.0)) -> Snow:
        """Draw the strength uniformly, the angle within 40 degrees, and a seed."""
        return cls(strength=float(rng.uniform(*strength)), angle=float(rng.uniform(-40, 40)), seed=_seed(rng))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        pixels = _pixels(image)
        height, width = pixels.shape[1:]
        rng = np.random.default_rng(self.seed)
        layer = np.zeros((height, width), np.float32)
        unit = np.sqrt(height * width) / 480.0
        for count, radius, light in ((2200, 0.8, 0.65), (420, 1.6, 0.75), (45, 4.5, 0.45)):
            number = int(count * (0.15 + self.strength))
            places = rng.random((number, 2)) * (1.1 * height, 1.1 * width) - (0.05 * height, 0.05 * width)
            radii = unit * radius * (0.8 + 0.4 * self.strength) * rng.uniform(0.6, 1.5, number)
            lights = light * rng.uniform(0.5, 1.1, number)
            stretch = rng.uniform(1.0, 1.0 + 1.2 * self.strength, number)
            kernels.flakes(layer, places, np.deg2rad(self.angle + rng.normal(0, 8, number)), radii, stretch, lights)
        haze = (0.15 + 0.85 * _far(height, 0.35)) * np.float32(0.5 * self.strength)
        return torch.from_numpy(kernels.veiled(pixels, haze[:, None] * _ones(width), layer, _sky(pixels, 0.9), 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """Little light of another color, lamps that glow, and the noise of a camera that amplifies what is left.

    What is much brighter than its surroundings counts as a lamp: it stays lit and throws a halo.

    Attributes:
        strength: of the darkness, 0 to 1; at 1 an eighth of the light is left.
        warmth: color of the light, -1 (moon, blue) to 1 (sodium lamps, orange).
        seed: of the noise.
    """

    strength: float = 0.5
    warmth: float = -0.5
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: Range = (0.2, 1.0)) -> Night:
        """Draw the strength and the warmth uniformly, and a seed."""
        return cls(strength=float(rng.uniform(*strength)), warmth=float(rng.uniform(-1, 1)), seed=_seed(rng))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        pixels = _pixels(image)
        light = luma(pixels)
        lamps, halo = _lamps(light)
        gain = 2.0 ** (-3.0 * (0.25 + 0.75 * self.strength) / 2.2)  # of values: the light to the power of 1 / 2.2
        tint = np.array((1.0, 0.82, 0.55)) if self.warmth > 0 else np.array((0.72, 0.86, 1.0))
        tint = 1 + abs(self.warmth) * (tint - 1)
        values = np.arange(256) / 255.0
        curves = 255.0 * gain * tint[:, None] * values ** (1 + 0.35 * self.strength)
        noise = 2.0 + 7.0 * self.strength
        return torch.from_numpy(
            kernels.darkened(
                pixels, light, curves.astype(np.float32), 0.45 * self.strength, lamps, halo, noise, np.uint64(self.seed)
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Cast shadows with soft edges: strips and corners bounded by random lines.

    Attributes:
        strength: fraction of the light that the darkest loses, 0 to 1.
        count: how many.
        softness: width of their edges as a fraction of the picture's size.
        seed: of their forms.
    """

    strength: float = 0.5
    count: int = 2
    softness: float = 0.02
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: Range = (0.2, 0.7)) -> Shadow:
        """Draw the strength, one to three shadows, the softness (0.004 to 0.06, uniform logarithm) and a seed."""
        return cls(
            strength=float(rng.uniform(*strength)),
            count=int(rng.integers(1, 4)),
            softness=float(np.exp(rng.uniform(*np.log((0.004, 0.06))))),
            seed=_seed(rng),
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        pixels = _pixels(image)
        height, width = pixels.shape[1:]
        rng = np.random.default_rng(self.seed)
        size = np.sqrt(height * width)
        # A shadow is where a few half planes overlap: (normal y, normal x, offset), distances positive inside.
        lines = np.empty((self.count, 3, 3), np.float64)
        for shadow in lines:
            middle = rng.uniform(0.1, 0.9, 2) * (height, width)
            first = rng.uniform(0, 2 * np.pi)
            for k, turn in enumerate((0.0, np.pi + rng.uniform(-0.4, 0.4), rng.uniform(1.0, 2.2))):
                normal = np.array((np.sin(first + turn), np.cos(first + turn)))
                shadow[k] = (*normal, size * rng.uniform(0.06, 0.3) * (2 if k == 2 else 1) - normal @ middle)
        depths = self.strength * rng.uniform(0.7, 1.0, self.count)
        # The sky's light, which is blue, still reaches the shade.
        tint = np.array((1.0, 0.96, 0.86), np.float32)
        return torch.from_numpy(kernels.shaded(pixels, lines, depths, max(self.softness * size, 0.5), tint))


def _pixels(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.numpy())


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


def _ones(width: int) -> np.ndarray:
    return np.ones((1, width), np.float32)


def _far(height: int, horizon: float) -> np.ndarray:
    """A guess of the distance by row, float32 [H]: 0 at the lower edge, 1 from the horizon up."""
    rows = (np.arange(height) + 0.5) / height
    return np.clip((1 - rows) / max(1 - horizon, 1e-3), 0, 1).astype(np.float32) ** 2


def _sky(pixels: np.ndarray, bright: float = 0.8) -> np.ndarray:
    """The color of lit air, float32 [3]: pale, and not much brighter than the picture's own bright places."""
    top = np.percentile(pixels[:, ::8, ::8], 95, axis=(1, 2))
    color = 0.25 * top + 0.75 * top.mean()
    return (color * (255 * bright / max(float(color.max()), 1.0)) ** 0.6 * np.array((0.98, 1.0, 1.02))).astype(
        np.float32
    )


def _lamps(light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How lit each pixel is by itself, in 0..1, and its halo in 0..255, both float32 [H, W]."""
    height, width = light.shape
    step = max(1, min(height, width) // 90)
    small = np.ascontiguousarray(light[::step, ::step])
    wide, narrow = gaussian(9.0, 2.0), gaussian(3.0, 3.0)
    around = smooth(small, wide, wide, False)
    base = stretched(around, height, width, ease=False)
    lamps = np.clip((light - np.maximum(base + 75.0, 205.0)) / 40.0, 0, 1).astype(np.float32)
    lit = kernels.largest(lamps, step, small.shape[0], small.shape[1])
    halo = 160.0 * smooth(lit, narrow, narrow, False) + 200.0 * smooth(lit, wide, wide, False)
    return lamps, stretched(halo, height, width, ease=False)
