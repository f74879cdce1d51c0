"""``maskwright score``: a table for people, one JSON object for programs."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from maskwright.cli import score
from maskwright.errors import InputError
from tests.metrics import oracle


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    score.configure(parser)
    return score.run(parser.parse_args(words))


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    truth, results = oracle.random_data(18, "mask", 100)
    truth["categories"].append({"id": 900, "name": "unseen"})
    truth_path, results_path = oracle.write(tmp_path, truth, results)
    return ["--truth", str(truth_path), "--results", str(results_path)]


def test_json_is_one_object_of_fractions(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*paths, "--kind", "mask", "--json") == 0
    got = json.loads(capsys.readouterr().out)
    assert set(got) == {"mask", "images", "max_per_image"}
    assert got["max_per_image"] == 100
    names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
    names += ["AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"]
    assert list(got["mask"]) == [*names, "per_class"]
    assert list(got["mask"]["per_class"]["unseen"].values()) == [-1.0] * 12
    assert 0 < got["mask"]["AP50"] <= 1


def test_the_limit_names_the_recall(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*paths, "--kind", "box", "--max-per-image", "400", "--json") == 0
    got = json.loads(capsys.readouterr().out)
    assert "AR_400" in got["box"]
    assert got["max_per_image"] == 400
    with pytest.raises(InputError, match="--max-per-image"):
        run(*paths, "--max-per-image", "0")


def test_the_table_shows_all_figures(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*paths, "--json") == 0
    got = json.loads(capsys.readouterr().out)["mask"]
    assert run(*paths) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["max_per_image", "100"] in [line.split() for line in lines]
    start = lines.index("mask") + 1
    shown = dict(line.split() for line in lines[start : start + 12])
    assert shown == {k: f"{v:.4f}" if v >= 0 else "-" for k, v in got.items() if k != "per_class"}
    assert next(line for line in lines if line.split()[:1] == ["unseen"]).split()[1:] == ["-"] * 7


def test_several_limits_and_thresholds(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*paths, "--max-per-image", "2", "5", "--thresholds", "0.3", "0.5", "--json") == 0
    got = json.loads(capsys.readouterr().out)["mask"]
    assert {"AR_2", "AR_5", "AP50"} <= set(got)
    assert "AP75" not in got
    with pytest.raises(InputError, match="thresholds"):
        run(*paths, "--thresholds", "1.5")


def test_lenient_drops_and_counts(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads(Path(paths[3]).read_text())
    Path(paths[3]).write_text(json.dumps([*results, results[0] | {"score": 2.0}, results[0] | {"image_id": 12345}]))
    with pytest.raises(InputError, match="2 of"):
        run(*paths)
    assert run(*paths, "--lenient") == 0
    text = capsys.readouterr().out.split()
    assert text[text.index("results") + 1] == "2"
    assert run(*paths, "--lenient", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dropped"] == {"truth": 0, "results": 2}


def test_intervals_and_another_system(paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads(Path(paths[3]).read_text())
    worse = tmp_path / "worse.json"
    worse.write_text(json.dumps([entry | {"score": entry["score"] / 2} for entry in results[::3]]))
    assert run(*paths, "--intervals", "50", "--against", str(worse), "--json") == 0
    got = json.loads(capsys.readouterr().out)
    figure = got["mask"]["AP"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert got["against"]["mask"]["AP"]["difference"] > 0
    assert run(*paths, "--intervals", "50", "--against", str(worse)) == 0
    shown = capsys.readouterr().out
    assert "AP (mask), p = " in shown
    assert f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]" in shown
    assert run(*paths, "--against", paths[3]) == 0
    assert "do not differ" in capsys.readouterr().out


def test_csv_has_every_figure(paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*paths, "--csv", str(tmp_path / "out.csv"), "--json") == 0
    got = json.loads(capsys.readouterr().out)
    with open(tmp_path / "out.csv", encoding="utf-8") as file:
        rows = {(r["group"], r["class"], r["figure"]): r["value"] for r in csv.DictReader(file)}
    assert float(rows["mask", "", "AP"]) == got["mask"]["AP"]
    assert rows["mask", "unseen", "AP50"] == ""
    assert rows["", "", "images"] == str(got["images"])
    figures = sum(len(own) for own in got["mask"]["per_class"].values()) + len(got["mask"]) - 1
    assert len(rows) == figures + 2


def test_the_report_shows_curves_errors_and_the_worst_images(
    paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads(Path(paths[1]).read_text())
    for image in truth["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / f"{image['id']}.png")
        image["file_name"] = f"{image['id']}.png"
    Path(paths[1]).write_text(json.dumps(truth))
    page = tmp_path / "report.html"
    assert run(*paths, "--report", str(page), "--images", str(tmp_path), "--errors") == 0
    assert "dAP" in capsys.readouterr().out
    document = page.read_text(encoding="utf-8")
    for words in ("Precision over recall", "What errors cost", "Confusions", "Calibration", "Worst images", "unseen"):
        assert words in document
    assert document.count("data:image/jpeg;base64,") >= 2
    assert "http" not in document
    (tmp_path / "box").mkdir()
    boxes = oracle.write(tmp_path / "box", *oracle.random_data(18, "box", 100))
    words = ["--truth", str(boxes[0]), "--results", str(boxes[1]), "--kind", "box", "--report", str(page)]
    assert run(*words) == 0
    assert "Worst images" in page.read_text(encoding="utf-8")
    assert "data:image" not in page.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="is a directory"):
        run(*paths, "--report", str(tmp_path))


def test_options_that_do_not_go_together(paths: list[str]) -> None:
    with pytest.raises(InputError, match="--intervals must be at least 1"):
        run(*paths, "--intervals", "0")
    with pytest.raises(InputError, match="--errors goes with the kinds mask and box, not with boundary"):
        run(*paths, "--kind", "boundary", "--errors")
