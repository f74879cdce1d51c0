"""Segment Anything: the samples, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import coco_dataset, segment_anything
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import Record, Taxonomy
from tests.data.formats import draw
from tests.shared import shared


def test_the_samples() -> None:
    root = shared("data/formats/segment_anything")
    assert segment_anything.recognizes(root)
    assert not coco_dataset.recognizes(root)
    # The tool that wrote b.json took its width for its height, and its mask is empty.
    with pytest.raises(InputError, match=r"size is not the picture's.*b\.json annotation 0"):
        segment_anything.read(root)
    made = segment_anything.read(root, strict=False)
    one, two = (made.splits[WHOLE].record(i) for i in range(2))
    assert (one.key, one.size, one.image_id, len(one), len(two)) == ("a.jpg", (5, 10), 1, 1, 0)
    assert one.areas.tolist() == [4]
    mask = draw.dense(one.shapes[0], one.size)
    assert mask is not None
    # "`04n0": runs of 16 off, 4 on, 30 off, down the columns.
    assert np.flatnonzero(mask.T.reshape(-1)).tolist() == [16, 17, 18, 19]
    assert segment_anything.read(root / "a.json").taxonomy.names == ("object",)


IMAGE = {"image_id": 3, "width": 4, "height": 2, "file_name": "x.png"}
MASK = {"size": [2, 4], "counts": [3, 2, 3]}


def folder(root: Path, *files: object) -> Path:
    Image.new("L", (4, 2)).save(root / "x.png")
    Image.new("L", (4, 2)).save(root / "y.png")
    for i, data in enumerate(files):
        (root / f"{i}.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return root


def test_ids_that_repeat_get_numbers_of_their_own(tmp_path: Path) -> None:
    entries = [{"id": 2, "segmentation": MASK}, {"id": 2, "segmentation": MASK}, {"segmentation": MASK}]
    root = folder(
        tmp_path,
        {"image": IMAGE, "annotations": entries},
        {"image": {**IMAGE, "file_name": "y.png", "image_id": 4}, "annotations": [{"id": 1, "segmentation": MASK}]},
    )
    source = segment_anything.read(root).splits[WHOLE]
    assert source.record(0).ids.tolist() == [2, 1, 3]
    assert source.record(1).ids.tolist() == [4]
    assert source.record(0).boxes.tolist() == [[1, 0, 3, 2]] * 3
    assert source.record(0).areas.tolist() == [2] * 3


BROKEN = [
    ("no run-lengths", 3),
    ("no run-lengths", {"segmentation": [[0, 0, 1, 1, 2, 2]]}),
    ("size is not", {"segmentation": {"size": [4, 2], "counts": [3, 2, 3]}}),
    ("size is not", {"segmentation": {"size": [2, 4], "counts": 3}}),
    ("do not fit", {"segmentation": {"size": [2, 4], "counts": [3, 2]}}),
    ("do not fit", {"segmentation": {"size": [2, 4], "counts": "\x7f\x00"}}),
    ("do not fit", {"segmentation": {"size": [2, 4], "counts": [3, "x", 3]}}),
    ("without pixels", {"segmentation": {"size": [2, 4], "counts": [8]}}),
    ("box without area", {"segmentation": MASK, "bbox": [0, 0, 0, 0]}),
]


@pytest.mark.parametrize(("what", "entry"), BROKEN, ids=range(len(BROKEN)))
def test_broken_masks(tmp_path: Path, what: str, entry: object) -> None:
    root = folder(tmp_path, {"image": IMAGE, "annotations": [{"segmentation": MASK}, entry]})
    with pytest.raises(InputError, match=rf"1 with .*{what}.*0\.json annotation 1"):
        segment_anything.read(root)
    assert len(segment_anything.read(root, strict=False).splits[WHOLE].record(0)) == 1


REFUSED = [
    ("not JSON", '{"image": {"annotations": ' + "[" * 100_000),
    ("must hold an image", {"image": {"annotations": []}}),
    ("integer image_id", {"image": {"file_name": "x.png"}, "annotations": []}),
    ("inside its folder", {"image": {**IMAGE, "file_name": "../x.png"}, "annotations": []}),
    ("not on disk: z.png", {"image": {**IMAGE, "file_name": "z.png"}, "annotations": []}),
    ("positive integer height", {"image": {**IMAGE, "height": 10**18}, "annotations": []}),
]


@pytest.mark.parametrize(("what", "data"), REFUSED, ids=range(len(REFUSED)))
def test_refused(tmp_path: Path, what: str, data: object) -> None:
    with pytest.raises(InputError, match=what):
        segment_anything.read(folder(tmp_path, data))


def test_nothing_of_the_kind(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert not segment_anything.recognizes(tmp_path)
    with pytest.raises(InputError, match="no JSON of Segment Anything"):
        segment_anything.read(tmp_path)


@settings(max_examples=25)
@given(draw.data_sets(kinds=("polygons", "runs"), names=("object",), splits=(WHOLE,), crowd=False))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, made: Dataset) -> None:
    solid = [made.splits[WHOLE].record(i) for i in range(len(made))]
    assume(solid and all((r.areas > 0).all() for r in solid))  # a sliver of a polygon is no mask
    root = tmp_path_factory.mktemp("set")
    draw.write_pictures(made, lambda _, key: segment_anything.picture(root, _, draw.data_record(key=key)))
    segment_anything.write(root, made)
    draw.same(made, segment_anything.read(root))


def test_what_cannot_be_written(tmp_path: Path) -> None:
    def of(*records: Record, names: tuple[str, ...] = ("object",)) -> Dataset:
        taxonomy = Taxonomy(names=names)
        return Dataset(format="x", taxonomy=taxonomy, splits={"a": FileSource.from_records(records, taxonomy)})

    square = (np.array([[1, 1], [4, 1], [4, 3], [1, 3]], float),)
    for made, what in (
        (of(names=("a", "b")), "neither splits nor classes"),
        (of(draw.data_record(boxes=[(0, 0, 1, 1)])), "a box without an outline"),
        (of(draw.data_record(shapes=(square,), crowd=[True])), "a region of many objects"),
        (of(draw.data_record(key="a.png"), draw.data_record(key="a.jpg")), r"share a\.json"),
    ):
        with pytest.raises(InputError, match=what):
            segment_anything.write(tmp_path, made)
