"""The pictures of a data set that is written anew: linked or copied to where its format looks for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from maskwright.data.dataset import Dataset
from maskwright.errors import InputError
from maskwright.structures import Record

How = Literal["link", "copy", "none"]
Place = Callable[[Path, str, Record], Path]


def place_pictures(dataset: Dataset, root: Path, place: Place | None, how: How = "link") -> int:
    """Bring every picture to where ``place(root, split, record)`` says; how many there are. ``None`` brings none.

    ``link`` makes hard links, which cost no space, and copies where the disk cannot; a picture that is there already
    with the same contents is left alone.

    Raises:
        InputError: a picture is missing, another one lies at its place, or the disk cannot be written.
    """
    done = 0
    for split, source in dataset.splits.items():
        for index in range(len(source)):
            record = source.record(index)
            if how != "none" and place is not None:
                _bring(record.path, place(root, split, record), how)
            done += 1
    return done


def _bring(path: Path, target: Path, how: How) -> None:
    if not path.is_file():
        raise InputError(
            f"the picture {path} is missing. Name the folder of the pictures (--images), or use --pictures none."
        )
    if target.exists():
        if target.samefile(path) or _same(path, target):
            return
        raise InputError(f"{target} is there already and is another picture than {path}. Choose another output.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "link":
            try:
                os.link(path, target)
                return
            except OSError:
                pass  # another disk, or one without links
        beside = target.with_name(f".{target.name}.part")
        shutil.copyfile(path, beside)
        os.replace(beside, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}. Choose another output.") from error


def _same(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()
