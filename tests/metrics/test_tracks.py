"""Tracking: TrackEval's HOTA, CLEAR and identity figures from files, scenes and similarities; clear errors."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.errors import InputError
from maskwright.metrics.tracks import ALPHAS, Tracking, Tracks, box_similarity
from maskwright.metrics.tracks_files import read_mots
from maskwright.structures import Masks, Scene, Segments
from tests.golden import record_tracks as drawn
from tests.shared import shared

GOLDEN = json.loads(Path(drawn.__file__).with_name("tracks.json").read_text())
OFFICIAL = {
    "MOTSA": "MOTA", "sMOTSA": "sMOTA", "MOTSP": "MOTP", "recall": "CLR_Re", "precision": "CLR_Pr",
    "switches": "IDSW", "fragments": "Frag", "mostly_tracked": "MT", "partly_tracked": "PT", "mostly_lost": "ML",
}  # fmt: skip
CLASSES = tuple(drawn.CLASSES)


def agree(got: dict[str, Any], want: dict[str, Any]) -> None:
    names = [name for name, value in got.items() if not isinstance(value, dict)]
    assert {OFFICIAL.get(name, name) for name in names} == want.keys()
    for name in names:
        assert got[name] == pytest.approx(np.mean(want[OFFICIAL.get(name, name)]), abs=1e-12), name


def write(folder: Path, sequences: dict[str, tuple[int, int]]) -> tuple[Path, Path]:
    for name, how in sequences.items():
        for part, lines in zip(("truth", "results"), drawn.draw(*how), strict=True):
            (folder / part).mkdir(exist_ok=True)
            (folder / part / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder / "truth", folder / "results"


def scene(lines: list[str], frames: int) -> Scene:
    """The same sequence as a scene: a tube for each track."""
    from maskwright.ops import rle

    tubes: dict[int, np.ndarray] = {}
    ignore = np.zeros((1, frames, *drawn.SIZE), bool)
    for line in lines:
        t, track, label, *_, counts = line.split()
        mask = rle.decode(*rle.from_coco([{"size": drawn.SIZE, "counts": counts}], drawn.SIZE), drawn.SIZE)[0]
        whole = ignore[0] if label == "10" else tubes.setdefault(int(track), np.zeros((frames, *drawn.SIZE), bool))
        whole[int(t)] |= mask
    size = (frames, *drawn.SIZE)
    labels = torch.tensor([track // 1000 - 1 for track in tubes], dtype=torch.int64)
    masks = Masks.from_dense(torch.from_numpy(np.array(list(tubes.values()), bool).reshape(-1, *size)))
    segments = Segments(size=size, labels=labels, masks=masks)
    return Scene(size=size, segments=segments, ignore=Masks.from_dense(torch.from_numpy(ignore)))


def random_tracks(seed: int, frames: int = 6) -> Tracks:
    rng = np.random.default_rng(seed)
    truth = [np.sort(rng.permutation(5)[: rng.integers(0, 5)]) for _ in range(frames)]
    found = [rng.permutation(6)[: rng.integers(0, 6)] + 40 for _ in range(frames)]
    # A map of ids that holds for a while: tracks agree, then swap.
    similarity = []
    for there, here in zip(truth, found, strict=True):
        near = rng.random((len(there), len(here))) * 0.4 * (rng.random((len(there), len(here))) < 0.5)
        same = there[:, None] == (here[None, :] - 40 + int(rng.random() < 0.2)) % 6
        similarity.append(np.where(same, 0.4 + 0.6 * rng.random(near.shape), near))
    ignored = [rng.choice([0.0, 0.4, 0.9], len(here)) for here in found]
    return Tracks(truth, found, similarity, ignored)


# ---- the official numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", drawn.CASES)
def test_files_and_scenes_give_the_official_numbers(case: str, tmp_path: Path) -> None:
    sequences = drawn.CASES[case]
    by_scene = Tracking(CLASSES)
    for name, (seed, frames) in sequences.items():
        there, found = (scene(lines, frames) for lines in drawn.draw(seed, frames))
        by_scene.update(found, there, name)
    for metric in (read_mots(*write(tmp_path, sequences)), by_scene):
        got = metric.compute()
        assert got["images"] == got["sequences"] == len(sequences)
        for name in CLASSES:
            agree(got["mask"]["per_class"][name], GOLDEN["masks"][case][name])
            for figure, values in metric.curves()["per_class"][name].items():
                assert values == pytest.approx(np.array(GOLDEN["masks"][case][name][figure]), abs=1e-12)
        agree(got["mask"], GOLDEN["masks"][case]["mean"])
        agree(got["mask"]["by_object"], GOLDEN["masks"][case]["pooled"])


def test_boxes_give_the_official_numbers() -> None:
    metric = Tracking(["object"], "box")
    for name, how in drawn.BOXES.items():
        there, truth, here, found = drawn.draw_boxes(*how)
        pairs = zip(truth, found, strict=True)
        metric.update_tracks({0: Tracks(there, here, [box_similarity(a, b) for a, b in pairs])}, name)
    agree(metric.compute()["box"], GOLDEN["boxes"])


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_identities_are_those_of_the_best_pairing_of_tracks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = 5
    truth = [np.flatnonzero(rng.random(3) < 0.7) for _ in range(frames)]
    found = [np.flatnonzero(rng.random(4) < 0.7) for _ in range(frames)]
    near = [rng.choice([0.0, 0.3, 0.5, 0.9], (len(a), len(b))) for a, b in zip(truth, found, strict=True)]
    metric = Tracking(["object"])
    metric.update_tracks({0: Tracks(truth, found, near)})
    best = max(
        sum(
            float(s[a.tolist().index(i), b.tolist().index(j)] >= 0.5)
            for i, j in enumerate(chosen)
            for a, b, s in zip(truth, found, near, strict=True)
            if i in a and j in b
        )
        for chosen in permutations(range(4), 3)
    )
    count, other = sum(map(len, truth)), sum(map(len, found))
    got = metric.compute()["mask"]
    if count + other:
        want = [best / max(1, count), best / max(1, other), best / max(1, (count + other) / 2)]
        assert [got["IDR"], got["IDP"], got["IDF1"]] == pytest.approx(want)


def test_hota_of_a_known_switch() -> None:
    """Four frames, one object, perfect boxes, another id from the third frame on: AssA is 1/2 (IJCV 2021, figure 1)."""
    one = [np.ones((1, 1))] * 4
    metric = Tracking(["object"])
    metric.update_tracks({0: Tracks([np.array([7])] * 4, [np.array([i]) for i in (1, 1, 2, 2)], one)})
    got = metric.compute()["mask"]
    assert [got[name] for name in ("DetA", "AssA", "AssRe", "AssPr", "LocA")] == [1.0, 0.5, 0.5, 1.0, 1.0]
    assert got["HOTA"] == pytest.approx(np.sqrt(0.5))
    assert [got["switches"], got["fragments"], got["IDF1"], got["MOTSA"]] == [1.0, 0.0, 0.5, 0.75]


# ---- laws -----------------------------------------------------------------------------------------------------------


def test_truth_against_itself_is_perfect(tmp_path: Path) -> None:
    truth, _ = write(tmp_path, {"a": (1, 14), "b": (4, 9)})
    for path in (tmp_path / "results").glob("*.txt"):
        lines = (truth / path.name).read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if line.split()[2] != "10"))
    got = read_mots(truth, tmp_path / "results").compute()["mask"]
    for figures in (got, got["by_object"], *got["per_class"].values()):
        assert {figures[name] for name in ("HOTA", "DetA", "AssA", "LocA", "IDF1", "MOTSA", "sMOTSA", "MOTSP")} == {1.0}
        assert figures["switches"] == figures["mostly_lost"] == 0


@settings(max_examples=12)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_shards_and_weights(data: st.DataObject, seed: int) -> None:
    parts = [{k: random_tracks(seed + 9 * n + k) for k in range(2)} for n in range(4)]
    whole, copies, shards = Tracking("ab"), Tracking("ab"), [Tracking("ab") for _ in range(3)]
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
    for key, tracks in data.draw(st.permutations(list(enumerate(parts)))):
        whole.update_tracks(tracks, key)
        shards[data.draw(st.integers(0, 2))].update_tracks(tracks, key)
        for copy in range(weights[key]):
            copies.update_tracks(tracks, f"{key} {copy}")
    first, *rest = data.draw(st.permutations(shards))
    for shard in rest:
        first.merge(shard)
    assert first.compute() == whole.compute()
    got, want = whole.compute(weights), copies.compute()
    assert got["images"] == want["images"] == weights.sum()
    for its, copied in ((got["mask"], want["mask"]), (got["mask"]["by_object"], want["mask"]["by_object"])):
        plain = {name: value for name, value in copied.items() if not isinstance(value, dict)}
        assert {name: its[name] for name in plain} == pytest.approx(plain, abs=1e-12)


def test_nothing_at_all_is_undefined_and_does_not_enter_the_mean() -> None:
    metric = Tracking("ab")
    metric.update_tracks({0: random_tracks(3)})
    got = metric.compute()["mask"]
    assert {name: value for name, value in got["per_class"]["b"].items() if value != -1.0} == {
        "MOTSA": None,  # of which -1.0 is a value like any other
        "sMOTSA": None,
    }
    assert {name: got[name] for name in got["per_class"]["a"]} == got["per_class"]["a"] == got["by_object"]
    assert Tracking("ab").compute()["mask"]["HOTA"] == -1.0
    assert len(ALPHAS) == 19


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused() -> None:
    fine = Tracks([np.array([1, 2])], [np.array([5])], [np.ones((2, 1))], [np.zeros(1)])
    metric = Tracking("a")
    for change, says in (
        ({"truth": []}, "as many frames"),
        ({"truth": [np.array([1, 1])]}, "truth must be distinct"),
        ({"found": [np.array([0.5])]}, "found must be distinct"),
        ({"similarity": [np.ones((1, 2))]}, "similarity must be"),
        ({"similarity": [np.array([[np.nan], [0.5]])]}, "similarity must be"),
        ({"similarity": [np.array([[1.5], [0.5]])]}, "similarity must be"),
        ({"ignored": [np.zeros(2)]}, "ignored must be"),
    ):
        parts = {name: change.get(name, getattr(fine, name)) for name in ("truth", "found", "similarity", "ignored")}
        with pytest.raises(ValueError, match=says):
            metric.update_tracks({0: Tracks(**parts)})
    with pytest.raises(ValueError, match=r"labels must be dense in 0 .. 0, got 1"):
        metric.update_tracks({1: fine})
    assert len(metric) == 0
    metric.update_tracks({0: fine}, 1)
    with pytest.raises(ValueError, match="image 1 was counted before"):
        metric.update_tracks({0: fine}, 1)
    with pytest.raises(ValueError, match="kind must be"):
        Tracking("a", "point")
    with pytest.raises(ValueError, match="must share kind"):
        metric.merge(Tracking("a", "box"))


def test_scenes_that_do_not_fit_are_refused() -> None:
    whole = scene(drawn.draw(1, 3)[0], 3)
    flat = Scene(size=(4, 5), segments=Segments.empty((4, 5)))
    bare = Scene(size=whole.size, segments=Segments(size=whole.size, labels=torch.tensor([0])))
    for pair, says in (((whole, flat), "share one"), ((flat, flat), "share one"), ((bare, whole), "must have masks")):
        with pytest.raises(ValueError, match=says):
            Tracking(CLASSES).update(*pair)
    with pytest.raises(ValueError, match="labels must be dense"):
        Tracking(["car"]).update(whole, whole)
    with pytest.raises(ValueError, match="update_tracks"):
        Tracking(CLASSES, "box").update(whole, whole)


@pytest.mark.parametrize(
    ("side", "line", "says"),
    [
        ("results", "0 1001 1 48 72", r"lines\[1\]: must be 'frame id class height width run-lengths', got 5 fields"),
        ("results", "0 x 1 48 72 0", r"integers from 0 on, got 'x'"),
        ("results", "-1 1 1 48 72 0", r"integers from 0 on, got '-1'"),
        ("results", "0 7001 7 48 72 0", r"class 7 is not one of \[1, 2, 10\]"),
        ("truth", "0 1001 1 72 48 abc", r"lines\[1\]: its run-length string|lines\[1\]: run-lengths must be"),
        ("results", "0 1099 1 72 48 0", r"its size must be 48 x 72 as the others', got 72 x 48"),
        ("results", "0 1099 1 48 72 ~~", r"run-length string has a character"),
        ("results", "0 1099 1 48 72 5", r"run-lengths must be non-negative and add up to 3456 pixels"),
    ],
)
def test_broken_lines_are_named_or_dropped(side: str, line: str, says: str, tmp_path: Path) -> None:
    pair = write(tmp_path, {"a": (2, 3)})
    path = tmp_path / side / "a.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([line, *lines]))
    with pytest.raises(InputError, match=rf"a\.txt: 1 of \d+ lines cannot be used - .*{says}"):
        read_mots(*pair)
    assert read_mots(*pair, lenient=True).dropped == {"truth": 0, "results": 0, "sequences": 0} | {side: 1}


def test_masks_of_a_frame_are_disjoint_and_ids_distinct(tmp_path: Path) -> None:
    pair = write(tmp_path, {"a": (2, 3)})
    path = tmp_path / "results" / "a.txt"
    lines = path.read_text().splitlines()
    first = lines[0].split()
    path.write_text("\n".join([*lines, " ".join([first[0], "1077", *first[2:]])]))
    with pytest.raises(InputError, match=rf"lines\[{len(lines) + 1}\]: shares \d+ pixels with track {first[1]} in fr"):
        read_mots(*pair)
    assert read_mots(*pair, lenient=True).dropped["results"] == 1
    path.write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(InputError, match=rf"track {first[1]} is in frame 0 twice"):
        read_mots(*pair)


def test_files_must_pair(tmp_path: Path) -> None:
    truth, results = write(tmp_path, {"a": (2, 3), "b": (3, 4)})
    (results / "b.txt").rename(results / "c.txt")
    with pytest.raises(InputError, match="of 3 sequences 1 has no results: b"):
        read_mots(truth, results)
    metric = read_mots(truth, results, lenient=True)
    assert metric.dropped == {"truth": 0, "results": 0, "sequences": 2}
    assert metric.keys == ["a", "b"]
    assert (
        metric.compute()["mask"]["by_object"]["recall"]
        < read_mots(truth / "a.txt", results / "a.txt").compute()["mask"]["by_object"]["recall"]
    )
    (results / "b.txt").write_text("")
    with pytest.raises(InputError, match="of 3 sequences 1 has results but no truth: c"):
        read_mots(truth, results)
    for pair in ((truth / "none", results), (truth / "a.txt", results), (truth, results / "a.txt")):
        with pytest.raises(InputError, match=r"no such|must be one too"):
            read_mots(*pair)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"must hold NAME\.txt"):
        read_mots(tmp_path / "empty", results)


def test_layouts_of_motschallenge(tmp_path: Path) -> None:
    truth, results = write(tmp_path, {"a": (2, 6)})
    want = read_mots(truth, results, classes={"pedestrian": 2}).compute()
    (truth / "a" / "gt").mkdir(parents=True)
    (truth / "a.txt").rename(truth / "a" / "gt" / "gt.txt")
    (results / "data").mkdir()
    (results / "a.txt").rename(results / "data" / "a.txt")
    assert read_mots(truth, results, classes={"pedestrian": 2}).compute() == want


def test_maps_of_ids_say_what_lines_say(tmp_path: Path) -> None:
    from PIL import Image

    from maskwright.ops import rle

    truth, results = write(tmp_path, {"a": (1, 5)})
    maps: dict[int, np.ndarray] = {t: np.zeros(drawn.SIZE, np.uint16) for t in range(5)}
    for line in (truth / "a.txt").read_text().splitlines():
        t, track, *_, counts = line.split()
        mask = rle.decode(*rle.from_coco([{"size": drawn.SIZE, "counts": counts}], drawn.SIZE), drawn.SIZE)[0]
        maps[int(t)][mask] = int(track)
    folder = tmp_path / "maps" / "a"
    folder.mkdir(parents=True)
    for t, ids in maps.items():
        Image.fromarray(ids).save(folder / f"{t:06}.png")
    want = read_mots(truth, results).compute()["mask"]["by_object"]
    assert read_mots(tmp_path / "maps", results).compute()["mask"]["by_object"] == pytest.approx(want)
    Image.fromarray(np.full((9, 9), 7001, np.uint16)).save(folder / "000007.png")
    with pytest.raises(InputError, match=r"1 of 6 maps cannot be used - maps\[5\]: 000007.png: its size must be"):
        read_mots(tmp_path / "maps", results)


def test_real_maps_against_themselves() -> None:
    folder = shared("data/formats/mots") / "train"
    names = (folder / "instances" / "labels.txt").read_text().split()
    classes = {name: number for number, name in enumerate(names, 1)}
    got = read_mots(folder, folder, classes=classes).compute()["mask"]["by_object"]
    assert [got["HOTA"], got["IDF1"], got["MOTSA"]] == [1.0, 1.0, 1.0]


def test_without_torch(tmp_path: Path) -> None:
    truth, results = write(tmp_path, {"a": (2, 6)})
    code = (
        "import sys; from maskwright.metrics.tracks_files import read_mots;"
        f"print(len(read_mots({str(truth)!r}, {str(results)!r})));"
        "print([m for m in ('torch', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["1", "[]"]
