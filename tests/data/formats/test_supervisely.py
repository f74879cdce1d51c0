"""Supervisely: there and back, every geometry, hostile files."""

from __future__ import annotations

import base64
import json
import zlib
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import supervisely
from maskwright.errors import InputError
from maskwright.structures import Record
from tests.data.formats import draw
from tests.data.formats.hostile import png_header, refused

KEPT = {*draw.WHAT, "colors"} - {"image_ids"}


@settings(max_examples=30, deadline=None)
@given(
    draw.data_sets(splits=("train", "val", "été 1", "a/b"), kinds=("runs", "box")) | draw.data_sets(splits=(WHOLE,)),
)
def test_there_and_back(dataset: Dataset) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        base = {split: root / split.replace("/", "/datasets/") for split in dataset.splits}
        draw.write_pictures(dataset, lambda split, key: base[split] / "img" / key)
        supervisely.write(root, dataset)
        assert supervisely.recognizes(root)
        made = supervisely.read(root)
        rough = {"boxes"} if WHOLE in dataset.splits else set()  # of polygons with parts, boxes become the pixels'
        draw.same(dataset, made, what=KEPT - rough)
        assert not made.dropped


def png(mask: list[list[int]], form: str = "L") -> bytes:
    file = BytesIO()
    image = Image.fromarray(np.array(mask, np.uint8))
    if form == "alpha":
        image = Image.merge("RGBA", [Image.new("L", image.size, 255)] * 3 + [image])
    image.save(file, "PNG")
    return file.getvalue()


def bitmap(data: bytes, origin: Any = (1, 2), deflate: bool = True) -> dict[str, Any]:
    text = base64.b64encode(zlib.compress(data) if deflate else data).decode()
    return {"geometryType": "bitmap", "bitmap": {"data": text, "origin": origin}}


def area(exterior: Any, *interior: Any) -> dict[str, Any]:
    return {"exterior": exterior, "interior": list(interior)}


def square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def write(root: Path, objects: Any, **more: Any) -> Path:
    classes = [{"title": "cat", "color": "#010203", "shape": "any"}, {"title": "dog"}]
    for name in ("ann", "img"):
        (root / "ds0" / name).mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    whole = {"size": {"height": 8, "width": 9}, "objects": objects, **more}
    (root / "ds0" / "ann" / "a.png.json").write_text(json.dumps(whole))
    Image.new("L", (9, 8)).save(root / "ds0" / "img" / "a.png")
    return root


def one(dataset: Dataset) -> Record:
    (source,) = dataset.splits.values()
    return source.record(0)


def test_every_geometry(tmp_path: Path) -> None:
    objects = [
        {"id": 70, "classTitle": "cat", **bitmap(png([[0, 9], [9, 9]]))},
        {"classTitle": "dog", **bitmap(png([[0, 255], [1, 255]], "alpha"))},
        {"id": 70, "classTitle": "cat", "geometryType": "polygon", "points": area(square(0, 0, 6), square(2, 2, 2))},
        {"classTitle": "dog", "geometryType": "polygon", "points": area(square(1, 1, 2)), "tags": [{"name": "crowd"}]},
        {
            "classTitle": "dog",
            "geometryType": "multipolygon",
            "parts": [area(square(0, 0, 2)), area(square(4, 4, 2))],
        },
        {"id": 5, "classTitle": "cat", "geometryType": "rectangle", "points": area([[4, 3], [1, 1]])},
        {"classTitle": "cat", "geometryType": "line", "points": area([[4, 3], [1, 1]])},
        {"classTitle": "cat", "geometryType": "point", "points": area([[4, 3]])},
    ]
    made = supervisely.read(write(tmp_path, objects))
    found = one(made)
    assert made.taxonomy.names == ("cat", "dog")
    assert made.taxonomy.colors[0] == (1, 2, 3)
    assert list(made.splits) == ["ds0"]
    assert [type(s).__name__ for s in found.shapes] == ["dict", "dict", "dict", "tuple", "tuple", "NoneType"]
    assert found.labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert found.ids[[0, 5]].tolist() == [70, 5]
    assert len(set(found.ids.tolist())) == 6
    assert found.crowd.tolist() == [False, False, False, True, False, False]
    masks = [draw.dense(shape, (8, 9)) for shape in found.shapes[:3]]
    assert [np.argwhere(m).tolist() for m in masks[:2] if m is not None] == [[[2, 2], [3, 1], [3, 2]]] * 2
    holed = masks[2]
    assert holed is not None
    assert holed[1, 1]
    assert not holed[3, 3]
    assert found.boxes[3].tolist() == [1.5, 1.5, 3.5, 3.5]
    assert found.boxes[5].tolist() == [1, 1, 5, 4]
    assert len(found.shapes[4] or ()) == 2
    assert sorted(map(len, made.dropped.values())) == [1, 1]


BOMB = zlib.compress(b"\0" * (64 << 20))

BROKEN = [
    ({"geometryType": "star"}, "unknown type"),
    ({"geometryType": "polygon", "points": area([[1, 1], [2, 2]])}, "fewer than three"),
    ({"geometryType": "polygon", "points": area([[1, 1], [2, 2], [3, "x"]])}, "not two numbers"),
    ({"geometryType": "polygon", "points": area(square(0, 0, 5), [[1, 1]])}, "fewer than three"),
    ({"geometryType": "polygon", "points": [1]}, "missing or of another type"),
    ({"geometryType": "polygon"}, "missing or of another type"),
    ({"geometryType": "rectangle", "points": area([[1, 1]])}, "missing or of another type"),
    ({"geometryType": "rectangle", "points": area([[1, 1], [2, None]])}, "not a number"),
    ({"geometryType": "multipolygon", "parts": 7}, "missing or of another type"),
    (bitmap(b"no png"), "not a readable PNG"),
    (bitmap(png([[0, 1]]), deflate=False), "not deflated"),
    (bitmap(png([[0, 0]])), "without pixels"),
    (bitmap(png([[1]]), [99, 99]), "without pixels"),
    (bitmap(png([[1]]), [1]), "missing or of another type"),
    (bitmap(png_header(30_000, 30_000)), "larger than its picture|not a readable"),
    ({"geometryType": "bitmap", "bitmap": {"data": base64.b64encode(BOMB).decode(), "origin": [0, 0]}}, "larger"),
    ({"geometryType": "bitmap", "bitmap": {"data": "ä", "origin": [0, 0]}}, "missing or of another type"),
    ({"geometryType": "polygon", "points": area(square(0, 0, 5)), "classTitle": "owl"}, "not known"),
    ({"geometryType": "polygon", "points": area(square(0, 0, 5)), "classTitle": 3}, "no class name"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN)
def test_broken_objects_are_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    good = {"classTitle": "cat", "geometryType": "polygon", "points": area(square(0, 0, 5))}
    root = write(tmp_path, [good, {"classTitle": "cat", **change}])
    refused(lambda: supervisely.read(root), rf"1 with .*({says}).*: ds0/a\.png object 1")
    assert len(one(supervisely.read(root, strict=False))) == 1


@pytest.mark.parametrize("broken", [None, 3, [], "x"])
def test_objects_that_are_none(tmp_path: Path, broken: Any) -> None:
    with pytest.raises(InputError, match="object 0"):
        supervisely.read(write(tmp_path, [broken]))


def test_hostile_files(tmp_path: Path) -> None:
    write(tmp_path, [])
    file = tmp_path / "ds0" / "ann" / "a.png.json"

    def no(text: str | bytes, says: str, path: Path = file) -> None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        refused(lambda: supervisely.read(tmp_path), says)

    no('{"objects": ' + "[" * 100_000, r"a\.png\.json is not JSON")
    no(b"\xff\xfe{}", r"a\.png\.json is not JSON")
    no("[]", "must hold size")
    no('{"size": 3, "objects": []}', "must hold size")
    no('{"size": {"height": 1000000000, "width": 1000000000}, "objects": []}', r"a\.png\.json: .*height and width")
    for i in range(7):
        (file.parent / f"{i}.png.json").write_text("{}")
    no("{}", r"7 of 8 images are not on disk: ds0/0\.png.*ds0/4\.png, \.\.\.|must hold size")
    meta = tmp_path / "meta.json"
    no("{}", "must hold classes", meta)
    no('{"classes": [{"title": "a"}, {"title": "a"}]}', "distinct", meta)
    no("{", r"meta\.json is not JSON", meta)


def test_pictures_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "ds0" / "img").rename(tmp_path / "pictures")
    with pytest.raises(InputError, match=r"1 of 1 images are not on disk: ds0/a\.png"):
        supervisely.read(tmp_path)
    assert len(supervisely.read(tmp_path / "meta.json", images=tmp_path / "pictures")) == 1


def test_splits_that_cannot_be_folders(tmp_path: Path) -> None:
    made = supervisely.read(write(tmp_path, []))
    bad = Dataset(format="x", taxonomy=made.taxonomy, splits={"img": made.splits["ds0"]})
    with pytest.raises(InputError, match="cannot be named 'img'"):
        supervisely.write(tmp_path / "out", bad)


def test_others_are_not_recognized(tmp_path: Path) -> None:
    assert not supervisely.recognizes(tmp_path)
    (tmp_path / "meta.json").write_text('{"classes": []}')
    assert not supervisely.recognizes(tmp_path)
    (tmp_path / "ds" / "ann").mkdir(parents=True)
    assert supervisely.recognizes(tmp_path)
