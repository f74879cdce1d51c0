"""Changes of color, drawn once as numbers and applied in one pass over the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

_GRAY = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601 luma
_TO_YIQ = np.array(((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)))
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_WAVELENGTHS = np.array((611e-9, 549e-9, 464e-9))  # meters; where the primaries of sRGB are strongest
_DAYLIGHT = 1e6 / 6504.0  # mireds of sRGB's white (D65)
_SECOND_RADIATION = 1.438777e-2  # meter kelvin (CODATA 2018)


@dataclass(frozen=True, slots=True, kw_only=True)
class Photometric:
    """What happens to the colors of one sample, in this order: color matrix, value curve, blur, noise.

    Attributes:
        saturation: factor of the distance from gray; 0 is gray.
        hue: turn of the hue in turns (1 is all the way round), about the gray axis of YIQ.
        temperature: shift of the light's color in mireds (10^6 / kelvin): positive is warmer, 150 is the step from
            daylight to a halogen lamp, -80 goes to the light of a blue sky; the luma of gray stays.
        gamma: exponent of the values in 0..1.
        brightness: factor of the values.
        contrast: factor of the distance from the picture's mean luma.
        invert: 255 minus the value.
        blur: standard deviation of a Gaussian, in pixels; 0 is none.
        noise: standard deviation of Gaussian noise, in 0..255; 0 is none.
        seed: of the noise.
    """

    saturation: float = 1.0
    hue: float = 0.0
    temperature: float = 0.0
    gamma: float = 1.0
    brightness: float = 1.0
    contrast: float = 1.0
    invert: bool = False
    blur: float = 0.0
    noise: float = 0.0
    seed: int = 0

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to uint8 [3, H, W]; the input is left as it is."""
        pixels = np.ascontiguousarray(image.numpy())
        matrix = self._matrix()
        table = self._table(pixels)
        if matrix is not None or table is not None:
            curve = np.arange(256, dtype=np.uint8) if table is None else table
            pixels = _curve(pixels, curve) if matrix is None else _recolor(pixels, matrix.astype(np.float32), curve)
        if self.blur > 0:
            radius = max(1, int(np.ceil(3.0 * self.blur)))
            kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / self.blur) ** 2)
            pixels = _blur(pixels, (kernel / kernel.sum()).astype(np.float32))
        if self.noise > 0:
            rng = np.random.default_rng(self.seed)
            added = rng.standard_normal(pixels.shape, np.float32) * np.float32(self.noise)
            pixels = np.clip(pixels + added + np.float32(0.5), 0, 255).astype(np.uint8)
        return torch.from_numpy(pixels) if pixels.flags.writeable else torch.from_numpy(pixels.copy())

    def _matrix(self) -> np.ndarray | None:
        if self.saturation == 1.0 and self.hue == 0.0 and self.temperature == 0.0:
            return None
        cos, sin = np.cos(2 * np.pi * self.hue), np.sin(2 * np.pi * self.hue)
        turned = _FROM_YIQ @ np.array(((1, 0, 0), (0, cos, -sin), (0, sin, cos))) @ _TO_YIQ
        gray = np.tile(_GRAY, (3, 1))
        return light_gains(self.temperature)[:, None] * ((gray + self.saturation * (np.eye(3) - gray)) @ turned)

    def _table(self, pixels: np.ndarray) -> np.ndarray | None:
        if self.gamma == self.brightness == self.contrast == 1.0 and not self.invert:
            return None
        values = np.arange(256, dtype=np.float64)
        values = self.brightness * 255.0 * (values / 255.0) ** self.gamma
        if self.contrast != 1.0:
            # The color matrix keeps luma, so the mean may be taken before it (a colored light moves it by a little).
            histogram = _GRAY @ _histograms(pixels)
            mean = float(histogram @ np.clip(values, 0, 255)) / max(float(histogram.sum()), 1e-9)
            values = mean + self.contrast * (values - mean)
        values = np.clip(values, 0, 255)
        return (np.where(self.invert, 255.0 - values, values) + 0.5).astype(np.uint8)


def light_gains(mireds: float) -> np.ndarray:
    """Factors of red, green and blue values, float64 [3], when a black body's light is ``mireds`` warmer than daylight.

    Planck's law at the primaries' wavelengths, relative to 6504 K, to the power of 1 / 2.2 because values are encoded,
    and scaled so that gray keeps its luma. Mireds are limited to 1000 K and warmer than any sky (10 mireds).
    """
    inverse = np.clip(_DAYLIGHT + mireds, 10.0, 1000.0) * 1e-6
    exponent = _SECOND_RADIATION / _WAVELENGTHS
    ratio = np.expm1(exponent * _DAYLIGHT * 1e-6) / np.expm1(exponent * inverse)
    gains = ratio ** (1 / 2.2)
    return gains / (_GRAY @ gains)


@njit(cache=True, nogil=True)
def _histograms(pixels):
    """Values of the three channels counted in every fourth row, which is enough for a mean: float64 [3, 256]."""
    out = np.zeros((3, 256), np.float64)
    for channel in range(3):
        for y in range(0, pixels.shape[1], 4):
            for value in pixels[channel, y]:
                out[channel, value] += 1.0
    return out


@njit(cache=True, nogil=True)
def _curve(pixels, table):
    out = np.empty_like(pixels)
    source, target = pixels.reshape(-1), out.reshape(-1)
    for i in range(source.size):
        target[i] = table[source[i]]
    return out


@njit(cache=True, nogil=True)
def _recolor(pixels, matrix, table):
    out = np.empty_like(pixels)
    red, green, blue = pixels[0].reshape(-1), pixels[1].reshape(-1), pixels[2].reshape(-1)
    for channel in range(3):
        a, b, c = matrix[channel]
        target = out[channel].reshape(-1)
        for i in range(red.size):
            value = a * red[i] + b * green[i] + c * blue[i] + np.float32(0.5)
            target[i] = table[int(min(max(value, np.float32(0.0)), np.float32(255.0)))]
    return out


@njit(cache=True, nogil=True)
def _blur(pixels, kernel):
    """Separable, with mirrored borders."""
    channels, height, width = pixels.shape
    radius = len(kernel) // 2
    out = np.empty_like(pixels)
    rows = np.empty((height, width), np.float32)
    line = np.empty(width, np.float32)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                line[x] = pixels[c, y, x]
            for x in range(width):
                total = np.float32(0.0)
                for k in range(-radius, radius + 1):
                    total += kernel[k + radius] * line[_mirror(x + k, width)]
                rows[y, x] = total
        for y in range(height):
            line[:] = np.float32(0.5)
            for k in range(-radius, radius + 1):
                weight = kernel[k + radius]
                other = rows[_mirror(y + k, height)]
                for x in range(width):
                    line[x] += weight * other[x]
            for x in range(width):
                out[c, y, x] = np.uint8(min(max(line[x], np.float32(0.0)), np.float32(255.0)))
    return out


@njit(cache=True, nogil=True)
def _mirror(i, length):
    if length == 1:
        return 0
    period = 2 * length - 2
    i = i % period
    return i if i < length else period - i
