"""Label images of microscopy: the sample, the layouts, depths, there and back."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.dataset import Dataset
from maskwright.data.formats import instance_pngs, label_images
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import Taxonomy
from tests.data.formats.draw import data_sets, same
from tests.data.formats.pixels import SIZE, counted, objects, photo, records, save
from tests.data.formats.small_sets import TWO, make_label_images
from tests.data.formats.test_instance_pngs import one_class
from tests.shared import shared

WHAT = ("names", "splits", "keys", "sizes", "labels", "masks", "crowd", "boxes")


def test_the_sample(tmp_path: Path) -> None:
    """A picture of 512 x 512 with as many nuclei as its map has values; the volume beside is refused."""
    root = shared("data/volume/nuclei")
    for name, kind in (("img2d", "images"), ("mask2d", "masks")):
        (tmp_path / kind).mkdir()
        shutil.copy(root / f"{name}.tif", tmp_path / kind / "a.tif")
    assert label_images.recognizes(tmp_path)
    made = label_images.read(tmp_path)
    ids = np.asarray(Image.open(root / "mask2d.tif")).astype(int)
    (found,) = records(made).values()
    assert len(found) == len(np.unique(ids)) - 1 == 125
    assert found.areas.tolist() == np.bincount(ids.reshape(-1))[np.unique(ids)][1:].tolist()
    shutil.copy(root / "img3d.tif", tmp_path / "images" / "a.tif")
    shutil.copy(root / "mask3d.tif", tmp_path / "masks" / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif has 31 pages"):
        label_images.read(tmp_path)


@pytest.mark.parametrize(
    ("picture", "labels"),
    [
        ("images/a.tif", "masks/a.tif"),
        ("img/a.png", "mask/a.tif"),
        ("images/b/a.jpg", "labels/b/a.png"),
        ("images/a.png", "masks/a_mask.png"),
        ("images/a_mask.png", "masks/a_mask.png"),
        ("a.tif", "a_masks.tif"),
        ("a_img.png", "a_masks.png"),
        ("a.png", "a_cp_masks.png"),
    ],
)
def test_layouts(tmp_path: Path, picture: str, labels: str) -> None:
    for split in ("train", "test"):
        photo(tmp_path / split / picture)
        save(tmp_path / split / labels, TWO, np.uint16)
    for path in (tmp_path, tmp_path / "train"):
        assert label_images.recognizes(path)
        assert not instance_pngs.recognizes(path)
    made = label_images.read(tmp_path)
    assert [key.partition("/")[0] for key in counted(made)] == ["test", "train"]
    assert all(names == {"object": 2} for names in counted(made).values())
    assert list(label_images.read(tmp_path / "train").splits) == ["all"]


def test_folders_named_by_hand(tmp_path: Path) -> None:
    photo(tmp_path / "x" / "a.png")
    save(tmp_path / "y" / "a.png", TWO)
    assert counted(label_images.read(tmp_path / "y", images=tmp_path / "x")) == {"all/a.png": {"object": 2}}


@pytest.mark.parametrize(
    ("kind", "most"), [(np.uint8, 255), (np.uint16, 65535), (np.int32, 70_000), (np.int32, 2**31 - 1)]
)
def test_depths(tmp_path: Path, kind: type, most: int) -> None:
    save(make_label_images(tmp_path), np.where(TWO == 2, most, TWO), kind)
    made = label_images.read(tmp_path)
    (found,) = records(made).values()
    assert [int(np.sum(m)) for _, _, m in objects(found, made)] == [6, 16]


def test_what_is_no_label_image(tmp_path: Path) -> None:
    path = make_label_images(tmp_path)
    save(path, np.where(TWO == 2, -1, TWO), np.int32)
    with pytest.raises(InputError, match=r"one\.tif: labels must lie in 0"):
        label_images.read(tmp_path)
    save(path, np.stack([TWO] * 3, axis=-1))
    with pytest.raises(InputError, match=r"one\.tif: a map of labels must have one channel"):
        label_images.read(tmp_path)
    assert not label_images.recognizes(tmp_path)
    save(path, TWO / 2, np.float32)
    with pytest.raises(InputError, match=r"one\.tif"):
        label_images.read(tmp_path)


# ---- there and back -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    data_sets(kinds=("runs",), disjoint=True, crowd=False, splits=("train", "val", "all")).filter(len),
    st.sampled_from([".tif", ".png"]),
)
def test_there_and_back(drawn: Dataset, ending: str) -> None:
    dataset = one_class(drawn)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        label_images.write(root, dataset, ending=ending)  # pyright: ignore[reportArgumentType]
        for key, record in records(dataset).items():
            photo(label_images.picture(root, key.partition("/")[0], record), record.size)
        same(dataset, label_images.read(root), what=WHAT)
        assert label_images.recognizes(root)


def test_many_objects_need_16_bits(tmp_path: Path) -> None:
    make_label_images(tmp_path / "in")
    save(tmp_path / "in" / "train" / "masks" / "one.tif", np.arange(1, 1201).reshape(30, 40), np.uint16)
    photo(tmp_path / "in" / "train" / "images" / "one.tif", (30, 40))
    label_images.write(tmp_path / "out", label_images.read(tmp_path / "in"))
    written = np.asarray(Image.open(tmp_path / "out" / "train" / "masks" / "one.tif"))
    assert written.dtype == np.uint16
    assert np.array_equal(written.reshape(-1), np.arange(1, 1201))


def test_objects_that_overlap(tmp_path: Path) -> None:
    make_label_images(tmp_path / "in")
    made = label_images.read(tmp_path / "in")
    record = made.splits["train"].record(0)
    wide = (np.array([[3, 1], [6, 1], [6, 4], [3, 4]], float),)
    dataset = replace(
        made,
        splits={"train": FileSource.from_records([replace(record, shapes=(wide, record.shapes[1]))], made.taxonomy)},
    )
    with pytest.raises(InputError, match=r"2 objects that overlap others: one\.tif"):
        label_images.write(tmp_path / "out", dataset)
    assert not (tmp_path / "out").exists()
    label_images.write(tmp_path / "out", dataset, overlap="cover")
    written = np.asarray(Image.open(tmp_path / "out" / "train" / "masks" / "one.tif"))
    assert np.array_equal(written == 2, TWO == 2)
    assert (written == 1).sum() == 9 - 4
    with pytest.raises(ValueError, match=r"'\.tif' or '\.png'"):
        label_images.write(tmp_path / "out", made, ending=".jpg")  # pyright: ignore[reportArgumentType]


def test_what_it_cannot_hold_is_refused(tmp_path: Path) -> None:
    make_label_images(tmp_path / "in")
    made = label_images.read(tmp_path / "in")
    record = made.splits["train"].record(0)
    taxonomy = Taxonomy(names=("cat", "owl"))
    wrong = replace(record, labels=np.array([0, 1]), crowd=np.array([True, False]))
    boxed = replace(record, key="two.tif", shapes=(record.shapes[0], None))
    dataset = replace(made, taxonomy=taxonomy, splits={"train": FileSource.from_records([wrong, boxed], taxonomy)})
    with pytest.raises(InputError) as refused:
        label_images.write(tmp_path / "out", dataset)
    for words in (
        "1 crowd regions: one.tif",
        "1 objects with a box only: two.tif",
        "2 classes, where the format has one",
    ):
        assert words in str(refused.value)
    assert record.size == SIZE
