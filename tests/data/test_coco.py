"""COCO files: read as their own tool reads them, written as they were read, refused where they are broken."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.data.formats.coco import read_coco, results, write_coco
from maskwright.data.source import FileSource
from maskwright.errors import InputError
from maskwright.structures import Masks, Record, Scene, Segments, Taxonomy
from tests.data.make import ANIMALS, assert_same, records, runs
from tests.shared import shared


def square(ident: int, **changes: Any) -> dict[str, Any]:
    entry = {
        "id": ident,
        "image_id": 5,
        "category_id": 7,
        "iscrowd": 0,
        "area": 16.0,
        "bbox": [1, 1, 4, 4],
        "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]],
    }
    return {key: value for key, value in (entry | changes).items() if value != "absent"}


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": 8, "width": 10}],
        "annotations": list(annotations),
        "categories": [{"id": 90, "name": "owl"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def write(folder: Path, data: Any, *, pictures: str | None = "") -> Path:
    (folder / "a.json").write_text(json.dumps(data))
    if pictures is not None:
        (folder / pictures).mkdir(exist_ok=True)
        Image.new("RGB", (10, 8)).save(folder / pictures / "a.png")
    return folder / "a.json"


def test_reads_all_kinds_of_outlines(tmp_path: Path) -> None:
    mask = np.zeros((8, 10), bool)
    mask[1:6, 2:7] = True
    mask[3, 4] = False  # a hole
    compressed = runs(mask)
    assert isinstance(compressed, dict)
    flat = mask.reshape(-1, order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    plain = np.diff(np.concatenate([[0], edges, [80]])).tolist()
    path = write(
        tmp_path,
        content(
            square(1),
            square(
                2, segmentation={"size": [8, 10], "counts": compressed["counts"].decode()}, iscrowd=1, bbox="absent"
            ),
            square(4, segmentation={"size": [8, 10], "counts": plain}, category_id=90, area="absent"),
            square(9, segmentation=[], category_id=3),
        ),
    )
    source = read_coco(path)
    assert source.taxonomy.names == ("cat", "dog", "owl")
    assert source.taxonomy.source_ids == (3, 7, 90)
    record = source.record(0)
    assert (record.key, record.size, record.image_id, record.path) == ("a.png", (8, 10), 5, tmp_path / "a.png")
    assert record.labels.tolist() == [1, 1, 2, 0]
    assert record.crowd.tolist() == [False, True, False, False]
    assert record.ids.tolist() == [1, 2, 4, 9]
    assert record.boxes.tolist() == [[1, 1, 5, 5], [2, 1, 7, 6], [1, 1, 5, 5], [1, 1, 5, 5]]
    assert record.areas.tolist() == [16, 16, 24, 16]
    assert record.shapes[1] == record.shapes[2] == {"size": (8, 10), "counts": compressed["counts"]}
    assert record.shapes[3] is None
    sample = source[0]
    assert sample.scene is not None
    masks = sample.scene.objects().masks
    assert masks is not None
    assert torch.equal(masks.dense()[1], torch.from_numpy(mask))
    assert masks.area()[0] == 16


def test_images_without_objects_and_beside_or_below(tmp_path: Path) -> None:
    path = write(tmp_path, content(), pictures="images")
    source = read_coco(path)
    assert source.record(0).path == tmp_path / "images" / "a.png"
    assert len(source.record(0)) == 0
    assert len(source[0].scene.objects()) == 0  # type: ignore[union-attr]
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(InputError, match=r"1 of 1 images are not on disk: a\.png"):
        read_coco(path, tmp_path / "elsewhere")
    assert read_coco(path, tmp_path / "elsewhere", check=False).record(0).path == tmp_path / "elsewhere" / "a.png"
    with pytest.raises(InputError, match="must be a directory"):
        read_coco(path, tmp_path / "absent")


def test_missing_images_are_named_all_at_once(tmp_path: Path) -> None:
    data = content()
    data["images"] = [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 10} for i in range(9)]
    with pytest.raises(InputError, match=r"9 of 9 .*: 0.png, 1.png, 2.png, 3.png, 4.png, \.\.\."):
        read_coco(write(tmp_path, data, pictures=None))


BROKEN = [
    ({"category_id": 5}, "a category_id that is not among the categories"),
    ({"image_id": 6}, "an image_id that is not among the images"),
    ({"id": 1}, "an id that was used before"),
    ({"id": "x"}, "no integer id"),
    ({"segmentation": [[1, 1, 5, 5]]}, "a polygon with fewer than three points"),
    ({"segmentation": [[1, 1, 5, 5, 1, 5, 2]]}, "a polygon with an odd number of coordinates"),
    ({"segmentation": [[1, 1, 5, float("nan"), 1, 5]]}, "numbers|not finite"),
    ({"segmentation": [[1, 1, 5, 1e9, 1, 5]]}, "a polygon far outside its image"),
    ({"segmentation": [["a", 1, 5, 1, 1, 5]]}, "something else than numbers"),
    ({"segmentation": [3, 1, 5, 1, 1, 5]}, "not a list of coordinates"),
    ({"segmentation": "x"}, "neither polygons nor run-lengths"),
    ({"segmentation": {"size": [10, 8], "counts": [80]}}, "size is not the image's"),
    ({"segmentation": {"size": [8, 10], "counts": [70, 9]}}, "do not add up"),
    ({"segmentation": {"size": [8, 10], "counts": [90, -10]}}, "do not add up"),
    ({"segmentation": {"size": [8, 10], "counts": "zz"}}, "cannot be decoded"),
    ({"segmentation": {"size": [8, 10], "counts": [80]}}, "a mask without pixels"),
    ({"segmentation": {"size": [8, 10]}}, "without counts"),
    ({"segmentation": [], "bbox": []}, "neither a box nor a segmentation"),
    ({"bbox": [1, 1, 0, 4]}, "a box without area"),
    ({"bbox": [1e6, 1, 1e-9, 4]}, "a box without area"),
    ({"bbox": [1, 1, 4]}, "not four numbers"),
    ({"bbox": [1, 1, 4, None]}, "not four numbers"),
]


@pytest.mark.parametrize(("changes", "words"), BROKEN)
def test_broken_objects_are_refused_or_dropped(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    data = content(square(1), square(2, **changes), square(3))
    path = write(tmp_path, data)
    if "NaN" in path.read_text():
        with pytest.raises(InputError, match="is not JSON"):
            read_coco(path)
        return
    with pytest.raises(InputError, match=words) as caught:
        read_coco(path)
    assert str(path) in str(caught.value)
    assert "  1 with" in str(caught.value)
    source = read_coco(path, strict=False)
    assert source.record(0).ids.tolist() == [1, 3]
    assert sum(map(len, source.dropped.values())) == 1


def test_broken_objects_are_counted(tmp_path: Path) -> None:
    data = content(*[square(i, bbox=[0, 0, 0, 1]) for i in range(8)], square(20, category_id=1))
    with pytest.raises(InputError, match=r"8 with a box without area: annotation 0, 1, 2, 3, 4, \.\.\.") as caught:
        read_coco(write(tmp_path, data))
    assert "1 with a category_id" in str(caught.value)


def test_not_a_number_in_a_polygon(tmp_path: Path) -> None:
    """JSON has no NaN, but null and 1e999 reach the reader."""
    for value, words in (("null", "numbers|not finite"), ("1e999", "JSON|not finite")):
        path = write(tmp_path, content(square(1)))
        path.write_text(path.read_text().replace("[1, 1, 5, 1, 5, 5, 1, 5]", f"[1, 1, 5, 1, {value}, 5, 1, 5]"))
        with pytest.raises(InputError, match=words):
            read_coco(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("categories"), "not a COCO annotation file: it lacks the lists categories"),
        (lambda d: d.update(images={}), "lacks the lists images"),
        (lambda d: d["images"].append(d["images"][0]), "image ids must be distinct, but 1 repeat: 5"),
        (lambda d: d["images"].append(d["images"][0] | {"id": 6}), "image file names must be distinct"),
        (lambda d: d["categories"].append({"id": 7, "name": "fox"}), "category ids must be distinct, but 1 repeat: 7"),
        (lambda d: d["categories"].append({"id": 8, "name": "dog"}), "category names must be distinct"),
        (lambda d: d["categories"].append({"id": 8}), "category 3 must have an integer id and a name"),
        (lambda d: d["images"].append({"id": 8}), "image 1 must have an integer id and a file_name"),
        (lambda d: d["images"].append(7), "entry 1 of images must be an object"),
        (lambda d: d["images"][0].update(height=0), "positive integer height and width"),
        (lambda d: d["images"][0].update(file_name="../../etc/passwd"), "must stay inside its folder"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    data = copy.deepcopy(content(square(1)))
    change(data)
    with pytest.raises(InputError, match=words):
        read_coco(write(tmp_path, data))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('[{"image_id": 1, "score": 0.5}]')
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "five.json").write_text("5")
    for name, words in (
        ("results.json", "A results file"),
        ("no.json", "not JSON"),
        ("five.json", "lacks"),
        (".", "directory"),
    ):
        with pytest.raises(InputError, match=words):
            read_coco(tmp_path / name)
    with pytest.raises(InputError, match="cannot read"):
        read_coco(tmp_path / "absent.json")


def test_size_of_the_picture_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    Image.new("RGB", (8, 10)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: the annotation is for 8x10 .* EXIF"):
        read_coco(path)[0]
    data = content()
    del data["images"][0]["height"], data["images"][0]["width"]
    assert read_coco(write(tmp_path, data)).record(0).size == (8, 10)


def test_classes_of_a_trained_model(tmp_path: Path) -> None:
    path = write(tmp_path, content(square(1)))
    wanted = Taxonomy(names=("dog", "cat"))
    source = read_coco(path, taxonomy=wanted)
    assert source.taxonomy is wanted
    assert source.record(0).labels.tolist() == [0]
    with pytest.raises(InputError, match="1 classes \\(dog\\)"):
        read_coco(path, taxonomy=Taxonomy(names=("cat",)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3).flatmap(records))
def test_written_and_read_is_the_same(made: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.json"
        write_coco(path, made, ANIMALS)
        source = read_coco(path, check=False)
        assert source.taxonomy == ANIMALS
        assert len(source) == len(made)
        for i, one in enumerate(made):
            assert_same(one, source.record(i))
        again = Path(folder) / "again.json"
        write_coco(again, source, source.taxonomy)
        assert again.read_bytes() == path.read_bytes()


def test_taxonomy_survives(tmp_path: Path) -> None:
    taxonomy = Taxonomy(names=("a", "b"), thing=(True, False), colors=((1, 2, 3), (4, 5, 6)), source_ids=(4, 2))
    write_coco(tmp_path / "a.json", [], taxonomy)
    got = read_coco(tmp_path / "a.json").taxonomy
    assert got == Taxonomy(names=("b", "a"), thing=(False, True), colors=((4, 5, 6), (1, 2, 3)), source_ids=(2, 4))


def test_results() -> None:
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[0, 2:5, 1:4] = True
    masks[1, :, 9] = True
    runs_ = Masks.from_dense(masks)
    segments = Segments(
        size=(8, 10), labels=torch.tensor([2, 0]), masks=runs_, boxes=runs_.boxes(), scores=torch.tensor([0.5, 0.25])
    )
    scene = Scene(size=(8, 10), segments=segments)
    got = results(scene, 12, ANIMALS)
    assert [(g["image_id"], g["category_id"], g["score"]) for g in got] == [(12, 90, 0.5), (12, 3, 0.25)]
    assert got[0]["bbox"] == [1, 2, 3, 3]
    assert torch.equal(Masks.from_coco([g["segmentation"] for g in got], (8, 10)).dense(), masks)
    json.dumps(got)
    with pytest.raises(ValueError, match="need scores"):
        results(Scene(size=(8, 10), segments=Segments(size=(8, 10), labels=torch.tensor([1]))), 1, ANIMALS)


def test_coco128_equals_pycocotools() -> None:
    path = shared("data/coco128/instances.json")
    from pycocotools.coco import COCO

    source, tool = read_coco(path), COCO(str(path))
    assert (len(source), source.table.objects, len(source.taxonomy)) == (128, 939, 80)
    assert sum(int(source.record(i).crowd.sum()) for i in range(128)) == 10
    for i in range(0, 128, 8):
        record = source.record(i)
        scene = source[i].scene
        assert scene is not None
        segments = scene.objects()
        assert segments.ids is not None
        assert segments.masks is not None
        want = [tool.annToMask(tool.anns[int(k)]).astype(bool) for k in record.ids]
        kept = [k for k, mask in enumerate(want) if mask.any()]
        assert segments.ids.tolist() == record.ids[kept].tolist()
        for k, mask in zip(kept, segments.masks.dense().numpy(), strict=True):
            assert np.array_equal(mask, want[k])
        names = [tool.cats[tool.anns[int(k)]["category_id"]]["name"] for k in segments.ids]
        assert [source.taxonomy.names[label] for label in segments.labels.tolist()] == names


def test_nuclei_counts() -> None:
    source = read_coco(shared("data/nuclei/val.json"))
    assert isinstance(source, FileSource)
    assert (len(source), source.table.objects) == (98, 3887)
    source.check_sizes()
    for i in range(0, 98, 10):
        record, scene = source.record(i), source[i].scene
        assert scene is not None
        masks = scene.objects().masks
        assert masks is not None
        assert masks.area().tolist() == record.areas.tolist()
        assert torch.equal(masks.boxes(), torch.from_numpy(record.boxes))
