"""Which split a command takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats.coco import write_coco
from maskwright.data.opening import open_split
from maskwright.data.source import FileSource
from maskwright.data.tasks import things_of
from maskwright.errors import InputError
from maskwright.structures import Taxonomy
from tests.data.make import record

SQUARE = (np.array([[1, 1], [4, 1], [4, 3], [1, 3]], np.float64),)
PETS = Taxonomy(names=("cat", "sky", "dog"), thing=(True, False, True), source_ids=(3, 5, 9))


def folder(root: Path, *splits: str) -> Path:
    for split in splits:
        (root / "images" / split).mkdir(parents=True)
        Image.new("RGB", (6, 5)).save(root / "images" / split / f"{split}.png")
        write_coco(
            root / "annotations" / f"instances_{split}.json", [record((5, 6), [SQUARE], key=f"{split}.png")], PETS
        )
    return root


def test_by_role_and_by_name(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", "train2017", "test2017")
    assert open_split(root, "train").record(0).key == "train2017.png"
    assert open_split(root, "val").record(0).key == "test2017.png"
    assert open_split(f"{root}@train2017", "val").record(0).key == "train2017.png"
    with pytest.raises(InputError, match="no split dev; it has train2017, test2017"):
        open_split(f"{root}@dev", "val")
    one = folder(tmp_path / "b@c", "dev")
    assert open_split(one, "train").record(0).key == "dev.png"
    two = folder(tmp_path / "d", "dev", "train1", "train2")
    with pytest.raises(InputError, match="say which to take"):
        open_split(two, "train")


def test_things_of_a_panoptic_set() -> None:
    its = record((5, 6), [SQUARE] * 3, labels=[2, 1, 0])
    source = things_of(FileSource.from_records([its], PETS))
    assert (source.taxonomy.names, source.taxonomy.source_ids) == (("cat", "dog"), (3, 9))
    assert source.record(0).labels.tolist() == [1, 0]
    plain = FileSource.from_records([its], Taxonomy(names=("a", "b", "c")))
    assert things_of(plain) is plain
    with pytest.raises(InputError, match="stuff only"):
        things_of(FileSource.from_records([], Taxonomy(names=("sky",), thing=(False,))))
