"""COCO folders: a JSON a split, classes joined by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import coco_dataset
from maskwright.data.formats.coco import write_coco
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import Taxonomy
from tests.data.make import record

SQUARE = (np.array([[1, 1], [4, 1], [4, 3], [1, 3]], np.float64),)


def folder(root: Path) -> Path:
    for split, names in (("train", ("cat", "owl")), ("val", ("dog", "owl"))):
        (root / "images" / split).mkdir(parents=True)
        Image.new("RGB", (6, 5)).save(root / "images" / split / f"{split}.png")
        one = record((5, 6), [SQUARE, SQUARE], key=f"{split}.png", labels=[0, 1])
        write_coco(root / "annotations" / f"instances_{split}.json", [one], Taxonomy(names=names))
    return root


def test_a_folder(tmp_path: Path) -> None:
    assert coco_dataset.recognizes(folder(tmp_path))
    made = coco_dataset.read(tmp_path)
    assert made.taxonomy.names == ("cat", "owl", "dog")
    assert {s: source.record(0).labels.tolist() for s, source in made.splits.items()} == {
        "train": [0, 1],
        "val": [2, 1],
    }
    assert made.splits["val"].record(0).path == tmp_path / "images" / "val" / "val.png"


def test_a_file_and_back(tmp_path: Path) -> None:
    file = folder(tmp_path) / "annotations" / "instances_train.json"
    assert coco_dataset.recognizes(file)
    made = coco_dataset.read(file, images=tmp_path / "images" / "train")
    assert list(made.splits) == [WHOLE]
    coco_dataset.write(tmp_path / "images" / "train" / "out.json", made)
    again = coco_dataset.read(tmp_path / "images" / "train" / "out.json")
    assert again.taxonomy == made.taxonomy
    assert again.splits[WHOLE].record(0).boxes.tolist() == made.splits[WHOLE].record(0).boxes.tolist()


def test_several_splits_need_a_folder(tmp_path: Path) -> None:
    made = coco_dataset.read(folder(tmp_path))
    with pytest.raises(InputError, match="one split"):
        coco_dataset.write(tmp_path / "out.json", made)
    coco_dataset.write(tmp_path / "new", made)
    assert sorted(p.name for p in (tmp_path / "new" / "annotations").iterdir()) == [
        "instances_train.json",
        "instances_val.json",
    ]


def test_others_are_not_recognized(tmp_path: Path) -> None:
    for name, text in (
        ("a.json", "[]"),
        ("b.json", '{"a": 1}'),
        ("c.txt", "images annotations"),
        ("d.json", "\0" * 99),
    ):
        (tmp_path / name).write_text(text)
        assert not coco_dataset.recognizes(tmp_path / name)
    assert not coco_dataset.recognizes(tmp_path)
    with pytest.raises(InputError, match="no COCO annotation file"):
        coco_dataset.read(tmp_path)


def test_an_empty_data_set(tmp_path: Path) -> None:
    taxonomy = Taxonomy(names=("cat",))
    empty = Dataset(format="coco", taxonomy=taxonomy, splits={WHOLE: FileSource.from_records([], taxonomy)})
    coco_dataset.write(tmp_path / "e.json", empty)
    assert len(coco_dataset.read(tmp_path / "e.json")) == 0
