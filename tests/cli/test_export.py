"""``maskwright export``: options, what is printed, and what is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.cli.main import main
from maskwright.data.io import read_image
from maskwright.export import artifact
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model: Any = zoo.build("eomt-s", Taxonomy(names=("disc", "bar")), **TINY)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    store.save(path, model.state_dict(), {**zoo.describe(model), "card": {"license": "CC0-1.0"}})
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("pictures") / "drawn.png"
    Image.fromarray(drawn((90, 70), 0).permute(1, 2, 0).numpy()).save(path)
    return path


def test_a_checkpoint_becomes_an_artifact(
    checkpoint: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    words = ["export", str(checkpoint), "--batch", "dynamic", "--most", "256", "--golden", str(picture)]
    assert main([*words, "--out", str(tmp_path / "a"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["target"] == "onnx"
    assert told["batch"] is None
    assert told["check"]["objects"] > 0
    assert told["bytes"] == sum((tmp_path / "a" / name).stat().st_size for name in told["files"])
    loaded: Any = artifact.load(tmp_path / "a", zoo.build)
    model: Any = zoo.load(checkpoint)
    inputs = artifact.batches([read_image(picture)] * 3, 3, model.size_divisor, loaded.form.least)[0]
    with torch.no_grad():
        found = loaded.predict(loaded(inputs), inputs.geometry)
        wanted = model.predict(model(inputs), inputs.geometry)
    assert artifact.compare(found, wanted, artifact.TOLERANCES["fp32"], threshold=0.0, limit=10).holds(
        artifact.TOLERANCES["fp32"]
    )
    assert loaded.card == {"license": "CC0-1.0", "exported": "onnx fp32"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "int8"], "int8 needs calibration data: maskwright compress"),
        (["--score-threshold", "2"], "from 0 to 1"),
        (["--max-per-image", "0"], "at least 1"),
        (["--golden", "nowhere.png"], "nowhere.png"),
    ],
)
def test_unusable_options(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "embedded", "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--batch", "0"], ["--batch", "many"], ["--to", "abacus"]])
def test_options_that_argparse_refuses(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["export", "embedded", "--out", str(tmp_path / "out"), *words])


@pytest.mark.skipif(artifact.TARGETS["tensorrt"].versions().get("tensorrt") is not None, reason="tensorrt is here")
def test_a_runtime_that_is_not_installed(
    checkpoint: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(checkpoint), "--to", "tensorrt", "--golden", str(picture), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "tensorrt, not installed here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
