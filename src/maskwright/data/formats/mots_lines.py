"""The lines of MOTS text files, ``frame id class height width rle``: read, and made of records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskwright.data.dataset import Dataset
from maskwright.data.formats import maps, maps_out
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import paint_map
from maskwright.storage import replacing
from maskwright.structures import Record, Shape

RADIX = 1000
IGNORED = 10
TEXT, NAMES = "instances_txt", "labels.txt"
CLASSES = ("car", "pedestrian")
_ALONE = "0000"

_Sequence = tuple[str, str]  # split, name


@dataclass(frozen=True, slots=True)
class Line:
    """One object of one frame: ``kind`` is its class from 1, or ``IGNORED``; ``where`` names file and line."""

    frame: int
    track: int
    kind: int
    shape: Shape
    where: str


def parse(build: Builder, path: Path) -> Iterator[Line]:
    """The lines of a file; those of another form are noted as problems."""
    for number, text in enumerate(maps.lines(path), 1):
        words = text.split()
        if not words:
            continue
        where = f"{path}:{number}"
        if len(words) != 6 or not all(w.isascii() and w.isdigit() and len(w) < 19 for w in words[:5]):
            build.problem("a line that is not: frame id class height width rle", where)
            continue
        frame, track, kind, height, width = map(int, words[:5])
        yield Line(frame, track, kind, {"size": (height, width), "counts": words[5].encode("utf-8")}, where)


def place(record: Record) -> tuple[str, int]:
    """The sequence and frame that a record is written as."""
    return record.sequence or _ALONE, record.image_id if record.frame is None else record.frame


def write(path: Path, dataset: Dataset, overlap: maps_out.Overlap) -> None:
    """As ``formats.mots.write``."""
    names = dataset.taxonomy.names
    if not 0 < len(names) < IGNORED or any(not n.strip() or n != n.strip() or len(n.splitlines()) != 1 for n in names):
        raise InputError(f"{path}: the format has 1 to {IGNORED - 1} classes with names of one line, got {len(names)}.")
    maps_out.check(path, dataset, overlap="cover", crowd=True)
    refusals = maps_out.Refusals(path, "Correct the data set, or choose another format.")
    numbers: dict[_Sequence, _Numbers] = {}
    seen: set[tuple[_Sequence, int]] = set()
    for split, record in maps_out.records(dataset):
        sequence, frame = place(record)
        inside_folder(sequence, path)
        if ((split, sequence), frame) in seen or frame < 0:
            refusals.add("pictures without a frame of their own", record.key)
        seen.add(((split, sequence), frame))
        numbers.setdefault((split, sequence), _Numbers()).meet(record, refusals)
        _look_at(record, len(names), overlap, refusals)
    for (split, sequence), known in numbers.items():
        if known.full():
            refusals.add(f"sequences with more than {RADIX} tracks of a class", f"{split}/{sequence}")
    refusals.refuse()
    texts: dict[_Sequence, list[tuple[int, str]]] = {}
    for split, record in maps_out.records(dataset):
        sequence, frame = place(record)
        texts.setdefault((split, sequence), []).append((frame, _text(record, frame, numbers[split, sequence])))
    for (split, sequence), parts in texts.items():
        with replacing(path / split / TEXT / f"{sequence}.txt") as beside:
            beside.write_text("".join(text for _, text in sorted(parts)), "ascii")
    for split in dataset.splits:
        (path / split / TEXT).mkdir(parents=True, exist_ok=True)
        (path / split / "images").mkdir(exist_ok=True)
        if names != CLASSES:
            with replacing(path / split / TEXT / NAMES) as beside:
                beside.write_text("".join(f"{name}\n" for name in names), "utf-8")


class _Numbers:
    """The numbers below 1000 that the tracks of one sequence get, class by class."""

    def __init__(self) -> None:
        self._tracks: dict[int, set[int]] = {}
        self._lone: dict[int, int] = {}
        self._given: dict[tuple[int, int], int] = {}
        self._free: dict[int, Iterator[int]] = {}

    def meet(self, record: Record, refusals: maps_out.Refusals) -> None:
        """Look at a record's tracks before numbers are given."""
        here: set[tuple[int, int]] = set()
        for label, track, crowd in _tracked(record):
            if crowd:
                continue
            if track < 0:
                self._lone[label] = self._lone.get(label, 0) + 1
            elif (label, track) in here:
                refusals.add("objects of a track that is there already in the picture", record.key)
            else:
                here.add((label, track))
                self._tracks.setdefault(label, set()).add(track)

    def full(self) -> bool:
        """Whether a class has more tracks than there are numbers."""
        labels = self._tracks.keys() | self._lone.keys()
        return any(len(self._tracks.get(i, ())) + self._lone.get(i, 0) > RADIX for i in labels)

    def of(self, label: int, track: int) -> int:
        """The id written for a track, class * 1000 + number; a new one for -1."""
        base = (label + 1) * RADIX
        if base <= track < base + RADIX:
            return track
        if track >= 0 and (label, track) in self._given:
            return self._given[label, track]
        if label not in self._free:
            taken = self._tracks.get(label, set())
            self._free[label] = (n for n in [*range(1, RADIX), 0] if base + n not in taken)
        self._given[label, track] = number = base + next(self._free[label])
        return number


def _tracked(record: Record) -> Iterator[tuple[int, int, bool]]:
    """(label, track or -1, crowd) of each object."""
    tracks = [-1] * len(record) if record.tracks is None else record.tracks.tolist()
    yield from zip(record.labels.tolist(), tracks, record.crowd.tolist(), strict=True)


def _ignored(record: Record) -> list[tuple[int, set[int]]]:
    """(the first object with it, the labels that have it) of each distinct crowd region of a resolved record."""
    found: dict[bytes, tuple[int, set[int]]] = {}
    counts, offsets = maps_out.masks(record)
    for i in np.flatnonzero(record.crowd).tolist():
        key = counts[offsets[i] : offsets[i + 1]].tobytes()
        found.setdefault(key, (i, set()))[1].add(int(record.labels[i]))
    return list(found.values())


def _look_at(record: Record, classes: int, overlap: maps_out.Overlap, refusals: maps_out.Refusals) -> None:
    regions = _ignored(record)
    partial = sum(len(labels) < classes for _, labels in regions)
    if partial:
        refusals.add("crowd regions that are not there for every class", record.key, partial)
    kept = np.array([*np.flatnonzero(~record.crowd).tolist(), *(i for i, _ in regions)], np.int64)
    if overlap == "refuse" and len(kept) > 1:
        covered = maps_out.overlapping(rle.take(*maps_out.masks(record), kept))
        if covered:
            refusals.add("objects that overlap others (overlap='cover' cuts them)", record.key, covered)


def _text(record: Record, frame: int, numbers: _Numbers) -> str:
    """The lines of one resolved record; regions to be ignored lie below the objects."""
    order = [i for i, _ in _ignored(record)] + np.flatnonzero(~record.crowd).tolist()
    if not order:
        return ""
    runs = rle.take(*maps_out.masks(record), np.array(order, np.int64))
    painted = paint_map(*runs, record.size, np.arange(1, len(order) + 1))
    rows = list(_tracked(record))
    out: list[str] = []
    for i, shape in zip(order, maps.cut(painted, np.arange(1, len(order) + 1)), strict=True):
        label, track, crowd = rows[i]
        ident, kind = (IGNORED * RADIX, IGNORED) if crowd else (numbers.of(label, track), label + 1)
        counts = shape["counts"]
        assert isinstance(counts, bytes)
        if rle.decompress(counts)[1::2].sum():
            out.append(f"{frame} {ident} {kind} {record.size[0]} {record.size[1]} {counts.decode('ascii')}\n")
    return "".join(out)
