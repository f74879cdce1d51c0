"""COCO-Stuff: JSON with the run-lengths of stuff, or PNGs of classes.

Caesar et al., COCO-Stuff (CVPR 2018); https://github.com/nightrome/cocostuff. Three forms:

- ``stuff_SPLIT.json``: as COCO instances, one object a class and image; no class is a thing. Category 183, ``other``,
  covers things where the file has it.
- ``stuffthingmaps/SPLIT/*.png``: a pixel is its category id less one, 255 is void; 80 things and 91 stuff classes.
- ``stuff_SPLIT_pixelmaps/*.png``: a pixel is its category id, 0 is void, 183 is ``other``; no things.

Maps are ``semantic``, decoded when they are needed; their pictures have no objects.
"""

from __future__ import annotations

import re
from pathlib import Path

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats.build import Builder
from maskwright.data.formats.coco_lists import (
    has_instances,
    is_int,
    json_files,
    locate,
    picture_roots,
    read_lists,
    read_taxonomy,
)
from maskwright.data.formats.coco_table import joined_tables, table_of
from maskwright.data.formats.pictures import by_stem, pictures_in, require_pictures
from maskwright.data.formats.tables import coco_stuff
from maskwright.data.io import image_size
from maskwright.data.table import Table
from maskwright.errors import InputError
from maskwright.structures import LabelMap, Taxonomy

_KEYS = ("images", "annotations", "categories")
_PREFIX = "stuff_"
_OTHER = 183
_THING_MAPS = "stuffthingmaps"
_STUFF_MAPS = re.compile(r"^stuff_(.+)_pixelmaps$")
_SPLIT = re.compile(r"^(train|val|test)(2014|2017)$")


def recognizes(path: Path) -> bool:
    """A JSON called ``stuff_...``, a folder of such files, but none of instances, or a folder of COCO-Stuff's PNGs."""
    return (bool(_files(path)) or bool(_folders(path))) and not has_instances(path)


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read JSON files, each a split, or, where there are none, the PNGs of the splits.

    Pictures lie in ``images/SPLIT``, ``images``, a folder called as the split, or in ``images``.

    Raises:
        InputError: nothing of COCO-Stuff is there; a JSON is not COCO's; pictures are not on disk; objects cannot be
            used and ``strict`` (as COCO's).
    """
    files = _files(path)
    if files:
        return _read_json(files, images, strict)
    folders = _folders(path)
    if not folders:
        raise InputError(f"{path} holds neither stuff_SPLIT.json nor stuffthingmaps nor stuff_SPLIT_pixelmaps.")
    return _read_maps(path, folders, images, strict)


def _files(path: Path) -> dict[str, Path]:
    files = json_files(path, lambda text: text.lstrip()[:1] == b"{" and b'"segments_info"' not in text, _PREFIX)
    return {split: file for split, file in files.items() if file.name.startswith(_PREFIX)}


def _read_json(files: dict[str, Path], images: Path | None, strict: bool) -> Dataset:
    tables: dict[str, Table] = {}
    taxonomies: dict[str, Taxonomy] = {}
    dropped: dict[str, list[str]] = {}
    for split, file in files.items():
        data = read_lists(file, _KEYS, "a COCO-Stuff annotation file")
        for position, entry in enumerate(data["images"]):
            if not is_int(entry.get("id")) or not isinstance(entry.get("file_name"), str):
                raise InputError(f"{file}: image {position} must have an integer id and a file_name")
        names = [entry["file_name"] for entry in data["images"]]
        paths = locate(names, file, picture_roots(file, split, images))
        taxonomies[split] = read_taxonomy(data["categories"], file, thing=False)
        tables[split], found = table_of(data, names, paths, taxonomies[split], file, strict=strict)
        for kind, ids in found.items():
            dropped.setdefault(kind, []).extend(f"{file.name} annotation {ident}" for ident in ids)
    return joined_tables("coco-stuff", tables, taxonomies, dropped)


def _folders(path: Path) -> dict[str, tuple[Path, bool]]:
    """Split -> its folder of PNGs, and whether things are among their classes."""
    if not path.is_dir():
        return {}
    own = _STUFF_MAPS.match(path.name)
    if own:
        return {own.group(1): (path, False)} if _has_png(path) else {}
    found: dict[str, tuple[Path, bool]] = {}
    for folder in (path, path / "annotations"):
        for child in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _STUFF_MAPS.match(child.name)
            if match and child.is_dir() and _has_png(child):
                found[match.group(1)] = (child, False)
    if found:
        return found
    maps = path if path.name.startswith(_THING_MAPS) else next(iter(sorted(path.glob(f"{_THING_MAPS}*"))), None)
    if maps is not None and maps.is_dir():
        inner = [child for child in sorted(maps.iterdir()) if child.is_dir() and _has_png(child)]
        return {child.name: (child, True) for child in inner} or ({WHOLE: (maps, True)} if _has_png(maps) else {})
    annotations = path / "annotations"
    inner = [child for child in sorted(annotations.iterdir()) if annotations.is_dir()] if annotations.is_dir() else []
    return {c.name: (c, True) for c in inner if _SPLIT.match(c.name) and c.is_dir() and _has_png(c)}


def _has_png(folder: Path) -> bool:
    return next(folder.glob("*.png"), None) is not None


def _read_maps(path: Path, folders: dict[str, tuple[Path, bool]], images: Path | None, strict: bool) -> Dataset:
    with_things = any(things for _, things in folders.values())
    taxonomy = coco_stuff(things=with_things)
    if not with_things:
        taxonomy = Taxonomy(
            names=(*taxonomy.names, "other"),
            thing=(*taxonomy.thing, False),
            source_ids=(*taxonomy.source_ids, _OTHER),
        )
    values = {ident - int(with_things): label for ident, label in taxonomy.label_of.items()}
    build = Builder(path, "coco-stuff", taxonomy, strict=strict)
    for split, (folder, _) in folders.items():
        build.split(split)
        maps = by_stem(pictures_in(folder, (".png",)))
        roots = _roots(folder, split, images)
        found = next((f for f in map(_pictures, roots) if f.keys() & maps.keys()), {})
        require_pictures([name for name in maps if name not in found], len(maps), path, roots)
        for name, (_, map_) in maps.items():
            key, picture = found[name]
            semantic = LabelMap(path=map_, form="index", classes=values)
            build.image(key, picture, image_size(picture), split=split, semantic=semantic)
    return build.done()


def _pictures(folder: Path) -> dict[str, tuple[str, Path]]:
    return by_stem({name: path for name, path in pictures_in(folder).items() if not name.endswith(".png")})


def _roots(folder: Path, split: str, images: Path | None) -> list[Path]:
    if images is not None:
        if not images.is_dir():
            raise InputError(f"the folder of images must be a directory, got {images}")
        return [images / split, images]
    bases = (folder.parent, folder.parent.parent)
    return [base / name for base in bases for name in (f"images/{split}", split, "images") if (base / name) != folder]
