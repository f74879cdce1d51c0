"""Files written beside and renamed, and JSON read with errors that name the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

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


def read_xml(path: str | Path, *, most_depth: int = 64) -> Element:
    """The root element of an XML file, without what makes XML dangerous: a file with a document type is refused.

    Raises:
        InputError: the file is missing, a directory, not XML, nested deeper than ``most_depth``, or declares a document
            type (entities grow without bound and may name other files); the message names file and line.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"expected an XML file, but {path} is a directory. Name the file inside it.")
    parser, tree = expat.ParserCreate(), TreeBuilder()
    parser.buffer_text = True
    depth = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > most_depth:
            raise InputError(f"{path}:{parser.CurrentLineNumber}: elements are nested deeper than {most_depth}.")
        tree.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        tree.end(name)

    def refuse(*_: object) -> None:
        raise InputError(
            f"{path}:{parser.CurrentLineNumber}: an annotation file must not declare a document type (DOCTYPE). "
            "Remove it."
        )

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, tree.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
        return tree.close()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except (expat.ExpatError, LookupError, ValueError, AssertionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not XML: {error}.") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
