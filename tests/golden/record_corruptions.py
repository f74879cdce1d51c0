"""Records ``corruptions.json``: what imagecorruptions 1.1.2 makes of a drawn picture, where it can be compared.

    pip install imagecorruptions==1.1.2 "numpy<2" "scipy<1.15" scikit-image==0.20.0 "opencv-python<4.11" "setuptools<81"
    python record_corruptions.py

The tests draw the same picture again. Where no random numbers are drawn, the mean and the deviation of each channel and
the values at a grid of pixels are kept; else the mean of the values and of their squared change over many draws. Frost,
which is photographs there, is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FIXED = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
RANDOM = ("glass_blur", "motion_blur", "snow", "fog", "elastic_transform")
DRAWS = 60
SIZE = (90, 120)


def picture() -> np.ndarray:
    """uint8 [90, 120, 3]: waves, colored rectangles, stripes of one pixel, black, white and a few random pixels."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    out = np.stack([(x * 2) % 256, (y * 5 // 2) % 256, (x + y) % 256], -1).astype(np.uint8)
    out[10:40, 15:50] = (200, 30, 60)
    out[20:70, 60:64] = 0
    out[45:80, 70:110] = (240, 240, 235)
    out[50:75:2, 75:105] = (15, 90, 170)
    out[60:85, 5:45] = np.random.RandomState(0).randint(0, 256, (25, 40, 3))
    out[85:, 50:70] = 255
    out[0:8, 90:] = 0
    return out


def sample(pixels: np.ndarray) -> np.ndarray:
    """The pixels that are kept, [K, 3] of [H, W, 3]: corners, edges and a grid."""
    return pixels[::8, ::7].reshape(-1, 3)


def figures(kind: str, severity: int) -> dict[str, Any]:
    """What the published code makes of the picture."""
    from imagecorruptions import corrupt

    made = corrupt(picture(), severity=severity, corruption_name=kind)
    return {
        "mean": made.mean((0, 1)).round(4).tolist(),
        "deviation": made.std((0, 1)).round(4).tolist(),
        "pixels": sample(made).tobytes().hex(),
    }


def statistics(kind: str, severity: int) -> list[float]:
    """Mean value and mean squared change over many draws of the published code, and the deviations of both."""
    from imagecorruptions import corrupt

    clean = picture()
    made = [corrupt(clean, severity=severity, corruption_name=kind).astype(float) for _ in range(DRAWS)]
    values = np.array([(one.mean(), ((one - clean) ** 2).mean()) for one in made])
    return [*values.mean(0).round(2).tolist(), *values.std(0).round(2).tolist()]


def _keep_old_names_working() -> None:
    """scikit-image 0.20 has dropped the option that the published code uses."""
    import imagecorruptions.corruptions as published
    from skimage.filters import gaussian

    def old(image: np.ndarray, sigma: Any, multichannel: bool = False, **more: Any) -> np.ndarray:
        return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **more)

    published.gaussian = old


if __name__ == "__main__":
    _keep_old_names_working()
    np.random.seed(0)
    kept: dict[str, Any] = {k: {str(s): figures(k, s) for s in range(1, 6)} for k in FIXED}
    kept |= {k: {str(s): statistics(k, s) for s in range(1, 6)} for k in RANDOM}
    Path(__file__).with_name("corruptions.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")
