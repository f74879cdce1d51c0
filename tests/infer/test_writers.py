"""Results on disk: readable by pycocotools, complete or absent, and equal to the scenes."""

from __future__ import annotations

import csv
from pathlib import Path

import orjson
import pytest
import torch
from pycocotools.coco import COCO

from maskwright.errors import InputError
from maskwright.infer.predictor import predict
from maskwright.infer.writers import COLUMNS, coco_document, object_table
from maskwright.structures import Masks, Scene, Segments, Taxonomy
from tests.infer.toy import Toy, spot


def _scenes() -> dict[str, Scene]:
    shapes = {"a.png": (40, 60), "folder/b.png": (50, 30), "empty.png": (20, 20)}
    pictures = {name: spot(size) for name, size in shapes.items()}
    pictures["empty.png"][:] = 0
    scenes = predict(Toy(), list(pictures.values()), score_threshold=0.0)
    assert isinstance(scenes, list)
    return dict(zip(pictures, scenes, strict=True))


def test_document_is_read_by_pycocotools(tmp_path: Path) -> None:
    taxonomy, scenes = Toy().taxonomy, _scenes()
    with coco_document(tmp_path / "results.json", taxonomy) as add:
        for name, scene in scenes.items():
            add(name, scene)
        assert not (tmp_path / "results.json").exists()
    coco = COCO(str(tmp_path / "results.json"))
    assert {im["file_name"]: (im["height"], im["width"]) for im in coco.imgs.values()} == {
        name: scene.size for name, scene in scenes.items()
    }
    assert {c["id"]: c["name"] for c in coco.cats.values()} == {3: "spot", 7: "ring"}
    assert sorted(coco.anns) == list(range(1, 7))
    for image in coco.imgs.values():
        objects = scenes[image["file_name"]].objects()
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(found) == len(objects)
        for i, annotation in enumerate(found):
            assert objects.masks is not None
            assert objects.scores is not None
            mask = objects.masks[i : i + 1].dense()[0].numpy()
            assert (coco.annToMask(annotation) == mask).all()
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
            assert annotation["category_id"] == taxonomy.source_ids[int(objects.labels[i])]
            assert annotation["score"] == pytest.approx(float(objects.scores[i]), abs=1e-6)
            assert annotation["bbox"] == [10, 20, 20, 15]


def test_table(tmp_path: Path) -> None:
    with object_table(tmp_path / "objects.csv", Toy().taxonomy) as add:
        for name, scene in _scenes().items():
            add(name, scene)
    with open(tmp_path / "objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == 6
    first = {"file": "a.png", "class": "spot", "score": "0.9", "x": "10.0", "y": "20.0", "width": "20.0"}
    assert rows[0] == {**first, "height": "15.0", "area": "300", "centroid_x": "20.0", "centroid_y": "27.5"}
    assert rows[3]["file"] == "folder/b.png"
    assert rows[1]["class"] == "ring"


def test_nothing_is_an_empty_document(tmp_path: Path) -> None:
    with coco_document(tmp_path / "r.json", Toy().taxonomy):
        pass
    data = orjson.loads((tmp_path / "r.json").read_bytes())
    assert (data["images"], data["annotations"]) == ([], [])


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")

    def fail() -> None:
        with coco_document(tmp_path / "r.json", Toy().taxonomy):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert (tmp_path / "r.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_scenes_without_masks_boxes_scores_or_objects(tmp_path: Path) -> None:
    taxonomy, size, labels = Toy().taxonomy, (10, 10), torch.zeros(1, dtype=torch.int64)
    dense = torch.zeros(1, *size, dtype=torch.bool)
    dense[:, 2:4, 3:8] = True
    scenes = [
        Scene(size=size, segments=Segments(size=size, labels=labels, boxes=torch.tensor([[1.0, 2.0, 3.0, 5.0]]))),
        Scene(size=size, segments=Segments(size=size, labels=labels, masks=Masks.from_dense(dense))),
    ]
    with coco_document(tmp_path / "r.json", taxonomy) as add, object_table(tmp_path / "o.csv", taxonomy) as row:
        for i, scene in enumerate(scenes):
            add(f"{i}.png", scene)
            row(f"{i}.png", scene)
        with pytest.raises(InputError, match="unknown"):
            add("x.png", Scene(size=size))
        with pytest.raises(InputError, match="masks or boxes"):
            add("x.png", Scene(size=size, segments=Segments(size=size, labels=labels)))
    first, second = orjson.loads((tmp_path / "r.json").read_bytes())["annotations"]
    assert (first["bbox"], first["area"], "segmentation" in first, "score" in first) == ([1, 2, 2, 3], 6, False, False)
    assert (second["bbox"], second["area"], "segmentation" in second) == ([3, 2, 5, 2], 10, True)
    assert (tmp_path / "o.csv").read_text().splitlines()[1:] == [
        "0.png,spot,,1.0,2.0,2.0,3.0,6.0,2.0,3.5",
        "1.png,spot,,3.0,2.0,5.0,2.0,10,5.5,3.0",
    ]


def test_unwritable_outputs(tmp_path: Path) -> None:
    for write in (coco_document, object_table):
        with pytest.raises(InputError, match="directory"), write(tmp_path, Taxonomy(names=("a",))):
            pass
