"""``maskwright evaluate --corrupt``: clean and damaged pictures, and the benchmark's two summaries."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.cli.evaluate import Counter, robustness
from maskwright.cli.main import main
from maskwright.data.formats.coco import read_coco
from maskwright.data.robustness.corruptions import Corrupted
from maskwright.evaluate import evaluate, evaluate_corrupted, mean_ap


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dark pictures with two bright discs each, which the embedded weights take for nuclei."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :80]
    images, objects = [], []
    for i in range(2):
        pixels = rng.normal(20, 3, (64, 80, 3))
        images.append({"id": 5 + i, "file_name": f"{i}.png", "height": 64, "width": 80})
        for middle in (22, 57):
            disc = np.hypot(y - 30 - 4 * i, x - middle) < 12
            pixels[disc] = 150
            turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            outline = np.stack((middle + 0.5 + 12 * np.cos(turns), 30.5 + 4 * i + 12 * np.sin(turns)), 1)
            box = [middle - 11.5, 18.5 + 4 * i, 24, 24]
            objects.append({"id": len(objects) + 1, "image_id": 5 + i, "category_id": 1, "iscrowd": 0, "bbox": box,
                            "area": float(disc.sum()), "segmentation": [outline.ravel().tolist()]})  # fmt: skip
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    file = folder / "val.json"
    file.write_text(
        json.dumps({"images": images, "annotations": objects, "categories": [{"id": 1, "name": "nucleus"}]})
    )
    return file


@pytest.fixture(scope="module")
def model() -> Any:
    from maskwright import zoo

    model: Any = zoo.load("embedded")
    model.agnostic_nms = False  # the discs look like coins too, which the data has not
    return model


def test_figures_are_those_of_separate_evaluations(data: Path, model: Any) -> None:
    source = read_coco(data)
    told: list[tuple[int, int, str]] = []
    figures = evaluate_corrupted(
        model,
        source,
        corruptions=("gaussian_noise", "contrast"),
        severities=(1, 5),
        device="cpu",
        batch_size=2,
        progress=lambda *said: told.append(said),
    )
    alone = evaluate(model, source, device="cpu", batch_size=2)
    assert figures["clean"] == {kind: alone[kind] for kind in ("mask", "box")}
    assert figures["clean"]["mask"]["AP"] > 0.5
    assert (figures["images"], figures["max_per_image"]) == (2, 100)
    assert {kind: list(row) for kind, row in figures["corrupted"].items()} == {
        "gaussian_noise": ["1", "5"],
        "contrast": ["1", "5"],
    }
    noisy = evaluate(model, Corrupted(source, "gaussian_noise", 5), device="cpu", batch_size=2)
    assert figures["corrupted"]["gaussian_noise"]["5"]["mask"] == noisy["mask"]
    for kind in ("mask", "box"):
        cells = [row[s][kind]["AP"] for row in figures["corrupted"].values() for s in ("1", "5")]
        assert figures["mPC"][kind] == pytest.approx(np.mean(cells))
        assert figures["rPC"][kind] == pytest.approx(np.mean(cells) / alone[kind]["AP"])
    assert figures["corrupted"]["gaussian_noise"]["5"]["mask"]["AP"] < figures["clean"]["mask"]["AP"]
    whats = ["clean", "gaussian_noise 1", "gaussian_noise 5", "contrast 1", "contrast 5"]
    assert told == [(2 * (i + 1), 10, what) for i, what in enumerate(whats)]


def test_the_command_prints_a_table_or_one_object(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "embedded", "--data", str(data), "--device", "cpu", "--workers", "0", "--kind", "mask"]
    asked = ["--corrupt", "contrast", "fog", "--severities", "2", "4"]
    assert main([*command, *asked, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert main([*command, "--batch-size", "2", "--workers", "1", *asked]) == 0
    said = capsys.readouterr()
    assert said.err == "", "no progress bar where there is no terminal"
    lines = said.out.splitlines()
    assert lines == robustness(figures).splitlines(), "neither a second run nor batches nor workers change a figure"
    words = {line.split()[0]: line.split()[1:] for line in lines[3:]}
    assert list(words) == ["clean", "contrast", "fog", "mPC", "rPC"]
    assert lines[2].split() == ["mask", "AP", "2", "4", "mean"]
    row = [figures["corrupted"]["fog"][severity]["mask"]["AP"] for severity in ("2", "4")]
    assert words["fog"] == [f"{value:.4f}" for value in (*row, np.mean(row))]
    assert words["mPC"] == [f"{figures['mPC']['mask']:.4f}"]
    assert words["rPC"] == [f"{figures['mPC']['mask'] / figures['clean']['mask']['AP']:.4f}"]
    assert len({len(line) for line in lines[2:]}) == 1, "columns end together"


def test_pictures_without_objects_have_no_summary(data: Path, tmp_path: Path, model: Any) -> None:
    whole = json.loads(data.read_text())
    (tmp_path / "val.json").write_text(json.dumps({**whole, "annotations": []}))
    source = read_coco(tmp_path / "val.json", data.parent)
    figures = evaluate_corrupted(model, source, corruptions=("fog",), severities=(3,), device="cpu")
    assert figures["mPC"] == figures["rPC"] == {"mask": None, "box": None}
    text = robustness(json.loads(json.dumps(figures)))
    assert text.splitlines()[-1].split() == ["rPC", "-"]
    assert mean_ap([0.5, -1.0]) is None
    assert mean_ap([float("nan")]) is None
    assert mean_ap([]) is None
    assert mean_ap([0.0, 0.5]) == 0.25


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--corrupt", "mist"), "got mist"),
        (("--corrupt", "fog", "fog"), "must differ"),
        (("--corrupt", "fog", "--severities", "6"), "got 6"),
        (("--severities", "3"), "Add --corrupt"),
        (("--corrupt", "--results", "found.json"), "Leave out one"),
    ],
)
def test_what_cannot_be_asked_for(capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str) -> None:
    """Refused before anything is read: the annotation file does not exist."""
    assert main(["evaluate", "embedded", "--data", "nowhere.json", *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_without_a_kind_or_with_all_there_are_fifteen() -> None:
    import argparse

    from maskwright.cli.evaluate import _damages, configure

    parser = argparse.ArgumentParser()
    configure(parser)
    for typed in (["--corrupt"], ["--corrupt", "all"]):
        damages = _damages(parser.parse_args(["run", "--data", "a.json", *typed]))
        assert damages is not None
        assert (len(damages[0]), damages[1]) == (15, (1, 2, 3, 4, 5))
    assert _damages(parser.parse_args(["run", "--data", "a.json"])) is None


def test_the_progress_line_says_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    count = Counter()
    for done, what in ((1, "clean"), (2, "fog 1"), (3, "fog 2")):
        count(done, 3, what)
    assert "fog" in screen.getvalue()
