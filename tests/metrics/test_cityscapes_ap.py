"""CityscapesAP: the official script's numbers from arrays, scenes and files; clear errors."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskwright.errors import InputError
from maskwright.metrics.average_precision import Objects
from maskwright.metrics.cityscapes_ap import IDS, VOID, CityscapesAP
from maskwright.metrics.cityscapes_files import read_cityscapes
from maskwright.structures import Masks, Scene, Segments, Taxonomy
from tests.golden import record_cityscapes as drawn
from tests.shared import shared

GOLDEN = json.loads(Path(drawn.__file__).with_name("cityscapes.json").read_text())
NUMBERS = list(IDS.values())
Drawn = tuple[np.ndarray, list[tuple[np.ndarray, int, float]]]


def objects(found: list[tuple[np.ndarray, int, float]], size: tuple[int, ...] = drawn.SIZE) -> Objects:
    found = [item for item in found if item[1] in NUMBERS]
    masks = np.array([mask for mask, _, _ in found], bool).reshape(-1, *size)
    labels = np.array([NUMBERS.index(label) for _, label, _ in found], np.int64)
    return Objects(labels, np.array([score for *_, score in found]), masks)


def scenes(image: Drawn) -> tuple[Scene, Scene]:
    """The same image as scenes, predicted and true."""
    ids, found = image
    its = objects(found)
    assert its.masks is not None
    assert its.scores is not None
    numbers = [i for i in np.unique(ids).tolist() if (i if i < 1000 else i // 1000) in NUMBERS]
    masks = torch.from_numpy(np.array([ids == i for i in numbers], bool).reshape(-1, *drawn.SIZE))
    there = Segments(
        size=drawn.SIZE,
        labels=torch.tensor([NUMBERS.index(i if i < 1000 else i // 1000) for i in numbers], dtype=torch.int64),
        masks=Masks.from_dense(masks),
        crowd=torch.tensor([i < 1000 for i in numbers], dtype=torch.bool),
    )
    predicted = Segments(
        size=drawn.SIZE,
        labels=torch.from_numpy(its.labels),
        masks=Masks.from_dense(torch.from_numpy(its.masks)),
        scores=torch.from_numpy(its.scores).float(),
    )
    void = np.isin(ids, VOID)
    left, right = void.copy(), np.zeros_like(void)
    left[:, 90:], right[:, 90:] = False, void[:, 90:]  # void is said in two ways
    truth = Scene(
        size=drawn.SIZE,
        segments=there,
        ignore=Masks.from_dense(torch.from_numpy(left[None])),
        semantic=torch.where(torch.from_numpy(right), -1, 0),
    )
    return Scene(size=drawn.SIZE, segments=predicted), truth


def oracle(images: list[Drawn], label: int) -> list[float]:
    """AP of one class at each threshold, by the words of the rule; nothing where there is no truth."""
    truths = 0
    seen: list[tuple[int, float, dict[int, float], float, set[int]]] = []
    for image, (ids, found) in enumerate(images):
        regions = {i: ids == i for i in np.unique(ids).tolist() if i == label or i // 1000 == label}
        counted = {i for i, region in regions.items() if i >= 1000 and region.sum() >= 100}
        truths += len(counted)
        void = np.isin(ids, VOID)
        for mask, its, score in found:
            if its != label or not mask.any():
                continue
            lost = (mask & void).sum()
            lost += sum((mask & region).sum() for i, region in regions.items() if i < 1000)
            lost += sum((mask & region).sum() for region in regions.values() if region.sum() < 100)
            ious = {i: (mask & region).sum() / (mask | region).sum() for i, region in regions.items()}
            seen.append((image, score, ious, lost / mask.sum(), counted))
    return [_oracle(seen, truths, threshold) for threshold in np.arange(0.5, 1.0, 0.05)] if truths else []


def _oracle(seen: list[tuple[int, float, dict[int, float], float, set[int]]], truths: int, threshold: float) -> float:
    examples: list[tuple[float, bool]] = []
    matched: dict[tuple[int, int], list[float]] = {}
    for image, score, ious, lost, counted in seen:
        over = [i for i, iou in ious.items() if iou > threshold]
        if not over and lost <= threshold:
            examples.append((score, False))
        elif over and over[0] in counted:
            matched.setdefault((image, over[0]), []).append(score)
    for scores in matched.values():
        *others, best = sorted(scores)
        examples += [(best, True)] + [(score, False) for score in others]
    points = [(0.0, 1.0)]
    for score in sorted({score for score, _ in examples}, reverse=True):
        taken = [true for other, true in examples if other >= score]
        points.append((sum(taken) / truths, sum(taken) / len(taken)))
    recall = [0.0, *(r for r, _ in points), points[-1][0]]
    return sum(p * (recall[k + 2] - recall[k]) / 2 for k, (_, p) in enumerate(points))


def fed(images: list[Drawn], keys: list[Any] | None = None, metric: CityscapesAP | None = None) -> CityscapesAP:
    metric = CityscapesAP() if metric is None else metric
    for key, (ids, found) in zip(range(len(images)) if keys is None else keys, images, strict=True):
        metric.update_arrays(objects(found), ids, key)
    return metric


# ---- the official numbers -------------------------------------------------------------------------------------------


def test_recorded_reference_of_the_official_script() -> None:
    folder = shared("parity")
    spec = importlib.util.spec_from_file_location("recipe", folder / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    want = np.load(folder / "metric_cityscapes_ap.npz")["ap_matrix"][0]
    result = json.loads((folder / "metric_cityscapes_ap.json").read_text())["result"]
    numbers, metric = [24, 26, 33, 25], CityscapesAP()
    for key, image in enumerate(recipe.metric_set("cityscapes", 10, 240, 320, 4, n_objects=8, overlap=False, scale=2)):
        ids = np.full((240, 320), 7)
        ids[:20] = 4
        for n, item in enumerate(image["gt"]):
            number = numbers[item["category"]]
            ids[item["mask"]] = number if item["crowd"] else number * 1000 + n
        found = [(item["mask"], numbers[item["category"]], item["score"]) for item in image["pred"]]
        metric.update_arrays(objects(found, (240, 320)), ids, key)
    got = metric.compute()["mask"]
    assert got["AP"] == pytest.approx(result["allAp"], abs=1e-12)
    assert got["AP50"] == pytest.approx(result["allAp50%"], abs=1e-12)
    for k, (name, figures) in enumerate(got["per_class"].items()):
        its = result["classes"][name]
        absent = bool(np.isnan(want[k]).all())
        assert figures["AP"] == pytest.approx(-1.0 if absent else its["ap"], abs=1e-12), name
        assert figures["AP50"] == pytest.approx(-1.0 if absent else its["ap50%"], abs=1e-12), name


@pytest.mark.parametrize("case", drawn.CASES)
def test_files_arrays_and_scenes_give_the_official_numbers(case: str, tmp_path: Path) -> None:
    seeds, most = drawn.CASES[case]
    drawn.write(tmp_path, seeds, most)
    images = [drawn.draw(seed, most) for seed in seeds]
    by_scene = CityscapesAP(Taxonomy(names=tuple(IDS)))
    for key, image in enumerate(images):
        by_scene.update(*scenes(image), key)
    want = GOLDEN[case]
    for metric in (read_cityscapes(tmp_path / "truth", tmp_path / "results"), fed(images), by_scene):
        got = metric.compute()
        assert got["images"] == len(images)
        assert {name for name, its in got["mask"]["per_class"].items() if its["AP"] >= 0} == want["per_class"].keys()
        for name in ("AP", "AP50"):
            assert got["mask"][name] == pytest.approx(want[name], abs=1e-12)
        for name, row in want["per_class"].items():
            its = got["mask"]["per_class"][name]
            assert its == pytest.approx({"AP": np.mean(row), "AP50": row[0]}, abs=1e-12)


@settings(max_examples=10)
@given(seed=st.integers(1000, 10**6), count=st.integers(1, 3))
def test_random_images_equal_the_rule_word_by_word(seed: int, count: int) -> None:
    images = [drawn.draw(seed + k, 12) for k in range(count)]
    got = fed(images).compute()["mask"]["per_class"]
    for name, number in IDS.items():
        each = oracle(images, number)
        want = [np.mean(each), each[0]] if each else [-1.0, -1.0]
        assert [got[name]["AP"], got[name]["AP50"]] == pytest.approx(want, abs=1e-12), name


# ---- laws -----------------------------------------------------------------------------------------------------------


def test_truth_against_itself_is_perfect() -> None:
    metric = CityscapesAP()
    for seed in range(6):
        ids, _ = drawn.draw(seed, 30)
        numbers = [i for i in np.unique(ids).tolist() if i >= 1000 and i // 1000 in NUMBERS]
        metric.update_arrays(objects([(ids == i, i // 1000, 0.5) for i in numbers]), ids, seed)
    got = metric.compute()["mask"]
    assert got["AP"] == got["AP50"] == 1.0
    assert {its["AP"] for its in got["per_class"].values()} == {1.0, -1.0}


@settings(max_examples=10)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_shards_and_weights(data: st.DataObject, seed: int) -> None:
    images = [drawn.draw(seed + k, 8) for k in range(4)]
    whole, shards = fed(images), [CityscapesAP() for _ in range(3)]
    for key, image in data.draw(st.permutations(list(enumerate(images)))):
        fed([image], [key], shards[data.draw(st.integers(0, 2))])
    first, *rest = data.draw(st.permutations(shards))
    for shard in rest:
        first.merge(shard)
    assert first.compute() == whole.compute()
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
    copies = CityscapesAP()
    for key, image in enumerate(images):
        fed([image] * int(weights[key]), [f"{key} {copy}" for copy in range(weights[key])], copies)
    got, want = whole.compute(weights), copies.compute()
    assert got["images"] == want["images"] == weights.sum()
    for name in IDS:
        assert got["mask"]["per_class"][name] == pytest.approx(want["mask"]["per_class"][name], abs=1e-12)


def test_stuff_is_passed_over_and_settings_must_agree() -> None:
    image = drawn.draw(3, 20)
    plain = CityscapesAP(Taxonomy(names=tuple(IDS)))
    names = ("road", *IDS)
    mixed = CityscapesAP(Taxonomy(names=names, thing=(False,) + (True,) * len(IDS), source_ids=(7, *NUMBERS)))
    predicted, truth = scenes(image)
    plain.update(predicted, truth)
    moved: list[Scene] = []
    for scene in (predicted, truth):
        segments = scene.objects()
        assert segments.masks is not None
        extra = Segments(
            size=drawn.SIZE,
            labels=torch.cat([segments.labels + 1, torch.tensor([0])]),
            masks=Masks.cat(
                [segments.objects() if False else segments.masks, Masks.from_dense(torch.ones(1, *drawn.SIZE))]
            ),
            scores=None if segments.scores is None else torch.cat([segments.scores, torch.ones(1)]),
            crowd=None if segments.crowd is None else torch.cat([segments.crowd, torch.tensor([False])]),
        )
        moved.append(Scene(size=drawn.SIZE, segments=extra, ignore=scene.ignore, semantic=scene.semantic))
    mixed.update(*moved)
    assert mixed.compute() == plain.compute()
    assert mixed.ids == tuple(NUMBERS)
    with pytest.raises(ValueError, match="must share min_region"):
        plain.merge(CityscapesAP(Taxonomy(names=tuple(IDS), source_ids=plain.ids), min_region=10))
    assert CityscapesAP().compute() == {
        "mask": {"AP": -1.0, "AP50": -1.0, "per_class": {name: {"AP": -1.0, "AP50": -1.0} for name in IDS}},
        "images": 0,
    }


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused() -> None:
    ids, found = drawn.draw(1, 8)
    fine = objects(found)
    assert fine.scores is not None
    metric = CityscapesAP()
    for change, says in (
        ({"scores": fine.scores * 9}, "scores in"),
        ({"scores": fine.scores[1:]}, "one each"),
        ({"scores": None}, "scores in"),
        ({"masks": None}, "masks must be"),
        ({"labels": fine.labels + 8}, "dense in 0 .. 7"),
    ):
        parts = {name: change.get(name, getattr(fine, name)) for name in ("labels", "scores", "masks")}
        with pytest.raises(ValueError, match=says):
            metric.update_arrays(Objects(**parts), ids, 1)
    for wrong in (ids.astype(float), ids[0], ids << 20):
        with pytest.raises(ValueError, match=r"id map|ids must"):
            metric.update_arrays(fine, wrong, 1)
    metric.update_arrays(fine, ids, 1)
    with pytest.raises(ValueError, match="image 1 was counted before"):
        metric.update_arrays(fine, ids, 1)
    with pytest.raises(ValueError, match="classes of things"):
        CityscapesAP({})


def replaced(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines))


def broken_mask(folder: Path, form: Callable[[np.ndarray], np.ndarray]) -> None:
    path = sorted((folder / "results" / "masks").glob("town_000030*.png"))[0]
    Image.fromarray(form(np.asarray(Image.open(path)))).save(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d, t: replaced(t, 0, "masks/x.png 24"), r"line 1: must be 'MASK.png LABEL_ID SCORE'"),
        (lambda d, t: replaced(t, 0, "masks/x.png 24 0.5"), r"line 1: cannot read x.png"),
        (lambda d, t: replaced(t, 0, "masks/x.png car 0.5"), r"line 1: label 'car' is not one"),
        (lambda d, t: replaced(t, 0, "masks/x.png 99 0.5"), r"line 1: label '99' is not one"),
        (lambda d, t: replaced(t, 0, "masks/x.png 24 nan"), r"line 1: score must lie in \[0, 1\], got 'nan'"),
        (lambda d, t: replaced(t, 0, "masks/x.png 24 7.5"), r"line 1: score must lie in \[0, 1\], got '7.5'"),
        (lambda d, t: replaced(t, 0, "../truth/x.png 24 0.5"), r"line 1: the mask must lie inside of"),
        (lambda d, t: replaced(t, 0, "/etc/passwd 24 0.5"), r"line 1: the mask must lie inside of"),
        (lambda d, t: replaced(t, 0, t.read_text().splitlines()[1]), r"line 1: the mask .* is named again in line 2"),
        (lambda d, t: broken_mask(d, lambda mask: mask[1:]), r"line 1: .*its size must be 120 x 200"),
        (lambda d, t: t.write_bytes(b"\xff\xfe\x00"), r"can't decode byte"),
        (lambda d, t: t.rename(t.with_name("village_000001_000019.txt")), r"village_.* has no truth"),
        (lambda d, t: t.unlink(), r"instanceIds.png has no results"),
        (lambda d, t: next((d / "truth" / "town").glob("*")).write_bytes(b"no PNG"), "it is not a PNG"),
    ],
)
def test_broken_files_are_named_or_dropped(spoil: Callable[[Path, Path], object], says: str, tmp_path: Path) -> None:
    truths, texts = drawn.write(tmp_path, *drawn.CASES["few"])
    labels = [24] * len(texts[0].read_text().splitlines())
    texts[0].write_text("".join(f"masks/{truths[0].name[:18]}_{n}.png {i} 0.{n + 1}\n" for n, i in enumerate(labels)))
    assert len(labels) > 1
    spoil(tmp_path, texts[0])
    with pytest.raises(InputError, match=says):
        read_cityscapes(tmp_path / "truth", tmp_path / "results")
    metric = read_cityscapes(tmp_path / "truth", tmp_path / "results", lenient=True)
    assert sum(metric.dropped.values()) in (1, 2)
    assert len(metric) == 2 - metric.dropped["truth"]


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    _, texts = drawn.write(tmp_path, *drawn.CASES["few"])
    for truth, results in (("nothing", "results"), ("truth", "nothing"), ("results", "results")):
        with pytest.raises(InputError, match=r"no such file or folder|holds no truth"):
            read_cityscapes(tmp_path / truth, tmp_path / results)
    texts[0].with_name("town_000030_000019_more.txt").write_text("")
    with pytest.raises(InputError, match="each image must have one text, but 1 have more"):
        read_cityscapes(tmp_path / "truth", tmp_path / "results", lenient=True)


def test_many_problems_name_the_first_five(tmp_path: Path) -> None:
    _, texts = drawn.write(tmp_path, *drawn.CASES["few"])
    texts[0].write_text("masks/none.png 24\n" * 9)
    with pytest.raises(InputError, match=r"9 entries cannot be used - .*; and 4 more\. .*--lenient"):
        read_cityscapes(tmp_path / "truth", tmp_path / "results")
    assert read_cityscapes(tmp_path / "truth", tmp_path / "results", lenient=True).dropped["results"] == 9


def test_one_file_each_and_no_torch(tmp_path: Path) -> None:
    truths, texts = drawn.write(tmp_path, *drawn.CASES["few"])
    code = (
        "import sys; from maskwright.metrics.cityscapes_files import read_cityscapes;"
        f"print(len(read_cityscapes({str(truths[0])!r}, {str(texts[0])!r})));"
        "print([m for m in ('torch', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["1", "[]"]


def test_real_truth_against_itself(tmp_path: Path) -> None:
    truth = shared("data/formats/cityscapes") / "train_dataset" / "gtFine"
    numbers: set[int] = set()
    for path in truth.rglob("*_instanceIds.png"):
        ids = np.array(Image.open(path))
        lines: list[str] = []
        for i in np.unique(ids[ids >= 1000]).tolist():
            Image.fromarray(ids == i).save(tmp_path / f"{path.stem}_{i}.png")
            lines.append(f"{path.stem}_{i}.png {i // 1000} 1.0\n")
            numbers |= {i // 1000} & set(NUMBERS)
        (tmp_path / f"{path.stem.removesuffix('_gtFine_instanceIds')}_results.txt").write_text("".join(lines))
    metric = read_cityscapes(truth, tmp_path, min_region=0)
    assert len(metric) == len(list(truth.rglob("*_instanceIds.png")))
    got = metric.compute()["mask"]
    assert got["AP"] == (1.0 if numbers else -1.0)
