"""COCO panoptic: samples, round trips, hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import coco_dataset, coco_panoptic, tables
from maskwright.data.label_maps import resolve
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.rle_maps import encode_map
from maskwright.structures import Record, Region, Taxonomy
from tests.data.formats import draw
from tests.shared import shared


def test_a_hundred_photographs() -> None:
    path = shared("data/coco128/panoptic.json")
    raw = json.loads(path.read_bytes())
    assert coco_panoptic.recognizes(path)
    assert not coco_dataset.recognizes(path)
    made = coco_panoptic.read(path)
    assert len(made) == 100
    assert len(made.taxonomy) == 133
    assert made.taxonomy.names == tables.coco_panoptic().names
    assert made.taxonomy.thing == tables.coco_panoptic().thing
    assert made.taxonomy.source_ids == tables.coco_panoptic().source_ids
    source = made.splits[WHOLE]
    records = [source.record(i) for i in range(100)]
    assert sum(map(len, records)) == sum(len(a["segments_info"]) for a in raw["annotations"])
    crowd = sum(info["iscrowd"] for a in raw["annotations"] for info in a["segments_info"])
    assert sum(int(r.crowd.sum()) for r in records) == crowd
    for record in records[::17]:
        png = np.asarray(Image.open(path.parent / "panoptic" / f"{record.path.stem}.png")).astype(np.int64)
        ids = png[..., 0] + 256 * png[..., 1] + 65536 * png[..., 2]
        done = resolve(record)
        assert np.array_equal(done.panoptic, ids)
        for i, shape in enumerate(done.shapes):
            mask = draw.dense(shape, record.size)
            assert mask is not None
            assert np.array_equal(mask, ids == record.ids[i])
            assert mask.sum() == record.areas[i]


def test_a_small_sample() -> None:
    folder = shared("data/formats/coco_panoptic/annotations").parent
    assert coco_panoptic.recognizes(folder)
    made = coco_panoptic.read(folder)
    train, val = (made.splits[name].record(0) for name in ("train", "val"))
    assert (train.key, train.ids.tolist(), train.image_id) == ("a.jpg", [460551], 5)
    assert (val.labels.tolist(), val.ids.tolist(), val.crowd.tolist()) == ([0, 1], [7, 20], [False, True])
    assert not any(made.taxonomy.thing)
    assert [draw.dense(s, val.size).sum() for s in resolve(val).shapes] == [20, 20]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="as large as its picture"):
        resolve(train)  # the sample's map is 5x5, its picture 5x10


@st.composite
def panoptic_sets(draw_: st.DrawFn) -> Dataset:
    count = draw_(st.integers(1, 3))
    taxonomy = Taxonomy(
        names=draw.ODD_NAMES[:count],
        thing=tuple(draw_(st.booleans()) for _ in range(count)),
        colors=tuple(draw_(st.tuples(*[st.integers(0, 255)] * 3)) for _ in range(count)),
        source_ids=tuple(draw_(st.permutations([3, 7, 200]))[:count]),
    )
    order = sorted(range(count), key=lambda i: taxonomy.source_ids[i])
    taxonomy = Taxonomy(
        names=tuple(taxonomy.names[i] for i in order),
        thing=tuple(taxonomy.thing[i] for i in order),
        colors=tuple(taxonomy.colors[i] for i in order),
        source_ids=tuple(sorted(taxonomy.source_ids)),
    )
    splits = {}
    for split in draw_(st.lists(st.sampled_from(("train", "val")), min_size=1, unique=True)):
        records = []
        for key in draw_(st.lists(st.sampled_from(draw.ODD_KEYS), max_size=3, unique=True)):
            size = (draw_(st.integers(1, 7)), draw_(st.integers(1, 7)))
            ids = draw_(st.lists(st.integers(1, (1 << 24) - 1), max_size=4, unique=True))
            cut = draw_(hnp.arrays(np.int64, size, elements=st.integers(0, len(ids))))
            panoptic = np.array([0, *ids])[cut]
            ids = [i for i in ids if (panoptic == i).any()]
            found = encode_map(panoptic, np.array(ids, np.int64))
            records.append(
                Record(
                    key=f"{key}.jpg", path=Path(f"{key}.jpg"), size=size, image_id=len(records) + 5,
                    labels=np.array([draw_(st.integers(0, count - 1)) for _ in ids], np.int64),
                    shapes=tuple({"size": size, "counts": r["counts"].encode()} for r in rle.to_coco(*found, size)),
                    boxes=rle.boxes(*found, size[0]).astype(np.float32).reshape(-1, 4),
                    crowd=np.array([draw_(st.booleans()) for _ in ids], bool),
                    ids=np.array(ids, np.int64), areas=rle.area(*found).astype(np.float64), panoptic=panoptic,
                )
            )  # fmt: skip
        splits[split] = FileSource.from_records(records, taxonomy)
    return Dataset(format="drawn", taxonomy=taxonomy, splits=splits)


@settings(max_examples=40)
@given(panoptic_sets())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, made: Dataset) -> None:
    root = tmp_path_factory.mktemp("set")
    draw.write_pictures(made, lambda split, key: root / "images" / split / key)
    coco_panoptic.write(root, made)
    assert coco_panoptic.recognizes(root) or len(made) == 0
    if len(made):
        again = coco_panoptic.read(root)
        kept = {split: source for split, source in made.splits.items() if len(source)}
        draw.same(made, again, what={*draw.WHAT, "panoptic", "things", "colors"} - {"splits"})
        assert set(kept) <= set(again.splits)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    taxonomy = Taxonomy(names=("cat",))
    two = {split: FileSource.from_records([], taxonomy) for split in ("a", "b")}
    with pytest.raises(InputError, match="one split"):
        coco_panoptic.write(tmp_path / "a.json", Dataset(format="x", taxonomy=taxonomy, splits=two))


GOOD = {
    "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
    "annotations": [
        {"image_id": 1, "file_name": "a.png", "segments_info": [
            {"id": 1, "category_id": 9, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}]}],
    "categories": [{"id": 9, "name": "cat", "isthing": 1}],
}  # fmt: skip


def folder(root: Path, data: object) -> Path:
    (root / "panoptic_val").mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(root / "panoptic_val" / "a.png")
    Image.new("RGB", (4, 4)).save(root / "a.png")
    (root / "panoptic_val.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return root / "panoptic_val.json"


def changed(**segment: object) -> dict:
    data = json.loads(json.dumps(GOOD))
    info = data["annotations"][0]["segments_info"][0]
    info.update(segment)
    for name in [name for name, value in info.items() if value == "absent"]:
        del info[name]
    return data


BROKEN = [
    ("outside 1..", changed(id=0)),
    ("outside 1..", changed(id=1 << 24)),
    ("integer id", changed(id="x")),
    ("category_id", changed(category_id=3)),
    ("four numbers", changed(bbox=[1, 2])),
    ("four numbers", changed(bbox="abcd")),
    ("without area", changed(bbox=[0, 0, 0, 1])),
    ("not in its PNG", changed(bbox="absent")),
    ("without an integer id", {**GOOD, "annotations": [{**GOOD["annotations"][0], "segments_info": [3]}]}),
    ("image_id", {**GOOD, "annotations": [{**GOOD["annotations"][0], "image_id": 2}]}),
    ("annotated before", {**GOOD, "annotations": GOOD["annotations"] * 2}),
    ("no file_name", {**GOOD, "annotations": [{"image_id": 1, "segments_info": {}}]}),
]


@pytest.mark.parametrize(("what", "data"), BROKEN, ids=range(len(BROKEN)))
def test_broken_segments(tmp_path: Path, what: str, data: dict) -> None:
    path = folder(tmp_path, data)
    with pytest.raises(InputError, match=what):
        coco_panoptic.read(path)
    left = coco_panoptic.read(path, strict=False)
    assert sum(map(len, left.dropped.values())) == 1
    assert len(left.splits[WHOLE].record(0)) == (1 if "before" in what else 0)


REFUSED = [
    ("not JSON", '{"images": [], "segments_info": '),
    ("not JSON", '{"segments_info": ' + "[" * 100_000),
    ("lacks the lists", {"segments_info": 3}),
    ("must be an object", {**GOOD, "images": [3]}),
    ("file_name", {**GOOD, "images": [{"id": 1}]}),
    ("repeat", {**GOOD, "images": GOOD["images"] * 2}),
    ("not on disk: b.png", {**GOOD, "images": [{**GOOD["images"][0], "file_name": "b.png"}]}),
    ("inside its folder", {**GOOD, "images": [{**GOOD["images"][0], "file_name": "../a.png"}]}),
    ("inside its folder", {**GOOD, "annotations": [{**GOOD["annotations"][0], "file_name": "/etc/passwd"}]}),
    ("panoptic PNGs are not in", {**GOOD, "annotations": [{**GOOD["annotations"][0], "file_name": "c.png"}]}),
    ("positive integer height", {**GOOD, "images": [{**GOOD["images"][0], "height": 1 << 40}]}),
    ("positive integer height", {**GOOD, "images": [{**GOOD["images"][0], "height": "4"}]}),
    ("integer id and a name", {**GOOD, "categories": [{"id": 1 << 63, "name": "cat"}]}),
    ("category names", {**GOOD, "categories": [{"id": i, "name": "cat"} for i in (1, 2)]}),
]


@pytest.mark.parametrize(("what", "data"), REFUSED, ids=range(len(REFUSED)))
def test_refused(tmp_path: Path, what: str, data: object) -> None:
    with pytest.raises(InputError, match=what):
        coco_panoptic.read(folder(tmp_path, data))


def test_boxes_and_areas_come_from_the_map_where_they_are_not_said(tmp_path: Path) -> None:
    path = folder(tmp_path, changed(bbox="absent", area="absent"))
    ids = np.zeros((4, 4, 3), np.uint8)
    ids[1:3, 2] = (1, 0, 0)
    Image.fromarray(ids).save(tmp_path / "panoptic_val" / "a.png")
    found = coco_panoptic.read(path).splits[WHOLE].record(0)
    assert (found.boxes.tolist(), found.areas.tolist()) == ([[2, 1, 3, 3]], [2])
    assert isinstance(found.shapes[0], Region)


def test_instances_beside_come_first(tmp_path: Path) -> None:
    path = folder(tmp_path, GOOD)
    assert coco_panoptic.recognizes(tmp_path)
    (tmp_path / "instances_val.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert not coco_panoptic.recognizes(tmp_path)
    assert coco_panoptic.recognizes(path)
    assert len(coco_panoptic.read(tmp_path)) == 1


def test_a_map_that_declares_too_many_pixels(tmp_path: Path) -> None:
    path = folder(tmp_path, changed(bbox="absent"))
    png = tmp_path / "panoptic_val" / "a.png"
    data = png.read_bytes()
    at = data.index(b"IHDR") + 4
    png.write_bytes(data[:at] + (40_000).to_bytes(4, "big") * 2 + data[at + 8 :])
    with pytest.raises(InputError, match=r"a\.png"):
        coco_panoptic.read(path)
