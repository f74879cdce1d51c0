"""Dynamic soft labels against their definition, written as loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.ops.boxes import iou
from maskwright.ops.soft_assignment import assign_soft


def world(cells: int, objects: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    points = torch.rand(cells, 2, generator=rng) * 100
    strides = torch.tensor([8.0, 16.0])[torch.randint(0, 2, (cells,), generator=rng)]
    sides = torch.rand(cells, 4, generator=rng) * 30
    predicted = torch.cat((points - sides[:, :2], points + sides[:, 2:]), 1)
    corners = torch.rand(objects, 2, generator=rng) * 60
    boxes = torch.cat((corners, corners + 15 + 25 * torch.rand(objects, 2, generator=rng)), 1)
    logits = torch.randn(cells, classes, generator=rng)
    return points, strides, predicted, logits, boxes, torch.randint(0, classes, (objects,), generator=rng)


def by_hand(
    points: Tensor, strides: Tensor, predicted: Tensor, logits: Tensor, boxes: Tensor, labels: Tensor, top_k: int
) -> list[int]:
    used = [
        i
        for i, (x, y) in enumerate(points.tolist())
        if any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in boxes.tolist())
    ]
    overlap = iou(predicted, boxes)
    cost: dict[tuple[int, int], float] = {}
    for i in used:
        for g in range(len(boxes)):
            soft = torch.zeros(logits.shape[1])
            soft[labels[g]] = overlap[i, g]
            each = functional.binary_cross_entropy_with_logits(logits[i], soft, reduction="none")
            classes = (each * (soft - logits[i].sigmoid()).square()).sum()
            away = (points[i] - (boxes[g, :2] + boxes[g, 2:]) / 2).norm() / strides[i]
            cost[i, g] = float(classes - 3 * torch.log(overlap[i, g] + 1e-7) + 10 ** (away - 3))
    wishes: dict[int, list[int]] = {}
    for g in range(len(boxes)):
        best = sorted((float(overlap[i, g]) for i in used), reverse=True)[:top_k]
        count = max(1, int(sum(best)))
        for i in sorted(used, key=lambda i, g=g: cost[i, g])[:count]:
            wishes.setdefault(i, []).append(g)
    out = [-1] * len(points)
    for i, objects in wishes.items():
        out[i] = objects[0] if len(objects) == 1 else min(range(len(boxes)), key=lambda g, i=i: cost[i, g])
    return out


@pytest.mark.parametrize("top_k", [13, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_the_loops_say(seed: int, top_k: int) -> None:
    case = world(120, 6, seed=seed)
    objects, overlaps = assign_soft(*case, top_k=top_k)
    assert objects.tolist() == by_hand(*case, top_k)
    assert len(objects[objects >= 0].unique()) >= 4
    want = iou(case[2], case[4])
    found = torch.nonzero(objects >= 0).flatten()
    assert torch.allclose(overlaps[found], want[found, objects[found]])
    assert not overlaps[objects < 0].any()


def test_nothing_to_assign() -> None:
    points, strides, predicted, logits, boxes, labels = world(30, 3)
    objects, overlaps = assign_soft(points, strides, predicted, logits, boxes[:0], labels[:0])
    assert (objects == -1).all()
    assert not overlaps.any()
    objects, _ = assign_soft(points, strides, predicted, logits, boxes + 1000, labels)
    assert (objects == -1).all()


def test_every_object_gets_a_cell_of_its_own_where_it_can() -> None:
    points, strides, predicted, logits, boxes, labels = world(400, 5)
    apart = boxes[:, :2].new_tensor([[0.0, 0], [200, 0], [0, 200], [200, 200], [400, 0]])
    boxes = boxes + apart.repeat(1, 2)
    points = torch.cat([points + a for a in apart])
    predicted = torch.cat([predicted + a.repeat(2) for a in apart])
    objects, _ = assign_soft(points, strides.repeat(5), predicted, logits.repeat(5, 1), boxes, labels)
    assert objects[objects >= 0].unique().tolist() == [0, 1, 2, 3, 4]
