"""Parquet in and out, through pyarrow, which is installed with ``pip install 'maskwright[table]'``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from maskwright.errors import InputError


def require_pyarrow() -> Any:
    """pyarrow; ``InputError`` where it is not installed."""
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise InputError("Parquet needs pyarrow, which is missing: pip install 'maskwright[table]'.") from error


def read_columns(path: Path, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Columns of a Parquet file by name; ``None`` is all.

    Raises:
        InputError: pyarrow is missing, or the file is missing, no Parquet, or lacks a column.
    """
    arrow = require_pyarrow()
    parquet: Any = import_module("pyarrow.parquet")
    try:
        return parquet.read_table(path, columns=None if columns is None else list(columns)).to_pydict()
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"cannot read {path} as Parquet: {error}. Is the file complete?") from error


def column_names(path: Path) -> list[str]:
    """Names of a Parquet file's columns; ``InputError`` as ``read_columns``."""
    arrow = require_pyarrow()
    parquet: Any = import_module("pyarrow.parquet")
    try:
        return list(parquet.read_schema(path).names)
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"cannot read {path} as Parquet: {error}. Is the file complete?") from error


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a part: a row for each picture, its objects in a list column (``parts.Row``)."""
    arrow = require_pyarrow()
    parquet: Any = import_module("pyarrow.parquet")
    found = arrow.struct(
        [
            ("category_id", arrow.int64()),
            ("class", arrow.string()),
            ("thing", arrow.bool_()),
            ("score", arrow.float64()),
            ("bbox", arrow.list_(arrow.float64())),
            ("area", arrow.int64()),
            ("counts", arrow.string()),
        ]
    )
    schema = arrow.schema(
        [
            ("id", arrow.int64()),
            ("key", arrow.string()),
            ("path", arrow.string()),
            ("height", arrow.int32()),
            ("width", arrow.int32()),
            ("error", arrow.string()),
            ("objects", arrow.list_(found)),
        ]
    )
    parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What ``write_rows`` wrote; ``InputError`` as ``read_columns``."""
    columns = read_columns(path)
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
