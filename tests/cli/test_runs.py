"""``maskwright runs``, ``compare``, ``tune`` and ``curve`` on run directories that no training made."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskwright.cli import _launch, _study
from maskwright.cli._runs import ACTIVE
from maskwright.cli.main import main
from maskwright.data.formats.coco import write_coco
from maskwright.data.synthetic.discs import Discs
from tests.cli.runs import Trainings, leave

Captured = pytest.CaptureFixture[str]


def age(path: Path) -> None:
    """Let a run's files look old."""
    then = time.time() - 2 * ACTIVE
    for file in path.iterdir():
        os.utime(file, (then, then))


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_runs_are_found_and_described(tmp_path: Path, capsys: Captured) -> None:
    leave(tmp_path / "a", [0.1, 0.3, 0.2], options={"learning_rate": 1e-3})
    leave(tmp_path / "deep" / "b", [0.4], finished=False)
    age(leave(tmp_path / "c", finished=False))
    (tmp_path / "none").mkdir()
    assert main(["runs", str(tmp_path), "--json"]) == 0
    rows = {Path(row["path"]).name: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert {name: row["state"] for name, row in rows.items()} == {"a": "finished", "b": "active", "c": "interrupted"}
    assert (rows["a"]["best"], rows["a"]["best_step"], rows["a"]["main"]) == (0.3, 2, "mask.AP")
    assert rows["a"]["figures"] == {"mask.AP": 0.3, "mask.AP50": pytest.approx(0.4)}
    assert (rows["b"]["step"], rows["b"]["steps"]) == (2, 4)
    assert rows["c"]["best"] is None
    assert rows["a"]["changed"]["learning_rate"] == 1e-3
    assert "learning_rate" not in rows["b"]["changed"]
    assert main(["runs", str(tmp_path), "--by", "best"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["run", "model", "state", "step", "best"]
    assert [Path(line.split()[0]).name for line in lines[1:]] == ["b", "a", "c"]
    assert "01234567" in lines[1]
    assert "feedbeef+" in lines[1]
    assert "learning_rate=0.001" in lines[2]


def test_a_damaged_run_is_named(tmp_path: Path, capsys: Captured) -> None:
    run = leave(tmp_path / "a", [0.1])
    (run / "options.json").write_text('{"options": ')
    assert main(["runs", str(run)]) == 2
    assert "options.json" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err


def test_a_row_that_was_being_written_is_left_out(tmp_path: Path, capsys: Captured) -> None:
    run = leave(tmp_path / "a", [0.1, 0.2])
    with open(run / "evaluations.csv", "a", encoding="utf-8") as file:
        file.write("3,0.9")
    assert main(["runs", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["best"] == 0.2


# ---- compare --------------------------------------------------------------------------------------------------------


def test_what_differs_between_two_runs(tmp_path: Path, capsys: Captured) -> None:
    a = leave(tmp_path / "a", [0.1, 0.3], options={"learning_rate": 1e-3})
    b = leave(tmp_path / "b", [0.25], data="fedcba9876543210")
    assert main(["compare", str(a), str(b), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differ"]["options.learning_rate"] == [1e-3, 4e-4]
    assert "objective.balance" not in told["differ"]
    assert told["figures"]["mask.AP"] == {"a": 0.3, "b": 0.25, "difference": pytest.approx(0.05)}
    assert "different data" in told["note"]
    assert main(["compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "+0.0500" in text
    assert main(["compare", str(a), str(a)]) == 0
    assert "nothing recorded differs" in capsys.readouterr().out
    assert main(["compare", str(a), str(leave(tmp_path / "c"))]) == 0
    assert "was not evaluated yet" in capsys.readouterr().out
    assert main(["compare", str(a), str(tmp_path / "absent")]) == 2


# ---- tune -----------------------------------------------------------------------------------------------------------


def searching(out: Path, *more: str) -> list[str]:
    return [
        "tune", "mask-rcnn-r18", "--train", "t.json", "--val", "v.json", "--out", str(out), "--seed", "0",
        "--over", "learning_rate=1e-4..1e-2:log", "--over", "optimizer=adamw,sgd", *more,
    ]  # fmt: skip


def test_a_search_finds_the_best_and_goes_on(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = Trainings(
        lambda f: 0.5 - abs(float(f["--learning-rate"]) - 2e-3) * 40 + 0.1 * (f["--optimizer"] == "sgd")
    )
    monkeypatch.setattr(_launch, "train", trainings)
    out = tmp_path / "search"
    assert main(searching(out, "--trials", "4", "--pruner", "none", "--json", "--with", "--steps", "3")) == 0
    told = json.loads(capsys.readouterr().out)
    values = [trainings.figure(flags) for flags in trainings.lines]
    assert told["best"]["value"] == pytest.approx(max(values))
    assert told["trials"] == len(values) == 4
    assert all(flags["--steps"] == "3" for flags in trainings.lines)
    assert json.loads((out / "best.json").read_text()) == told["best"]
    assert main(searching(out, "--trials", "6", "--pruner", "none", "--json", "--with", "--steps", "3")) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 6
    assert len(trainings.lines) == 6  # the first four were not made again
    assert (out / "trials.csv").read_text().count("\n") == 7
    assert main(searching(out, "--trials", "6", "--with", "--steps", "9")) == 2
    assert "begun with another command" in capsys.readouterr().err


def test_hopeless_trials_are_cut_short(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([0.9, 0.8, 0.01, 0.02])
    monkeypatch.setattr(_launch, "train", Trainings(lambda _: next(figures), evaluations=4))
    assert main(searching(tmp_path / "s", "--trials", "4", "--patient", "2", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trials"], told["cut_short"]) == (4, 2)
    assert told["best"]["value"] == 0.9


def test_trials_that_fail_end_the_search(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> bool:
        raise _launch.TrainingFailedError("the training failed: no such file")

    monkeypatch.setattr(_launch, "train", fails)
    assert main(searching(tmp_path / "s", "--trials", "9")) == 2
    assert "failed one after another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--trials", "0"), "--trials must be 1"),
        (("--over", "learning_rate"), "OPTION=SPACE"),
        (("--over", "learnin_rate=1..2"), "learnin_rate"),
        (("--with", "--learning-rate", "0.1"), "the search sets itself"),
    ],
)
def test_searches_that_cannot_be(tmp_path: Path, capsys: Captured, more: tuple[str, ...], said: str) -> None:
    assert main(searching(tmp_path / "s", *more)) == 2
    assert said in capsys.readouterr().err


def test_a_trial_whose_process_is_gone_is_gone_on_with(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = {"left": True}
    trainings = Trainings(lambda _: 0.5)

    class Killed(BaseException):
        pass

    def dies_once(*args: Any, **kwargs: Any) -> bool:
        if killed["left"]:
            killed["left"] = False
            raise Killed
        return trainings(*args, **kwargs)

    monkeypatch.setattr(_launch, "train", dies_once)
    monkeypatch.setattr(_study, "_YOUNG", _study.timedelta(0))
    with pytest.raises(Killed):
        main(searching(tmp_path / "s", "--trials", "2"))
    assert main(searching(tmp_path / "s", "--trials", "2")) == 0
    assert "abandoned: going on with it" in capsys.readouterr().err
    assert (tmp_path / "s" / "trials" / "0000").is_dir()


# ---- curve ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    source = Discs(40, size=(64, 64), seed=0)
    records = [replace(source.record(i), key=f"{i}.png") for i in range(40)]
    for record in records:
        Image.new("RGB", (64, 64)).save(tmp_path / record.key)
    write_coco(tmp_path / "train.json", records, source.taxonomy)
    return tmp_path


def curve(folder: Path) -> list[str]:
    return [
        "curve", "mask-rcnn-r18", "--train", str(folder / "train.json"), "--val", "v.json", "--out", str(folder / "c"),
    ]  # fmt: skip


def test_a_curve_is_fitted_and_extended(drawn: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = Trainings(lambda f: 1 - 0.8 * (40 * float(f["--fraction"])) ** -0.3)
    monkeypatch.setattr(_launch, "train", trainings)
    words = [
        "curve",
        "mask-rcnn-r18",
        "--train",
        str(drawn / "train.json"),
        "--val",
        "v.json",
        "--out",
        str(drawn / "c"),
    ]
    assert main([*words, "--fractions", "0.25,0.5,1", "--seeds", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 40
    assert [point["images"] for point in told["points"]] == [10, 20, 40, 10, 20, 40]
    assert told["law"]["b"] == pytest.approx(0.3, abs=1e-3)
    assert told["expected"]["value"] == pytest.approx(1 - 0.8 * 80**-0.3, abs=1e-3)
    assert told["gain"] > 0
    assert (drawn / "c" / "curve.svg").read_text().startswith("<")
    assert (drawn / "c" / "curve.csv").read_text().count("\n") == 7
    count = len(trainings.lines)
    assert main([*words, "--fractions", "0.25,0.5,1", "--seeds", "2"]) == 0
    assert len(trainings.lines) == count  # finished runs are not made again
    assert "2x the labels (80 images)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--fractions", "0.5,1"), "at least three"),
        (("--fractions", "0,0.5,1"), "above 0"),
        (("--fractions", "a,b,c"), "numbers"),
        (("--times", "1"), "--times above 1"),
        (("--with", "--seed", "3"), "the curve sets itself"),
    ],
)
def test_curves_that_cannot_be(drawn: Path, capsys: Captured, more: tuple[str, ...], said: str) -> None:
    words = [
        "curve",
        "mask-rcnn-r18",
        "--train",
        str(drawn / "train.json"),
        "--val",
        "v.json",
        "--out",
        str(drawn / "c"),
    ]
    assert main([*words, *more]) == 2
    assert said in capsys.readouterr().err
