"""The other runtimes: OpenVINO from a program that is there already, and compiled PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maskwright import zoo
from maskwright.errors import InputError
from maskwright.export import artifact, targets
from maskwright.export.golden import drawn
from maskwright.metrics.alike import TOLERANCES
from maskwright.structures import Taxonomy

PICTURES = [drawn((150, 187), 0)]


def test_openvino(model: Any, fake: None, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out, precision = tmp_path / "out", "fp16"
    document = artifact.export(
        model, zoo.describe(model), "openvino", out, precision=precision, pictures=PICTURES, most=512
    )
    assert sorted(document["files"]) == ["golden.npz", "model.bin", "model.xml"]
    assert document["check"]["objects"] > 0
    assert artifact.check(out, zoo.build).holds(TOLERANCES[precision])
    with pytest.raises(InputError, match="runs on cpu"):
        artifact.load(out, zoo.build, device="cuda")
    program = (out / "model.xml").read_text().replace('type="RoIAlign"', 'type="Sorcery"')
    program = program.replace('type="ROIAlign"', 'type="Sorcery"')
    (out / "model.xml").write_text(program)
    stored = json.loads((out / artifact.NAME).read_text())
    stored["files"]["model.xml"] = artifact._facts(out / "model.xml")
    (out / artifact.NAME).write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"OpenVINO .* cannot load"):
        artifact.load(out, zoo.build)


def test_compiled_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"body": "vit_nano", "side": 64, "queries": 12, "masked_blocks": 1, "task": "instance"}
    made: Any = zoo.build("eomt-s", Taxonomy(names=("disc", "bar")), **options, score_threshold=0.0)
    document = artifact.export(made.eval(), zoo.describe(made), "torch", tmp_path / "out", pictures=PICTURES, most=512)
    assert sorted(document["files"]) == ["golden.npz", "model.pt2"]
    assert document["check"]["objects"] > 0
    assert artifact.check(tmp_path / "out", zoo.build).holds(TOLERANCES["fp32"])


def test_a_compiler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        targets.target("torch").write(None, tmp_path, "fp32")  # type: ignore[arg-type]


def test_tensorrt_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for ask in (lambda t: t.write(None, tmp_path, "fp32"), lambda t: t.start(tmp_path, torch.device("cuda"), "fp32")):
        with pytest.raises(InputError, match="tensorrt, not installed here"):
            ask(targets.target("tensorrt"))
