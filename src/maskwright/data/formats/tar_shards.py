"""Tar shards as webdataset has them, pictures and annotations side by side: a folder of ``*.tar``, or one a split.

The members of a sample are described in ``data.shards``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset, join_classes
from maskwright.data.edit import relabeled
from maskwright.data.shard_writer import write_shards
from maskwright.data.shards import ShardSource
from maskwright.data.source import Loads
from maskwright.errors import InputError

picture = None
"""The shards hold the pictures."""


def recognizes(path: Path) -> bool:
    """A folder with tar files, or with folders of them."""
    return bool(_folders(path))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a folder of shards, or one such folder a split; classes are joined by name.

    Nothing but the shards' headers is read now, so that broken annotations are found when they are asked for, also
    with ``strict=False``.

    Raises:
        InputError: there are no shards, one is damaged, or ``images`` is given.
    """
    if images is not None:
        raise InputError(f"{path}: tar shards hold their pictures, so that no folder of pictures can be named.")
    folders = _folders(path)
    if not folders:
        raise InputError(f"{path} holds no tar shards.")
    sources = {split: ShardSource(folder) for split, folder in folders.items()}
    taxonomy = join_classes([source.taxonomy for source in sources.values()])
    splits: dict[str, Loads] = {}
    for split, source in sources.items():
        move = np.array([taxonomy.index(name) for name in source.taxonomy.names], np.int64)
        splits[split] = source if source.taxonomy == taxonomy else relabeled(source, move, taxonomy)
    return Dataset(format="shards", taxonomy=taxonomy, splits=splits)


def write(path: Path, dataset: Dataset) -> None:
    """Write shards of 1000 samples, in a folder a split where there are several.

    Raises:
        InputError: as ``shard_writer.write_shards``.
    """
    for split, source in dataset.splits.items():
        folder = path if list(dataset.splits) == [WHOLE] else path / split
        write_shards(source, folder, name=split)


def _folders(path: Path) -> dict[str, Path]:
    """Split -> folder of shards."""
    try:
        if not path.is_dir():
            return {}
        if any(path.glob("*.tar")):
            return {WHOLE: path}
        return {sub.name: sub for sub in sorted(path.iterdir()) if sub.is_dir() and any(sub.glob("*.tar"))}
    except OSError:
        return {}
