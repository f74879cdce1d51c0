"""GeoJSON: rings, holes and islands, their turn, and the document."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskwright.data.georeference import Georeference
from maskwright.errors import InputError
from maskwright.infer.geojson import geojson_document, polygons
from maskwright.ops import rle
from maskwright.ops.polygons import rasterize, signed_area
from maskwright.structures import Masks, Scene, Segments, Taxonomy

NORTH_UP = Georeference(affine=(2.0, 0, 100.0, 0, -2.0, 500.0), epsg=32633)
PLAIN = Georeference(affine=(1.0, 0, 0, 0, 1.0, 0), epsg=None)


def runs(mask: np.ndarray) -> np.ndarray:
    return rle.encode(mask[None])[0]


def test_an_island_in_a_hole_is_a_part_of_its_own() -> None:
    mask = np.zeros((20, 20), bool)
    mask[1:19, 1:19] = True
    mask[3:17, 3:17] = False
    mask[6:14, 6:14] = True
    mask[9:11, 9:11] = False
    parts = polygons(runs(mask), (20, 20), NORTH_UP)
    assert sorted(len(part) for part in parts) == [2, 2]
    for outer, *holes in parts:
        assert outer[0] == outer[-1]
        assert signed_area(np.array(outer)) > 0  # counterclockwise on the map
        assert all(signed_area(np.array(hole)) < 0 for hole in holes)
        (x1, y1), (x2, y2) = np.min(holes[0], axis=0), np.max(holes[0], axis=0)
        assert (np.min(outer, axis=0) < (x1, y1)).all()
        assert (np.max(outer, axis=0) > (x2, y2)).all()
    total = sum(signed_area(np.array(ring)) for part in parts for ring in part)
    assert total == 4 * mask.sum()


@pytest.mark.parametrize("seed", range(10))
def test_any_mask_comes_back_from_its_rings(seed: int) -> None:
    mask = np.random.default_rng(seed).random((15, 17)) < 0.6
    back = np.zeros((15, 17), bool)
    for outer, *holes in polygons(runs(mask), (15, 17), PLAIN):
        part = rle.decode(*_one(rasterize([np.array(outer[:-1])], (15, 17))), (15, 17))[0]
        for hole in holes:
            inside = rle.decode(*_one(rasterize([np.array(hole[:-1])], (15, 17))), (15, 17))[0]
            assert (part | ~inside).all()
            part &= ~inside
        assert not (back & part).any()
        back |= part
    assert np.array_equal(back, mask)


def _one(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return counts, np.array([0, len(counts)])


def test_the_document(tmp_path: Path) -> None:
    dense = torch.zeros((3, 10, 10), dtype=torch.bool)
    dense[0, 2:4, 3:6] = dense[1, 0, 0] = dense[1, 5, 5] = True
    scene = Scene(
        size=(10, 10),
        segments=Segments(
            size=(10, 10), labels=torch.tensor([1, 0, 0]), masks=Masks.from_dense(dense), scores=torch.rand(3)
        ),
    )
    names = Taxonomy(names=("field", "house"))
    with geojson_document(tmp_path / "a.geojson", names, 32633) as add:
        add("a.tif", scene, NORTH_UP)
        add("b.tif", scene, NORTH_UP)
        with pytest.raises(InputError, match="EPSG 4326"):
            add("c.tif", scene, Georeference(affine=NORTH_UP.affine, epsg=4326))
    document = json.loads((tmp_path / "a.geojson").read_text())
    kinds = [feature["geometry"]["type"] for feature in document["features"]]
    assert kinds == ["Polygon", "MultiPolygon"] * 2  # an empty mask has no place
    first = document["features"][0]
    assert first["properties"] | {"score": 0} == {"file": "a.tif", "class": "house", "score": 0, "pixels": 6}
    ring = first["geometry"]["coordinates"][0]
    assert {tuple(point) for point in ring} == {(106, 496), (112, 496), (112, 492), (106, 492)}
    with geojson_document(tmp_path / "b.geojson", names, None):
        pass
    assert json.loads((tmp_path / "b.geojson").read_text()) == {"type": "FeatureCollection", "features": []}
