"""Maps written as they come, for any number of images: COCO panoptic, label images, and a table of areas by class."""

from __future__ import annotations

import csv
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from maskwright.data.label_maps import file_values, write_map
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map, renumber
from maskwright.storage import replacing, write_json
from maskwright.structures import Scene, Taxonomy

CLASSES = "classes.json"
"""Beside written label images: class name -> its value in them."""

_MOST = 1 << 24


class AddMap(Protocol):
    """Takes an image's file name, its scene, and how its map shall be called: a name without ending, maybe folders."""

    def __call__(self, name: str, scene: Scene, stem: str, image_id: int | None = None) -> None: ...


@contextmanager
def panoptic_document(path: str | Path, taxonomy: Taxonomy) -> Generator[AddMap]:
    """Write COCO panoptic: a JSON under ``path``, complete when the block ends, and a folder of PNGs named as it.

    Category ids are the taxonomy's ``source_ids``; image ids count from 1 where none are given. Segments without pixels
    are left out, and pixels whose id no segment has are void. Ids are kept where they can be colors, else numbered
    anew. A map is on disk before the next scene comes; what waits in memory is short.

    Yields:
        A function that adds an image.

    Raises:
        InputError: a file cannot be written.
    """
    path = Path(path)
    images: list[bytes] = []
    annotations: list[bytes] = []
    folder = path.with_suffix("")

    def add(name: str, scene: Scene, stem: str, image_id: int | None = None) -> None:
        height, width = scene.size
        number = len(images) + 1 if image_id is None else image_id
        ids, infos = _segments(scene, taxonomy)
        write_map(folder / f"{stem}.png", ids, "rgb")
        images.append(orjson.dumps({"id": number, "file_name": name, "height": height, "width": width}))
        annotations.append(orjson.dumps({"image_id": number, "file_name": f"{stem}.png", "segments_info": infos}))

    with replacing(path) as beside:
        yield add
        rows = zip(taxonomy.source_ids, taxonomy.names, taxonomy.thing, taxonomy.colors, strict=True)
        categories = [
            {"id": ident, "name": name, "supercategory": name, "isthing": int(thing), "color": list(color)}
            for ident, name, thing, color in rows
        ]
        parts = (b'{"categories": ', orjson.dumps(categories), b',\n"images": [\n', b",\n".join(images))
        beside.write_bytes(b"".join((*parts, b'],\n"annotations": [\n', b",\n".join(annotations), b"]}\n")))


@contextmanager
def label_images(folder: str | Path, taxonomy: Taxonomy) -> Generator[AddMap]:
    """Write the class of each pixel as PNGs in ``folder``, and ``CLASSES``, which says what their values mean.

    Values are as ``file_values`` says, void 255 in nearly all cases, with the classes' colors as a palette where they
    are below 256: what ``maskwright score --kind semantic --classes`` reads.

    Yields:
        A function that adds an image.

    Raises:
        InputError: a file cannot be written, or a scene has neither a semantic nor a panoptic map.
    """
    values, void = file_values(taxonomy)
    write_json(Path(folder) / CLASSES, dict(zip(taxonomy.names, values.tolist(), strict=True)), indent=True)
    colors = dict(zip(values.tolist(), taxonomy.colors, strict=True))
    small = colors if max(values.max(initial=0), void) < 256 else None

    def add(name: str, scene: Scene, stem: str, image_id: int | None = None) -> None:
        labels = scene.classes().cpu().numpy()
        write_map(Path(folder) / f"{stem}.png", np.append(values, void)[labels], colors=small)

    yield add


@contextmanager
def area_table(path: str | Path, taxonomy: Taxonomy) -> Generator[AddMap]:
    """Write a CSV table with a row for each class of each image: file, class, pixels, share of the image.

    Yields:
        A function that adds an image.

    Raises:
        InputError: ``path`` cannot be written, or a scene has neither a semantic nor a panoptic map.
    """
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file", "class", "pixels", "share"))

        def add(name: str, scene: Scene, stem: str, image_id: int | None = None) -> None:
            for label, pixels in class_areas(scene, taxonomy).items():
                table.writerow([name, label, pixels, round(pixels / max(scene.size[0] * scene.size[1], 1), 6)])

        yield add


def class_areas(scene: Scene, taxonomy: Taxonomy) -> dict[str, int]:
    """Class name -> pixels, largest first, of a scene with a semantic or panoptic map."""
    labels = scene.classes().cpu().numpy()
    counts = np.bincount(labels[labels >= 0], minlength=len(taxonomy))
    return {taxonomy.names[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable").tolist() if counts[i]}


def _segments(scene: Scene, taxonomy: Taxonomy) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The ids of all pixels as they are written, int64 [H, W], and what the JSON says of each."""
    segments = scene.segments
    if scene.panoptic is None or segments is None or segments.ids is None:
        raise InputError("COCO panoptic needs a panoptic map and segments with ids; this scene's are unknown.")
    there, own = scene.panoptic.cpu().numpy(), segments.ids.cpu().numpy()
    fits = len(own) == 0 or (own.min() > 0 and own.max() < _MOST)
    ids = own if fits else np.arange(1, len(own) + 1)
    numbers = renumber(there, own, ids)
    runs = encode_map(numbers, ids)
    areas, boxes = rle.area(*runs), rle.boxes(*runs, scene.size[0])
    scores = None if segments.scores is None else segments.scores.cpu().double().numpy()
    crowd = np.zeros(len(ids), bool) if segments.crowd is None else segments.crowd.cpu().numpy()
    infos: list[dict[str, Any]] = []
    for i in np.flatnonzero(areas > 0).tolist():
        x1, y1, x2, y2 = (int(v) for v in boxes[i])
        info = {
            "id": int(ids[i]), "category_id": taxonomy.source_ids[int(segments.labels[i])], "iscrowd": int(crowd[i]),
            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": int(areas[i]),
        }  # fmt: skip
        infos.append(info if scores is None else {**info, "score": round(float(scores[i]), 6)})
    return numbers, infos
