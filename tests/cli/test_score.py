"""``maskwright score``: a table for people, one JSON object for programs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from maskwright.cli import score
from maskwright.errors import InputError
from tests.metrics import oracle


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    score.configure(parser)
    return score.run(parser.parse_args(words))


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    truth, results = oracle.random_data(5, "mask", 100)
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


def test_the_table_shows_all_figures_in_percent(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*paths, "--json") == 0
    got = json.loads(capsys.readouterr().out)["mask"]
    assert run(*paths) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "at most 100 detections" in lines[0]
    shown = {line.split()[0]: line.split()[1] for line in lines if line.startswith("  ")}
    assert shown == {k: f"{100 * v:.1f}" if v >= 0 else "-" for k, v in got.items() if k != "per_class"}
    assert next(line for line in lines if line.startswith("unseen")).split()[1:] == ["-"] * 6


def test_lenient_drops_and_counts(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads(Path(paths[3]).read_text())
    Path(paths[3]).write_text(json.dumps([*results, results[0] | {"score": 2.0}, results[0] | {"image_id": 12345}]))
    with pytest.raises(InputError, match="2 of"):
        run(*paths)
    assert run(*paths, "--lenient") == 0
    assert "2 entries of the results dropped" in capsys.readouterr().out
    assert run(*paths, "--lenient", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dropped"] == {"truth": 0, "results": 2}
