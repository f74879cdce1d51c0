"""Non-maximum suppression against torchvision, recorded outputs and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskwright.ops import nms as nms_ops
from maskwright.ops import rle
from maskwright.ops.boxes import iou
from tests.ops.test_boxes import recorded, some_boxes


def one_by_one(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    """Greedy suppression as the definition has it."""
    overlap = torchvision.ops.box_iou(boxes, boxes)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(groups[i] != groups[k] or overlap[k, i] <= threshold for k in kept):
            kept.append(i)
    return kept


def test_recorded_outputs() -> None:
    boxes, scores, classes = recorded("boxes"), recorded("nms_scores"), recorded("nms_classes")
    assert nms_ops.nms(boxes, scores, 0.5).tolist() == recorded("nms_keep_0.5").tolist()
    assert nms_ops.batched_nms(boxes, scores, classes, 0.3).tolist() == recorded("batched_nms_keep_0.3").tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 80), st.integers(1, 30), st.integers(0, 2**20), st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_groups_leave_each_other_alone(count: int, groups: int, seed: int, threshold: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    boxes = some_boxes(count, seed, 60.0) - 20
    scores = torch.randint(0, 20, (count,), generator=rng) / 20  # ties are common
    labels = torch.randint(0, groups, (count,), generator=rng)
    want = one_by_one(boxes, scores, labels, threshold)
    assert nms_ops.batched_nms(boxes, scores, labels, threshold).tolist() == want
    assert nms_ops._apart(boxes, scores, labels, threshold).tolist() == want
    assert nms_ops.nms(boxes, scores, threshold).tolist() == one_by_one(boxes, scores, labels * 0, threshold)


def test_far_apart_boxes_are_not_rounded() -> None:
    # the overlap exceeds the threshold by less than what moving 80 classes apart in float32 rounds away
    boxes = torch.tensor([[0.0, 0, 100.004, 100], [0, 0, 50.0035, 100], [0, 0, 1300, 1]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([79, 79, 0])
    for threshold in (0.50001, 0.50002):
        want = one_by_one(boxes, scores, labels, threshold)
        assert nms_ops.batched_nms(boxes, scores, labels, threshold).tolist() == want
        assert nms_ops._apart(boxes, scores, labels, threshold).tolist() == want


def test_half_precision_is_widened() -> None:
    boxes, scores = some_boxes(40), torch.rand(40, generator=torch.Generator().manual_seed(0))
    kept = nms_ops.nms(boxes, scores.bfloat16(), 0.5)
    assert kept.tolist() == nms_ops.nms(boxes, scores.bfloat16().float(), 0.5).tolist()


def test_can_be_exported() -> None:
    class Suppress(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
            return nms_ops.batched_nms(boxes, scores, groups, 0.5)

    groups = torch.arange(60) % 3
    example = (some_boxes(60), torch.linspace(0, 1, 60), groups)
    program = torch.export.export(Suppress(), example)
    other = (some_boxes(60, 5), torch.linspace(1, 0, 60), groups)
    assert torch.equal(program.module()(*other), nms_ops.batched_nms(*other, 0.5))


def soft_by_hand(boxes: Tensor, scores: Tensor, method: str, threshold: float, sigma: float) -> dict[int, float]:
    overlap = iou(boxes, boxes).double().tolist()
    left = {i: float(s) for i, s in enumerate(scores)}
    out: dict[int, float] = {}
    while left:
        best = max(left, key=lambda i: left[i])
        score = left.pop(best)
        if score < 1e-3:
            break
        out[best] = score
        for i in left:
            v = overlap[best][i]
            if method == "linear":
                left[i] *= 1 - v if v > threshold else 1
            else:
                left[i] *= float(np.exp(-(v**2) / sigma))
    return out


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms(method: str) -> None:
    boxes, scores = some_boxes(50, 3, 60.0), torch.rand(50, generator=torch.Generator().manual_seed(1))
    kept, new = nms_ops.soft_nms(boxes, scores, method=method, threshold=0.3, sigma=0.5)  # pyright: ignore[reportArgumentType]
    want = soft_by_hand(boxes, scores, method, 0.3, 0.5)
    assert kept.tolist() == list(want)
    torch.testing.assert_close(new, torch.tensor(list(want.values())), rtol=1e-4, atol=1e-6)
    assert (new.diff() <= 0).all()
    assert (new <= scores[kept] + 1e-6).all()
    alone, same = nms_ops.soft_nms(boxes, scores, groups=torch.arange(50), min_score=0.0)
    assert torch.equal(same, scores[alone])
    assert len(nms_ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))[0]) == 0
    with pytest.raises(ValueError, match="linear"):
        nms_ops.soft_nms(boxes, scores, method="cubic")  # pyright: ignore[reportArgumentType]


def test_mask_nms_recorded() -> None:
    labels, scores = recorded("mnms_labels"), recorded("mnms_scores")
    packed = recorded("mnms_masks").numpy()
    pixels = len(packed) * 8 // len(labels)
    size = next(s for s in ((60, 80), (40, 120), (30, 160), (48, 100)) if s[0] * s[1] == pixels)
    masks = np.unpackbits(packed)[: len(labels) * pixels].reshape(len(labels), *size).astype(bool)
    kept = nms_ops.mask_nms(rle.encode(masks), scores, labels, 0.5)
    assert kept.tolist() == recorded("mask_nms_keep_0.5").nonzero().flatten().tolist()


@pytest.mark.parametrize("seed", range(5))
def test_mask_nms_equals_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((30, 20, 24), bool)
    for mask in masks:
        y, x, h, w = rng.integers(0, 12), rng.integers(0, 12), rng.integers(1, 9), rng.integers(1, 12)
        mask[y : y + h, x : x + w] = True
    scores = torch.from_numpy(rng.integers(0, 10, 30) / 10)
    groups = torch.from_numpy(rng.integers(0, 3, 30))
    flat = masks.reshape(30, -1).astype(np.int64)
    inter = flat @ flat.T
    overlap = inter / (flat.sum(1)[:, None] + flat.sum(1)[None] - inter)
    for labels in (groups, torch.zeros(30, dtype=torch.int64)):
        want: list[int] = []
        for i in scores.argsort(descending=True, stable=True).tolist():
            if all(labels[i] != labels[k] or overlap[k, i] <= 0.4 for k in want):
                want.append(i)
        given_groups = labels if labels is groups else None
        assert nms_ops.mask_nms(rle.encode(masks), scores, given_groups, 0.4).tolist() == want


def test_mask_nms_of_nothing() -> None:
    assert len(nms_ops.mask_nms(rle.encode(np.zeros((0, 4, 5), bool)), torch.zeros(0), None, 0.5)) == 0
