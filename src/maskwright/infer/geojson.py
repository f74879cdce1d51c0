# pyright: basic
"""Objects on the map: GeoJSON of what was found in pictures that say where they lie (``data.georeference``).

RFC 7946: outer rings run counterclockwise, holes clockwise, rings are closed. The RFC knows longitude and latitude on
WGS 84 only; other systems are named in the ``crs`` member of the 2008 specification, which GDAL and QGIS read, and
coordinates are not projected anew.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskwright.data.georeference import Georeference
from maskwright.errors import InputError
from maskwright.ops.polygons import outlines, signed_area
from maskwright.storage import replacing
from maskwright.structures import Scene, Taxonomy

AddPlaced = Callable[[str, Scene, Georeference], None]
"""Takes a file's name, its scene, and where the picture lies."""


@contextmanager
def geojson_document(path: str | Path, taxonomy: Taxonomy, epsg: int | None) -> Generator[AddPlaced]:
    """Write a feature collection; it appears under ``path``, complete, when the block ends without an error.

    A feature is one object, its geometry along the pixel edges of its mask; properties are ``file``, ``class``,
    ``score`` and ``pixels``. Features go to disk scene by scene.

    Yields:
        A function that adds a file's name, scene and place.

    Raises:
        InputError: ``path`` cannot be written, a scene has no segments with masks, or a picture is in another
            coordinate system than ``epsg``.
    """
    head: dict[str, Any] = {"type": "FeatureCollection"}
    if epsg not in (None, 4326):
        head["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
    written = 0
    with replacing(path) as beside, open(beside, "wb") as file:

        def add(name: str, scene: Scene, place: Georeference) -> None:
            nonlocal written
            for shapes, properties in features(name, scene, place, taxonomy, epsg):
                one = len(shapes) == 1
                geometry = {"type": "Polygon" if one else "MultiPolygon", "coordinates": shapes[0] if one else shapes}
                feature = {"type": "Feature", "geometry": geometry, "properties": properties}
                file.write((b",\n" if written else b"\n") + orjson.dumps(feature))
                written += 1

        file.write(orjson.dumps(head)[:-1] + b',"features":[')
        yield add
        file.write(b"\n]}\n")


def features(
    name: str, scene: Scene, place: Georeference, taxonomy: Taxonomy, epsg: int | None
) -> Iterator[tuple[list[list[list[list[float]]]], dict[str, Any]]]:
    """A scene's objects on the map: coordinates of a multipolygon, and ``file``, ``class``, ``score``, ``pixels``.

    Raises:
        InputError: the scene has no segments with masks, or lies in another coordinate system than ``epsg``.
    """
    if place.epsg != epsg:
        raise InputError(f"{name} is in EPSG {place.epsg}, the document in {epsg}. Write one for each system.")
    segments = scene.with_masks().objects()
    if segments.masks is None:
        raise InputError(f"objects must have masks to be drawn on a map, those of {name} have none.")
    counts, offsets = segments.masks.counts.numpy(), segments.masks.offsets.numpy()
    areas = segments.masks.area().tolist()
    for i, label in enumerate(segments.labels.tolist()):
        if areas[i]:
            shapes = polygons(counts[offsets[i] : offsets[i + 1]], (scene.size[0], scene.size[1]), place)
            score = None if segments.scores is None else round(float(segments.scores[i]), 6)
            yield shapes, {"file": name, "class": taxonomy.names[label], "score": score, "pixels": areas[i]}


def polygons(counts: np.ndarray, size: tuple[int, int], place: Georeference) -> list[list[list[list[float]]]]:
    """GeoJSON's coordinates of a multipolygon: for each part of a mask its outer ring and its holes, on the map."""
    rings = outlines(counts, size)
    outer = [ring for ring in rings if signed_area(ring) > 0]
    parts = [[_ring(ring, place, 1)] for ring in outer]
    areas = [signed_area(ring) for ring in outer]
    for hole in (ring for ring in rings if signed_area(ring) <= 0):
        inside = [k for k in range(len(outer)) if _contains(outer[k], _beside(hole))]
        parts[min(inside, key=lambda k: areas[k])].append(_ring(hole, place, -1))
    return parts


def _ring(ring: np.ndarray, place: Georeference, sign: int) -> list[list[float]]:
    points = np.round(place.points(ring), place.decimals)
    if np.sign(signed_area(place.points(ring))) != sign:
        points = points[::-1]
    return [*points.tolist(), points[0].tolist()]


def _beside(hole: np.ndarray) -> np.ndarray:
    """The center of a pixel of the mask that borders on a hole: at the right hand of the ring's first edge."""
    step = np.sign(hole[1] - hole[0])
    return hole[0] + 0.5 * step + 0.5 * np.array([-step[1], step[0]])


def _contains(ring: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point that is not on a ring of pixel edges lies inside of it: crossings to its left."""
    after = np.roll(ring, -1, axis=0)
    upright = ring[:, 0] == after[:, 0]
    low, high = np.minimum(ring[:, 1], after[:, 1]), np.maximum(ring[:, 1], after[:, 1])
    return bool((upright & (ring[:, 0] < point[0]) & (low < point[1]) & (point[1] < high)).sum() % 2)
