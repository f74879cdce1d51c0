"""Pascal VOC: samples, round trips, hostile files."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import tables, voc
from maskwright.data.label_maps import resolve
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import Taxonomy
from tests.data.formats import draw
from tests.shared import shared


def test_the_official_palette() -> None:
    # The first and some further colors as the devkit's manual prints them.
    colors = tables.voc_colors(256)
    assert colors[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert (colors[15], colors[20], colors[255]) == ((192, 128, 128), (0, 64, 128), (224, 224, 192))


def test_real_photographs() -> None:
    root = shared("data/formats/voc_real")
    assert voc.recognizes(root)
    made = voc.read(root)
    assert made.taxonomy.names == (*tables.VOC_NAMES, "background")
    assert made.taxonomy.thing == (True,) * 20 + (False,)
    source = made.splits[WHOLE]
    count = sum(len(ElementTree.parse(f).getroot().findall("object")) for f in (root / "Annotations").glob("*.xml"))
    records = [resolve(source.record(i)) for i in range(len(source))]
    assert sum(map(len, records)) == count == 3
    with_masks, without = records
    assert [made.taxonomy.names[i] for i in with_masks.labels] == ["dog", "chair"]
    assert with_masks.boxes.tolist() == [[122, 114, 379, 275], [74, 0, 428, 375]]
    objects = np.asarray(Image.open(root / "SegmentationObject" / "2007_000063.png"))
    classes = np.asarray(Image.open(root / "SegmentationClass" / "2007_000063.png"))
    for i in range(2):
        assert np.array_equal(draw.dense(with_masks.shapes[i], with_masks.size), objects == i + 1)
        assert with_masks.areas[i] == (objects == i + 1).sum()
    assert np.array_equal(with_masks.semantic == -1, classes == 255)
    assert np.array_equal(with_masks.semantic == 20, classes == 0)
    assert np.array_equal(with_masks.semantic == tables.VOC_NAMES.index("dog"), classes == 12)
    assert without.shapes == (None,)
    assert without.semantic is None
    assert without.boxes[0].tolist() == [129, np.float32(45.70000076293945 - 1), 375, 470]
    (only,) = voc.read(root / "Annotations" / "2007_000063.xml").splits.values()
    assert len(only) == 1


def test_small_samples() -> None:
    root = shared("data/formats/voc")
    first = voc.read(root / "voc_dataset1")
    assert {split: len(source) for split, source in first.splits.items()} == {"test": 1, "train": 1}
    record = first.splits["train"].record(0)
    assert [first.taxonomy.names[i] for i in record.labels] == ["cat", "person", "bicycle"]
    assert record.boxes.tolist() == [[0, 1, 3, 4], [3, 4, 6, 7], [0, 0, 20, 10]]
    assert [shape is None for shape in record.shapes] == [True, True, False]
    assert len(first.splits["test"].record(0)) == 0
    for path in ("ImageSets/Main/train.txt", "ImageSets/Segmentation", "ImageSets"):
        assert voc.recognizes(root / "voc_dataset1" / path)
        assert "train" in voc.read(root / "voc_dataset1" / path).splits
    third = voc.read(root / "voc_dataset3")
    assert [len(third.splits["train"].record(0))] == [1]
    assert voc.recognizes(root / "voc_dataset2")
    with pytest.raises(InputError, match="5 of 5 images are not on disk: @, a, b, c, d "):
        voc.read(root / "voc_dataset2")


def test_a_labelmap_with_pictures_made_up(tmp_path: Path) -> None:
    for name in "@abcd":
        Image.new("L", (12, 10)).save(tmp_path / f"{name}.jpg")
    made = voc.read(shared("data/formats/voc/voc_dataset2"), images=tmp_path)
    assert list(made.splits) == ["trainval"]
    assert [len(made.splits["trainval"].record(i)) for i in range(5)] == [0, 1, 1, 1, 1]
    assert made.taxonomy.names == (*tables.VOC_NAMES, "background")  # "ignored" has the color of void
    assert made.taxonomy.colors[14] == (192, 128, 128)


@settings(max_examples=30)
@given(draw.data_sets(disjoint=True, kinds=("runs", "box"), one_folder=True))
def test_round_trip_with_masks(tmp_path_factory: pytest.TempPathFactory, made: Dataset) -> None:
    round_trip(tmp_path_factory.mktemp("set"), made, draw.WHAT)


@settings(max_examples=20)
@given(draw.data_sets(kinds=("box",), one_folder=True, names=(*tables.VOC_NAMES, "background")))
def test_round_trip_of_boxes(tmp_path_factory: pytest.TempPathFactory, made: Dataset) -> None:
    round_trip(tmp_path_factory.mktemp("set"), made, draw.WHAT)


def round_trip(root: Path, made: Dataset, what: tuple[str, ...]) -> None:
    draw.write_pictures(made, lambda split, key: voc.picture(root, split, draw.data_record(key=key)))
    voc.write(root, made)
    assert voc.recognizes(root)
    again = voc.read(root)
    draw.same(made, again, what=set(what) - {"ids", "image_ids", "names"})
    used = {made.taxonomy.names[i] for s in made.splits.values() for k in range(len(s)) for i in s.record(k).labels}
    assert used <= set(again.taxonomy.names)


@settings(max_examples=15)
@given(
    hnp.arrays(np.int16, (5, 6), elements=st.integers(-1, 3)),
    st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=4, max_size=4),
)
def test_class_maps_round_trip(
    tmp_path_factory: pytest.TempPathFactory, semantic: np.ndarray, colors: list[tuple[int, int, int]]
) -> None:
    root = tmp_path_factory.mktemp("set")
    taxonomy = Taxonomy(names=("b", "background", "a", "c"), colors=tuple(colors))
    record = draw.data_record(key="x.png", size=(5, 6), semantic=semantic)
    made = Dataset(format="x", taxonomy=taxonomy, splits={"train": FileSource.from_records([record], taxonomy)})
    draw.write_pictures(made, lambda split, key: voc.picture(root, split, draw.data_record(key=key)))
    voc.write(root, made)
    again = voc.read(root)
    assert again.taxonomy.names == ("b", "a", "c", "background")
    found = resolve(again.splits["train"].record(0)).semantic
    assert np.array_equal(found, np.array([0, 3, 1, 2, -1])[semantic])


def test_what_cannot_be_written(tmp_path: Path) -> None:
    def of(names: tuple[str, ...], *records: object) -> Dataset:
        taxonomy = Taxonomy(names=names)
        return Dataset(format="x", taxonomy=taxonomy, splits={"a": FileSource.from_records(records, taxonomy)})  # type: ignore[arg-type]

    with pytest.raises(InputError, match="class name"):
        voc.write(tmp_path, of(("a\nb",)))
    one, two = (draw.data_record(key=f"a.{e}", path=Path(f"a.{e}")) for e in ("png", "jpg"))
    with pytest.raises(InputError, match="two images would be called a"):
        voc.write(tmp_path, of(("a",), one, two))
    outside = draw.data_record(boxes=[(9, 9, 12, 12)], size=(4, 4))
    with pytest.raises(InputError, match="outside its picture"):
        voc.write(tmp_path, of(("a",), outside))


HEAD = "<annotation><filename>a.png</filename><segmented>0</segmented>"
SIZE = "<size><width>6</width><height>5</height></size>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>3</ymax></bndbox>"


def folder(root: Path, text: str | bytes) -> Path:
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "JPEGImages").mkdir(exist_ok=True)
    Image.new("L", (6, 5)).save(root / "JPEGImages" / "a.png")
    (root / "Annotations" / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


BROKEN = [
    ("no class name|class that is not known", f"{HEAD}{SIZE}<object>{BOX}</object></annotation>"),
    ("four finite numbers", f"{HEAD}{SIZE}<object><name>cat</name></object></annotation>"),
    ("four finite numbers", f"{HEAD}{SIZE}<object><name>cat</name>{BOX.replace('>2<', '>nan<')}</object></annotation>"),
    ("without area", f"{HEAD}{SIZE}<object><name>cat</name>{BOX.replace('>3<', '>-3<')}</object></annotation>"),
]


@pytest.mark.parametrize(("what", "text"), BROKEN, ids=range(len(BROKEN)))
def test_broken_objects(tmp_path: Path, what: str, text: str) -> None:
    with pytest.raises(InputError, match=f"({what}).*: a.xml object 1"):
        voc.read(folder(tmp_path, text))
    left = voc.read(tmp_path, strict=False)
    assert len(left.splits[WHOLE].record(0)) == 0
    assert sum(map(len, left.dropped.values())) == 1


REFUSED = [
    ("a.xml:1: .*document type", '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'),
    ("nested deeper", "<annotation>" + "<a>" * 100_000),
    ("not XML", HEAD + "<object>"),
    ("not XML", b"<?xml version='1.0' encoding='utf-8'?><annotation>\xff\xfe</annotation>"),
    ("positive whole", f"{HEAD}<size><width>1e99</width><height>5</height></size></annotation>"),
    ("positive whole", f"{HEAD}<size><width>nan</width><height>x</height></size></annotation>"),
    ("its root must be", "<annotations><bndbox/></annotations>"),
]


@pytest.mark.parametrize(("what", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refused(tmp_path: Path, what: str, text: str | bytes) -> None:
    with pytest.raises(InputError, match=what):
        voc.read(folder(tmp_path, text))


def test_lists_that_leave_the_folder_or_are_no_text(tmp_path: Path) -> None:
    root = folder(tmp_path, f"{HEAD}{SIZE}</annotation>")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for content, what in (
        (b"../../etc/passwd", "inside its folder"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"b", "not on disk"),
    ):
        (lists / "train.txt").write_bytes(content)
        with pytest.raises(InputError, match=what):
            voc.read(root)


def test_a_map_that_declares_too_many_pixels(tmp_path: Path) -> None:
    root = folder(tmp_path, f"{HEAD}{SIZE}</annotation>")
    (root / "SegmentationObject").mkdir()
    png = (root / "JPEGImages" / "a.png").read_bytes()
    at = png.index(b"IHDR") + 4
    huge = png[:at] + (40_000).to_bytes(4, "big") * 2 + png[at + 8 :]
    (root / "SegmentationObject" / "a.png").write_bytes(huge)
    with pytest.raises(InputError, match=r"a\.png"):
        voc.read(root)


def test_boxes_that_count_from_zero(tmp_path: Path) -> None:
    root = folder(tmp_path, f"{HEAD}{SIZE}<object><name>cat</name>{BOX.replace('>1<', '>0<', 1)}</object></annotation>")
    assert voc.read(root).splits[WHOLE].record(0).boxes.tolist() == [[0, 1, 2, 3]]


def test_splits_of_one_class_and_unions_are_no_splits(tmp_path: Path) -> None:
    root = folder(tmp_path, f"{HEAD}{SIZE}</annotation>")
    for name in "bc":
        Image.new("L", (6, 5)).save(root / "JPEGImages" / f"{name}.png")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, text in {
        "train": "a\n", "val": "b\nc\n", "trainval": "a\nb\nc\n", "dog_train": "a -1\n", "my_train": "a\n",
    }.items():  # fmt: skip
        (lists / f"{name}.txt").write_text(text)
    assert sorted(voc.read(root).splits) == ["my_train", "train", "val"]


def test_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        Image.new("L", (6, 5)).save(tmp_path / split / "a.jpg")
        (tmp_path / split / "a.xml").write_text(f"{HEAD}<object><name>nut</name>{BOX}</object></annotation>")
    assert voc.recognizes(tmp_path)
    made = voc.read(tmp_path)
    assert {s: source.record(0).key for s, source in made.splits.items()} == {
        "train": "train/a.jpg",
        "valid": "valid/a.jpg",
    }
    assert made.taxonomy.names == ("nut",)


def test_the_picture_an_xml_names(tmp_path: Path) -> None:
    root = folder(tmp_path, f"{HEAD}{SIZE}</annotation>")
    (root / "Annotations" / "a.xml").rename(root / "Annotations" / "0001.xml")
    assert voc.read(root).splits[WHOLE].record(0).key == "a.png"
