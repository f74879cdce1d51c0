"""CamVid in the forms in which it is passed around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats import camvid
from maskwright.data.formats.camvid_table import COLORS, SEGNET
from maskwright.errors import InputError
from tests.data.formats.pixels import SIZE, colored, photo, records, save, semantic
from tests.data.formats.small_sets import TWO, make_camvid
from tests.shared import shared


def test_the_sample() -> None:
    """Five pictures of 720 x 960 with the classes that their maps have."""
    root = shared("data/formats/camvid")
    made = camvid.read(root)
    codes = (root / "codes.txt").read_text().split()
    assert list(made.taxonomy.names) == [name for name in codes if name != "Void"]
    assert len(made.taxonomy) == 31
    assert made.taxonomy.colors == tuple(COLORS[name] for name in made.taxonomy.names)
    found = records(made)
    assert len(found) == 5
    for record in found.values():
        assert (record.size, len(record)) == ((720, 960), 0)
        ids = np.asarray(Image.open(root / "labels" / f"{Path(record.key).stem}_P.png"))
        names = np.array([*made.taxonomy.names, "Void"])
        assert np.array_equal(names[semantic(record)], np.array(codes)[ids])


def test_a_list_of_the_validation_pictures(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    photo(tmp_path / "images" / "two.png")
    save(tmp_path / "labels" / "two_P.png", TWO)
    (tmp_path / "valid.txt").write_text("two.png\n")
    assert sorted(records(camvid.read(tmp_path))) == ["train/one.png", "val/two.png"]


@pytest.mark.parametrize(
    ("table", "text", "ending"),
    [
        ("label_colors.txt", "0 0 0 Void\n64 0 128 Car\n128 64 128\tRoad\n", "annot"),
        ("class_dict.csv", "name,r,g,b\nVoid,0,0,0\nCar,64,0,128\nRoad,128,64,128\n", "_labels"),
    ],
)
def test_colors(tmp_path: Path, table: str, text: str, ending: str) -> None:
    (tmp_path / table).write_text(text)
    for split in ("train", "test"):
        photo(tmp_path / split / "a.png")
        colors = colored(TWO, {0: (0, 0, 0), 1: (64, 0, 128), 2: (128, 64, 128)})
        save(tmp_path / f"{split}{ending}" / f"a{'_L' if ending == '_labels' else ''}.png", colors)
    assert camvid.recognizes(tmp_path)
    made = camvid.read(tmp_path)
    assert (made.taxonomy.names, made.taxonomy.thing) == (("Car", "Road"), (True, False))
    assert list(records(made)) == ["test/a.png", "train/a.png"]
    for record in records(made).values():
        assert np.array_equal(semantic(record), TWO - 1)


def test_the_eleven_classes(tmp_path: Path) -> None:
    photo(tmp_path / "train" / "a.png")
    save(tmp_path / "trainannot" / "a.png", np.where(TWO == 0, 11, TWO))
    assert camvid.recognizes(tmp_path)
    made = camvid.read(tmp_path)
    assert made.taxonomy.names == SEGNET
    (found,) = records(made).values()
    assert np.array_equal(semantic(found), np.where(TWO == 0, -1, TWO))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = make_camvid(tmp_path)
    for text in ("Car\nCar", "Car\n\nRoad", ""):
        (tmp_path / "codes.txt").write_text(text)
        with pytest.raises(InputError, match=r"codes\.txt"):
            camvid.read(tmp_path)
    (tmp_path / "codes.txt").write_text("Car\nRoad\nVoid")
    save(path, np.full(SIZE, 77))
    with pytest.raises(InputError, match=r"one_P\.png: 100% of the pixels"):
        camvid.read(tmp_path)
