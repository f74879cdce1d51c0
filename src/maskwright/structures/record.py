"""``Record`` and ``Sample``: one image of a data set, before and after its pixels are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from maskwright.structures._check import check_size, check_tensor, require
from maskwright.structures.inputs import Geometry
from maskwright.structures.scene import Scene

MapForm = Literal["index", "rgb"]
"""How a pixel of a map gives a number: ``index``, the value or palette index of its one channel (8 to 32 bits);
``rgb``, red + 256 green + 65536 blue (COCO panoptic ids; colors that stand for classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMap:
    """A picture file whose pixels are labels or ids; decoded when it is needed (``data.label_maps``).

    Attributes:
        path: a PNG, TIFF or other lossless picture.
        form: how its pixels are read.
        classes: what each value stands for, as dense labels; other values are void. ``None``: the values are ids.
    """

    path: Path
    form: MapForm = "index"
    classes: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """An object's outline as the pixels of a label map that have one value.

    Attributes:
        path, form: the map, as in ``LabelMap``.
        value: the pixels' number; ``None`` takes all that are not 0 (one mask a file).
    """

    path: Path
    form: MapForm = "index"
    value: int | None = None


Shape = tuple[np.ndarray, ...] | dict[str, Any] | Region | None
"""An object's outline as its file keeps it: polygons (float64 [K, 2] each, x then y), a COCO run-length dictionary
(``{"size": (H, W), "counts": bytes}``, compressed), a ``Region`` of a map in another file, or ``None`` where only a box
is known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One image of a data set without its pixels; masks are rasterized later, after the crop is drawn.

    Attributes:
        key: the image's name in its data set (the file name for COCO); unique.
        path: where the pixels are.
        size: (H, W) as the annotation file states it.
        labels: int64 [N], dense.
        shapes: N outlines: polygons, run-lengths, or regions of a map.
        boxes: float32 [N, 4] as (x1, y1, x2, y2).
        crowd: bool [N].
        ids: int64 [N], annotation ids.
        areas: float64 [N], as annotated (COCO's size classes use it).
        image_id: the number the image has in its file.
        tracks: int64 [N], the identity of each object over the frames of its sequence, -1 where it has none; ``None``
            where there is no time.
        sequence: the clip this image is a frame of.
        frame: its place in the clip.
        semantic: the class of every pixel: a file, or int16 [H, W] of dense labels with -1 where void.
        panoptic: the segment of every pixel, a file or int64 [H, W] whose values are among ``ids``, 0 where void. Then
            the objects are segments, stuff included, and no two of them overlap.
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
    tracks: np.ndarray | None = None
    sequence: str | None = None
    frame: int | None = None
    semantic: LabelMap | np.ndarray | None = None
    panoptic: LabelMap | np.ndarray | None = None

    def __post_init__(self) -> None:
        check_size(self.size)
        count = len(self.labels)
        for name in ("shapes", "boxes", "crowd", "ids", "areas"):
            got = len(getattr(self, name))
            require(got == count, f"{self.key}: {name} must be one per label ({count}), got {got}")
        if self.tracks is not None:
            got = len(self.tracks)
            require(got == count, f"{self.key}: tracks must be one per label ({count}), got {got}")
        for name, value in (("semantic", self.semantic), ("panoptic", self.panoptic)):
            if isinstance(value, np.ndarray):
                require(value.shape == self.size, f"{self.key}: {name} must lie on {self.size}, got {value.shape}")

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
