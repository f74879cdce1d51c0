"""COCO files as checked tables: neither torch nor Python objects for each detection.

The JSON text is read by kernels straight into tables, in parallel. What the kernels refuse (unusual types, NaN,
escapes) is read again in Python by ``_coco_clean``, which either explains it or rewrites it in the plain form.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics import _coco_core as core
from maskwright.metrics._coco_core import Table, kernels

_MEMBERS = ("images", "annotations", "categories")
_CHUNK = 1 << 20  # bytes below which a second thread does not pay


@dataclass(slots=True)
class Problems:
    """Entries of one file that cannot be used: raised with the first five, or counted when they are dropped.

    Attributes:
        path: the file; what: the name of its entries in messages; total: how many it has.
        lenient: drop and count instead of raising.
    """

    path: Path
    what: str
    lenient: bool
    total: int = 0
    dropped: int = 0
    _found: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, index: Sequence[int] | np.ndarray, text: Callable[[int], str]) -> None:
        """Note entries by their position in the file; the first reason for each counts."""
        for i in map(int, index):
            if i not in self._found:
                self._found[i] = text(i)

    def settle(self) -> None:
        """Raise what was found, or count it as dropped.

        Raises:
            InputError: something was found and ``lenient`` is off.
        """
        if self._found and not self.lenient:
            first = "; ".join(f"{self.what}[{i}]: {self._found[i]}" for i in sorted(self._found)[:5])
            more = "" if len(self._found) <= 5 else f"; and {len(self._found) - 5} more"
            raise InputError(
                f"{self.path}: {len(self._found)} of {self.total} {self.what} cannot be used - {first}{more}. "
                "Correct them, or drop and count them with --lenient."
            )
        self.dropped += len(self._found)
        self._found = {}


@dataclass(slots=True)
class Truth:
    """A COCO annotation file.

    Attributes:
        image_ids: rising; sizes: int64 [I, 2], height and width, 0 where the file does not say.
        class_ids, names: by rising category id; a name that occurs twice carries its id.
        table: the annotations. number_of: image id -> its place in ``image_ids`` where ids are not integers.
    """

    image_ids: np.ndarray
    sizes: np.ndarray
    class_ids: np.ndarray
    names: list[str]
    table: Table
    number_of: dict[Any, int] | None = None

    def keys(self) -> list[int | str]:
        """The images' ids as the file has them, in the order of ``image_ids``."""
        return sorted(self.number_of) if self.number_of else self.image_ids.tolist()


@dataclass(slots=True)
class Pair:
    """Truth and results of one comparison, and what was wrong with either."""

    truth: Truth
    found: Table
    of_truth: Problems
    of_results: Problems


def read_pair(truth: str | Path, results: str | Path, *, lenient: bool = False) -> Pair:
    """Both files, checked.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used and ``lenient`` is off.
    """
    truth_path, results_path = Path(truth), Path(results)
    t_text, d_text = _open(truth_path), _open(results_path)
    of_truth = Problems(truth_path, "annotations", lenient)
    of_results = Problems(results_path, "results", lenient)
    read, found = _read(t_text, d_text, truth_path, of_truth)
    if found is None:
        from maskwright.metrics._coco_clean import clean_results

        plain, source = clean_results(results_path, read.number_of, of_results)
        found = read_array(plain, 0)
        assert found is not None
        found.source = source
    return Pair(read, _resolve(found, read, truth_path, of_results), of_truth, of_results)


# ---- text -> tables -------------------------------------------------------------------------------------------------


def _open(path: Path) -> np.ndarray:
    """The bytes of a file, uint8, mapped rather than read."""
    if path.is_dir():
        raise InputError(f"expected a JSON file, but {path} is a directory. Name the file inside it.")
    try:
        with open(path, "rb") as file:
            if not file.seek(0, 2):
                raise InputError(f"{path} is empty; it must be JSON. Was it written completely?")
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error


def _read(t_text: np.ndarray, d_text: np.ndarray, path: Path, problems: Problems) -> tuple[Truth, Table | None]:
    """Both files at once; ``None`` for results that need the careful reader."""
    spans = _members(t_text)
    jobs = _Jobs()
    arrays = [jobs.array(t_text, spans[name][0]) for name in _MEMBERS[:2]] if spans else []
    found = jobs.array(d_text, 0)
    jobs.run()
    images, annotations = (array() for array in arrays) if arrays else (None, None)
    if spans is None or images is None or annotations is None:
        from maskwright.metrics._coco_clean import clean_truth

        plain, categories, number_of, source = clean_truth(path, problems)
        spans = _members(plain)
        assert spans is not None
        images, annotations = (read_array(plain, spans[name][0]) for name in _MEMBERS[:2])
        assert images is not None
        assert annotations is not None
        annotations.source = source
    else:
        begin, end = spans["categories"]
        categories, number_of = _categories(t_text[begin:end].tobytes(), path), None
    return _truth(images, annotations, categories, number_of, path, problems), found()


def read_members(path: Path, *names: str) -> list[list[Any]]:
    """Arrays of a COCO file as Python objects, for what no table holds."""
    text = _open(path)
    spans = _members(text)
    try:
        if spans is None:
            whole = json.loads(text.tobytes())
            return [whole[name] for name in names]
        return [json.loads(text[slice(*spans[name])].tobytes()) for name in names]
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from error


def _members(text: np.ndarray) -> dict[str, tuple[int, int]] | None:
    """Where the three arrays of a COCO file lie, or ``None`` where the text is not the plain form of one."""
    spans = np.empty((64, 4), np.int64)
    count = kernels("read_members", text.ctypes.data, len(text), spans.ctypes.data, len(spans))
    found = {text[k0:k1].tobytes(): (int(v0), int(v1)) for k0, k1, v0, v1 in spans[: max(count, 0)]}
    if any(name.encode() not in found or text[found[name.encode()][0]] != ord("[") for name in _MEMBERS):
        return None
    return {name: found[name.encode()] for name in _MEMBERS}


class _Jobs:
    """Arrays of objects read side by side, large ones in several parts."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def array(self, text: np.ndarray, at: int) -> Callable[[], Table | None]:
        """Plan to read the array at ``at``; what is returned gives its table after ``run``, or ``None``."""
        address, stop = text.ctypes.data, len(text)
        begin = at
        while begin < stop and text[begin] in b" \n\r\t":
            begin += 1
        first = begin + 1
        while first < stop and text[first] in b" \n\r\t":
            first += 1
        if first >= stop or text[begin] != ord("["):
            return lambda: None
        if text[first] == ord("]"):
            empty = Table(np.empty((0, 12), np.int64), np.empty((0, 6)), text)
            return lambda: empty if at or _ends(text, first + 1) else None
        count = min(core.processors(), max(1, (stop - first) // _CHUNK))
        inner = [kernels("find_object", address, first + (stop - first) * k // count, stop) for k in range(1, count)]
        borders = sorted({first, stop, *inner})
        parts: list[tuple[np.ndarray, np.ndarray, int] | None] = [None] * (len(borders) - 1)

        def part(k: int) -> None:
            parts[k] = _objects(address, borders[k], borders[k + 1], stop)

        self._work += [lambda k=k: part(k) for k in range(len(parts))]

        def result() -> Table | None:
            ready = [p for p in parts if p is not None]
            met = all(p[2] == border for p, border in zip(ready[:-1], borders[1:-1], strict=False))
            if len(ready) < len(parts) or not met:
                whole = _objects(address, first, stop, stop)  # a part may have begun inside of an object
                ready = [whole] if whole else []
            if not ready or (at == 0 and not _ends(text, ready[-1][2])):
                return None
            if len(ready) == 1:
                return Table(ready[0][0], ready[0][1], text)
            return Table(np.concatenate([p[0] for p in ready]), np.concatenate([p[1] for p in ready]), text)

        return result

    def run(self) -> None:
        """Read everything planned."""
        core.run_threads(self._work)


def _objects(address: int, at: int, limit: int, stop: int) -> tuple[np.ndarray, np.ndarray, int] | None:
    capacity = kernels("count_bytes", address, at, limit, ord("{"))
    rows, floats, out = np.empty((capacity, 12), np.int64), np.empty((capacity, 6)), np.empty(8, np.int64)
    tables = (rows.ctypes.data, floats.ctypes.data, capacity, out.ctypes.data)
    count = kernels("read_objects", address, at, limit, stop, *tables)
    return None if count < 0 else (rows[:count], floats[:count], int(out[3]))


def _ends(text: np.ndarray, at: int) -> bool:
    return not text[at:].tobytes().strip(b" \n\r\t")


def read_array(text: np.ndarray, at: int) -> Table | None:
    """The objects of the JSON array at ``text[at]``, or ``None`` where it is not in the plain form."""
    jobs = _Jobs()
    array = jobs.array(text, at)
    jobs.run()
    return array()


# ---- tables -> checked tables ---------------------------------------------------------------------------------------


def _categories(text: bytes, path: Path) -> list[Any]:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from error


def _truth(
    images: Table,
    annotations: Table,
    categories: list[Any],
    number_of: dict[Any, int] | None,
    path: Path,
    problems: Problems,
) -> Truth:
    for i, category in enumerate(categories):
        if not isinstance(category, dict) or type(cast("dict[str, Any]", category).get("id")) is not int:
            raise InputError(f"{path} is not COCO: categories[{i}] must be an object with an integer id.")
    nameless = np.flatnonzero(images.rows[:, 0] & 1 == 0)
    if nameless.size:
        raise InputError(f"{path} is not COCO: images[{nameless[0]}] has no id.")
    _no_repeats(images.rows[:, 1], "image", path)
    _no_repeats(np.array([c["id"] for c in categories], np.int64), "category", path)
    order = np.argsort(images.rows[:, 1])
    sizes = np.where(images.rows[:, :1] & 0b110000 == 0b110000, images.rows[:, 5:7], 0)[order]
    categories = sorted(categories, key=lambda c: c["id"])
    plain = [str(c.get("name", c["id"])) for c in categories]
    names = [n if plain.count(n) == 1 else f"{n} (id {c['id']})" for n, c in zip(plain, categories, strict=True)]
    class_ids = np.array([c["id"] for c in categories], np.int64)
    out = Truth(images.rows[order, 1], sizes, class_ids, names, annotations, number_of)
    out.table = _resolve(annotations, out, path, problems)
    return out


def _no_repeats(ids: np.ndarray, what: str, path: Path) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = ", ".join(str(v) for v in values[counts > 1][:5])
        raise InputError(f"{path}: {what} ids must be distinct, but {int((counts > 1).sum())} repeat: {twice}.")


def _resolve(table: Table, truth: Truth, path: Path, problems: Problems) -> Table:
    """Image and class numbers for the ids of a table, and its rows checked; rows that cannot be used are dropped."""
    annotated = problems.what == "annotations"
    bits, rows, floats = table.rows[:, 0], table.rows, table.floats
    source = table.source if table.source is not None else np.arange(len(table))
    row_of = {int(s): k for k, s in enumerate(source)} if table.source is not None else None
    problems.total = max(problems.total, len(table))
    keep = np.ones(len(table), bool)

    def refuse(bad: np.ndarray, text: Callable[[int], str]) -> None:
        keep[bad] = False
        problems.add(source[bad], lambda i: text(row_of[i] if row_of else i))

    for bit, name in ((1, "image_id"), (2, "category_id"), (6, "score")):
        if not (annotated and bit == 6):
            missing = (bits & 1 << bit) == 0
            if missing.any():
                refuse(missing, lambda i, name=name: f"{name} is missing")
    image, known_image = _places(truth.image_ids, rows[:, 2])
    label, known_class = _places(truth.class_ids, rows[:, 3])
    names = {v: k for k, v in truth.number_of.items()} if truth.number_of else {}
    where = "the images" if annotated else path.name
    if not known_image.all():
        refuse(keep & ~known_image, lambda i: f"image {names.get(int(rows[i, 2]), int(rows[i, 2]))} is not in {where}")
    if not known_class.all():
        where = "the categories" if annotated else path.name
        refuse(keep & ~known_class, lambda i: f"category {int(rows[i, 3])} is not in {where}")
    if not annotated:
        wrong = ~((floats[:, 0] >= 0) & (floats[:, 0] <= 1))
        refuse(keep & wrong, lambda i: f"score must lie in [0, 1], got {float(floats[i, 0])!r}")
    boxed = (bits & 1 << 8) != 0
    if boxed.any():
        wrong = ~(np.isfinite(floats[:, 2:]).all(1) & (floats[:, 4:] >= 0).all(1)) & boxed
        refuse(keep & wrong, lambda i: f"bbox must be finite [x, y, width, height], got {floats[i, 2:].tolist()}")
    if annotated:
        numbered = np.flatnonzero(keep & (bits & 1 == 1))
        first = np.zeros(len(table), bool)
        first[numbered[np.unique(rows[numbered, 1], return_index=True)[1]]] = True
        first[bits & 1 == 0] = True
        refuse(keep & ~first, lambda i: f"id {int(rows[i, 1])} occurs before")
    problems.settle()
    table.image, table.label = image, label
    return table if keep.all() else table.take(keep)


def _places(ids: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each wanted id stands among rising ``ids``, and whether it is there."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return place, ids[place] == wanted
