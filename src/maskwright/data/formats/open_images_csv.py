"""The CSVs of Open Images row by row, its names of classes, and its hierarchy."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from maskwright.errors import InputError
from maskwright.storage import read_json

_KEY, _CHILDREN = "LabelName", "Subcategory"


def each_row(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The line and the fields ``columns`` of every row after the header.

    Raises:
        InputError: the file is not text in UTF-8 or not a CSV, or lacks a column or field; names file and line.
    """
    number = 1
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = csv.reader(opened)
            header = [name.strip() for name in next(rows, [])]
            lacking = [name for name in columns if name not in header]
            if lacking:
                raise InputError(f"{file}:1: the columns {', '.join(lacking)} are missing.")
            places = [header.index(name) for name in columns]
            last = max(places)
            for row in rows:
                number = rows.line_num
                if len(row) > last:
                    yield number, [row[place] for place in places]
                elif row:
                    raise InputError(f"{file}:{number}: the row has {len(row)} fields, the header {len(header)}.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}:{number + 1}: cannot be read as CSV in UTF-8: {error}.") from error


def descriptions(path: Path) -> dict[str, str]:
    """Code -> name of the classes, in the order of the file; the boxable ones where they have a file of their own.

    Names that come again get their code behind them.

    Raises:
        InputError: there is no such file, or it is not a CSV.
    """
    found = [f for folder in (path / "annotations", path) for f in sorted(folder.glob("*class-descriptions*.csv"))]
    if not found:
        raise InputError(
            f"{path}: there is no class-descriptions CSV, which names the classes. Put it beside the others."
        )
    file = next((f for f in found if "boxable" in f.name), found[0])
    names: dict[str, str] = {}
    taken: set[str] = set()
    number = 1
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            for number, row in enumerate(csv.reader(opened), 1):
                if len(row) < 2 or (number == 1 and row[0] == _KEY):
                    continue
                code, name = row[0], row[1].strip() or row[0]
                if code not in names:
                    names[code] = name if name not in taken else f"{name} ({code})"
                    taken.add(names[code])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}:{number}: cannot be read as CSV in UTF-8: {error}.") from error
    return names


def hierarchy(path: Path) -> dict[str, tuple[str, ...]]:
    """Class -> the classes it is a kind of, from ``bbox_labels_600_hierarchy.json`` (parts are no kinds).

    Args:
        path: the JSON, whose codes are kept; or the data set's folder: classes are called as by ``read``, codes without
            a description, like the root's, are kept.

    Raises:
        InputError: no such file, or not of this form.
    """
    names: Mapping[str, str] = {}
    if path.is_dir():
        files = [f for folder in (path / "annotations", path) for f in sorted(folder.glob("*hierarchy*.json"))]
        if not files:
            raise InputError(f"{path} holds no hierarchy of Open Images (bbox_labels_600_hierarchy.json).")
        names, path = descriptions(path), files[0]
    parents: dict[str, list[str]] = {}
    waiting: list[tuple[object, str | None]] = [(read_json(path), None)]
    while waiting:
        node, parent = waiting.pop()
        code = node.get(_KEY) if isinstance(node, dict) else None
        children = node.get(_CHILDREN, []) if isinstance(node, dict) else None
        if not isinstance(code, str) or not isinstance(children, list):
            raise InputError(f"{path}: a class must have a {_KEY} and a list {_CHILDREN}, got {str(node)[:80]}")
        name = names.get(code, code)
        of = parents.setdefault(name, [])
        if parent is not None and parent not in of:
            of.append(parent)
        waiting += [(child, name) for child in reversed(children)]
    return {name: tuple(of) for name, of in parents.items()}


def expand(name: str, parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A class and all it is a kind of, nearest first: what a box of it counts as in the official measure.

    Args:
        name: a class.
        parents: as ``hierarchy`` gives them; a class that is not there has none.
    """
    found = dict.fromkeys([name])
    waiting = [name]
    while waiting:
        for parent in parents.get(waiting.pop(0), ()):
            if parent not in found:
                found[parent] = None
                waiting.append(parent)
    return tuple(found)
