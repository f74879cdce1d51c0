"""COCO files in, numbers out: neither torch nor Python objects for each detection.

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


def score(
    truth: str | Path,
    results: str | Path,
    kinds: Sequence[str] = ("mask",),
    *,
    max_detections: int = 100,
    lenient: bool = False,
    official: bool = True,
) -> dict[str, Any]:
    """COCO's twelve numbers of a result file, over all classes and for each, as ``COCOeval`` gives them.

    Args:
        truth: COCO instances JSON; masks may be polygons or either run-length form.
        results: a JSON list of ``{image_id, category_id, score, segmentation and/or bbox}``.
        kinds: what to compare: ``"mask"``, ``"box"`` or both.
        max_detections: best-scored detections of a class in an image that count.
        lenient: drop and count entries that cannot be used instead of raising.
        official: keep two habits of pycocotools: where the first result has a box, a detection's size class is that of
            its box even when masks are compared; and a detection matched to the annotation of id 0 counts as false.

    Returns:
        ``{kind: {"AP": ..., "per_class": {name: {...}}}, "images": I, "max_per_image": max_detections}``, fractions,
        -1.0 where there is no truth; when lenient also ``"dropped": {"truth": n, "results": n}``.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used; names the first five.
    """
    truth_path, results_path = Path(truth), Path(results)
    t_text, d_text = _open(truth_path), _open(results_path)
    of_truth = Problems(truth_path, "annotations", lenient)
    of_results = Problems(results_path, "results", lenient)
    read, found = _read(t_text, d_text, truth_path, of_truth)
    if found is None:
        from maskwright.metrics._coco_clean import clean_results

        plain, source = clean_results(results_path, read.number_of, of_results)
        found = _read_array(plain, 0)
        assert found is not None
        found.source = source
    found = _resolve(found, read, truth_path, of_results)
    out: dict[str, Any] = {}
    limits = core.limits_for(max_detections)
    for kind in kinds:
        mask = kind == "mask"
        _check_kind(found, read, mask, truth_path, results_path)
        first_boxed = len(found) > 0 and bool(found.rows[0, 0] & 1 << 8)
        by_box = first_boxed if official else not mask
        annotated, detected = read.table, found
        while True:
            lost = (annotated.rows[:, 1] == 0) & (annotated.rows[:, 0] & 1 == 1) if official else None
            matches, t_status, d_status = core.match(
                annotated, detected, read.sizes, len(read.names),
                mask=mask, max_detections=limits[-1], by_box=by_box, lost=lost,
            )  # fmt: skip
            if not t_status.any() and not d_status.any():
                break
            annotated = _drop(annotated, t_status, of_truth)
            detected = _drop(detected, d_status, of_results)
        out[kind] = core.figures(core.accumulate(matches, limits), read.names)
    out |= {"images": len(read.image_ids), "max_per_image": max_detections}
    if lenient:
        out["dropped"] = {"truth": of_truth.dropped, "results": of_results.dropped}
    return out


def _drop(table: Table, status: np.ndarray, problems: Problems) -> Table:
    bad = np.flatnonzero(status)
    if not bad.size:
        return table
    source = table.source if table.source is not None else np.arange(len(table))
    reasons = {int(source[i]): core.REASONS[int(status[i])] for i in bad}
    problems.add(list(reasons), lambda i: reasons[i])
    problems.settle()
    return table.take(status == 0)


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
        images, annotations = (_read_array(plain, spans[name][0]) for name in _MEMBERS[:2])
        assert images is not None
        assert annotations is not None
        annotations.source = source
    else:
        begin, end = spans["categories"]
        categories, number_of = _categories(t_text[begin:end].tobytes(), path), None
    return _truth(images, annotations, categories, number_of, path, problems), found()


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


def _read_array(text: np.ndarray, at: int) -> Table | None:
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


def _check_kind(found: Table, truth: Truth, mask: bool, truth_path: Path, results_path: Path) -> None:
    """Fail early, and by one sentence, where a whole file is of the other kind."""
    for table, path in ((truth.table, truth_path), (found, results_path)):
        if len(table) and mask and not table.rows[:, 7].any():
            raise InputError(f"{path} has no masks (no entry has a segmentation). Did you mean --kind box?")
    if mask and not (truth.sizes > 0).all():
        place = int(np.flatnonzero((truth.sizes <= 0).any(1))[0])
        raise InputError(f"{truth_path}: image {truth.image_ids[place]} has no height and width; masks need them.")
