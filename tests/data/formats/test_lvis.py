"""LVIS: files as its authors lay them out, made up; what records cannot hold is read beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.dataset import WHOLE
from maskwright.data.formats import coco_dataset, lvis
from maskwright.errors import InputError
from maskwright.structures import Record

URL = "http://images.cocodataset.org"
RING = [1, 1, 4, 1, 4, 3, 1, 3]
GOOD = {
    "info": {},
    "annotations": [
        {"id": 8, "image_id": 5, "category_id": 9, "segmentation": [RING], "bbox": [1, 1, 3, 2], "area": 6.0},
        {"id": 9, "image_id": 5, "category_id": 2, "segmentation": [RING, RING], "bbox": [1, 1, 3, 2], "area": 6.0},
    ],
    "images": [
        {"id": 5, "coco_url": f"{URL}/train2017/a.jpg", "height": 5, "width": 6,
         "neg_category_ids": [4], "not_exhaustive_category_ids": [9, 2]},
        {"id": 6, "coco_url": f"{URL}/val2017/b.jpg", "height": 5, "width": 6,
         "neg_category_ids": [], "not_exhaustive_category_ids": []},
    ],
    "categories": [
        {"id": 9, "name": "zebra", "frequency": "r", "synset": "zebra.n.01"},
        {"id": 2, "name": "alarm_clock", "frequency": "f", "synset": "alarm_clock.n.01"},
        {"id": 4, "name": "ball", "frequency": "c", "synset": "ball.n.06"},
    ],
}  # fmt: skip


def folder(root: Path, data: object = GOOD, *, flat: bool = False) -> Path:
    for name in ("train2017/a.jpg", "val2017/b.jpg"):
        place = root / (name.rpartition("/")[2] if flat else name)
        place.parent.mkdir(exist_ok=True)
        Image.new("L", (6, 5)).save(place)
    (root / "annotations").mkdir()
    (root / "annotations" / "lvis_v1_train.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return root


@pytest.mark.parametrize("flat", [False, True])
def test_a_folder(tmp_path: Path, flat: bool) -> None:
    root = folder(tmp_path, flat=flat)
    file = root / "annotations" / "lvis_v1_train.json"
    assert lvis.recognizes(root)
    assert lvis.recognizes(file)
    made = lvis.read(root)
    assert list(made.splits) == ["train"]
    assert made.taxonomy.names == ("alarm_clock", "ball", "zebra")
    assert made.taxonomy.source_ids == (2, 4, 9)
    one, two = (made.splits["train"].record(i) for i in range(2))
    assert (one.key, two.key, one.image_id) == ("train2017/a.jpg", "val2017/b.jpg", 5)
    assert one.path.is_file()
    assert (one.labels.tolist(), one.ids.tolist(), len(two)) == ([2, 0], [8, 9], 0)
    assert [len(shape) for shape in one.shapes if isinstance(shape, tuple)] == [1, 2]
    known = lvis.federated(file)
    assert known.frequency == ("f", "c", "r")
    assert known.absent == {5: (1,), 6: ()}
    assert known.not_exhaustive == {5: (2, 0), 6: ()}
    assert list(lvis.read(file).splits) == [WHOLE]


def test_large_files_are_known_by_their_categories(tmp_path: Path) -> None:
    data = {**GOOD, "annotations": [*GOOD["annotations"][:1], {"pad": "x" * 300_000}]}  # type: ignore[misc]
    data = {"annotations": data["annotations"], "images": data["images"] * 2000, "categories": data["categories"]}
    root = folder(tmp_path, data)
    assert lvis.recognizes(root)


def test_coco_is_not_lvis(tmp_path: Path) -> None:
    plain = {
        "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "a"}],
    }  # fmt: skip
    assert not lvis.recognizes(folder(tmp_path, plain))
    assert coco_dataset.recognizes(tmp_path)
    with pytest.raises(InputError, match="no LVIS annotation file"):
        lvis.read(tmp_path)


def test_broken_objects_are_counted(tmp_path: Path) -> None:
    bad = [{**GOOD["annotations"][0], "id": 20 + i, "category_id": 77} for i in range(7)]  # type: ignore[index]
    root = folder(tmp_path, {**GOOD, "annotations": [*GOOD["annotations"], *bad]})  # type: ignore[misc]
    with pytest.raises(InputError, match=r"7 with a category_id .*20, 21, 22, 23, 24, "):
        lvis.read(root)
    left = lvis.read(root, strict=False)
    assert [len(where) for where in left.dropped.values()] == [7]
    record: Record = left.splits["train"].record(0)
    assert np.array_equal(record.ids, [8, 9])


REFUSED = [
    ("not JSON", '{"neg_category_ids": ' + "[" * 100_000),
    ("lacks the lists", '{"neg_category_ids": 1}'),
    ("a coco_url", {**GOOD, "images": [{"id": 1, "neg_category_ids": []}]}),
    ("image ids", {**GOOD, "images": [GOOD["images"][0]] * 2}),  # type: ignore[index]
    ("not on disk", {**GOOD, "images": [{**GOOD["images"][0], "coco_url": f"{URL}/x/y.jpg"}]}),  # type: ignore[index]
    ("inside its folder", {**GOOD, "images": [{**GOOD["images"][0], "coco_url": "../a.jpg"}]}),  # type: ignore[index]
]


@pytest.mark.parametrize(("what", "data"), REFUSED, ids=range(len(REFUSED)))
def test_refused(tmp_path: Path, what: str, data: object) -> None:
    with pytest.raises(InputError, match=what):
        lvis.read(folder(tmp_path, data))


def test_federated_facts_must_name_categories(tmp_path: Path) -> None:
    for wrong in ([77], "x", [True]):
        data = {**GOOD, "images": [{**GOOD["images"][0], "neg_category_ids": wrong}]}  # type: ignore[index]
        (tmp_path / "a.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match="must list ids of categories"):
            lvis.federated(tmp_path / "a.json")
