# pyright: basic
"""Objects on the map as a GeoPackage, which GIS programs open as a layer: one SQLite file, written without GDAL.

OGC GeoPackage Encoding Standard 1.3 (12-128r17): the tables of clauses 1.1.2, 1.1.3 and 2.1, geometries as in 2.1.3
(a header with the envelope, then little-endian well-known binary). The layer is called ``objects``.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from maskwright.data.georeference import Georeference
from maskwright.errors import InputError
from maskwright.infer.geojson import AddPlaced, features
from maskwright.storage import replacing
from maskwright.structures import Scene, Taxonomy

LAYER = "objects"
_APPLICATION, _VERSION = 0x47504B47, 10300
_POLYGON, _MULTIPOLYGON = 3, 6
_TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (
  srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY, organization TEXT NOT NULL,
  organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (
  table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE, description TEXT DEFAULT '',
  last_change DATETIME NOT NULL, min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER,
  CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (
  table_name TEXT NOT NULL, column_name TEXT NOT NULL, geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL,
  z TINYINT NOT NULL, m TINYINT NOT NULL,
  CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name),
  CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name),
  CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE objects (
  fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom MULTIPOLYGON, file TEXT NOT NULL, class TEXT NOT NULL,
  score DOUBLE, pixels INTEGER NOT NULL);
"""
_WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433],AUTHORITY["EPSG","4326"]]'
)


@contextmanager
def geopackage(path: str | Path, taxonomy: Taxonomy, epsg: int | None) -> Generator[AddPlaced]:
    """Write a layer of objects; the file appears under ``path``, complete, when the block ends without an error.

    A row is one object: a multipolygon along the pixel edges of its mask, ``file``, ``class``, ``score``, ``pixels``.
    A system other than WGS 84 is named by its EPSG code; its definition stays with who reads it, as GDAL does.

    Yields:
        A function that adds a file's name, scene and place.

    Raises:
        InputError: ``path`` cannot be written, a scene has no segments with masks, or a picture is in another
            coordinate system than ``epsg``.
    """
    system = -1 if epsg is None else epsg
    bounds = [np.inf, np.inf, -np.inf, -np.inf]
    with replacing(path) as beside, closing(sqlite3.connect(beside)) as base:
        try:
            base.execute("PRAGMA journal_mode = MEMORY")
            base.execute(f"PRAGMA application_id = {_APPLICATION}")
            base.execute(f"PRAGMA user_version = {_VERSION}")
            base.executescript(_TABLES)
            rows = [
                ("undefined Cartesian", -1, "NONE", -1, "undefined", None),
                ("undefined geographic", 0, "NONE", 0, "undefined", None),
                ("WGS 84", 4326, "EPSG", 4326, _WGS84, None),
            ]
            if system not in (-1, 4326):
                rows.append((f"EPSG:{system}", system, "EPSG", system, "undefined", None))
            base.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", rows)

            def add(name: str, scene: Scene, place: Georeference) -> None:
                made: list[tuple[object, ...]] = []
                for shapes, said in features(name, scene, place, taxonomy, epsg):
                    envelope = _envelope(shapes)
                    bounds[:2] = np.minimum(bounds[:2], envelope[:2]).tolist()
                    bounds[2:] = np.maximum(bounds[2:], envelope[2:]).tolist()
                    made.append((geometry(shapes, system), said["file"], said["class"], said["score"], said["pixels"]))
                base.executemany("INSERT INTO objects (geom, file, class, score, pixels) VALUES (?, ?, ?, ?, ?)", made)

            yield add
            known = [None] * 4 if bounds[0] == np.inf else bounds
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            content = (LAYER, "features", LAYER, "", now, *known, system)
            base.execute("INSERT INTO gpkg_contents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", content)
            column = (LAYER, "geom", "MULTIPOLYGON", system, 0, 0)
            base.execute("INSERT INTO gpkg_geometry_columns VALUES (?, ?, ?, ?, ?, ?)", column)
            base.commit()
        except sqlite3.Error as error:
            raise InputError(f"cannot write {path}: {error}. Is the disk full? Choose another output.") from error


def geometry(shapes: list[list[list[list[float]]]], system: int) -> bytes:
    """GeoPackage binary of a multipolygon: coordinates as GeoJSON has them, ``system`` the SRS's number."""
    x1, y1, x2, y2 = _envelope(shapes)
    out = [struct.pack("<2sBBi4d", b"GP", 0, 0b00000011, system, x1, x2, y1, y2)]
    out.append(struct.pack("<BII", 1, _MULTIPOLYGON, len(shapes)))
    for rings in shapes:
        out.append(struct.pack("<BII", 1, _POLYGON, len(rings)))
        for ring in rings:
            out.append(struct.pack("<I", len(ring)))
            out.append(np.asarray(ring, "<f8").tobytes())
    return b"".join(out)


def _envelope(shapes: list[list[list[list[float]]]]) -> tuple[float, float, float, float]:
    points = np.concatenate([np.asarray(rings[0]) for rings in shapes])
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return x1, y1, x2, y2
