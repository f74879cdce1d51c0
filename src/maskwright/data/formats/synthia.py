"""SYNTHIA: RAND, RAND-CITYSCAPES, the video sequences, SF and AL.

==================  ==============  ====================================================================================
data set            pictures        labels
==================  ==============  ====================================================================================
RAND                ``RGB``         ``GTTXT/*.txt`` (class ids, a row a line) or ``GT/*.png`` (colors)
RAND-CITYSCAPES     ``RGB``         ``GT/LABELS/*.png`` (ids), else ``GT/COLOR``
sequences           ``RGB/Stereo_*``  ``GT/LABELS/Stereo_*/Omni_*/*.png`` (ids), else ``GT/COLOR``
SF                  ``RGBLeft``     ``GTLeft/*.png`` (colors)
AL                  ``RGB``         ``SemSeg/*.png`` (colors)
==================  ==============  ====================================================================================

Maps of ids are PNGs of 16 bits and three channels: the first is the class, the second numbers the objects of classes
that have any (0 for none). They give objects and ``semantic``, which then lies in memory (2 bytes a pixel), as that of
text does; colors are read when they are needed and say nothing of objects. ``label_colors.txt`` (``r g b name``) or
``dataset_meta.json`` (``label_map``, ``segmentation_colors``) in the folder replaces the table of colors. Of stereo
pictures each is an image of its own; folders of sequences become ``sequence``, with the file's number as ``frame``.

Source: Ros et al., "The SYNTHIA Dataset" (CVPR 2016), and the README of each data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder
from maskwright.data.formats.png16 import is_png16, read_png16
from maskwright.data.formats.synthia_tables import AL, CITYSCAPES, RAND, SEQUENCES, SF, THINGS, VOID, Row
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.storage import read_json
from maskwright.structures import LabelMap, Taxonomy

_MOST_TEXT = 1 << 26  # bytes of a text map


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a data set of the family has what."""

    pictures: str
    labels: str
    kind: str  # ids, colors, text
    rows: Sequence[Row]


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with the pictures' and labels' folders of one of the data sets."""
    return _layout(path) is not None


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read the one split there is.

    Args:
        path: the folder that holds ``RGB`` or ``RGBLeft``.
        images: a folder of pictures instead.
        strict: as in ``formats.read``.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, or most pixels of the first map are of
            no class.
    """
    layout = _layout(path)
    if layout is None:
        raise InputError(f"{path} has none of SYNTHIA's layouts (RGB with GT, GTTXT or SemSeg; RGBLeft with GTLeft).")
    rows = _own_rows(path) or layout.rows
    taxonomy = Taxonomy(
        names=tuple(row.name for row in rows),
        thing=tuple(row.name in THINGS for row in rows),
        colors=tuple(row.color for row in rows),
        source_ids=tuple(row.ident for row in rows),
    )
    build = Builder(path, "synthia", taxonomy, strict=strict)
    pictures = maps.files(path / layout.pictures if images is None else images)
    labels = maps.files(path / layout.labels, (".txt",) if layout.kind == "text" else maps.MAPS)
    colors, checked = maps.color_classes(taxonomy), False
    for name, picture, found in maps.paired(build, pictures, labels, WHOLE):
        size = image_size(picture)
        semantic: LabelMap | np.ndarray | None = None
        objects: np.ndarray | None = None
        if found is not None and layout.kind == "colors":
            semantic = LabelMap(path=found, form="rgb", classes=colors)
            if not checked:
                maps.check_classes(semantic)
                checked = True
        elif found is not None:
            kinds, objects = _numbers(found, layout.kind, size)
            semantic = maps.lookup(kinds, taxonomy.label_of)
            objects = np.where(np.isin(semantic, np.flatnonzero(taxonomy.thing)), objects, 0)
            objects = np.where(objects > 0, (semantic.astype(np.int64) + 1 << 16) | objects, 0)
        sequence = name.rpartition("/")[0] or None
        frame = maps.number_of(picture.stem) if sequence else None
        build.image(f"{name}{picture.suffix}", picture, size, sequence=sequence, frame=frame, semantic=semantic)
        if objects is not None:
            meaning = _meaning(taxonomy, sequence is not None)
            maps.add_objects(build, objects, meaning, str(found))
    return build.done()


def _meaning(taxonomy: Taxonomy, timed: bool) -> Callable[[int], maps.Meaning | None]:
    """Of label + 1 above 16 bits of object number."""

    def of(value: int) -> maps.Meaning | None:
        if value == 0:
            return None
        return maps.Meaning(taxonomy.names[(value >> 16) - 1], track=value & 0xFFFF if timed else None)

    return of


def _layout(path: Path) -> _Layout | None:
    png = ("*.png", "*/*.png", "*/*/*.png")
    for layout in (
        _Layout("RGB", "GT/LABELS", "ids", CITYSCAPES),
        _Layout("RGB", "GT/COLOR", "colors", CITYSCAPES),
        _Layout("RGB", "GTTXT", "text", RAND),
        _Layout("RGB", "GT", "colors", RAND),
        _Layout("RGBLeft", "GTLeft", "colors", SF),
        _Layout("RGB", "SemSeg", "colors", AL),
    ):
        if (path / layout.pictures).is_dir() and maps.holds(
            path / layout.labels, *(("*.txt",) if layout.kind == "text" else png)
        ):
            videos = maps.holds(path / layout.labels, "Stereo_*", "Omni_*")
            return _Layout(layout.pictures, layout.labels, layout.kind, SEQUENCES) if videos else layout
    return None


def _numbers(path: Path, kind: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The class ids and object numbers of every pixel, int [H, W] each."""
    if kind == "text":
        classes = _text(path)
        objects = np.zeros_like(classes)
    elif is_png16(path):
        channels = read_png16(path)
        classes, objects = channels[..., 0].astype(np.int64), channels[..., 1].astype(np.int64)
    else:
        classes = maps.read_flat(path, size)
        objects = np.zeros_like(classes)
    if classes.shape != size:
        raise InputError(
            f"{path}: the map must be as large as its picture, {size[0]}x{size[1]} (height x width), "
            f"got {classes.shape[0]}x{classes.shape[1]}"
        )
    return classes, objects


def _text(path: Path) -> np.ndarray:
    """The numbers of a text file, int64 [H, W]."""
    if path.stat().st_size > _MOST_TEXT:
        raise InputError(f"{path} is larger than a map of class ids can be ({_MOST_TEXT >> 20} MiB).")
    rows: list[np.ndarray] = []
    for number, line in enumerate(maps.lines(path), 1):
        if line.strip():
            try:
                row = np.array(line.split(), np.float64)
            except ValueError:
                row = np.array([np.nan])
            if not (np.abs(row) < 1 << 16).all():
                raise InputError(f"{path}:{number}: a row must be class ids below 65536, got {line[:60]!r}")
            rows.append(row.astype(np.int64))
            if len(rows[-1]) != len(rows[0]):
                raise InputError(f"{path}:{number}: a row must have {len(rows[0])} numbers, got {len(rows[-1])}")
    return np.stack(rows) if rows else np.zeros((0, 0), np.int64)


def _own_rows(path: Path) -> list[Row]:
    """The classes that a file in the folder names, without the one that is none."""
    table, meta = path / "label_colors.txt", path / "dataset_meta.json"
    named: list[tuple[str, maps.Color]] = []
    if table.is_file():
        named = maps.read_colors(table)
    elif meta.is_file():
        data = read_json(meta)
        try:
            names = [str(data["label_map"][key]) for key in sorted(data["label_map"], key=int)]
            colors = [(int(r), int(g), int(b)) for r, g, b in data["segmentation_colors"]]
            named = list(zip(names, colors, strict=True))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{meta} must hold label_map and segmentation_colors of the same length.") from error
        if len(set(names)) < len(names) or any(not 0 <= c < 256 for color in colors for c in color):
            raise InputError(f"{meta}: names must be distinct, colors in 0..255.")
    return [Row(name, i, color) for i, (name, color) in enumerate(named) if name.lower() not in VOID]
