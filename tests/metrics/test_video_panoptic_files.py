"""VPQ and STQ from files: the numbers of clips in memory, every fault named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright.errors import InputError
from maskwright.metrics.video_panoptic import STQ, VideoPanopticQuality
from maskwright.metrics.video_panoptic_files import read_step, read_vpq
from tests.metrics.test_video_panoptic import NAMES, THING, Maps, drawn

CLIPS = [drawn(np.random.default_rng(seed)) for seed in range(6)]
CATEGORIES = [{"id": 5 * k + 2, "name": n, "isthing": int(THING[k])} for k, n in enumerate(NAMES)]


def save(path: Path, red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8)).save(path)


def ids_of(maps: Maps) -> np.ndarray:
    labels, instances = maps
    counted = np.where(np.isin(labels, np.flatnonzero(THING)), instances, 0)
    return np.where(labels == 255, 0, 300 * (labels + 1) + counted)


def in_memory(make: Any) -> dict[str, Any]:
    metric = make(NAMES, thing=THING)
    for k, clip in enumerate(CLIPS):
        metric.update_maps(*clip, key=f"clip {k}")
    return metric.compute()


def vpq_files(root: Path, *, nested: bool = False) -> tuple[Path, Path]:
    """Truth and results; frames are listed backwards, and put in order by ``frame_id``."""
    images: list[dict[str, Any]] = []
    entries: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for c, clip in enumerate(CLIPS):
        for t in range(len(clip[0][0])):
            image, name = 100 * c + t, f"{c}_{t}.png"
            height, width = clip[0][0].shape[1:]
            images.append({"id": image, "height": height, "width": width, "video_id": f"clip {c}", "frame_id": t})
            for side, maps in enumerate((clip[1], clip[0])):
                ids = ids_of(maps)[t]
                save(root / ("truth", "found")[side] / name, ids & 255, ids >> 8, np.zeros_like(ids))
                infos = [
                    {
                        "id": i,
                        "category_id": 5 * (i // 300 - 1) + 2,
                        "iscrowd": int(THING[i // 300 - 1] and i % 300 == 0),
                    }
                    for i in np.unique(ids[ids > 0]).tolist()
                ]
                infos += [{"id": 299, "category_id": 2}] if side == 0 else []  # not in the map: no harm in a clip
                entries[side].append({"image_id": image, "file_name": name, "segments_info": infos})
    truth: dict[str, Any] = {"categories": CATEGORIES, "images": images[::-1], "annotations": entries[0]}
    found: dict[str, Any] = {"annotations": entries[1]}
    if nested:
        clips = dict.fromkeys(image["video_id"] for image in images)
        plain = [{k: v for k, v in image.items() if k not in ("video_id", "frame_id")} for image in images]
        truth["images"] = []
        truth["videos"] = [
            {"video_id": c, "images": [p for p, i in zip(plain, images, strict=True) if i["video_id"] == c]}
            for c in clips
        ]
        for data in (truth, found):
            data["annotations"] = [{"video_id": "clip 0", "annotations": data["annotations"]}]
    for name, data in (("truth", truth), ("found", found)):
        (root / f"{name}.json").write_text(json.dumps(data))
    return root / "truth.json", root / "found.json"


def step_files(root: Path) -> tuple[Path, Path]:
    for c, clip in enumerate(CLIPS):
        for name, (labels, instances) in zip(("found", "truth"), clip, strict=True):
            for t in range(len(labels)):
                save(root / name / f"clip {c}" / f"{t:06}.png", labels[t], instances[t] >> 8, instances[t] & 255)
    return root / "truth", root / "found"


@pytest.mark.parametrize("nested", [False, True])
def test_vpq_of_files_is_that_of_maps(tmp_path: Path, nested: bool) -> None:
    got, want = read_vpq(*vpq_files(tmp_path, nested=nested)).compute(), in_memory(VideoPanopticQuality)
    assert got == want
    assert 0.1 < got["video_panoptic"]["VPQ"] < 0.9


def test_stq_of_files_is_that_of_maps(tmp_path: Path) -> None:
    metric = read_step(*step_files(tmp_path), classes=NAMES, things=["cat", "dog"])
    assert metric.compute() == in_memory(STQ)
    values = {"dog": 1, "sky": 2, "cat": 0}
    assert read_step(tmp_path / "truth", tmp_path / "found", classes=values, things=["cat", "dog"]).compute()["stq"][
        "STQ"
    ] == (pytest.approx(metric.compute()["stq"]["STQ"]))


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


FAULTS: list[tuple[str, Callable[[Path, Path], Any], str]] = [
    ("no clip", lambda t, _: changed(t, lambda d: d["images"][0].pop("video_id")), "video_id, which clip"),
    ("no images", lambda t, _: changed(t, lambda d: d.pop("images")), "must list images"),
    ("no prediction", lambda _, f: changed(f, lambda d: d["annotations"].pop(0)), "image 0 has no prediction"),
    ("no annotation", lambda t, _: changed(t, lambda d: d["annotations"].pop(0)), "image 0 has no annotation"),
    ("no map", lambda t, _: (t.with_suffix("") / "1_1.png").unlink(), "1_1.png cannot be read"),
    ("not listed", lambda _, f: changed(f, lambda d: d["annotations"][0].update(segments_info=[])), "among the seg"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "damage", "said"), FAULTS, ids=[what for what, *_ in FAULTS])
def test_faults_are_named_and_cost_one_clip(what: str, damage: Any, said: str, tmp_path: Path) -> None:
    files = vpq_files(tmp_path)
    damage(*files)
    with pytest.raises(InputError, match=said):
        read_vpq(*files)
    if what in ("no clip", "no images"):
        return
    metric = read_vpq(*files, lenient=True)
    assert sum(metric.dropped.values()) >= 1
    assert len(metric) == (6 if what == "not listed" else 5)


def test_a_segment_keeps_its_class(tmp_path: Path) -> None:
    files = vpq_files(tmp_path)
    data = json.loads(files[1].read_text())
    seen: set[int] = set()
    for entry in data["annotations"]:
        for info in entry["segments_info"]:
            if entry["image_id"] < 100 and info["id"] in seen:
                info["category_id"] = 7 if info["category_id"] != 7 else 2
            seen.add(info["id"])
    files[1].write_text(json.dumps(data))
    with pytest.raises(InputError, match="of another class or crowd than in frames before"):
        read_vpq(*files)


def test_faults_of_step_folders(tmp_path: Path) -> None:
    truth, found = step_files(tmp_path)
    options: dict[str, Any] = {"classes": NAMES, "things": ["cat"]}
    for wrong in ([], ["fox"]):
        with pytest.raises(InputError, match="things must be some of"):
            read_step(truth, found, classes=NAMES, things=wrong)
    with pytest.raises(InputError, match="must be a folder"):
        read_step(truth, tmp_path / "none", **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no PNG maps"):
        read_step(truth, tmp_path / "empty", **options)
    with pytest.raises(InputError, match=r"value of a class or 255 \(void\), got \[2\]"):
        read_step(truth, found, classes=NAMES[:2], things=["cat"])
    (found / "clip 3" / "000002.png").unlink()
    with pytest.raises(InputError, match=r"clip 3.000002\.png is missing"):
        read_step(truth, found, **options)
    metric = read_step(truth, found, **options, lenient=True)
    assert len(metric) == 5
    assert metric.dropped == {"truth": 0, "results": 1}
