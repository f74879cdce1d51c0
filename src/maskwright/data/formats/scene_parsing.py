"""ADE20K's scene parsing benchmark: PNGs of 150 classes.

Zhou et al. (CVPR 2017); http://sceneparsing.csail.mit.edu, ``ADEChallengeData2016``. Layout: ``images/SPLIT/x.jpg``
and ``annotations/SPLIT/x.png`` with splits ``training`` and ``validation``. Value ``k`` is class ``k - 1`` of the
official table (``objectInfo150``), 0 is void. Where ``annotations_instance/SPLIT/x.png`` is there too (Places challenge
2017), it gives the objects of the 100 countable classes: red is the class among these from 1 on, green the object.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import Builder
from maskwright.data.formats.pictures import by_stem, pictures_in, require_pictures
from maskwright.data.formats.tables import ade20k
from maskwright.data.io import image_size
from maskwright.data.label_maps import read_map
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import LabelMap

_SPLITS = ("training", "validation", "testing")


def recognizes(path: Path) -> bool:
    """A folder with ``annotations/training`` or ``annotations/validation`` of PNGs."""
    return bool(_folders(path))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read the splits that are there.

    Raises:
        InputError: there are none; pictures are not on disk; an object has no class and ``strict``.
    """
    folders = _folders(path)
    if not folders:
        raise InputError(
            f"{path} holds no scene parsing data: neither annotations/training nor annotations/validation."
        )
    taxonomy = ade20k()
    values = taxonomy.label_of
    countable = [name for name, thing in zip(taxonomy.names, taxonomy.thing, strict=True) if thing]
    build = Builder(path, "scene-parsing", taxonomy, strict=strict)
    for split, folder in folders.items():
        build.split(split)
        maps = by_stem(pictures_in(folder, (".png",)))
        objects = by_stem(pictures_in(path / "annotations_instance" / split, (".png",)))
        root = (images or path / "images") / split
        root = root if root.is_dir() else (images or path / "images")
        pictures = by_stem(pictures_in(root))
        require_pictures([name for name in maps if name not in pictures], len(maps), path, [root])
        for name, (_, file) in maps.items():
            key, picture = pictures[name]
            size = image_size(picture)
            semantic = LabelMap(path=file, form="index", classes=values)
            build.image(key, picture, size, split=split, semantic=semantic)
            if name in objects:
                _objects(build, objects[name][1], size, countable)
    return build.done()


def _folders(path: Path) -> dict[str, Path]:
    found = {split: path / "annotations" / split for split in _SPLITS}
    return {split: folder for split, folder in found.items() if next(folder.glob("*.png"), None) is not None}


def _objects(build: Builder, file: Path, size: tuple[int, int], countable: list[str]) -> None:
    numbers = read_map(file, "rgb", size) & 0xFFFF
    values = np.unique(numbers)
    values = values[values >> 8 != 0]
    masks = rle.to_coco(*encode_map(numbers, values), size)
    for value, mask in zip(values.tolist(), masks, strict=True):
        where = f"{file.name} object {value >> 8}"
        if not 0 < value & 255 <= len(countable):
            build.problem("a class that is not one of the 100", where)
        else:
            build.object(countable[(value & 255) - 1], {"size": size, "counts": mask["counts"].encode("ascii")}, where)
