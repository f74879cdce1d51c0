"""Results written as they come, for any number of images: a COCO document and a table of objects."""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
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

    Category ids are the taxonomy's ``source_ids``. Annotations go to disk scene by scene; only the short list of
    images waits in memory.

    Yields:
        A function that adds a file's name and scene.

    Raises:
        InputError: ``path`` cannot be written, or a scene has no segments.
    """
    names = zip(taxonomy.source_ids, taxonomy.names, strict=True)
    images: list[bytes] = []
    written = 0
    with replacing(path) as beside, open(beside, "wb") as file:

        def add(name: str, scene: Scene) -> None:
            nonlocal written
            height, width = scene.size
            number = len(images) + 1
            for row in _objects(scene, taxonomy):
                annotation = {
                    "id": written + 1,
                    "image_id": number,
                    "category_id": taxonomy.source_ids[row["label"]],
                    "bbox": row["bbox"],
                    "area": row["area"],
                    **({"segmentation": row["rle"]} if row["rle"] else {}),
                    **({} if row["score"] is None else {"score": row["score"]}),
                    "iscrowd": 0,
                }
                file.write((b",\n" if written else b"\n") + orjson.dumps(annotation))
                written += 1
            images.append(orjson.dumps({"id": number, "file_name": name, "height": height, "width": width}))

        categories = [{"id": number, "name": name} for number, name in names]
        file.write(b'{"categories": ' + orjson.dumps(categories) + b',\n"annotations": [')
        yield add
        file.write(b'],\n"images": [\n' + b",\n".join(images) + b"]}\n")


@contextmanager
def object_table(path: str | Path, taxonomy: Taxonomy) -> Generator[Add]:
    """Write a CSV table with a row for each object, ``COLUMNS``; it appears as ``coco_document``'s file does.

    Yields:
        A function that adds a file's name and scene.

    Raises:
        InputError: ``path`` cannot be written, or a scene has no segments.
    """
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)

        def add(name: str, scene: Scene) -> None:
            for row in _objects(scene, taxonomy):
                score = "" if row["score"] is None else row["score"]
                center = ["" if np.isnan(v) else round(float(v), 2) for v in row["centroid"]]
                table.writerow([name, taxonomy.names[row["label"]], score, *row["bbox"], row["area"], *center])

        yield add


def _objects(scene: Scene, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """The objects of a scene as plain numbers; boxes as (x, y, width, height)."""
    segments = scene.segments
    if segments is None:
        raise InputError("only scenes with segments can be written; this one's are unknown. Predict it first.")
    segments = segments.validate(len(taxonomy))
    masks = segments.masks
    boxes = segments.boxes if segments.boxes is not None else None if masks is None else masks.boxes()
    if boxes is None:
        raise InputError("objects need masks or boxes to be written, these have neither.")
    corners = boxes.cpu().double().numpy()
    sides = corners[:, 2:] - corners[:, :2]
    if masks is None:
        areas, centers = sides.prod(1), (corners[:, :2] + corners[:, 2:]) / 2
        runs: list[dict[str, Any] | None] = [None] * len(segments)
    else:
        areas, runs = masks.area().numpy(), [*masks.rle()]
        centers = centroids(masks.counts.numpy(), masks.offsets.numpy(), scene.size[0])
    scores = [None] * len(segments) if segments.scores is None else segments.scores.tolist()
    return [
        {
            "label": label,
            "score": None if score is None else round(score, 6),
            "bbox": [round(v, 3) for v in (*corner, *side)],
            "area": round(float(area), 3) if masks is None else int(area),
            "rle": run,
            "centroid": center,
        }
        for label, score, corner, side, area, run, center in zip(
            segments.labels.tolist(), scores, corners.tolist(), sides.tolist(), areas, runs, centers, strict=True
        )
    ]
