"""Files written beside and renamed, and JSON read with errors that name the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from maskwright.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed over ``path``.

    A reader never sees half a file, and a crash leaves the old one. The directory is created when missing.

    Raises:
        InputError: the directory cannot be created or written, or ``path`` is a directory.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"the output must be a file, but {path} is a directory. Name a file inside it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}. Choose another output.") from error
    beside = Path(name)
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any, *, indent: bool = False) -> None:
    """Write JSON atomically; numpy arrays and scalars are written as lists and numbers."""
    options = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0)
    with replacing(path) as beside:
        beside.write_bytes(orjson.dumps(value, option=options))


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, a directory, not readable or not JSON; the message names it.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"expected a JSON file, but {path} is a directory. Name the file inside it.")
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}.") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
