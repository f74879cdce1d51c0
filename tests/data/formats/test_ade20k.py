"""ADE20K: the samples of both full releases, the benchmark with 150 classes made up, hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats import ade20k, scene_parsing, tables
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from tests.data.formats import draw
from tests.shared import shared

PERSON = "person, individual, someone, somebody, mortal, soul"


def test_the_sample_of_2017() -> None:
    root = shared("data/formats/ade20k2017/dataset")
    assert ade20k.recognizes(root)
    assert not scene_parsing.recognizes(root)
    made = ade20k.read(root)
    assert made.taxonomy.names == ("license plate", PERSON, "rim", "sky")
    assert {split: len(source) for split, source in made.splits.items()} == {"training": 1, "validation": 1}
    found = {}
    for split, key in (("training", "street/1"), ("validation", "2")):
        record = resolve(made.splits[split].record(0))
        assert record.key == f"{split}/{key}.jpg"
        lines = (root / split / f"{key}_atr.txt").read_text().strip().splitlines()
        assert len(record) == len(lines)
        found[split] = record
        seg = np.asarray(Image.open(root / split / f"{key}_seg.png"))
        for blue, name in ((1, "sky"), (2, PERSON)):
            i = record.labels.tolist().index(made.taxonomy.index(name))
            assert np.array_equal(draw.dense(record.shapes[i], record.size), seg[..., 2] == blue)
            assert record.semantic is not None
            assert np.array_equal(record.semantic == made.taxonomy.index(name), seg[..., 2] == blue)
        assert np.array_equal(record.semantic == -1, seg[..., 2] == 0)
    parts = np.asarray(Image.open(root / "validation" / "2_parts_2.png"))[..., 2] == 1
    last = found["validation"]
    assert made.taxonomy.names[last.labels[-1]] == "rim"
    assert np.array_equal(draw.dense(last.shapes[-1], last.size), parts)
    without = ade20k.read(root, parts=False)
    assert [len(source.record(0)) for source in without.splits.values()] == [2, 2]


def test_the_sample_of_2020() -> None:
    root = shared("data/formats/ade20k2020/dataset")
    assert ade20k.recognizes(root)
    made = ade20k.read(root)
    names = made.taxonomy.names
    assert names == ("car, auto, automobile, machine, motorcar", "door", PERSON, "rim")
    assert made.taxonomy.source_ids == (401, 774, 1831, 2122)
    for split, key in (("training", "street/1"), ("validation", "2")):
        base = root / split / key
        record = made.splits[split].record(0)
        raw = json.loads(base.with_suffix(".json").read_bytes())["annotation"]["object"]
        assert len(record) == len(raw)
        for entry in raw:
            mask = np.asarray(Image.open(base.parent / entry["instance_mask"])) != 0
            i = record.labels.tolist().index(names.index(entry["name"]))
            assert np.array_equal(draw.dense(record.shapes[i], record.size), mask)
            assert record.areas[i] == mask.sum()
        semantic = resolve(record).semantic
        assert semantic is not None
        assert set(np.unique(semantic)) == {-1, 0, 2}


def colors(path: Path, rows: list[list[tuple[int, int, int]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, np.uint8)).save(path)


def full(root: Path, names: str | bytes, seg: list[list[tuple[int, int, int]]], ending: str = "_atr.txt") -> Path:
    colors(root / "training" / "x_seg.png", seg)
    (root / "training" / f"x{ending}").write_bytes(names if isinstance(names, bytes) else names.encode())
    Image.new("L", (len(seg[0]), len(seg))).save(root / "training" / "x.jpg")
    return root


def test_blue_values_that_are_spread_are_ranked(tmp_path: Path) -> None:
    root = full(
        tmp_path, "001 # 0 # 0 # cat # c # \n002 # 0 # 0 # owl # o # \n", [[(0, 0, 0), (0, 5, 128), (0, 6, 255)]]
    )
    made = ade20k.read(root)
    record = made.splits["training"].record(0)
    assert [made.taxonomy.names[i] for i in record.labels] == ["cat", "owl"]
    assert record.boxes.tolist() == [[1, 0, 2, 1], [2, 0, 3, 1]]


def test_names_in_latin_1(tmp_path: Path) -> None:
    text = '{"annotation": {"object": {"name": "café", "name_ndx": 262}}}'.encode("latin-1")
    made = ade20k.read(full(tmp_path, text, [[(10, 6, 255)]], ".json"))
    assert made.taxonomy.names == ("café",)
    assert len(made.splits["training"].record(0)) == 1


def test_objects_without_a_name(tmp_path: Path) -> None:
    root = full(tmp_path, "001 # 0 # 0 # cat # c # \n", [[(0, 5, 1), (0, 6, 2)]])
    with pytest.raises(InputError, match=r"1 with no name in its list: x_seg\.png object 2"):
        ade20k.read(root)
    left = ade20k.read(root, strict=False)
    assert len(left.splits["training"].record(0)) == 1


LISTS = [
    ("not JSON", "[" * 100_000, ".json"),
    ("must hold an annotation", "[]", ".json"),
    ("must hold an annotation", '{"annotation": 3}', ".json"),
    ("object 0 must have a name", '{"annotation": {"object": [3]}}', ".json"),
    ("object 0 must have a name", '{"annotation": {"object": [{"name": "a", "name_ndx": "1"}]}}', ".json"),
    (r"x_atr\.txt:2", "\nx # 0 # 0 # cat", "_atr.txt"),
    (r"x_atr\.txt:1", "001 # 0", "_atr.txt"),
]


@pytest.mark.parametrize(("what", "text", "ending"), LISTS, ids=range(len(LISTS)))
def test_refused(tmp_path: Path, what: str, text: str, ending: str) -> None:
    with pytest.raises(InputError, match=what):
        ade20k.read(full(tmp_path, text, [[(0, 5, 1)]], ending))


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    root = full(tmp_path, "001 # 0 # 0 # cat # c # \n", [[(0, 5, 1), (0, 5, 1)]])
    Image.new("L", (7, 1)).save(root / "training" / "x.jpg")
    with pytest.raises(InputError, match=r"x_seg\.png: the map must be as large"):
        ade20k.read(root)
    png = root / "training" / "x_seg.png"
    png.write_bytes(png.read_bytes()[:-30])
    Image.new("L", (2, 1)).save(root / "training" / "x.jpg")
    with pytest.raises(InputError, match=r"x_seg\.png"):
        ade20k.read(root)
    (root / "training" / "x.jpg").unlink()
    with pytest.raises(InputError, match="1 of 1 pictures are not on disk: training/x"):
        ade20k.read(root)
    (root / "training" / "x_atr.txt").unlink()
    assert not ade20k.recognizes(root)
    with pytest.raises(InputError, match="holds no ADE20K"):
        ade20k.read(root)


def test_the_official_table() -> None:
    taxonomy = tables.ade20k()
    assert (len(taxonomy), sum(taxonomy.thing)) == (150, 100)
    # As objectInfo150 and the benchmark's colors have them.
    for number, name, color in (
        (1, "wall", (120, 120, 120)), (13, "person", (150, 5, 61)), (21, "car", (0, 102, 200)),
        (150, "flag", (92, 0, 255)),
    ):  # fmt: skip
        assert (taxonomy.names[number - 1], taxonomy.colors[number - 1]) == (name, color)


def test_the_benchmark(tmp_path: Path) -> None:
    for folder in ("images", "annotations", "annotations_instance"):
        (tmp_path / folder / "validation").mkdir(parents=True)
    Image.fromarray(np.array([[0, 1, 150], [13, 13, 255]], np.uint8)).save(
        tmp_path / "annotations" / "validation" / "a.png"
    )
    Image.new("L", (3, 2)).save(tmp_path / "images" / "validation" / "a.jpg")
    assert scene_parsing.recognizes(tmp_path)
    assert not ade20k.recognizes(tmp_path)
    record = scene_parsing.read(tmp_path).splits["validation"].record(0)
    assert record.key == "a.jpg"
    semantic = resolve(record).semantic
    assert semantic is not None
    assert semantic.tolist() == [[-1, 0, 149], [12, 12, -1]]
    assert len(record) == 0
    objects = tmp_path / "annotations_instance" / "validation" / "a.png"
    # Person is the fourth of the countable classes: bed, windowpane, cabinet, person.
    colors(objects, [[(0, 0, 0), (0, 0, 0), (100, 3, 0)], [(4, 1, 0), (4, 2, 9), (0, 0, 0)]])
    record = scene_parsing.read(tmp_path).splits["validation"].record(0)
    assert record.labels.tolist() == [12, 12, 149]
    assert record.boxes.tolist() == [[0, 1, 1, 2], [1, 1, 2, 2], [2, 0, 3, 1]]
    colors(objects, [[(0, 0, 0)] * 3, [(101, 1, 0), (0, 2, 0), (0, 0, 0)]])
    with pytest.raises(InputError, match="2 with a class that is not one of the 100"):
        scene_parsing.read(tmp_path)
    (tmp_path / "images" / "validation" / "a.jpg").unlink()
    with pytest.raises(InputError, match="1 of 1 images are not on disk"):
        scene_parsing.read(tmp_path)
    with pytest.raises(InputError, match="holds no scene parsing"):
        scene_parsing.read(tmp_path / "images")


def test_nothing_is_recognized_in_an_empty_folder(tmp_path: Path) -> None:
    assert not ade20k.recognizes(tmp_path)
    assert not scene_parsing.recognizes(tmp_path)
