"""The careful reader: COCO JSON as Python objects, explained entry by entry or rewritten in its plain form.

Only text that the kernels refuse comes here, so it may take its time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.metrics.files import Problems


class _BadFieldError(Exception):
    """Why one entry cannot be used."""


def clean_results(path: Path, number_of: dict[Any, int] | None, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """A result file as plain JSON bytes, uint8, and the position in the file of each entry that is left."""
    data = _load(path)
    if not isinstance(data, list):
        kind = f"an object with {', '.join(map(repr, list(data)[:4]))}" if isinstance(data, dict) else type(data).__name__
        hint = " Did you swap --truth and --results?" if isinstance(data, dict) and "annotations" in data else ""
        raise InputError(f"{path} must be a JSON list of results, got {kind}.{hint}")
    entries, source = _entries(data, number_of, problems)
    return _bytes(entries), source


def clean_truth(
    path: Path, problems: Problems
) -> tuple[np.ndarray, list[dict[str, Any]], dict[Any, int] | None, np.ndarray]:
    """An annotation file as plain JSON bytes, its categories, numbers for image ids that are no integers, and the
    position in the file of each annotation that is left."""
    data = _load(path)
    if not isinstance(data, dict):
        hint = " Did you swap --truth and --results?" if isinstance(data, list) else ""
        raise InputError(f"{path} is not COCO: it must be an object, got {type(data).__name__}.{hint}")
    for name in ("images", "annotations", "categories"):
        if not isinstance(data.get(name), list):
            has = ", ".join(map(repr, list(data)[:5])) or "nothing"
            raise InputError(f"{path} is not COCO: {name!r} must be a list; the file has {has}.")
    ids = [image.get("id") if isinstance(image, dict) else None for image in data["images"]]
    number_of: dict[Any, int] | None = None
    if ids and all(isinstance(i, str) for i in ids):
        if len(set(ids)) < len(ids):
            twice = sorted({i for i in ids if ids.count(i) > 1})[:5]
            raise InputError(f"{path}: image ids must be distinct, but these repeat: {', '.join(twice)}.")
        number_of = {name: k for k, name in enumerate(sorted(ids))}
    images: list[dict[str, Any]] = []
    for k, image in enumerate(data["images"]):
        try:
            if not isinstance(image, dict):
                raise _BadFieldError(f"must be an object, got {type(image).__name__}")
            out: dict[str, Any] = {"id": number_of[image["id"]] if number_of else _integer(image, "id")}
            if image.get("height") is not None and image.get("width") is not None:
                out |= {name: _integer(image, name) for name in ("height", "width")}
        except _BadFieldError as error:
            raise InputError(f"{path} is not COCO: images[{k}]: {error}.") from error
        images.append(out)
    annotations, source = _entries(data["annotations"], number_of, problems)
    plain = _bytes({"images": images, "annotations": annotations, "categories": []})
    return plain, data["categories"], number_of, source


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


def _entry(entry: Any, number_of: dict[Any, int] | None) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _BadFieldError(f"must be an object, got {type(entry).__name__}")
    out: dict[str, Any] = {}
    for name, read in _FIELDS.items():
        if name == "image_id" and number_of is not None and name in entry:
            if entry[name] not in number_of:
                raise _BadFieldError(f"image {entry[name]!r} is not known")
            out[name] = number_of[entry[name]]
        elif entry.get(name) is not None:
            value = read(entry, name)
            if value is not None:
                out[name] = value
    return out


def _integer(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    if isinstance(value, bool) and name == "iscrowd":
        return int(value)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool) or abs(value) >= 2**63:
        raise _BadFieldError(f"{name} must be an integer, got {value!r}"[:120])
    return int(value)


def _annotation_id(entry: dict[str, Any], name: str) -> int | None:
    return None if "score" in entry else _integer(entry, name)  # pycocotools numbers results itself


def _real(entry: dict[str, Any], name: str) -> float:
    return _finite(entry[name], name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _BadFieldError(f"{name} must be finite, got {value!r}"[:120])
    return float(value)


def _box(entry: dict[str, Any], name: str) -> list[float] | None:
    value = entry[name]
    if not isinstance(value, list) or len(value) not in (0, 4):
        raise _BadFieldError(f"{name} must be [x, y, width, height], got {value!r}"[:120])
    return [_finite(v, name) for v in value] or None


def _segmentation(entry: dict[str, Any], name: str) -> Any:
    value = entry[name]
    if isinstance(value, list):
        if not all(isinstance(part, list) for part in value):
            raise _BadFieldError(f"{name} must be a list of polygons [x, y, x, y, ...], got {value!r}"[:120])
        return [[_finite(v, "a polygon") for v in part] for part in value] or None
    if not isinstance(value, dict):
        raise _BadFieldError(f"{name} must be polygons or run-lengths, got {value!r}"[:120])
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2:
        raise _BadFieldError(f"run-lengths must state their size [height, width], got {size!r}"[:120])
    out: dict[str, Any] = {"size": [_integer({"size": v}, "size") for v in size]}
    if isinstance(counts, str):
        if not counts.isascii():
            raise _BadFieldError("malformed run-lengths (characters outside of COCO's alphabet)")
        out["counts"] = counts
    elif isinstance(counts, list):
        out["counts"] = [_integer({"counts": v}, "counts") for v in counts]
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
