# pyright: basic
"""Where on Earth a picture lies: the GeoTIFF tags of a TIFF, read without GDAL.

OGC GeoTIFF 1.1 (19-008r4): ModelPixelScale and ModelTiepoint, or ModelTransformation, and the EPSG code of the
GeoKeyDirectory. Tags 33550, 33922, 34264 and 34735.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil, isfinite, log10
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.data.tiff import read_tags
from maskwright.errors import InputError

_SCALE, _TIEPOINT, _TRANSFORMATION, _KEYS = 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072
_USER_DEFINED = 32767


@dataclass(frozen=True, slots=True, kw_only=True)
class Georeference:
    """From pixels to the map.

    Attributes:
        affine: (a, b, c, d, e, f): a pixel's corner (x, y), (0, 0) at the picture's top left, lies at
            ``(a x + b y + c, d x + e y + f)``.
        epsg: code of the coordinate system; ``None`` where the file does not say, or defines its own.
    """

    affine: tuple[float, float, float, float, float, float]
    epsg: int | None = None

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Map coordinates float64 [K, 2] of pixel coordinates [K, 2], x then y."""
        a, b, c, d, e, f = self.affine
        x, y = np.asarray(xy, np.float64).reshape(-1, 2).T
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    @property
    def decimals(self) -> int:
        """Places that hold a thousandth of a pixel."""
        a, b, _, d, e, _ = self.affine
        return max(0, ceil(3 - log10(min(np.hypot(a, d), np.hypot(b, e)))))


def read_georeference(path: str | os.PathLike[str]) -> Georeference | None:
    """Where the picture lies, or ``None`` where the file does not say; only TIFF does.

    Raises:
        InputError: the file cannot be read, or its GeoTIFF tags are broken.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    tags = read_tags(path)
    if tags is None or not (_TRANSFORMATION in tags or (_SCALE in tags and _TIEPOINT in tags)):
        return None
    keys = _keys(tags.get(_KEYS, ()), path)
    if _TRANSFORMATION in tags:
        m = _numbers(tags[_TRANSFORMATION], 16, path)
        affine = (m[0], m[1], m[3], m[4], m[5], m[7])
    else:
        sx, sy = _numbers(tags[_SCALE], 2, path)[:2]
        i, j, _, x, y, _ = _numbers(tags[_TIEPOINT], 6, path)[:6]
        affine = (sx, 0.0, x - i * sx, 0.0, -sy, y + j * sy)
    a, b, c, d, e, f = affine
    if keys.get(_RASTER_TYPE) == 2:  # coordinates are those of pixel centers
        c, f = c - (a + b) / 2, f - (d + e) / 2
    if not all(map(isfinite, (a, b, c, d, e, f))) or a * e - b * d == 0:
        raise InputError(f"{path}: its GeoTIFF tags must map pixels to distinct places, got {affine}.")
    epsg = keys.get(_PROJECTED) or keys.get(_GEOGRAPHIC)
    return Georeference(affine=(a, b, c, d, e, f), epsg=None if epsg in (None, 0, _USER_DEFINED) else epsg)


def _numbers(value: Any, least: int, path: Path) -> list[float]:
    numbers = [float(v) for v in value] if isinstance(value, (tuple, list)) else [float(value)]
    if len(numbers) < least:
        raise InputError(f"{path}: a GeoTIFF tag must have {least} numbers, got {len(numbers)}.")
    return numbers


def _keys(directory: Any, path: Path) -> dict[int, int]:
    """Keys whose value stands in the directory itself."""
    rows = [int(v) for v in directory] if isinstance(directory, (tuple, list)) else []
    if rows and (len(rows) < 4 or len(rows) < 4 * (1 + rows[3])):
        raise InputError(f"{path}: its GeoTIFF keys are cut off, {len(rows)} numbers came.")
    return {rows[k]: rows[k + 3] for k in range(4, 4 * (1 + rows[3]), 4) if rows[k + 1] == 0} if rows else {}
