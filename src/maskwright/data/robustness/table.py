"""The kinds and strengths of the corruption benchmark, as published; imports nothing, so that help texts may read it.

The numbers are those of ImageNet-C (Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations"), in the form that Michaelis et al. 2019 ("Benchmarking Robustness in Object Detection")
use for pictures of any size. Lengths are pixels; noise and colors are fractions of the full range.
"""

from __future__ import annotations

SEVERITIES = (1, 2, 3, 4, 5)
"""Strengths, weakest first."""

GAUSSIAN_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Standard deviation."""
SHOT_NOISE = (60.0, 25.0, 12.0, 5.0, 3.0)
"""Photons of a white pixel."""
IMPULSE_NOISE = (0.03, 0.06, 0.09, 0.17, 0.27)
"""Fraction of the values that become black or white."""
DEFOCUS_BLUR = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
"""Radius of the disk, and sigma of the Gaussian that smooths its rim."""
GLASS_BLUR = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
"""Sigma of the Gaussian before and after, reach of the shuffle, rounds of it."""
MOTION_BLUR = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))
"""Radius (the trail has 2 r + 1 pixels) and sigma of the half Gaussian along it."""
ZOOM_BLUR = ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11))
"""Step between the zoom factors, which start at 1, and their number (as numpy's arange counts the published ends)."""
SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
)
"""Mean and deviation of the flakes' noise, its zoom and threshold, radius and sigma of its trail, picture's weight."""
FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Weights of the picture and of the frost."""
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""Weight of the fog, and what its roughness is divided by from one scale to the next."""
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Added to the value of HSV."""
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
"""Factor of the distance from each channel's mean."""
ELASTIC_TRANSFORM = (12.5, 16.25, 21.25, 25.0, 30.0)
"""Factor of the smoothed random shifts."""
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
"""Scale of the picture on the way."""
JPEG_COMPRESSION = (25, 18, 15, 10, 7)
"""Quality."""

KINDS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The 15 kinds, in the papers' order: noise, blur, weather, digital."""
