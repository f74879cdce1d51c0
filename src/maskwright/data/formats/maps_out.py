"""What formats whose labels are pictures share when they are written: checks before the first file, painting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import inside_folder
from maskwright.data.formats.maps import as_picture
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.ops.rle_maps import paint_map
from maskwright.storage import replacing
from maskwright.structures import Record

Overlap = Literal["refuse", "cover"]
"""What writing does with objects that overlap where a pixel has one value: refuse, or let later ones cover earlier."""


class Refusals:
    """What a format cannot hold, kind by kind; refused all at once, before anything is written."""

    def __init__(self, path: Path, hint: str = "") -> None:
        self.path, self.hint = path, hint
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, where: str, count: int = 1) -> None:
        """Note ``count`` things of a kind at one place."""
        self.found.setdefault(kind, []).extend([where] * count)

    def refuse(self) -> None:
        """``InputError`` that counts every kind and names the first five places, if there is any."""
        if not self.found:
            return
        lines: list[str] = []
        for kind, where in self.found.items():
            places = list(dict.fromkeys(where))
            lines.append(f"  {len(where)} {kind}: {', '.join(places[:5])}{', ...' if len(places) > 5 else ''}")
        raise InputError(
            f"{self.path}: the format cannot hold all of it:\n" + "\n".join(lines) + f"\n{self.hint}".rstrip()
        )


def records(dataset: Dataset) -> Iterator[tuple[str, Record]]:
    """(split, record) of every image, regions and maps decoded."""
    for split, source in dataset.splits.items():
        inside_folder(split, Path(split))
        for index in range(len(source)):
            yield split, resolve(source.record(index))


def check(
    path: Path, dataset: Dataset, *, overlap: Overlap = "refuse", one_class: bool = False, crowd: bool = False,
    most: int | None = None, apart: bool = True,
) -> None:  # fmt: skip
    """Refuse what a map cannot hold, before anything is written.

    Args:
        path: what is written.
        dataset: all of it is looked at.
        overlap: whether objects may overlap.
        one_class: the format has one class only.
        crowd: the format has crowd regions.
        most: most objects in one picture.
        apart: objects share a map, so that overlapping matters.

    Raises:
        ValueError: another ``overlap``.
        InputError: counts every kind and names the first five pictures.
    """
    if overlap not in ("refuse", "cover"):
        raise ValueError(f"overlap must be 'refuse' or 'cover', got {overlap!r}")
    hint = "Choose another format, or change the data set first"
    hint += ", or let later objects cover earlier ones (overlap='cover')." if apart else "."
    refusals = Refusals(path, hint)
    used: set[int] = set()
    for _, record in records(dataset):
        inside_folder(record.key, path)
        used.update(record.labels.tolist())
        boxes = sum(shape is None for shape in record.shapes)
        if boxes:
            refusals.add("objects with a box only", record.key, boxes)
            continue
        if record.crowd.any() and not crowd:
            refusals.add("crowd regions", record.key, int(record.crowd.sum()))
        if most is not None and len(record) > most:
            refusals.add(f"pictures with more than {most} objects", record.key)
        runs = masks(record)
        if apart and overlap == "refuse" and len(record) > 1:
            covered = overlapping(runs)
            if covered:
                refusals.add("objects that overlap others", record.key, covered)
        if (empty := int((rle.area(*runs) == 0).sum())) > 0:
            refusals.add("objects without pixels", record.key, empty)
    if one_class and len(used) > 1:
        names = [dataset.taxonomy.names[label] for label in sorted(used)]
        refusals.add("classes, where the format has one", ", ".join(names[:5]), len(names))
    refusals.refuse()


def check_stems(path: Path, dataset: Dataset) -> None:
    """``InputError`` where two pictures of a split differ in their ending only: they would share their labels' file."""
    refusals = Refusals(path, "Rename them.")
    for split, source in dataset.splits.items():
        seen: set[str] = set()
        for index in range(len(source)):
            stem = stem_of(source.record(index).key)
            if stem in seen:
                refusals.add("pictures whose name without ending another one has", f"{split}/{stem}")
            seen.add(stem)
    refusals.refuse()


def overlapping(runs: rle.Runs) -> int:
    """How many masks share a pixel with another one."""
    counts, offsets = runs
    total, whole = rle.area(counts, offsets), rle.union(counts, offsets)
    if int(total.sum()) == int(whole[1::2].sum()):
        return 0
    shared = rle.intersection(counts, offsets, counts, offsets)
    np.fill_diagonal(shared, 0)
    return int((shared > 0).any(axis=1).sum())


def masks(record: Record) -> rle.Runs:
    """The runs of a resolved record's objects, in order; ``InputError`` where an object has a box only."""
    pieces: list[np.ndarray] = []
    for shape in record.shapes:
        if isinstance(shape, tuple):
            pieces.append(polygons.rasterize(list(shape), record.size))
        elif isinstance(shape, dict):
            pieces.append(rle.from_coco([shape], record.size)[0])
        else:
            raise InputError(f"{record.key}: an object has a box only. Masks cannot be made of boxes.")
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.int32)), offsets


def painted(record: Record, values: np.ndarray, background: int = 0) -> np.ndarray:
    """A map int64 [H, W] with ``values[i]`` where object ``i`` is; later objects cover earlier ones."""
    return paint_map(*masks(record), record.size, values, background=background)


def save_map(path: Path, array: np.ndarray) -> None:
    """Write a map of integers 0..65535 in the form its ending names (PNG, TIFF); ``InputError`` if that fails."""
    picture = as_picture(array)
    with replacing(path) as beside:
        picture.save(beside)


def stem_of(key: str) -> str:
    """An image's name without its ending; folders stay."""
    path = Path(key)
    return path.with_name(path.stem).as_posix() if path.suffix else path.as_posix()
