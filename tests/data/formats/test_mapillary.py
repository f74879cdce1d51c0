"""Mapillary Vistas, drawn as its README describes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskwright.data.formats import mapillary
from maskwright.errors import InputError
from tests.data.formats.pixels import counted, records, semantic
from tests.data.formats.small_sets import TWO, make_mapillary


def test_the_layout_of_version_2(tmp_path: Path) -> None:
    make_mapillary(tmp_path)
    made = mapillary.read(tmp_path)
    assert made.taxonomy.names == ("a--bird", "a--curb")
    assert made.taxonomy.thing == (True, False)
    assert made.taxonomy.colors == ((0, 9, 9), (1, 9, 9))
    assert counted(made) == {"train/one.jpg": {"a--bird": 1}, "test/two.jpg": {}}
    found = records(made)["train/one.jpg"]
    assert np.array_equal(semantic(found), np.select([TWO == 1, TWO == 2], [0, -1], 1))
    assert found.areas.tolist() == [(TWO == 1).sum()]


def test_the_layout_of_version_1(tmp_path: Path) -> None:
    make_mapillary(tmp_path)
    for name in ("labels", "instances"):
        (tmp_path / "training" / "v2.0" / name).rename(tmp_path / "training" / name)
    (tmp_path / "training" / "v2.0").rmdir()
    (tmp_path / "config_v2.0.json").rename(tmp_path / "config.json")
    for path in (tmp_path, tmp_path / "config.json"):
        assert mapillary.recognizes(path)
        assert counted(mapillary.read(path)) == {"train/one.jpg": {"a--bird": 1}, "test/two.jpg": {}}


def test_without_class_maps(tmp_path: Path) -> None:
    make_mapillary(tmp_path)
    want = semantic(records(mapillary.read(tmp_path))["train/one.jpg"])
    (tmp_path / "training" / "v2.0" / "labels" / "one.png").unlink()
    assert np.array_equal(semantic(records(mapillary.read(tmp_path))["train/one.jpg"]), want)


@pytest.mark.parametrize(
    "labels",
    [None, [], {}, [3], [{"name": "a"}], [{"name": "a", "color": [1, 2]}], [{"name": 4, "color": [1, 2, 3]}],
     [{"name": "a", "color": [1, 2, 256]}], [{"name": "a", "color": [1, 2, "x"]}],
     [{"name": "a", "color": [1, 2, 3]}] * 2],
)  # fmt: skip
def test_broken_configurations(tmp_path: Path, labels: object) -> None:
    make_mapillary(tmp_path)
    (tmp_path / "config_v2.0.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match=r"config_v2\.0\.json"):
        mapillary.read(tmp_path)
    (tmp_path / "config_v2.0.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"config_v2\.0\.json is not JSON"):
        mapillary.read(tmp_path)
