"""Finding the pictures of a data set that names them without their ending or their folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from maskwright.data.io import SUFFIXES
from maskwright.errors import InputError


def pictures_in(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """All pictures of a folder and its subfolders: name relative to the folder, forward slashes -> path, sorted."""
    found: dict[str, Path] = {}
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in files:
            if file.lower().endswith(tuple(suffixes)) and not file.startswith("."):
                path = Path(root, file)
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def by_stem(pictures: dict[str, Path]) -> dict[str, tuple[str, Path]]:
    """The name without its ending -> (name, path); of several the first in alphabetical order."""
    found: dict[str, tuple[str, Path]] = {}
    for name, path in pictures.items():
        found.setdefault(stem(name), (name, path))
    return found


def stem(name: str) -> str:
    """A file name without its ending, folders kept: ``a/b.c.png`` gives ``a/b.c``."""
    head, _, last = name.rpartition("/")
    base = last.rpartition(".")[0] or last
    return f"{head}/{base}" if head else base


def first_folder(candidates: Iterable[Path]) -> Path | None:
    """The first that is a folder."""
    return next((folder for folder in candidates if folder.is_dir()), None)


def require_pictures(missing: Sequence[str], total: int, path: Path, folders: Iterable[Path]) -> None:
    """``InputError`` that counts the pictures that are not on disk and names the first five, if there are any."""
    if missing:
        looked = " and ".join(dict.fromkeys(map(str, folders)))
        raise InputError(
            f"{path}: {len(missing)} of {total} images are not on disk: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''} (looked in {looked}). Name their folder with images= (--images)."
        )
