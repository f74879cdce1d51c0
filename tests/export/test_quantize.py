"""INT8 programs of a tiny Mask R-CNN: what is quantized, what is left, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.errors import InputError
from maskwright.export import artifact
from maskwright.export.golden import drawn
from maskwright.export.quantize import Feed, fed, groups, quantize
from maskwright.infer.predictor import predict
from maskwright.storage import read_json, write_json


@pytest.fixture(scope="module")
def feeds(folder: Path) -> list[Feed]:
    program: Any = zoo.load(folder)
    with fed(program) as kept:
        for seed in range(3):
            found: Any = predict(program, drawn((150, 187), seed), resize=None, precision="32")
            assert len(found.objects())
    assert len(kept) == 3
    return kept


@pytest.fixture(scope="module")
def whole(folder: Path, feeds: list[Feed], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "whole"
    quantize(folder, out, feeds, build=zoo.build)
    return out


def integer_layers(folder: Path) -> set[str]:
    """Layers whose weights come out of a DequantizeLinear."""
    import onnx

    nodes = onnx.load(str(folder / "model.onnx")).graph.node
    made = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name for node in nodes if node.op_type in ("Conv", "ConvTranspose", "Gemm") and node.input[1] in made}


def test_parts_and_layers(folder: Path) -> None:
    parts = groups(folder)
    assert list(parts)[:2] == ["backbone.body.conv1", "backbone.body.layer1"]
    assert list(parts)[-4:] == ["neck", "rpn", "box_head", "mask_head"]
    assert len(parts["box_head"]) == 4


def test_an_int8_artifact_is_a_model(folder: Path, whole: Path, model: Any) -> None:
    document = read_json(whole / "artifact.json")
    assert document["precision"] == "int8"
    assert document["quantized"] == {"parts": list(groups(folder)), "without": []}
    assert integer_layers(whole) == {name for names in groups(folder).values() for name in names}
    assert (whole / "model.onnx").stat().st_size < 0.5 * (folder / "model.onnx").stat().st_size
    quantized: Any = zoo.load(whole)
    assert quantized.card["exported"] == "onnx int8"
    found: Any = predict(quantized, drawn((150, 187), 0), resize=None, precision="32")
    wanted: Any = predict(model, drawn((150, 187), 0), resize=None, precision="32")
    assert len(found.objects()) == pytest.approx(len(wanted.objects()), abs=5)
    again = artifact.check(whole, zoo.build).to_json()
    assert again == document["check"]


def test_parts_are_left_in_fp32(folder: Path, feeds: list[Feed], whole: Path, tmp_path: Path) -> None:
    document = quantize(folder, tmp_path / "out", feeds, build=zoo.build, without=["box_head", "mask_head"])
    assert document["quantized"]["without"] == ["box_head", "mask_head"]
    parts = groups(folder)
    assert integer_layers(tmp_path / "out").isdisjoint(parts["box_head"] + parts["mask_head"])
    assert integer_layers(tmp_path / "out") >= set(parts["neck"])


def test_what_is_given_to_a_program_is_kept(folder: Path) -> None:
    program: Any = zoo.load(folder)
    inner = program.runtime
    with fed(program) as kept:
        predict(program, drawn((150, 187), 0), resize=None)
    assert program.runtime is inner
    pixels, sizes = kept[0]
    assert pixels.dtype == torch.float32
    assert sizes.tolist() == [[150, 187]]


def test_refusals(folder: Path, whole: Path, feeds: list[Feed], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs calibration pictures"):
        quantize(folder, tmp_path / "a", [], build=zoo.build)
    with pytest.raises(InputError, match=r"parts to leave in fp32 must be of .*neck.* got nose"):
        quantize(folder, tmp_path / "a", feeds, build=zoo.build, without=["nose"])
    with pytest.raises(InputError, match="something must be quantized"):
        quantize(folder, tmp_path / "a", feeds, build=zoo.build, without=list(groups(folder)))
    with pytest.raises(InputError, match="in int8"):
        quantize(whole, tmp_path / "a", feeds, build=zoo.build)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="something else"):
        quantize(folder, tmp_path / "full", feeds, build=zoo.build)
    other = shutil.copytree(folder, tmp_path / "other")
    write_json(other / "artifact.json", {**read_json(other / "artifact.json"), "target": "openvino"})
    with pytest.raises(InputError, match="for openvino"):
        groups(other)
    assert not (tmp_path / "a").exists()
