"""Label Studio: brush packing, there and back, both exports, hostile files."""

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
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import label_studio
from maskwright.data.formats.label_studio_rle import decode_brush, encode_brush
from maskwright.errors import InputError
from maskwright.structures import Record
from tests.data.formats import draw
from tests.data.formats.hostile import png_header, refused

KEPT = {*draw.WHAT, "polygons", "colors"}


def unpacked(data: np.ndarray) -> list[int]:
    """The packing read from a string of bits, as its description says."""
    bits = "".join(f"{byte:08b}" for byte in data.tolist())
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated = take(1)
        count = take(sizes[take(2)]) + 1
        out += [take(word)] * count if repeated else [take(word) for _ in range(count)]
    return out


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_brushes_are_packed_rgba(mask: np.ndarray) -> None:
    packed = encode_brush(mask)
    rgba = np.array(unpacked(packed)).reshape(*mask.shape, 4)
    assert (rgba == np.where(mask, 255, 0)[..., None]).all()
    assert (decode_brush(packed, (mask.shape[0], mask.shape[1])) == mask).all()


@pytest.mark.parametrize("size", [(700, 300), (1, 70_000), (70_000, 1)])
def test_long_runs(size: tuple[int, int]) -> None:
    mask = np.zeros(size, bool)
    assert not decode_brush(encode_brush(mask), size).any()
    mask.reshape(-1)[100:-3] = True
    assert (decode_brush(encode_brush(mask), size) == mask).all()
    assert (decode_brush(encode_brush(~mask), size) == ~mask).all()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_legal_packing_is_read(data: st.DataObject) -> None:
    size = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)))
    values = data.draw(st.lists(st.sampled_from([0, 1, 255]), min_size=4 * size[0] * size[1]))[: 4 * size[0] * size[1]]
    sizes = [data.draw(st.integers(1, 16)) for _ in range(4)]
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{s - 1:04b}" for s in sizes)
    i = 0
    while i < len(values):
        kind = data.draw(st.integers(0, 3))
        count = min(data.draw(st.integers(1, 9)), 1 << sizes[kind], len(values) - i)
        repeated = len(set(values[i : i + count])) == 1 and data.draw(st.booleans())
        bits += f"{int(repeated)}{kind:02b}" + f"{count - 1:0{sizes[kind]}b}"
        bits += "".join(f"{v:08b}" for v in (values[i : i + 1] if repeated else values[i : i + count]))
        i += count
    bits += "0" * (-len(bits) % 8)
    packed = np.array([int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)], np.uint8)
    assert decode_brush(packed, size).reshape(-1).tolist() == [v > 0 for v in values[3::4]]
    with pytest.raises(ValueError, match=r"ends before|another size"):
        decode_brush(packed[: max(0, len(packed) - data.draw(st.integers(1, 3)) - 1)], size)


@settings(max_examples=30, deadline=None)
@given(
    draw.data_sets(splits=("train", "val", "été 1", "a/b"), kinds=("runs", "box")) | draw.data_sets(splits=(WHOLE,)),
)
def test_there_and_back(dataset: Dataset) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        draw.write_pictures(
            dataset, lambda split, key: root / "images" / key if split == WHOLE else root / "images" / split / key
        )
        label_studio.write(root, dataset)
        assert label_studio.recognizes(root)
        made = label_studio.read(root)
        rough = {"splits"} | ({"boxes", "polygons"} if WHOLE in dataset.splits else set())
        for split, source in dataset.splits.items():
            assert len(source) == len(made.splits.get(split, ()))
        draw.same(dataset, made, what=KEPT - rough)
        assert not made.dropped


def test_polygons_keep_their_decimals(tmp_path: Path) -> None:
    points = [[0.1, 0.2], [6.123456789, 1 / 3], [2.5, 4.875]]
    first = label_studio.read(write(tmp_path, [polygon(points)]))
    label_studio.write(tmp_path / "again", first)
    Image.new("L", (7, 5)).save(tmp_path / "again" / "0a1b2c3d-a.png")
    second = label_studio.read(tmp_path / "again")
    a, b = one(first).shapes[0], one(second).shapes[0]
    assert isinstance(a, tuple)
    assert isinstance(b, tuple)
    assert np.array_equal(a[0], b[0])
    assert a[0].tolist() == np.round(points, 9).tolist()


def polygon(points: Any, **more: Any) -> dict[str, Any]:
    percent = (np.array(points) * 100 / (7, 5)).tolist()
    return region({"points": percent, "closed": True, "polygonlabels": ["cat"]}, "polygonlabels", **more)


def region(value: Any, kind: str = "", **more: Any) -> dict[str, Any]:
    whole = {"original_width": 7, "original_height": 5, "image_rotation": 0, "value": value, "type": kind}
    return {**whole, "from_name": "x", "to_name": "image", **more}


def write(root: Path, result: Any, image: str = "/data/upload/3/0a1b2c3d-a.png", **more: Any) -> Path:
    task = {"id": 4, "data": {"image": image, "text": "x"}, "annotations": [{"id": 1, "result": result}], **more}
    (root / "export.json").write_text(json.dumps([task]))
    Image.new("L", (7, 5)).save(root / "a.png")
    return root / "export.json"


def one(dataset: Dataset) -> Record:
    (source,) = dataset.splits.values()
    return source.record(0)


def values() -> list[dict[str, Any]]:
    mask = np.zeros((5, 7), bool)
    mask[1, 2:4] = True
    file = BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    square = [[0, 0], [100 * 2 / 7, 0], [0, 40]]
    place = {"x": 200 / 7, "y": 20, "width": 200 / 7, "height": 40}
    return [
        {"points": square, "polygonlabels": ["cat"]},
        {**place, "rotation": 0, "rectanglelabels": ["dog"]},
        {**place, "rotation": 90, "rectanglelabels": ["dog"]},
        {"x": 50, "y": 50, "radiusX": 200 / 7, "radiusY": 20, "rotation": 90, "ellipselabels": ["cat"]},
        {"format": "rle", "rle": encode_brush(mask).tolist(), "brushlabels": ["owl"]},
        {"imageDataURL": url, "bitmasklabels": ["owl"]},
        {"x": 3, "y": 4, "width": 1, "keypointlabels": ["cat"]},
    ]


BOXES = [[0, 0, 2, 2], [2, 1, 4, 3], [0, 1, 2, 3], [2.5, 0.5, 4.5, 4.5], [2, 1, 4, 2], [2, 1, 4, 2]]


def check(dataset: Dataset) -> None:
    found = one(dataset)
    assert [dataset.taxonomy.names[i] for i in found.labels] == ["cat", "dog", "dog", "cat", "owl", "owl"]
    assert [type(s).__name__ for s in found.shapes] == ["tuple", "NoneType", "tuple", "tuple", "dict", "dict"]
    assert np.allclose(found.boxes, BOXES, atol=0.06)
    assert [len(where) for where in dataset.dropped.values()] == [1]
    assert found.size == (5, 7)
    assert found.key == "0a1b2c3d-a.png"


def test_every_shape(tmp_path: Path) -> None:
    regions = [region(value, "keypointlabels" if "keypointlabels" in value else "") for value in values()]
    said = [region({"choices": ["blurred"]}, "choices"), {"type": "relation", "from_id": "a", "to_id": "b"}]
    file = write(tmp_path, regions + said)
    assert label_studio.recognizes(file)
    check(label_studio.read(file))


def test_the_small_export(tmp_path: Path) -> None:
    write(tmp_path, [])
    rows = [{"original_width": 7, "original_height": 5, **value} for value in values()]
    task = {"id": 4, "image": "/data/upload/3/0a1b2c3d-a.png", "label": rows, "annotator": 1, "lead_time": 2.5}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    assert label_studio.recognizes(tmp_path)
    check(label_studio.read(tmp_path))


def test_shapes_and_labels_apart(tmp_path: Path) -> None:
    points = {"points": [[0, 0], [50, 0], [0, 50]]}
    regions = [
        region(points, "polygon", id="r1"),
        region({**points, "labels": ["cat"]}, "labels", id="r1"),
        region({"points": [[0, 0], [50, 0], [0, 90]], "polygonlabels": ["dog"]}, id="77", meta={"text": ["crowd"]}),
    ]
    made = label_studio.read(write(tmp_path, regions))
    assert made.taxonomy.names == ("cat", "dog")
    assert one(made).ids.tolist() == [1, 77]
    assert one(made).crowd.tolist() == [False, True]
    assert one(made).image_id == 4


def test_which_annotation_counts(tmp_path: Path) -> None:
    def annotation(label: str, **more: Any) -> dict[str, Any]:
        return {"result": [region({"points": [[0, 0], [50, 0], [0, 50]], "polygonlabels": [label]})], **more}

    for given_, wanted in (
        ([annotation("a"), annotation("b")], "b"),
        ([annotation("a", ground_truth=True), annotation("b")], "a"),
        ([annotation("a"), annotation("b", was_cancelled=True)], "a"),
    ):
        made = label_studio.read(write(tmp_path, [], annotations=given_))
        assert made.taxonomy.names == (wanted,)
    old = write(tmp_path, [], completions=[annotation("a")])
    old.write_text(old.read_text().replace('"annotations"', '"unused"'))
    assert label_studio.read(old).taxonomy.names == ("a",)
    made = label_studio.read(write(tmp_path, [], annotations=[], predictions=[annotation("a")]))
    assert len(one(made)) == 0
    assert one(made).size == (5, 7)


@pytest.mark.parametrize(
    "image",
    [
        "/data/local-files/?d=in/a.png",
        "s3://bucket/in/a.png",
        "https://host/in/a.png?token=3",
        "in/a.png",
        "/data/in/a.png",
        "/data/local-files/?d=in%2Fa.png",
    ],
)
def test_where_pictures_are(tmp_path: Path, image: str) -> None:
    made = label_studio.read(write(tmp_path, [], image))
    assert one(made).key == ("data/in/a.png" if image.startswith("/data/in") else "in/a.png")
    assert one(made).path == tmp_path / "a.png"


BROKEN = [
    ({"points": [[1, 1], [2, 2]], "polygonlabels": ["cat"]}, "fewer than three"),
    ({"points": [[1, 1], [2, 2], [3, "x"]], "polygonlabels": ["cat"]}, "not two numbers"),
    ({"points": [[0, 0], [50, 0], [0, 50]]}, "no class name"),
    ({"points": [[0, 0], [50, 0], [0, 50]], "polygonlabels": ["cat", "dog"]}, "several classes"),
    ({"points": [[0, 0], [50, 0], [0, 50]], "polygonlabels": 7}, "missing or of another type"),
    ({"x": 1, "y": 1, "width": None, "height": 3, "rectanglelabels": ["a"]}, "not a number"),
    ({"x": 1, "y": 1, "radiusX": 0, "radiusY": 3, "ellipselabels": ["a"]}, "radius"),
    ({"rle": [0] * 20, "brushlabels": ["a"]}, "another size"),
    ({"rle": [0, 0, 0, 140], "brushlabels": ["a"]}, "ends before"),
    ({"rle": [0, 0, 0, 140, 56, 0, 0, 0], "brushlabels": ["a"]}, "ends before|not bytes"),
    ({"rle": [300], "brushlabels": ["a"]}, "not bytes"),
    ({"rle": "abc", "brushlabels": ["a"]}, "not bytes"),
    ({"rle": encode_brush(np.zeros((5, 7), bool)).tolist(), "brushlabels": ["a"]}, "without pixels"),
    ({"imageDataURL": "data:;base64,AAAA", "bitmasklabels": ["a"]}, "not a readable PNG"),
    (
        {"imageDataURL": "," + base64.b64encode(png_header(5999, 5999)).decode(), "bitmasklabels": ["a"]},
        "larger than its picture",
    ),
    (3, "without a value"),
    (None, "without a value"),
]


@pytest.mark.parametrize(("value", "says"), BROKEN)
def test_broken_regions_are_named(tmp_path: Path, value: Any, says: str) -> None:
    good = region({"points": [[0, 0], [50, 0], [0, 50]], "polygonlabels": ["cat"]})
    file = write(tmp_path, [good, region(value, id="bad")])
    with pytest.raises(InputError, match=rf"1 with .*({says}).*: export\.json task 4 region bad"):
        label_studio.read(file)
    assert len(one(label_studio.read(file, strict=False))) == 1


def test_hostile_files(tmp_path: Path) -> None:
    file = write(tmp_path, [])

    def no(text: str | bytes, says: str) -> None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        refused(lambda: label_studio.read(file), says)

    head = '[{"id": 4, "data": {"image": "a.png"}, "annotations": [{"result": '
    no(head + "[" * 100_000, r"export\.json is not JSON")
    no(head.encode() + b"\xff", r"export\.json is not JSON")
    no('[3, {"data": 1, "annotations": 2}]', "list of tasks")
    no('[{"id": 4, "data": {"n": 1}, "annotations": []}]', "task 4 has no picture")
    for name in ("../a.png", "s3://b/../../a.png", "/data/local-files/?d=../a.png", "a/../../b.png"):
        no(json.dumps([{"data": {"image": name}, "annotations": []}]), "inside its folder")
    no(json.dumps([{"data": {"image": "a.png"}, "annotations": [], "meta": {"split": "../x"}}]), "inside its folder")
    no(json.dumps([{"data": {"image": f"{i}.png"}, "annotations": []} for i in range(7)]), "7 of 7 images")
    big = region({"rle": [0] * 20, "brushlabels": ["a"]}, original_width=10**9, original_height=10**9)
    no(head + json.dumps([big]) + "}]}]", "height and width")
    big = region({"rle": [0] * 20, "brushlabels": ["a"]}, original_width=40_000, original_height=40_000)
    no(head + json.dumps([big]) + "}]}]", "too many pixels")
    no(head + "3}]}]", "result that is not a list")
    (tmp_path / "label_config.xml").write_text("<View><PolygonLabels><Label/></PolygonLabels></View>")
    no(head + "[]}]}]", r"label_config\.xml: a Label must have a value")


def test_splits_by_file(tmp_path: Path) -> None:
    file = write(tmp_path, [])
    file.rename(tmp_path / "train.json")
    write(tmp_path, []).rename(tmp_path / "val.json")
    assert list(label_studio.read(tmp_path).splits) == ["train", "val"]


def test_others_are_not_recognized(tmp_path: Path) -> None:
    for name, text in (("a.json", "[]"), ("b.json", '{"data": 1, "annotations": 2}'), ("c.json", '[{"image_id": 1}]')):
        (tmp_path / name).write_text(text)
        assert not label_studio.recognizes(tmp_path / name)
    assert not label_studio.recognizes(tmp_path)
    with pytest.raises(InputError, match="no export of Label Studio"):
        label_studio.read(tmp_path)
