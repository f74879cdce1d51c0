"""Fast NMS against its definition, written as a loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maskwright.ops.boxes import iou
from maskwright.ops.fast_nms import fast_nms
from maskwright.ops.nms import batched_nms


def crowd(count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=rng) * 60
    boxes = torch.cat((corners, corners + 10 + 30 * torch.rand(count, 2, generator=rng)), 1)
    return boxes, torch.rand(count, classes, generator=rng) ** 3


def walked(
    boxes: Tensor,
    scores: Tensor,
    *,
    threshold: float = 0.5,
    score_threshold: float = 0.05,
    top_k: int = 200,
    limit: int = 100,
    second_threshold: bool = True,
    agnostic: bool = False,
) -> list[tuple[int, int, float]]:
    found: list[tuple[int, int, float]] = []
    best, label = scores.max(1)
    for c in range(1 if agnostic else scores.shape[1]):
        value = best if agnostic else scores[:, c]
        rows = [i for i in value.argsort(descending=True, stable=True).tolist() if best[i] > score_threshold]
        rows = [i for i in rows if value[i] > score_threshold or not second_threshold][:top_k]
        for k, i in enumerate(rows):
            overlaps = iou(boxes[i : i + 1], boxes[rows[:k]])
            if k == 0 or float(overlaps.max()) <= threshold:
                found.append((i, int(label[i]) if agnostic else c, float(value[i])))
    return sorted(found, key=lambda f: -f[2])[:limit]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threshold": 0.2, "score_threshold": 0.3},
        {"second_threshold": False, "score_threshold": 0.5},
        {"agnostic": True},
        {"top_k": 5},
        {"limit": 3},
        {"top_k": 1000, "limit": 1000, "score_threshold": -1.0},
    ],
)
def test_it_is_what_the_loop_says(options: dict[str, Any]) -> None:
    boxes, scores = crowd(80, 4)
    rows, labels, values = fast_nms(boxes, scores, **options)
    want = walked(boxes, scores, **options)
    assert list(zip(rows.tolist(), labels.tolist(), values.tolist(), strict=True)) == want
    assert len(want) >= 3


def test_it_keeps_a_part_of_what_greedy_suppression_keeps() -> None:
    boxes, scores = crowd(200, 1)
    rows = fast_nms(boxes, scores, score_threshold=0.0, top_k=1000, limit=1000)[0]
    greedy = batched_nms(boxes, scores[:, 0], torch.zeros(200, dtype=torch.int64), 0.5)
    assert set(rows.tolist()) < set(greedy.tolist())


@pytest.mark.parametrize(("count", "least"), [(0, 0.05), (7, 1.0)])
def test_nothing_to_keep(count: int, least: float) -> None:
    boxes, scores = crowd(count, 3)
    rows, labels, values = fast_nms(boxes, scores, score_threshold=least)
    assert rows.shape == labels.shape == values.shape == (0,)
    assert rows.dtype == labels.dtype == torch.int64


def test_an_exported_graph_serves_other_boxes() -> None:
    class Graph(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return fast_nms(boxes, scores, score_threshold=0.4, limit=20)

    program = torch.export.export(Graph(), crowd(40, 3), strict=False).module()
    for seed in (1, 2):
        boxes, scores = crowd(40, 3, seed)
        for got, want in zip(
            program(boxes, scores), fast_nms(boxes, scores, score_threshold=0.4, limit=20), strict=True
        ):
            assert torch.equal(got, want)
