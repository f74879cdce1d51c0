"""One COCO annotation checked and brought to the form the table keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from struct import pack, unpack
from typing import Any

import numpy as np

from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.structures import Shape

Objects = list[dict[str, Any]]

_FAR = 1.0  # a polygon may leave its image by this many image sizes, no further


class Problems:
    """What is wrong with a file's annotations, kind by kind, with their ids."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, list[int]] = {}

    def add(self, kind: str, ident: int) -> None:
        """Note that annotation ``ident`` has a problem."""
        self.found.setdefault(kind, []).append(ident)

    def refuse(self) -> None:
        """``InputError`` that counts every kind and names the first five of each, if there is any."""
        if not self.found:
            return
        lines = [
            f"  {len(ids)} with {kind}: annotation {', '.join(map(str, ids[:5]))}{', ...' if len(ids) > 5 else ''}"
            for kind, ids in self.found.items()
        ]
        raise InputError(
            f"{self.path}: some objects cannot be used:\n" + "\n".join(lines) + "\n"
            "Correct the file, or read it with strict=False to leave them out."
        )


class _BrokenError(Exception):
    """Why an object cannot be used."""


def parse_object(
    raw: dict[str, Any],
    position: int,
    sizes: Mapping[int, tuple[int, int]],
    label_of: Mapping[int, int],
    seen: set[int],
    problems: Problems,
) -> dict[str, Any] | None:
    """The arguments of ``Table.add_object``, or ``None`` after noting in ``problems`` why there are none.

    Args:
        raw: the annotation.
        position: its place in the file, which names it where it has no id.
        sizes: image id -> (H, W).
        label_of: category id -> dense label.
        seen: ids met so far; this one is added.
        problems: collects what is wrong.
    """
    ident = raw.get("id")
    if not isinstance(ident, int) or isinstance(ident, bool) or not -(1 << 63) <= ident < 1 << 63:
        problems.add("no integer id (counted from 0 in the file)", position)
        return None
    try:
        if ident in seen:
            raise _BrokenError("an id that was used before")
        seen.add(ident)
        size = sizes.get(raw["image_id"]) if isinstance(raw.get("image_id"), int) else None
        if size is None:
            raise _BrokenError("an image_id that is not among the images")
        label = label_of.get(raw["category_id"]) if isinstance(raw.get("category_id"), int) else None
        if label is None:
            raise _BrokenError("a category_id that is not among the categories")
        shape, counts = _shape(raw.get("segmentation"), size)
        box = _box(raw.get("bbox"), shape, counts, size)
        area = raw.get("area")
        if not isinstance(area, (int, float)) or not np.isfinite(area) or area < 0:
            area = _area(shape, counts, box, size)
        return {
            "label": label,
            "shape": shape,
            "box": box,
            "crowd": bool(raw.get("iscrowd", 0)),
            "ident": ident,
            "area": float(area),
        }
    except _BrokenError as reason:
        problems.add(str(reason), ident)
        return None


def _shape(value: Any, size: tuple[int, int]) -> tuple[Shape, np.ndarray | None]:
    """The outline and, for run-lengths, the decoded counts."""
    if value is None or value == []:
        return None, None
    if isinstance(value, dict):
        return _runs(value, size)
    if not isinstance(value, list):
        raise _BrokenError("a segmentation that is neither polygons nor run-lengths")
    return tuple(_polygon(ring, size) for ring in value), None


def _polygon(ring: Any, size: tuple[int, int]) -> np.ndarray:
    if not isinstance(ring, list):
        raise _BrokenError("a polygon that is not a list of coordinates")
    try:
        flat = np.array(ring, np.float64)
    except (TypeError, ValueError) as error:
        raise _BrokenError("a polygon that holds something else than numbers") from error
    if flat.ndim != 1 or len(flat) % 2:
        raise _BrokenError("a polygon with an odd number of coordinates")
    if len(flat) < 6:
        raise _BrokenError("a polygon with fewer than three points")
    if not np.isfinite(flat).all():
        raise _BrokenError("a polygon with a coordinate that is not finite")
    points = flat.reshape(-1, 2)
    far = np.array((size[1], size[0])) * _FAR
    if (points < -far).any() or (points > 2 * far).any():
        raise _BrokenError("a polygon far outside its image")
    return points


def _runs(value: dict[str, Any], size: tuple[int, int]) -> tuple[Shape, np.ndarray]:
    if list(value.get("size", ())) != list(size):
        raise _BrokenError("run-lengths whose size is not the image's (height, width)")
    counts = value.get("counts")
    try:
        if isinstance(counts, list):
            runs = np.array(counts, np.int64)
        elif isinstance(counts, (str, bytes)):
            runs = rle.decompress(counts).astype(np.int64)
        else:
            raise _BrokenError("run-lengths without counts")
    except (TypeError, ValueError, OverflowError) as error:
        raise _BrokenError("run-lengths that cannot be decoded") from error
    if runs.ndim != 1 or (isinstance(counts, list) and (runs < 0).any()) or runs.sum() != size[0] * size[1]:
        raise _BrokenError("run-lengths that do not add up to the image's pixels")
    if runs[1::2].sum() == 0:
        raise _BrokenError("a mask without pixels")
    text = rle.compress(runs.astype(np.int32)) if isinstance(counts, list) else counts
    text = text.encode("ascii") if isinstance(text, str) else text
    return {"size": size, "counts": text}, runs.astype(np.int32)


def _box(
    value: Any, shape: Shape, counts: np.ndarray | None, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2), the annotated one or the outline's."""
    if value is None or value == []:
        if counts is not None:
            offsets = np.array([0, len(counts)], np.int64)
            x1, y1, x2, y2 = (float(v) for v in rle.boxes(counts, offsets, size[0])[0])
            return x1, y1, x2, y2
        if not isinstance(shape, tuple):
            raise _BrokenError("neither a box nor a segmentation")
        points = np.concatenate(shape)
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    else:
        try:
            x1, y1, wide, tall = (float(v) for v in value)
        except (TypeError, ValueError) as error:
            raise _BrokenError("a box that is not four numbers (x, y, width, height)") from error
        x2, y2 = x1 + wide, y1 + tall
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise _BrokenError("a box with a coordinate that is not finite")
    if not (_single(x2) > _single(x1) and _single(y2) > _single(y1)):
        raise _BrokenError("a box without area")
    return x1, y1, x2, y2


def _single(value: float) -> float:
    """Rounded to single precision, in which boxes are kept and a sliver may lose its area."""
    return unpack("f", pack("f", value))[0] if abs(value) < 3e38 else math.inf


def _area(shape: Shape, counts: np.ndarray | None, box: tuple[float, ...], size: tuple[int, int]) -> float:
    if counts is None and isinstance(shape, tuple):
        counts = polygons.rasterize(list(shape), size)
    return float((box[2] - box[0]) * (box[3] - box[1])) if counts is None else float(counts[1::2].sum())
