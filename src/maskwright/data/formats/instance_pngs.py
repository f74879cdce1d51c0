"""A folder a picture with a mask a file, as in the 2018 Data Science Bowl; one class.

``[SPLIT/]ID/images/NAME.png`` and ``[SPLIT/]ID/masks/*.png``, each mask one object, not 0 where it is; masks may
overlap. ``stage1_train`` is called ``train``, and so on. A folder without ``masks`` is unlabeled and belongs to a split
named ``test...`` or without any; a ``masks`` without files has no objects. All are of the class ``object``. IDs may
have folders.

Source: https://www.kaggle.com/c/data-science-bowl-2018/data.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import maps, maps_out
from maskwright.data.formats.build import Builder
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Record, Taxonomy

_CLASS = "object"
_PICTURES, _MASKS = "images", "masks"
_PREFIX = "stage1_"


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with ``ID/images`` that has one picture, and ``ID/masks`` that has none of the picture's name."""
    for folder in (f.parent for pattern in ("*/masks", "*/*/masks", "*/*/*/masks") for f in path.glob(pattern)):
        pictures = maps.files(folder / _PICTURES, deep=False)
        name = glob.escape(next(iter(pictures), ""))
        same = (f"{name}.*", f"{name}_mask*.*", f"{name}_label*.*")
        return len(pictures) == 1 and not maps.holds(folder / _MASKS, *same)
    return False


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all splits.

    Args:
        path: the folder of the pictures' folders, or of the splits' folders.
        images: not used here: a picture lies beside its masks.
        strict: as in ``formats.read``.

    Returns:
        keys are ``ID`` with the picture's ending.

    Raises:
        InputError: the folder has another layout, a folder has not one picture, files are damaged.
    """
    if images is not None:
        raise InputError(f"{path}: pictures lie beside their masks in this format; leave out images= (--images).")
    parts = _parts(path)
    if not any(parts.values()):
        raise InputError(f"{path} holds no folders ID/{_PICTURES} with ID/{_MASKS} beside.")
    build = Builder(path, "instance_pngs", Taxonomy(names=(_CLASS,)), strict=strict)
    for split, folders in parts.items():
        pictures: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        for name, folder in folders.items():
            files = maps.files(folder / _PICTURES, deep=False)
            if len(files) != 1:
                build.problem(f"{len(files)} pictures where one must be", str(folder / _PICTURES))
                continue
            pictures[name] = next(iter(files.values()))
            if (folder / _MASKS).is_dir():
                masks[name] = folder / _MASKS
        for name, file, found in maps.paired(build, pictures, masks, split):
            size = image_size(file)
            build.image(f"{name}{file.suffix}", file, size, split=split)
            for mask in sorted(maps.files(found, maps.MAPS, deep=False).values()) if found is not None else ():
                inside = maps.read_flat(mask, size) != 0
                counts, offsets = rle.encode(np.ascontiguousarray(inside)[None])
                shape = rle.to_coco(counts, offsets, size)[0]
                build.object(_CLASS, {"size": size, "counts": shape["counts"].encode("ascii")}, str(mask))
    return build.done()


def picture(root: Path, split: str, record: Record) -> Path:
    """Where a record's picture belongs in the folder that ``write`` made."""
    folder = root / split / maps_out.stem_of(record.key)
    return folder / _PICTURES / f"{folder.name}{Path(record.key).suffix or '.png'}"


def write(path: Path, dataset: Dataset) -> None:
    """Write ``SPLIT/ID/masks/object_NUMBER.png``, 255 where the object is; ID is the record's key without its ending.

    Args:
        path: the data set's folder.
        dataset: its objects are of one class; the class's name is lost.

    Raises:
        InputError: objects of several classes, crowd regions, boxes without outlines, two pictures of one ID; counted,
            before anything is written.
    """
    maps_out.check(path, dataset, one_class=True, apart=False)
    maps_out.check_stems(path, dataset)
    for split in dataset.splits:
        (path / split).mkdir(parents=True, exist_ok=True)
    for split, record in maps_out.records(dataset):
        folder = path / split / maps_out.stem_of(record.key)
        (folder / _MASKS).mkdir(parents=True, exist_ok=True)
        runs = maps_out.masks(record)
        for i in range(len(record)):
            mask = rle.decode(*rle.take(*runs, np.array([i])), record.size)[0]
            maps_out.save_map(folder / _MASKS / f"object_{i + 1:05d}.png", mask.astype(np.uint8) * 255)


def _parts(path: Path) -> dict[str, dict[str, Path]]:
    """Split -> ID -> folder."""
    found: list[tuple[str, ...]] = []
    for root, inside, _ in os.walk(path):
        if _PICTURES in inside:
            found.append(Path(root).relative_to(path).parts)
        inside[:] = sorted(f for f in inside if f not in (_PICTURES, _MASKS) and not f.startswith("."))
    if any(len(parts) < 2 for parts in found):
        return {WHOLE: {"/".join(parts): path.joinpath(*parts) for parts in found if parts}}
    out: dict[str, dict[str, Path]] = {}
    for folder in maps.folders(path):
        own = {"/".join(parts[1:]): path.joinpath(*parts) for parts in found if parts[0] == folder.name}
        if own or not any(folder.iterdir()):
            out[folder.name.removeprefix(_PREFIX)] = own
    return out
