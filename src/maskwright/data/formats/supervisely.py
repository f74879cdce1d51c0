"""Supervisely projects: ``meta.json``, and ``DATASET/ann/PICTURE.json`` beside ``DATASET/img/PICTURE``.

Format: https://docs.supervisely.com/data-organization/Annotation-JSON-format. Project files hold what the tool's SDK
calls pixel coordinates: the corners of polygons name pixels, whose centers are meant (so half a pixel is added), and a
rectangle includes its last column and row. ``bitmap`` (a PNG, deflated, at its origin), ``polygon`` (with holes),
``multipolygon`` are outlines, ``rectangle`` is a box without an outline; lines, points, graphs and cuboids are left
out. An object's tag ``crowd`` (``iscrowd``) marks regions of many objects.
"""

from __future__ import annotations

import base64
import zlib
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.storage import read_json, write_json
from maskwright.structures import Record, Shape, Taxonomy

META = "meta.json"

_LINES = ("line", "point", "graph", "cuboid", "cuboid_2d", "cuboid_3d", "polyline")
_CROWD = ("crowd", "iscrowd", "is_crowd")
_CENTER = 0.5
_PIXEL = 1.0


def recognizes(path: Path) -> bool:
    """A folder with ``meta.json`` that has classes, and a folder ``ann`` in one of its folders."""
    meta = _meta(path)
    try:
        if not meta.is_file() or b'"classes"' not in meta.read_bytes():
            return False
        return any((folder / name).is_dir() for folder in meta.parent.iterdir() for name in ("ann", "datasets"))
    except OSError:
        return False


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a project; each of its data sets, nested ones too (``A/datasets/B`` is named ``A/B``), is a split.

    Args:
        path: the project's folder or its ``meta.json``.
        images: pictures are looked for in ``images/DATASET`` and ``images``; by default in ``img`` beside ``ann``.
        strict: see ``formats.read``.

    Raises:
        InputError: a file is missing or not of this format; pictures are missing; objects are broken and ``strict``.
    """
    meta = _meta(path)
    build = Builder(meta.parent, "supervisely", _classes(meta), strict=strict)
    left: dict[str, list[str]] = {}
    idents = figures.Idents()
    missing: list[str] = []
    total = 0
    folders = [
        folder for folder in sorted(meta.parent.rglob("ann")) if folder.is_dir() and folder.parent != meta.parent
    ]
    for folder in folders:
        parts = folder.parent.relative_to(meta.parent).parts
        split = "/".join(part for i, part in enumerate(parts) if i % 2 == 0 or part != "datasets")
        build.split(split)
        roots = [folder.parent / "img"] if images is None else [images / split, images]
        for file in sorted(folder.rglob("*.json")):
            key = inside_folder(file.relative_to(folder).as_posix().removesuffix(".json"), folder)
            found = next((root / key for root in roots if (root / key).is_file()), None)
            total += 1
            if found is None:
                missing.append(f"{split}/{key}")
                continue
            data = read_json(file)
            size = data.get("size") if isinstance(data, dict) else None
            if not isinstance(size, dict) or not isinstance(data.get("objects"), list):
                raise InputError(f"{file} is not an annotation of Supervisely: it must hold size and the list objects.")
            sides = figures.size_of(size.get("height"), size.get("width"), str(file))
            build.image(key, found, sides, split=split)
            for position, raw in enumerate(data["objects"]):
                _add(build, raw, f"{split}/{key} object {position}", sides, idents, left)
    require_pictures(missing, total, meta.parent, [meta.parent if images is None else images])
    return figures.leaving_out(build.done(), left)


def write(path: Path, dataset: Dataset) -> None:
    """Write a project with a data set for each split; class order, colors and object ids are kept.

    A polygon of one part stays a polygon, other outlines become bitmaps, boxes without an outline rectangles.

    Raises:
        InputError: a split named ``ann``, ``img`` or ``datasets``, or with such a folder; a file cannot be written.
    """
    taxonomy = dataset.taxonomy
    titles = zip(taxonomy.names, taxonomy.colors, taxonomy.source_ids, strict=True)
    classes = [
        {
            "title": name,
            "shape": "any",
            "color": figures.hex_of(color),
            "geometry_config": {},
            "id": ident,
            "hotkey": "",
        }
        for name, color, ident in titles
    ]
    tag = {"name": _CROWD[0], "value_type": "none", "color": "#FF8000", "hotkey": "", "applicable_type": "objectsOnly"}
    write_json(path / META, {"classes": classes, "tags": [tag], "projectType": "images"}, indent=True)
    for split, source in dataset.splits.items():
        folder = _folder(path, split)
        (folder / "ann").mkdir(parents=True, exist_ok=True)
        (folder / "img").mkdir(exist_ok=True)
        for index in range(len(source)):
            record = resolve(source.record(index))
            objects = [_object(record, i, taxonomy) for i in range(len(record))]
            size = {"height": record.size[0], "width": record.size[1]}
            file = folder / "ann" / (inside_folder(record.key, path) + ".json")
            figures.write_one_of_many(file, {"description": "", "tags": [], "size": size, "objects": objects})


def picture(root: Path, split: str, record: Record) -> Path:
    """``DATASET/img/KEY``."""
    return _folder(root, split) / "img" / record.key


# ---- reading --------------------------------------------------------------------------------------------------------


def _meta(path: Path) -> Path:
    return path if path.name == META else path / META


def _folder(root: Path, split: str) -> Path:
    names = PurePosixPath(inside_folder(split, root)).parts
    if not names or {"ann", "img", "datasets"} & set(names):
        raise InputError(f"a data set of Supervisely cannot be named {split!r}. Rename the split.")
    return root / "/datasets/".join(names)


def _classes(meta: Path) -> Taxonomy:
    data = read_json(meta)
    rows = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(r, dict) and isinstance(r.get("title"), str) for r in rows):
        raise InputError(f"{meta} is not the meta of a Supervisely project: it must hold classes with titles.")
    names = tuple(row["title"] for row in rows)
    if len(set(names)) < len(names):
        raise InputError(f"{meta}: the titles of classes must be distinct.")
    idents = [row.get("id") for row in rows]
    numbers = tuple(i for i in idents if isinstance(i, int) and not isinstance(i, bool) and abs(i) < 1 << 62)
    return Taxonomy(
        names=names,
        colors=figures.colors_of([row.get("color") for row in rows]),
        source_ids=numbers if len(set(numbers)) == len(rows) else (),
    )


def _add(
    build: Builder,
    raw: Any,
    where: str,
    size: tuple[int, int],
    idents: figures.Idents,
    left: dict[str, list[str]],
) -> None:
    with figures.noting(build, where):
        kind = raw.get("geometryType") or ("bitmap" if raw.get("bitmap") else "polygon")
        if kind in _LINES:
            left.setdefault(f"shapes that are no regions ({kind})", []).append(where)
            return
        shape, box = _geometry(raw, kind, size)
        title = raw["classTitle"]
        if not isinstance(title, str):
            raise figures.FigureError("no class name")
        tags = raw.get("tags")
        named = {str(tag.get("name")).lower() for tag in tags or () if isinstance(tag, dict)}
        crowd = bool(named & set(_CROWD))
        build.object(title, shape, where, box=box, crowd=crowd, ident=idents.take(raw.get("id")))


def _geometry(raw: dict[str, Any], kind: Any, size: tuple[int, int]) -> tuple[Shape, figures.Box | None]:
    if kind in ("bitmap", "alpha_mask"):
        mask = figures.mask_png(_inflated(base64.b64decode(raw["bitmap"]["data"], validate=True), size), size)
        left, top = (int(v) for v in figures.finite(raw["bitmap"]["origin"]))
        return figures.placed(mask, left, top, size), None
    if kind == "polygon":
        return _area(raw["points"], size), None
    if kind == "multipolygon":
        return figures.joined([_area(part, size) for part in raw["parts"]], size), None
    if kind == "rectangle":
        (x1, y1), (x2, y2) = raw["points"]["exterior"]
        return None, _including(*figures.finite((x1, y1, x2, y2)))
    raise figures.FigureError(f"a geometry of an unknown type ({str(kind)[:40]})")


def _area(points: dict[str, Any], size: tuple[int, int]) -> Shape:
    holes = [figures.outline(ring) + _CENTER for ring in points.get("interior") or ()]
    return figures.with_holes(figures.outline(points["exterior"]) + _CENTER, holes, size)


def _including(x1: float, y1: float, x2: float, y2: float) -> figures.Box:
    """The box up to the far side of its last pixel, whichever corners are named."""
    if x2 + _PIXEL <= x1:
        x1, x2 = x2, x1
    if y2 + _PIXEL <= y1:
        y1, y2 = y2, y1
    return x1, y1, x2 + _PIXEL, y2 + _PIXEL


def _inflated(data: bytes, size: tuple[int, int]) -> bytes:
    """Undo the deflation, as far as a PNG of this size can go."""
    most = min(4 * size[0] * size[1], 2 * figures.LARGEST_MASK) + (1 << 16)
    worker = zlib.decompressobj()
    try:
        out = worker.decompress(data, most)
    except zlib.error as error:
        raise figures.FigureError("a bitmap that is not deflated") from error
    if worker.unconsumed_tail:
        raise figures.FigureError("a bitmap larger than its picture")
    return out


# ---- writing --------------------------------------------------------------------------------------------------------


def _object(record: Record, i: int, taxonomy: Taxonomy) -> dict[str, Any]:
    label = int(record.labels[i])
    out: dict[str, Any] = {
        "id": int(record.ids[i]),
        "classId": taxonomy.source_ids[label],
        "classTitle": taxonomy.names[label],
        "description": "",
        "tags": [{"name": _CROWD[0], "value": None}] if record.crowd[i] else [],
    }
    shape = record.shapes[i]
    if shape is None:
        x1, y1, x2, y2 = record.boxes[i].tolist()
        ends = [[x1, y1], [x2 - _PIXEL, y2 - _PIXEL]]
        return {**out, "geometryType": "rectangle", "points": {"exterior": ends, "interior": []}}
    if isinstance(shape, tuple) and (len(shape) == 1 or not figures.has_pixels(shape, record.size)):
        ring = figures.one_ring(shape, record.size) - _CENTER
        return {**out, "geometryType": "polygon", "points": {"exterior": ring.tolist(), "interior": []}}
    mask, left, top = figures.cropped(shape, record.size)
    return {**out, "geometryType": "bitmap", "bitmap": {"data": _deflated(mask), "origin": [left, top]}}


def _deflated(mask: np.ndarray) -> str:
    """A PNG with a palette of two colors, the first transparent."""
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    file = BytesIO()
    image.save(file, "PNG", transparency=0)
    return base64.b64encode(zlib.compress(file.getvalue())).decode("ascii")
