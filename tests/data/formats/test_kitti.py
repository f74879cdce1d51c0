"""KITTI semantic and instance segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats import kitti
from maskwright.data.formats.cityscapes_labels import BY_ID
from maskwright.errors import InputError
from tests.data.formats.pixels import SIZE, counted, photo, records, save, semantic
from tests.data.formats.small_sets import make_kitti
from tests.shared import shared


def test_the_sample() -> None:
    root = shared("data/formats/kitti_segmentation")
    assert kitti.recognizes(root)
    made = kitti.read(root, classes="all")
    found = records(made)
    assert list(found) == ["train/000030_10.png", "train/000030_11.png"]
    for key, record in found.items():
        ids = np.asarray(Image.open(root / "training" / "instance" / key.partition("/")[2]))
        assert np.array_equal(semantic(record), ids // 256)
        values = [v for v in np.unique(ids).tolist() if BY_ID[v // 256].instances]
        assert record.labels.tolist() == [v // 256 for v in values]
        assert record.crowd.tolist() == [v % 256 == 0 for v in values]
        assert record.areas.tolist() == [(ids == v).sum() for v in values]
    assert sum(map(len, found.values())) == 3
    assert sum(map(len, records(kitti.read(root / "training")).values())) == 3


def test_number_0_is_a_crowd_and_testing_has_no_labels(tmp_path: Path) -> None:
    make_kitti(tmp_path)
    made = kitti.read(tmp_path)
    assert counted(made) == {"test/000000_10.png": {}, "train/000000_10.png": {"person": 1, "car": 1}}
    found = records(made)["train/000000_10.png"]
    assert found.crowd.tolist() == [True, False]
    assert set(np.unique(semantic(found))) == {0, 11, 13}


def test_either_folder_is_enough(tmp_path: Path) -> None:
    make_kitti(tmp_path)
    want = semantic(records(kitti.read(tmp_path))["train/000000_10.png"])
    (tmp_path / "training" / "semantic").rename(tmp_path / "aside")
    assert np.array_equal(semantic(records(kitti.read(tmp_path))["train/000000_10.png"]), want)
    (tmp_path / "aside").rename(tmp_path / "training" / "semantic")
    (tmp_path / "training" / "instance").rename(tmp_path / "aside")
    found = records(kitti.read(tmp_path))["train/000000_10.png"]
    assert np.array_equal(semantic(found), want)
    assert len(found) == 0


def test_pictures_elsewhere(tmp_path: Path) -> None:
    make_kitti(tmp_path / "a")
    photo(tmp_path / "b" / "000000_10.jpg")
    with pytest.raises(InputError, match="several splits"):
        kitti.read(tmp_path / "a", images=tmp_path / "b")
    made = kitti.read(tmp_path / "a" / "training", images=tmp_path / "b")
    assert list(records(made)) == ["train/000000_10.jpg"]
    save(tmp_path / "a" / "training" / "instance" / "000000_10.png", np.full((3, 3), 6657), np.uint16)
    with pytest.raises(InputError, match=f"{SIZE[0]}x{SIZE[1]} .* got 3x3"):
        kitti.read(tmp_path / "a")
