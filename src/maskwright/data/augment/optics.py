"""What lens, sensor and file do to a picture: motion blur, defocus, photon noise, low resolution, JPEG.

Each is a frozen dataclass of the numbers drawn for one picture; calling it changes uint8 [3, H, W] and leaves the input
as it is. ``draw`` takes the numbers from a generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskwright.data.augment import pixel_kernels as kernels

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionBlur:
    """The mean along a straight trail, centered, with edges repeated.

    Attributes:
        length: of the trail in pixels; up to 1 changes nothing.
        angle: of the trail from the horizontal, in degrees.
    """

    length: float = 9.0
    angle: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator, length: Range = (3.0, 15.0)) -> MotionBlur:
        """Draw the length uniformly, and any angle."""
        return cls(length=float(rng.uniform(*length)), angle=float(rng.uniform(0, 180)))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        pixels = np.ascontiguousarray(image.numpy())
        # The trail is sampled twice a pixel; each sample is shared by the four pixels around it.
        count = max(1, round(2 * self.length) - 1)
        at = (np.arange(count) - (count - 1) / 2) / 2
        weights: dict[tuple[int, int], float] = {}
        for far in at:
            y, x = far * np.sin(np.deg2rad(self.angle)), far * np.cos(np.deg2rad(self.angle))
            top, left = int(np.floor(y)), int(np.floor(x))
            for dy, share in ((0, 1 - (y - top)), (1, y - top)):
                for dx, part in ((0, 1 - (x - left)), (1, x - left)):
                    if share * part > 1e-6:
                        place = (top + dy, left + dx)
                        weights[place] = weights.get(place, 0.0) + share * part
        shifts, shares = np.array(list(weights), np.int64), np.array(list(weights.values()))
        return _planewise(
            pixels, lambda plane: kernels.trail(plane, shifts, (shares / shares.sum()).astype(np.float32))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Defocus:
    """The mean over a disk, as of a lens that is out of focus; edges are mirrored.

    Attributes:
        radius: of the disk in pixels, 0 or more, from the middle of a pixel to that of the last; fractions count.
    """

    radius: float = 3.0

    @classmethod
    def draw(cls, rng: np.random.Generator, radius: Range = (1.0, 5.0)) -> Defocus:
        """Draw the radius uniformly."""
        return cls(radius=float(rng.uniform(*radius)))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        # Each row's part of a disk that reaches from the middle of a pixel over the last one in reach; what is narrower
        # than a pixel counts as a fraction of one.
        reach, radius = int(np.ceil(self.radius)) + 1, self.radius + 0.5
        edges = np.clip(np.arange(-reach, reach + 2) - 0.5, -radius, radius)
        areas = np.diff(edges * np.sqrt(radius**2 - edges**2) + radius**2 * np.arcsin(edges / radius))
        half, weights = np.maximum(areas - 1, 0) / 2, np.minimum(areas, 1)
        return _planewise(
            np.ascontiguousarray(image.numpy()),
            lambda plane: kernels.disk(np.pad(plane, reach, "reflect"), half, weights),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotNoise:
    """The noise of counting photons (Poisson): its variance grows with the value.

    Attributes:
        photons: that a white pixel has on average; fewer are noisier.
        seed: of the noise.
    """

    photons: float = 100.0
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, photons: Range = (30.0, 500.0)) -> ShotNoise:
        """Draw the photons with a uniform logarithm, and a seed."""
        return cls(photons=float(np.exp(rng.uniform(*np.log(photons)))), seed=int(rng.integers(2**63)))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        pixels = np.ascontiguousarray(image.numpy())
        return torch.from_numpy(kernels.poisson(pixels, float(self.photons), 0.5, np.uint64(self.seed)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LowResolution:
    """The picture made smaller and enlarged again.

    Attributes:
        scale: of the small picture, in (0, 1].
        smooth: enlarged with bilinear interpolation; otherwise in blocks.
    """

    scale: float = 0.5
    smooth: bool = True

    @classmethod
    def draw(cls, rng: np.random.Generator, scale: Range = (0.3, 0.8)) -> LowResolution:
        """Draw the scale uniformly; three in four are enlarged smoothly."""
        return cls(scale=float(rng.uniform(*scale)), smooth=bool(rng.random() < 0.75))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        height, width = int(image.shape[1]), int(image.shape[2])
        small = picture(image.numpy()).resize(
            (max(1, round(width * self.scale)), max(1, round(height * self.scale))), Image.Resampling.BOX
        )
        how = Image.Resampling.BILINEAR if self.smooth else Image.Resampling.NEAREST
        return torch.from_numpy(planes(small.resize((width, height), how)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """Compressed once more.

    Attributes:
        quality: 1 to 95, as libjpeg counts it; colors at half the resolution.
    """

    quality: int = 50

    @classmethod
    def draw(cls, rng: np.random.Generator, quality: tuple[int, int] = (30, 90)) -> Jpeg:
        """Draw the quality uniformly, both ends included."""
        return cls(quality=int(rng.integers(quality[0], quality[1] + 1)))

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]."""
        return torch.from_numpy(jpeg(image.numpy(), self.quality))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """uint8 [3, H, W] written as JPEG (4:2:0) and read again."""
    file = BytesIO()
    picture(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return planes(image)


def picture(pixels: np.ndarray) -> Image.Image:
    """uint8 [3, H, W] as a PIL image."""
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def planes(image: Image.Image) -> np.ndarray:
    """An RGB PIL image as uint8 [3, H, W]."""
    return np.array(np.asarray(image).transpose(2, 0, 1), order="C")


def _planewise(pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    out = np.empty_like(pixels)
    for channel, plane in enumerate(pixels):
        kernels.rounded(change(plane.astype(np.float32)), out[channel])
    return torch.from_numpy(out)
