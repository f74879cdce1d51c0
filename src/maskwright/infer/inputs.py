"""The list of pictures of a long run: a table's rows or a folder's files, each with a key of its own."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maskwright.errors import InputError
from maskwright.infer import tables

TABLES = (".csv", ".tsv", ".parquet", ".txt")
"""Endings of files that name pictures instead of being one."""


class Item(NamedTuple):
    """A picture of the list: what results call it, and its file."""

    key: str
    path: str


def is_table(path: str | Path) -> bool:
    """Whether a name is that of a table."""
    return Path(path).suffix.lower() in TABLES


def read_table(path: Path, column: str = "path", key: str | None = None) -> list[Item]:
    """The pictures that a table names, in its order.

    Text files have a path a line; CSV, TSV and Parquet a column of them, and one of keys where ``key`` says so or a
    column has the name ``key``. A path that is not absolute begins at the table's folder. Without keys the paths as
    written are the keys.

    Raises:
        InputError: the table is missing, empty or damaged, lacks a column, or has an empty path or a key twice.
    """
    try:
        names, rows = _rows(path, column, key)
        items = [Item(str(k), str(path.parent / p)) for k, p in _pairs(path, names, rows, column, key)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {path}: {error}.") from error
    return distinct(items, path)


def distinct(items: list[Item], source: object) -> list[Item]:
    """The same items; ``InputError`` where there are none or a key repeats."""
    if not items:
        raise InputError(f"{source} names no pictures.")
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise InputError(f"{source}: keys must be distinct, but {item.key!r} comes twice. Give a column of keys.")
        seen.add(item.key)
    return items


def digest(items: Iterable[Item]) -> str:
    """SHA-256 over keys and paths, in order."""
    total = hashlib.sha256()
    for item in items:
        total.update(f"{item.key}\0{item.path}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _rows(path: Path, column: str, key: str | None) -> tuple[list[str], Iterator[Sequence[str]]]:
    ending = path.suffix.lower()
    if ending == ".txt":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [column], ((line,) for line in lines if line.strip())
    if ending == ".parquet":
        names = [name for name in tables.column_names(path) if name in (column, key or "key")]
        columns = tables.read_columns(path, names)
        return names, zip(*(columns[name] for name in names), strict=True)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, delimiter="\t" if ending == ".tsv" else ",") if row]
    return (rows[0] if rows else []), iter(rows[1:])


def _pairs(
    path: Path, names: list[str], rows: Iterator[Sequence[str]], column: str, key: str | None
) -> Iterator[tuple[str, str]]:
    for wanted in (column, key):
        if wanted is not None and wanted not in names:
            raise InputError(f"{path} must have a column {wanted!r}, it has {', '.join(names) or 'none'}.")
    of_path = names.index(column)
    of_key = names.index(key or "key") if (key or "key") in names else of_path
    for number, row in enumerate(rows, 1):
        if len(row) != len(names) or not row[of_path] or row[of_key] in (None, ""):
            raise InputError(f"{path}: row {number} must have a path and a key, got {list(row)}.")
        yield row[of_key], row[of_path]
