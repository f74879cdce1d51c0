"""VideoAP: YouTube-VIS's numbers from files, scenes and arrays; clear errors."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskwright.errors import InputError
from maskwright.metrics import _tubes
from maskwright.metrics.average_precision import Objects
from maskwright.metrics.video_ap import AREAS, VideoAP
from maskwright.metrics.video_files import read_ytvis
from maskwright.ops import rle
from maskwright.ops.polygons import rasterize
from maskwright.structures import Masks, Scene, Segments
from tests.golden import record_ytvis as drawn
from tests.shared import shared

GOLDEN = json.loads(Path(drawn.__file__).with_name("ytvis.json").read_text())
STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
         "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")  # fmt: skip
Results = list[dict[str, Any]]


def write(folder: Path, truth: Any, results: Any) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "results.json"
    for path, data in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(data))
    return paths


def small(seed: int = 2) -> tuple[dict[str, Any], Results]:
    return drawn.draw(seed, 2, 2)


def tube_runs(entries: Results, video: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    size = video["height"], video["width"]
    shown = [(n, t, part) for n, e in enumerate(entries) for t, part in enumerate(e["segmentations"]) if part]
    runs = rle.from_coco([part for *_, part in shown], size)
    owner, frame = (np.array([item[k] for item in shown], np.int64) for k in (0, 1))
    return _tubes.tubes(*runs, owner, frame, len(entries), (video["length"], *size))


def of(entries: Results, video: dict[str, Any]) -> Results:
    return [entry for entry in entries if entry["video_id"] == video["id"]]


def scenes(video: dict[str, Any], truth: dict[str, Any], results: Results) -> tuple[Scene, Scene, np.ndarray]:
    """The video as scenes, predicted and true, and the areas that the file states."""
    size = video["length"], video["height"], video["width"]
    out: list[Scene] = []
    for entries in (of(results, video), of(truth["annotations"], video)):
        counts, offsets = tube_runs(entries, video)
        scores = torch.tensor([entry.get("score", 0) for entry in entries], dtype=torch.float32)
        segments = Segments(
            size=size,
            labels=torch.tensor([entry["category_id"] - 1 for entry in entries], dtype=torch.int64),
            masks=Masks.from_arrays(counts, offsets, size),
            scores=None if out else scores,
            crowd=torch.tensor([bool(entry["iscrowd"]) for entry in entries], dtype=torch.bool) if out else None,
        )
        out.append(Scene(size=size, segments=segments))
    stated = [[a for a in entry["areas"] if a] for entry in of(truth["annotations"], video)]
    return out[0], out[1], np.array([np.mean(areas) if areas else 0.0 for areas in stated])


def fed(truth: dict[str, Any], results: Results) -> VideoAP:
    metric = VideoAP([category["name"] for category in truth["categories"]])
    for video in truth["videos"]:
        predicted, there, areas = scenes(video, truth, results)
        metric.update(predicted, there, video["id"], areas)
    return metric


def stats(metric: VideoAP) -> list[float]:
    got = metric.compute()["mask"]
    assert set(got) == {*STATS, "per_class"}
    return [got[name] for name in STATS]


def official(truth: dict[str, Any], results: Results) -> list[float]:
    """COCOeval on pictures of all frames side by side: tubes are masks there, but for size classes and crowds."""
    images = [{"id": v["id"], "height": v["height"], "width": v["width"] * v["length"]} for v in truth["videos"]]
    sides: list[Results] = []
    for entries in (truth["annotations"], results):
        plain: Results = []
        for video, image in zip(truth["videos"], images, strict=True):
            counts, offsets = tube_runs(of(entries, video), video)
            for n, entry in enumerate(of(entries, video)):
                runs = counts[offsets[n] : offsets[n + 1]].tolist()
                shape = {"size": [image["height"], image["width"]], "counts": runs}
                areas = [drawn._area(part) for part in entry["segmentations"] if part]
                areas = [a for a in entry["areas"] if a] if "areas" in entry else areas
                kept = {name: entry[name] for name in ("category_id", "score") if name in entry}
                plain.append(kept | {"image_id": image["id"], "id": len(plain) + 1, "iscrowd": 0} | {
                    "segmentation": shape, "area": float(np.mean(areas)) if areas else 0.0
                })  # fmt: skip
        sides.append(plain)
    with contextlib.redirect_stdout(io.StringIO()):
        pair: list[COCO] = []
        for side in sides:
            coco = COCO()
            coco.dataset = {"images": images, "annotations": side, "categories": truth["categories"]}
            coco.createIndex()
            pair.append(coco)
        run = COCOeval(*pair, "segm")
        run.params.areaRng = [list(bounds) for bounds in AREAS]
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats.tolist()


# ---- the official numbers -------------------------------------------------------------------------------------------


def test_recorded_reference_of_the_official_script(tmp_path: Path) -> None:
    with gzip.open(shared("parity") / "metric_ytvis_ap.json.gz") as file:
        truth = json.load(file)["data"]
    results = truth.pop("detections")
    ids = sorted({annotation["category_id"] for annotation in truth["annotations"]})
    truth["categories"] = [{"id": i, "name": f"class {i}"} for i in ids]
    want = np.load(shared("parity") / "metric_ytvis_ap.npz")["stats"]
    assert stats(read_ytvis(*write(tmp_path, truth, results))) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("case", drawn.CASES)
def test_files_and_scenes_give_the_official_numbers(case: str, tmp_path: Path) -> None:
    truth, results = drawn.draw(*drawn.CASES[case])
    for metric in (read_ytvis(*write(tmp_path, truth, results)), fed(truth, results)):
        assert metric.compute()["images"] == len(truth["videos"])
        assert metric.keys == [video["id"] for video in truth["videos"]]
        assert stats(metric) == pytest.approx(GOLDEN[case], abs=1e-12)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_random_videos_equal_cocoeval_on_frames_side_by_side(seed: int) -> None:
    truth, results = drawn.draw(seed, 3, 2)
    for entry in truth["annotations"]:
        entry["iscrowd"] = 0  # COCO compares crowds otherwise
    if results:
        assert stats(fed(truth, results)) == pytest.approx(official(truth, results), abs=1e-12)


def test_crowds_neither_count_nor_punish_and_are_found_by_iou() -> None:
    size = (2, 40, 50)
    masks = np.zeros((4, *size), bool)
    masks[0, :, :10], masks[1, :, 20:], masks[2, :, 20:30] = True, True, True
    masks[3] = masks[1]
    truth = Objects(np.zeros(2, np.int64), masks=masks[:2], crowd=np.array([False, True]))
    found = Objects(np.zeros(4, np.int64), np.array([0.9, 0.8, 0.7, 0.6]), masks[[1, 3, 0, 2]])
    metric = VideoAP(["a"])
    metric.update_arrays(found, truth, size)
    got = metric.compute()["mask"]
    assert got["AP"] == pytest.approx(1.0)  # both on the crowd are left out; that on half of it comes too late to harm
    assert got["AR_1"] == 0.0
    found.scores = np.array([0.9, 0.8, 0.7, 0.95])
    metric = VideoAP(["a"])
    metric.update_arrays(found, truth, size)
    assert metric.compute()["mask"]["AP75"] == pytest.approx(0.5)  # half of a crowd is no match of it, as IoU says


# ---- tubes ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))
def test_tubes_are_taken_apart_and_put_together(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    number, size = int(rng.integers(0, 4)), tuple(int(v) for v in rng.integers(1, 6, 3))
    dense = rng.random((number, *size)) < share
    dense[rng.random((number, size[0])) < 0.3] = False
    counts, offsets = rle.encode(dense)
    apart = _tubes.frames(counts, offsets, (size[0], size[1], size[2]))
    assert len(apart) == size[0]
    for t, frame in enumerate(apart):
        assert frame.owners.tolist() == np.flatnonzero(dense[:, t].any((1, 2))).tolist()
        assert (rle.decode(frame.counts, frame.offsets, size[1:]) == dense[frame.owners, t]).all()
    areas = _tubes.areas(counts, offsets, (size[0], size[1], size[2]))
    assert (areas == dense.sum((2, 3))).all()
    owner = np.concatenate([np.zeros(0, np.int64), *(frame.owners for frame in apart)])
    times = np.repeat(np.arange(size[0]), [len(frame.owners) for frame in apart])
    parts = [frame.counts[a:b] for frame in apart for a, b in zip(frame.offsets, frame.offsets[1:], strict=False)]
    order = rng.permutation(len(parts))
    cuts = np.cumsum([0, *(len(parts[i]) for i in order)])
    flat = np.concatenate([np.zeros(0, np.int32), *(parts[i] for i in order)])
    whole = _tubes.tubes(flat, cuts, owner[order], times[order], number, size)
    assert (rle.decode(*whole, size) == dense).all()


def test_long_videos_are_compared_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = drawn.draw(5, 4, 2)
    want = read_ytvis(*write(tmp_path, truth, results)).compute()
    monkeypatch.setattr(rle, "MAX_PIXELS", 400 * 400 * 2)
    assert read_ytvis(*write(tmp_path, truth, results)).compute() == want


# ---- laws -----------------------------------------------------------------------------------------------------------


def test_truth_against_itself_is_perfect(tmp_path: Path) -> None:
    truth, _ = drawn.draw(*drawn.CASES["mixed"])
    # Tubes that are never visible match nothing, and crowds do not count.
    truth["annotations"] = [entry for entry in truth["annotations"] if any(entry["segmentations"])]
    names = ("video_id", "category_id", "segmentations")
    found = [{name: entry[name] for name in names} | {"score": 0.5} for entry in truth["annotations"]]
    got = read_ytvis(*write(tmp_path, truth, found)).compute()["mask"]
    assert [got["AP"], got["AP75"], got["AR_100"]] == pytest.approx([1.0, 1.0, 1.0])


@settings(max_examples=10)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_shards_and_weights(data: st.DataObject, seed: int) -> None:
    truth, results = drawn.draw(seed, 4, 2)
    scores = np.random.default_rng(seed).permutation(len(results))
    for entry, score in zip(results, scores, strict=True):
        entry["score"] = (int(score) + 1) / (len(results) + 1)
    names = [category["name"] for category in truth["categories"]]
    whole, copies, shards = VideoAP(names), VideoAP(names), [VideoAP(names) for _ in range(3)]
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
    for place, video in data.draw(st.permutations(list(enumerate(truth["videos"])))):
        predicted, there, areas = scenes(video, truth, results)
        whole.update(predicted, there, video["id"], areas)
        shards[data.draw(st.integers(0, 2))].update(predicted, there, video["id"], areas)
        for copy in range(weights[place]):
            copies.update(predicted, there, f"{place} {copy}", areas)
    first, *rest = data.draw(st.permutations(shards))
    for shard in rest:
        first.merge(shard)
    assert first.compute() == whole.compute()
    got, want = whole.compute(weights), copies.compute()
    assert got["images"] == want["images"] == weights.sum()
    assert [got["mask"][name] for name in STATS] == pytest.approx([want["mask"][name] for name in STATS], abs=1e-12)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_annotations_of_single_frames_are_tubes_too(tmp_path: Path) -> None:
    truth, results = drawn.draw(*drawn.CASES["mixed"])
    want = read_ytvis(*write(tmp_path, truth, results)).compute()
    images, masks = [], []
    for video in truth["videos"]:
        for t in range(video.pop("length")):
            images.append({"id": len(images) + 7, "video_id": video["id"], "frame_id": t})
    where = {(image["video_id"], image["frame_id"]): image["id"] for image in images}
    for entry in truth["annotations"]:
        for t, (part, area) in enumerate(zip(entry["segmentations"], entry["areas"], strict=True)):
            if part:
                single = {"image_id": where[entry["video_id"], t], "segmentation": part, "area": area}
                masks.append(single | {"instance_id": entry["id"], "id": len(masks) + 1} | {
                    name: entry[name] for name in ("category_id", "iscrowd", "video_id")
                })  # fmt: skip
    shown = [entry for entry in truth["annotations"] if any(entry["segmentations"])]
    whole = truth | {"images": images, "annotations": masks}
    got = read_ytvis(*write(tmp_path, whole, results)).compute()
    assert len(shown) == len(truth["annotations"]) or got["mask"]["AR_100"] > want["mask"]["AR_100"]
    if len(shown) == len(truth["annotations"]):
        assert got == want
    masks[1] |= {"image_id": masks[0]["image_id"], "instance_id": masks[0]["instance_id"]}
    masks[2]["image_id"] = -3
    with pytest.raises(InputError, match=r"2 of \d+ annotations .*\[1\]: instance \d+ has another mask in .*\[2\]: im"):
        read_ytvis(*write(tmp_path, whole, results))
    assert read_ytvis(tmp_path / "truth.json", tmp_path / "results.json", lenient=True).dropped["truth"] == 2


def test_real_annotations_with_results() -> None:
    folder = shared("data/video/youtube_vis")
    metric = read_ytvis(folder / "annotations.json", folder / "results.json")
    got = metric.compute()["mask"]
    assert metric.keys == [1]
    assert got["per_class"]["sedan"]["AP50"] == 1.0
    assert got["AP"] == got["per_class"]["sedan"]["AP"] == pytest.approx(0.6504950495)
    assert got["AR_1"] == pytest.approx(0.35)


def test_polygons_strings_and_lists(tmp_path: Path) -> None:
    size = [20, 30]
    square = [[2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]]
    runs = rasterize([np.array(square[0]).reshape(-1, 2)], size)
    forms = [square, {"size": size, "counts": runs.tolist()}, {"size": size, "counts": rle.compress(runs).decode()}]
    truth = {
        "videos": [{"id": "v", "height": 20, "width": 30}],
        "categories": [{"id": 4, "name": "a"}, {"id": 2, "name": "a"}],
        "annotations": [{"video_id": "v", "category_id": 4, "segmentations": [*forms, None]}],
    }
    results = [{"video_id": "v", "category_id": 4, "score": 1, "segmentations": [*forms[::-1], None]}]
    got = read_ytvis(*write(tmp_path, truth, results)).compute()["mask"]
    assert got["per_class"]["a (id 4)"]["AP"] == pytest.approx(1.0)
    assert got["per_class"]["a (id 2)"]["AP"] == -1.0


@pytest.mark.parametrize(
    ("side", "change", "says"),
    [
        ("results", {"video_id": 99}, r"video 99 is not in the videos"),
        ("results", {"video_id": [1]}, r"video \[1\] is not in the videos"),
        ("results", {"category_id": 99}, r"category 99 is not in the categories"),
        ("results", {"score": 1.5}, r"score must lie in \[0, 1\], got 1.5"),
        ("results", {"score": None}, r"score must lie in \[0, 1\], got None"),
        ("results", {"segmentations": None}, r"segmentations must be a list"),
        ("results", {"segmentations": [None] * 50}, r"one for each of \d+ frames of video 1, got 50"),
        ("results", {"segmentations": "first:9"}, r"counts must be a string or a list"),
        ("results", {"segmentations": "first:~"}, r"a character outside"),
        ("results", {"segmentations": "size"}, r"its size must be"),
        ("truth", {"segmentations": "first:~"}, r"a character outside"),
        ("truth", {"segmentations": "polygon"}, r"at least 3 points|polygon"),
        ("truth", {"id": 2}, r"id 2 occurs before|annotations\[1\]: id 2 occurs before"),
        ("truth", {"category_id": True}, r"category True is not in the categories"),
    ],
)
def test_broken_entries_are_named_or_dropped(side: str, change: dict[str, Any], says: str, tmp_path: Path) -> None:
    truth, results = small()
    entries = truth["annotations"] if side == "truth" else results
    entry = next(e for e in entries if e["video_id"] == 1 and e["segmentations"][0])
    form = change.get("segmentations")
    if isinstance(form, str):
        first = {"size": entry["segmentations"][0]["size"], "counts": form.partition(":")[2]}
        first = {"size": [9, 9], "counts": [81]} if form == "size" else first
        first = first | {"counts": 9} if form == "first:9" else first
        rest = entry["segmentations"][1:]
        change = {"segmentations": [[[1.0, 2.0]] if form == "polygon" else first, *rest]}
    entry |= change
    paths = write(tmp_path, truth, results)
    with pytest.raises(InputError, match=rf"{side}.json: 1 of \d+ \w+ cannot be used - .*{says}"):
        read_ytvis(*paths)
    metric = read_ytvis(*paths, lenient=True)
    assert metric.dropped == {"truth": int(side == "truth"), "results": int(side == "results")}
    assert len(metric) == 2


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    truth, results = small()
    video, *rest = truth["videos"]
    for pair, says in (
        ((results, truth), "truth.json is not YouTube-VIS: it must be an object. Did you swap"),
        ((truth, truth), "results.json must be a JSON list of results. Did you swap"),
        (({"images": []}, results), "'videos' must be a list; the file has 'images'"),
        ((truth | {"categories": [{"id": 1}, {"id": 1}]}, results), "distinct integer ids"),
        ((truth | {"videos": [video | {"width": 0}, *rest]}, results), r"videos\[0\] must have an id of its own"),
        ((truth | {"videos": [video, video]}, results), r"videos\[1\] must have an id of its own"),
    ):
        with pytest.raises(InputError, match=says):
            read_ytvis(*write(tmp_path, *pair))
    paths = write(tmp_path, truth, results)
    with pytest.raises(InputError, match="cannot read"):
        read_ytvis(tmp_path / "none.json", paths[1])
    paths[1].write_text("[{")
    with pytest.raises(InputError, match="is not JSON"):
        read_ytvis(*paths)


def test_scenes_and_arrays_that_do_not_fit_are_refused() -> None:
    truth, results = small()
    predicted, there, _ = scenes(truth["videos"][0], truth, results)
    metric = VideoAP(["a", "b"])
    flat = Scene(size=(4, 5), segments=Segments.empty((4, 5)))
    for pair, says in (((predicted, flat), "share one"), ((flat, flat), "share one"), ((there, there), "scores in")):
        with pytest.raises(ValueError, match=says):
            metric.update(*pair)
    with pytest.raises(ValueError, match="labels must be dense"):
        VideoAP([]).update(predicted, there)
    metric.update(predicted, there, 1)
    with pytest.raises(ValueError, match="image 1 was counted before"):
        metric.update(predicted, there, 1)
    objects = Objects(np.zeros(1, np.int64), np.ones(1), np.ones((1, 2, 3, 4), bool))
    with pytest.raises(ValueError, match="masks must be"):
        metric.update_arrays(objects, objects, (2, 3, 5))
    with pytest.raises(ValueError, match="must share rules"):
        metric.merge(VideoAP(["a", "b"], 10))
    with pytest.raises(ValueError, match="limits must rise"):
        VideoAP(["a"], (10, 1))
    assert VideoAP(["a"]).compute()["mask"]["AP"] == -1.0


def test_without_torch(tmp_path: Path) -> None:
    paths = write(tmp_path, *small())
    code = (
        "import sys; from maskwright.metrics.video_files import read_ytvis;"
        f"print(read_ytvis({str(paths[0])!r}, {str(paths[1])!r}).compute()['images']);"
        "print([m for m in ('torch', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["2", "[]"]
