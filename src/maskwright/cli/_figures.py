"""Figures of any measure as text, as CSV rows and as one HTML page. Figures are nested dicts of floats, by name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from maskwright.cli._measures import Measured
from maskwright.metrics._form import undefined

_COLUMNS = 7
"""Figures of a class that fit beside one another in a terminal."""


def number(value: Any, name: str = "") -> str:
    """The figure of that name to four digits; a dash where nothing defines it; an interval's value with its ends."""
    if isinstance(value, Mapping):
        found = cast("Mapping[str, Any]", value)
        text = number(found["value"], name)
        return text if text == "-" else f"{text} [{number(found['low'], name)}, {number(found['high'], name)}]"
    if value is None or (isinstance(value, float) and undefined(name, value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def is_figure(value: Any) -> bool:
    """A number, or a number with its interval; not a group of figures, nor a list."""
    if isinstance(value, Mapping):
        return {"value", "low", "high"} <= set(cast("Mapping[str, Any]", value))
    return value is None or isinstance(value, int | float | str)


def groups(figures: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures that stand side by side, group by group: ("mask", {...}); classes are left to ``classes``."""
    own = {key: value for key, value in figures.items() if is_figure(value)}
    if own:
        yield name, own
    for key, value in figures.items():
        if isinstance(value, Mapping) and not is_figure(value) and key not in ("per_class", "confusion"):
            yield from groups(cast("Mapping[str, Any]", value), f"{name} {key}".strip())


def classes(figures: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """Tables by class: (group, columns, rows that begin with the class's name)."""
    for key, value in figures.items():
        if not isinstance(value, Mapping) or is_figure(value):
            continue
        inner = cast("dict[str, Any]", value)
        if key != "per_class":
            yield from classes(inner, f"{name} {key}".strip())
        elif inner:
            first = next(iter(inner.values()))
            if is_figure(first):
                yield name, ["value"], [[label, figure] for label, figure in inner.items()]
            else:
                columns = [column for column in first if is_figure(first[column])]
                yield name, columns, [[label, *(own.get(c) for c in columns)] for label, own in inner.items()]


def text(measured: Measured) -> str:
    """Figures for a terminal: group by group, then by class where there is more than one."""
    lines: list[str] = []
    for name, own in groups(measured.figures):
        width = max(map(len, own))
        lines += [name] if name else []
        lines += [f"  {key:<{width}}  {number(value, key)}" for key, value in own.items()] + [""]
    for name, columns, rows in classes(measured.plain):
        if len(rows) > 1:
            lines += [f"{name} by class".strip(), *_aligned(["class", *columns[:_COLUMNS]], rows), ""]
    lines += [*measured.sentences, ""] if measured.sentences else []
    return "\n".join([*lines, "Fractions; - where nothing defines a figure."])


def _aligned(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [list(head), *([str(row[0]), *map(number, row[1 : len(head)], head[1:])] for row in rows)]
    wide = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return ["  " + "  ".join([f"{line[0]:<{wide[0]}}", *_right(line[1:], wide[1:])]) for line in cells]


def _right(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]


def table(measured: Measured) -> str:
    """Figures as CSV: group, class, figure, value, low, high; one line each."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(["group", "class", "figure", "value", "low", "high"])
    for name, own in groups(measured.figures):
        for key, value in own.items():
            write.writerow([name, "", key, *_ends(value, key)])
    for name, columns, rows in classes(measured.figures):
        for label, *values in rows:
            for key, value in zip(columns, values, strict=True):
                write.writerow([name, label, key, *_ends(value, key)])
    return out.getvalue()


def _ends(value: Any, name: str) -> list[Any]:
    if isinstance(value, Mapping):
        found = cast("Mapping[str, Any]", value)
        return [_plain(found[end], name) for end in ("value", "low", "high")]
    return [_plain(value, name), "", ""]


def _plain(value: Any, name: str) -> Any:
    return "" if number(value, name) == "-" else value
