"""The lists that COCO's relatives share: which JSON files are there, their images, categories and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from maskwright.data.dataset import WHOLE
from maskwright.data.formats.build import inside_folder
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.io import image_size
from maskwright.errors import InputError
from maskwright.storage import read_json
from maskwright.structures import Taxonomy

_LOOKED_AT = 1 << 16
_BEYOND = 1 << 63
_LONGEST = 1 << 31


def json_files(path: Path, looks_right: Callable[[bytes], bool], prefix: str) -> dict[str, Path]:
    """Split -> JSON file: ``path`` itself, or those in ``annotations/`` or the folder, named by their split.

    A file is judged by its first and last 64 kB; nothing is raised.
    """
    if path.is_file():
        return {WHOLE: path} if looks_right(_ends(path)) else {}
    for folder in (path / "annotations", path):
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        found = {file.stem.removeprefix(prefix): file for file in files if looks_right(_ends(file))}
        if found:
            return found
    return {}


def has_instances(path: Path) -> bool:
    """Whether a folder holds COCO instances (``instances*.json``, beside or in ``annotations/``) too.

    COCO keeps its annotations of all kinds in one folder; unless another is named, it is the one of instances.
    """
    return path.is_dir() and any(next(f.glob("instances*.json"), None) for f in (path, path / "annotations"))


def _ends(path: Path) -> bytes:
    if path.suffix.lower() != ".json":
        return b""
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT)
            file.seek(max(_LOOKED_AT, path.stat().st_size - _LOOKED_AT))
            return head + file.read(_LOOKED_AT)
    except OSError:
        return b""


def read_lists(path: Path, keys: Sequence[str], what: str) -> dict[str, list[dict[str, Any]]]:
    """The members ``keys`` of a JSON object, each a list of objects.

    Raises:
        InputError: the file is not JSON, or not of the kind ``what``.
    """
    data = read_json(path)
    missing = [key for key in keys if not isinstance(data, dict) or not isinstance(data.get(key), list)]
    if missing:
        raise InputError(f"{path} is not {what}: it lacks the lists {', '.join(missing)}.")
    for key in keys:
        for position, entry in enumerate(data[key]):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: entry {position} of {key} must be an object, got {type(entry).__name__}")
    return data


def read_taxonomy(entries: Sequence[Mapping[str, Any]], path: Path, *, thing: bool = True) -> Taxonomy:
    """The classes of a list of categories in the order of their ids.

    ``isthing`` and ``color`` are taken where every category has them; ``thing`` stands for the former elsewhere.

    Raises:
        InputError: a category lacks an integer id or a name, or ids or names repeat.
    """
    for position, entry in enumerate(entries):
        if not is_int(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: category {position} must have an integer id and a name, got {str(entry)[:120]}")
    refuse_repeats([entry["id"] for entry in entries], "category ids", path)
    refuse_repeats([entry["name"] for entry in entries], "category names", path)
    ordered = sorted(entries, key=lambda entry: entry["id"])
    colors = [tuple(entry["color"]) for entry in ordered if _is_color(entry.get("color"))]
    flags = [bool(entry["isthing"]) for entry in ordered if entry.get("isthing") in (0, 1)]
    return Taxonomy(
        names=tuple(entry["name"] for entry in ordered),
        thing=tuple(flags) if len(flags) == len(ordered) else (thing,) * len(ordered),
        colors=tuple((r, g, b) for r, g, b in colors) if len(colors) == len(ordered) else (),
        source_ids=tuple(entry["id"] for entry in ordered),
    )


def joined(taxonomies: Sequence[Taxonomy]) -> Taxonomy:
    """The classes of all splits by name: in the order of the first, then what the others add."""
    rows: dict[str, tuple[bool, tuple[int, int, int], int]] = {}
    for one in taxonomies:
        for row in zip(one.names, one.thing, one.colors, one.source_ids, strict=True):
            rows.setdefault(row[0], row[1:])
    ids = [ident for _, _, ident in rows.values()]
    return Taxonomy(
        names=tuple(rows),
        thing=tuple(thing for thing, _, _ in rows.values()),
        colors=tuple(color for _, color, _ in rows.values()),
        source_ids=tuple(ids) if len(set(ids)) == len(ids) else (),
    )


def picture_roots(file: Path, split: str, images: Path | None) -> list[Path]:
    """Folders where the pictures of a split may lie, in the order they are looked in."""
    if images is not None:
        if not images.is_dir():
            raise InputError(f"the folder of images must be a directory, got {images}")
        return [images, images / split]
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    name = file.stem.rpartition("_")[2]
    roots = [file.parent, file.parent / "images"]
    for folder in dict.fromkeys((split, name)):
        roots += [base / "images" / folder, base / folder]
    return list(dict.fromkeys([*roots, base / "images", base]))


def locate(names: Sequence[str], path: Path, roots: Sequence[Path]) -> list[Path]:
    """Where each picture is: the first of ``roots`` that has it.

    Raises:
        InputError: a name leaves its folder; pictures are not on disk (counted, the first five named).
    """
    found: list[Path] = []
    missing: list[str] = []
    for name in names:
        plain = inside_folder(name, path)
        place = next((root / plain for root in roots if (root / plain).is_file()), None)
        if place is None:
            missing.append(name)
        found.append(place or roots[0] / plain)
    require_pictures(missing, len(names), path, roots)
    return found


def size_of(entry: Mapping[str, Any], picture: Path, path: Path) -> tuple[int, int]:
    """(H, W) as the entry says it, else from the picture's header; ``InputError`` where it is neither."""
    if "height" not in entry and "width" not in entry:
        return image_size(picture)
    height, width = entry.get("height"), entry.get("width")
    if not (is_int(height) and is_int(width) and 0 < height < _LONGEST and 0 < width < _LONGEST):
        raise InputError(
            f"{path}: image {entry.get('id')} must have a positive integer height and width, got {height} and {width}"
        )
    return height, width


def refuse_repeats(values: Sequence[Any], what: str, path: Path) -> None:
    """``InputError`` that counts the values that are there more than once, if any."""
    if len(set(values)) < len(values):
        seen: set[Any] = set()
        twice = list(dict.fromkeys(v for v in values if v in seen or seen.add(v)))
        raise InputError(f"{path}: {what} must be distinct, but {len(twice)} repeat: {', '.join(map(str, twice[:5]))}")


def is_int(value: Any) -> TypeGuard[int]:
    """An integer of at most 64 bits that is not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and -_BEYOND <= value < _BEYOND


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_int(v) and 0 <= v <= 255 for v in value)
