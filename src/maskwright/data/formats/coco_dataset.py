"""COCO instances as a data set: one JSON, or a folder with a JSON a split (``annotations/instances_SPLIT.json``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskwright.data.dataset import WHOLE, Dataset, join_classes
from maskwright.data.formats.coco import CocoSource, read_coco, write_coco
from maskwright.data.source import FileSource, Loads
from maskwright.errors import InputError

_LOOKED_AT = 1 << 16
_PREFIX = "instances_"


def recognizes(path: Path) -> bool:
    """A JSON that names images, annotations and categories, or a folder that holds such files."""
    return bool(_files(path))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a file or all files of a folder, each a split; the classes of the files are joined by name.

    Pictures are looked for beside a JSON, in ``images/``, in ``images/SPLIT`` and in a folder named as the split.

    Raises:
        InputError: as ``read_coco``; no JSON of the kind is there.
    """
    files = _files(path)
    if not files:
        raise InputError(f"{path} holds no COCO annotation file (JSON with images, annotations, categories).")
    sources: dict[str, CocoSource] = {}
    for split, file in files.items():
        sources[split] = read_coco(file, _pictures(file, path, split) if images is None else images, strict=strict)
    taxonomy = join_classes([source.taxonomy for source in sources.values()])
    splits: dict[str, Loads] = {}
    dropped: dict[str, list[str]] = {}
    for split, source in sources.items():
        source.table.relabel(np.array([taxonomy.index(name) for name in source.taxonomy.names], np.int64))
        splits[split] = FileSource(source.table, taxonomy)
        for kind, ids in source.dropped.items():
            dropped.setdefault(kind, []).extend(f"{source.path.name} annotation {ident}" for ident in ids)
    return Dataset(format="coco", taxonomy=taxonomy, splits=splits, dropped=dropped)


def write(path: Path, dataset: Dataset) -> None:
    """Write one JSON where ``path`` is named so, else a folder with ``annotations/instances_SPLIT.json``.

    Raises:
        InputError: several splits into one file; the file cannot be written.
    """
    if path.suffix.lower() == ".json":
        if len(dataset.splits) != 1:
            raise InputError(
                f"{path}: one COCO file holds one split, got {', '.join(dataset.splits)}. Name a folder instead."
            )
        (source,) = dataset.splits.values()
        write_coco(path, source, dataset.taxonomy)
        return
    for split, source in dataset.splits.items():
        write_coco(path / "annotations" / f"{_PREFIX}{split}.json", source, dataset.taxonomy)


def _files(path: Path) -> dict[str, Path]:
    """Split -> JSON."""
    if path.is_file():
        return {WHOLE: path} if _looks_right(path) else {}
    found: dict[str, Path] = {}
    for folder in (path / "annotations", path):
        for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if _looks_right(file):
                found.setdefault(file.stem.removeprefix(_PREFIX), file)
        if found:
            break
    named = {split: file for split, file in found.items() if file.name.startswith(_PREFIX)}
    found = named or found  # beside them may lie captions, key points and stuff of the same pictures
    return {WHOLE: next(iter(found.values()))} if len(found) == 1 and "annotations" in found else found


def _looks_right(path: Path) -> bool:
    """Judged by the beginning and the end: large files are not read for this."""
    if path.suffix.lower() != ".json":
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT)
            file.seek(max(0, path.stat().st_size - _LOOKED_AT))
            text = head + file.read(_LOOKED_AT)
    except OSError:
        return False
    if head.lstrip()[:1] != b"{" or b'"segments_info"' in text:
        return False
    return sum(f'"{key}"'.encode() in text for key in ("images", "annotations", "categories")) >= 2


def _pictures(file: Path, root: Path, split: str) -> Path | None:
    """The folder of a split's pictures, where the layout names it; ``None`` leaves it to ``read_coco``."""
    base = root if root.is_dir() else file.parent
    for folder in (base / "images" / split, base / split, base / "images"):
        if folder.is_dir() and base != file.parent:
            return folder
    return None
