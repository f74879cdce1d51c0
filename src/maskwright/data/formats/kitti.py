"""KITTI semantic and instance segmentation: ``training/image_2``, ``semantic`` and ``instance``; ``testing/image_2``.

A pixel of ``instance`` (16 bits) is class * 256 + number, number 0 where objects are not told apart (then a crowd, for
classes that have objects); a pixel of ``semantic`` is a class. Classes are those of Cityscapes. Either folder may be
absent. Records hold things as objects and the classes of all pixels as ``semantic``.

Source: development kit of the KITTI semantic/instance segmentation benchmark (README; Alhaija et al., 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from maskwright.data.dataset import Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder
from maskwright.data.formats.cityscapes_labels import BY_ID, Classes, labels_of, taxonomy_of
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.structures import LabelMap

_RADIX = 256
_PICTURES, _SEMANTIC, _INSTANCE = "image_2", "semantic", "instance"
_SPLITS = {"training": "train", "validation": "val", "testing": "test"}


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with ``*/image_2`` beside ``semantic`` or ``instance`` PNGs, or such a split itself."""
    patterns = [f"{name}/*.png" for name in (_SEMANTIC, _INSTANCE)]
    inside = [p for p in ("*/", "") if maps.holds(path, p + _PICTURES)]
    return maps.holds(path, *(deep + pattern for deep in inside for pattern in patterns))


def read(
    path: Path, *, images: Path | None = None, strict: bool = True, classes: Classes = "evaluated"
) -> Dataset:  # fmt: skip
    """Read all splits (``training`` is called ``train``, ``testing`` ``test``), or one split's folder.

    Args:
        path: the data set's folder, or a folder that holds ``image_2``.
        images: the folder of the pictures, where they are not in ``image_2``; of one split only.
        strict: as in ``formats.read``.
        classes: as for Cityscapes.

    Raises:
        InputError: the folder has another layout, files are missing or damaged.
    """
    parts = [path] if _is_split(path) else [folder for folder in maps.folders(path) if _is_split(folder)]
    if not parts:
        raise InputError(f"{path} holds no folder image_2 with semantic or instance beside it.")
    if images is not None and len(parts) > 1:
        raise InputError(f"{path} has several splits, so their pictures cannot all be in {images}. Read one split.")
    label_of = {row.ident: label for label, row in enumerate(labels_of(classes))}
    build = Builder(path, "kitti", taxonomy_of(classes), strict=strict)
    for folder in parts:
        _read_split(build, folder, folder / _PICTURES if images is None else images, label_of)
    return build.done()


def _is_split(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in (_PICTURES, _INSTANCE, _SEMANTIC))


def _read_split(build: Builder, folder: Path, pictures: Path, label_of: Mapping[int, int]) -> None:
    split = _SPLITS.get(folder.name, folder.name)
    semantic, instance = (maps.files(folder / name, (".png",)) for name in (_SEMANTIC, _INSTANCE))
    for name, picture, _ in maps.paired(build, maps.files(pictures), {**semantic, **instance}, split):
        size = image_size(picture)
        numbers = maps.read_flat(instance[name], size) if name in instance else None
        classes: LabelMap | None = None
        if name in semantic:
            classes = LabelMap(path=semantic[name], classes=label_of)
        elif numbers is not None:
            values = maps.present(numbers).tolist()
            own = {v: label_of[v // _RADIX] for v in values if v // _RADIX in label_of}
            classes = LabelMap(path=instance[name], classes=own)
        build.image(f"{name}{picture.suffix}", picture, size, split=split, semantic=classes)
        if numbers is not None:
            maps.add_objects(build, numbers, lambda value: _meaning(value, label_of), str(instance[name]))


def _meaning(value: int, label_of: Mapping[int, int]) -> maps.Meaning | None:
    ident, number = divmod(value, _RADIX)
    row = BY_ID.get(ident)
    if row is None or not row.instances or ident not in label_of:
        return None
    return maps.Meaning(row.name, crowd=number == 0)
