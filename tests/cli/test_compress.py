"""``maskwright compress``: what is written, measured, tuned and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.cli.main import main
from maskwright.data.formats.coco import write_coco
from maskwright.data.synthetic.discs import Discs
from maskwright.draw.image import save
from maskwright.structures import Resize, Taxonomy
from maskwright.weights import store

TINY: dict[str, Any] = {"channels": 16, "mask_width": 16, "box_hidden": 32, "resize": Resize(short=64, long=64)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    source, records = Discs(4, size=(64, 64), seed=1), []
    for i in range(len(source)):
        record, pixels = source.load(i)
        path = folder / f"{i}.png"
        save(path, pixels.permute(1, 2, 0).numpy())
        records.append(replace(record, key=path.name, path=path, ids=record.ids + 100 * i))
    write_coco(folder / "train.json", records, source.taxonomy)
    write_coco(folder / "val.json", records[:2], source.taxonomy)
    write_coco(folder / "other.json", records, Taxonomy(names=tuple(f"no {n}" for n in source.taxonomy.names)))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model: Any = zoo.build("mask-rcnn-r18", Discs(1, size=(64, 64)).taxonomy, **TINY)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    store.save(path, model.state_dict(), {**zoo.describe(model), "card": {"license": "CC0-1.0"}})
    return path


def words(checkpoint: Path, data: Path, out: Path, *more: str) -> list[str]:
    plain = ["--data", str(data / "train.json"), "--val", str(data / "val.json"), "--out", str(out)]
    return ["compress", str(checkpoint), *plain, "--device", "cpu", "--workers", "0", "--repeat", "1", *more]


def test_prune_tune_and_use(checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small"
    tuning = ["--with", "--steps", "2", "--batch-size", "2", "--evaluations", "1"]
    more = ["--prune", "0.4", "--distill", str(checkpoint), "--json", *tuning]
    assert main(words(checkpoint, data, out, *more)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "report.json").read_text())
    stages = report["stages"]
    assert list(stages) == ["before", "pruned", "tuned"]
    assert stages["tuned"]["parameters"] == stages["pruned"]["parameters"] < 0.7 * stages["before"]["parameters"]
    assert report["main"] == "mask.AP"
    assert report["lost"] == stages["before"]["mask.AP"] - stages["tuned"]["mask.AP"]
    assert set(report["speedup"]) == {"after"}
    assert report["widths"]["backbone.body.layer1.0.conv1"] == [64, 40]
    assert not report["measured_on_what_it_learned_from"]

    model: Any = zoo.load(out)
    assert model.report.complete
    assert model.backbone.body.layer1[0].conv1.weight.shape[0] == 40
    assert model.card == {"license": "CC0-1.0", "pruned": "0.4 by group"}
    start = zoo.load(out / "pruned.safetensors")
    key = "backbone.body.layer1.0.conv2.weight"
    assert not torch.equal(model.state_dict()[key], start.state_dict()[key])  # type: ignore[attr-defined]
    assert main(["predict", str(data / "0.png"), "--weights", str(out), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(words(checkpoint, data, out, "--prune", "0.4")) == 2
    assert "holds something" in capsys.readouterr().err


def test_without_tuning_a_share_of_zero_is_the_same_model(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "same"
    assert main(words(checkpoint, data, out, "--prune", "0", "--no-tuning")) == 0
    told = capsys.readouterr().out
    assert "before" in told
    assert "pruned" in told
    first, second = store.read_tensors(checkpoint), store.read_tensors(out / "best.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_pruned_model_in_int8(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    tiny = {"body": "vit_nano", "side": 64, "queries": 12, "masked_blocks": 2, "task": "instance"}
    model: Any = zoo.build("eomt-s", Discs(1, size=(64, 64)).taxonomy, **tiny, score_threshold=0.0, max_per_image=10)
    store.save(tmp_path / "tiny.safetensors", model.state_dict(), zoo.describe(model))
    out = tmp_path / "small"
    line = words(tmp_path / "tiny.safetensors", data, out, "--quantize", "int8", "--calibrate", "2", "--lose", "1")
    assert main([*line, "--prune", "0.4", "--no-tuning", "--max-per-image", "10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["stages"]) == ["before", "pruned", "quantized"]
    assert report["int8"]["without"] == []
    assert set(report["speedup"]) == {"after", "quantized"}
    quantized: Any = zoo.load(out / "exported")
    assert quantized.card["exported"] == "onnx int8"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--prune 0.4, --quantize fp16, or both"),
        (["--prune", "1"], "below 1"),
        (["--prune", "0.4", "--multiple", "0"], "--multiple must be 1 or more"),
        (["--prune", "0.4", "--no-tuning", "--distill", "embedded"], "nothing is tuned"),
        (["--quantize", "int8", "--to", "openvino"], "int8 is made for onnx"),
        (["--quantize", "int8", "--lose", "-1"], "--lose must be 0 or more"),
        (["--prune", "0.4", "--with", "--train", "x.json"], "--with gives train"),
        (["--prune", "0.4", "--with", "--no-such-option"], "--no-such-option"),
        (["--prune", "0.4", "--data", "OTHER"], "maskwright remap"),
    ],
)
def test_refusals(
    checkpoint: Path, data: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words(checkpoint, data, tmp_path / "out")
    more = [str(data / "other.json") if word == "OTHER" else word for word in more]
    try:
        code = main([*line, *more])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
