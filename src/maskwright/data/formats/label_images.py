"""Label images, as microscopy has them: a picture and a map whose values are its objects, 0 for background; one class.

- StarDist: ``[SPLIT/]images/NAME.tif`` and ``[SPLIT/]masks/NAME.tif``; the folders may be called ``images``, ``image``,
  ``imgs`` or ``img`` and ``masks``, ``mask``, ``labels`` or ``label``;
- Cellpose: ``[SPLIT/]NAME.tif`` and ``NAME_masks.tif`` (``NAME_cp_masks.png``) in one folder, the picture perhaps
  called ``NAME_img.tif``.

Maps are PNG or TIFF of 8, 16 or 32 bits, in two folders perhaps with ``_masks``, ``_mask``, ``_labels`` or ``_label``
after the name. All objects are of the class ``object``. Files of several pages are volumes or films and are refused.

Source: https://github.com/stardist/stardist and https://cellpose.readthedocs.io (inputs, training data).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps, maps_out
from maskwright.data.formats.build import Builder
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.structures import Record, Taxonomy

_CLASS = "object"
_PICTURES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "label")
_ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label")
_OWN = ("_img",)
_MOST = (1 << 16) - 1
_GRAY = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")

_Pairs = tuple[str, dict[str, Path], dict[str, Path]]  # split, pictures, maps


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with a picture and a map of one channel that belong together, in one of the layouts."""
    if not maps.holds(path, *_MASKS, *(f"*/{name}" for name in _MASKS)) and not any(
        maps.holds(path, f"*{ending}.*", f"*/*{ending}.*") for ending in _ENDINGS
    ):
        return False  # before any folder of pictures is walked
    for _, pictures, labels in _splits(path, None):
        for name in pictures.keys() & labels.keys():
            return maps.header(labels[name])[0] in _GRAY
    return False


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all splits.

    Args:
        path: the data set's folder, or the folder of the maps if ``images`` is given.
        images: the folder of the pictures.
        strict: as in ``formats.read``.

    Returns:
        objects in the order of their values.

    Raises:
        InputError: the folder has another layout, files are missing or damaged, a map has several pages or channels or
            values beyond 2^31 - 1.
    """
    parts = list(_splits(path, images))
    if not any(labels for _, _, labels in parts):
        raise InputError(f"{path} holds no pictures with label images (images and masks, or NAME and NAME_masks).")
    build = Builder(path, "label_images", Taxonomy(names=(_CLASS,)), strict=strict)
    for split, pictures, labels in parts:
        for name, file, found in maps.paired(build, pictures, labels, split):
            size = image_size(file)
            build.image(f"{name}{file.suffix}", file, size, split=split)
            if found is None:
                continue
            numbers = maps.read_flat(found, size)
            if numbers.min() < 0:
                raise InputError(f"{found}: labels must lie in 0..2^31 - 1, got negative ones or larger ones.")
            maps.add_objects(build, numbers, lambda value: maps.Meaning(_CLASS) if value else None, str(found))
    return build.done()


def picture(root: Path, split: str, record: Record) -> Path:
    """Where a record's picture belongs in the folder that ``write`` made."""
    return root / split / "images" / record.key


def write(
    path: Path, dataset: Dataset, *, overlap: maps_out.Overlap = "refuse", ending: Literal[".tif", ".png"] = ".tif"
) -> None:  # fmt: skip
    """Write ``SPLIT/masks/NAME.tif``: objects numbered from 1 in their order, 8 bits where they suffice, else 16.

    Args:
        path: the data set's folder.
        dataset: its objects are of one class; the class's name is lost.
        overlap: whether objects that overlap are refused.
        ending: of the maps.

    Raises:
        ValueError: another ending.
        InputError: objects of several classes, crowd regions, boxes without outlines, objects that overlap, over 65535
            of a picture, two pictures of one name; counted, before anything is written.
    """
    if ending not in (".tif", ".png"):
        raise ValueError(f"ending must be '.tif' or '.png', got {ending!r}")
    maps_out.check(path, dataset, overlap=overlap, one_class=True, most=_MOST)
    maps_out.check_stems(path, dataset)
    for split in dataset.splits:
        for name in ("images", "masks"):
            (path / split / name).mkdir(parents=True, exist_ok=True)
    for split, record in maps_out.records(dataset):
        ids = maps_out.painted(record, np.arange(1, len(record) + 1))
        maps_out.save_map(path / split / "masks" / f"{maps_out.stem_of(record.key)}{ending}", ids)


def _splits(path: Path, images: Path | None) -> Iterator[_Pairs]:
    """Every split's pictures and maps by name; unlabeled splits too."""
    if images is not None:
        masks = maps.first_existing(path / name for name in _MASKS) or path
        pictures = maps.files(images)
        yield WHOLE, pictures, _plain(maps.files(masks, maps.MAPS), pictures)
        return
    found = [(WHOLE, path)] if _kind(path) else [(f.name, f) for f in maps.folders(path) if _kind(f)]
    for split, folder in found:
        if _kind(folder) == "folders":
            masks = maps.first_existing(folder / name for name in _MASKS)
            pictures = maps.files(maps.first_existing(folder / name for name in _PICTURES) or folder)
            yield split, pictures, _plain(maps.files(masks, maps.MAPS) if masks is not None else {}, pictures)
        else:
            files = maps.files(folder, deep=False)
            labels = {n: f for n, f in files.items() if n.endswith(_ENDINGS) and f.suffix.lower() in maps.MAPS}
            rest = {_without(n, _OWN): f for n, f in files.items() if n not in labels}
            yield split, rest, _plain(labels, {})


def _kind(folder: Path) -> str:
    """The layout of a split's folder, "" for none."""
    if any((folder / name).is_dir() for name in _PICTURES):
        return "folders"
    return "beside" if maps.holds(folder, *(f"*{ending}.*" for ending in _ENDINGS)) else ""


def _plain(files: dict[str, Path], pictures: dict[str, Path]) -> dict[str, Path]:
    """Maps by their picture's name, which may end as the names of maps do."""
    return {name if name in pictures else _without(name, _ENDINGS): file for name, file in files.items()}


def _without(name: str, endings: tuple[str, ...]) -> str:
    return next((name[: -len(end)] for end in endings if name.endswith(end)), name)
