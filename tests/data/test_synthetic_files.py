"""Drawn sets on disk: every file says what was drawn, for any number of workers; failures leave no half files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.data.formats.coco import read_coco
from maskwright.data.synthetic import files
from maskwright.data.synthetic.drawn import Knobs
from maskwright.data.synthetic.files import UNKNOWN_FLOW, write_set
from maskwright.data.synthetic.scenes import Synthetic
from maskwright.errors import InputError
from maskwright.ops import rle

SIZE = (72, 96)


def source(kind: str = "street", **given: object) -> Synthetic:
    settings = {"count": 2, "size": SIZE, "seed": 4, "frames": 2, "instances": False, **given}
    return Synthetic(kind, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set") / "street"
    seen: list[int] = []
    assert write_set(source(), out, done=seen.append) > 0
    assert seen == [1, 2, 3, 4]
    return out


def test_instances(written: Path) -> None:
    drawn = source()
    read = read_coco(written / "instances.json")
    assert read.taxonomy.names == Synthetic("street", 0).taxonomy.names
    assert len(read) == 4
    raw = json.loads((written / "instances.json").read_text())
    assert len({a["id"] for a in raw["annotations"]}) == len(raw["annotations"])
    assert [(i["video_id"], i["frame_id"]) for i in raw["images"]] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [v["id"] for v in raw["videos"]] == [1, 2]
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in raw["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for index in range(4):
        record, image = read.load(index)
        one = drawn.drawn(index)
        assert (image.numpy() == one.image).all()
        chosen = np.flatnonzero(np.array(drawn.taxonomy.thing)[one.labels])
        masks = rle.decode(*rle.from_coco(list(record.shapes), SIZE), SIZE)  # type: ignore[arg-type]
        assert (masks == rle.decode(*rle.take(*one.visible, chosen), SIZE)).all()
        names = [read.taxonomy.names[k] for k in record.labels]
        assert names == [drawn.taxonomy.names[k] for k in one.labels[chosen]]
        assert record.areas.tolist() == masks.sum((1, 2)).tolist()
        rows = by_image.get(index + 1, [])
        assert [r["track_id"] for r in rows] == one.tracks[chosen].tolist()
        whole = rle.decode(*rle.from_coco([r["amodal_segmentation"] for r in rows], SIZE), SIZE)
        assert (whole == rle.decode(*rle.take(*one.amodal, chosen), SIZE)).all()
        assert np.allclose([r["occluded"] for r in rows], one.occluded[chosen], atol=1e-4)


def test_maps(written: Path) -> None:
    drawn = source()
    panoptic = json.loads((written / "panoptic.json").read_text())
    assert [c["name"] for c in panoptic["categories"]] == list(drawn.taxonomy.names)
    assert [bool(c["isthing"]) for c in panoptic["categories"]] == list(drawn.taxonomy.thing)
    steps = json.loads((written / "knobs.json").read_text())["depth_steps"]
    assert steps == 100
    for index in range(4):
        one, key = drawn.drawn(index), drawn.key(index)
        entry = panoptic["annotations"][index]
        assert entry["file_name"] == f"{key}.png"
        colors = np.asarray(Image.open(written / "panoptic" / f"{key}.png")).astype(np.int64)
        ids = colors @ np.array([1, 256, 65536])
        assert (ids == one.panoptic).all()
        segments = {s["id"]: s for s in entry["segments_info"]}
        assert set(segments) == set(np.unique(ids).tolist()) - {0}
        for number, segment in segments.items():
            assert segment["area"] == (ids == number).sum()
            assert segment["category_id"] == drawn.taxonomy.source_ids[one.semantic[ids == number][0]]
        semantic = np.asarray(Image.open(written / "semantic" / f"{key}.png"))
        assert (semantic == np.where(one.semantic < 0, 255, one.semantic)).all()
        depth = np.asarray(Image.open(written / "depth" / f"{key}.png")).astype(np.float64)
        assert depth.max() == 65535, "the sky"
        near = one.depth < 600
        assert np.abs(depth[near] / steps - one.depth[near]).max() < 0.006


def test_flow(written: Path) -> None:
    drawn = source()
    assert sorted(p.stem for p in (written / "flow").iterdir()) == [drawn.key(0), drawn.key(2)]
    data = (written / "flow" / f"{drawn.key(2)}.flo").read_bytes()
    assert np.frombuffer(data[:4], "<f4")[0] == np.float32(202021.25), "Middlebury's magic number"
    assert np.frombuffer(data[4:12], "<i4").tolist() == [SIZE[1], SIZE[0]]
    read = np.frombuffer(data[12:], "<f4").reshape(*SIZE, 2)
    flow = drawn.drawn(2).flow
    assert flow is not None
    assert (read.transpose(2, 0, 1) == np.nan_to_num(flow, nan=UNKNOWN_FLOW)).all()


def test_it_can_be_drawn_again(written: Path, tmp_path: Path) -> None:
    said = json.loads((written / "knobs.json").read_text())
    turned: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said["knobs"].items()}
    knobs = Knobs(**turned)
    again = Synthetic(
        said["kind"], said["n"], tuple(said["size"]), said["seed"], knobs, said["frames"], instances=False
    )
    write_set(again, tmp_path / "again", workers=2)
    first = {p.relative_to(written): p.read_bytes() for p in written.rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*") if p.is_file()}
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first), "two workers write what one does"


def test_single_pictures_as_jpeg(tmp_path: Path) -> None:
    some = source("shelf", frames=1, count=1)
    write_set(some, tmp_path / "out", form="jpg")
    raw = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert "videos" not in raw
    assert "video_id" not in raw["images"][0]
    assert not (tmp_path / "out" / "flow").exists()
    _, image = read_coco(tmp_path / "out" / "instances.json").load(0)
    assert np.abs(image.numpy().astype(int) - some.drawn(0).image).mean() < 6


def test_refusals(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="in use"):
        write_set(source(), used)
    with pytest.raises(InputError, match="in use"):
        write_set(source(), used / "precious.txt")
    with pytest.raises(ValueError, match="instances=False"):
        write_set(source(instances=True), tmp_path / "x")
    assert sorted(p.name for p in used.iterdir()) == ["precious.txt"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_put", full)
    with pytest.raises(InputError, match=r"No space left on device\. Make room"):
        write_set(source(frames=1), tmp_path / "full", workers=workers)
    left = [p for p in (tmp_path / "full").rglob("*") if p.is_file()]
    assert left == [], "no half document"
