"""Virtual KITTI 1 and 2, drawn as their README describe them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskwright.data.formats import virtual_kitti
from maskwright.errors import InputError
from tests.data.formats.pixels import colored, counted, photo, records, save, semantic
from tests.data.formats.small_sets import TWO, make_virtual_kitti


def test_the_second(tmp_path: Path) -> None:
    make_virtual_kitti(tmp_path)
    made = virtual_kitti.read(tmp_path)
    key = "all/Scene01/fog/frames/rgb/Camera_0/rgb_00003.jpg"
    assert counted(made) == {key: {"Car": 1, "Van": 1}}
    found = records(made)[key]
    assert (found.sequence, found.frame) == ("Scene01/fog/Camera_0", 3)
    assert found.tracks is not None
    assert found.tracks.tolist() == [0, 1]
    names = np.array([*made.taxonomy.names, "void"])
    assert np.array_equal(names[semantic(found)], np.array(["Road", "Car", "Van"])[TWO])


def test_cameras_without_labels_are_left_out(tmp_path: Path) -> None:
    make_virtual_kitti(tmp_path)
    photo(tmp_path / "Scene01" / "fog" / "frames" / "rgb" / "Camera_1" / "rgb_00003.jpg")
    photo(tmp_path / "Scene02" / "rain" / "frames" / "rgb" / "Camera_0" / "rgb_00000.jpg")
    assert len(virtual_kitti.read(tmp_path)) == 1


def test_tracks_must_be_named(tmp_path: Path) -> None:
    make_virtual_kitti(tmp_path)
    info = tmp_path / "Scene01" / "fog" / "info.txt"
    info.write_text("trackID label model color\n1 Van Bus Blue\n")
    with pytest.raises(
        InputError, match=r"1 with a track that info.txt does not name: .*instancegt_00003\.png value 1"
    ):
        virtual_kitti.read(tmp_path)
    assert len(records(virtual_kitti.read(tmp_path, strict=False)).popitem()[1]) == 1
    for text in ("x Van", "1", "trackID\n" + "9" * 30 + " Van"):
        info.write_text(text)
        with pytest.raises(InputError, match=r"info\.txt:\d"):
            virtual_kitti.read(tmp_path)


def first(root: Path) -> Path:
    """Version 1.3.1; returns the table of colors."""
    for frame in range(2):
        photo(root / "vkitti_1.3.1_rgb" / "0001" / "15-deg-left" / f"{frame:05d}.png")
        colors = colored(TWO, {0: (210, 0, 200), 1: (200, 200, 200), 2: (10, 20, 30)})
        save(root / "vkitti_1.3.1_scenegt" / "0001" / "15-deg-left" / f"{frame:05d}.png", colors)
    table = root / "vkitti_1.3.1_scenegt" / "0001_15-deg-left_scenegt_rgb_encoding.txt"
    table.write_text("Category(:id) r g b\nTerrain 210 0 200\nCar:4 200 200 200\nVan:0 10 20 30\n")
    return table


def test_the_first(tmp_path: Path) -> None:
    table = first(tmp_path)
    assert virtual_kitti.recognizes(tmp_path)
    made = virtual_kitti.read(tmp_path)
    assert counted(made) == {f"all/0001/15-deg-left/{f:05d}.png": {"Car": 1, "Van": 1} for f in range(2)}
    for frame, found in enumerate(records(made).values()):
        assert found.tracks is not None
        tracks = dict(zip([made.taxonomy.names[i] for i in found.labels], found.tracks.tolist(), strict=True))
        assert tracks == {"Car": 4, "Van": 0}
        assert (found.sequence, found.frame) == ("0001/15-deg-left", frame)
        names = np.array([*made.taxonomy.names, "void"])
        assert np.array_equal(names[semantic(found)], np.array(["Terrain", "Car", "Van"])[TWO])
    table.unlink()
    with pytest.raises(InputError, match="0001_15-deg-left_scenegt_rgb_encoding"):
        virtual_kitti.read(tmp_path)
