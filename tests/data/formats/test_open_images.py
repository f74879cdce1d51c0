"""Open Images: the samples, boxes joined to masks, the hierarchy, hostile files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.dataset import WHOLE
from maskwright.data.formats import open_images
from maskwright.errors import InputError
from tests.data.formats import draw
from tests.shared import shared

CLASSES = "LabelName,DisplayName\n/m/0,Cat\n/m/1,Owl\n/m/2,Cat\n"
BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
MASKS = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"


def test_the_sample_of_v6() -> None:
    root = shared("data/formats/open_images/v6")
    assert open_images.recognizes(root)
    made = open_images.read(root)
    assert made.taxonomy.names == tuple(f"Generic label #{i}" for i in range(4))
    assert {split: len(source) for split, source in made.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    rows = {}
    for split, name in {"train": "oidv6-train", "test": "test"}.items():
        with open(root / "annotations" / f"{name}-annotations-bbox.csv", newline="") as file:
            rows[split] = len(list(csv.DictReader(file)))
    objects = {s: sum(len(source.record(i)) for i in range(len(source))) for s, source in made.splits.items()}
    assert objects == {**rows, "validation": 0}
    b = made.splits["train"].record(1)
    assert (b.key, b.size, b.labels.tolist(), b.crowd.tolist()) == ("b.jpg", (2, 8), [0], [False])
    assert np.allclose(b.boxes, [[0.2 * 8, 0.3 * 2, 8, 0.5 * 2]])
    mask = np.asarray(Image.open(root / "masks" / "train" / "b_m0_01234567.png"))
    assert np.array_equal(draw.dense(b.shapes[0], b.size), mask)
    c = made.splits["test"].record(0)
    assert (c.labels.tolist(), c.crowd.tolist(), c.shapes) == ([3], [True], (None,))
    assert np.allclose(c.boxes, [[3.5, 0, 4, 5]])
    assert list(open_images.read(root / "annotations").splits) == ["train", "validation", "test"]


def test_the_sample_of_v5() -> None:
    root = shared("data/formats/open_images/v5")
    assert open_images.recognizes(root)
    made = open_images.read(root)
    assert {s: source.record(0).key for s, source in made.splits.items()} == {"train": "aa.jpg", "test": "cc.jpg"}
    assert made.taxonomy.names == ("Generic label #0", "Generic label #1")


def test_the_hierarchy() -> None:
    root = shared("data/formats/open_images/v6")
    codes = open_images.hierarchy(root / "annotations" / "bbox_labels_600_hierarchy.json")
    assert codes == {"/m/x": (), "/m/0": ("/m/x",), "/m/1": ("/m/0",)}
    assert open_images.expand("/m/1", codes) == ("/m/1", "/m/0", "/m/x")
    named = open_images.hierarchy(root)
    assert named["Generic label #1"] == ("Generic label #0",)
    assert open_images.expand("unheard of", named) == ("unheard of",)


def test_classes_with_two_parents_and_circles(tmp_path: Path) -> None:
    leaf = {"LabelName": "d", "Part": [{"LabelName": "e"}]}
    tree = {"LabelName": "a", "Subcategory": [{"LabelName": n, "Subcategory": [leaf]} for n in "bc"]}
    (tmp_path / "h.json").write_text(json.dumps(tree))
    found = open_images.hierarchy(tmp_path / "h.json")
    assert found["d"] == ("b", "c")
    assert "e" not in found
    assert open_images.expand("d", found) == ("d", "b", "c", "a")
    assert open_images.expand("a", {"a": ("b",), "b": ("a",)}) == ("a", "b")
    for wrong in ("[]", '{"LabelName": 3}', '{"LabelName": "a", "Subcategory": "b"}', '{"Subcategory": ' + "[" * 10**5):
        (tmp_path / "h.json").write_text(wrong)
        with pytest.raises(InputError, match=r"h\.json"):
            open_images.hierarchy(tmp_path / "h.json")


def folder(root: Path, boxes: str | bytes = "", masks: str = "", place: str = "images/train/a.png") -> Path:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (10, 20)).save(root / place)
    (root / "oidv6-class-descriptions.csv").write_text(CLASSES)
    text = boxes if isinstance(boxes, bytes) else (BOXES + boxes).encode()
    (root / "oidv6-train-annotations-bbox.csv").write_bytes(text)
    if masks:
        (root / "train-annotations-object-segmentation.csv").write_text(MASKS + masks)
    return root


def test_masks_are_joined_to_boxes_and_resized(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        "a,x,/m/1,1,0,0.5,0,0.5,0,0,0,0,0\na,x,/m/0,1,0,0.5,0,0.5,0,0,0,0,0\na,x,/m/0,1,0,1,0,1,0,0,1,0,0\n",
        "m.png,a,/m/0,i,0.0001,0.5,0,0.5,1,\nn.png,a,/m/2,i,0,0.5,0,0.5,1,\n",
    )
    (root / "train-masks-0").mkdir()
    small = np.zeros((10, 5), bool)
    small[:5, :2] = True
    for name in ("m", "n"):
        Image.fromarray(small).save(root / "train-masks-0" / f"{name}.png")
    record = open_images.read(root).splits["train"].record(0)
    assert record.labels.tolist() == [1, 0, 0, 2]
    assert record.crowd.tolist() == [False, False, True, False]
    assert [shape is None for shape in record.shapes] == [True, False, True, False]
    assert np.array_equal(draw.dense(record.shapes[1], (20, 10)), np.kron(small, np.ones((2, 2))).astype(bool))
    assert record.boxes.tolist() == [[0, 0, 5, 10], [0, 0, 5, 10], [0, 0, 10, 20], [0, 0, 5, 10]]
    assert record.areas.tolist() == [50, 40, 200, 40]
    assert open_images.read(root).taxonomy.names == ("Cat", "Owl", "Cat (/m/2)")


def test_pictures_in_one_folder_are_split_by_the_csvs(tmp_path: Path) -> None:
    root = folder(tmp_path, "a,x,/m/1,1,0,0.5,0,0.5,0,0,0,0,0\n", place="images/a.png")
    Image.new("L", (3, 3)).save(root / "images" / "z.png")
    assert {s: len(source) for s, source in open_images.read(root).splits.items()} == {"train": 1, WHOLE: 1}
    (root / "image_ids_and_rotation.csv").write_text("ImageID,Subset,Rotation\nz,validation,0\nq,test,0\n")
    assert {s: len(source) for s, source in open_images.read(root).splits.items()} == {"validation": 1, "train": 1}


def test_rows_of_pictures_that_are_not_there(tmp_path: Path) -> None:
    made = open_images.read(folder(tmp_path, "q,x,/m/1,1,0,0.5,0,0.5,0,0,0,0,0\n" * 9))
    assert made.dropped == {
        "9 rows of pictures that are not on disk": [f"oidv6-train-annotations-bbox.csv:{i} (q)" for i in range(2, 7)]
    }


ROWS = [
    ("not known", "a,x,/m/9,1,0,0.5,0,0.5,0,0,0,0,0\n", ""),
    ("four finite", "a,x,/m/1,1,0,x,0,0.5,0,0,0,0,0\n", ""),
    ("four finite", "a,x,/m/1,1,0,nan,0,0.5,0,0,0,0,0\n", ""),
    ("without area", "a,x,/m/1,1,0.5,0.5,0,0.5,0,0,0,0,0\n", ""),
    ("mask that is not on disk", "", "m.png,a,/m/0,i,0,0.5,0,0.5,1,\n"),
]


@pytest.mark.parametrize(("what", "boxes", "masks"), ROWS, ids=range(len(ROWS)))
def test_broken_rows(tmp_path: Path, what: str, boxes: str, masks: str) -> None:
    root = folder(tmp_path, boxes, masks)
    with pytest.raises(InputError, match=rf"1 with .*{what}.*csv:2"):
        open_images.read(root)
    assert len(open_images.read(root, strict=False).splits["train"].record(0)) == 0


def test_refused(tmp_path: Path) -> None:
    for text, what in (
        (b"ImageID,XMin\n", r"bbox\.csv:1: the columns LabelName"),
        (BOXES.encode() + b"a,b\n", r"bbox\.csv:2: the row has 2 fields"),
        (BOXES.encode() + b"a,\xff\xfe\n", "UTF-8"),
        (BOXES.encode() + b'a,"' + b"x" * 200_000, "cannot be read as CSV"),
        (b"", r"bbox\.csv:1"),
    ):
        with pytest.raises(InputError, match=what):
            open_images.read(folder(tmp_path, text))
    with pytest.raises(InputError, match="inside its folder"):
        open_images.read(folder(tmp_path, "", "../m.png,a,/m/0,i,0,0.5,0,0.5,1,\n"))
    (tmp_path / "images" / "train" / "a.png").unlink()
    with pytest.raises(InputError, match="no picture is on disk"):
        open_images.read(tmp_path)
    (tmp_path / "oidv6-class-descriptions.csv").unlink()
    with pytest.raises(InputError, match="class-descriptions"):
        open_images.read(folder(tmp_path / "b").parent, images=tmp_path / "b" / "images")
    assert not open_images.recognizes(tmp_path / "b" / "images")
    with pytest.raises(InputError, match="no CSV of Open Images"):
        open_images.read(tmp_path / "b" / "images")
