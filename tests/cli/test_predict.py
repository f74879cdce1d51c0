"""``maskwright predict`` with a toy model: what is written, printed and returned."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskwright import zoo
from maskwright.cli.main import main
from maskwright.cli.predict import unique_names
from tests.infer.toy import Toy, save, spot


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    model = Toy()
    model.asked = []  # type: ignore[assignment]

    def load(*names: str, **options: Any) -> Toy:
        model.asked.append((names, options))  # type: ignore[union-attr, operator]
        return model

    monkeypatch.setattr(zoo, "load", load)
    return model


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """one.png, day/shot.png, night/shot.png and day/dark.jpg, seen from their folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("day", "night"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "shot.png")
    save(tmp_path / "one.png")
    save(tmp_path / "day" / "dark.jpg", np.zeros((30, 30, 3), np.uint8))
    return tmp_path


def _document(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def test_files_folders_and_globs(toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "one.png", "day", "ni*/*.png", "--out", "res"]) == 0
    document = _document(pictures / "res")
    names = ["day/dark.jpg", "day/shot.png", "night/shot.png", "one.png"]
    assert sorted(image["file_name"] for image in document["images"]) == names
    assert len(document["annotations"]) == 6
    assert [c["name"] for c in document["categories"]] == ["spot", "ring"]
    overlays = sorted(path.name for path in (pictures / "res" / "overlays").iterdir())
    assert overlays == ["dark.png", "night-shot.png", "one.png", "shot.png"]
    painted = np.array(Image.open(pictures / "res" / "overlays" / "one.png"))
    assert painted.shape == (40, 60, 3)
    assert (painted != spot()).any()
    with open(pictures / "res" / "objects.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    printed = capsys.readouterr().out.splitlines()
    assert "one.png: 1 spot, 1 ring" in printed
    assert "day/dark.jpg: nothing found" in printed
    assert printed[-1].startswith("4 images, 6 objects in ")
    assert toy.asked[0][0] == ("embedded",)  # type: ignore[index]


def test_json_is_one_object(toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "one.png", "--json", "--no-overlays"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == 1
    assert printed["objects"] == 2
    assert printed["counts"] == {"one.png": {"spot": 1, "ring": 1}}
    assert printed["failed"] == {}
    assert sorted(path.name for path in (pictures / "out").iterdir()) == ["objects.csv", "results.json"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_failures_come_last_and_lose_nothing(
    toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    (pictures / "day" / "broken.png").write_bytes((pictures / "one.png").read_bytes()[:60])
    (pictures / "day" / "notes.jpg").write_text("not a picture")
    assert main(["predict", "day", *form]) == 1
    assert {image["file_name"] for image in _document(pictures / "out")["images"]} == {"day/dark.jpg", "day/shot.png"}
    assert (pictures / "out" / "overlays" / "shot.png").is_file()
    printed = capsys.readouterr()
    assert "2 files failed:" in printed.err
    assert "day/broken.png" in printed.err
    assert "day/notes.jpg" in printed.err
    if form:
        assert set(json.loads(printed.out)["failed"]) == {"day/broken.png", "day/notes.jpg"}


def test_options_reach_the_model(toy: Toy, pictures: Path) -> None:
    words = ["--score-threshold", "0.6", "--max-per-image", "5", "--resize", "20,100", "--batch-size", "2"]
    more = ["--model", "mask-rcnn-r50", "--weights", "x.pth", "--commercial", "--precision", "32", "--device", "cpu"]
    assert main(["predict", "one.png", "night/shot.png", *words, *more]) == 0
    seen = toy.seen[0]
    assert (seen["threshold"], seen["limit"], seen["sizes"]) == (0.6, 5, ((20, 30), (20, 30)))
    names, options = toy.asked[0]  # type: ignore[index, misc]
    assert names == ("mask-rcnn-r50", "x.pth")
    assert options["commercial"] is True
    assert len(_document(pictures / "out")["annotations"]) == 2
    assert main(["predict", "one.png", "--resize", "none"]) == 0
    assert toy.seen[-1]["sizes"] == ((40, 60),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.png"], "no such file or folder: absent.png"),
        (["one.png", "--score-threshold", "7"], "score_threshold must be"),
        (["one.png", "--out", "one.png"], "one.png"),
        (["one.png", "--out", "one.png/deeper"], "Choose another --out"),
        (["one.png", "--device", "warp"], "device 'warp'"),
    ],
)
def test_unusable_input_is_refused_before_work_begins(
    toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["predict", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert toy.seen == []


def test_a_bad_resize_is_an_error_of_usage(toy: Toy, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", "one.png", "--resize", "huge"])
    assert end.value.code == 2
    assert "SHORT,LONG" in capsys.readouterr().err


def test_unknown_weights(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "one.png", "--weights", "embeded"]) == 2
    assert "Did you mean embedded?" in capsys.readouterr().err


def test_interruption_keeps_what_is_done(
    toy: Toy, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = toy.predict

    def stop(raw: Any, geometry: Any) -> Any:
        if len(toy.seen) == 3:
            raise KeyboardInterrupt
        return original(raw, geometry)

    monkeypatch.setattr(toy, "predict", stop)
    assert main(["predict", "one.png", "day", "night"]) == 130
    assert len(_document(pictures / "out")["images"]) == 2
    assert "interrupted" in capsys.readouterr().err


def test_results_of_an_earlier_run_are_replaced(toy: Toy, pictures: Path) -> None:
    assert main(["predict", "day", "night"]) == 0
    assert main(["predict", "one.png"]) == 0
    assert [image["file_name"] for image in _document(pictures / "out")["images"]] == ["one.png"]


def test_overlay_names_never_repeat() -> None:
    name = unique_names()
    paths = ["a/x.png", "b/x.png", "b/x.jpg", "b/X.PNG", "c/b/x.png", "x.png", "b-x.png"]
    names = [name(Path(path)) for path in paths]
    assert names[:2] == ["x", "b-x"]
    assert len({n.casefold() for n in names}) == len(paths)
