"""Segment Anything (SA-1B): a JSON of masks beside every picture, without classes.

Kirillov et al., Segment Anything (ICCV 2023); https://github.com/facebookresearch/segment-anything#dataset. Each JSON
has an ``image`` (``image_id``, ``width``, ``height``, ``file_name``) and ``annotations`` with run-lengths, ``bbox`` (x,
y, width, height) and ``area``. All objects are of the class ``object``. Predicted qualities, crop boxes and prompt
points are left out. Ids that come again get the next free number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.data.dataset import Dataset
from maskwright.data.formats.build import Builder, inside_folder
from maskwright.data.formats.coco_lists import is_int, size_of
from maskwright.data.formats.pictures import require_pictures, stem
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.storage import read_json, write_json
from maskwright.structures import Record, Taxonomy

CLASS = "object"

_LOOKED_AT = 1 << 12


def recognizes(path: Path) -> bool:
    """A JSON that has an ``image`` and ``segmentation`` of run-lengths, or a folder of such files."""
    files = [path] if path.is_file() else [*islice(path.glob("*.json"), 5), *islice(path.glob("*/*.json"), 5)]
    return any(map(_looks_right, files))


def read(path: Path, *, images: Path | None = None, strict: bool = True) -> Dataset:
    """Read one JSON, or all of a folder and its subfolders (other JSON files are passed over).

    Pictures lie beside, or in ``images`` under the same subfolders.

    Raises:
        InputError: a JSON is not one of SA-1B; pictures are not on disk; masks cannot be used and ``strict``:
            run-lengths of another size than the picture, masks without pixels.
    """
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*.json")) if _looks_right(file)]
    if not files:
        raise InputError(f"{path} holds no JSON of Segment Anything (an image and its annotations).")
    missing: list[str] = []
    build = Builder(path, "segment-anything", Taxonomy(names=(CLASS,)), strict=strict)
    taken: set[int] = set()
    free = count(1)
    for file in files:
        image, annotations = _parts(file)
        folder = Path() if path.is_file() else file.parent.relative_to(path)
        name = (folder / inside_folder(image["file_name"], file)).as_posix()
        picture = (images or (file.parent if path.is_file() else path)) / name
        if not picture.is_file():
            missing.append(name)
            continue
        size = size_of(image, picture, file)
        build.image(name, picture, size, image_id=image["image_id"])
        for position, entry in enumerate(annotations):
            _object(build, entry, f"{file.name} annotation {position}", size, taken, free)
    require_pictures(missing, len(files), path, [images or files[0].parent])
    return build.done()


def write(path: Path, dataset: Dataset) -> None:
    """Write a JSON an image, where its picture belongs: ``KEY`` with the ending ``.json``.

    Qualities of the masks are not known, and left out.

    Raises:
        InputError: several splits or classes; a crowd or a box without an outline; two images that differ in their
            ending only.
    """
    if len(dataset.splits) != 1 or len(dataset.taxonomy) > 1:
        got = f"{', '.join(dataset.splits)} and {', '.join(dataset.taxonomy.names[:5])}"
        raise InputError(f"{path}: Segment Anything has neither splits nor classes: give it one of each, got {got}.")
    (source,) = dataset.splits.values()
    seen: set[str] = set()
    for index in range(len(source)):
        record = resolve(source.record(index))
        name = stem(inside_folder(record.key, path))
        if name in seen:
            raise InputError(f"{path}: two images would share {name}.json. Rename one of them.")
        seen.add(name)
        height, width = record.size
        image = {"image_id": record.image_id, "width": width, "height": height, "file_name": Path(record.key).name}
        write_json(path / f"{name}.json", {"image": image, "annotations": _annotations(record)})


def picture(root: Path, split: str, record: Record) -> Path:
    """Where the picture of an image belongs: beside its JSON."""
    return root / record.key


def _annotations(record: Record) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for i, shape in enumerate(record.shapes):
        if shape is None or record.crowd[i]:
            what = "a region of many objects" if record.crowd[i] else "a box without an outline"
            raise InputError(f"{record.key}: Segment Anything holds masks, object {record.ids[i]} is {what}.")
        if isinstance(shape, tuple):
            counts = polygons.rasterize(list(shape), record.size)
        else:
            counts = rle.from_coco([shape], record.size)[0] if isinstance(shape, dict) else np.zeros(0, np.int32)
        x1, y1, x2, y2 = (float(v) for v in record.boxes[i])
        out.append(
            {
                "id": int(record.ids[i]),
                "segmentation": {"size": list(record.size), "counts": rle.compress(counts).decode("ascii")},
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(record.areas[i]),
            }
        )
    return out


def _parts(file: Path) -> tuple[dict[str, Any], list[Any]]:
    data = read_json(file)
    image = data.get("image") if isinstance(data, dict) else None
    annotations = data.get("annotations") if isinstance(data, dict) else None
    if not isinstance(image, dict) or not isinstance(annotations, list):
        raise InputError(f"{file} is not a JSON of Segment Anything: it must hold an image and a list of annotations.")
    if not is_int(image.get("image_id")) or not isinstance(image.get("file_name"), str):
        raise InputError(f"{file}: the image must have an integer image_id and a file_name, got {str(image)[:120]}")
    return image, annotations


def _object(
    build: Builder, entry: Any, where: str, size: tuple[int, int], taken: set[int], free: Iterator[int]
) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("segmentation"), dict):
        return build.problem("no run-lengths", where)
    mask = entry["segmentation"]
    if mask.get("size") != list(size) or not isinstance(mask.get("counts"), (str, list)):
        return build.problem("run-lengths whose size is not the picture's (height, width)", where)
    ident = entry.get("id")
    if not is_int(ident) or ident in taken:
        ident = next(number for number in free if number not in taken)
    box = entry.get("bbox")
    corners = None
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box):
        corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    area = entry.get("area")
    area = area if isinstance(area, (int, float)) and area > 0 else None
    added = build.object(
        CLASS, {"size": size, "counts": mask["counts"]}, where, box=corners, area=area, ident=ident
    )  # fmt: skip
    if added:
        taken.add(ident)
    return added


def _looks_right(path: Path) -> bool:
    """Judged by the beginning: the image comes first, or the annotations do."""
    if path.suffix.lower() != ".json":
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT)
            file.seek(max(_LOOKED_AT, path.stat().st_size - _LOOKED_AT))
            text = head + file.read(_LOOKED_AT)
    except OSError:
        return False
    return head.lstrip()[:1] == b"{" and b'"annotations"' in text and re.search(rb'"image"\s*:\s*\{', text) is not None
