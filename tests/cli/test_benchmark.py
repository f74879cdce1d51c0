"""``maskwright benchmark``: what is printed, the budget, several models, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.cli import benchmark
from maskwright.cli.main import main
from maskwright.data.formats.coco import write_coco
from maskwright.data.synthetic.discs import Discs
from maskwright.draw.image import save
from maskwright.export.golden import drawn
from maskwright.structures import Taxonomy
from maskwright.weights import store

TINY: dict[str, Any] = {
    "body": "vit_nano",
    "side": 64,
    "queries": 12,
    "masked_blocks": 2,
    "task": "instance",
    "score_threshold": 0.0,
    "max_per_image": 10,
}
QUICK = ["--repeat", "2", "--warmup", "1", "--no-memory", "--device", "cpu"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model: Any = zoo.build("eomt-s", Taxonomy(names=("disc", "bar")), **TINY)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    store.save(path, model.state_dict(), zoo.describe(model))
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    save(tmp_path / "drawn.png", drawn((90, 70), 0).permute(1, 2, 0).numpy())
    return tmp_path / "drawn.png"


def test_figures_of_one_model(checkpoint: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", str(checkpoint), "--images", str(picture), *QUICK, "--budget", "10s", "--json"]
    assert main([*words, "--score-threshold", "0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == 1
    assert told["budget"] == {"ms": 10000.0, "held": True}
    (found,) = told["models"].values()
    assert found["runs"] == 2
    assert set(found["stages"]) == {"decode", "preprocess", "network", "postprocess", "rest"}
    assert found["parameters"] == sum(p.numel() for p in torch.nn.Module.parameters(zoo.load(checkpoint)))  # type: ignore[arg-type]
    assert found["macs"] > 0
    assert found["objects"] == 10
    assert not found["random_weights"]


def test_over_the_budget(checkpoint: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(checkpoint), "--images", str(picture), *QUICK, "--budget", "0.001ms"]) == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1
    assert "over the budget of 0.001 ms at p90" in told.err
    assert "p50" in told.out


def test_several_models_are_one_table(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(checkpoint.read_bytes())
    assert main(["benchmark", str(checkpoint), str(other), "--repeat", "1", *QUICK[2:]]) == 0
    told = capsys.readouterr().out
    assert "4 pictures" in told
    assert "medians against the slowest" in told
    assert sum(line.startswith((str(checkpoint), str(other))) for line in told.splitlines()) == 2


def test_pictures_of_a_data_set(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    source = Discs(5, size=(64, 64), seed=1)
    records = []
    for i in range(len(source)):
        record, pixels = source.load(i)
        save(tmp_path / f"{i}.png", pixels.permute(1, 2, 0).numpy())
        records.append(replace(record, key=f"{i}.png", path=tmp_path / f"{i}.png", ids=record.ids + 100 * i))
    write_coco(tmp_path / "data.json", records, source.taxonomy)
    words = ["benchmark", str(checkpoint), "--data", str(tmp_path / "data.json"), "--most", "3", *QUICK, "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 3
    (tmp_path / "0.png").unlink()
    assert main(words) == 2
    assert "0.png" in capsys.readouterr().err


def test_what_is_measured_for_memory(checkpoint: Path, picture: Path) -> None:
    load = {"model": None, "commercial": False, "threads": None}
    scene: Any = benchmark._ready(str(checkpoint), picture, load, {"device": "cpu", "score_threshold": 0.0})()
    assert len(scene.segments) == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "soon"], "a time such as 100ms"),
        (["--budget=-1ms"], "a time such as 100ms"),
        (["--repeat", "0"], "--repeat must be 1 or more"),
        (["--threads", "0"], "--threads must be 1 or more"),
        (["embedded"], "named once"),
        (["--images", "nowhere.png"], "nowhere.png"),
        (["--images", "a.png", "--data", "b.json"], "not allowed with"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["benchmark", "embedded", *words])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


def test_times_as_text() -> None:
    assert [benchmark.milliseconds(text) for text in ("100ms", "0.5s", "30")] == [100, 500, 30]
