"""Result files are scored exactly as pycocotools scores them, and what is wrong with them is named."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from maskwright.errors import InputError
from maskwright.metrics import _coco_core as core
from maskwright.metrics.files import score
from tests.metrics import oracle
from tests.shared import shared

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["mask", "box"]), limit=st.sampled_from([1, 3, 100]))
def test_random_files_equal_pycocotools(tmp_path: Path, seed: int, kind: str, limit: int) -> None:
    truth, results = oracle.random_data(seed, kind, limit)
    if not results:
        return
    got = score(*oracle.write(tmp_path, truth, results), [kind], max_detections=limit)
    names = {c["id"]: c["name"] for c in truth["categories"]}
    oracle.check(got[kind], oracle.evaluated(truth, results, kind, limit), names)
    assert got["images"] == len(truth["images"])


@quick
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["mask", "box"]))
def test_results_that_have_boxes_and_masks_equal_pycocotools(tmp_path: Path, seed: int, kind: str) -> None:
    truth, results = oracle.random_data(seed, "mask", 100)
    rng = np.random.default_rng(seed)
    for result in results:
        result["bbox"] = [float(v) for v in rng.uniform(0, 60, 4).round(1)]
    if results:
        got = score(*oracle.write(tmp_path, truth, results), [kind])
        names = {c["id"]: c["name"] for c in truth["categories"]}
        oracle.check(got[kind], oracle.evaluated(truth, results, kind), names)


@quick
@given(seed=st.integers(0, 2**32))
def test_boxes_of_detections_without_box_are_those_of_their_masks(tmp_path: Path, seed: int) -> None:
    truth, results = oracle.random_data(seed, "mask", 100)
    if results:
        got = score(*oracle.write(tmp_path, truth, results), ["box"])
        names = {c["id"]: c["name"] for c in truth["categories"]}
        oracle.check(got["box"], oracle.evaluated(truth, results, "box"), names)


@quick
@given(seed=st.integers(0, 2**32))
def test_the_careful_reader_agrees_with_the_fast_one(tmp_path: Path, seed: int) -> None:
    truth, results = oracle.random_data(seed, "mask", 100)
    plain = score(*oracle.write(tmp_path, truth, results))
    for entry in (*truth["annotations"], *results, *truth["images"]):
        name = "id" if "height" in entry else "image_id"
        entry[name] = float(entry[name])  # the kernels refuse 3.0 as an id, Python takes it
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = bool(annotation["iscrowd"])
    assert score(*oracle.write(tmp_path, truth, results)) == plain


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(800):
        height, width = (int(v) for v in rng.integers(1, 60, 2))
        parts = [oracle.polygon(rng, height, width) for _ in range(int(rng.integers(1, 4)))]
        want = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width)))
        truth = _table([{"segmentation": parts, "score": 1.0}], height, width)
        same = _table([{"segmentation": {"size": [height, width], "counts": oracle.uncompressed(want)}}], height, width)
        found, bad, worse = core.match(same, truth, np.array([[height, width]]), 1)
        assert not bad.any()
        assert not worse.any()
        if want.any():
            assert (found.flags[0, 0] == 1).all(), (parts, height, width)


def _table(entries: list[dict[str, Any]], height: int, width: int) -> core.Table:
    from maskwright.metrics import _coco_read

    table = _coco_read.read_array(np.frombuffer(json.dumps(entries).encode(), np.uint8), 0)
    assert table is not None
    table.image = table.label = np.zeros(len(table), np.int64)
    return table


def test_numbers_are_read_as_python_reads_them() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**62, 20000).astype(np.int64).view(np.float64)
    words = [repr(float(v)) for v in np.abs(bits[np.isfinite(bits)])]
    words += [f"{rng.integers(0, 10**17)}e{rng.integers(-342, 292)}" for _ in range(20000)]
    words += [f"{int(rng.integers(2**52, 2**53))}.5" for _ in range(2000)] + ["0", "-0.0", "1E+2", "5e-324", "1e309"]
    text = "[" + ",".join(f'{{"area": {word}}}' for word in words) + "]"
    from maskwright.metrics import _coco_read

    table = _coco_read.read_array(np.frombuffer(text.encode(), np.uint8), 0)
    assert table is not None
    want = np.array([float(word) for word in words])
    assert (table.floats[:, 1].view(np.int64) == want.view(np.int64)).all()


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_published_numbers(kind: str) -> None:
    folder = shared("data/coco_eval")
    name = {"mask": "segm", "box": "bbox"}[kind]
    part = (folder / "published.txt").read_text().split("type=")[1 if kind == "mask" else 2]
    want = [float(v) for v in re.findall(r"\] = (-?\d\.\d+)", part)]
    results = folder / f"instances_val2014_fake{name}100_results.json"
    got = score(folder / "instances_val2014_100.json", results, [kind])[kind]
    got.pop("per_class")
    assert len(want) == len(got) == 12
    assert [round(v, 3) for v in got.values()] == want


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_real_files_equal_pycocotools(kind: str) -> None:
    folder = shared("data/coco_eval")
    name = {"mask": "segm", "box": "bbox"}[kind]
    paths = folder / "instances_val2014_100.json", folder / f"instances_val2014_fake{name}100_results.json"
    truth, results = (json.loads(path.read_text()) for path in paths)
    names = {c["id"]: c["name"] for c in truth["categories"]}
    oracle.check(score(*paths, [kind])[kind], oracle.evaluated(truth, results, kind), names)


def test_large_files_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskwright.metrics import _coco_read

    truth, results = oracle.random_data(7, "mask", 100)
    for result in results:
        result["nested"] = [{"x": 1}, {"y": 2}]  # a part may not begin here
    paths = oracle.write(tmp_path, truth, results * 20)
    whole = score(*paths)
    monkeypatch.setattr(_coco_read, "_CHUNK", 64)
    monkeypatch.setattr(core, "processors", lambda: 5)
    assert score(*paths) == whole


def test_no_torch_and_no_numba_is_imported_to_score_files(tmp_path: Path) -> None:
    truth, results = oracle.random_data(3, "mask", 100)
    paths = oracle.write(tmp_path, truth, results)
    score(*paths)  # compiles, where nobody has yet
    code = (
        "import sys; from maskwright.cli.main import main\n"
        f"code = main(['score', '--truth', {str(paths[0])!r}, '--results', {str(paths[1])!r}, '--json'])\n"
        "print(code, sorted({'torch', 'numba', 'pycocotools', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, last = ran.stdout.strip().splitlines()
    assert last == "0 []"
    assert json.loads(first)["images"] == len(truth["images"])


# ---- bad input ------------------------------------------------------------------------------------------------------

TRUTH: dict[str, Any] = {
    "images": [{"id": 1, "height": 10, "width": 12}, {"id": 2, "height": 10, "width": 12}],
    "categories": [{"id": 5, "name": "cat"}],
    "annotations": [
        {"id": k, "image_id": k, "category_id": 5, "iscrowd": 0, "area": 30.0, "bbox": [1.0, 1.0, 5.0, 6.0],
         "segmentation": [[1.0, 1.0, 6.0, 1.0, 6.0, 7.0, 1.0, 7.0]]}
        for k in (1, 2)
    ],
}  # fmt: skip
RLE = {"size": [10, 12], "counts": oracle.compressed([11, 6, 4, 6, 4, 6, 4, 6, 4, 6, 63], 10, 12)}
RESULTS = [
    {"image_id": k, "category_id": 5, "score": 0.9, "segmentation": RLE, "bbox": [1.0, 1.0, 5.0, 6.0]}
    for k in (1, 2, 1)
]


@pytest.mark.parametrize("kind", ["mask", "box"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_id": 3}, "image 3 is not in truth.json"),
        ({"image_id": "two"}, "image_id must be an integer"),
        ({"category_id": 6}, "category 6 is not in truth.json"),
        ({"score": 1.5}, "score must lie in"),
        ({"score": float("nan")}, "score must be finite, got nan"),
        ({"score": "high"}, "score must be finite"),
        ({"score": None}, "score is missing"),
        ({"bbox": [0, 0, -1, 3]}, "bbox must be finite"),
        ({"bbox": [0, 0, 3]}, "bbox must be"),
        (None, "must be an object"),
    ],
)
def test_results_that_cannot_be_used_are_named_or_dropped(
    tmp_path: Path, kind: str, change: dict[str, Any] | None, says: str
) -> None:
    results: list[Any] = copy.deepcopy(RESULTS)
    results[1] = None if change is None else results[1] | change
    paths = oracle.write(tmp_path, TRUTH, results)
    with pytest.raises(InputError, match=re.escape("1 of 3 results cannot be used - results[1]: ") + ".*") as caught:
        score(*paths, [kind])
    assert says in str(caught.value)
    kept = score(*paths, [kind], lenient=True)
    assert kept.pop("dropped") == {"truth": 0, "results": 1}
    assert kept == score(*oracle.write(tmp_path, TRUTH, [RESULTS[0], RESULTS[2]]), [kind])


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [10, 12], "counts": [11, 6, 4, 6, 92]}, "malformed run-lengths"),
        ({"size": [10, 12], "counts": [11, -6, 4, 6, 105]}, "malformed run-lengths"),
        ({"size": [10, 12], "counts": [2**40, 6]}, "malformed run-lengths"),
        ({"size": [10, 12], "counts": "o"}, "malformed run-lengths"),
        ({"size": [10, 12], "counts": "ooooooooooooooo0"}, "malformed run-lengths"),
        ({"size": [10, 12], "counts": "~~"}, "malformed run-lengths"),
        ({"size": [10, 12], "counts": "é"}, "malformed run-lengths"),
        ({"size": [10, 12], "counts": ""}, "malformed run-lengths"),
        ({"size": [12, 10], "counts": [120]}, "another size"),
        ({"size": [2**31, 2**31], "counts": [120]}, "another size"),
        ({"counts": [120]}, "size"),
        ([[1.0, 1.0, 5.0, 5.0]], "malformed polygon"),
        ([[1.0, 1.0, 5.0, 5.0, 3.0]], "malformed polygon"),
        ([[1.0, 1.0, 1e300, 5.0, 3.0, 4.0]], "malformed polygon"),
        ([1.0, 1.0, 5.0, 5.0, 3.0, 4.0], "malformed polygon"),
        ([None, [1.0, 1.0, 5.0, 5.0, 3.0, 4.0]], "malformed polygon"),
        (None, "neither a mask nor a box"),
        (7, "polygons or run-lengths"),
    ],
)
def test_masks_that_cannot_be_used_are_named_or_dropped(tmp_path: Path, segmentation: Any, says: str) -> None:
    results = copy.deepcopy(RESULTS)
    results[1]["segmentation"] = segmentation
    paths = oracle.write(tmp_path, TRUTH, results)
    with pytest.raises(InputError, match=re.escape("1 of 3 results cannot be used - results[1]: ") + ".*") as caught:
        score(*paths)
    assert says in str(caught.value)
    kept = score(*paths, lenient=True)
    assert kept.pop("dropped") == {"truth": 0, "results": 1}
    assert kept == score(*oracle.write(tmp_path, TRUTH, [RESULTS[0], RESULTS[2]]))


def test_all_are_counted_and_five_are_shown(tmp_path: Path) -> None:
    results = [RESULTS[0] | {"score": 0.1 * k} for k in range(20)]
    with pytest.raises(InputError, match=re.escape("9 of 20 results cannot be used - results[11]: ")) as caught:
        score(*oracle.write(tmp_path, TRUTH, results))
    assert str(caught.value).count("results[") == 5
    assert "and 4 more" in str(caught.value)
    assert "--lenient" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_id": 9}, "image 9 is not in the images"),
        ({"category_id": 9}, "category 9 is not in the categories"),
        ({"id": 1}, "id 1 occurs before"),
        ({"segmentation": {"size": [10, 12], "counts": [119]}}, "malformed run-lengths"),
        ({"bbox": [0, 0, float("inf"), 1]}, "bbox must be finite"),
    ],
)
def test_annotations_that_cannot_be_used_are_named_or_dropped(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    truth = copy.deepcopy(TRUTH)
    truth["annotations"][1] |= change
    paths = oracle.write(tmp_path, truth, RESULTS)
    with pytest.raises(InputError, match=re.escape("1 of 2 annotations cannot be used - annotations[1]")) as caught:
        score(*paths)
    assert says in str(caught.value)
    assert score(*paths, lenient=True)["dropped"] == {"truth": 1, "results": 0}


@pytest.mark.parametrize(
    ("truth", "results", "says"),
    [
        ([], RESULTS, "is not COCO"),
        ({"images": []}, RESULTS, "'annotations' must be a list"),
        (TRUTH, TRUTH, "must be a JSON list of results"),
        (RESULTS, TRUTH, "Did you swap"),
        (TRUTH, 3, "must be a JSON list of results"),
        (TRUTH | {"images": TRUTH["images"] * 2}, RESULTS, "image ids must be distinct"),
        (TRUTH | {"categories": TRUTH["categories"] * 2}, RESULTS, "category ids must be distinct"),
        (TRUTH | {"categories": [{"name": "cat"}]}, RESULTS, "integer id"),
        (TRUTH | {"images": [{"height": 3}]}, RESULTS, "id"),
        (TRUTH | {"images": [{"id": 1}, {"id": 2}]}, RESULTS, "no height and width"),
        (TRUTH, [{k: v for k, v in r.items() if k != "segmentation"} for r in RESULTS], "Did you mean --kind box"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, truth: Any, results: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        score(*oracle.write(tmp_path, truth, results))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    truth, results = oracle.write(tmp_path, TRUTH, RESULTS)
    with pytest.raises(InputError, match=r"cannot read .*absent\.json"):
        score(truth, tmp_path / "absent.json")
    with pytest.raises(InputError, match="is a directory"):
        score(tmp_path, results)
    for cut in (0, 1, 40, -1):
        text = results.read_bytes()
        (tmp_path / "cut.json").write_bytes(text[:cut])
        with pytest.raises(InputError, match=r"cut\.json"):
            score(truth, tmp_path / "cut.json")
    (tmp_path / "cut.json").write_bytes(truth.read_bytes()[:-20])
    with pytest.raises(InputError, match="not JSON"):
        score(tmp_path / "cut.json", results)


# ---- what is taken --------------------------------------------------------------------------------------------------


def test_no_results_at_all_score_zero(tmp_path: Path) -> None:
    got = score(*oracle.write(tmp_path, TRUTH, []), ["mask", "box"])
    assert got["mask"]["AP"] == got["box"]["AR_100"] == 0.0
    assert got["mask"]["AP_large"] == -1.0


def test_image_ids_may_be_names(tmp_path: Path) -> None:
    numbered = score(*oracle.write(tmp_path, TRUTH, RESULTS))
    truth, results = copy.deepcopy(TRUTH), copy.deepcopy(RESULTS)
    for entry in truth["images"]:
        entry["id"] = f"image {entry['id']}"
    for entry in (*truth["annotations"], *results):
        entry["image_id"] = f"image {entry['image_id']}"
    assert score(*oracle.write(tmp_path, truth, results)) == numbered


def test_the_habits_of_pycocotools_can_be_left(tmp_path: Path) -> None:
    truth = copy.deepcopy(TRUTH)
    truth["annotations"][0]["id"] = 0
    paths = oracle.write(tmp_path, truth, RESULTS[:2])
    names = {5: "cat"}
    official = score(*paths)["mask"]
    oracle.check(official, oracle.evaluated(truth, RESULTS[:2], "mask"), names)
    corrected = score(*paths, official=False)["mask"]
    unboxed = [{k: v for k, v in result.items() if k != "bbox"} for result in RESULTS[:2]]
    oracle.check(corrected, oracle.evaluated(TRUTH, unboxed, "mask"), names)
    assert corrected["AP"] > official["AP"]


def test_a_name_that_two_classes_share_carries_its_id(tmp_path: Path) -> None:
    truth = TRUTH | {"categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "cat"}, {"id": 8}]}
    assert list(score(*oracle.write(tmp_path, truth, RESULTS))["mask"]["per_class"]) == [
        "cat (id 5)",
        "cat (id 7)",
        "8",
    ]
