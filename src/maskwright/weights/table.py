"""Published checkpoints as data: where they are, what they reach, and under which license their weights are.

Listing them imports no torch. ``sha256`` is the whole hash or its beginning; ``None`` says that no hash is known.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from maskwright.errors import InputError
from maskwright.weights.rows import PACKAGED, Published
from maskwright.weights.rows_instance import INSTANCE
from maskwright.weights.rows_maps import MAPS

__all__ = ["PACKAGED", "Published", "check_license", "find", "is_published", "of_model", "packaged", "published"]

ROWS: tuple[Published, ...] = (*INSTANCE, *MAPS)

_BY_NAME = {row.name: row for row in ROWS}


def published() -> tuple[Published, ...]:
    """All rows, in the table's order."""
    return ROWS


def find(name: str) -> Published:
    """The row called ``name``.

    Raises:
        InputError: there is none; the message suggests the closest names.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    close = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.4) or list(_BY_NAME)
    raise InputError(
        f"weights must be a checkpoint file or a published name, got {name!r}: no such file, and no such name. "
        f"Did you mean {' or '.join(close)}?"
    )


def of_model(model: str) -> tuple[str, ...]:
    """The names of the rows that fit a model of the zoo."""
    return tuple(row.name for row in ROWS if row.model == model)


def is_published(name: str) -> bool:
    """Whether the table has a row called ``name``."""
    return name in _BY_NAME


def check_license(row: Published, *, commercial: bool) -> None:
    """Refuse a row for commercial use unless its license allows that.

    Raises:
        InputError: ``commercial`` is true and the license is non-commercial or unknown.
    """
    if commercial and row.commercial is not True:
        kind = (
            "does not allow commercial use"
            if row.commercial is False
            else "does not say that commercial use is allowed"
        )
        free = ", ".join(other.name for other in ROWS if other.commercial is True and other.model == row.model)
        raise InputError(
            f"commercial=True needs weights whose license allows commercial use; that of {row.name!r} "
            f"({row.license}) {kind}. " + (f"Allowed for {row.model}: {free}." if free else "Choose other weights.")
        )


def packaged(row: Published) -> Path | None:
    """The file inside the package, or ``None`` for a row that is downloaded.

    Raises:
        InputError: the row is packaged, but this installation lacks the file.
    """
    if not row.url.startswith(PACKAGED):
        return None
    path = Path(__file__).parent / "files" / row.url.removeprefix(PACKAGED)
    if not path.is_file():
        raise InputError(
            f"the weights {row.name!r} must ship with the package, but {path} is missing. Install it again."
        )
    return path
