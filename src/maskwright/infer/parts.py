"""Results of very many pictures in parts, each a file of its own, and the one COCO document they make together.

A part holds a row for each of its pictures, also for one that failed: ``id`` (its place in the whole list, from 1),
``key``, ``path``, ``height``, ``width``, ``error`` and ``objects``, each with ``category_id``, ``class``, ``thing``,
``score``, ``bbox`` (x, y, width, height), ``area`` and ``counts``, COCO's compressed run-lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from maskwright.errors import InputError
from maskwright.infer import tables
from maskwright.ops.rle_maps import encode_map
from maskwright.storage import read_json, replacing
from maskwright.structures import Masks, Scene, Taxonomy

Row = dict[str, Any]
FORMATS = {"coco": "json", "parquet": "parquet"}
"""Kinds of parts and the ending of their files."""


def part_path(folder: Path, number: int, kind: str) -> Path:
    """The file of part ``number``, counted from 0."""
    return folder / f"part-{number:06d}.{FORMATS[kind]}"


def row_of(number: int, key: str, path: str, answer: Scene | InputError, taxonomy: Taxonomy) -> Row:
    """The row of picture ``number`` (from 1); of a scene without segments each class is an object."""
    known: Row = {"id": number, "key": key, "path": path, "height": None, "width": None, "error": None, "objects": []}
    if isinstance(answer, InputError):
        return known | {"error": str(answer)}
    height, width = answer.size
    return known | {"height": height, "width": width, "objects": _objects(answer, taxonomy)}


def write_part(folder: Path, number: int, kind: str, rows: Sequence[Row], taxonomy: Taxonomy) -> Path:
    """Write a part beside and rename it; its file.

    Raises:
        InputError: the file cannot be written, or pyarrow is missing.
    """
    path = part_path(folder, number, kind)
    with replacing(path) as beside:
        if kind == "parquet":
            tables.write_rows(beside, rows)
        else:
            with open(beside, "wb") as file:
                file.writelines(_document([rows], taxonomy, everything=True))
    return path


def read_part(path: Path, kind: str) -> list[Row]:
    """The rows of a part; ``InputError`` where the file is missing or damaged."""
    if kind == "parquet":
        return tables.read_rows(path)
    document = read_json(path)
    names = {entry["id"]: (entry["name"], bool(entry["isthing"])) for entry in document["categories"]}
    rows: dict[int, Row] = {}
    for image in [*document["images"], *document["failed"]]:
        size = {"height": image.get("height"), "width": image.get("width"), "error": image.get("error")}
        rows[image["id"]] = {"id": image["id"], "key": image["file_name"], "path": image["path"], **size, "objects": []}
    for each in document["annotations"]:
        name, thing = names[each["category_id"]]
        plain = {key: each[key] for key in ("category_id", "bbox", "area")}
        more = {"class": name, "thing": thing, "score": each.get("score"), "counts": each["segmentation"]["counts"]}
        rows[each["image_id"]]["objects"].append(plain | more)
    return [rows[number] for number in sorted(rows)]


def merge_coco(path: Path, parts: Sequence[Path], kind: str, taxonomy: Taxonomy) -> None:
    """Write one COCO document of all parts; one part at a time is in memory.

    Things only where the classes have both, as ``writers.coco_document`` does. Pictures that failed are listed under
    ``failed``, not under ``images``.

    Raises:
        InputError: ``path`` cannot be written, or a part is damaged.
    """

    class Again:
        def __iter__(self) -> Iterator[list[Row]]:
            return (read_part(part, kind) for part in parts)

    with replacing(path) as beside, open(beside, "wb") as file:
        file.writelines(_document(Again(), taxonomy, everything=not any(taxonomy.thing)))


def _document(parts: Iterable[Sequence[Row]], taxonomy: Taxonomy, everything: bool) -> Iterator[bytes]:
    """A COCO document in pieces; ``parts`` is walked three times."""
    names = zip(taxonomy.source_ids, taxonomy.names, taxonomy.thing, strict=True)
    categories = [
        {"id": number, "name": name, "isthing": int(thing)} for number, name, thing in names if thing or everything
    ]
    yield b'{"categories": ' + orjson.dumps(categories)
    for title, pick in (("images", _images), ("failed", _failed)):
        yield b',\n"' + title.encode() + b'": ['
        yield from _listed(entry for rows in parts for row in rows for entry in pick(row))
        yield b"]"
    yield b',\n"annotations": ['
    found = (_annotation(row, each) for rows in parts for row in rows for each in row["objects"])
    shown = (each for each, thing in found if everything or thing)
    yield from _listed({"id": number, **each} for number, each in enumerate(shown, 1))
    yield b"]}\n"


def _listed(entries: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for number, entry in enumerate(entries):
        yield (b",\n" if number else b"\n") + orjson.dumps(entry)


def _images(row: Row) -> list[dict[str, Any]]:
    if row["error"] is not None:
        return []
    size = {"height": row["height"], "width": row["width"]}
    return [{"id": row["id"], "file_name": row["key"], "path": row["path"], **size}]


def _failed(row: Row) -> list[dict[str, Any]]:
    if row["error"] is None:
        return []
    return [{"id": row["id"], "file_name": row["key"], "path": row["path"], "error": row["error"]}]


def _annotation(row: Row, each: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    plain = {key: each[key] for key in ("category_id", "bbox", "area")}
    runs = {"size": [row["height"], row["width"]], "counts": each["counts"]}
    score = {} if each["score"] is None else {"score": each["score"]}
    return {"image_id": row["id"], **plain, "iscrowd": 0, "segmentation": runs, **score}, each["thing"]


def _objects(scene: Scene, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    segments = scene.with_masks().segments
    if segments is None:
        classes = scene.classes().cpu().numpy()
        labels = np.unique(classes[classes >= 0])
        masks, boxes, scores = Masks.from_arrays(*encode_map(classes, labels), scene.size), None, None
    else:
        labels, masks, boxes = segments.labels.cpu().numpy(), segments.masks, segments.boxes
        scores = None if segments.scores is None else segments.scores.cpu().double().numpy()
        if masks is None:
            raise InputError("parts hold run-lengths, but this model finds boxes without masks.")
    corners = (masks.boxes() if boxes is None else boxes).cpu().to(torch.float64).numpy()
    areas, runs = masks.area().numpy(), masks.rle()
    return [
        {
            "category_id": taxonomy.source_ids[int(label)],
            "class": taxonomy.names[int(label)],
            "thing": bool(taxonomy.thing[int(label)]),
            "score": None if scores is None else round(float(scores[i]), 6),
            "bbox": [round(float(v), 3) for v in (*corners[i, :2], *(corners[i, 2:] - corners[i, :2]))],
            "area": int(areas[i]),
            "counts": runs[i]["counts"],
        }
        for i, label in enumerate(labels)
    ]
