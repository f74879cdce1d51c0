"""A checkpoint in its origin's own file gives the model that the parity tests compare, by name alone."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.errors import InputError
from maskwright.structures import Taxonomy
from maskwright.zoo import load
from tests.parity.harness import Case, Reference


def write(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".pkl":
        arrays = {name: value.numpy() for name, value in state.items()}
        content = {"model": arrays, "__author__": "Detectron2 Model Zoo", "iteration": np.int64(270000)}
        path.write_bytes(pickle.dumps(content, protocol=4))
    elif "detectron2" in path.name:
        torch.save({"model": OrderedDict(state), "iteration": 5, "optimizer": {"state": {}, "param_groups": []}}, path)
    else:
        torch.save(OrderedDict(state), path)
    return path


@pytest.mark.parametrize(
    ("family", "file", "classes"),
    [
        ("d2_mask_rcnn_r50_fpn", "model_final.pkl", 80),
        ("d2_mask_rcnn_r50_fpn", "detectron2.pth", 80),
        ("torchvision_maskrcnn_r50_fpn_v2", "torchvision.pth", 90),
    ],
)
def test_load_recognizes_the_origin(family: str, file: str, classes: int, tmp_path: Path) -> None:
    case = Case.make(family)
    path = write(case.reference.state, tmp_path / file)
    model: Any = load("mask-rcnn-r50", weights=path)
    assert model.convention == case.model.convention
    assert model.resize == case.model.resize
    assert len(model.taxonomy) == classes
    assert "person" in model.taxonomy.names
    ours, wanted = model.state_dict(), case.model.state_dict()
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in ours.items())


def test_other_classes_need_a_new_head(tmp_path: Path) -> None:
    path = write(Reference.read("d2_mask_rcnn_r50_fpn").state, tmp_path / "model_final.pkl")
    mine = Taxonomy(names=("cell", "nucleus"))
    with pytest.raises(InputError, match=r"6 reshaped: .*allow_missing=\('head',\)"):
        load("mask-rcnn-r50", weights=path, taxonomy=mine)
    model: Any = load("mask-rcnn-r50", weights=path, taxonomy=mine, allow_missing=("head",))
    assert len(model.report.reshaped) == 6
    assert not model.report.missing
    with pytest.raises(InputError, match="mask-rcnn-r50"):
        load("mask-rcnn-r101", weights=path)
