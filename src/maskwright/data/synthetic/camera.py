"""What sees and lights a drawn scene: the camera, the light, and the sensor's answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from maskwright.data.synthetic.drawn import Knobs

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole camera; the world's axes go right (x), up (y) and forward (z), in meters.

    Attributes:
        place: float64 [3].
        focal: focal length in pixels.
        center: (x, y) of the optical axis in pixels.
        yaw, pitch, roll: radians; positive yaw looks to the right, positive pitch up.
    """

    place: np.ndarray
    focal: float
    center: tuple[float, float]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def axes(self) -> np.ndarray:
        """Rows right, down, forward in the world, float64 [3, 3]."""
        cy, sy, cp, sp = np.cos(self.yaw), np.sin(self.yaw), np.cos(self.pitch), np.sin(self.pitch)
        forward = np.array([sy * cp, sp, cy * cp])
        right = np.array([cy, 0.0, -sy])
        down = np.cross(right, forward)
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.stack([c * right + s * down, c * down - s * right, forward])

    def matrices(self, places: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
        """float64 [n, 3, 3] that take (u, v, 1) on planes (a point and two directions, [n, 3] each) to pixels.

        The third of the numbers they give is the depth along the optical axis in meters, the first two are pixels
        times it.
        """
        lens = np.array([[self.focal, 0, self.center[0]], [0, self.focal, self.center[1]], [0, 0, 1]])
        stacked = np.stack([along, across, places - self.place], axis=2)
        return (lens @ self.axes()) @ stacked

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels float64 [n, 2] of points [n, 3], and their depth."""
        seen = (points - self.place) @ self.axes().T
        return seen[:, :2] / np.maximum(seen[:, 2:], 1e-6) * self.focal + np.array(self.center), seen[:, 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Sun, sky and air, in linear light.

    Attributes:
        sun: unit vector towards it, float64 [3].
        beam, sky, haze: RGB, float64 [3].
        density: share of the light lost to the haze per meter.
        exposure: what the sensor multiplies by.
        shadows: strength of cast shadows, 0..1.
    """

    sun: np.ndarray
    beam: np.ndarray
    sky: np.ndarray
    haze: np.ndarray
    density: float
    exposure: float
    shadows: float


def draw_light(rng: Rng, knobs: Knobs, *, soft: float | None = None, density: float = 0.0) -> Light:
    """A light as the knobs allow; ``soft`` is the sky's share (1: overcast or a lit hall), drawn where ``None``."""
    drawn = np.radians(rng.uniform(25, 155))
    angle = drawn if knobs.sun is None else np.radians(knobs.sun)
    toward = np.array([np.cos(angle), max(np.sin(angle), 0.18), rng.uniform(-0.9, 0.4)])
    softness = rng.choice([rng.uniform(0.25, 0.5), rng.uniform(0.7, 0.95)], p=[0.65, 0.35])
    softness = float(softness if soft is None else soft)
    contrast = min(1.0, knobs.shadows) * (1 - softness)
    warmth = rng.uniform(*knobs.warmth)
    tint = np.array([1 + 0.22 * warmth, 1.0, 1 - 0.3 * warmth])
    beam = 2.4 * contrast * tint * np.array([1.06, 1.0, 0.9])
    sky = (1.15 - 0.62 * contrast) * np.array([0.93, 1.0, 1.1]) * (0.5 + 0.5 * tint)
    haze = np.array([0.72, 0.78, 0.86]) * (0.6 + 0.4 * tint)
    return Light(
        sun=toward / np.linalg.norm(toward),
        beam=beam,
        sky=sky,
        haze=haze,
        density=density,
        exposure=float(rng.uniform(*knobs.brightness)),
        shadows=float(np.clip(1.15 * knobs.shadows * (1 - softness) + 0.12 * min(1.0, knobs.shadows), 0, 0.9)),
    )


def expose(rng: Rng, rgb: np.ndarray, light: Light, knobs: Knobs) -> np.ndarray:
    """The picture a camera makes of linear light float32 [H, W, 3]: uint8 [3, H, W].

    Lens falloff and blur, a shoulder for the highlights (Reinhard et al. 2002, equation 4), gamma 2.2, noise that grows
    with the light, rounding.
    """
    height, width = rgb.shape[:2]
    rgb = _blur(rgb, float(rng.uniform(*knobs.blur)))
    strength = np.float32(0.7 * rng.uniform(*knobs.noise))
    falloff = np.float32(rng.uniform(0, 0.16))
    grain = rng.standard_normal((height, width, 3), np.float32)
    out = np.empty((3, height, width), np.uint8)
    _respond(rgb, grain, np.float32(light.exposure), falloff, strength, _CURVE, out)
    return out


def _curve() -> np.ndarray:
    """Gray values of the square roots of light 0..3, in 4096 steps."""
    x = (np.arange(4097) / 4096) ** 2 * 3.0
    return (255 * np.clip(1.18 * x * (1 + x / 5.0) / (1 + 0.45 * x), 0, 1) ** (1 / 2.2)).astype(np.float32)


_CURVE = _curve()


@njit(cache=True, nogil=True, error_model="numpy")
def _respond(rgb: Any, grain: Any, exposure: Any, falloff: Any, strength: Any, curve: Any, out: Any) -> None:
    height, width, _ = rgb.shape
    third = np.float32(1 / 3)
    for y in range(height):
        v = np.float32(2 * y) / height - 1
        for x in range(width):
            u = np.float32(2 * x) / width - 1
            gain = exposure * (1 - falloff * np.float32(u * u + v * v)) * third
            for c in range(3):
                at = np.sqrt(min(max(rgb[y, x, c] * gain, np.float32(0)), np.float32(1))) * np.float32(4096)
                value = curve[int(at)]
                value += (curve[min(int(at) + 1, 4096)] - value) * (at - int(at))
                noise = np.float32(0.8) * grain[y, x, c] + np.float32(0.6) * grain[y, x, (c + 1) % 3]
                value += strength * noise * (np.float32(0.6) + value * np.float32(0.003))
                out[c, y, x] = np.uint8(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255)))


def _blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian over the first two axes, cut at three standard deviations."""
    if sigma < 0.2:
        return pixels
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    return _convolve(pixels, weights / weights.sum())


@njit(cache=True, nogil=True, error_model="numpy")
def _convolve(pixels: Any, weights: Any) -> Any:
    height, width, channels = pixels.shape
    reach = len(weights) // 2
    across, out = np.zeros_like(pixels), np.zeros_like(pixels)
    for y in range(height):
        for k in range(-reach, reach + 1):
            weight = weights[k + reach]
            for x in range(width):
                at = min(max(x + k, 0), width - 1)
                for c in range(channels):
                    across[y, x, c] += weight * pixels[y, at, c]
    for y in range(height):
        for k in range(-reach, reach + 1):
            weight = weights[k + reach]
            row = across[min(max(y + k, 0), height - 1)]
            for x in range(width):
                for c in range(channels):
                    out[y, x, c] += weight * row[x, c]
    return out
