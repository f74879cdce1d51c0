"""COCO files as what ``ErrorAnalysis`` compares: labels, scores and overlaps of each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson

from maskwright.errors import InputError
from maskwright.metrics._coco_clean import clean_results, clean_truth
from maskwright.metrics._coco_read import Problems
from maskwright.metrics._error_core import box_overlaps
from maskwright.ops import polygons, rle

Compared = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int | str]
_Size = tuple[int, int]


def read(truth: Path, results: Path, kind: str, lenient: bool) -> tuple[list[str], Iterator[Compared], dict[str, int]]:
    """Names of the classes, each image's ``(labels, scores, true labels, overlaps, crowd, id)``, and what was dropped.

    Raises:
        InputError: a file is missing or not of its kind, or has entries that cannot be used.
    """
    for path in (truth, results):
        if not path.is_file():
            raise InputError(f"cannot read {path}: there is no such file. Check its name.")
    of_truth, of_results = Problems(truth, "annotations", lenient), Problems(results, "results", lenient)
    plain, categories, number_of, t_source = clean_truth(truth, of_truth)
    data = orjson.loads(plain.tobytes())
    found, d_source = clean_results(results, number_of, of_results)
    sizes: dict[int, _Size | None] = {}
    for image in data["images"]:
        if image["id"] in sizes:
            raise InputError(f"{truth}: image ids must be distinct, but {image['id']} repeats.")
        sizes[image["id"]] = (image["height"], image["width"]) if "height" in image else None
    names, label_of = _classes(categories, truth)
    reader = _Reader(sizes, label_of, kind)
    there = reader.table(data["annotations"], t_source, of_truth, scored=False)
    detected = reader.table(orjson.loads(found.tobytes()), d_source, of_results, scored=True)
    key_of: dict[int, int | str] = {number: name for name, number in (number_of or {}).items()}
    images = ((*_image(detected[i], there[i], kind), key_of.get(i, i)) for i in sorted(sizes))
    return names, images, {"truth": of_truth.dropped, "results": of_results.dropped}


def _classes(categories: Sequence[Any], path: Path) -> tuple[list[str], dict[int, int]]:
    for i, category in enumerate(categories):
        if not isinstance(category, dict) or type(cast("dict[str, Any]", category).get("id")) is not int:
            raise InputError(f"{path} is not COCO: categories[{i}] must be an object with an integer id.")
    ordered = sorted(categories, key=lambda c: c["id"])
    label_of = {c["id"]: k for k, c in enumerate(ordered)}
    if len(label_of) < len(ordered):
        raise InputError(f"{path}: category ids must be distinct, but some repeat.")
    plain = [str(c.get("name", c["id"])) for c in ordered]
    return [n if plain.count(n) == 1 else f"{n} (id {c['id']})" for n, c in zip(plain, ordered, strict=True)], label_of


class _Reader:
    """Entries of either file, checked and grouped by image."""

    def __init__(self, sizes: dict[int, _Size | None], label_of: dict[int, int], kind: str) -> None:
        self.sizes, self.label_of, self.kind = sizes, label_of, kind

    def table(
        self, entries: list[dict[str, Any]], source: np.ndarray, problems: Problems, *, scored: bool
    ) -> defaultdict[int, list[dict[str, Any]]]:
        """``{"label", "score", "crowd", "shape"}`` of each entry, by image; a shape is runs or a box."""
        if entries and not any(self._field in entry for entry in entries):
            what = "masks (no entry has a segmentation)" if self.kind == "mask" else "boxes (no entry has a bbox)"
            raise InputError(f"{problems.path} has no {what}. Did you mean the other kind?")
        out: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        seen: set[int] = set()
        for place, entry in zip(source, entries, strict=True):
            try:
                if not scored and entry.get("id") in seen:
                    raise InputError(f"id {entry['id']} occurs before")
                out[self._image(entry)].append(self._entry(entry, scored))
                seen.add(entry.get("id", -1))
            except InputError as error:
                problems.add([int(place)], lambda _, error=error: str(error))
        problems.settle()
        return out

    @property
    def _field(self) -> str:
        return "segmentation" if self.kind == "mask" else "bbox"

    def _image(self, entry: dict[str, Any]) -> int:
        image = _required(entry, "image_id")
        if image not in self.sizes:
            raise InputError(f"image {image} is not in the images")
        return image

    def _entry(self, entry: dict[str, Any], scored: bool) -> dict[str, Any]:
        category = _required(entry, "category_id")
        if category not in self.label_of:
            raise InputError(f"category {category} is not in the categories")
        score = _required(entry, "score") if scored else 1.0
        if not 0 <= score <= 1:
            raise InputError(f"score must lie in [0, 1], got {score!r}")
        crowd = not scored and entry.get("iscrowd", 0) == 1
        shape = _required(entry, self._field)
        size = self.sizes[entry["image_id"]]
        if self.kind == "mask":
            shape = _runs(shape, size)
        elif shape[2] < 0 or shape[3] < 0:
            raise InputError(f"bbox must be finite [x, y, width, height], got {shape}")
        return {"label": self.label_of[category], "score": score, "crowd": crowd, "shape": shape}


def _required(entry: dict[str, Any], name: str) -> Any:
    if name not in entry:
        raise InputError(f"{name} is missing")
    return entry[name]


def _runs(segmentation: Any, size: _Size | None) -> np.ndarray:
    if size is None:
        raise InputError("its image has no height and width; masks need them")
    if isinstance(segmentation, list):
        rings = cast("list[list[float]]", segmentation)
        if any(len(ring) % 2 for ring in rings):
            raise InputError("a malformed polygon (at least three points, x and y in turn, finite)")
        return polygons.rasterize([np.array(ring, np.float64).reshape(-1, 2) for ring in rings], size)
    return rle.from_coco([segmentation], size)[0]


def _image(
    found: list[dict[str, Any]], there: list[dict[str, Any]], kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    labels, true_labels = (np.array([e["label"] for e in entries], np.int64) for entries in (found, there))
    scores, crowd = np.array([e["score"] for e in found], np.float64), np.array([e["crowd"] for e in there], bool)
    if not found or not there:
        overlaps = np.zeros((len(found), len(there)))
    elif kind == "box":
        boxes = [np.array([e["shape"] for e in entries], np.float64) for entries in (found, there)]
        overlaps = box_overlaps(boxes[0], boxes[1], crowd)
    else:
        runs = [[e["shape"] for e in entries] for entries in (found, there)]
        flat = [(np.concatenate(part), np.cumsum([0, *map(len, part)], dtype=np.int64)) for part in runs]
        overlaps = rle.iou(*flat[0], *flat[1], crowd)
    return labels, scores, true_labels, overlaps, crowd
