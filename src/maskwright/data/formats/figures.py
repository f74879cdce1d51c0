"""What annotation tools draw (boxes, circles, ellipses, brushed pixels, parts, holes) as outlines that records hold.

One rule for all of them: an upright box is a box without an outline (its tool says no more); a turned box, a circle and
an ellipse are outlines.
"""

from __future__ import annotations

import gc
import math
import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import Builder
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.structures import Shape
from maskwright.structures.taxonomy import palette

Box = tuple[float, float, float, float]
Color = tuple[int, int, int]

LARGEST_MASK = 1 << 26
"""Pixels of the largest mask that is unpacked: its bytes must fit in memory whatever a file declares."""

_FLAT = 0.05  # the chords of a circle leave it by at most this many pixels
_LONGEST = 1e7  # an outline that passes more pixel columns than this is an attack on memory
_LARGEST = (1 << 31) - 1  # pixels of a picture


class FigureError(ValueError):
    """Why a drawn figure cannot be used; the message completes "an object with …"."""


@contextmanager
def noting(build: Builder, where: str) -> Generator[None]:
    """Note what is wrong with a figure parsed in the block as a problem of the object at ``where``."""
    try:
        yield
    except FigureError as error:
        build.problem(str(error), where)
    except InputError:
        build.problem("a name or a value that must not be used", where)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        build.problem("fields that are missing or of another type", where)


def leaving_out(dataset: Dataset, left: dict[str, list[str]]) -> Dataset:
    """The data set, which also lists what a record cannot hold (lines, points, …) among ``dropped``."""
    dropped = {kind: list(where) for kind, where in dataset.dropped.items()}
    for kind, where in left.items():
        dropped.setdefault(kind, []).extend(where)
    return replace(dataset, dropped=dropped)


class Idents:
    """Distinct object ids: those the file has where they are fit, free numbers for the others."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._next = 1

    def take(self, wanted: Any) -> int:
        """``wanted`` if it is a positive integer (or its digits) not taken before, else the next free one."""
        if isinstance(wanted, str) and wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
            wanted = int(wanted)
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not 0 < wanted < 1 << 63 or wanted in self._used:
            while self._next in self._used:
                self._next += 1
            wanted = self._next
        self._used.add(wanted)
        return wanted


def write_one_of_many(path: Path, value: Any) -> None:
    """Write one of thousands of JSON files: beside and renamed as ``write_json`` does, but not waiting for the disk.

    Waiting would take several milliseconds a file. ``InputError`` where it cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        try:
            beside.write_bytes(orjson.dumps(value))
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(orjson.dumps(value))
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}. Choose another output.") from error


@contextmanager
def without_collection() -> Generator[None]:
    """Pause the garbage collector while millions of lists are made that are no garbage."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


# ---- checks ---------------------------------------------------------------------------------------------------------


def size_of(height: Any, width: Any, where: str) -> tuple[int, int]:
    """(H, W) as a file states it; ``InputError`` where these are not positive integers of a sane picture."""
    try:
        h, w = (int(v) if float(v) == int(v) and not isinstance(v, bool) else 0 for v in (height, width))
    except (TypeError, ValueError, OverflowError):
        h = w = 0
    if h < 1 or w < 1 or h * w > _LARGEST:
        got = f"{str(height)[:20]} and {str(width)[:20]}"
        raise InputError(f"{where}: a picture must have a height and width, up to {_LARGEST} pixels in all, got {got}.")
    return h, w


def outline(points: Any) -> np.ndarray:
    """A ring float64 [K, 2] of [[x, y], ...]; ``FigureError`` where they are none."""
    try:
        ring = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise FigureError("a point that is not two numbers") from error
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
        raise FigureError(
            "a point that is not two numbers" if ring.size and ring.shape[-1] != 2 else "fewer than three points"
        )
    farthest = float(np.abs(ring).max())
    if not farthest < math.inf:
        raise FigureError("a coordinate that is not finite")
    if 2 * farthest * len(ring) > _LONGEST:
        with np.errstate(over="ignore"):
            if np.abs(np.diff(ring[:, 0])).sum() > _LONGEST:
                raise FigureError("an outline too long to be drawn")
    return ring


def finite(values: Sequence[Any]) -> list[float]:
    """Numbers (or their decimal form) as floats; ``FigureError`` where one is none."""
    if any(isinstance(v, bool) for v in values):
        raise FigureError("a coordinate that is not a number")
    try:
        out = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise FigureError("a coordinate that is not a number") from error
    if not all(map(math.isfinite, out)):
        raise FigureError("a coordinate that is not finite")
    return out


def box_of(x1: Any, y1: Any, x2: Any, y2: Any) -> Box:
    """(x1, y1, x2, y2) of two opposite corners, whichever they are."""
    a, b, c, d = finite((x1, y1, x2, y2))
    return min(a, c), min(b, d), max(a, c), max(b, d)


# ---- figures --------------------------------------------------------------------------------------------------------


def corners(box: Box) -> np.ndarray:
    """A box as a ring [4, 2], clockwise from its top left."""
    x1, y1, x2, y2 = box
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64)


def turned(ring: np.ndarray, about: tuple[float, float], degrees: float) -> np.ndarray:
    """A ring turned about a point, clockwise as one sees it."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    dx, dy = ring[:, 0] - about[0], ring[:, 1] - about[1]
    return np.stack([about[0] + cosine * dx - sine * dy, about[1] + sine * dx + cosine * dy], axis=1)


def ellipse(x: Any, y: Any, across: Any, down: Any, degrees: Any = 0.0) -> np.ndarray:
    """The ring of an ellipse about (x, y) with radii ``across`` and ``down``, turned clockwise.

    It has as many corners as keep its chords within a twentieth of a pixel, 12 at least, a multiple of four.
    """
    x, y, across, down, degrees = finite((x, y, across, down, degrees))
    if across <= 0 or down <= 0:
        raise FigureError("a radius that is not positive")
    radius = min(max(across, down), 1e6)
    count = 4 * max(3, math.ceil(math.pi / math.acos(max(1 - _FLAT / radius, 0.0)) / 4))
    t = np.arange(count) * (2 * math.pi / count)
    ring = np.stack([x + across * np.cos(t), y + down * np.sin(t)], axis=1)
    return outline(turned(ring, (x, y), degrees) if degrees else ring)


# ---- pixels ---------------------------------------------------------------------------------------------------------


def runs_of(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """The runs int32 [R] of polygons or run-lengths."""
    if isinstance(shape, dict):
        return rle.from_coco([shape], size)[0]
    assert isinstance(shape, tuple)
    return polygons.rasterize(list(shape), size)


def has_pixels(shape: Shape, size: tuple[int, int]) -> bool:
    """Whether an outline covers the center of any pixel."""
    return bool(runs_of(shape, size)[1::2].any())


def of_runs(counts: np.ndarray, size: tuple[int, int]) -> Shape:
    """Runs as a record keeps them."""
    return {"size": size, "counts": rle.compress(counts)}


def with_holes(outer: np.ndarray, holes: Sequence[np.ndarray], size: tuple[int, int]) -> Shape:
    """A ring without the pixels in its holes: a polygon where there are none, else run-lengths."""
    if not holes:
        return (outer,)
    counts, hole = polygons.rasterize([outer], size), polygons.rasterize(list(holes), size)
    outside = np.concatenate([[0], hole]).astype(np.int32)  # one run more in front exchanges inside and outside
    both = np.concatenate([counts, outside])
    return of_runs(rle.intersect(both, np.array([0, len(counts), len(both)], np.int64)), size)


def joined(parts: Sequence[Shape], size: tuple[int, int]) -> Shape:
    """Several outlines as one: polygons stay polygons, others become run-lengths."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, tuple) for part in parts):
        return tuple(ring for part in parts if isinstance(part, tuple) for ring in part)
    runs = [runs_of(part, size) for part in parts]
    cuts = np.cumsum([0, *map(len, runs)], dtype=np.int64)
    return of_runs(rle.union(np.concatenate(runs), cuts), size)


def placed(mask: np.ndarray, left: int, top: int, size: tuple[int, int]) -> Shape:
    """A small mask bool [h, w] with its first pixel at (left, top) of a picture; what lies outside is cut off."""
    if not mask.any():
        raise FigureError("a mask without pixels")
    if mask.size > LARGEST_MASK:
        raise FigureError("a mask of too many pixels")
    if abs(left) > _LARGEST or abs(top) > _LARGEST:
        raise FigureError("a mask far outside its picture")
    found = rle.window(*rle.encode(mask[None]), mask.shape, (-top, -left, *size))
    return of_runs(found[0], size)


def cropped(shape: Shape, size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """The mask bool [h, w] within its bounding box, and the box's left and top; one background pixel if empty."""
    counts = runs_of(shape, size)
    cuts = np.array([0, len(counts)], np.int64)
    x1, y1, x2, y2 = (int(v) for v in rle.boxes(counts, cuts, size[0])[0].tolist())
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    small = rle.window(counts, cuts, size, (y1, x1, y2 - y1, x2 - x1))
    return rle.decode(*small, (y2 - y1, x2 - x1))[0], x1, y1


def one_ring(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """An outline as one ring [K, 2] whose even-odd filling has the same pixels.

    A single polygon is returned as it is. Of others, the boundaries of all parts and holes are strung together by
    bridges that are walked there and back, so that they enclose nothing; coordinates are whole numbers then.
    """
    if isinstance(shape, tuple) and len(shape) == 1:
        return shape[0]
    rings = polygons.outlines(runs_of(shape, size), size)
    if not rings:
        if not isinstance(shape, tuple):
            raise InputError("a mask without pixels has no outline")
        rings = list(shape)  # slivers between pixel centers
    start = rings[0][:1]
    pieces = [rings[0]]
    for ring in rings[1:]:
        pieces += [start, ring, ring[:1]]
    return np.concatenate([*pieces, start] if len(rings) > 1 else pieces)


def mask_png(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask bool [h, w] of a small picture: where it is opaque if it has transparency, else where it is not 0.

    Raises:
        FigureError: it is not a picture, or larger than ``size``.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width > size[1] or image.height > size[0]:
                raise FigureError("a mask larger than its picture")
            return _opaque(image)
    except FigureError:
        raise
    except Exception as error:
        raise FigureError("a mask that is not a readable PNG") from error


def mask_file(path: Path, size: tuple[int, int]) -> np.ndarray:
    """As ``mask_png``, of a file of exactly ``size``."""
    try:
        mask = mask_png(path.read_bytes(), size)
    except OSError as error:
        raise FigureError(f"a mask file that is missing ({path.name})") from error
    if mask.shape != size:
        raise FigureError("a mask that is not as large as its picture")
    return mask


def _opaque(image: Image.Image) -> np.ndarray:
    if image.width * image.height > LARGEST_MASK:
        raise FigureError("a mask of too many pixels")
    if "A" in image.getbands():
        return np.asarray(image.getchannel("A")) > 0
    clear = image.info.get("transparency")
    pixels = np.asarray(image)
    if image.mode == "P" and isinstance(clear, bytes):
        opaque = np.ones(256, bool)
        opaque[: len(clear)] = np.frombuffer(clear, np.uint8)[:256] > 0
        return opaque[pixels]
    if image.mode == "P" and isinstance(clear, int):
        return pixels != clear
    return (pixels != 0).any(axis=2) if pixels.ndim == 3 else pixels != 0


def check_xml(value: str, what: str) -> str:
    """The text, if XML can hold it as it is; ``InputError``, beginning with ``what``, otherwise."""
    if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 or ord(c) in (0xFFFE, 0xFFFF) for c in value) or not value.strip():
        raise InputError(f"{what} cannot be named {value[:80]!r}. Rename it.")
    return value


# ---- colors ---------------------------------------------------------------------------------------------------------


def hex_of(color: Sequence[int]) -> str:
    """``#RRGGBB``."""
    return "#{:02X}{:02X}{:02X}".format(*color)


def colors_of(texts: Sequence[Any]) -> tuple[Color, ...]:
    """The RGB triples of ``#RRGGBB`` texts; a class without one has the color of its place in the palette."""
    out: list[Color] = []
    for text, default in zip(texts, palette(len(texts)), strict=True):
        if isinstance(text, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            out.append((int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)))
        else:
            out.append(default)
    return tuple(out)
