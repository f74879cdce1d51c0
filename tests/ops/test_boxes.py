"""Boxes: against recorded detectron2 outputs, torchvision, and their own laws."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskwright.ops import boxes as box_ops
from tests.shared import shared


def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_recipe", shared("parity/recipe.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded(key: str) -> Tensor:
    return torch.from_numpy(np.load(shared("parity/ops.npz"))[key])


def some_boxes(count: int, seed: int = 0, extent: float = 200.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=rng) * extent
    return torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=rng) * extent / 2), 1)


coordinate = st.floats(-500, 500, width=32)
side = st.floats(0.5, 500, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


def table(rows: list[tuple[float, ...]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@pytest.mark.parametrize(("name", "weights"), [("rpn", (1.0, 1.0, 1.0, 1.0)), ("roi", (10.0, 10.0, 5.0, 5.0))])
def test_coder_equals_detectron2(name: str, weights: tuple[float, ...]) -> None:
    boxes = recorded("boxes")
    deltas = torch.from_numpy(recipe().normal("ops.deltas", (40, 4), 2.0)) * torch.tensor([1.0, 1, 3, 3])
    torch.testing.assert_close(box_ops.decode(deltas, boxes, weights), recorded(f"decode_{name}"), rtol=1e-5, atol=1e-4)
    encoded = box_ops.encode(recorded("level_boxes")[:40], boxes, weights)
    torch.testing.assert_close(encoded, recorded(f"encode_{name}"), rtol=1e-5, atol=1e-5)


def test_giou_equals_the_recorded_loss() -> None:
    boxes = recorded("boxes")
    losses = recorded("giou_loss_rows")
    tried = {
        name: 1 - box_ops.giou_matched(boxes, other)
        for name, other in (
            ("flip", boxes.flip(0)),
            ("roll", boxes.roll(1, 0)),
            ("level", recorded("level_boxes")[:40]),
        )
    }
    assert any(torch.allclose(loss, losses, atol=1e-5) for loss in tried.values())


def test_overlaps_equal_torchvision() -> None:
    a, b = some_boxes(30), some_boxes(40, 1)
    torch.testing.assert_close(box_ops.iou(a, b), torchvision.ops.box_iou(a, b))
    torch.testing.assert_close(box_ops.giou(a, b), torchvision.ops.generalized_box_iou(a, b))
    torch.testing.assert_close(box_ops.area(a), torchvision.ops.box_area(a))
    torch.testing.assert_close(box_ops.clip(a, (100, 150)), torchvision.ops.clip_boxes_to_image(a, (100, 150)))
    torch.testing.assert_close(box_ops.iou_matched(a, b[:30]), box_ops.iou(a, b[:30]).diagonal())
    torch.testing.assert_close(box_ops.giou_matched(a, b[:30]), box_ops.giou(a, b[:30]).diagonal())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(box, box), max_size=6))
def test_decode_undoes_encode(pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    reference, target = table([p[0] for p in pairs]), table([p[1] for p in pairs])
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = box_ops.encode(target, reference, weights)
    believed = (deltas[:, 2:] / 5 <= box_ops.DELTA_CLAMP).all(1)
    back = box_ops.decode(deltas, reference, weights)
    torch.testing.assert_close(back[believed], target[believed], rtol=1e-4, atol=0.02)


@settings(max_examples=60, deadline=None)
@given(st.lists(box, max_size=5), st.lists(box, max_size=5))
def test_overlap_laws(first: list[tuple[float, ...]], second: list[tuple[float, ...]]) -> None:
    a, b = table(first), table(second)
    overlap, general = box_ops.iou(a, b), box_ops.giou(a, b)
    assert overlap.shape == general.shape == (len(a), len(b))
    torch.testing.assert_close(overlap, box_ops.iou(b, a).T)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-5)).all()
    assert ((general > -1 - 1e-5) & (general <= overlap + 1e-5)).all()
    torch.testing.assert_close(box_ops.iou(a, a).diagonal(), torch.ones(len(a)), rtol=1e-3, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(box, max_size=5))
def test_xywh_round_trip(rows: list[tuple[float, ...]]) -> None:
    boxes = table(rows)
    torch.testing.assert_close(box_ops.from_xywh(box_ops.to_xywh(boxes)), boxes, rtol=1e-5, atol=1e-3)


def test_several_boxes_of_one_reference() -> None:
    reference = some_boxes(7)
    deltas = torch.randn(7, 12, generator=torch.Generator().manual_seed(1))
    together = box_ops.decode(deltas, reference)
    for k in range(3):
        part = slice(4 * k, 4 * k + 4)
        torch.testing.assert_close(together[:, part], box_ops.decode(deltas[:, part], reference))


def test_decode_stays_exact_and_finite() -> None:
    reference = some_boxes(5, extent=2000.0)
    half = box_ops.decode(torch.zeros(5, 4, dtype=torch.bfloat16), reference)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, reference)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(box_ops.decode(torch.zeros(5, 4), reference), reference)
        assert box_ops.iou(reference, reference).dtype == torch.float32
    assert torch.isfinite(box_ops.decode(torch.full((5, 4), 1e4), reference)).all()


def test_nothing_and_degenerate() -> None:
    none = torch.zeros(0, 4)
    assert box_ops.decode(torch.zeros(0, 8), none).shape == (0, 8)
    assert box_ops.encode(none, none).shape == (0, 4)
    point = torch.tensor([[5.0, 5, 5, 5]])
    assert box_ops.iou(point, point).item() == 0
    assert torch.isfinite(box_ops.giou(point, point)).all()
    rows = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1], [0, 0, 0, 5], [0, 0, float("nan"), 5]])
    assert box_ops.nonempty(rows).tolist() == [True, True, False, False]
    assert box_ops.nonempty(rows, 1.0).tolist() == [True, False, False, False]


def test_gradients_are_finite() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 0], [50, 50, 60, 60]], requires_grad=True)
    box_ops.giou_matched(a, torch.tensor([[1.0, 1, 3, 3], [0, 0, 0, 0], [0, 0, 1, 1]])).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
