"""Label maps: pictures whose pixels are numbers, and the outlines that are regions of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.data.io import open_image
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.storage import replacing
from maskwright.structures import LabelMap, MapForm, Record, Region, Shape, Taxonomy

_INDEXED = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


def read_map(path: str | Path, form: MapForm = "index", size: tuple[int, int] | None = None) -> np.ndarray:
    """The numbers of a map, int32 [H, W].

    Args:
        path: a lossless picture.
        form: ``index`` for the value or palette index of one channel, ``rgb`` for red + 256 green + 65536 blue (a
            palette's colors too).
        size: (H, W) it must have.

    Raises:
        InputError: it is missing, damaged, of another form or size; the message names the file.
    """
    path = Path(path)
    with open_image(path) as image:
        if size is not None and image.size != size[::-1]:
            raise InputError(
                f"{path}: the map must be as large as its picture, {size[0]}x{size[1]} (height x width), "
                f"got {image.size[1]}x{image.size[0]}"
            )
        try:
            return _numbers(image, form, path)
        except (OSError, ValueError, SyntaxError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot read the map {path}: {error}. Is the file complete?") from error


def read_labels(source: LabelMap, size: tuple[int, int] | None = None) -> np.ndarray:
    """Dense labels int16 [H, W] of a map with ``classes``, -1 where void; ``InputError`` as ``read_map``."""
    numbers = read_map(source.path, source.form, size)
    if source.classes is None:
        raise InputError(f"{source.path} is a map of ids, not of classes")
    return to_labels(numbers, source.classes)


def to_labels(numbers: np.ndarray, classes: Mapping[int, int]) -> np.ndarray:
    """Dense labels int16 of numbers, -1 where a number stands for no class."""
    values = np.array(sorted(classes), np.int64)
    labels = np.array([classes[v] for v in values.tolist()], np.int16)
    if len(values) == 0:
        return np.full(numbers.shape, -1, np.int16)
    if values[-1] < 1 << 16 and values[0] >= 0:
        table = np.full(1 << 16, -1, np.int16)
        table[values] = labels
        inside = (numbers >= 0) & (numbers < 1 << 16)
        return np.where(inside, table[np.where(inside, numbers, 0)], np.int16(-1))
    rank = np.minimum(np.searchsorted(values, numbers), len(values) - 1)
    return np.where(values[rank] == numbers, labels[rank], np.int16(-1))


def file_values(taxonomy: Taxonomy) -> tuple[np.ndarray, int]:
    """What classes and void are in written label maps: int64 [C], and the value of void.

    Source ids where they fit into 16 bits, so that results compare with the data set's own maps; else 0 .. C-1. Void is
    255, or where a class has that, the lowest number above all classes.
    """
    ids = np.array(taxonomy.source_ids, np.int64)
    values = ids if len(ids) and ids.min() >= 0 and ids.max() < (1 << 16) - 1 else np.arange(len(ids))
    return values, 255 if 255 not in values else int(values.max()) + 1


def write_map(
    path: str | Path, numbers: np.ndarray, form: MapForm = "index", colors: Mapping[int, Sequence[int]] | None = None
) -> None:
    """Write a map as PNG, such that ``read_map`` gives ``numbers`` again; it appears complete or not at all.

    Args:
        path: the file.
        numbers: integers [H, W], 0 .. 65535 as ``index``, 0 .. 2^24 - 1 as ``rgb``.
        form: as for ``read_map``.
        colors: what the numbers look like, where all are below 256: number -> RGB.

    Raises:
        ValueError: numbers out of range.
        InputError: ``path`` cannot be written.
    """
    most = (1 << 24) - 1 if form == "rgb" else (1 << 16) - 1
    low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    if low < 0 or high > most:
        raise ValueError(f"numbers of a map must lie in 0..{most}, got {low}..{high}")
    if form == "rgb":
        wide = numbers.astype(np.int64)
        picture = Image.fromarray(np.stack([wide & 255, wide >> 8 & 255, wide >> 16], axis=-1).astype(np.uint8))
    elif high > 255:
        picture = Image.fromarray(numbers.astype(np.uint16))
    else:
        picture = Image.fromarray(numbers.astype(np.uint8))
        if colors is not None:
            palette = np.zeros((256, 3), np.uint8)
            for number, color in colors.items():
                palette[number] = color
            picture.putpalette(palette.reshape(-1).tolist())
    with replacing(path) as beside:
        picture.save(beside, format="PNG")


def resolve(record: Record) -> Record:
    """The same record with run-lengths instead of regions and arrays instead of maps in files.

    Every file is decoded once. A record without any is returned as it is.

    Raises:
        InputError: a map cannot be read or has another size than the picture.
    """
    semantic, panoptic = record.semantic, record.panoptic
    waiting = [i for i, shape in enumerate(record.shapes) if isinstance(shape, Region)]
    if not waiting and not isinstance(semantic, LabelMap) and not isinstance(panoptic, LabelMap):
        return record
    decoded: dict[tuple[Path, MapForm], np.ndarray] = {}

    def numbers(path: Path, form: MapForm) -> np.ndarray:
        if (path, form) not in decoded:
            decoded[path, form] = read_map(path, form, record.size)
        return decoded[path, form]

    shapes = list(record.shapes)
    groups: dict[tuple[Path, MapForm], list[int]] = {}
    for i in waiting:
        region = shapes[i]
        assert isinstance(region, Region)
        groups.setdefault((region.path, region.form), []).append(i)
    for (path, form), members in groups.items():
        cut = _cut(numbers(path, form), [shapes[i] for i in members])
        for i, found in zip(members, rle.to_coco(*cut, record.size), strict=True):
            shapes[i] = {"size": record.size, "counts": found["counts"].encode("ascii")}
    if isinstance(semantic, LabelMap):
        found = numbers(semantic.path, semantic.form)
        semantic = to_labels(found, semantic.classes or {})
    if isinstance(panoptic, LabelMap):
        found = numbers(panoptic.path, panoptic.form).astype(np.int64)
        panoptic = np.where(np.isin(found, record.ids), found, 0)
    return replace(record, shapes=tuple(shapes), semantic=semantic, panoptic=panoptic)


def _cut(numbers: np.ndarray, regions: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the regions of one map; several may ask for the same value."""
    values = [region.value for region in regions if isinstance(region, Region)]
    distinct = sorted({v for v in values if v is not None})
    runs, cuts = encode_map(numbers, np.array(distinct, np.int64))
    pieces = dict(zip(distinct, np.split(runs, cuts[1:-1]), strict=True)) if distinct else {}
    if None in values:
        anything = rle.encode(np.ascontiguousarray(numbers != 0)[None])[0]
        chosen = [anything if v is None else pieces[v] for v in values]
    else:
        chosen = [pieces[v] for v in values if v is not None]
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in chosen])]).astype(np.int64)
    return np.concatenate(chosen), offsets


def _numbers(image: Image.Image, form: MapForm, path: Path) -> np.ndarray:
    if form == "rgb":
        if image.mode not in ("RGB", "RGBA", "P"):
            raise InputError(f"{path}: a map of colors must be an RGB picture, got mode {image.mode}")
        colors = np.asarray(image.convert("RGB")).astype(np.int32)
        return colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
    if image.mode not in _INDEXED:
        raise InputError(
            f"{path}: a map of labels must have one channel (gray, 16 bits or a palette), got mode {image.mode}"
        )
    return np.asarray(image).astype(np.int32)
