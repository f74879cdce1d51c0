"""COCO panoptic files in, ``PanopticQuality`` out: JSON, and for each image a PNG whose colors are the ids of segments.

One image at a time is read on each processor, by own decoders and counters, so neither torch nor an image library is
imported and memory stays that of the JSON. What panopticapi would stop at is found in all files first, and named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import Any, cast

import numpy as np

from maskwright.errors import InputError
from maskwright.metrics import _panoptic_core as core
from maskwright.metrics._form import Key
from maskwright.metrics._native import run_threads
from maskwright.metrics._panoptic_core import MapSegments
from maskwright.metrics._png import Decoder
from maskwright.metrics.panoptic_quality import Kept, PanopticQuality

_TOGETHER = 16  # images that a thread takes at a time and compares as one
_ID_BITS = 24


@dataclass(slots=True)
class Faults:
    """What is wrong with a file and its maps: raised with the first five, or counted as dropped.

    Attributes:
        path: the file; lenient: drop and count instead of raising; dropped: how many were.
    """

    path: Path
    lenient: bool
    dropped: int = 0
    found: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def add(self, entry: int, text: str) -> None:
        """Note one, of ``annotations[entry]``; -1 where it has no place. Threads may call this."""
        self.found.append((entry, text))

    def settle(self) -> None:
        """Raise what was found, or count it.

        Raises:
            InputError: something was found and ``lenient`` is off.
        """
        if self.found and not self.lenient:
            said = [f"annotations[{i}]: {text}" if i >= 0 else text for i, text in sorted(self.found)]
            more = "" if len(said) <= 5 else f"; and {len(said) - 5} more"
            raise InputError(
                f"{self.path}: {len(said)} {'entry' if len(said) == 1 else 'entries'} cannot be used - "
                f"{'; '.join(said[:5])}{more}. Correct them, or drop and count them with --lenient."
            )
        self.dropped += len(self.found)
        self.found = []


@dataclass(slots=True)
class Listed:
    """One annotation.

    Attributes:
        entry: its place in the file; png: its map.
        segments: id -> label, crowd and area (-1: not stated), of those that can be used; refused: ids of the others.
        size: height and width, where the file says.
    """

    entry: int
    png: Path
    segments: dict[int, tuple[int, int, int]]
    refused: list[int]
    size: tuple[int, int] | None = None


def read_panoptic(
    truth: str | Path,
    results: str | Path,
    truth_folder: str | Path | None = None,
    results_folder: str | Path | None = None,
    *,
    lenient: bool = False,
    boundary: bool = False,
) -> PanopticQuality:
    """Panoptic quality of a results file, as panopticapi's ``pq_compute`` gives it.

    A union counts the area that the truth's JSON states, as panopticapi does, or the pixels where it states none.

    Args:
        truth: COCO panoptic JSON: images, categories with ``isthing``, annotations with ``segments_info``.
        results: JSON with the same ``annotations``; no area or crowd is needed.
        truth_folder, results_folder: where the PNGs are; ``None``: the JSON's path without its extension. The id of a
            pixel is red + 256 green + 65536 blue, 0 where void.
        lenient: drop and count what cannot be used instead of raising. An image whose truth cannot be read is left out,
            one whose prediction cannot counts as one without a prediction; so does one that has none. Segments that are
            not in the PNG or of an unknown category are left out; ids that are not listed are void.
        boundary: measure boundary PQ too.

    Returns:
        the measure, images keyed by id; ``dropped`` says how many faults ``truth`` and ``results`` had when lenient.

    Raises:
        InputError: a file is missing or not of its kind; an annotation or a segment is malformed or occurs twice; an
            image has no or an unknown prediction; a PNG is missing, damaged or of another size; a segment is not in
            its PNG or an id of the PNG not among the segments; a category is unknown; a stated area is less than the
            pixels. All are found; the first five are named.
    """
    paths = Path(truth), Path(results)
    data = load_json(paths[0], ("annotations", "categories")), load_json(paths[1], ("annotations",))
    folders = [
        Path(given) if given is not None else path.with_suffix("")
        for given, path in zip((truth_folder, results_folder), paths, strict=True)
    ]
    names, thing, label_of = read_categories(data[0]["categories"], paths[0])
    metric = PanopticQuality(names, thing=thing, boundary=boundary)
    faults = Faults(paths[0], lenient), Faults(paths[1], lenient)
    there = list_annotations(data[0]["annotations"], folders[0], label_of, faults[0], truth=True)
    found = list_annotations(data[1]["annotations"], folders[1], label_of, faults[1], truth=False)
    for image, size in _sizes(data[0].get("images")).items():
        if image in there:
            there[image].size = size
    for image in found.keys() - there.keys():
        faults[1].add(found[image].entry, f"image {image!r} is not in {paths[0].name}")
    for image in there.keys() - found.keys():
        faults[1].add(-1, f"image {image!r} has no prediction")
    del data
    kept = _measure(metric, there, found, faults)
    for fault in faults:
        fault.settle()
    for image, what in kept.items():
        metric.keep(image, what)
    if lenient:
        metric.dropped = {"truth": faults[0].dropped, "results": faults[1].dropped}
    return metric


def _measure(
    metric: PanopticQuality, there: dict[Key, Listed], found: dict[Key, Listed], faults: tuple[Faults, Faults]
) -> dict[Key, Kept]:
    """Read and compare all images, on all processors."""
    kept: dict[Key, Kept] = {}
    own = local()

    def images(which: Sequence[Key]) -> None:
        if not hasattr(own, "decoders"):
            own.decoders = Decoder(), Decoder()
        both = [(there[image], found.get(image)) for image in which]
        for image, its in zip(which, _together(metric, both, own.decoders, faults), strict=True):
            if its is not None:
                kept[image] = its

    keys = list(there)
    run_threads([lambda i=i: images(keys[i : i + _TOGETHER]) for i in range(0, len(keys), _TOGETHER)])
    return kept


def _together(
    metric: PanopticQuality,
    images: Sequence[tuple[Listed, Listed | None]],
    decoders: tuple[Decoder, Decoder],
    faults: tuple[Faults, Faults],
) -> list[Kept | None]:
    """What is kept of each image. They are compared as if they were one, whose ids and classes all differ."""
    counted: list[tuple[np.ndarray, ...]] = []
    sides: tuple[list[Listed], list[Listed]] = [], []
    readable: list[int] = []
    for i, (there, found) in enumerate(images):
        truth = read_map(there, decoders[0], there.size, faults[0])
        if truth is None:
            continue
        predicted = read_map(found, decoders[1], truth.shape, faults[1]) if found is not None else None
        if found is None or predicted is None:
            found, predicted = Listed(-1, there.png, {}, []), np.zeros_like(truth)
        rims = metric.rims(truth, predicted)
        pairs = core.count_pairs(truth, predicted)
        counted.append((pairs,) if rims is None else (pairs, rims))
        for side, listed in zip(sides, (there, found), strict=True):
            side.append(listed)
        readable.append(i)
    kept: list[Kept | None] = [None] * len(images)
    if not readable:
        return kept
    joined = [_numbered([parts[kind] for parts in counted]) for kind in range(len(counted[0]))]
    truths, predictions = (
        _consistent(joined[0][:, c], joined[0][:, 2], side, len(metric.classes), fault)
        for c, (side, fault) in enumerate(zip(sides, faults, strict=True))
    )
    rims = joined[1] if metric.boundary else None
    rows, _ = metric.match(joined[0], rims, predictions, truths, len(readable))
    for b, i in enumerate(readable):
        kept[i] = tuple(_of_image(part, b, len(metric.classes)) for part in rows)
    return kept


def _numbered(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Counted pairs of images as those of one: ids (above 0) carry the number of their image in their high bits."""
    out = np.concatenate(parts)
    number = np.repeat(np.arange(len(parts)) << _ID_BITS, [len(part) for part in parts])[:, None]
    out[:, :2] += np.where(out[:, :2] > 0, number, 0)
    return out[np.lexsort((out[:, 1], out[:, 0]))]


def _of_image(rows: np.ndarray, number: int, classes: int) -> np.ndarray:
    """The rows of one image, with its own classes."""
    begin, end = np.searchsorted(rows[:, 0], [number * classes, (number + 1) * classes])
    out = rows[begin:end].copy()
    out[:, 0] -= number * classes
    return out


def read_map(listed: Listed, decoder: Decoder, size: tuple[int, int] | None, faults: Faults) -> np.ndarray | None:
    """The ids of a PNG, good until the decoder's next map; ``None`` after noting what is wrong."""
    try:
        return decoder.read(listed.png.read_bytes(), size)
    except OSError as error:
        faults.add(listed.entry, f"{listed.png} cannot be read ({error.strerror or error})")
    except ValueError as error:
        faults.add(listed.entry, f"{listed.png}: {error}")
    return None


def _consistent(
    ids: np.ndarray, pixels: np.ndarray, side: Sequence[Listed], classes: int, faults: Faults
) -> MapSegments:
    """Note what maps and their lists do not share, and stated areas that cannot be; what is left of the lists."""
    rows = [
        (b << _ID_BITS | segment, b * classes + label, crowd, area)
        for b, listed in enumerate(side)
        for segment, (label, crowd, area) in listed.segments.items()
    ]
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    segments = MapSegments(*columns)
    places = segments.places(ids)
    low = (1 << _ID_BITS) - 1
    unknowns: set[int] = set(ids[places < 0].tolist())
    for unknown in unknowns:
        listed = side[unknown >> _ID_BITS]
        if unknown & low not in listed.refused:
            faults.add(listed.entry, f"id {unknown & low} is in the PNG but not among the segments")
    counts = np.bincount(places[places > 0], pixels[places > 0], len(segments) + 1)[1:].astype(np.int64)
    absent: list[int] = segments.ids[counts == 0].tolist()
    for segment in absent:
        faults.add(side[segment >> _ID_BITS].entry, f"segment {segment & low} is not in the PNG")
    areas = columns[3]
    for k in np.flatnonzero((areas >= 0) & (areas < counts)).tolist():
        segment, said, has = (int(v[k]) for v in (segments.ids, areas, counts))
        entry = side[segment >> _ID_BITS].entry
        faults.add(entry, f"segment {segment & low} has {has} pixels but states an area of {said}")
    there = counts > 0
    return MapSegments(segments.ids, segments.labels, segments.crowd, np.maximum(areas, counts)).take(there)


def load_json(path: Path, members: Sequence[str]) -> dict[str, Any]:
    """The object of a JSON file, with the lists ``members``; ``InputError`` names the file."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from None
    for member in members:
        if not isinstance(data, dict) or not isinstance(cast(dict[str, Any], data).get(member), list):
            raise InputError(f"{path} must be COCO panoptic JSON, an object with a list {member!r}, but has none.")
    return cast(dict[str, Any], data)


def read_categories(entries: list[Any], path: Path) -> tuple[list[str], list[bool], dict[int, int]]:
    """Names and things by rising id, and the label of each id."""
    of: dict[int, dict[str, Any]] = {}
    for k, entry in enumerate(entries):
        category = cast(dict[str, Any], entry) if isinstance(entry, dict) else {}
        if type(category.get("id")) is not int or category["id"] in of:
            raise InputError(f"{path}: categories[{k}] must have an integer id of its own, got {entry!r:.80}.")
        if category.get("isthing") not in (0, 1):
            raise InputError(f"{path}: categories[{k}] must say isthing, 0 or 1, got {entry!r:.80}.")
        of[category["id"]] = category
    plain = [str(of[i].get("name", f"category {i}")) for i in sorted(of)]
    names = [n if plain.count(n) == 1 else f"{n} (id {i})" for n, i in zip(plain, sorted(of), strict=True)]
    return names, [of[i]["isthing"] == 1 for i in sorted(of)], {i: k for k, i in enumerate(sorted(of))}


def _sizes(images: Any) -> dict[Key, tuple[int, int]]:
    """Height and width of the images that state them."""
    out: dict[Key, tuple[int, int]] = {}
    for image in cast(list[Any], images) if isinstance(images, list) else []:
        if isinstance(image, dict):
            of = cast(dict[str, Any], image)
            if isinstance(of.get("id"), (int, str)) and type(of.get("height")) is type(of.get("width")) is int:
                out[of["id"]] = (of["height"], of["width"])
    return out


def list_annotations(
    entries: list[Any], folder: Path, label_of: dict[int, int], faults: Faults, *, truth: bool
) -> dict[Key, Listed]:
    """The annotations that can be used, by image."""
    out: dict[Key, Listed] = {}
    for k, entry in enumerate(entries):
        try:
            image, name = entry["image_id"], entry["file_name"]
            infos: Any = entry["segments_info"]
            if type(image) not in (int, str) or not isinstance(name, str) or not isinstance(infos, list):
                raise TypeError
        except (KeyError, TypeError, IndexError):
            faults.add(k, "it must have an image_id, a file_name and a list segments_info")
            continue
        if image in out:
            faults.add(k, f"image {image!r} occurs before")
            continue
        out[image] = Listed(
            k, folder / name, *_segments(cast(list[Any], infos), label_of, truth, lambda text, k=k: faults.add(k, text))
        )
    return out


def _segments(
    infos: list[Any], label_of: dict[int, int], truth: bool, refuse: Callable[[str], None]
) -> tuple[dict[int, tuple[int, int, int]], list[int]]:
    """The segments that can be used, and the ids of the others."""
    rows: dict[int, tuple[int, int, int]] = {}
    refused: list[int] = []
    for info in infos:
        try:
            segment, category = info["id"], info["category_id"]
            crowd, area = (info.get("iscrowd", 0), info.get("area", -1)) if truth else (0, -1)
        except (KeyError, TypeError, AttributeError):
            refuse(f"a segment must have an id and a category_id, got {info!r:.80}")
            continue
        if type(segment) is not int or not 0 < segment < 1 << 24:
            refuse(f"the id of a segment must be an integer in 1..{(1 << 24) - 1}, got {segment!r:.40}")
        elif segment in rows or segment in refused:
            refuse(f"segment {segment} occurs before")
        elif type(category) is not int or category not in label_of:
            refuse(f"segment {segment} has the unknown category {category!r:.40}")
            refused.append(segment)
        elif crowd not in (0, 1) or not isinstance(area, (int, float)) or not -1 <= area < 1 << 53 or area % 1:
            refuse(
                f"segment {segment} must have a whole area and an iscrowd of 0 or 1, got {area!r:.40}, {crowd!r:.40}"
            )
            refused.append(segment)
        else:
            rows[segment] = (label_of[category], int(crowd), int(area))
    return rows, refused
