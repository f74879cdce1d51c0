"""Label Studio: the exports JSON and JSON-MIN (https://labelstud.io/guide/export, https://labelstud.io/tags).

Coordinates are percent of the picture. Polygons, ellipses, brush strokes, bit masks and turned rectangles are outlines,
an upright rectangle is a box without an outline; key points, vectors and regions of films are left out. Of several
annotations of a task the one marked as ground truth counts, else the last that was not cancelled; predictions do not.
``label_config.xml`` beside the JSON, the labeling interface, gives the order and colors of the classes where it is
there. The region note (``meta.text``) ``crowd`` marks regions of many objects; a task's ``meta`` may name a ``split``.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import figures
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.label_studio_rle import decode_brush, encode_brush
from maskwright.data.formats.pictures import require_pictures
from maskwright.data.io import SUFFIXES, image_size
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.storage import read_json, read_xml, replacing, write_json
from maskwright.structures import Record, Shape, Taxonomy

CONFIG = "label_config.xml"
FILE = "annotations.json"

_TAGS = ("PolygonLabels", "RectangleLabels", "EllipseLabels", "BrushLabels", "BitmaskLabels", "Labels")
_KEYS = tuple(tag.lower() for tag in _TAGS)
_LOCAL = "/data/local-files/?d="
_LOOKED_AT = 1 << 16
_DIGITS = 9  # decimals of a pixel that survive percent


def recognizes(path: Path) -> bool:
    """A JSON list of tasks with annotations, or of rows with regions; or a folder that holds one."""
    try:
        return bool(_files(path))
    except OSError:
        return False


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read one file, or all of a folder; of several files, each is a split where tasks do not name theirs.

    Pictures are looked for by the path that a task has after its host or storage, and by its last part, beside the file
    and in ``images`` beside it.

    Raises:
        InputError: there is no such file; one is not of this format; pictures are missing; objects are broken and
            ``strict``.
    """
    files = _files(path)
    if not files:
        raise InputError(f"{path} holds no export of Label Studio (JSON or JSON-MIN).")
    reading = _Reading(path, files[0].parent / CONFIG, images, strict)
    with figures.without_collection():
        for file in files:
            data = read_json(file)
            if not isinstance(data, list) or not all(isinstance(task, dict) for task in data):
                raise InputError(f"{file} is not an export of Label Studio: it must hold a list of tasks.")
            for position, task in enumerate(data):
                reading.task(task, position, file, WHOLE if len(files) == 1 else file.stem)
                data[position] = None  # its memory is used again
    looked = [files[0].parent / "images"] if images is None else [images]
    require_pictures(reading.missing, reading.total, path, looked)
    return figures.leaving_out(reading.build.done(), reading.left)


def write(path: Path, dataset: Dataset) -> None:
    """Write one JSON (``annotations.json`` in a folder) with all splits, and ``label_config.xml`` beside it.

    Polygons of one part stay polygons, other outlines become brush strokes, boxes without an outline rectangles.
    Pictures are named as the tool's local storage has them. Object ids and colors are kept, splits without images and
    coordinates beyond nine decimals are not.

    Raises:
        InputError: a class name that XML cannot hold; a picture too large for a brush; a file cannot be written.
    """
    file = path if path.suffix.lower() == ".json" else path / FILE
    tasks: list[dict[str, Any]] = []
    for split, source in dataset.splits.items():
        for index in range(len(source)):
            record = resolve(source.record(index))
            place = f"images/{record.key}" if split == WHOLE else f"images/{split}/{record.key}"
            result = [_region(record, i, dataset.taxonomy) for i in range(len(record))]
            tasks.append(
                {
                    "id": record.image_id,
                    "data": {"image": _LOCAL + quote(place)},
                    "meta": {} if split == WHOLE else {"split": split},
                    "annotations": [{"id": record.image_id, "result": result, "was_cancelled": False}],
                    "predictions": [],
                }
            )
    with replacing(file.parent / CONFIG) as beside:
        ElementTree.ElementTree(_config(dataset.taxonomy)).write(beside, encoding="utf-8")
    write_json(file, tasks)


# ---- files ----------------------------------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _looks_right(path) else []
    return [file for file in sorted(path.glob("*.json")) if _looks_right(file)] if path.is_dir() else []


def _looks_right(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    try:
        with open(path, "rb") as file:
            text = file.read(_LOOKED_AT)
            file.seek(max(0, path.stat().st_size - _LOOKED_AT))
            text += file.read(_LOOKED_AT)
    except OSError:
        return False
    if text.lstrip()[:1] != b"[":
        return False
    if text.split() == [b"[][]"] and (path.parent / CONFIG).is_file():  # seen from both ends
        return True
    whole = b'"data"' in text and (b'"annotations"' in text or b'"completions"' in text)
    return whole or (b'"original_width"' in text and any(f'"{key}"'.encode() in text for key in _KEYS))


def _classes(path: Path) -> Taxonomy | None:
    if not path.is_file():
        return None
    rows: dict[str, str | None] = {}
    for tag in read_xml(path).iter():
        for label in tag.iterfind("Label") if tag.tag in _TAGS else ():
            name = label.get("value") or ""
            if not name.strip():
                raise InputError(f"{path}: a Label must have a value. Add it.")
            rows.setdefault(name, label.get("background"))
    return Taxonomy(names=tuple(rows), colors=figures.colors_of(list(rows.values()))) if rows else None


# ---- reading --------------------------------------------------------------------------------------------------------


class _Reading:
    """What the tasks of all files add up to."""

    def __init__(self, path: Path, config: Path, images: Path | None, strict: bool) -> None:
        self.build = Builder(path, "label-studio", _classes(config), strict=strict)
        self.images = images
        self.left: dict[str, list[str]] = {}
        self.missing: list[str] = []
        self.total = 0
        self._ids, self._numbers = figures.Idents(), figures.Idents()

    def task(self, task: dict[str, Any], position: int, file: Path, default: str) -> None:
        """Add a task's image and regions."""
        name = f"{file.name} task {task.get('id', position)}"
        data = task["data"] if isinstance(task.get("data"), dict) else task
        regions = self._chosen(task, name)
        meta = task.get("meta")
        split = str(meta["split"]) if isinstance(meta, dict) and meta.get("split") else default
        inside_folder(split, file)
        key, places = _picture(data, split, f"{file}: {name}")
        inside_folder(key, file)
        self.total += 1
        roots = [file.parent / "images", file.parent] if self.images is None else [self.images]
        found = next((r / p for r in roots for p in places if (r / p).is_file()), None)
        if found is None:
            self.missing.append(key)
            return
        size = _size(regions, name) or image_size(found)
        self.build.image(key, found, size, split=split, image_id=self._numbers.take(task.get("id")))
        for where, raw in _merged(regions, name).items():
            with figures.noting(self.build, where):
                self._add(raw, where, size)

    def _chosen(self, task: dict[str, Any], name: str) -> list[Any]:
        """The results of the annotation that counts; of a row of JSON-MIN, all regions."""
        given = task.get("annotations", task.get("completions"))
        if given is None:
            rows = [value for value in task.values() if isinstance(value, list)]
            return [{"value": r, **r} for row in rows for r in row if isinstance(r, dict)]
        rows = (
            [a for a in given if isinstance(a, dict) and not a.get("was_cancelled")] if isinstance(given, list) else []
        )
        if len(rows) > 1:
            self.left.setdefault("further annotations of a task", []).append(name)
        true = [a for a in rows if a.get("ground_truth")] or rows[-1:]
        result = true[0].get("result") if true else []
        if not isinstance(result, list):
            self.build.problem("a result that is not a list", name)
            return []
        return result

    def _add(self, raw: dict[str, Any], where: str, size: tuple[int, int]) -> None:
        value = raw["value"]
        if not isinstance(value, dict):
            raise figures.FigureError("a region without a value")
        kind = _kind(value)
        if kind is None:
            if str(raw.get("type", "")).startswith(("keypoint", "vector", "video", "timeline")) or "x" in value:
                self.left.setdefault(f"shapes that are no regions ({raw.get('type', 'keypoint')})", []).append(where)
            return  # what is said about the picture, or a relation
        if raw.get("image_rotation") not in (None, 0, 360):
            raise figures.FigureError("a picture that was turned in the tool")
        labels = [label for key in _KEYS for label in value.get(key) or ()]
        if len(set(labels)) > 1:
            raise figures.FigureError("several classes")
        shape, box = _outline(value, kind, size)
        notes = raw.get("meta", {}).get("text") if isinstance(raw.get("meta"), dict) else None
        crowd = "crowd" in notes if isinstance(notes, (list, str)) else False
        ident = self._ids.take(raw.get("id"))
        self.build.object(str(labels[0]) if labels else "", shape, where, box=box, crowd=crowd, ident=ident)


def _merged(regions: list[Any], name: str) -> dict[str, dict[str, Any]]:
    """Regions by name; results with one id (a shape and its label) are one region."""
    out: dict[str, dict[str, Any]] = {}
    for position, raw in enumerate(regions):
        ident = raw.get("id") if isinstance(raw, dict) else None
        where = f"{name} region {position if ident is None else ident}"
        if isinstance(raw, dict) and isinstance(raw.get("value"), dict) and where in out:
            out[where]["value"] = {**out[where]["value"], **raw["value"]}
        elif isinstance(raw, dict) and "value" not in raw:
            continue  # a relation
        else:
            out[where] = dict(raw) if isinstance(raw, dict) else {"value": None}
    return out


def _kind(value: dict[str, Any]) -> str | None:
    if "rle" in value:
        return "brush"
    if "imageDataURL" in value:
        return "bitmask"
    if "points" in value and "vertices" not in value:
        return "polygon"
    if "radiusX" in value:
        return "ellipse"
    return "rectangle" if {"x", "y", "width", "height"} <= value.keys() and "sequence" not in value else None


def _outline(value: dict[str, Any], kind: str, size: tuple[int, int]) -> tuple[Shape, figures.Box | None]:
    scale = np.array((size[1], size[0]), np.float64) / 100
    if kind == "polygon":
        return (np.round(figures.outline(value["points"]) * scale, _DIGITS),), None
    if kind == "brush":
        packed = np.array(value["rle"])
        if (
            packed.ndim != 1
            or packed.dtype.kind not in "iu"
            or packed.min(initial=0) < 0
            or packed.max(initial=0) > 255
        ):
            raise figures.FigureError("a brush mask that is not bytes")
        if size[0] * size[1] > figures.LARGEST_MASK:
            raise figures.FigureError("a brush mask of too many pixels")
        try:
            return figures.placed(decode_brush(packed.astype(np.uint8), size), 0, 0, size), None
        except ValueError as error:
            raise figures.FigureError(str(error)) from error
    if kind == "bitmask":
        data = base64.b64decode(value["imageDataURL"].partition(",")[2], validate=True)
        return figures.placed(figures.mask_png(data, size), 0, 0, size), None
    (turn,) = figures.finite((value.get("rotation") or 0,))
    x, y = np.round(figures.finite((value["x"], value["y"])) * scale, _DIGITS).tolist()
    if kind == "ellipse":
        across, down = (figures.finite((value["radiusX"], value["radiusY"])) * scale).tolist()
        return (figures.ellipse(x, y, across, down, turn),), None
    wide, tall = (figures.finite((value["width"], value["height"])) * scale).tolist()
    box = figures.box_of(x, y, round(x + wide, _DIGITS), round(y + tall, _DIGITS))
    if not turn % 360:
        return None, box
    return (figures.turned(figures.corners(box), (x, y), turn),), None


def _size(regions: list[Any], name: str) -> tuple[int, int] | None:
    for raw in regions:
        if isinstance(raw, dict) and "original_width" in raw:
            return figures.size_of(raw.get("original_height"), raw["original_width"], name)
    return None


def _picture(data: dict[str, Any], split: str, where: str) -> tuple[str, list[str]]:
    """The image's key, and the relative paths at which it may be."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    named = next((texts[key] for key in ("image", "img", "picture", "photo") if key in texts), None)
    if named is None:
        named = next((t for t in texts.values() if urlsplit_path(t).lower().endswith(SUFFIXES)), None)
    if named is None:
        raise InputError(f"{where} has no picture (a text that ends as pictures do) among {', '.join(data)[:80]}.")
    full = urlsplit_path(named).lstrip("/")
    base = full.rpartition("/")[2]
    if full.startswith("data/upload/"):
        return base, [full, base, re.sub(r"^[0-9a-f]{8}-", "", base)]
    key = full.removeprefix("images/")
    if split != WHOLE and key.startswith(f"{split}/"):
        key = key[len(split) + 1 :]
    inside_folder(full, Path(where))
    return key, [f"{split}/{key}", key, full, base]


def urlsplit_path(text: str) -> str:
    """The path of an address or of the tool's local storage, decoded."""
    if "?d=" in text:
        return unquote(text.partition("?d=")[2].partition("&")[0])
    try:
        return unquote(urlsplit(text).path) if "://" in text else text
    except ValueError:
        return text


# ---- writing --------------------------------------------------------------------------------------------------------


def _region(record: Record, i: int, taxonomy: Taxonomy) -> dict[str, Any]:
    height, width = record.size
    shape = record.shapes[i]
    value: dict[str, Any]
    if shape is None:
        kind = "rectangle"
        x1, y1, x2, y2 = record.boxes[i].tolist()
        value = {"x": 100 * x1 / width, "y": 100 * y1 / height, "rotation": 0}
        value |= {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height}
    elif isinstance(shape, tuple) and (len(shape) == 1 or not figures.has_pixels(shape, record.size)):
        kind = "polygon"
        points = figures.one_ring(shape, record.size) * 100 / (width, height)
        value = {"points": points.tolist(), "closed": True}
    else:
        kind = "brush"
        if width * height > figures.LARGEST_MASK:
            raise InputError(f"{record.key}: a picture of {width * height} pixels is too large for a brush. Tile it.")
        counts = figures.runs_of(shape, record.size)
        mask = rle.decode(counts, np.array([0, len(counts)], np.int64), record.size)[0]
        value = {"format": "rle", "rle": encode_brush(mask).tolist()}
    value[f"{kind}labels"] = [taxonomy.names[int(record.labels[i])]]
    out = {
        "id": str(int(record.ids[i])),
        "type": f"{kind}labels",
        "from_name": kind,
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value,
    }
    return {**out, "meta": {"text": ["crowd"]}} if record.crowd[i] else out


def _config(taxonomy: Taxonomy) -> Element:
    """A labeling interface with the classes, for each tool that is written."""
    view = Element("View")
    SubElement(view, "Image", {"name": "image", "value": "$image"})
    for kind, tag in (("polygon", "PolygonLabels"), ("brush", "BrushLabels"), ("rectangle", "RectangleLabels")):
        labels = SubElement(view, tag, {"name": kind, "toName": "image"})
        for name, color in zip(taxonomy.names, taxonomy.colors, strict=True):
            value = figures.check_xml(name, "a label of Label Studio")
            SubElement(labels, "Label", {"value": value, "background": figures.hex_of(color)})
    ElementTree.indent(view)
    return view
