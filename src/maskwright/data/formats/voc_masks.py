"""The PNGs of Pascal VOC: what their pixels stand for, and regions of objects joined to boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.data.formats.tables import voc_colors
from maskwright.data.io import open_image
from maskwright.data.label_maps import read_labels, read_map
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import LabelMap, MapForm, Shape, Taxonomy

BACKGROUND = "background"
VOID = 255
VOID_COLOR = (224, 224, 192)

_OVERLAP = 0.3  # what a region's box and an annotated one of its class must share at least
_SAME_NUMBER = 0.5  # what it counts, beside their overlap, that region k meets the k-th object


class Colors:
    """What the pixels of class maps stand for.

    Args:
        taxonomy: source ids are the values of maps, colors those of colored ones.
        from_colors: palettes are read by their colors, not by their indices: the classes are not VOC's own.
    """

    def __init__(self, taxonomy: Taxonomy, *, from_colors: bool) -> None:
        self.taxonomy, self._from_colors = taxonomy, from_colors
        self._indices = taxonomy.label_of
        self._numbers = {number_of(color): i for i, color in reversed(list(enumerate(taxonomy.colors)))}

    def of_map(self, path: Path) -> dict[str, Any]:
        """``form`` and ``classes`` of a ``LabelMap``; ``InputError`` where the file cannot be opened."""
        with open_image(path) as image:
            colored = image.mode in ("RGB", "RGBA") or (image.mode == "P" and self._from_colors)
        return {"form": "rgb", "classes": self._numbers} if colored else {"form": "index", "classes": self._indices}


def number_of(color: Sequence[int]) -> int:
    """A color as ``LabelMap`` counts it: red + 256 green + 65536 blue."""
    return color[0] + 256 * color[1] + 65536 * color[2]


def joined_regions(
    regions: Path,
    classes: Path | None,
    size: tuple[int, int],
    names: Sequence[str],
    boxes: Sequence[tuple[float, ...]],
    colors: Colors,
) -> tuple[dict[int, Shape], list[tuple[str, Shape]]]:
    """The regions of a PNG of objects: those that belong to annotated boxes (by their place), and the others.

    A region's class is the one that most of its pixels have in the class map. It belongs to a box of that class that
    has its number or overlaps it; the best pairs first.

    Args:
        regions, classes: the two PNGs; without the second any class fits, and regions without a box have no name.
        size: (H, W) of the picture.
        names, boxes: of the annotated objects, in their order; boxes as (x1, y1, x2, y2).

    Raises:
        InputError: a PNG cannot be read or has another size.
    """
    numbers = _numbers(regions, size)
    values = np.unique(numbers)
    values = values[(values != 0) & (values != VOID)]
    if len(values) == 0:
        return {}, []
    counts, offsets = encode_map(numbers, values)
    own = rle.boxes(counts, offsets, size[0])
    labels = _labels(numbers, values, classes, size, colors)
    known = [None if label < 0 else colors.taxonomy.names[label] for label in labels]
    pairs: list[tuple[float, int, int]] = []
    for r, value in enumerate(values.tolist()):
        for i, name in enumerate(names):
            overlap = _overlap(own[r].tolist(), boxes[i])
            if known[r] in (None, name) and (value == i + 1 or overlap >= _OVERLAP):
                pairs.append((-overlap - _SAME_NUMBER * (value == i + 1), r, i))
    shapes: list[Shape] = [
        {"size": size, "counts": found["counts"].encode("ascii")} for found in rle.to_coco(counts, offsets, size)
    ]
    joined: dict[int, Shape] = {}
    taken: set[int] = set()
    for _, r, i in sorted(pairs):
        if r not in taken and i not in joined:
            joined[i] = shapes[r]
            taken.add(r)
    return joined, [(known[r] or "", shapes[r]) for r in range(len(values)) if r not in taken]


def _numbers(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The number of the object at each pixel: indices, or what colors of VOC's map stand for; others follow 255."""
    with open_image(path) as image:
        form: MapForm = "rgb" if image.mode in ("RGB", "RGBA") else "index"
    numbers = read_map(path, form, size)
    if form == "index":
        return numbers
    index = {number_of(color): i for i, color in enumerate(voc_colors(256))}
    distinct, places = np.unique(numbers, return_inverse=True)
    more = iter(range(256, 256 + len(distinct)))
    table = np.array([index[v] if v in index else next(more) for v in distinct.tolist()], np.int32)
    return table[places].reshape(numbers.shape)


def _labels(
    numbers: np.ndarray, values: np.ndarray, classes: Path | None, size: tuple[int, int], colors: Colors
) -> list[int]:
    """The class of most pixels of each region; -1 where it is not known."""
    if classes is None:
        return [-1] * len(values)
    found = read_labels(LabelMap(path=classes, **colors.of_map(classes)), size)
    inside = np.isin(numbers, values)
    ranks = np.searchsorted(values, numbers[inside])
    votes = np.zeros((len(values), len(colors.taxonomy) + 1), np.int64)
    np.add.at(votes, (ranks, found[inside] + 1), 1)
    return (votes.argmax(axis=1) - 1).tolist()


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes; 0 where they are not finite."""
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if not (wide > 0 and tall > 0):
        return 0.0
    both = wide * tall
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
