"""YOLO-seg as Ultralytics lays it out: ``data.yaml``, ``images/SPLIT/``, ``labels/SPLIT/*.txt``.

https://docs.ultralytics.com/datasets/segment/. A row of a label file is ``class x1 y1 x2 y2 x3 y3 ...``, one ring
normalized by the picture's width and height, or ``class x y width height``, a box by its center. A picture without a
label file has no objects. ``data.yaml`` names the classes (a list, or a mapping from their numbers) and where
``train``, ``val`` and ``test`` are: folders, lists of pictures (``.txt``), or several of them.

- Nothing outside the folder of ``data.yaml`` is read: a ``path`` that leads elsewhere is passed over, and of
  ``../train/images`` the dots are, as Ultralytics does where Roboflow wrote them.
- Folders that several keys name are one split, called as the folder. A ``test`` that is not there is passed over.
- Coordinates are kept to a billionth of a pixel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats.build import Builder
from maskwright.data.formats.coco_lists import refuse_repeats
from maskwright.data.formats.pictures import pictures_in, require_pictures
from maskwright.data.formats.yolo_write import RESERVED, picture, write
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.structures import Shape, Taxonomy

__all__ = ["picture", "read", "recognizes", "write"]

_SPLITS = ("train", "val", "test")
_LARGEST = 1 << 18  # bytes of a data.yaml
_OUTSIDE = 0.01  # how far beyond 0..1 a coordinate may be; Ultralytics allows as much
_NAMES = re.compile(rb"^names\s*:", re.MULTILINE)
_DEEP = re.compile(r"(?:[\[{][\s\"']*){64}")
_PARTS = re.compile(rb"^(train|val|path)\s*:", re.MULTILINE)


def recognizes(path: Path) -> bool:
    """A YAML with ``names`` and ``train`` or ``val``, a folder that has one, or ``labels/`` with a ``classes.txt``."""
    return _yaml_of(path) is not None or (path.is_dir() and _classes_of(path) is not None)


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a data set: its folder or its ``data.yaml``; ``images`` stands for the folder of ``data.yaml``.

    Without a YAML, ``images/`` and ``labels/`` with a ``classes.txt`` (a name a line) are read.

    Raises:
        InputError: the YAML or a label file cannot be read; a folder or pictures are not on disk; rows cannot be used
            and ``strict``: not numbers, an even number of them, coordinates beyond 0..1, an unknown class.
    """
    file = _yaml_of(path)
    root = images or (path if path.is_dir() else path.parent)
    if file is not None:
        data = _load(file)
        taxonomy = _taxonomy(data.get("names"), file)
        splits = _splits(data, root, file)
    else:
        classes = _classes_of(path) if path.is_dir() else None
        if classes is None:
            raise InputError(f"{path} holds no YOLO data set: neither a data.yaml with names nor labels/classes.txt.")
        taxonomy = _taxonomy([name for name in _text(classes).splitlines() if name.strip()], classes)
        splits = {WHOLE: pictures_in(root / "images" if (root / "images").is_dir() else root)}
    build = Builder(path, "yolo", taxonomy, strict=strict)
    names = dict(zip(taxonomy.source_ids, taxonomy.names, strict=True))
    for split, pictures in splits.items():
        build.split(split)
        for key, file in pictures.items():
            size = image_size(file)
            build.image(key, file, size, split=split)
            labels = _labels_of(file, root)
            if labels is not None:
                for number, line in enumerate(_text(labels).splitlines(), 1):
                    if line.strip():
                        _row(build, line, size, names, f"{labels}:{number}")
    return build.done()


def _row(build: Builder, line: str, size: tuple[int, int], names: Mapping[int, str], where: str) -> bool:
    head, *rest = line.split()
    try:
        number = float(head)
        values = np.array(list(map(float, rest)), np.float64)
    except ValueError:
        return build.problem("a row that holds something else than numbers", where)
    if number not in names:
        return build.problem("a class number that is not among the names", where)
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        return build.problem("a row that is neither a box (4 numbers) nor a polygon (pairs, 3 at least)", where)
    if not np.isfinite(values).all():
        return build.problem("a coordinate that is not finite", where)
    if values.min() < -_OUTSIDE or values.max() > 1 + _OUTSIDE:
        return build.problem("coordinates that are not normalized to 0..1", where)
    scale = np.array((size[1], size[0]), np.float64)
    shape: Shape = None
    box: list[float] | None = None
    if len(values) == 4:
        middle, half = values[:2], values[2:] / 2
        box = [*((middle - half) * scale).tolist(), *((middle + half) * scale).tolist()]
    else:
        shape = (np.round(values.reshape(-1, 2) * scale, 9),)
    return build.object(names[int(number)], shape, where, box=box)


# ---- what lies where ------------------------------------------------------------------------------------------------


def _yaml_of(path: Path) -> Path | None:
    if path.is_file():
        candidates = [path]
    else:
        candidates = sorted(p for p in path.glob("*") if p.suffix.lower() in (".yaml", ".yml"))
        candidates.sort(key=lambda p: p.stem != "data")
    for file in candidates:
        if file.suffix.lower() in (".yaml", ".yml"):
            try:
                with open(file, "rb") as opened:
                    text = opened.read(_LARGEST)
            except OSError:
                continue
            if _NAMES.search(text) and _PARTS.search(text):
                return file
    return None


def _classes_of(path: Path) -> Path | None:
    folders = (path, path / "labels")
    has_labels = (path / "labels").is_dir()
    return next((f / "classes.txt" for f in folders if has_labels and (f / "classes.txt").is_file()), None)


def _load(file: Path) -> dict[str, Any]:
    """The YAML with all scalars as text: ``no`` is a fine name for a class."""
    if file.stat().st_size > _LARGEST:
        raise InputError(f"{file} is too large for a data.yaml: {file.stat().st_size} bytes, at most {_LARGEST}.")
    text = _text(file)
    if _DEEP.search(text):
        raise InputError(f"{file} is nested too deep for a data.yaml.")
    try:
        data = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise InputError(f"{file}{line} is not YAML: {str(error)[:200] or type(error).__name__}.") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} must be a mapping with names, train and val, got {type(data).__name__}")
    return data


def _taxonomy(names: Any, file: Path) -> Taxonomy:
    if isinstance(names, dict):
        try:
            numbered = sorted((int(number), name) for number, name in names.items())
        except (TypeError, ValueError):
            raise InputError(f"{file}: names must be numbered from 0, or be a list.") from None
    elif isinstance(names, list):
        numbered = list(enumerate(names))
    else:
        raise InputError(f"{file}: names must be a list or a mapping from numbers, got {type(names).__name__}")
    if not all(isinstance(name, str) and name.strip() for _, name in numbered):
        raise InputError(f"{file}: every one of the names must be a text that is not empty.")
    refuse_repeats([name for _, name in numbered], "names", file)
    refuse_repeats([number for number, _ in numbered], "numbers of names", file)
    return Taxonomy(names=tuple(name for _, name in numbered), source_ids=tuple(number for number, _ in numbered))


def _splits(data: Mapping[str, Any], root: Path, file: Path) -> dict[str, dict[str, Path]]:
    """Split -> key -> picture."""
    path = data.get("path")
    if isinstance(path, str) and path and _inside(path) and (root / path).is_dir():
        root = root / path
    named: dict[tuple[Path, ...], list[str]] = {}
    for key, value in data.items():
        own = isinstance(value, str) and value.startswith("images/") and key not in RESERVED
        if not value or not isinstance(key, str) or not (key in _SPLITS or own):
            continue
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) and entry for entry in entries):
            raise InputError(f"{file}: {key} must be a folder, a list of pictures (.txt), or several of these.")
        found = [_place(entry, root) for entry in entries]
        missing = [entry for entry, place in zip(entries, found, strict=True) if place is None]
        if missing and key == "test":
            continue
        if missing:
            raise InputError(
                f"{file}: {key} names {missing[0][:120]!r}, which is not in {root}. "
                "Name the folder that holds it with images= (--images)."
            )
        named.setdefault(tuple(place for place in found if place is not None), []).append(key)
    if not named:
        raise InputError(f"{file}: neither train nor val names pictures.")
    splits: dict[str, dict[str, Path]] = {}
    for places, keys in named.items():
        split = keys[0] if len(keys) == 1 else places[0].stem
        pictures: dict[str, Path] = {}
        for place in places:
            if place.is_dir():
                found = pictures_in(place)
                start = f"{place.relative_to(root).as_posix()}/" if len(places) > 1 else ""
                pictures.update({start + key: picture for key, picture in found.items()})
            else:
                pictures.update(_listed(place, root))
        splits[split] = pictures
    return splits


def _inside(entry: str) -> bool:
    return not Path(entry).is_absolute() and ".." not in Path(entry).parts


def _place(entry: str, root: Path) -> Path | None:
    """The folder or list that an entry means, if it is there and inside ``root``."""
    plain = entry.replace("\\", "/")
    if plain.startswith("/"):
        start = f"{root.as_posix().rstrip('/')}/"
        plain = plain.removeprefix(start)
    while plain.startswith(("../", "./")):
        plain = plain.partition("/")[2]
    if not _inside(plain):
        return None
    place = root / plain
    return place if place.is_dir() or (place.suffix == ".txt" and place.is_file()) else None


def _listed(file: Path, root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    missing: list[str] = []
    for line in map(str.strip, _text(file).splitlines()):
        if not line:
            continue
        plain = line.replace("\\", "/").removeprefix(f"{root.as_posix()}/")
        base = file.parent if plain.startswith("./") else root
        plain = plain.removeprefix("./")
        if not _inside(plain):
            raise InputError(f"{file}: a picture must lie inside {root}, got {line[:120]!r}.")
        if (base / plain).is_file():
            found[plain] = base / plain
        else:
            missing.append(line)
    require_pictures(missing, len(missing) + len(found), file, [root])
    return found


def _labels_of(picture: Path, root: Path) -> Path | None:
    """The label file of a picture: under ``labels`` in place of the last ``images``, or beside it."""
    candidates: list[Path] = []
    parts = list(picture.relative_to(root).parts) if picture.is_relative_to(root) else list(picture.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
        candidates.append(root.joinpath(*parts).with_suffix(".txt"))
    elif root.name == "images":
        candidates.append((root.parent / "labels").joinpath(*parts).with_suffix(".txt"))
    candidates.append(picture.with_suffix(".txt"))
    return next((file for file in candidates if file.is_file()), None)


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} must be text in UTF-8: {error}.") from error
