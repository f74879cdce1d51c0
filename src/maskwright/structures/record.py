"""``Record`` and ``Sample``: one image of a data set, before and after its pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskwright.structures._check import check_size, check_tensor, require
from maskwright.structures.inputs import Geometry
from maskwright.structures.scene import Scene

Shape = tuple[np.ndarray, ...] | dict[str, Any] | None
"""An object's outline as its file keeps it: polygons (float64 [K, 2] each, x then y), a COCO run-length dictionary
(``{"size": (H, W), "counts": bytes}``, compressed), or ``None`` where only a box is known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One image of a data set without its pixels; masks are rasterized later, after the crop is drawn.

    Attributes:
        key: the image's name in its data set (the file name for COCO); unique.
        path: where the pixels are.
        size: (H, W) as the annotation file states it.
        labels: int64 [N], dense.
        shapes: N outlines, polygons or run-lengths.
        boxes: float32 [N, 4] as (x1, y1, x2, y2).
        crowd: bool [N].
        ids: int64 [N], annotation ids.
        areas: float64 [N], as annotated (COCO's size classes use it).
        image_id: the number the image has in its file.
    """

    key: str
    path: Path
    size: tuple[int, int]
    labels: np.ndarray
    shapes: tuple[Shape, ...]
    boxes: np.ndarray
    crowd: np.ndarray
    ids: np.ndarray
    areas: np.ndarray
    image_id: int

    def __post_init__(self) -> None:
        check_size(self.size)
        count = len(self.labels)
        for name in ("shapes", "boxes", "crowd", "ids", "areas"):
            got = len(getattr(self, name))
            require(got == count, f"{self.key}: {name} must be one per label ({count}), got {got}")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One image with its pixels, ready to be collated.

    Attributes:
        key: as in ``Record``.
        image: uint8 [3, H, W], RGB.
        scene: what is known, on (H, W); ``None`` when nothing is.
        geometry: the way back to the file's pixels.
    """

    key: str
    image: Tensor
    scene: Scene | None
    geometry: Geometry

    def __post_init__(self) -> None:
        check_tensor(f"{self.key}: image", self.image, (3, "H", "W"))
        size = (int(self.image.shape[1]), int(self.image.shape[2]))
        lies = self.scene is None or self.scene.size == size
        require(lies, f"{self.key}: the scene must lie on {size}, got {self.scene and self.scene.size}")
