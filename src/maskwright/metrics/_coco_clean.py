"""The careful reader: COCO JSON as Python objects, explained entry by entry or rewritten in its plain form.

Only text that the kernels refuse comes here, so it may take its time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.metrics._coco_read import Problems


class _BadFieldError(Exception):
    """Why one entry cannot be used."""


def clean_results(path: Path, number_of: dict[Any, int] | None, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """A result file as plain JSON bytes, uint8, and the position in the file of each entry that is left."""
    data = _load(path)
    results, other = _as_list(data), _as_dict(data)
    if results is None:
        kind, hint = type(data).__name__, ""
        if other is not None:
            kind = f"an object with {', '.join(map(repr, list(other)[:4])) or 'nothing'}"
            hint = " Did you swap --truth and --results?" if "annotations" in other else ""
        raise InputError(f"{path} must be a JSON list of results, got {kind}.{hint}")
    entries, source = _entries(results, number_of, problems)
    return _bytes(entries), source


def clean_truth(
    path: Path, problems: Problems
) -> tuple[np.ndarray, list[dict[str, Any]], dict[Any, int] | None, np.ndarray]:
    """An annotation file as plain JSON bytes, its categories, numbers for image ids that are no integers, and the
    position in the file of each annotation that is left."""
    loaded = _load(path)
    data = _as_dict(loaded)
    if data is None:
        hint = "" if _as_list(loaded) is None else " Did you swap --truth and --results?"
        raise InputError(f"{path} is not COCO: it must be an object, got {type(loaded).__name__}.{hint}")
    for name in ("images", "annotations", "categories"):
        if not isinstance(data.get(name), list):
            has = ", ".join(map(repr, list(data)[:5])) or "nothing"
            raise InputError(f"{path} is not COCO: {name!r} must be a list; the file has {has}.")
    ids = [image["id"] for image in map(_as_dict, data["images"]) if image and isinstance(image.get("id"), str)]
    number_of: dict[Any, int] | None = None
    if ids and len(ids) == len(data["images"]):
        if len(set(ids)) < len(ids):
            twice = sorted({i for i in ids if ids.count(i) > 1})[:5]
            raise InputError(f"{path}: image ids must be distinct, but these repeat: {', '.join(twice)}.")
        number_of = {name: k for k, name in enumerate(sorted(ids))}
    images: list[dict[str, Any]] = []
    for k, value in enumerate(data["images"]):
        try:
            image = _as_dict(value)
            if image is None:
                raise _BadFieldError(f"must be an object, got {type(value).__name__}")
            out: dict[str, Any] = {"id": number_of[image["id"]] if number_of else _integer(image, "id")}
            if image.get("height") is not None and image.get("width") is not None:
                out |= {name: _integer(image, name) for name in ("height", "width")}
        except _BadFieldError as error:
            raise InputError(f"{path} is not COCO: images[{k}]: {error}.") from error
        images.append(out)
    annotations, source = _entries(data["annotations"], number_of, problems)
    plain = _bytes({"images": images, "annotations": annotations, "categories": []})
    return plain, data["categories"], number_of, source


def _as_dict(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _as_list(value: Any) -> list[Any] | None:
    return cast("list[Any]", value) if isinstance(value, list) else None


def _load(path: Path) -> Any:
    import orjson

    text = path.read_bytes()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(text)  # takes NaN and Infinity, so that the entries can be named
        except ValueError:
            raise InputError(f"{path} is not JSON: {error}. Was it written completely?") from error


def _bytes(value: Any) -> np.ndarray:
    import orjson

    return np.frombuffer(orjson.dumps(value), np.uint8)


def _entries(
    data: list[Any], number_of: dict[Any, int] | None, problems: Problems
) -> tuple[list[dict[str, Any]], np.ndarray]:
    problems.total = len(data)
    kept: list[dict[str, Any]] = []
    source: list[int] = []
    for k, entry in enumerate(data):
        try:
            kept.append(_entry(entry, number_of))
            source.append(k)
        except _BadFieldError as error:
            problems.add([k], lambda _, error=error: str(error))
    return kept, np.array(source, np.int64)


def _entry(value: Any, number_of: dict[Any, int] | None) -> dict[str, Any]:
    entry = _as_dict(value)
    if entry is None:
        raise _BadFieldError(f"must be an object, got {type(value).__name__}")
    out: dict[str, Any] = {}
    for name, read in _FIELDS.items():
        if name == "image_id" and number_of is not None and name in entry:
            if entry[name] not in number_of:
                raise _BadFieldError(f"image {entry[name]!r} is not known")
            out[name] = number_of[entry[name]]
        elif entry.get(name) is not None:
            plain = read(entry, name)
            if plain is not None:
                out[name] = plain
    return out


def _integer(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    if isinstance(value, bool) and name == "iscrowd":
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise _BadFieldError(f"{name} must be an integer, got {value!r}"[:120])
    return value


def _annotation_id(entry: dict[str, Any], name: str) -> int | None:
    return None if "score" in entry else _integer(entry, name)  # pycocotools numbers results itself


def _real(entry: dict[str, Any], name: str) -> float:
    return _finite(entry[name], name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _BadFieldError(f"{name} must be finite, got {value!r}"[:120])
    return float(value)


def _box(entry: dict[str, Any], name: str) -> list[float] | None:
    value = _as_list(entry[name])
    if value is None or len(value) not in (0, 4):
        raise _BadFieldError(f"{name} must be [x, y, width, height], got {entry[name]!r}"[:120])
    return [_finite(v, name) for v in value] or None


def _segmentation(entry: dict[str, Any], name: str) -> Any:
    polygons, value = _as_list(entry[name]), _as_dict(entry[name])
    if polygons is not None:
        parts = [part for part in map(_as_list, polygons) if part is not None]
        if len(parts) < len(polygons):
            raise _BadFieldError(f"{name} must be a list of polygons [x, y, x, y, ...], got {polygons!r}"[:120])
        return [[_finite(v, "a polygon") for v in part] for part in parts] or None
    if value is None:
        raise _BadFieldError(f"{name} must be polygons or run-lengths, got {entry[name]!r}"[:120])
    size, counts = _as_list(value.get("size")), value.get("counts")
    if size is None or len(size) != 2:
        raise _BadFieldError(f"run-lengths must state their size [height, width], got {value.get('size')!r}"[:120])
    out: dict[str, Any] = {"size": [_integer({"size": v}, "size") for v in size]}
    if isinstance(counts, str):
        if not counts.isascii():
            raise _BadFieldError("malformed run-lengths (characters outside of COCO's alphabet)")
        out["counts"] = counts
    elif _as_list(counts) is not None:
        out["counts"] = [_integer({"counts": v}, "counts") for v in _as_list(counts) or []]
    else:
        raise _BadFieldError(f"counts must be a string or a list of integers, got {counts!r}"[:120])
    return out


_FIELDS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "id": _annotation_id,
    "image_id": _integer,
    "category_id": _integer,
    "iscrowd": _integer,
    "score": _real,
    "area": _real,
    "bbox": _box,
    "segmentation": _segmentation,
}
