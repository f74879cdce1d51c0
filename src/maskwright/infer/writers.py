"""Results written as they come, for any number of images: a COCO document and a table of objects."""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import orjson

from maskwright.errors import InputError
from maskwright.measure.regions import centroids
from maskwright.storage import replacing
from maskwright.structures import Scene, Taxonomy

Add = Callable[[str, Scene], None]
"""Takes a file's name and its scene."""

COLUMNS = ("file", "class", "score", "x", "y", "width", "height", "area", "centroid_x", "centroid_y")
"""Of the table: box corner, sides and centroid in pixels, area in pixels²; the centroid is empty where a mask is."""


@contextmanager
def coco_document(path: str | Path, taxonomy: Taxonomy) -> Generator[Add]:
    """Write a COCO document with scores; it appears under ``path``, complete, when the block ends without an error.

    Things only: segments of stuff are no instances. Category ids are the taxonomy's ``source_ids``. Annotations go to
    disk scene by scene; only the short list of images waits in memory.

    Yields:
        A function that adds a file's name and scene.

    Raises:
        InputError: ``path`` cannot be written, or a scene has no segments.
    """
    names = zip(taxonomy.source_ids, taxonomy.names, taxonomy.thing, strict=True)
    images: list[bytes] = []
    written = 0
    with replacing(path) as beside, open(beside, "wb") as file:

        def add(name: str, scene: Scene) -> None:
            nonlocal written
            height, width = scene.size
            number = len(images) + 1
            for found in _objects(scene, taxonomy):
                if not taxonomy.thing[found.label]:
                    continue
                annotation: dict[str, Any] = {
                    "id": written + 1,
                    "image_id": number,
                    "category_id": taxonomy.source_ids[found.label],
                    "bbox": found.box,
                    "area": found.area,
                    "iscrowd": 0,
                }
                if found.mask is not None:
                    annotation["segmentation"] = found.mask
                if found.score is not None:
                    annotation["score"] = found.score
                file.write((b",\n" if written else b"\n") + orjson.dumps(annotation))
                written += 1
            images.append(orjson.dumps({"id": number, "file_name": name, "height": height, "width": width}))

        categories = [{"id": number, "name": name} for number, name, thing in names if thing]
        file.write(b'{"categories": ' + orjson.dumps(categories) + b',\n"annotations": [')
        yield add
        file.write(b'],\n"images": [\n' + b",\n".join(images) + b"]}\n")


@contextmanager
def object_table(path: str | Path, taxonomy: Taxonomy) -> Generator[Add]:
    """Write a CSV table with a row for each segment, things and stuff: ``COLUMNS``.

    It appears as ``coco_document``'s file does.

    Yields:
        A function that adds a file's name and scene.

    Raises:
        InputError: ``path`` cannot be written, or a scene has no segments.
    """
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)

        def add(name: str, scene: Scene) -> None:
            for found in _objects(scene, taxonomy):
                score = "" if found.score is None else found.score
                center = ["" if isnan(v) else v for v in found.centroid]
                table.writerow([name, taxonomy.names[found.label], score, *found.box, found.area, *center])

        yield add


@dataclass(frozen=True, slots=True)
class _Object:
    """Plain numbers; the box as (x, y, width, height), the centroid as (x, y)."""

    label: int
    score: float | None
    box: list[float]
    area: float
    centroid: list[float]
    mask: dict[str, Any] | None


def _objects(scene: Scene, taxonomy: Taxonomy) -> list[_Object]:
    segments = scene.with_masks().segments
    if segments is None:
        raise InputError("only scenes with segments can be written; this one's are unknown. Predict it first.")
    segments = segments.validate(len(taxonomy))
    masks, boxes, count = segments.masks, segments.boxes, len(segments)
    if boxes is None:
        if masks is None:
            raise InputError("objects need masks or boxes to be written, these have neither.")
        boxes = masks.boxes()
    corners = boxes.cpu().double().numpy()
    sides = corners[:, 2:] - corners[:, :2]
    areas, centers = sides.prod(1), (corners[:, :2] + corners[:, 2:]) / 2
    runs: list[dict[str, Any] | None] = [None] * count
    if masks is not None:
        areas, runs = masks.area().numpy(), list[dict[str, Any] | None](masks.rle())
        centers = centroids(masks.counts.numpy(), masks.offsets.numpy(), scene.size[0])
    labels = segments.labels.cpu().numpy()
    scores = None if segments.scores is None else segments.scores.cpu().double().numpy()
    return [
        _Object(
            label=int(labels[i]),
            score=None if scores is None else round(float(scores[i]), 6),
            box=[round(float(v), 3) for v in (*corners[i, :2], *sides[i])],
            area=round(float(areas[i]), 3) if masks is None else int(areas[i]),
            centroid=[round(float(v), 2) for v in centers[i]],
            mask=runs[i],
        )
        for i in range(count)
    ]
