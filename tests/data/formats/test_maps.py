"""What all formats of label pictures do alike: they know their own, and refuse what is broken, naming the file."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats import maps
from maskwright.errors import InputError
from maskwright.structures import LabelMap, Taxonomy
from tests.data.formats.pixels import photo, png, records, save
from tests.data.formats.small_sets import SETS, TWO

NAMES = sorted(SETS)
COUNTS = dict.fromkeys(NAMES, 2) | {"camvid": 0, "kitti": 2, "mapillary": 1, "mots": 3}


@pytest.mark.parametrize("name", NAMES)
def test_a_format_knows_its_own(tmp_path: Path, name: str) -> None:
    SETS[name][1](tmp_path)
    assert [n for n in NAMES if SETS[n][0].recognizes(tmp_path)] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_the_small_set(tmp_path: Path, name: str) -> None:
    module, make = SETS[name]
    make(tmp_path)
    made = module.read(tmp_path)
    assert made.format == name
    assert made.dropped == {}
    found = [r for key, r in records(made).items() if not key.startswith("test")]
    assert len(found) == 1
    assert found[0].path.is_file()
    assert len(found[0]) == COUNTS[name]
    if found[0].semantic is not None:
        assert (np.asarray(found[0].semantic) >= 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_and_nonsense_are_not_recognized(tmp_path: Path, name: str) -> None:
    module = SETS[name][0]
    (tmp_path / "file").write_bytes(b"\0\xff")
    (tmp_path / "empty").mkdir()
    for path in (
        tmp_path / "no",
        tmp_path / ("x" * 5000),
        tmp_path / "\0",
        tmp_path / "file",
        tmp_path / "empty",
        tmp_path,
        tmp_path / "file" / "x",
    ):
        assert not module.recognizes(path)
    with pytest.raises(InputError, match="empty"):
        module.read(tmp_path / "empty")


def _huge() -> bytes:
    return png((40_000, 40_000, 8, 0), zlib.compress(b""))


def _bomb() -> bytes:
    return png((8, 6, 8, 0), zlib.compress(bytes(10**8), 1))


HOSTILE = {
    "nothing": b"",
    "no picture": b"\xff\xfe not a picture" * 99,
    "a billion pixels": _huge(),
    "cut off": png((8, 6, 8, 0), zlib.compress(bytes(54)))[:45],
    "a header only": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IHDR"),
    "another size": png((5, 5, 8, 0), zlib.compress(bytes(30))),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
@pytest.mark.parametrize("name", [n for n in NAMES if n != "camvid"])
def test_broken_maps_are_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    module, make = SETS[name]
    broken = make(tmp_path)
    module.read(tmp_path)
    broken.write_bytes(HOSTILE[kind])
    tracemalloc.start()
    module.recognizes(tmp_path)
    with pytest.raises(InputError, match=broken.name.replace(".", r"\.")):
        module.read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()


def test_a_map_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    module, make = SETS["label_images"]
    make(tmp_path).write_bytes(_bomb())
    tracemalloc.start()
    module.read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("instance_pngs", "mots")])
def test_missing_pictures_are_counted(tmp_path: Path, name: str) -> None:
    module, make = SETS[name]
    make(tmp_path)
    picture = next(r.path for key, r in records(module.read(tmp_path)).items() if not key.startswith("test"))
    photo(picture.with_name(f"{picture.stem}77{picture.suffix}"))
    with pytest.raises(InputError, match=r"1 with a picture that has no labels: .*77\."):
        module.read(tmp_path)
    assert len(module.read(tmp_path, strict=False)) >= 1
    picture.rename(picture.with_name(f"{picture.stem}88{picture.suffix}"))
    with pytest.raises(InputError, match=r"1 with labels whose picture is missing"):
        module.read(tmp_path)


# ---- parts ----------------------------------------------------------------------------------------------------------


def test_files_are_named_without_endings(tmp_path: Path) -> None:
    for name in ("b.png", "a.b.png", "sub/c.PNG", ".hidden.png", "d.txt"):
        photo(tmp_path / f"{name}.png").rename(tmp_path / name)
    assert list(maps.files(tmp_path)) == ["a.b", "b", "sub/c"]
    assert list(maps.files(tmp_path, deep=False)) == ["a.b", "b"]


def test_numbers_in_names() -> None:
    assert [maps.number_of(n) for n in ("rgb_00003", "a1b22", "none", "1" * 19)] == [3, 22, None, None]


def test_colors_files(tmp_path: Path) -> None:
    path = tmp_path / "colors.txt"
    path.write_text("# a comment\n1 2 3 traffic light\nRoad 4 5 6\n\n")
    assert maps.read_colors(path) == [("traffic light", (1, 2, 3)), ("Road", (4, 5, 6))]
    path.write_text("name,r,g,b\nCar,1,2,3\n")
    assert maps.read_colors(path) == [("Car", (1, 2, 3))]
    for text, words in (
        ("1 2 3 a\n1 2 256 b", r"colors\.txt:2"),
        ("1 2 3 a\n4 5 6 a", "repeat: a"),
        ("", "no classes"),
        ("nonsense\n", r"colors\.txt:1"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            maps.read_colors(path)
    path.write_bytes(b"\xff\xfe1 2 3 a")
    with pytest.raises(InputError, match="UTF-8"):
        maps.read_colors(path)


def test_maps_of_another_table_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", TWO + 50)
    with pytest.raises(InputError, match=r"100% of the pixels .* most often 50"):
        maps.check_classes(LabelMap(path=path, classes={1: 0}))
    maps.check_classes(LabelMap(path=path, classes={50: 0}))


def test_first_of_two_classes_with_one_color() -> None:
    taxonomy = Taxonomy(names=("a", "b"), colors=((1, 2, 3), (1, 2, 3)))
    assert maps.color_classes(taxonomy) == {1 + 256 * 2 + 65536 * 3: 0}


def test_maps_beyond_16_bits_are_not_written() -> None:
    assert np.asarray(maps.as_picture(np.array([[70, 255]]))).dtype == np.uint8
    assert np.asarray(maps.as_picture(np.array([[70, 256]]))).dtype == np.uint16
    for wrong in (-1, 65536):
        with pytest.raises(InputError, match="65535"):
            maps.as_picture(np.array([[wrong]]))


def test_a_picture_taken_for_a_map(tmp_path: Path) -> None:
    module, make = SETS["label_images"]
    path = make(tmp_path)
    save(path, np.arange(1 << 18).reshape(512, 512), np.int32)
    photo(tmp_path / "train" / "images" / "one.tif", (512, 512))
    with pytest.raises(InputError, match=r"one\.tif has 262144 distinct values"):
        module.read(tmp_path)


def test_volumes_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(TWO.astype(np.uint16)) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"a\.tif has 3 pages"):
        maps.read_flat(tmp_path / "a.tif")
