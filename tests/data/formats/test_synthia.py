"""SYNTHIA: the samples of all its data sets, and PNGs of 16 bits and three channels."""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.formats import synthia
from maskwright.data.formats.png16 import is_png16, read_png16
from maskwright.data.formats.synthia_tables import AL, CITYSCAPES, RAND, SEQUENCES, SF, THINGS
from maskwright.errors import InputError
from tests.data.formats.pixels import SIZE, chunk, colored, counted, photo, png, records, save, save16, semantic
from tests.data.formats.small_sets import TWO, make_synthia
from tests.shared import shared

SAMPLES = {"rand": 13, "al": 13, "sf": 22, "rand_custom_labelmap": 4, "rand_meta_file": 4}


def test_the_tables() -> None:
    tables = (RAND, SEQUENCES, CITYSCAPES, SF, AL)
    for rows in tables:
        assert len({row.ident for row in rows}) == len(rows)
        assert len({row.name for row in rows}) == len(rows)
    sizes = [len(rows) for rows in tables]
    assert tuple(sizes) == (13, 13, 22, 22, 13)
    assert THINGS.issubset(row.name for rows in tables for row in rows)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_samples(name: str) -> None:
    """Classes by the colors (or numbers) in the sample's own files."""
    root = shared("data/formats/synthia") / name
    assert synthia.recognizes(root)
    made = synthia.read(root)
    assert len(made.taxonomy) == SAMPLES[name]
    found = records(made)
    assert list(found) == ["all/000000.png", "all/000001.png"]
    for key, record in found.items():
        file = key.partition("/")[2]
        folder = {"al": "SemSeg", "sf": "GTLeft"}.get(name, "GT")
        if name == "rand":
            ids = np.loadtxt(root / "GTTXT" / file.replace("png", "txt"), ndmin=2)
            want = [made.taxonomy.source_ids.index(i) for i in ids[0].tolist()]
        else:
            colors = np.asarray(Image.open(root / folder / file))[0].tolist()
            want = [made.taxonomy.colors.index(tuple(color)) for color in colors]
        assert semantic(record)[0].tolist() == want


def test_text_and_colors_agree(tmp_path: Path) -> None:
    """The sample has both; they are of different pixels there, so this one is drawn."""
    ids = np.select([TWO == 1, TWO == 2], [8, 13], 1)
    photo(tmp_path / "RGB" / "a.png")
    save(tmp_path / "GT" / "a.png", colored(ids, {row.ident: row.color for row in RAND}))
    (by_color,) = records(synthia.read(tmp_path)).values()
    (tmp_path / "GTTXT").mkdir()
    np.savetxt(tmp_path / "GTTXT" / "a.txt", ids, fmt="%d")
    (by_text,) = records(synthia.read(tmp_path)).values()
    assert np.array_equal(semantic(by_color), semantic(by_text))
    assert np.array_equal(semantic(by_text), ids - 1)


def test_classes_and_objects_of_three_channels(tmp_path: Path) -> None:
    make_synthia(tmp_path)
    made = synthia.read(tmp_path)
    assert counted(made) == {"all/0000000.png": {"Car": 1, "Pedestrian": 1}}
    (found,) = records(made).values()
    assert found.areas.tolist() == [(TWO == 1).sum(), (TWO == 2).sum()]
    assert found.tracks is None
    assert np.array_equal(semantic(found) + 1, np.select([TWO == 1, TWO == 2], [8, 10], 3))


def test_one_class_and_one_number_are_one_object(tmp_path: Path) -> None:
    channels = np.zeros((*SIZE, 3), np.uint16)
    channels[..., 0] = 2  # a building, which has no objects
    channels[..., 1] = 5
    channels[0, 0, 0], channels[0, 7, 0], channels[3, 3, :2] = 8, 8, (10, 5)
    channels[5, 5, :2] = 8, 0  # a car without a number
    photo(tmp_path / "RGB" / "a.png")
    save16(tmp_path / "GT" / "LABELS" / "a.png", channels)
    (found,) = records(synthia.read(tmp_path)).values()
    assert found.areas.tolist() == [2, 1]


def test_sequences_have_frames_and_tracks(tmp_path: Path) -> None:
    for frame in (0, 1):
        name = f"Stereo_Left/Omni_F/{frame:06d}.png"
        photo(tmp_path / "RGB" / name)
        channels = np.zeros((*SIZE, 3), np.uint16)
        channels[..., 0] = 15
        channels[frame, :, 0], channels[frame, :, 1] = 8, 44
        save16(tmp_path / "GT" / "LABELS" / name, channels)
    made = synthia.read(tmp_path)
    found = records(made)
    assert [r.frame for r in found.values()] == [0, 1]
    assert {r.sequence for r in found.values()} == {"Stereo_Left/Omni_F"}
    assert [r.tracks.tolist() for r in found.values() if r.tracks is not None] == [[44], [44]]
    assert made.taxonomy.names[semantic(found["all/Stereo_Left/Omni_F/000000.png"])[5, 5]] == "TrafficLight"


def test_tables_beside(tmp_path: Path) -> None:
    photo(tmp_path / "RGB" / "a.png")
    save(tmp_path / "GT" / "a.png", colored(TWO, {0: (9, 9, 9), 1: (1, 0, 0), 2: (0, 2, 0)}))
    with pytest.raises(InputError, match=r"pixels have values that stand for no class, most often \(9, 9, 9\)"):
        synthia.read(tmp_path)
    meta = {
        "label_map": {"0": "background", "1": "one", "2": "two"},
        "segmentation_colors": [[9, 9, 9], [1, 0, 0], [0, 2, 0]],
    }
    for wrong in ({}, [], {**meta, "segmentation_colors": [[9, 9, 9]]}, {**meta, "label_map": {"x": "y"}}):
        (tmp_path / "dataset_meta.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"dataset_meta\.json"):
            synthia.read(tmp_path)
    meta["segmentation_colors"][0] = [0, 0, 300]
    (tmp_path / "dataset_meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"colors in 0\.\.255"):
        synthia.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"), [("1 2\n3", r"a\.txt:2"), ("1 x", r"a\.txt:1"), ("1 1e999", r"a\.txt"), ("", "0x0")]
)
def test_broken_text(tmp_path: Path, text: str, words: str) -> None:
    photo(tmp_path / "RGB" / "a.png")
    (tmp_path / "GTTXT").mkdir()
    (tmp_path / "GTTXT" / "a.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        synthia.read(tmp_path)


# ---- PNGs of 16 bits ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
)
def test_png16(channels: np.ndarray, filters: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = save16(Path(folder, "a.png"), channels, tuple(filters))
        assert is_png16(path)
        assert np.array_equal(read_png16(path), channels)
        with Image.open(path) as image:  # the files are sound: PIL reads their upper bytes
            assert np.array_equal(np.asarray(image), channels >> 8)


BROKEN = {
    "nothing": b"",
    "8 bits": png((2, 2, 8, 2), zlib.compress(bytes(14))),
    "a billion pixels": png((40_000, 40_000, 16, 2), zlib.compress(bytes(10))),
    "no pixels": png((0, 2, 16, 2), zlib.compress(b"")),
    "too few rows": png((2, 2, 16, 2), zlib.compress(bytes(13))),
    "an unknown filter": png((2, 2, 16, 2), zlib.compress(b"\5" + bytes(25))),
    "not compressed": png((2, 2, 16, 2), b"abc"),
    "a short header": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"abc"),
    "no header": b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""),
    "cut within a chunk": png((2, 2, 16, 2), zlib.compress(bytes(26)))[:45],
    "a chunk of 4 GB": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**32 - 1, b"IDAT") + b"abc",
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_png16(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(BROKEN[kind])
    with pytest.raises(InputError, match=r"cannot read the map .*a\.png"):
        read_png16(path)


def test_more_rows_than_stated_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png((2, 2, 16, 2), zlib.compress(bytes(10**8), 1)))
    assert read_png16(path).shape == (2, 2, 3)
    assert not is_png16(tmp_path / "none.png")
    with pytest.raises(InputError, match=r"none\.png"):
        read_png16(tmp_path / "none.png")
