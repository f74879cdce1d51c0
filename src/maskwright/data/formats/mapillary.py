"""Mapillary Vistas 1.2 and 2.0: class and instance maps, named by a configuration.

``config*.json`` lists the labels in the order of their numbers (``name``, ``readable``, ``color``, ``instances``,
``evaluate``). A split (``training``, ``validation``, ``testing``: ``train``, ``val``, ``test`` here) has
``images/*.jpg`` and, in itself or in a folder named as the version (``v1.2``, ``v2.0``), ``labels/*.png`` (a palette of
class numbers) and ``instances/*.png`` (16 bits: class * 256 + number). Of several versions the newest is read unless
``path`` names the folder that the wanted configuration lies in, or the configuration itself. Classes that are not
evaluated are void. ``panoptic`` is COCO's format: read it as ``coco_panoptic``.

Source: Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes" (ICCV 2017), README
and ``demo.py`` of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.data.dataset import Dataset
from maskwright.data.formats import maps
from maskwright.data.formats.build import Builder
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.storage import read_json
from maskwright.structures import LabelMap, Taxonomy

_RADIX = 256
_SPLITS = {"training": "train", "validation": "val", "testing": "test"}
_CONFIG = "config*.json"


@dataclass(frozen=True, slots=True)
class _Label:
    """A row of the configuration."""

    name: str
    color: maps.Color
    instances: bool
    evaluate: bool


@maps.careful
def recognizes(path: Path) -> bool:
    """A folder with ``config*.json`` and ``training``, ``validation`` or ``testing`` pictures; or such a file."""
    root = path.parent if path.is_file() else path
    named = path.match(_CONFIG) if path.is_file() else maps.holds(path, _CONFIG)
    return named and maps.holds(root, *(f"{split}/images" for split in _SPLITS))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read all splits.

    Args:
        path: the folder of the data set, or one of its configurations.
        images: a folder of the pictures of all splits, by split, instead of ``SPLIT/images``.
        strict: as in ``formats.read``.

    Raises:
        InputError: no configuration, or one of another form; files are missing or damaged.
    """
    root = path.parent if path.is_file() else path
    configs = [path] if path.is_file() else sorted(path.glob(_CONFIG), key=lambda p: p.name)
    if not configs:
        raise InputError(f"{path} holds no {_CONFIG}, which names the classes.")
    version = configs[-1].stem.removeprefix("config").strip("_")
    labels = _labels(configs[-1])
    chosen = [(number, row) for number, row in enumerate(labels) if row.evaluate]
    taxonomy = Taxonomy(
        names=tuple(row.name for _, row in chosen),
        thing=tuple(row.instances for _, row in chosen),
        colors=tuple(row.color for _, row in chosen),
        source_ids=tuple(number for number, _ in chosen),
    )
    build = Builder(path, "mapillary", taxonomy, strict=strict)
    label_of = taxonomy.label_of

    def meaning(value: int) -> maps.Meaning | None:
        label = label_of.get(value // _RADIX)
        return None if label is None or not taxonomy.thing[label] else maps.Meaning(taxonomy.names[label])

    for folder in (root / name for name in _SPLITS):
        if not folder.is_dir():
            continue
        truth = folder / version if version and (folder / version).is_dir() else folder
        classes, objects = (maps.files(truth / name, (".png",)) for name in ("labels", "instances"))
        split = _SPLITS[folder.name]
        pictures = maps.files(folder / "images" if images is None else images / folder.name)
        for name, file, _ in maps.paired(build, pictures, {**classes, **objects}, split):
            size = image_size(file)
            numbers = maps.read_flat(objects[name], size) if name in objects else None
            semantic: LabelMap | None = None
            if name in classes:
                semantic = LabelMap(path=classes[name], classes=label_of)
            elif numbers is not None:
                values = maps.present(numbers).tolist()
                own = {v: label_of[v // _RADIX] for v in values if v // _RADIX in label_of}
                semantic = LabelMap(path=objects[name], classes=own)
            build.image(f"{name}{file.suffix}", file, size, split=split, semantic=semantic)
            if numbers is not None:
                maps.add_objects(build, numbers, meaning, str(objects[name]))
    return build.done()


def _labels(path: Path) -> list[_Label]:
    data = read_json(path)
    rows: Any = data.get("labels") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path} must hold a list of labels.")
    out: list[_Label] = []
    for number, row in enumerate(rows):
        color = row.get("color") if isinstance(row, dict) else None
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("name"), str)
            or not isinstance(color, list)
            or len(color) < 3
            or not all(isinstance(c, int) and 0 <= c < 256 for c in color)
        ):
            raise InputError(f"{path}: label {number} must have a name and a color of three numbers in 0..255.")
        flags = bool(row.get("instances", False)), bool(row.get("evaluate", True))
        out.append(_Label(row["name"], (color[0], color[1], color[2]), *flags))
    names = [row.name for row in out if row.evaluate]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: labels must have distinct names, but these repeat: {', '.join(twice[:5])}")
    return out
