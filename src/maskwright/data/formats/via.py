"""VGG Image Annotator (VIA), versions 1 to 3: https://www.robots.ox.ac.uk/~vgg/software/via.

Polygons, circles and ellipses are outlines, ``rect`` is a box without an outline; lines and points are left out. The
class is a region attribute: the only one there is; of several the one named class, label or category (or alike), else
name or type; without any attribute all objects are of the class ``object``. An attribute ``crowd`` (``iscrowd``,
``is_crowd``) marks regions of many objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.formats.via_files import Document, Region, load, looks_right
from maskwright.data.io import image_size
from maskwright.data.label_maps import resolve
from maskwright.data.source import Loads
from maskwright.errors import InputError
from maskwright.storage import write_json
from maskwright.structures import Record, Shape

PROJECT = "via_project.json"
ONLY = "object"
"""The class of objects without any attribute."""

_LINES = ("polyline", "line", "point")
_CROWD = ("crowd", "iscrowd", "is_crowd")
_CLASS = (
    ("class", "label", "category", "classname", "class_name", "labelname", "label_name", "categoryname",
     "category_name", "object_class"),
    ("name", "type"),
)  # fmt: skip


def recognizes(path: Path) -> bool:
    """A JSON or CSV of the tool, or a folder (of folders) that holds one."""
    try:
        return bool(_files(path))
    except OSError:
        return False


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read one file, or those of a folder: of several JSON files, or several folders with files, each is a split.

    Sizes are the pictures'. They are looked for beside the file, in ``images`` beside it, and where a project says.

    Raises:
        InputError: there is no such file; one is not of this format; it is not clear which attribute is the class;
            pictures are missing; objects are broken and ``strict``.
    """
    files = _files(path)
    if not files:
        raise InputError(f"{path} holds no file of VIA (JSON or CSV).")
    with figures.without_collection():
        documents = {split: load(file) for split, file in files.items()}
    name = class_attribute((r for d in documents.values() for rows in d.pictures.values() for r in rows), path)
    build = Builder(path, "via", strict=strict)
    left: dict[str, list[str]] = {}
    order: dict[str, None] = {}
    for split, document in documents.items():
        build.split(split)
        listed = [name] if name else [n for n in document.options if n.strip().lower() in _CLASS[0]]
        order |= dict.fromkeys(choice for one in listed for choice in document.options.get(one, ()) if choice.strip())
        for kind, where in document.left.items():
            left.setdefault(kind, []).extend(where)
        for key, found, regions in _located(document, images):
            size = image_size(found)
            build.image(key, found, size, split=split)
            for region in regions:
                _add(build, region, name, size, left)
    return figures.leaving_out(build.done(order), left)


def write(path: Path, dataset: Dataset) -> None:
    """Write a project of version 2 for each split: ``via_project.json``, in the folder of its pictures.

    Polygons stay polygons. Several parts, and holes, become one polygon that walks to each of them and back, which has
    the same pixels. Ids, areas, and boxes that differ from their outline are not kept.

    Raises:
        InputError: several splits into one file; a class without a name; the file cannot be written.
    """
    if any(not name.strip() for name in dataset.taxonomy.names):
        raise InputError("VIA cannot have a class with an empty name. Rename it (remap).")
    if path.suffix.lower() == ".json":
        if len(dataset.splits) != 1:
            raise InputError(f"{path}: one project holds one split, got {', '.join(dataset.splits)}. Name a folder.")
        (source,) = dataset.splits.values()
        write_json(path, _project(source))
        return
    for split, source in dataset.splits.items():
        root = path if split == WHOLE else path / inside_folder(split, path)
        write_json(root / PROJECT, _project(source))


def picture(root: Path, split: str, record: Record) -> Path:
    """Beside the project."""
    return root / record.key if split == WHOLE else root / split / record.key


# ---- reading --------------------------------------------------------------------------------------------------------


def _files(path: Path) -> dict[str, Path]:
    """Split -> file."""
    if path.is_file():
        return {WHOLE: path} if looks_right(path) else {}
    if not path.is_dir():
        return {}
    found = _in_folder(path)
    if found:
        return {WHOLE: found[0]} if len(found) == 1 else {file.stem: file for file in found}
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    return {p.name: files[0] for p in folders if (files := _in_folder(p))}


def _in_folder(folder: Path) -> list[Path]:
    for ending in ("*.json", "*.csv"):
        found = [file for file in sorted(folder.glob(ending)) if looks_right(file)]
        if found:
            return found
    return []


def class_attribute(regions: Iterable[Region], path: Path) -> str:
    """Which attribute is the class, ``""`` where no region has any.

    Raises:
        InputError: several could be; names them.
    """
    used: dict[str, None] = {}
    for region in regions:
        used |= dict.fromkeys(str(k) for k, v in region.attributes.items() if v not in ("", None, {}))
    names = [name for name in used if name.strip().lower() not in _CROWD]
    if len(names) < 2:
        return names[0] if names else ""
    for words in _CLASS:
        found = [name for name in names if name.strip().lower() in words]
        if len(found) == 1:
            return found[0]
        if found:
            names = found
            break
    raise InputError(
        f"{path}: which attribute is the class? The regions have {', '.join(names[:8])}. Rename the right one to class."
    )


def _located(document: Document, images: Path | None) -> list[tuple[str, Path, list[Region]]]:
    parent = document.file.parent
    roots = [parent, parent / "images"] if images is None else [images]
    if images is None and document.folder and not Path(document.folder).is_absolute():
        roots.append(parent / inside_folder(document.folder, document.file))
    out: list[tuple[str, Path, list[Region]]] = []
    missing: list[str] = []
    for name, regions in document.pictures.items():
        key = inside_folder(name, document.file)
        found = next((root / key for root in roots if (root / key).is_file()), None)
        if found is None:
            missing.append(name)
        else:
            out.append((key, found, regions))
    require_pictures(missing, len(document.pictures), document.file, roots)
    return out


def _add(build: Builder, region: Region, name: str, size: tuple[int, int], left: dict[str, list[str]]) -> None:
    with figures.noting(build, region.where):
        if region.shape is None:
            raise figures.FigureError("a shape that cannot be read")
        kind = region.shape.get("name")
        if kind in _LINES:
            left.setdefault(f"shapes that are no regions ({kind})", []).append(region.where)
            return
        shape, box = _outline(region.shape, kind)
        label = _chosen(region.attributes.get(name, "")) if name else ONLY
        crowd = any(_yes(v) for k, v in region.attributes.items() if k.strip().lower() in _CROWD)
        build.object(label, shape, region.where, box=box, crowd=crowd)


def _outline(shape: dict[str, Any], kind: Any) -> tuple[Shape, figures.Box | None]:
    if kind in ("polygon", "polygonal"):
        xs, ys = shape["all_points_x"], shape["all_points_y"]
        if len(xs) != len(ys):
            raise figures.FigureError("a point that is not two numbers")
        return (figures.outline(np.array([xs, ys], np.float64).T),), None
    if kind == "rect":
        x, y, wide, tall = figures.finite([shape[k] for k in ("x", "y", "width", "height")])
        return None, figures.box_of(x, y, x + wide, y + tall)
    if kind == "circle":
        return (figures.ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"]),), None
    if kind == "ellipse":
        (theta,) = figures.finite((shape.get("theta") or 0,))
        return (figures.ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"], np.degrees(theta)),), None
    raise figures.FigureError(f"a shape of an unknown type ({str(kind)[:40]})")


def _chosen(value: Any) -> str:
    """The text of an attribute: as typed, or the one option that is ticked."""
    if isinstance(value, dict):
        ticked = [str(option) for option, on in value.items() if on]
        if len(ticked) > 1:
            raise figures.FigureError("several classes")
        return ticked[0] if ticked else ""
    return value if isinstance(value, str) else "" if value is None else str(value)


def _yes(value: Any) -> bool:
    if isinstance(value, dict):
        return any(value.values())
    return str(value).strip().lower() in ("1", "1.0", "true", "yes", "y")


# ---- writing --------------------------------------------------------------------------------------------------------


def _project(source: Loads) -> dict[str, Any]:
    names = source.taxonomy.names
    entries: dict[str, Any] = {}
    for index in range(len(source)):
        record = resolve(source.record(index))
        bytes_there = record.path.stat().st_size if record.path.is_file() else -1
        entries[f"{record.key}{bytes_there}"] = {
            "filename": record.key,
            "size": bytes_there,
            "regions": [_region(record, i, names) for i in range(len(record))],
            "file_attributes": {},
        }
    choices = {"description": "", "options": dict.fromkeys(names, ""), "default_options": {}}
    crowd = {"type": "checkbox", "description": "many objects", "options": {"yes": ""}, "default_options": {}}
    return {
        "_via_settings": {
            "ui": {"image": {"region_label": "class", "region_color": "class"}},
            "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""},
            "project": {"name": "maskwright"},
        },
        "_via_img_metadata": entries,
        "_via_attributes": {"region": {"class": {"type": "dropdown", **choices}, "crowd": crowd}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(entries),
    }


def _region(record: Record, i: int, names: tuple[str, ...]) -> dict[str, Any]:
    shape = record.shapes[i]
    if shape is None:
        x1, y1, x2, y2 = record.boxes[i].tolist()
        drawn = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
    else:
        ring = figures.one_ring(shape, record.size)
        drawn = {"name": "polygon", "all_points_x": ring[:, 0].tolist(), "all_points_y": ring[:, 1].tolist()}
    attributes: dict[str, Any] = {"class": names[int(record.labels[i])]}
    if record.crowd[i]:
        attributes["crowd"] = {"yes": True}
    return {"shape_attributes": drawn, "region_attributes": attributes}
