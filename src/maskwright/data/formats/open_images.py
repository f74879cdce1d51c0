"""Open Images (V5 to V7): CSVs of boxes and masks, PNGs of masks, a hierarchy of classes.

Kuznetsova et al., The Open Images Dataset V4 (IJCV 2020); Benenson et al., Large-scale interactive object segmentation
(CVPR 2019); https://storage.googleapis.com/openimages/web/download_v7.html. The CSVs lie in the folder or in
``annotations/``, under the names they are downloaded by (``oidv6-`` and the like before them or not); pictures in
``images/SPLIT``, ``SPLIT`` or ``images``, masks in ``masks`` or ``SPLIT-masks*``.

- Pictures on disk decide. The CSVs list nine million, of which everybody has a part: rows of others are passed over,
  and their number is in ``dropped``, also when reading is strict.
- ``IsGroupOf`` is crowd. Occlusion, truncation, image-level labels and confidences are left out.
- A row of a mask and a row of a box that say the same class and box are one object. Masks are decoded while reading,
  because nothing says their area, and brought to the size of the picture, from which they may differ.
- Classes are called as the descriptions call them, and have their order; a code without one (``/m/0abc``) is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.open_images_csv import descriptions, each_row, expand, hierarchy
from maskwright.data.formats.pictures import by_stem, pictures_in
from maskwright.data.io import image_size
from maskwright.data.label_maps import read_map
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Shape, Taxonomy

__all__ = ["expand", "hierarchy", "read", "recognizes"]

SPLITS = ("train", "validation", "test")

_OBJECTS = re.compile(r"^(?:oidv\d+-)?(train|validation|test)-annotations-(bbox|object-segmentation)\.csv$")
_LISTS = re.compile(r"^(?:oidv\d+-)?(image_ids_and_rotation|.*images.*with-rotation)\.csv$")
_BOX = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf")
_MASK = ("ImageID", "LabelName", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax", "MaskPath")
_NEAR = 2e-3  # how far apart two rows may place the same box, as a part of the picture


@dataclass(slots=True)
class _Row:
    code: str
    sides: tuple[float, ...]  # x1, x2, y1, y2 in 0..1
    where: str
    crowd: bool = False
    mask: str = ""


def recognizes(path: Path) -> bool:
    """A folder with CSVs of Open Images, itself or in ``annotations/``."""
    return bool(_csvs(path, _OBJECTS) or _csvs(path, _LISTS))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read the splits that have pictures.

    Raises:
        InputError: nothing of Open Images is there; no picture is; a CSV lacks columns or is no CSV; rows cannot be
            used and ``strict``: not numbers, a class without a description, a box without area, a mask that is not on
            disk.
    """
    if path.is_file():
        path = path.parent
    root = path.parent if path.name == "annotations" else path
    tables, lists = _csvs(path, _OBJECTS), _csvs(path, _LISTS)
    if not tables and not lists:
        raise InputError(
            f"{path} holds no CSV of Open Images (SPLIT-annotations-bbox.csv, image_ids_and_rotation.csv)."
        )
    pictures = _pictures(root, images, lists, tables)
    if not any(pictures.values()):
        looked = images or root / "images"
        raise InputError(
            f"{path}: no picture is on disk (looked in {looked}). Name their folder with images= (--images)."
        )
    names = descriptions(path)
    boxes, masks, passed = _objects(tables, pictures)
    taxonomy = Taxonomy(names=tuple(names.values()))
    build = Builder(path, "open-images", taxonomy, strict=strict)
    for split, found in pictures.items():
        build.split(split)
        files = _mask_files(root, split) if any(masks[split].values()) else {}
        for ident, (key, picture) in found.items():
            size = image_size(picture)
            build.image(key, picture, size, split=split)
            _add(build, boxes[split].get(ident, []), masks[split].get(ident, []), size, names, files)
    made = build.done()
    return replace(made, dropped={**made.dropped, **passed}) if passed else made


def _add(
    build: Builder,
    boxes: Sequence[_Row],
    masks: Sequence[_Row],
    size: tuple[int, int],
    names: Mapping[str, str],
    files: Mapping[str, Path],
) -> None:
    shapes: dict[int, Shape] = {}
    alone: list[tuple[_Row, Shape]] = []
    for mask in masks:
        if mask.mask not in files:
            build.problem("a mask that is not on disk", mask.where)
            continue
        shape = _decoded(files[mask.mask], size)
        near = [
            (float(np.abs(np.subtract(box.sides, mask.sides)).max()), i)
            for i, box in enumerate(boxes)
            if i not in shapes and box.code == mask.code
        ]
        distance, i = min(near, default=(np.inf, -1))
        if distance <= _NEAR:
            shapes[i] = shape
        else:
            alone.append((mask, shape))
    rows = [(box, shapes.get(i)) for i, box in enumerate(boxes)] + alone
    for row, shape in rows:
        x1, x2, y1, y2 = row.sides
        box = (x1 * size[1], y1 * size[0], x2 * size[1], y2 * size[0])
        build.object(names.get(row.code, row.code), shape, row.where, box=box, crowd=row.crowd)


def _decoded(path: Path, size: tuple[int, int]) -> Shape:
    mask = read_map(path, "index") != 0
    if mask.shape != size:
        # The masks' pixels are those of the picture at another resolution.
        other = Image.fromarray(mask.astype(np.uint8))
        mask = np.asarray(other.resize((size[1], size[0]), Image.Resampling.NEAREST)) != 0
    counts = rle.encode(np.ascontiguousarray(mask)[None])[0]
    return {"size": size, "counts": rle.compress(counts)}


# ---- what lies where ------------------------------------------------------------------------------------------------


def _csvs(path: Path, pattern: re.Pattern[str]) -> list[Path]:
    if path.is_file():
        return [path] if pattern.match(path.name) else []
    for folder in (path / "annotations", path):
        found = [f for f in sorted(folder.glob("*.csv")) if pattern.match(f.name)] if folder.is_dir() else []
        if found:
            return found
    return []


def _pictures(
    root: Path, images: Path | None, lists: Sequence[Path], tables: Sequence[Path]
) -> dict[str, dict[str, tuple[str, Path]]]:
    """Split -> image id -> (key, path)."""
    if images is not None and not images.is_dir():
        raise InputError(f"the folder of images must be a directory, got {images}")
    bases = [images] if images is not None else [root / "images", root]
    found: dict[str, dict[str, tuple[str, Path]]] = {}
    for split in SPLITS:
        for base in bases:
            if (base / split).is_dir():
                found[split] = by_stem(pictures_in(base / split))
                break
    if found:
        return found
    loose = {name: path for base in bases[:1] for name, path in pictures_in(base).items()}
    left = by_stem(loose)
    splits: dict[str, dict[str, tuple[str, Path]]] = {}

    def place(ident: str, split: str) -> None:
        if ident in left:
            splits.setdefault(split, {})[ident] = left.pop(ident)

    for file in lists:
        for _, (ident, split) in each_row(file, ("ImageID", "Subset")):
            place(ident, split if split in SPLITS else WHOLE)
    for file in tables:
        for _, (ident,) in each_row(file, ("ImageID",)):
            place(ident, file.name.rpartition("-annotations-")[0].rpartition("-")[2])
    if left:
        splits[WHOLE] = {**splits.get(WHOLE, {}), **left}
    return splits


def _objects(
    tables: Sequence[Path], pictures: Mapping[str, Mapping[str, object]]
) -> tuple[dict[str, dict[str, list[_Row]]], dict[str, dict[str, list[_Row]]], dict[str, list[str]]]:
    """Split -> image id -> rows of boxes, and of masks; and the rows that were passed over."""
    boxes: dict[str, dict[str, list[_Row]]] = {split: {} for split in pictures}
    masks: dict[str, dict[str, list[_Row]]] = {split: {} for split in pictures}
    passed, first = 0, []
    for file in tables:
        match = _OBJECTS.match(file.name)
        assert match is not None
        split, masked = match.group(1), match.group(2) != "bbox"
        there = pictures.get(split, {})
        for number, (ident, code, *sides, last) in each_row(file, _MASK if masked else _BOX):
            if ident not in there:
                passed += 1
                if len(first) < 5:
                    first.append(f"{file.name}:{number} ({ident[:40]})")
                continue
            row = _Row(code, _floats(sides), f"{file.name}:{number}")
            if masked:
                row.mask = inside_folder(last, file)
            else:
                row.crowd = last.strip() == "1"
            (masks if masked else boxes)[split].setdefault(ident, []).append(row)
    return boxes, masks, {f"{passed} rows of pictures that are not on disk": first} if passed else {}


def _floats(texts: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, texts))
    except ValueError:
        return (float("nan"),) * len(texts)


def _mask_files(root: Path, split: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    folders = [root / "masks" / split, *sorted(root.glob(f"{split}-masks*")), root / "masks", root / "annotations"]
    for folder in folders:
        for name, path in pictures_in(folder, (".png",)).items() if folder.is_dir() else ():
            found.setdefault(name, path)
            found.setdefault(path.name, path)
    return found
