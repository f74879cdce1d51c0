"""The files of VGG Image Annotator, all brought to one form: version 1 and 2 JSON, projects, version 3, CSV.

Layouts: https://www.robots.ox.ac.uk/~vgg/software/via and the tool's own source of version 3 (shape numbers).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskwright.data.formats import figures
from maskwright.errors import InputError
from maskwright.storage import read_json

_LOOKED_AT = 1 << 16
_SHAPES = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon"}
_NUMBERS = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
_PICTURE = 2  # the type of a file in version 3; others are films and sounds


@dataclass(slots=True)
class Region:
    """A drawn region: ``shape_attributes`` and ``region_attributes`` of version 2; ``None`` where they are broken."""

    shape: dict[str, Any] | None
    attributes: dict[str, Any]
    where: str


@dataclass(slots=True)
class Document:
    """One file: pictures with their regions, the choices that an attribute has, and where its pictures may lie."""

    file: Path
    pictures: dict[str, list[Region]] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    folder: str = ""
    left: dict[str, list[str]] = field(default_factory=dict)


def looks_right(path: Path) -> bool:
    """Judged by the beginning and the end."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        return False
    try:
        with open(path, "rb") as file:
            text = file.read(_LOOKED_AT)
            file.seek(max(0, path.stat().st_size - _LOOKED_AT))
            text += file.read(_LOOKED_AT)
    except OSError:
        return False
    if suffix == ".csv":
        return b"region_shape_attributes" in text.split(b"\n", 1)[0]
    if text.lstrip()[:1] != b"{":
        return False
    old = b'"filename"' in text and (b'"file_attributes"' in text or b'"shape_attributes"' in text)
    return old or b'"_via_' in text or (b'"fid_list"' in text and b'"anchor_id"' in text) or _third(text)


def _third(text: bytes) -> bool:
    return all(key in text for key in (b'"project"', b'"metadata"', b'"view"', b'"file"'))


def load(file: Path) -> Document:
    """Read a file of any version.

    Raises:
        InputError: it cannot be read, or is none of them; the message names it.
    """
    if file.suffix.lower() == ".csv":
        return _csv(file)
    data = read_json(file)
    if not isinstance(data, dict):
        raise InputError(f"{file} is not a file of VIA: it must hold an object, got {type(data).__name__}.")
    if isinstance(data.get("metadata"), dict) and isinstance(data.get("view"), dict):
        return _version_3(file, data)
    out = Document(file)
    entries = data
    if "_via_img_metadata" in data:
        entries = data["_via_img_metadata"]
        settings = data.get("_via_settings")
        core = settings.get("core") if isinstance(settings, dict) else None
        out.folder = str(core.get("default_filepath") or "") if isinstance(core, dict) else ""
        attributes = data.get("_via_attributes")
        regions = attributes.get("region") if isinstance(attributes, dict) else None
        for name, row in regions.items() if isinstance(regions, dict) else ():
            if isinstance(row, dict) and isinstance(row.get("options"), dict):
                out.options[name] = list(row["options"])
    for entry in entries.values() if isinstance(entries, dict) else (None,):
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            raise InputError(f"{file} is not a file of VIA: every entry must have a filename, got {str(entry)[:60]}.")
        name = entry["filename"]
        if name in out.pictures:
            raise InputError(f"{file}: the image {name} is there twice. Name each image once.")
        raw = entry.get("regions") or {}
        regions = list(raw.values()) if isinstance(raw, dict) else raw if isinstance(raw, list) else [None]
        out.pictures[name] = [_region(region, f"{name} region {i}") for i, region in enumerate(regions)]
    return out


def _region(raw: Any, where: str) -> Region:
    shape = raw.get("shape_attributes") if isinstance(raw, dict) else None
    attributes = raw.get("region_attributes") if isinstance(raw, dict) else None
    return Region(shape if isinstance(shape, dict) else None, attributes if isinstance(attributes, dict) else {}, where)


# ---- CSV ------------------------------------------------------------------------------------------------------------


def _csv(file: Path) -> Document:
    out = Document(file)
    for line, row in _rows(file):
        name = row.get("filename") or row.get("#filename") or ""
        if not name:
            raise InputError(f"{file}:{line}: a row must have a filename.")
        regions = out.pictures.setdefault(name, [])
        try:
            shape = orjson.loads(row.get("region_shape_attributes") or "{}")
            attributes = orjson.loads(row.get("region_attributes") or "{}")
        except orjson.JSONDecodeError:
            shape, attributes = None, None
        if shape != {}:
            regions.append(_region({"shape_attributes": shape, "region_attributes": attributes}, f"{file.name}:{line}"))
    return out


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    limit = csv.field_size_limit(1 << 30)  # outlines are long
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, restkey="more", restval="")
            if "region_shape_attributes" not in (reader.fieldnames or ()):
                raise InputError(f"{file}:1: the columns of a CSV of VIA must be named, with region_shape_attributes.")
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {file}: {error}. It must be a CSV in UTF-8.") from error
    finally:
        csv.field_size_limit(limit)


# ---- version 3 ------------------------------------------------------------------------------------------------------


def _version_3(file: Path, data: dict[str, Any]) -> Document:
    out = Document(file)
    files, views, rows = (data.get(key) for key in ("file", "view", "attribute"))
    rows = rows if isinstance(rows, dict) else {}
    if not isinstance(files, dict) or not isinstance(views, dict):
        raise InputError(f"{file} is not a project of VIA 3: file and view must be objects.")
    names: dict[str, str] = {}
    for vid, view in views.items():
        fids = view.get("fid_list") if isinstance(view, dict) else None
        entry = files.get(str(fids[0])) if isinstance(fids, list) and fids else None
        name = entry.get("fname") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(name, str) or not name:
            raise InputError(f"{file}: the view {str(vid)[:40]} must name a file of the project (fid_list, fname).")
        if entry.get("type", _PICTURE) != _PICTURE:
            out.left.setdefault("films and sounds", []).append(name)
            continue
        if name in out.pictures:
            raise InputError(f"{file}: the image {name} is there twice. Name each image once.")
        names[vid] = name
        out.pictures[name] = []
    for row in rows.values():
        if isinstance(row, dict) and isinstance(row.get("options"), dict) and row["options"]:
            out.options[str(row.get("aname"))] = [str(text) for text in row["options"].values()]
    for ident, entry in data["metadata"].items():
        if not isinstance(entry, dict) or entry.get("xy") == [] or str(entry.get("vid")) not in names:
            continue  # attributes of a file, times of a film
        name = names[str(entry["vid"])]
        attributes = _attributes(entry.get("av"), rows)
        out.pictures[name].append(Region(_shape_3(entry.get("xy")), attributes, f"{name} region {ident}"))
    return out


def _attributes(values: Any, rows: dict[str, Any]) -> dict[str, Any]:
    """The values of attributes by name; numbers of options become their texts."""
    out: dict[str, Any] = {}
    for ident, value in values.items() if isinstance(values, dict) else ():
        row = rows.get(ident)
        if isinstance(row, dict):
            options = row.get("options")
            chosen = str(value).split(",") if isinstance(options, dict) and options else []
            texts = [str(options[c]) for c in chosen if isinstance(options, dict) and c in options]
            name = str(row.get("aname"))
            out[name] = value if not texts else texts[0] if len(texts) == 1 else dict.fromkeys(texts, True)
    return out


def _shape_3(xy: Any) -> dict[str, Any] | None:
    """A list that begins with the number of its shape, as ``shape_attributes``."""
    try:
        kind, numbers = int(xy[0]), figures.finite(xy[1:])
        if kind in (8, 9):  # a box, or a circle, through points on its border
            points = np.array(numbers).reshape(-1, 2)
            return _about(points) if kind == 8 else _circle_through(points)
        name = _SHAPES[kind]
    except (TypeError, ValueError, KeyError, IndexError, np.linalg.LinAlgError):
        return None
    if name in _NUMBERS:
        return {"name": name, **dict(zip(_NUMBERS[name], numbers, strict=False))}
    return {"name": name, "all_points_x": numbers[::2], "all_points_y": numbers[1::2]}


def _about(points: np.ndarray) -> dict[str, Any]:
    (x, y), (wide, tall) = points.min(axis=0).tolist(), np.ptp(points, axis=0).tolist()
    return {"name": "rect", "x": x, "y": y, "width": wide, "height": tall}


def _circle_through(points: np.ndarray) -> dict[str, Any]:
    """|p - c| is the same for three points: two linear equations in c."""
    first, *others = points
    left = 2 * (np.array(others[:2]) - first)
    right = (np.array(others[:2]) ** 2).sum(axis=1) - (first**2).sum()
    center = np.linalg.solve(left, right)
    return {"name": "circle", "cx": center[0], "cy": center[1], "r": float(np.hypot(*(first - center)))}
