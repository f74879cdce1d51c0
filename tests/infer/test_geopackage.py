"""GeoPackage: what the standard asks of the file, and that its geometries are GeoJSON's."""

from __future__ import annotations

import json
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from maskwright.data.georeference import Georeference
from maskwright.errors import InputError
from maskwright.infer.geojson import geojson_document
from maskwright.infer.geopackage import geopackage
from maskwright.structures import Masks, Scene, Segments, Taxonomy

NAMES = Taxonomy(names=("field", "house"))
NORTH_UP = Georeference(affine=(2.0, 0, 100.0, 0, -2.0, 500.0), epsg=32633)


def scene(count: int = 3) -> Scene:
    dense = torch.from_numpy(np.random.default_rng(0).random((count, 12, 10)) < 0.5)
    labels = torch.arange(count) % 2
    masks = Masks.from_dense(dense)
    return Scene(
        size=(12, 10),
        segments=Segments(size=(12, 10), labels=labels, masks=masks, scores=torch.linspace(0.9, 0.5, count)),
    )


def parsed(blob: bytes) -> tuple[int, list[float], list[list[list[list[float]]]]]:
    """(SRS, envelope, coordinates) of a geometry, read as clause 2.1.3 and well-known binary say."""
    magic, version, flags, system = struct.unpack_from("<2sBBi", blob)
    assert (magic, version) == (b"GP", 0)
    assert flags & 1  # little-endian
    assert flags >> 1 & 7 == 1  # an envelope of x and y
    assert not flags & 0b110000  # not empty, not extended
    envelope = list(struct.unpack_from("<4d", blob, 8))
    order, kind, count = struct.unpack_from("<BII", blob, 40)
    assert (order, kind) == (1, 6)
    at, shapes = 49, []
    for _ in range(count):
        order, kind, rings = struct.unpack_from("<BII", blob, at)
        assert (order, kind) == (1, 3)
        at += 9
        shape = []
        for _ in range(rings):
            (points,) = struct.unpack_from("<I", blob, at)
            shape.append(np.frombuffer(blob, "<f8", 2 * points, at + 4).reshape(-1, 2).tolist())
            at += 4 + 16 * points
        shapes.append(shape)
    assert at == len(blob)
    return system, envelope, shapes


@pytest.mark.parametrize("epsg", [32633, 4326, None])
def test_the_file(tmp_path: Path, epsg: int | None) -> None:
    place = Georeference(affine=NORTH_UP.affine, epsg=epsg)
    with geopackage(tmp_path / "a.gpkg", NAMES, epsg) as add, geojson_document(tmp_path / "a.json", NAMES, epsg) as too:
        for name in ("a.tif", "b.tif"):
            add(name, scene(), place)
            too(name, scene(), place)
    system = -1 if epsg is None else epsg
    base = sqlite3.connect(tmp_path / "a.gpkg")
    assert base.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
    assert base.execute("PRAGMA user_version").fetchone()[0] >= 10200
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert base.execute("PRAGMA foreign_key_check").fetchall() == []
    assert {row[0] for row in base.execute("SELECT srs_id FROM gpkg_spatial_ref_sys")} == {-1, 0, 4326, system}
    (content,) = base.execute("SELECT table_name, data_type, srs_id, min_x, min_y, max_x, max_y FROM gpkg_contents")
    assert content[:3] == ("objects", "features", system)
    assert base.execute("SELECT * FROM gpkg_geometry_columns").fetchall() == [
        ("objects", "geom", "MULTIPOLYGON", system, 0, 0)
    ]
    rows = base.execute("SELECT geom, file, class, score, pixels FROM objects ORDER BY fid").fetchall()
    known = json.loads((tmp_path / "a.json").read_text())["features"]
    assert len(rows) == len(known) == 6
    seen = []
    for (blob, *values), feature in zip(rows, known, strict=True):
        found, envelope, shapes = parsed(blob)
        geometry = feature["geometry"]
        assert found == system
        assert shapes == ([geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"])
        assert values == list(feature["properties"].values())
        points = np.concatenate([np.array(ring) for shape in shapes for ring in shape])
        assert envelope == [points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max()]
        seen.append(points)
    whole = np.concatenate(seen)
    assert content[3:] == (*whole.min(0), *whole.max(0))


def test_nothing_found_and_what_cannot_be(tmp_path: Path) -> None:
    with geopackage(tmp_path / "empty.gpkg", NAMES, 32633) as add:
        add("a.tif", Scene(size=(12, 10), segments=Segments.empty((12, 10), scored=True)), NORTH_UP)
    base = sqlite3.connect(tmp_path / "empty.gpkg")
    assert base.execute("SELECT min_x, max_y FROM gpkg_contents").fetchone() == (None, None)
    with pytest.raises(InputError, match="EPSG 32633"), geopackage(tmp_path / "b.gpkg", NAMES, 4326) as add:
        add("a.tif", scene(), NORTH_UP)
    assert not list(tmp_path.glob("*b.gpkg*"))
