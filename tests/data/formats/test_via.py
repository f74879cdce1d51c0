"""VGG Image Annotator: there and back, the sample, all versions, hostile files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import via
from maskwright.errors import InputError
from maskwright.structures import Record
from tests.data.formats import draw
from tests.data.formats.hostile import png_header, refused
from tests.shared import shared

KEPT = {*draw.WHAT} - {"ids", "image_ids"}


def there_and_back(dataset: Dataset) -> Dataset:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        draw.write_pictures(dataset, lambda split, key: root / key if split == WHOLE else root / split / key)
        via.write(root, dataset)
        assert via.recognizes(root)
        made = via.read(root)
        assert not made.dropped
        return made


@settings(max_examples=30, deadline=None)
@given(draw.data_sets(splits=("train", "val", "été 1"), kinds=("runs", "box")) | draw.data_sets(splits=(WHOLE,)))
def test_there_and_back(dataset: Dataset) -> None:
    rough = {"boxes"} if WHOLE in dataset.splits else set()  # of polygons with parts, boxes become those of the pixels
    draw.same(dataset, there_and_back(dataset), what=KEPT - rough)


@settings(max_examples=10, deadline=None)
@given(draw.data_sets(splits=("train",), kinds=("runs",)))
def test_holes_and_parts_are_one_polygon(dataset: Dataset) -> None:
    made = there_and_back(dataset)
    for source in made.splits.values():
        for i in range(len(source)):
            assert all(isinstance(s, tuple) and len(s) == 1 for s in source.record(i).shapes)


def test_the_sample() -> None:
    root = shared("data/formats/via_balloon")
    raw = json.loads((root / "via_region_data.json").read_text())
    assert via.recognizes(root)
    made = via.read(root)
    assert made.taxonomy.names == ("object",)
    source = made.splits[WHOLE]
    assert len(source) == 13
    wanted = {entry["filename"]: list(entry["regions"].values()) for entry in raw.values()}
    for i in range(13):
        found = source.record(i)
        regions = wanted[found.key]
        assert len(found) == len(regions)
        with Image.open(root / found.key) as image:
            assert found.size == image.size[::-1]
        for shape, region in zip(found.shapes, regions, strict=True):
            assert isinstance(shape, tuple)
            assert shape[0][:, 0].tolist() == region["shape_attributes"]["all_points_x"]
            assert shape[0][:, 1].tolist() == region["shape_attributes"]["all_points_y"]
    assert sum(map(len, (source.record(i) for i in range(13)))) == sum(map(len, wanted.values()))


def region(shape: dict[str, Any] | None = None, **attributes: Any) -> dict[str, Any]:
    polygon = {"name": "polygon", "all_points_x": [1, 4, 4], "all_points_y": [1, 1, 3]}
    return {"shape_attributes": polygon if shape is None else shape, "region_attributes": attributes}


def write(root: Path, regions: Any, name: str = "a.json") -> Path:
    entry = {"filename": "a.png", "size": 9, "regions": regions, "file_attributes": {}}
    (root / name).write_text(json.dumps({"a.png9": entry}))
    Image.new("L", (9, 8)).save(root / "a.png")
    return root / name


def one(dataset: Dataset) -> Record:
    (source,) = dataset.splits.values()
    return source.record(0)


SHAPES = [
    {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
    {"name": "circle", "cx": 4, "cy": 4, "r": 2},
    {"name": "ellipse", "cx": 4, "cy": 4, "rx": 3, "ry": 1, "theta": np.pi / 2},
    {"name": "polyline", "all_points_x": [1, 4, 4], "all_points_y": [1, 1, 3]},
    {"name": "point", "cx": 1, "cy": 1},
]
BOXES = [[1, 2, 4, 6], [2, 2, 6, 6], [3, 1, 5, 7]]


def test_shapes_of_versions_1_and_2(tmp_path: Path) -> None:
    regions = [region(shape, kind="a") for shape in SHAPES]
    for form in (regions, {str(i): r for i, r in enumerate(regions)}):
        made = via.read(write(tmp_path, form))
        assert np.allclose(one(made).boxes, BOXES, atol=0.03)
        assert [type(s).__name__ for s in one(made).shapes] == ["NoneType", "tuple", "tuple"]
        assert sorted(made.dropped.values()) == [["a.png region 3"], ["a.png region 4"]]


def test_a_csv(tmp_path: Path) -> None:
    Image.new("L", (9, 8)).save(tmp_path / "a.png")
    Image.new("L", (9, 8)).save(tmp_path / "b.png")
    columns = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    for first in ("filename", "#filename"):
        with open(tmp_path / "a.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow([first, *columns[1:], "region_shape_attributes", "region_attributes"])
            for i, shape in enumerate(SHAPES):
                rows.writerow(["a.png", 9, "{}", 5, i, json.dumps(shape), '{"name": "Katze, \\"groß\\""}'])
            rows.writerow(["b.png", 9, "{}", 0, 0, "{}", "{}"])
        assert via.recognizes(tmp_path)
        made = via.read(tmp_path)
        assert made.taxonomy.names == ('Katze, "groß"',)
        assert np.allclose(one(made).boxes, BOXES, atol=0.03)
        assert len(made) == 2
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text.replace('""cx"": 4, ""cy"": 4, ""r"": 2', '""cx"": '))
    with pytest.raises(InputError, match=r"shape that cannot be read: a\.csv:3"):
        via.read(tmp_path)


def version_3() -> dict[str, Any]:
    def meta(vid: str, xy: list[float], av: dict[str, str], z: Any = ()) -> dict[str, Any]:
        return {"vid": vid, "flg": 0, "z": list(z), "xy": xy, "av": av}

    half = float(np.sqrt(2))
    return {
        "project": {"pid": "__VIA_PROJECT_ID__", "pname": "x", "vid_list": ["1", "2"]},
        "config": {},
        "attribute": {
            "1": {"aname": "species", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": {"0": "owl", "1": "cat"}},
            "2": {"aname": "day", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}},
        },
        "file": {
            "1": {"fid": "1", "fname": "a.png", "type": 2, "loc": 1, "src": ""},
            "2": {"fid": "2", "fname": "film.mp4", "type": 4, "loc": 1, "src": ""},
        },
        "metadata": {
            "1_a": meta("1", [2, 1, 2, 3, 4], {"1": "1"}),
            "1_b": meta("1", [3, 4, 4, 2], {"1": "0"}),
            "1_c": meta("1", [7, 1, 1, 4, 1, 4, 3], {"1": "0"}),
            "1_d": meta("1", [8, 1, 3, 4, 2, 2, 1, 2, 5], {"1": "0"}),
            "1_e": meta("1", [9, 2, 4, 4, 2, 4 + half, 4 + half], {"1": "0"}),
            "1_f": meta("1", [6, 1, 1, 4, 1, 4, 3], {"1": "0"}),
            "1_g": meta("1", [], {"2": "Monday"}),
            "2_a": meta("2", [], {"1": "0"}, (1.5, 2.5)),
        },
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
    }


def test_version_3(tmp_path: Path) -> None:
    Image.new("L", (9, 8)).save(tmp_path / "a.png")
    (tmp_path / "p.json").write_text(json.dumps(version_3()))
    assert via.recognizes(tmp_path)
    made = via.read(tmp_path)
    assert made.taxonomy.names == ("owl", "cat")
    found = one(made)
    assert found.labels.tolist() == [1, 0, 0, 0, 0]
    wanted = [[1, 2, 4, 6], [2, 2, 6, 6], [1, 1, 4, 3], [1, 1, 4, 5], [2, 2, 6, 6]]
    assert np.allclose(found.boxes, wanted, atol=0.03)
    assert sorted(made.dropped.values()) == [["a.png region 1_f"], ["film.mp4"]]


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ([{"balloon": "red"}, {"balloon": "blue"}], ["red", "blue"]),
        ([{"color": "red", "Class": "cat"}, {"Class": "dog", "name": "rex"}], ["cat", "dog"]),
        ([{"color": "red", "name": "rex"}, {"name": "bo", "type": ""}], ["rex", "bo"]),
        ([{"kind": {"cat": True, "dog": False}}, {"kind": 7}], ["cat", "7"]),
        ([{"name": "x", "iscrowd": "1"}, {"name": "y", "crowd": {"yes": True}}], ["x", "y"]),
        ([{}, {"label": ""}], ["object", "object"]),
    ],
)
def test_which_attribute_is_the_class(tmp_path: Path, attributes: list[dict[str, Any]], wanted: list[str]) -> None:
    made = via.read(write(tmp_path, [region(**a) for a in attributes]))
    found = one(made)
    assert [made.taxonomy.names[i] for i in found.labels] == wanted
    assert found.crowd.tolist() == [any("crowd" in key for key in a) for a in attributes]


@pytest.mark.parametrize("attributes", [{"size": "1", "color": "2"}, {"label": "1", "class": "2"}])
def test_an_unclear_class_is_asked_for(tmp_path: Path, attributes: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"which attribute is the class.*{', '.join(attributes)}"):
        via.read(write(tmp_path, [region(**attributes)]))


BROKEN = [
    (region({"name": "star"}, c="a"), "unknown type"),
    (region({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, c="a"), "not two numbers"),
    (region({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}, c="a"), "fewer than three"),
    (region({"name": "polygon", "all_points_x": 3}, c="a"), "missing or of another type"),
    (region({"name": "polygon", "all_points_x": "abc", "all_points_y": "abc"}, c="a"), "missing or of another type"),
    (region({"name": "rect", "x": 1, "y": None, "width": 3, "height": 4}, c="a"), "not a number"),
    (region({"name": "circle", "cx": 1, "cy": 1, "r": -1}, c="a"), "radius"),
    (region({"name": ["rect"]}, c="a"), "unknown type"),
    (region(c=""), "no class name"),
    (region(c={"a": True, "b": True}), "several classes"),
    (region({}, c="a"), "unknown type"),
    (None, "cannot be read"),
    ({"shape_attributes": [1], "region_attributes": 3}, "cannot be read"),
]


@pytest.mark.parametrize(("broken", "says"), BROKEN)
def test_broken_regions_are_named(tmp_path: Path, broken: Any, says: str) -> None:
    file = write(tmp_path, [region(c="a"), broken])
    with pytest.raises(InputError, match=rf"1 with .*{says}.*: a\.png region 1"):
        via.read(file)
    assert len(one(via.read(file, strict=False))) == 1


def test_hostile_files(tmp_path: Path) -> None:
    def no(text: str | bytes, says: str, name: str = "h.json") -> None:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        refused(lambda: via.read(tmp_path / name), says)

    head = '{"a": {"filename": "a.png", "file_attributes": {}, "regions": '
    no(head + "[" * 100_000, r"h\.json is not JSON")
    no(head.encode() + b"\xff", r"h\.json is not JSON")
    no(head, r"h\.json is not JSON")
    no('{"filename": "a", "file_attributes": 1}', "every entry must have a filename")
    for name in ("../a.png", "/a.png", "C:/a.png"):
        no(head.replace("a.png", name) + "[]}}", "inside its folder")
    no(head + "[]}, " + head[1:].replace('"a":', '"b":') + "[]}}", "is there twice")
    no("\n".join(["filename,region_shape_attributes", "a.png,{}", ",{}"]), r"h\.csv:3: .*filename", "h.csv")
    no(b"filename,region_shape_attributes\n\xff,{}", "UTF-8", "h.csv")
    many = {str(i): {"filename": f"{i}.png", "file_attributes": {}, "regions": []} for i in range(7)}
    no(json.dumps(many), r"7 of 7 images are not on disk: 0\.png.*4\.png, \.\.\.")
    (tmp_path / "a.png").write_bytes(png_header(40_000, 40_000))
    no(head + "[]}}", "too many pixels")
    broken = version_3()
    for part in ("file", "view", "attribute"):
        no(json.dumps({**broken, part: {"1": []}}), "h.json|not a picture|too many")
    broken["metadata"]["1_a"]["xy"] = "x"
    no(json.dumps(broken), "h.json|too many")


def test_a_polygon_of_a_million_points(tmp_path: Path) -> None:
    shape = {"name": "polygon", "all_points_x": [1, 7, 7, 1] * 250_000, "all_points_y": [1, 1, 5, 5] * 250_000}
    assert len(one(via.read(write(tmp_path, [region(shape)])))) == 1
    shape = {"name": "polygon", "all_points_x": [-3 * 10**7, 3 * 10**7] * 4, "all_points_y": [1, 1, 5, 5] * 2}
    refused(lambda: via.read(write(tmp_path, [region(shape)])), r"too long to be drawn: a\.png region 0")


def test_several_splits_need_a_folder(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        write(tmp_path / split, [region(c="a")])
    made = via.read(tmp_path)
    assert list(made.splits) == ["train", "val"]
    with pytest.raises(InputError, match="one split"):
        via.write(tmp_path / "x.json", made)


def test_others_are_not_recognized(tmp_path: Path) -> None:
    for name, text in (("a.json", "[]"), ("b.json", '{"images": []}'), ("c.csv", "a,b\n"), ("d.txt", "filename")):
        (tmp_path / name).write_text(text)
        assert not via.recognizes(tmp_path / name)
    assert not via.recognizes(tmp_path)
    with pytest.raises(InputError, match="no file of VIA"):
        via.read(tmp_path)
