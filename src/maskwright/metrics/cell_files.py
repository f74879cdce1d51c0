"""Files of nuclei and cells compared: COCO JSON, or folders of label images; without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import orjson

from maskwright.errors import InputError
from maskwright.metrics._form import Key
from maskwright.metrics._label_images import compare_folders
from maskwright.metrics.cells import THRESHOLDS, CellMetric
from maskwright.ops import polygons, rle

Size = tuple[int, int]


def read_cells(
    truth: str | Path,
    results: str | Path,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    min_score: float = 0.5,
    flatten: bool = False,
    truth_suffix: str = "",
    results_suffix: str = "",
    lenient: bool = False,
) -> CellMetric:
    """Objects of two files or folders compared: the figures are those of ``CellMetric``.

    Args:
        truth: COCO instances JSON (masks as polygons or either run-length form; categories are not looked at); or a
            folder of label images (PNG of one channel, TIFF, NPY; 0 is background, any other value an object).
        results: a JSON list of ``{image_id, score, segmentation}``; or a folder, paired by the stem of files.
        thresholds, min_score, flatten: as in ``CellMetric``; label images have no scores and no overlaps.
        truth_suffix, results_suffix: what stems end with in either folder (``"_masks"``), no part of the key.
        lenient: drop and count (``dropped``) what cannot be used instead of raising.

    Raises:
        InputError: a file or folder is missing or not of its kind, or holds what cannot be used; names the first five.
        ValueError: numbers that ``CellMetric`` refuses.
    """
    metric = CellMetric(thresholds, min_score=min_score, flatten=flatten)
    if Path(truth).suffix.lower() != ".json":
        dropped = compare_folders(
            metric.update_labels, truth, results,
            truth_suffix=truth_suffix, results_suffix=results_suffix, lenient=lenient,
        )  # fmt: skip
    else:
        dropped = _compare_coco(metric, Path(truth), Path(results), lenient)
    if lenient:
        metric.dropped = dropped
    return metric


@dataclass(slots=True)
class _Image:
    """What the files say of one image: masks as run-lengths."""

    size: Size | None
    truths: list[np.ndarray] = field(default_factory=list[np.ndarray])
    crowd: list[bool] = field(default_factory=list[bool])
    found: list[np.ndarray] = field(default_factory=list[np.ndarray])
    scores: list[float] = field(default_factory=list[float])


def _compare_coco(metric: CellMetric, truth: Path, results: Path, lenient: bool) -> dict[str, int]:
    loaded, listed = _load(truth), _load(results)
    data = cast("dict[str, Any]", loaded) if isinstance(loaded, dict) else {}
    for name in ("images", "annotations"):
        if not isinstance(data.get(name), list):
            hint = " Did you swap truth and results?" if isinstance(loaded, list) else ""
            raise InputError(f"{truth} is not COCO: it must be an object with a list {name!r}.{hint}")
    if not isinstance(listed, list):
        hint = " Did you swap truth and results?" if isinstance(listed, dict) else ""
        raise InputError(f"{results} must be a JSON list of results.{hint}")
    images = _images(data["images"], truth)
    dropped: dict[str, int] = {}
    found = cast("list[Any]", listed)
    sides = ("truth", truth, cast("list[Any]", data["annotations"])), ("results", results, found)
    for side, path, entries in sides:
        problems: dict[int, str] = {}
        for place, entry in enumerate(entries):
            try:
                _add(entry, images, scored=side == "results")
            except InputError as error:
                problems[place] = str(error)
        what = "annotations" if side == "truth" else "results"
        if problems and not lenient:
            texts = "; ".join(f"{what}[{place}]: {text}" for place, text in list(problems.items())[:5])
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise InputError(
                f"{path}: {len(problems)} of {len(entries)} {what} cannot be used - {texts}{more}. "
                "Correct them, or drop and count them with --lenient."
            )
        dropped[side] = len(problems)
    for key, image in images.items():
        # An image without objects may have no size; any will do.
        size = image.size or (1, 1)
        metric.update_runs(
            _joined(image.found), _joined(image.truths), size, key,
            scores=np.array(image.scores, np.float64), crowd=np.array(image.crowd, bool),
        )  # fmt: skip
    return dropped


def _load(path: Path) -> Any:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}. Check its name.") from error
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(text)  # takes NaN and Infinity, so that the entries can be named
        except ValueError:
            raise InputError(f"{path} is not JSON: {error}. Was it written completely?") from error


def _images(entries: list[Any], path: Path) -> dict[Key, _Image]:
    out: dict[Key, _Image] = {}
    for place, entry in enumerate(entries):
        image = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        key, sides = image.get("id"), [image.get("height"), image.get("width")]
        if not _is_key(key) or key in out:
            raise InputError(f"{path} is not COCO: images[{place}] must have an id of its own, got {key!r}")
        size: Size | None = None
        if sides != [None, None]:
            height, width = (side if type(side) is int else 0 for side in sides)
            if min(height, width) < 1 or height * width > rle.MAX_PIXELS:
                raise InputError(f"{path}: images[{place}] must have a height and width in pixels, got {sides}")
            size = height, width
        out[key] = _Image(size)
    return out


def _is_key(value: Any) -> TypeGuard[Key]:
    return type(value) in (int, str)


def _add(value: Any, images: dict[Key, _Image], *, scored: bool) -> None:
    """Add one entry of either file to its image.

    Raises:
        InputError: why it cannot be used.
    """
    if not isinstance(value, dict):
        raise InputError(f"it must be an object, got {type(value).__name__}")
    entry = cast("dict[str, Any]", value)
    key = entry.get("image_id")
    if not _is_key(key) or key not in images:
        raise InputError(f"image {key!r} is not known" if "image_id" in entry else "image_id is missing")
    image = images[key]
    score = entry.get("score")
    if scored and (type(score) not in (int, float) or not 0 <= cast("float", score) <= 1):
        raise InputError(f"score must lie in [0, 1], got {score!r}" if "score" in entry else "score is missing")
    runs = _runs(entry.get("segmentation"), image.size)
    if scored:
        image.found.append(runs)
        image.scores.append(float(cast("float", score)))
    else:
        image.truths.append(runs)
        image.crowd.append(entry.get("iscrowd") in (1, True))


def _runs(segmentation: Any, size: Size | None) -> np.ndarray:
    if segmentation is None:
        raise InputError("it has no segmentation")
    if size is None:
        raise InputError("its image has no height and width")
    if not isinstance(segmentation, list):
        return rle.from_coco([segmentation], size)[0]
    rings: list[np.ndarray] = []
    for ring in cast("list[Any]", segmentation):
        try:
            rings.append(np.asarray(ring, np.float64).reshape(-1, 2))
        except (TypeError, ValueError) as error:
            raise InputError("a polygon must be numbers, x and y in turn") from error
    return polygons.rasterize(rings, size)


def _joined(masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    counts = np.concatenate([np.zeros(0, np.int32), *masks])
    return counts, np.cumsum([0, *map(len, masks)], dtype=np.int64)
