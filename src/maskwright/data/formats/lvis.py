"""LVIS: COCO's JSON with 1203 classes, of which an image names those that were looked for in vain.

Gupta et al., LVIS (CVPR 2019); https://www.lvisdataset.org/dataset. What differs from COCO: pictures are named by
``coco_url`` (its last two parts, ``train2017/000000391895.jpg``), categories have a ``frequency`` (``r`` in at most 10
images, ``c`` in at most 100, else ``f``), and images say which classes are surely absent (``neg_category_ids``) and
which are not outlined in full (``not_exhaustive_category_ids``).

Records have no place for these three. They are facts about what a missing outline means, used by measures, losses and
samplers that know them, so ``federated`` reads them beside; conversion to another format loses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from maskwright.data.dataset import Dataset
from maskwright.data.formats.coco_lists import is_int, json_files, locate, picture_roots, read_lists, read_taxonomy
from maskwright.data.formats.coco_table import joined_tables, table_of
from maskwright.data.table import Table
from maskwright.errors import InputError
from maskwright.structures import Taxonomy

_KEYS = ("images", "annotations", "categories")
_PREFIX = "lvis_v1_"
_WHAT = "an LVIS annotation file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Federated:
    """What LVIS knows of classes that are not outlined.

    Attributes:
        frequency: of each class in the order of labels: ``r``, ``c``, ``f``, or "" where it is not said.
        absent: image id -> labels of which the image has no object.
        not_exhaustive: image id -> labels of which the image has more objects than are outlined.
    """

    frequency: tuple[str, ...]
    absent: Mapping[int, tuple[int, ...]]
    not_exhaustive: Mapping[int, tuple[int, ...]]


def recognizes(path: Path) -> bool:
    """A JSON with ``neg_category_ids``, or a folder that holds such files (beside or in ``annotations/``)."""
    return bool(json_files(path, _looks_right, _PREFIX))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read a file, or all files of a folder, each a split; classes are joined by name.

    Raises:
        InputError: a file is not LVIS; pictures are not on disk; objects cannot be used and ``strict`` (as COCO's).
    """
    files = _files(path)
    tables: dict[str, Table] = {}
    taxonomies: dict[str, Taxonomy] = {}
    dropped: dict[str, list[str]] = {}
    for split, file in files.items():
        data = read_lists(file, _KEYS, _WHAT)
        names = [_name(entry, position, file) for position, entry in enumerate(data["images"])]
        paths = _paths(names, file, picture_roots(file, split, images))
        taxonomies[split] = read_taxonomy(data["categories"], file)
        tables[split], found = table_of(data, names, paths, taxonomies[split], file, strict=strict)
        for kind, ids in found.items():
            dropped.setdefault(kind, []).extend(f"{file.name} annotation {ident}" for ident in ids)
    return joined_tables("lvis", tables, taxonomies, dropped)


def federated(path: Path) -> Federated:
    """What a file says of classes that are not outlined; labels are those that ``read`` gives for the file alone.

    Raises:
        InputError: the file is not LVIS, or names classes that are not among its categories.
    """
    data = read_lists(path, _KEYS, _WHAT)
    taxonomy = read_taxonomy(data["categories"], path)
    label_of = taxonomy.label_of
    frequency = {c["id"]: c["frequency"] for c in data["categories"] if c.get("frequency") in ("r", "c", "f")}
    out: dict[str, dict[int, tuple[int, ...]]] = {"neg_category_ids": {}, "not_exhaustive_category_ids": {}}
    for position, entry in enumerate(data["images"]):
        for key, found in out.items():
            listed = entry.get(key, [])
            if not isinstance(listed, list) or not all(is_int(c) and c in label_of for c in listed):
                raise InputError(f"{path}: {key} of image {position} must list ids of categories.")
            if is_int(entry.get("id")):
                found[entry["id"]] = tuple(label_of[c] for c in listed)
    return Federated(
        frequency=tuple(frequency.get(ident, "") for ident in taxonomy.source_ids),
        absent=out["neg_category_ids"],
        not_exhaustive=out["not_exhaustive_category_ids"],
    )


def _files(path: Path) -> dict[str, Path]:
    files = json_files(path, _looks_right, _PREFIX)
    if not files:
        raise InputError(f"{path} holds no LVIS annotation file (JSON whose images have neg_category_ids).")
    return files


def _looks_right(text: bytes) -> bool:
    # Large files show only their first annotations and last categories to this test.
    of_categories = b'"synset"' in text and b'"frequency"' in text
    return text.lstrip()[:1] == b"{" and (b'"neg_category_ids"' in text or of_categories)


def _name(entry: Mapping[str, Any], position: int, file: Path) -> str:
    name, url = entry.get("file_name"), entry.get("coco_url")
    if not isinstance(name, str) and isinstance(url, str):
        name = "/".join(PurePosixPath(url).parts[-2:])
    if not is_int(entry.get("id")) or not isinstance(name, str):
        raise InputError(f"{file}: image {position} must have an integer id and a coco_url, got {str(entry)[:120]}")
    return name


def _paths(names: list[str], file: Path, roots: list[Path]) -> list[Path]:
    """Where the pictures are: with the folder of their name, or, where all lie in one, without."""
    flat = [name.rpartition("/")[2] for name in names]
    one_folder = any((root / flat[0]).is_file() for root in roots) if flat else False
    return locate(flat if one_folder else names, file, roots)
