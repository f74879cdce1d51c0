"""ADE20K, the full releases of 2017 and 2020/2021: PNGs of objects and of their parts, and lists of their names.

Zhou et al., Scene Parsing through ADE20K (CVPR 2017) and Semantic Understanding of Scenes (IJCV 2019);
https://groups.csail.mit.edu/vision/datasets/ADE20K/. Beside ``x.jpg`` lie ``x_seg.png`` and, for parts and parts of
parts, ``x_parts_1.png`` and on. In all of them the class of a pixel is ``red // 10 * 256 + green`` and its object
``blue``, 0 where there is none. Names come from ``x.json`` (2020; ``name`` by its number ``name_ndx``) or from
``x_atr.txt`` (2017; ``object # level # occluded # name # raw name # attributes`` a line, its object being the blue
value, or the place of that value among those of the PNG).

Objects are what the PNGs show, so polygons and amodal masks of the JSON are not read; parts are objects too, listed
after those they belong to, unless ``parts`` is off. The class of the objects is ``semantic`` (parts are not in it).
Occlusion and attributes are left out. The release says nothing of things and stuff: all classes are things. The
benchmark with 150 classes is another format, ``scene_parsing``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats.build import Builder
from maskwright.data.formats.coco_lists import is_int
from maskwright.data.formats.pictures import pictures_in
from maskwright.data.io import image_size
from maskwright.data.label_maps import read_map
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.storage import read_json
from maskwright.structures import LabelMap, Taxonomy

_SPLITS = ("training", "validation", "test", "consistency")
_SEG = "_seg.png"
_LOOKED_AT = 20_000  # files, for recognition
_PART = re.compile(r"^(.*)_parts_(\d+)\.png$")


@dataclass(slots=True)
class _Names:
    """The names a picture's list gives: by class number, or by level and object."""

    by_class: dict[int, str]
    by_object: dict[tuple[int, int], str]

    @property
    def all(self) -> set[str]:
        return {*self.by_class.values(), *self.by_object.values()}


def recognizes(path: Path) -> bool:
    """A folder with ``..._seg.png`` and, beside one, ``.json`` or ``_atr.txt`` of its name."""
    seen = 0
    for _, folders, files in os.walk(path):
        folders.sort()
        there = set(files)
        for file in files:
            base = file.removesuffix(_SEG)
            if base != file and (f"{base}.json" in there or f"{base}_atr.txt" in there):
                return True
        seen += len(files)
        if seen > _LOOKED_AT:
            break
    return False


def read(path: Path, *, images: Path | None = None, strict: bool = True, parts: bool = True) -> Dataset:
    """Read a folder; ``training`` and ``validation`` below it are splits. Pictures lie beside their PNGs.

    All PNGs are decoded, because nothing else says where the objects are.

    Raises:
        InputError: there are no such PNGs; a list or PNG cannot be read; pictures are not on disk; an object has no
            name in its list, and ``strict``.
    """
    found = _found(path)
    if not found:
        raise InputError(f"{path} holds no ADE20K: no ..._seg.png with a list of names (.json or _atr.txt) beside.")
    listed = {name: _names(base) for name, base in found.items()}
    numbers: dict[str, int] = {}
    for names in listed.values():
        numbers.update({name: number for number, name in names.by_class.items()})
    classes = sorted({name for names in listed.values() for name in names.all})
    ids = [numbers.get(name, 0) for name in classes]
    distinct = len(set(ids)) == len(ids) and 0 not in ids
    taxonomy = Taxonomy(names=tuple(classes), source_ids=tuple(ids) if distinct else ())
    build = Builder(path, "ade20k", taxonomy, strict=strict)
    label_of = {name: label for label, name in enumerate(classes)}
    missing: list[str] = []
    for name, base in found.items():
        picture = _picture(base, name, images)
        if picture is None:
            missing.append(name)
        else:
            _image(build, name, base, picture, listed[name], label_of, parts)
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(found)} pictures are not on disk: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Put them beside their PNGs, or name their folder with images=."
        )
    return build.done()


def _image(
    build: Builder, name: str, base: Path, picture: Path, names: _Names, label_of: dict[str, int], parts: bool
) -> None:
    size = image_size(picture)
    seg = base.with_name(base.name + _SEG)
    levels = {0: seg}
    if parts:
        for file in base.parent.glob(f"{_escaped(base.name)}_parts_*.png"):
            match = _PART.match(file.name)
            if match and match.group(1) == base.name:
                levels[int(match.group(2))] = file
    maps = {level: read_map(file, "rgb", size) for level, file in sorted(levels.items())}
    labels = {
        value: label_of[called]
        for value, called in _called(maps[0], 0, names).items()
        if called is not None
    }  # fmt: skip
    parents = name.split("/")
    split = next((part for part in parents if part in _SPLITS), WHOLE)
    key = name + picture.suffix
    build.image(key, picture, size, split=split, semantic=LabelMap(path=seg, form="rgb", classes=labels))
    for level, numbers in maps.items():
        called = _called(numbers, level, names)
        if not called:
            continue
        values = np.array(sorted(called), np.int64)
        runs = rle.to_coco(*encode_map(numbers, values), size)
        for value, mask in zip(values.tolist(), runs, strict=True):
            where = f"{levels[level].name} object {value >> 16}"
            label = called[value]
            if label is None:
                build.problem("no name in its list", where)
            else:
                build.object(label, {"size": size, "counts": mask["counts"].encode("ascii")}, where)


def _called(numbers: np.ndarray, level: int, names: _Names) -> dict[int, str | None]:
    """The values of a map that are objects (whose blue is not 0), and their names."""
    values = np.unique(numbers)
    values = values[values >> 16 != 0]
    blues = sorted(set((values >> 16).tolist()))
    listed = {number for of, number in names.by_object if of == level}
    # The object's number is the blue value, or, where blue values are spread over 0..255, its rank among them.
    ranks = {blue: blue if set(blues) <= listed else rank for rank, blue in enumerate(blues, 1)}
    out: dict[int, str | None] = {}
    for value in values.tolist():
        number = (value & 255) // 10 * 256 + (value >> 8 & 255)
        out[value] = names.by_class.get(number) or names.by_object.get((level, ranks[value >> 16]))
    return out


# ---- what lies where ------------------------------------------------------------------------------------------------


def _found(path: Path) -> dict[str, Path]:
    """Name relative to ``path``, without ending -> the same as a path, of all pictures that have what is needed."""
    out: dict[str, Path] = {}
    for name, file in pictures_in(path, (_SEG,)).items():
        base = file.with_name(file.name[: -len(_SEG)])
        if any(base.with_name(base.name + ending).is_file() for ending in (".json", "_atr.txt")):
            out[name[: -len(_SEG)]] = base
    return out


def _picture(base: Path, name: str, images: Path | None) -> Path | None:
    start = base if images is None else images / name
    for ending in (".jpg", ".png", ".jpeg", ".JPG"):
        file = start.with_name(start.name + ending)
        if file.is_file():
            return file
    return None


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _names(base: Path) -> _Names:
    file = base.with_name(base.name + ".json")
    return _from_json(file) if file.is_file() else _from_text(base.with_name(base.name + "_atr.txt"))


def _from_json(file: Path) -> _Names:
    data = _json(file)
    annotation = data.get("annotation") if isinstance(data, dict) else None
    objects: Any = annotation.get("object") if isinstance(annotation, dict) else None
    if isinstance(objects, dict):
        objects = [objects]  # as MATLAB writes a list of one
    if not isinstance(objects, list):
        raise InputError(f"{file} is not a JSON of ADE20K: it must hold an annotation with a list object.")
    names: dict[int, str] = {}
    for position, entry in enumerate(objects):
        name = entry.get("name") if isinstance(entry, dict) else None
        number = entry.get("name_ndx") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip() or not is_int(number):
            raise InputError(f"{file}: object {position} must have a name and an integer name_ndx.")
        names[number] = name.strip()
    return _Names(names, {})


def _json(file: Path) -> Any:
    try:
        return read_json(file)
    except InputError:
        try:  # some files of the release are not in UTF-8
            return orjson.loads(file.read_bytes().decode("latin-1"))
        except (OSError, orjson.JSONDecodeError):
            pass
        raise


def _from_text(file: Path) -> _Names:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = file.read_text("latin-1").splitlines()  # some names of 2017 are
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}.") from error
    names: dict[tuple[int, int], str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("#")]
        try:
            ident, level = int(fields[0]), int(fields[1])
            name = fields[3]
        except (ValueError, IndexError):
            raise InputError(
                f"{file}:{number}: must be object # level # occluded # name # raw name # attributes"
            ) from None
        names[level, ident] = name or fields[-2]
    return _Names({}, names)
