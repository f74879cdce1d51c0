"""``maskwright score --kind``: every kind runs from files alone, without torch, and finds truth perfect."""

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

from maskwright.cli._measures import KINDS
from maskwright.ops import rle
from tests.cli.test_score import run

CLASSES = ("sky", "road", "car")


def labels(seed: int = 0) -> np.ndarray:
    out = np.zeros((40, 60), np.uint8)
    out[20:] = 1
    out[22:34, 5 + seed : 25 + seed] = 2
    return out


def string(mask: np.ndarray) -> dict[str, Any]:
    counts, offsets = rle.encode(mask[None])
    return {"size": list(mask.shape), "counts": rle.compress(counts[offsets[0] : offsets[1]]).decode()}


def masks() -> list[np.ndarray]:
    return [labels(2 * i) == 2 for i in range(3)]


def coco(folder: Path) -> tuple[Path, Path]:
    """Truth that is LVIS's as well, and results equal to it."""
    images = [{"id": i, "height": 40, "width": 60, "file_name": f"{i}.png"} for i in range(3)]
    images = [image | {"neg_category_ids": [], "not_exhaustive_category_ids": []} for image in images]
    shapes = [{"image_id": i, "category_id": 1, "segmentation": string(m)} for i, m in enumerate(masks())]
    box = {"bbox": [5, 22, 20, 12], "area": 240, "iscrowd": 0}
    truth = {
        "images": images,
        "annotations": [{**shape, **box, "id": i + 1} for i, shape in enumerate(shapes)],
        "categories": [{"id": 1, "name": "car", "frequency": "c"}],
    }
    found = [{**shape, "bbox": box["bbox"], "score": 0.9} for shape in shapes]
    return write(folder, truth, found)


def write(folder: Path, truth: Any, found: Any) -> tuple[Path, Path]:
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    return folder / "truth.json", folder / "found.json"


def folders(folder: Path) -> tuple[Path, Path]:
    for name in ("truth", "found"):
        (folder / name).mkdir()
        for i in range(3):
            Image.fromarray(labels(i)).save(folder / name / f"{i}.png")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return folder / "truth", folder / "found"


def panoptic(folder: Path) -> tuple[Path, Path]:
    infos = [{"id": k + 1, "category_id": k + 1, "iscrowd": 0} for k in range(3)]
    annotations: list[dict[str, Any]] = []
    for i in range(3):
        areas = np.bincount(labels(i).ravel(), minlength=3).tolist()
        segments = [info | {"area": area} for info, area in zip(infos, areas, strict=True)]
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
        for name in ("truth", "found"):
            (folder / name).mkdir(exist_ok=True)
            rgb = np.stack([labels(i) + 1, *[np.zeros((40, 60), np.uint8)] * 2], -1)
            Image.fromarray(rgb).save(folder / name / f"{i}.png")
    categories = [{"id": k + 1, "name": name, "isthing": int(name == "car")} for k, name in enumerate(CLASSES)]
    images = [{"id": i, "height": 40, "width": 60, "file_name": f"{i}.jpg"} for i in range(3)]
    return write(
        folder, {"images": images, "annotations": annotations, "categories": categories}, {"annotations": annotations}
    )


def video(folder: Path) -> tuple[Path, Path]:
    tube = [string(m) for m in masks()]
    entry = {"video_id": 7, "category_id": 1, "segmentations": tube}
    truth = {
        "videos": [{"id": 7, "height": 40, "width": 60, "length": 3, "file_names": ["a", "b", "c"]}],
        "annotations": [{**entry, "id": 1, "iscrowd": 0, "areas": [240] * 3, "bboxes": [[5, 22, 20, 12]] * 3}],
        "categories": [{"id": 1, "name": "car"}],
    }
    return write(folder, truth, [{**entry, "score": 0.8}])


def tracks(folder: Path) -> tuple[Path, Path]:
    lines = [f"{t} 1001 1 40 60 {string(m)['counts']}" for t, m in enumerate(masks())]
    for name in ("truth", "found"):
        (folder / name).mkdir()
        (folder / name / "0001.txt").write_text("\n".join(lines) + "\n")
    return folder / "truth", folder / "found"


def cityscapes(folder: Path) -> tuple[Path, Path]:
    for name in ("truth", "found"):
        (folder / name).mkdir()
    ids = np.where(masks()[0], 26000, 7).astype(np.int32)
    Image.fromarray(ids.astype(np.uint16)).save(folder / "truth" / "a_000000_000001_gtFine_instanceIds.png")
    Image.fromarray(masks()[0].astype(np.uint8) * 255).save(folder / "found" / "mask0.png")
    (folder / "found" / "a_000000_000001.txt").write_text("mask0.png 26 0.9\n")
    return folder / "truth", folder / "found"


def clips(folder: Path) -> tuple[Path, Path]:
    truth, found = panoptic(folder)
    data = json.loads(truth.read_text())
    for image in data["images"]:
        image["video_id"] = 1
    truth.write_text(json.dumps(data))
    return truth, found


def step(folder: Path) -> tuple[Path, Path]:
    for name in ("truth", "found"):
        (folder / name / "0001").mkdir(parents=True)
        for i in range(3):
            pixels = np.stack([labels(i), np.zeros((40, 60), np.uint8), labels(i) // 2], -1)
            Image.fromarray(pixels).save(folder / name / "0001" / f"{i}.png")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return folder / "truth", folder / "found"


MAKERS: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    "mask": coco, "box": coco, "boundary": coco, "lvis": coco, "cells": coco,
    "cityscapes": cityscapes, "panoptic": panoptic, "panoptic-boundary": panoptic,
    "semantic": folders, "contour": folders, "surface": folders, "video": video, "tracks": tracks,
    "video-panoptic": clips, "step": step,
}  # fmt: skip
PERFECT = {"surface": 0.0}


def words(kind: str, folder: Path) -> list[str]:
    truth, found = MAKERS[kind](folder)
    more = ["--classes", str(folder / "classes.json")] if "classes" in KINDS[kind].takes else []
    more += ["--things", "car"] if "things" in KINDS[kind].takes else []
    return ["--kind", kind, "--truth", str(truth), "--results", str(found), *more]


@pytest.mark.parametrize("kind", KINDS)
def test_truth_against_itself(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = words(kind, tmp_path)
    assert run(*own, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    group, _, name = KINDS[kind].main.partition("/")
    assert figures[group][name] == pytest.approx(PERFECT.get(kind, 1.0))
    assert run(*own, "--csv", str(tmp_path / "out.csv"), "--report", str(tmp_path / "out.html")) == 0
    assert name in capsys.readouterr().out
    assert f",{name}," in (tmp_path / "out.csv").read_text()
    page = (tmp_path / "out.html").read_text()
    assert f"<td>{name}</td>" in page
    assert ("Confusions" in page) == (kind in ("mask", "box", "semantic"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if MAKERS[kind] in (coco, folders, panoptic)])
def test_every_kind_has_intervals_and_a_test(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = words(kind, tmp_path)
    assert run(*own, "--intervals", "20", "--against", own[own.index("--results") + 1], "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    group, _, name = KINDS[kind].main.partition("/")
    best = PERFECT.get(kind, 1.0)
    assert [figures[group][name][end] for end in ("low", "value", "high")] == pytest.approx([best] * 3)
    assert figures["against"][group][name]["p"] == 1.0


def test_no_kind_needs_torch(tmp_path: Path) -> None:
    """Scoring files imports no torch: it would take longer than the scoring."""
    calls: list[list[str]] = []
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        calls.append(["score", *words(kind, tmp_path / kind), "--intervals", "3"])
        if MAKERS[kind] in (cityscapes, video, tracks, clips, step):
            del calls[-1][-2:]  # one image or clip cannot be resampled
    code = (
        "import json, sys\nfrom maskwright.cli.main import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    assert main(words) == 0, words\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(calls)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_files_are_named(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from maskwright.cli.main import main

    own = words(kind, tmp_path)
    own[own.index("--results") + 1] = str(tmp_path / "absent")
    assert main(["score", *own]) == 2
    assert "absent" in capsys.readouterr().err
    for option in ("--classes", "--things"):
        if option in own:
            at = own.index(option)
            assert main(["score", *own[:at], *own[at + 2 :]]) == 2
            assert option in capsys.readouterr().err
