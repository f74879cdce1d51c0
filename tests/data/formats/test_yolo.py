"""YOLO-seg: what Ultralytics writes, round trips, hostile files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import yolo
from maskwright.data.formats.coco_dataset import read as read_coco
from maskwright.data.formats.yolo_write import one_ring
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.ops import polygons, rle
from maskwright.structures import Taxonomy
from tests.data.formats import draw
from tests.shared import shared

SIZE = (10, 20)  # height, width


def folder(root: Path, rows: str | bytes = "", data: str | dict | None = None) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
    Image.new("L", SIZE[::-1]).save(root / "images" / "train" / "a.png")
    Image.new("L", SIZE[::-1]).save(root / "images" / "val" / "b.jpg")
    (root / "labels" / "train" / "a.txt").write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    data = {"train": "images/train", "val": "images/val", "names": {0: "cat", 1: "owl"}} if data is None else data
    (root / "data.yaml").write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return root


def test_polygons_boxes_and_background(tmp_path: Path) -> None:
    root = folder(tmp_path, "1 0.1 0.2 0.5 0.2 0.5 0.6\n\n0 0.5 0.5 0.2 0.4\r\n")
    assert yolo.recognizes(root)
    assert yolo.recognizes(root / "data.yaml")
    made = yolo.read(root)
    assert made.taxonomy.names == ("cat", "owl")
    record = made.splits["train"].record(0)
    assert record.key == "a.png"
    assert record.size == SIZE
    assert record.labels.tolist() == [1, 0]
    (ring,) = record.shapes[0]  # type: ignore[misc]
    assert ring.tolist() == [[2, 2], [10, 2], [10, 6]]
    assert record.shapes[1] is None
    assert np.allclose(record.boxes, [[2, 2, 10, 6], [8, 3, 12, 7]])
    assert len(made.splits["val"].record(0)) == 0


@pytest.mark.parametrize(
    "data",
    [
        {"path": "../datasets/x", "train": "images/train", "val": "images/val", "names": ["cat", "owl"]},
        {"path": "/elsewhere", "train": "../images/train", "val": "./images/val", "nc": 2, "names": ["cat", "owl"]},
        {"train": "train.txt", "val": ["images/val"], "test": "images/test", "names": {1: "owl", 0: "cat"}},
        "names: [cat, owl]\ntrain: images/train\nval: images/val\ndownload: |\n  import os\n",
    ],
)
def test_ways_to_name_the_pictures(tmp_path: Path, data: str | dict) -> None:
    root = folder(tmp_path, "1 .1 .2 .5 .2 .5 .6", data)
    (root / "train.txt").write_text("./images/train/a.png\n")
    made = yolo.read(root / "data.yaml")
    assert {split: len(source) for split, source in made.splits.items()} == {"train": 1, "val": 1}
    assert made.splits["train"].record(0).labels.tolist() == [1]
    assert made.taxonomy.names == ("cat", "owl")


def test_one_folder_under_two_names_is_one_split(tmp_path: Path) -> None:
    made = yolo.read(folder(tmp_path, "", {"train": "images/train", "val": "images/train", "names": ["no"]}))
    assert list(made.splits) == ["train"]
    assert made.taxonomy.names == ("no",)


def test_without_a_yaml(tmp_path: Path) -> None:
    root = folder(tmp_path, "1 .1 .2 .5 .2 .5 .6")
    (root / "data.yaml").unlink()
    assert not yolo.recognizes(root)
    (root / "labels" / "classes.txt").write_text("cat\nowl\n")
    assert yolo.recognizes(root)
    made = yolo.read(root)
    assert [made.splits[WHOLE].record(i).key for i in range(2)] == ["train/a.png", "val/b.jpg"]
    assert len(made.splits[WHOLE].record(0)) == 1


@settings(max_examples=60)
@given(st.data())
def test_any_outline_is_one_ring(data: st.DataObject) -> None:
    size = (data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
    mask = data.draw(draw.masks(size))
    shape = draw.runs(mask) if mask.any() else data.draw(draw.polygon_shapes(size, parts=4))
    if data.draw(st.booleans()) and mask.any():
        shape = data.draw(draw.polygon_shapes(size, parts=4))
    ring = one_ring(shape, size)
    assert np.array_equal(draw.dense((ring,), size), draw.dense(shape, size))
    if mask.any():  # filled by the other rule, too
        own = draw.runs(mask)
        assert isinstance(own, dict)
        filled = polygons.fill_outlines([one_ring(own, size)], size)
        assert np.array_equal(filled, rle.from_coco([own], size)[0])


@settings(max_examples=40)
@given(draw.data_sets(crowd=False, splits=("train", "val", "all")))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, made: Dataset) -> None:
    root = tmp_path_factory.mktemp("set")
    draw.write_pictures(made, lambda split, key: yolo.picture(root, split, draw.data_record(key=key)))
    yolo.write(root, made)
    assert yolo.recognizes(root)
    again = yolo.read(root)
    draw.same(made, again, what=set(draw.WHAT) - {"ids", "image_ids", "areas", "boxes"})
    for split, source in made.splits.items():
        others = {again.splits[split].record(i).key: again.splits[split].record(i) for i in range(len(source))}
        for record in map(source.record, range(len(source))):
            other = others[record.key]
            for i, shape in enumerate(record.shapes):
                if isinstance(shape, tuple) and len(shape) == 1:
                    (ring,) = other.shapes[i]  # type: ignore[misc]
                    assert ring.tolist() == shape[0].tolist()
                if shape is None or len(shape) == 1:
                    assert other.boxes[i].tolist() == record.boxes[i].tolist()


def test_crowd_is_left_out_and_outlines_are_cut_at_the_border(tmp_path: Path) -> None:
    shape = (np.array([[-3, 1], [5, 1], [5, 4], [-3, 4]], float),)
    record = draw.data_record(size=SIZE, shapes=(shape, shape, None), boxes=[(-3, 1, 5, 4)] * 3, crowd=[0, 1, 0])
    taxonomy = Taxonomy(names=("cat",))
    made = Dataset(format="x", taxonomy=taxonomy, splits={"val": FileSource.from_records([record], taxonomy)})
    draw.write_pictures(made, lambda split, key: tmp_path / "images" / split / key)
    yolo.write(tmp_path / "data.yaml", made)
    found = yolo.read(tmp_path).splits["val"].record(0)
    assert np.array_equal(draw.dense(found.shapes[0], SIZE), draw.dense(shape, SIZE))
    assert found.boxes.tolist() == [[0, 1, 5, 4]] * 2


def test_coco_photographs(tmp_path: Path) -> None:
    first = read_coco(shared("data/coco128/instances.json"))
    draw.write_pictures(first, lambda split, key: tmp_path / "images" / split / key)
    yolo.write(tmp_path, first)
    again = yolo.read(tmp_path)
    left, right = first.splits[WHOLE], again.splits[WHOLE]
    assert sum(len(right.record(i)) for i in range(128)) == 939 - 10
    for i in range(0, 128, 9):
        a, b = left.record(i), next(r for r in map(right.record, range(128)) if r.key == left.record(i).key)
        kept = [k for k in range(len(a)) if not a.crowd[k]]
        assert a.labels[kept].tolist() == b.labels.tolist()
        for k, shape in zip(kept, b.shapes, strict=True):
            assert np.array_equal(draw.dense(a.shapes[k], a.size), draw.dense(shape, a.size))


ROWS = [
    ("something else than numbers", "0 0.1 0.2 x"),
    ("not among the names", "2 .1 .1 .2 .2"),
    ("not among the names", "nan .1 .1 .2 .2"),
    ("not among the names", "0.5 .1 .1 .2 .2"),
    ("neither a box", "0"),
    ("neither a box", "0 .1 .2 .3 .4 .5"),
    ("neither a box", "0 .1 .2 .3 .4 .5 .6 .7"),
    ("not finite", "0 .1 .2 .3 nan .5 .6"),
    ("not finite", "0 .1 .2 .3 inf"),
    ("not normalized", "0 .1 .2 3 .4 .5 .6"),
    ("not normalized", "0 -0.1 .2 .3 .4 .5 .6"),
    ("without area", "0 .1 .2 .3 0"),
]


@pytest.mark.parametrize(("what", "row"), ROWS, ids=range(len(ROWS)))
def test_broken_rows(tmp_path: Path, what: str, row: str) -> None:
    root = folder(tmp_path, f"0 .1 .1 .2 .2\n{row}\n")
    with pytest.raises(InputError, match=f"1 with .*{what}.*a.txt:2"):
        yolo.read(root)
    left = yolo.read(root, strict=False)
    assert len(left.splits["train"].record(0)) == 1
    assert sum(map(len, left.dropped.values())) == 1


def test_a_million_points(tmp_path: Path) -> None:
    angle = np.linspace(0, 6.28, 200_000)
    ring = np.stack([0.5 + 0.4 * np.cos(angle), 0.5 + 0.4 * np.sin(angle)], axis=1).reshape(-1)
    root = folder(tmp_path, "0 " + " ".join(f"{v:.6f}" for v in np.tile(ring, 5)))
    (shape,) = yolo.read(root).splits["train"].record(0).shapes
    assert isinstance(shape, tuple)
    assert len(shape[0]) == 1_000_000


DATA = [
    ("data.yaml:2 is not YAML", "names: [a]\ntrain: ]\nval: x"),
    ("nested too deep", "names: " + "[" * 100_000 + "\ntrain: x"),
    ("names must be a list", "names: 3\ntrain: images/train"),
    ("a text that is not empty", "names: [[a]]\ntrain: images/train"),
    ("numbered from 0", "names: {a: b}\ntrain: images/train"),
    ("names must be distinct", "names: [a, a]\ntrain: images/train"),
    ("not in", "names: [a]\ntrain: images/none\nval: images/val"),
    ("not in", "names: [a]\ntrain: /etc\nval: images/val"),
    ("not in", "names: [a]\ntrain: a/../../..\nval: images/val"),
    ("must be a folder", "names: [a]\ntrain: {a: b}\nval: images/val"),
    ("neither train nor val", "names: [a]\ntrain:\n"),
    ("a text that is not empty", "a: &a [x,x,x,x]\nb: &b [*a,*a]\nnames: [*b,*b]\ntrain: images/train"),
    ("inside", "names: [a]\ntrain: list.txt\n"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "text"), DATA, ids=range(len(DATA)))
def test_broken_data_files(tmp_path: Path, what: str, text: str) -> None:
    root = folder(tmp_path, "", text)
    (root / "list.txt").write_text("../../etc/passwd\n")
    with pytest.raises(InputError, match=what):
        yolo.read(root)


def test_other_encodings_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt must be text in UTF-8"):
        yolo.read(folder(tmp_path, b"\xff\xfe0\x00"))
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: x\n" + "#" * (1 << 21))
    with pytest.raises(InputError, match="too large"):
        yolo.read(tmp_path)
    for wrong in (tmp_path / "labels", tmp_path / "images" / "train" / "a.png"):
        assert not yolo.recognizes(wrong)
        with pytest.raises(InputError, match="no YOLO data set"):
            yolo.read(wrong)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    taxonomy = Taxonomy(names=("cat",))

    def of(*records: object, split: str = "a") -> Dataset:
        return Dataset(format="x", taxonomy=taxonomy, splits={split: FileSource.from_records(records, taxonomy)})  # type: ignore[arg-type]

    one, two = draw.data_record(key="a.png"), draw.data_record(key="a.jpg")
    with pytest.raises(InputError, match=r"share a\.txt"):
        yolo.write(tmp_path, of(one, two))
    with pytest.raises(InputError, match="Rename the split"):
        yolo.write(tmp_path, of(one, split="names"))
    with pytest.raises(InputError, match="maps of classes only"):
        yolo.write(tmp_path, of(draw.data_record(semantic=np.zeros((5, 6), np.int16))))
    with pytest.raises(InputError, match="outside its picture"):
        yolo.write(tmp_path, of(draw.data_record(boxes=[(7, 7, 9, 9)])))
