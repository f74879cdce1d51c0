"""One tiny Mask R-CNN and its ONNX artifact, shared by the tests of exports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from maskwright import zoo
from maskwright.export import artifact, onnx
from maskwright.export.golden import drawn
from maskwright.structures import Taxonomy

TINY: dict[str, Any] = {
    "channels": 16,
    "mask_width": 16,
    "box_hidden": 32,
    "proposals_test": (60, 40),
    "out_indices": (1, 2),
    "strides": (4, 8, 16),
    "anchor_sizes": (16, 32, 64),
    "roi_levels": 2,
}
CLASSES = Taxonomy(names=("disc", "square", "bar"))


def network(model: object) -> torch.nn.Module:
    return cast(torch.nn.Module, model)


@pytest.fixture(scope="session")
def model() -> Any:
    torch.manual_seed(0)
    made: Any = zoo.build("mask-rcnn-r18-light", CLASSES, **TINY)
    net = network(made).train()
    with torch.no_grad():  # fresh classifiers are all but constant, and fresh norms know nothing
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
        for _ in range(20):
            net(artifact.batches([drawn((96, 128), 5)], 1, 32)[0])
    made.max_per_image, made.card = 30, {"license": "CC0-1.0"}
    net.eval()
    return made


@pytest.fixture(scope="session")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("export") / "exported"
    pictures = [drawn((150, 187), 0), drawn((171, 130), 1)]
    artifact.export(model, zoo.describe(model), "onnx", out, pictures=pictures, most=512)
    return out


@pytest.fixture
def fake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing takes the program that is there already."""
    monkeypatch.setattr(
        onnx, "write", lambda traced, out, precision="fp32": shutil.copy(folder / "model.onnx", out / "model.onnx")
    )
