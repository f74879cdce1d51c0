"""A mask a file: splits, objects that overlap, there and back."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from maskwright.data.dataset import Dataset
from maskwright.data.formats import instance_pngs, label_images
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import Taxonomy
from tests.data.formats.draw import data_sets, same
from tests.data.formats.pixels import counted, objects, photo, records, save
from tests.data.formats.small_sets import TWO, make_instance_pngs

WHAT = ("names", "splits", "keys", "sizes", "labels", "masks", "crowd")


def test_splits_and_unlabeled_tests(tmp_path: Path) -> None:
    make_instance_pngs(tmp_path)
    photo(tmp_path / "stage1_test" / "ff" / "images" / "ff.png")
    (tmp_path / "stage1_train" / "00" / "masks").mkdir(parents=True)
    photo(tmp_path / "stage1_train" / "00" / "images" / "00.png")
    assert counted(instance_pngs.read(tmp_path)) == {
        "test/ff.png": {},
        "train/00.png": {},
        "train/ab12.png": {"object": 2},
    }
    assert counted(instance_pngs.read(tmp_path / "stage1_train"))["all/ab12.png"] == {"object": 2}
    assert instance_pngs.recognizes(tmp_path / "stage1_train")


def test_masks_may_overlap(tmp_path: Path) -> None:
    path = make_instance_pngs(tmp_path)
    save(path.with_name("3a.png"), (TWO == 2) * 1)
    save(path.with_name("4a.png"), (TWO == 2) | (TWO == 1), bool)
    made = instance_pngs.read(tmp_path)
    (found,) = records(made).values()
    assert [int(np.sum(m)) for _, _, m in objects(found, made)] == [6, 16, 16, 22]


def test_what_is_wrong(tmp_path: Path) -> None:
    path = make_instance_pngs(tmp_path)
    save(path, TWO * 0)
    with pytest.raises(InputError, match=r"1 with a mask without pixels: .*2e\.png"):
        instance_pngs.read(tmp_path)
    photo(tmp_path / "stage1_train" / "ab12" / "images" / "second.png")
    with pytest.raises(InputError, match="1 with 2 pictures where one must be"):
        instance_pngs.read(tmp_path)
    with pytest.raises(InputError, match="leave out images="):
        instance_pngs.read(tmp_path, images=tmp_path)


def one_class(dataset: Dataset) -> Dataset:
    """All of one class called object."""
    taxonomy = Taxonomy(names=("object",))
    splits = {}
    for split, source in dataset.splits.items():
        kept = (source.record(i) for i in range(len(source)))
        splits[split] = FileSource.from_records((replace(r, labels=r.labels * 0) for r in kept), taxonomy)
    return replace(dataset, taxonomy=taxonomy, splits=splits)


@settings(max_examples=25, deadline=None)
@given(data_sets(kinds=("runs", "polygons"), crowd=False, splits=("train", "val", "all")).filter(len))
def test_there_and_back(drawn: Dataset) -> None:
    dataset = one_class(drawn)
    if any((r.areas == 0).any() for r in records(dataset).values()):
        with pytest.raises(InputError, match="objects without pixels"):
            instance_pngs.write(Path("nowhere"), dataset)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        instance_pngs.write(root, dataset)
        for key, record in records(dataset).items():
            photo(instance_pngs.picture(root, key.partition("/")[0], record), record.size)
        same(dataset, instance_pngs.read(root), what=WHAT)
        assert not label_images.recognizes(root)
        assert instance_pngs.recognizes(root) or all(key.count("/") > 2 for key in records(dataset))


def test_what_it_cannot_hold_is_refused(tmp_path: Path) -> None:
    make_instance_pngs(tmp_path / "in")
    made = instance_pngs.read(tmp_path / "in")
    record = made.splits["train"].record(0)
    taxonomy = Taxonomy(names=("cat", "owl"))
    wrong = replace(record, labels=np.array([0, 1]), crowd=np.array([True, False]))
    dataset = replace(made, taxonomy=taxonomy, splits={"train": FileSource.from_records([wrong], taxonomy)})
    with pytest.raises(InputError, match=r"(?s)1 crowd regions: ab12\.png.*2 classes, .*: cat, owl"):
        instance_pngs.write(tmp_path / "out", dataset)
    twins = [record, replace(record, key="ab12.jpg")]
    dataset = replace(made, splits={"train": FileSource.from_records(twins, made.taxonomy)})
    with pytest.raises(InputError, match="1 pictures whose name without ending another one has: train/ab12"):
        instance_pngs.write(tmp_path / "out", dataset)
    outside = replace(made, splits={"../x": made.splits["train"]})
    with pytest.raises(InputError, match="inside its folder"):
        instance_pngs.write(tmp_path / "out", outside)
    assert not (tmp_path / "out").exists()
