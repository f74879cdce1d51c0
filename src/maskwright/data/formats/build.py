"""``Builder``: what reading any format shares: names to labels, outlines to boxes and areas, problems counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from struct import pack, unpack
from typing import Any

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.source import FileSource, Loads
from maskwright.data.table import Table
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.structures import LabelMap, Region, Shape, Taxonomy

_FAR = 1.0  # an outline may leave its picture by this many picture sizes, no further


class Builder:
    """Collects the images and objects of one data set.

    Args:
        path: the folder or file that is read; it begins every message.
        format: the format's name.
        taxonomy: the classes, where the format says them; other names are problems. ``None`` takes the names as they
            come, in alphabetical order at the end.
        strict: refuse the data set when an object cannot be used; otherwise leave it out and list it.
    """

    def __init__(self, path: Path, format: str, taxonomy: Taxonomy | None = None, *, strict: bool = True) -> None:
        self.path, self.format, self.strict = path, format, strict
        self.problems: dict[str, list[str]] = {}
        self._taxonomy = taxonomy
        self._numbers: dict[str, int] = {} if taxonomy is None else {n: i for i, n in enumerate(taxonomy.names)}
        self._tables: dict[str, Table] = {}
        self._keys: dict[str, set[str]] = {}
        self._table: Table | None = None
        self._size = (0, 0)
        self._images, self._next = 0, 1
        self._ids: set[int] = set()

    def image(
        self,
        key: str,
        path: Path,
        size: tuple[int, int],
        *,
        split: str = WHOLE,
        image_id: int | None = None,
        sequence: str | None = None,
        frame: int | None = None,
        semantic: LabelMap | np.ndarray | None = None,
        panoptic: LabelMap | np.ndarray | None = None,
    ) -> None:
        """Begin an image of ``size`` (H, W); objects added from now on are its own.

        Raises:
            InputError: ``key`` is not a path inside its folder, or is there already; ``size`` is not positive.
        """
        inside_folder(key, self.path)
        if key in self._keys.setdefault(split, set()):
            raise InputError(f"{self.path}: the image {key} is there twice. Name each image once.")
        if min(size) < 1:
            raise InputError(f"{self.path}: the image {key} must have a positive height and width, got {size}")
        if panoptic is not None:
            self._ids.clear()  # the values of its own map: distinct within an image, as in COCO panoptic
        self._keys[split].add(key)
        self._table = self._tables.setdefault(split, Table())
        self._size = (int(size[0]), int(size[1]))
        self._images += 1
        self._table.add_image(
            key, path, self._size, self._images if image_id is None else image_id, sequence=sequence, frame=frame,
            semantic=semantic, panoptic=panoptic,
        )  # fmt: skip

    def split(self, name: str) -> None:
        """Make sure that a split exists, also without images."""
        self._tables.setdefault(name, Table())
        self._keys.setdefault(name, set())

    def object(
        self,
        name: str,
        shape: Shape,
        where: str,
        *,
        box: Sequence[float] | None = None,
        crowd: bool = False,
        ident: int | None = None,
        area: float | None = None,
        track: int | None = None,
    ) -> bool:
        """Add an object to the image begun last, unless something is wrong with it; whether it was added.

        Args:
            name: its class.
            shape: its outline. A ``Region`` needs ``box`` and ``area``.
            where: what names it in messages: file and line, or file and id.
            box: (x1, y1, x2, y2); by default the outline's.
            crowd: a region of many objects, not told apart.
            ident: its number, distinct in the data set (in its image, where that has a panoptic map); by default the
                next free one.
            area: in pixels; by default the outline's.
            track: its identity over time, -1 for none; ``None`` where there is no time.
        """
        assert self._table is not None, "an object needs an image"
        label = self._numbers.get(name)
        if label is None:
            if self._taxonomy is not None:
                return self.problem(f"a class that is not known ({name[:60]!r})", where)
            if not name.strip():
                return self.problem("no class name", where)
            label = self._numbers[name] = len(self._numbers)
        wrong, shape, its_box, its_area = measured(shape, self._size, box)
        if wrong:
            return self.problem(wrong, where)
        while ident is None:
            ident, self._next = (self._next if self._next not in self._ids else None), self._next + 1
        if ident in self._ids:
            return self.problem("an id that was used before", where)
        self._ids.add(ident)
        self._table.add_object(
            label=label, shape=shape, box=its_box, crowd=crowd, ident=ident,
            area=its_area if area is None else float(area), track=track,
        )  # fmt: skip
        return True

    def problem(self, kind: str, where: str) -> bool:
        """Note that something cannot be used, and return ``False``."""
        self.problems.setdefault(kind, []).append(where)
        return False

    def done(self, order: Iterable[str] = ()) -> Dataset:
        """The data set.

        Args:
            order: class names that come first, in this order, whether used or not; the others follow alphabetically.

        Raises:
            InputError: something was wrong and ``strict``; counts every kind and names the first five of each.
        """
        if self.strict and self.problems:
            raise InputError(f"{self.path}: {described(self.problems)}")
        taxonomy = self._taxonomy
        if taxonomy is None:
            names = list(dict.fromkeys(order))
            names += sorted(self._numbers.keys() - set(names))
            taxonomy = Taxonomy(names=tuple(names))
            places = {name: i for i, name in enumerate(names)}
            move = np.array([places[name] for name in self._numbers], np.int64)
            for table in self._tables.values():
                table.relabel(move)
        splits: dict[str, Loads] = {name: FileSource(table, taxonomy) for name, table in self._tables.items()}
        return Dataset(format=self.format, taxonomy=taxonomy, splits=splits, dropped=self.problems)


def described(problems: dict[str, list[str]]) -> str:
    """What is wrong, kind by kind, with the first five of each, and what to do."""
    lines = [
        f"  {len(where)} with {kind}: {', '.join(where[:5])}{', ...' if len(where) > 5 else ''}"
        for kind, where in problems.items()
    ]
    return (
        "some objects cannot be used:\n"
        + "\n".join(lines)
        + "\nCorrect them, or read with strict=False (--lenient) to leave them out."
    )


def inside_folder(name: str, path: Path) -> str:
    """A relative name that stays inside its folder, with forward slashes; ``InputError`` otherwise."""
    plain = name.replace("\\", "/")
    if not plain or plain.startswith("/") or plain[1:2] == ":" or ".." in PurePosixPath(plain).parts or "\0" in plain:
        raise InputError(f"{path}: a file name must stay inside its folder, got {name[:120]!r}. Make it relative.")
    return plain


def ring(points: Any) -> np.ndarray | None:
    """A polygon float64 [K, 2] of [[x, y], ...], or ``None`` where these are not at least three pairs of numbers."""
    try:
        out = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        return None
    return out if out.ndim == 2 and out.shape[1] == 2 and len(out) >= 3 else None


def measured(
    shape: Shape, size: tuple[int, int], box: Sequence[float] | None
) -> tuple[str, Shape, tuple[float, ...], float]:
    """What is wrong with an outline ("" for nothing), the outline, its box and its area in pixels."""
    if isinstance(shape, tuple):
        if not shape or any(r.ndim != 2 or r.shape[1] != 2 or len(r) < 3 for r in shape):
            return _wrong("a polygon with fewer than three points")
        points = shape[0] if len(shape) == 1 else np.concatenate(shape)
        low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        if not all(map(math.isfinite, (*low, *high))):
            return _wrong("a coordinate that is not finite")
        height, width = size
        if min(low[0] + _FAR * width, low[1] + _FAR * height) < 0 or high[0] > 2 * width or high[1] > 2 * height:
            return _wrong("a polygon far outside its picture")
        own: tuple[float, ...] = (*low, *high)
        area = float(polygons.rasterize(list(shape), size)[1::2].sum())
    elif isinstance(shape, dict):
        try:
            counts, offsets = rle.from_coco([shape], size)
        except InputError:
            return _wrong("run-lengths that do not fit the picture")
        area = float(counts[1::2].sum())
        if not area:
            return _wrong("a mask without pixels")
        own = tuple(rle.boxes(counts, offsets, size[0])[0].tolist())
        shape = {"size": size, "counts": rle.compress(counts)}
    elif box is None:
        return _wrong("a region without its box" if isinstance(shape, Region) else "neither a box nor an outline")
    else:
        own, area = tuple(float(v) for v in box), -1.0
    if box is not None:
        own = tuple(float(v) for v in box)
        if len(own) != 4 or not all(map(math.isfinite, own)):
            return _wrong("a box that is not four finite numbers")
        area = (own[2] - own[0]) * (own[3] - own[1]) if area < 0 else area
    if not (_single(own[2]) > _single(own[0]) and _single(own[3]) > _single(own[1])):
        return _wrong("a box without area")
    return "", shape, own, area


def _wrong(what: str) -> tuple[str, Shape, tuple[float, ...], float]:
    return what, None, (), 0.0


def _single(value: float) -> float:
    """Rounded to single precision, in which boxes are kept and a sliver may lose its area."""
    return unpack("f", pack("f", value))[0] if abs(value) < 3e38 else math.inf
