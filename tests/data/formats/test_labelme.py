"""LabelMe JSON: there and back, grouped shapes, hostile files."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import labelme
from maskwright.errors import InputError
from maskwright.structures import Record
from tests.data.formats import draw
from tests.data.formats.hostile import png_header, refused

KEPT = {*draw.WHAT, "polygons"} - {"ids", "image_ids"}


def there_and_back(dataset: Dataset, root: Path) -> Dataset:
    def place(split: str, key: str) -> Path:
        source = dataset.splits[split]
        record = next(r for r in map(source.record, range(len(source))) if r.key == key)
        return labelme.picture(root, split, record)

    draw.write_pictures(dataset, place)
    labelme.write(root, dataset)
    return labelme.read(root)


@settings(max_examples=40, deadline=None)
@given(draw.data_sets(splits=("train", "val", "été 1")))
def test_there_and_back(dataset: Dataset) -> None:
    with TemporaryDirectory() as folder:
        made = there_and_back(dataset, Path(folder))
        draw.same(dataset, made, what=KEPT)
        assert not made.dropped


@settings(max_examples=15, deadline=None)
@given(draw.data_sets(splits=(WHOLE,), keys=("a", "sub/a", "a.b")))
def test_there_and_back_without_splits(dataset: Dataset) -> None:
    with TemporaryDirectory() as folder:
        draw.same(dataset, there_and_back(dataset, Path(folder)), what=KEPT)
        for found in Path(folder).rglob("*.json"):
            assert labelme.recognizes(found)


def test_two_pictures_of_one_stem(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.new("L", (6, 5)).save(tmp_path / name)
        write(tmp_path, [polygon("cat")], f"{name}.json", imagePath=name)
    made = labelme.read(tmp_path)
    labelme.write(tmp_path / "again", made)
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == ["a.json", "a.png.json", "labels.txt"]


def polygon(label: str, x: float = 1, **more: Any) -> dict[str, Any]:
    points = [[x, 1], [x + 2, 1], [x + 2, 3], [x, 3]]
    return {"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}, **more}


def write(root: Path, shapes: Any, name: str = "a.json", **more: Any) -> Path:
    whole = {"imagePath": "a.png", "imageData": None, "imageHeight": 5, "imageWidth": 6, "shapes": shapes, **more}
    (root / name).write_text(json.dumps(whole))
    if not (root / "a.png").exists():
        Image.new("L", (6, 5)).save(root / "a.png")
    return root / name


def one(dataset: Dataset) -> Record:
    (source,) = dataset.splits.values()
    return source.record(0)


def test_groups_are_objects(tmp_path: Path) -> None:
    mask = BytesIO()
    Image.fromarray(np.array([[0, 1, 1]], np.uint8)).save(mask, "PNG")
    shapes = [
        polygon("cat", group_id=3),
        polygon("dog", group_id=3),
        polygon("cat", 3, group_id=3),
        {**polygon("owl"), "shape_type": "rectangle", "points": [[4, 3], [1, 1]]},
        {**polygon("owl"), "shape_type": "circle", "points": [[3, 2], [3, 3]]},
        {
            **polygon("owl", group_id=9),
            "shape_type": "mask",
            "points": [[2, 4], [4, 4]],
            "mask": base64.b64encode(mask.getvalue()).decode(),
        },
        {**polygon("owl", group_id=9), "shape_type": "rectangle", "points": [[0, 0], [1, 1]]},
        {**polygon("cat"), "shape_type": "point", "points": [[1, 1]]},
        polygon("__ignore__"),
        {key: value for key, value in polygon("dog").items() if key in ("label", "points")},
    ]
    made = labelme.read(write(tmp_path, shapes))
    found = one(made)
    assert [made.taxonomy.names[i] for i in found.labels] == ["cat", "dog", "owl", "owl", "owl", "dog"]
    assert [len(s) if isinstance(s, tuple) else s and "runs" for s in found.shapes] == [2, 1, None, 1, "runs", 1]
    assert found.boxes[2].tolist() == [1, 1, 4, 3]
    whole = draw.dense(found.shapes[4], (5, 6))
    assert whole is not None
    assert np.argwhere(whole).tolist() == [[0, 0], [4, 3], [4, 4]]
    circle = found.shapes[3]
    assert isinstance(circle, tuple)
    assert np.allclose(np.hypot(*(circle[0] - (3, 2)).T), 1)
    assert sorted(made.dropped.values()) == [["a.json shape 7"], ["a.json shape 8"]]


def test_old_files_without_sizes_and_types(tmp_path: Path) -> None:
    shapes = [{"label": "a", "points": [[0, 0], [3, 0], [3, 3]], "line_color": None, "fill_color": None}]
    file = write(tmp_path, shapes, imageHeight=None, imageWidth=None)
    assert labelme.recognizes(file)
    assert labelme.recognizes(tmp_path)
    assert one(labelme.read(tmp_path)).size == (5, 6)


def test_pictures_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b", "c", "d", "e", "f"):
        write(tmp_path / "json", [], f"{name}.json", imagePath=f"..\\pictures\\{name}.png")
        (tmp_path / "json" / "a.png").unlink()
    with pytest.raises(InputError, match="must stay inside"):
        labelme.read(tmp_path / "json")
    with pytest.raises(InputError, match=r"6 of 6 images are not on disk: a\.png.*e\.png, \.\.\. .*--images"):
        labelme.read(tmp_path / "json", images=tmp_path / "pictures")
    for name in ("a", "b", "c", "d", "e", "f"):
        Image.new("L", (6, 5)).save(tmp_path / "pictures" / f"{name}.png")
    assert len(labelme.read(tmp_path / "json", images=tmp_path / "pictures")) == 6
    (tmp_path / "labels.txt").write_text("cat\n")
    assert len(labelme.read(tmp_path)) == 6


BROKEN = [
    ({"shape_type": "star"}, "unknown type"),
    ({"points": [[1, 1], [2, 2]]}, "fewer than three"),
    ({"points": [[1, 1, 1]] * 4}, "not two numbers"),
    ({"points": "abc"}, "not two numbers"),
    ({"points": [[1e308, 1], [-1e308, 1], [1e308, 1e308]]}, "too long|far outside|not finite"),
    ({"points": [[1, 1], [2, None], [3, 3]]}, "not finite|not two"),
    ({"points": [[10**9, 1], [2, 1], [3, 3]]}, "too long"),
    ({"points": [[6 * 10**4, 1], [2, 1], [3, 3]]}, "far outside"),
    ({"label": 7}, "no class name"),
    ({"label": "  "}, "no class name"),
    ({"shape_type": "mask", "mask": "!!"}, "another type"),
    ({"shape_type": "mask", "mask": "AAAA"}, "not a readable PNG"),
    ({"shape_type": "mask", "mask": None}, "another type"),
    ({"shape_type": "circle", "points": [[1, 1], [1, 1]]}, "radius"),
    ({"shape_type": "circle", "points": [[1, 1]]}, "another type"),
    ({"shape_type": "rectangle", "points": [[1, 1]] * 3}, "two or four"),
    ({"shape_type": "rectangle", "points": [[1, 1]] * 2}, "without area"),
    ({"shape_type": ["polygon"]}, "another type|unknown"),
    ({"flags": 3, "group_id": [1], "label": None}, "no class name"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN)
def test_broken_shapes_are_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    file = write(tmp_path, [polygon("cat"), {**polygon("cat"), **change}])
    with pytest.raises(InputError, match=rf"1 with .*({says}).*: a\.json shape 1"):
        labelme.read(file)
    made = labelme.read(file, strict=False)
    assert len(one(made)) == 1
    assert list(made.dropped.values()) == [["a.json shape 1"]]


@pytest.mark.parametrize("shape", [None, 3, "x", [], [[]]])
def test_shapes_that_are_none(tmp_path: Path, shape: Any) -> None:
    with pytest.raises(InputError, match="shape 0"):
        labelme.read(write(tmp_path, [shape]))


def test_hostile_files(tmp_path: Path) -> None:
    def no(text: str | bytes, says: str) -> None:
        (tmp_path / "h.json").write_bytes(text.encode() if isinstance(text, str) else text)
        refused(lambda: labelme.read(tmp_path / "h.json"), says)

    write(tmp_path, [], "x.json")
    no('{"imagePath": "a.png", "shapes": ' + "[" * 100_000, r"h\.json is not JSON")
    no(b'\xff\xfe{"shapes": 1}', r"h\.json is not JSON")
    no('{"imagePath": "a.png", "shapes": [', r"h\.json is not JSON")
    no("[1]", r"h\.json is not a LabelMe file")
    no('{"imagePath": 3, "shapes": []}', r"h\.json is not a LabelMe file")
    for name in ("../../a.png", "/etc/passwd", "C:\\b.png", ".."):
        text = json.dumps({"imagePath": name, "shapes": [], "imageHeight": 5, "imageWidth": 6})
        if name != "../../a.png":
            no(text, "inside|not on disk")
    for sides in ((10**9, 10**9), (0, 3), (-1, 3), ("x", 3), (2.5, 3), (float("inf"), 3), (True, 3)):
        text = json.dumps({"imagePath": "a.png", "shapes": [], "imageHeight": sides[0], "imageWidth": sides[1]})
        no(text, "JSON" if sides[0] == float("inf") else "height and width")


def test_a_mask_beyond_its_picture(tmp_path: Path) -> None:
    for data, points, says in (
        (png_header(30_000, 40_000), [[0, 0], [1, 1]], "larger than its picture|not a readable"),
        (one_pixel(), [[70, 0], [71, 1]], "without pixels"),
        (one_pixel(), [[1e300, 0], [1e300, 1]], "far outside"),
    ):
        shape = {**polygon("a"), "shape_type": "mask", "points": points, "mask": base64.b64encode(data).decode()}
        with pytest.raises(InputError, match=says):
            labelme.read(write(tmp_path, [shape]))


def one_pixel() -> bytes:
    file = BytesIO()
    Image.new("L", (1, 1), 1).save(file, "PNG")
    return file.getvalue()


def test_folders_are_splits_or_parts_of_names(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    for folder in ("train", "my_val"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, [polygon("cat")])
    made = labelme.read(tmp_path)
    assert set(made.splits) == {"train", "my_val"}
    assert made.taxonomy.names == ("dog", "cat")
    (tmp_path / "train").rename(tmp_path / "street")
    made = labelme.read(tmp_path)
    assert [made.splits[WHOLE].record(i).key for i in range(2)] == ["my_val/a.png", "street/a.png"]
    (tmp_path / "labels.txt").unlink()
    assert set(labelme.read(tmp_path).splits) == {"street", "my_val"}


def test_names_that_cannot_be_lines(tmp_path: Path) -> None:
    made = labelme.read(write(tmp_path, [polygon("a\nb")]))
    with pytest.raises(InputError, match="Rename it"):
        labelme.write(tmp_path / "out", made)


def test_others_are_not_recognized(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"images": []}')
    (tmp_path / "c.txt").write_text('{"imagePath": 1, "shapes": 1}')
    for path in (tmp_path, tmp_path / "b.json", tmp_path / "c.txt", tmp_path / "none"):
        assert not labelme.recognizes(path)
    with pytest.raises(InputError, match="no LabelMe files"):
        labelme.read(tmp_path)
