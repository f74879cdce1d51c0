"""read_panoptic: the numbers of maps in memory, every fault named, no torch and no image library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.errors import InputError
from maskwright.metrics.panoptic_files import read_panoptic
from maskwright.metrics.panoptic_quality import PanopticQuality
from tests.metrics.panoptic_oracle import Segment, Tally, drawn, near
from tests.shared import shared

NAMES, THING = ["cat", "dog", "sky"], [True, True, False]


def write_map(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(path)


def info(segment: Segment, ids: np.ndarray | None) -> dict[str, Any]:
    out: dict[str, Any] = {"id": segment.id, "category_id": 10 * segment.label + 7}
    if ids is not None:
        out |= {"iscrowd": int(segment.crowd), "area": int((ids == segment.id).sum()), "bbox": [0, 0, 1, 1]}
    return out


class Files:
    """Truth and results of a few drawn images in a folder."""

    def __init__(self, folder: Path, images: int = 40) -> None:
        self.paths = folder / "truth.json", folder / "results.json"
        self.images: dict[Any, tuple[Any, ...]] = {}
        self.data: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        categories = [
            {"id": 10 * k + 7, "name": n, "isthing": int(t)} for k, (n, t) in enumerate(zip(NAMES, THING, strict=True))
        ]
        self.data[0].update(images=[], categories=categories[::-1], annotations=[])
        self.data[1].update(annotations=[])
        for i in range(images):
            shape, key = (20 + i, 31 + i % 7), i + 1 if i % 5 else f"image {i}"
            truth, found, there, its = self.images[key] = drawn(np.random.default_rng(i), shape, len(NAMES))
            self.data[0]["images"].append({"id": key, "height": shape[0], "width": shape[1]})
            lists = ([info(s, truth) for s in there], [info(s, None) for s in its])
            for path, entries, ids, segments in zip(self.paths, self.data, (truth, found), lists, strict=True):
                write_map(path.with_suffix("") / f"{i}.png", ids)
                entries["annotations"].append({"image_id": key, "file_name": f"{i}.png", "segments_info": segments})
        self.data[1]["annotations"].reverse()

    def write(self) -> tuple[Path, Path]:
        for path, data in zip(self.paths, self.data, strict=True):
            path.write_text(json.dumps(data))
        return self.paths

    def figures(self) -> dict[str, Any]:
        tally = Tally()
        for image in self.images.values():
            tally.match(*image)
        return tally.figures(NAMES, THING)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, 6)


def test_files_equal_the_oracle(tmp_path: Path) -> None:
    files = Files(tmp_path)
    metric = read_panoptic(*files.write(), boundary=True)
    got = metric.compute()
    near(got["panoptic"], files.figures())
    assert got["images"] == len(metric) == 40
    assert metric.keys[0] == 2
    assert metric.keys[-1] == "image 5"
    moved = tmp_path / "elsewhere"
    files.paths[1].with_suffix("").rename(moved)
    assert read_panoptic(*files.paths, results_folder=moved, boundary=True).compute() == got
    assert metric.dropped == {}


def test_truth_against_itself(files: Files) -> None:
    for annotation in files.data[0]["annotations"]:
        for entry in annotation["segments_info"]:
            entry["iscrowd"] = 0
    truth, _ = files.write()
    got = read_panoptic(truth, truth, boundary=True).compute()
    assert got["panoptic"]["PQ"] == got["boundary"]["PQ"] == 1.0


def test_stated_areas_count_as_in_panopticapi(files: Files) -> None:
    """A stated area above the pixels enlarges the union; without one the pixels count."""
    tally = Tally()
    for annotation in files.data[0]["annotations"]:
        truth, found, there, its = files.images[annotation["image_id"]]
        for k, (entry, segment) in enumerate(zip(annotation["segments_info"], there, strict=True)):
            if k % 2:
                del entry["area"]
            else:
                entry["area"] = segment.area = entry["area"] + 3
        tally.match(truth, found, there, its)
    near(read_panoptic(*files.write()).compute()["panoptic"], tally.figures(NAMES, THING))


def test_coco128() -> None:
    folder = shared("data/coco128")
    truth = json.loads((folder / "panoptic.json").read_text())
    metric = read_panoptic(folder / "panoptic.json", folder / "panoptic.json", boundary=True)
    got = metric.compute()
    assert got["images"] == len(truth["annotations"]) == 100
    assert got["panoptic"]["PQ"] == got["panoptic"]["SQ_stuff"] == got["boundary"]["RQ_things"] == 1.0
    known = {s["category_id"] for a in truth["annotations"] for s in a["segments_info"] if not s["iscrowd"]}
    assert sum(c["PQ"] == 1.0 for c in got["panoptic"]["per_class"].values()) == len(known)


def test_coco128_changed_equals_the_oracle(tmp_path: Path) -> None:
    """Photographs' maps, moved by a few pixels and partly void, with crowds and all 133 categories."""
    folder = shared("data/coco128")
    truth = json.loads((folder / "panoptic.json").read_text())
    truth["annotations"] = truth["annotations"][::20]
    label_of = {c["id"]: k for k, c in enumerate(sorted(truth["categories"], key=lambda c: c["id"]))}
    tally, results = Tally(), []
    for annotation in truth["annotations"]:
        colors = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"]), np.int64)
        ids = colors @ np.array([1, 256, 65536])
        found = np.roll(ids, (2, 5), (0, 1))
        found[:15] = 0
        segments = annotation["segments_info"]
        there = [Segment(s["id"], label_of[s["category_id"]], bool(s["iscrowd"]), s["area"]) for s in segments]
        its = [Segment(s.id, s.label) for s in there if (found == s.id).any()]
        tally.match(ids, found, there, its)
        write_map(tmp_path / "results" / annotation["file_name"], found)
        kept = {s.id for s in its}
        results.append({**annotation, "segments_info": [s for s in segments if s["id"] in kept]})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps({"annotations": results}))
    metric = read_panoptic(tmp_path / "truth.json", tmp_path / "results.json", folder / "panoptic")
    names = list(metric.classes.names)
    near(metric.compute()["panoptic"], tally.figures(names, list(metric.classes.thing)))
    assert 0.3 < metric.compute()["panoptic"]["PQ"] < 0.9


Change = Callable[[Files], None]


def segments_of(files: Files, side: int, at: int = 3) -> list[dict[str, Any]]:
    return files.data[side]["annotations"][at]["segments_info"]


def png(files: Files, side: int, at: int = 3) -> Path:
    return files.paths[side].with_suffix("") / files.data[side]["annotations"][at]["file_name"]


FAULTS: list[tuple[int, str, Change]] = [
    (0, r"annotations\[3\]: .*truth/3.png cannot be read \(No such file", lambda f: png(f, 0).unlink()),
    (1, r"annotations\[3\]: .*results/2.png cannot be read \(No such file", lambda f: png(f, 1).unlink()),
    (
        1,
        "its size must be 22 x 33 .height x width., but it is 4 x 5",
        lambda f: write_map(png(f, 1), np.zeros((4, 5), int)),
    ),
    (0, "its size must be 23 x 34", lambda f: write_map(png(f, 0), np.zeros((4, 5), int))),
    (1, "it is not a PNG", lambda f: png(f, 1).write_bytes(b"GIF89a") and None),
    (
        1,
        r"annotations\[3\]: segment 5 is not in the PNG",
        lambda f: segments_of(f, 1).append({"id": 5, "category_id": 7}),
    ),
    (
        0,
        r"annotations\[3\]: segment 5 is not in the PNG",
        lambda f: segments_of(f, 0).append({"id": 5, "category_id": 7}),
    ),
    (
        1,
        r"annotations\[3\]: id \d+ is in the PNG but not among the segments",
        lambda f: segments_of(f, 1).pop() and None,
    ),
    (1, r"segment \d+ has the unknown category 6", lambda f: segments_of(f, 1)[0].update(category_id=6)),
    (0, r"segment \d+ has the unknown category 'cat'", lambda f: segments_of(f, 0)[0].update(category_id="cat")),
    (1, r"segment \d+ occurs before", lambda f: segments_of(f, 1).append(segments_of(f, 1)[0])),
    (1, r"must be an integer in 1..16777215, got 0", lambda f: segments_of(f, 1).append({"id": 0, "category_id": 7})),
    (
        1,
        r"must be an integer in 1..16777215, got 1.5",
        lambda f: segments_of(f, 1).append({"id": 1.5, "category_id": 7}),
    ),
    (1, "must have an id and a category_id, got {}", lambda f: segments_of(f, 1).append({})),
    (0, "a whole area and an iscrowd of 0 or 1, got 'big'", lambda f: segments_of(f, 0)[0].update(area="big")),
    (0, "iscrowd of 0 or 1, got .*, 2", lambda f: segments_of(f, 0)[0].update(iscrowd=2)),
    (0, r"segment \d+ has \d+ pixels but states an area of 0", lambda f: segments_of(f, 0)[0].update(area=0)),
    (1, "must have an image_id, a file_name and a list", lambda f: f.data[1]["annotations"].append({"image_id": 77})),
    (1, "image 2 occurs before", lambda f: f.data[1]["annotations"].append(f.data[1]["annotations"][-2])),
    (
        1,
        "image 77 is not in truth.json",
        lambda f: f.data[1]["annotations"].append({**f.data[1]["annotations"][0], "image_id": 77}),
    ),
    (1, "image 4 has no prediction", lambda f: f.data[1]["annotations"].pop(2) and None),
]


@pytest.mark.parametrize(("side", "match", "change"), FAULTS, ids=[f"{s} {m[:30]}" for s, m, _ in FAULTS])
def test_faults_are_named_and_can_be_dropped(side: int, match: str, change: Change, files: Files) -> None:
    change(files)
    paths = files.write()
    with pytest.raises(InputError, match=match) as caught:
        read_panoptic(*paths)
    assert str(caught.value).startswith(f"{paths[side]}: 1 entry cannot be used - ")
    metric = read_panoptic(*paths, lenient=True)
    dropped = ("truth", "results")[side]
    assert metric.dropped == {"truth": 0, "results": 0, dropped: 1}
    assert len(metric) >= 5
    assert 0 <= metric.compute()["panoptic"]["PQ"] <= 1


def test_lenient_numbers(files: Files) -> None:
    """Truth that cannot be read is no image; a prediction that cannot finds nothing."""
    png(files, 0, 0).unlink()
    png(files, 1, 0).unlink()
    files.data[1]["annotations"].pop(1)
    del files.images["image 0"]
    for key in (6, 5):
        truth, _, there, _ = files.images["image 5" if key == 6 else key]
        files.images["image 5" if key == 6 else key] = (truth, truth * 0, there, [])
    metric = read_panoptic(*files.write(), lenient=True)
    near(metric.compute()["panoptic"], files.figures())
    assert metric.dropped == {"truth": 1, "results": 2}


def test_many_faults_are_counted(files: Files) -> None:
    for at in range(6):
        png(files, 1, at).unlink()
        png(files, 0, at).unlink()
    with pytest.raises(InputError, match=r"truth.json: 6 entries .*annotations\[4\]: [^;]*; and 1 more\. Correct"):
        read_panoptic(*files.write())
    empty = read_panoptic(*files.paths, lenient=True)
    assert empty.compute()["panoptic"]["PQ"] == -1.0
    assert empty.dropped == {"truth": 6, "results": 0}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "does not exist"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "an object with a list 'annotations'"),
        ('{"annotations": {}}', "an object with a list 'annotations'"),
        ('{"annotations": []}', "an object with a list 'categories'"),
        ('{"annotations": [], "categories": [3]}', r"categories\[0\] must have an integer id"),
        ('{"annotations": [], "categories": [{"id": 1}]}', r"categories\[0\] must say isthing"),
    ],
)
def test_files_of_another_kind(text: str | None, match: str, files: Files) -> None:
    truth, results = files.write()
    truth.unlink() if text is None else truth.write_text(text)
    with pytest.raises(InputError, match=match):
        read_panoptic(truth, results)


def test_neither_torch_nor_pillow_is_imported(files: Files) -> None:
    truth, results = files.write()
    code = (
        "import sys; from maskwright.metrics.panoptic_files import read_panoptic; "
        f"print(read_panoptic({str(truth)!r}, {str(results)!r}).compute()['panoptic']['PQ']); "
        "assert not {'torch', 'PIL', 'numba', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert abs(float(done.stdout) - files.figures()["PQ"]) < 1e-12


def test_shards_of_files_merge_with_scenes_by_name(files: Files) -> None:
    metric = read_panoptic(*files.write())
    assert len(PanopticQuality(NAMES, thing=THING).merge(metric)) == 6
