"""What a data set is, in numbers: images, classes, sizes, objects."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskwright.data.dataset import Dataset
from maskwright.data.source import Loads
from maskwright.structures import Region


def summarize(dataset: Dataset) -> dict[str, Any]:
    """Counts and medians of a data set, reading no pixels.

    Returns:
        ``format``, ``classes`` (name -> thing, objects and images over all splits), ``splits`` (name -> what
        ``summarize_split`` gives) and ``dropped`` (what is wrong -> how many).
    """
    splits = {name: summarize_split(source) for name, source in dataset.splits.items()}
    names, thing = dataset.taxonomy.names, dataset.taxonomy.thing
    return {
        "format": dataset.format,
        "images": sum(s["images"] for s in splits.values()),
        "objects": sum(s["objects"] for s in splits.values()),
        "classes": {
            name: {
                "thing": thing[i],
                "objects": sum(s["objects_per_class"].get(name, 0) for s in splits.values()),
                "images": sum(s["images_per_class"].get(name, 0) for s in splits.values()),
            }
            for i, name in enumerate(names)
        },
        "splits": splits,
        "dropped": {kind: len(where) for kind, where in dataset.dropped.items()},
    }


def summarize_split(source: Loads) -> dict[str, Any]:
    """Counts and medians of one split.

    Returns:
        ``images``, ``objects``, ``crowd``, ``empty`` (images without objects), ``outlines`` (kind -> objects),
        ``tracks`` and ``sequences`` (how many), ``semantic`` and ``panoptic`` (images that have such maps); ``height``,
        ``width``, ``objects_per_image`` and ``area`` (pixels) as {min, median, max}; ``small``, ``medium``, ``large``
        (objects, by COCO's bounds of 32^2 and 96^2 pixels); ``objects_per_class`` and ``images_per_class``.
    """
    names = source.taxonomy.names
    objects, images = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    sizes: list[tuple[int, int]] = []
    per_image: list[int] = []
    areas: list[np.ndarray] = []
    outlines = {"polygons": 0, "run-lengths": 0, "map": 0, "box only": 0}
    crowd = semantic = panoptic = 0
    tracks: set[tuple[str | None, int]] = set()
    sequences: set[str] = set()
    for index in range(len(source)):
        record = source.record(index)
        found = np.bincount(record.labels, minlength=len(names))
        objects += found
        images += found > 0
        sizes.append(record.size)
        per_image.append(len(record))
        areas.append(record.areas)
        crowd += int(record.crowd.sum())
        for shape in record.shapes:
            outlines[_kind(shape)] += 1
        semantic += record.semantic is not None
        panoptic += record.panoptic is not None
        if record.sequence is not None:
            sequences.add(record.sequence)
        if record.tracks is not None:
            tracks.update((record.sequence, t) for t in record.tracks.tolist() if t >= 0)
    flat = np.concatenate(areas) if areas else np.zeros(0)
    return {
        "images": len(source),
        "objects": int(objects.sum()),
        "crowd": crowd,
        "empty": sum(n == 0 for n in per_image),
        "outlines": {kind: n for kind, n in outlines.items() if n},
        "tracks": len(tracks),
        "sequences": len(sequences),
        "semantic": semantic,
        "panoptic": panoptic,
        "height": _spread(np.array([h for h, _ in sizes])),
        "width": _spread(np.array([w for _, w in sizes])),
        "objects_per_image": _spread(np.array(per_image)),
        "area": _spread(flat),
        "small": int((flat < 32**2).sum()),
        "medium": int(((flat >= 32**2) & (flat < 96**2)).sum()),
        "large": int((flat >= 96**2).sum()),
        "objects_per_class": {name: int(objects[i]) for i, name in enumerate(names)},
        "images_per_class": {name: int(images[i]) for i, name in enumerate(names)},
    }


def _kind(shape: object) -> str:
    if shape is None:
        return "box only"
    return "map" if isinstance(shape, Region) else "run-lengths" if isinstance(shape, dict) else "polygons"


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {"min": 0, "median": 0, "max": 0}
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}
