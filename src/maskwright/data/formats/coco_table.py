"""A COCO-like annotation list as a table: what LVIS and COCO-Stuff share with COCO instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.data.dataset import Dataset
from maskwright.data.formats.coco_lists import joined, refuse_repeats, size_of
from maskwright.data.formats.coco_objects import Problems, parse_object
from maskwright.data.source import FileSource, Loads
from maskwright.data.table import Table
from maskwright.structures import Taxonomy


def table_of(
    data: Mapping[str, list[dict[str, Any]]],
    names: Sequence[str],
    paths: Sequence[Path],
    taxonomy: Taxonomy,
    file: Path,
    *,
    strict: bool,
) -> tuple[Table, dict[str, list[int]]]:
    """The images and objects of one file, and what is wrong with it: kind -> annotation ids.

    Args:
        data: its ``images`` (each with an integer id) and ``annotations``.
        names, paths: the key of each image, and where its pixels are.

    Raises:
        InputError: image ids or names repeat; a size is not known; objects cannot be used and ``strict``.
    """
    entries = data["images"]
    refuse_repeats([entry["id"] for entry in entries], "image ids", file)
    refuse_repeats(names, "image file names", file)
    sizes = {entry["id"]: size_of(entry, path, file) for entry, path in zip(entries, paths, strict=True)}
    problems = Problems(file)
    label_of = taxonomy.label_of
    objects: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in entries}
    seen: set[int] = set()
    for position, raw in enumerate(data["annotations"]):
        parsed = parse_object(raw, position, sizes, label_of, seen, problems)
        if parsed is not None:
            objects[raw["image_id"]].append(parsed)
    if strict:
        problems.refuse()
    table = Table()
    for entry, name, path in zip(entries, names, paths, strict=True):
        table.add_image(name, path, sizes[entry["id"]], entry["id"])
        for parsed in objects[entry["id"]]:
            table.add_object(**parsed)
    return table, problems.found


def joined_tables(
    format: str,
    tables: Mapping[str, Table],
    taxonomies: Mapping[str, Taxonomy],
    dropped: Mapping[str, list[str]],
) -> Dataset:
    """The data set of several splits whose classes are joined by name."""
    taxonomy = joined(list(taxonomies.values()))
    splits: dict[str, Loads] = {}
    for split, table in tables.items():
        table.relabel(np.array([taxonomy.index(name) for name in taxonomies[split].names], np.int64))
        splits[split] = FileSource(table, taxonomy)
    return Dataset(format=format, taxonomy=taxonomy, splits=splits, dropped=dropped)
