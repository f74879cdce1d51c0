"""Folders of label images in, numbers of semantic segmentation out, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskwright.metrics._label_images import compare_folders
from maskwright.metrics.mean_iou import BOUNDARY_RATIO, MeanIoU

if TYPE_CHECKING:
    from maskwright.structures import Taxonomy

CITYSCAPES: Mapping[str, int] = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The classes that Cityscapes compares, and their values in ``*_labelIds.png``."""

CITYSCAPES_VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)
"""Its values that do not count."""

CITYSCAPES_CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
"""Its categories of classes."""


def read_semantic(
    truth_folder: str | Path,
    results_folder: str | Path,
    classes: Taxonomy | Sequence[str] | Mapping[str, int],
    *,
    ignore: int | Iterable[int] = 255,
    trimaps: Sequence[float] = (),
    boundary: bool = False,
    boundary_ratio: float = BOUNDARY_RATIO,
    categories: Mapping[str, Sequence[str]] | None = None,
    truth_suffix: str = "",
    results_suffix: str = "",
    lenient: bool = False,
) -> MeanIoU:
    """Two folders of label images compared: the figures are those of ``MeanIoU``, the keys the stems of the files.

    Args:
        truth_folder, results_folder: label images (PNG of one channel, up to 16 bits, or with a palette, of which the
            index counts; TIFF; NPY) in any depth of folders, paired by stem; or one file each.
        classes, ignore, trimaps, boundary, boundary_ratio, categories: as in ``MeanIoU``. A mapping gives the values
            of classes in the files; otherwise they are 0 .. K - 1. For Cityscapes there are ``CITYSCAPES`` and such.
        truth_suffix, results_suffix: what stems end with in either folder, which is no part of the key; files that end
            otherwise are left alone.
        lenient: leave out and count (``dropped``) files that cannot be compared instead of raising.

    Raises:
        InputError: a folder is missing or empty, or files are missing on either side, damaged, of another size than
            their truth, or hold labels that are not known; names the first five.
        ValueError: classes or numbers that ``MeanIoU`` refuses.
    """
    metric = MeanIoU(
        classes, ignore, trimaps=trimaps, boundary=boundary, boundary_ratio=boundary_ratio, categories=categories
    )
    dropped = compare_folders(
        metric.update_maps, truth_folder, results_folder,
        truth_suffix=truth_suffix, results_suffix=results_suffix, lenient=lenient,
    )  # fmt: skip
    if lenient:
        metric.dropped = dropped
    return metric
