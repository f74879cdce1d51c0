"""COCO-Stuff: the sample's JSON; PNGs of classes, made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.dataset import WHOLE
from maskwright.data.formats import coco_stuff, tables
from maskwright.data.label_maps import resolve
from maskwright.errors import InputError
from tests.data.formats import draw
from tests.shared import shared


def test_the_sample() -> None:
    root = shared("data/formats/coco_stuff/annotations").parent
    assert coco_stuff.recognizes(root)
    made = coco_stuff.read(root)
    assert made.taxonomy.names == ("a", "b")
    assert not any(made.taxonomy.thing)
    for split, (label, ident) in {"train": (0, 7), "val": (1, 2)}.items():
        raw = json.loads((root / "annotations" / f"stuff_{split}.json").read_bytes())["annotations"][0]
        record = made.splits[split].record(0)
        assert (record.labels.tolist(), record.ids.tolist(), record.crowd.tolist()) == ([label], [ident], [True])
        counts = raw["segmentation"]["counts"]
        flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(bool)
        expected = flat.reshape(record.size[::-1]).T
        assert np.array_equal(draw.dense(record.shapes[0], record.size), expected)


def pictures(root: Path, *places: str) -> None:
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 2)).save(root / place)


def write_map(path: Path, values: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def test_maps_of_things_and_stuff(tmp_path: Path) -> None:
    pictures(tmp_path, "images/train2017/a.jpg", "val2017/b.jpg")
    write_map(tmp_path / "stuffthingmaps" / "train2017" / "a.png", [[0, 89, 91], [181, 255, 11]])
    write_map(tmp_path / "stuffthingmaps" / "val2017" / "b.png", [[0, 0, 0], [0, 0, 0]])
    assert coco_stuff.recognizes(tmp_path)
    assert coco_stuff.recognizes(tmp_path / "stuffthingmaps")
    made = coco_stuff.read(tmp_path)
    assert (len(made.taxonomy), sum(made.taxonomy.thing)) == (171, 80)
    record = resolve(made.splits["train2017"].record(0))
    index = tables.coco_stuff().index
    assert record.semantic is not None
    # 11 is id 12, a street sign, which COCO never used.
    assert record.semantic.tolist() == [[0, index("toothbrush"), index("banner")], [index("wood"), -1, -1]]
    assert (record.key, len(record)) == ("a.jpg", 0)
    assert made.splits["val2017"].record(0).path == tmp_path / "val2017" / "b.jpg"


def test_maps_of_stuff(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.jpg")
    write_map(tmp_path / "annotations" / "stuff_val2017_pixelmaps" / "a.png", [[0, 92, 182], [183, 183, 1]])
    assert coco_stuff.recognizes(tmp_path)
    made = coco_stuff.read(tmp_path)
    record = resolve(made.splits["val2017"].record(0))
    assert record.semantic is not None
    assert record.semantic.tolist() == [[-1, 0, 90], [91, 91, -1]]
    assert made.taxonomy.names[91] == "other"
    again = coco_stuff.read(tmp_path / "annotations" / "stuff_val2017_pixelmaps", images=tmp_path / "images")
    assert list(again.splits) == ["val2017"]


def test_the_layout_of_its_authors(tmp_path: Path) -> None:
    pictures(tmp_path, "images/train2017/a.jpg")
    write_map(tmp_path / "annotations" / "train2017" / "a.png", [[0, 1, 255], [1, 1, 1]])
    assert coco_stuff.recognizes(tmp_path)
    assert coco_stuff.read(tmp_path).splits["train2017"].record(0).key == "a.jpg"


def test_missing_pictures_and_other_sizes(tmp_path: Path) -> None:
    for name in "abcdefg":
        write_map(tmp_path / "stuffthingmaps" / f"{name}.png", [[0]])
    with pytest.raises(InputError, match=r"7 of 7 images are not on disk: a, b, c, d, e, \.\.\."):
        coco_stuff.read(tmp_path)
    pictures(tmp_path, *(f"images/{name}.jpg" for name in "abcdefg"))
    made = coco_stuff.read(tmp_path)
    with pytest.raises(InputError, match="as large as its picture"):
        resolve(made.splits[WHOLE].record(0))


def test_others_are_not_recognized(tmp_path: Path) -> None:
    write_map(tmp_path / "annotations" / "training" / "a.png", [[0]])
    assert not coco_stuff.recognizes(tmp_path)
    assert not coco_stuff.recognizes(shared("data/formats/coco_instances/annotations").parent)
    assert not coco_stuff.recognizes(shared("data/formats/coco_panoptic/annotations").parent)
    with pytest.raises(InputError, match="holds neither"):
        coco_stuff.read(tmp_path)
