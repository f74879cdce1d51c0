"""The images that a command is to learn from or measure on: a split of a data set in any format."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from maskwright.data import formats
from maskwright.data.source import Loads
from maskwright.errors import InputError

_ROLES = {"train": ("train",), "val": ("val", "test")}


def open_split(
    path: str | Path,
    role: Literal["train", "val"],
    *,
    images: str | Path | None = None,
    strict: bool = True,
) -> Loads:
    """One split of what ``path`` names.

    Args:
        path: a file or folder of annotations; ``PATH@SPLIT`` names the split. Otherwise the only one is taken, or the
            one whose name has ``role`` in it (for ``val`` that of ``test`` where there is no other).
        role: what it is for.
        images: the folder of the pictures, where they do not lie as the format has them.
        strict: refuse broken objects; otherwise leave them out.

    Raises:
        InputError: as ``formats.read``; the split cannot be told.
    """
    text, name = str(path), ""
    if not Path(text).exists() and "@" in text:
        text, _, name = text.rpartition("@")
    found = formats.read(text, images=images, strict=strict)
    splits = dict(found.splits)
    if name:
        if name not in splits:
            raise InputError(f"{text} has no split {name}; it has {', '.join(splits)}")
        return splits[name]
    if len(splits) == 1:
        return next(iter(splits.values()))
    for word in _ROLES[role]:
        fitting = [split for split in splits if word in split]
        if len(fitting) == 1:
            return splits[fitting[0]]
    first = next(iter(splits), "train")
    raise InputError(f"{text} has the splits {', '.join(splits)}: say which to take, as {text}@{first}")
