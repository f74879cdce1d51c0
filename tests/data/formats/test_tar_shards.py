"""Shards as a format: written, recognized, read, split by split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskwright.cli.main import main
from maskwright.data import formats
from maskwright.data.formats.coco import write_coco
from maskwright.errors import InputError
from tests.data.make import record
from tests.data.test_audit import PETS, SIZE, photograph, square


def pets(root: Path) -> Path:
    for split in ("train", "val"):
        records = []
        for i in range(3):
            path = photograph(root / "images" / split / f"{split}{i}.png", i)
            records.append(
                record(
                    SIZE,
                    [square(5, 5), square(40, 30)],
                    key=path.name,
                    labels=[0, 1],
                    image_id=i + 1,
                    first_id=9 * i + 1,
                )
            )
        write_coco(root / "annotations" / f"instances_{split}.json", records, PETS)
    return root


def test_there_and_back(tmp_path: Path) -> None:
    assert main(["convert", str(pets(tmp_path / "pets")), str(tmp_path / "out"), "--to", "shards"]) == 0
    assert not list((tmp_path / "out").rglob("*.png"))
    assert formats.recognize(tmp_path / "out").name == "shards"
    made, before = formats.read(tmp_path / "out"), formats.read(tmp_path / "pets")
    assert (list(made.splits), made.taxonomy.names) == (["train", "val"], PETS.names)
    for split in made.splits:
        for i in range(3):
            (a, x), (b, y) = before.splits[split].load(i), made.splits[split].load(i)
            assert np.array_equal(x.numpy(), y.numpy())
            assert (a.key, a.boxes.tolist(), a.labels.tolist()) == (b.key, b.boxes.tolist(), b.labels.tolist())


def test_what_holds_no_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in no format"):
        formats.recognize(tmp_path)
    with pytest.raises(InputError, match="no tar shards"):
        formats.read(tmp_path, "shards")
    (tmp_path / "a.tar").write_bytes(b"nonsense" * 200)
    with pytest.raises(InputError, match=r"a\.tar"):
        formats.read(tmp_path)
