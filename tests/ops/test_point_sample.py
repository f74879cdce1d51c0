"""Values of maps at points, and which points are asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskwright.ops.point_sample import (
    grid_points,
    most_uncertain,
    point_sample,
    point_sample_runs,
    points_in_boxes,
    sample_uncertain,
    uncertainty,
)
from maskwright.structures import Masks


def test_centers_give_the_cells_themselves() -> None:
    maps = torch.randn(2, 3, 5, 5)
    points = grid_points(2, 5)
    assert torch.allclose(point_sample(maps, points), maps.flatten(2), atol=1e-6)
    assert torch.allclose(point_sample(maps, points.unflatten(1, (5, 5))), maps, atol=1e-6)
    assert torch.equal(point_sample(maps, points, mode="nearest"), maps.flatten(2))


def test_a_ramp_is_read_exactly_between_centers_and_fades_outside() -> None:
    ramp = torch.arange(4.0)[None, None, None].expand(1, 1, 4, 4)
    x = torch.tensor([0.5 / 4, 1.0 / 4, 2.2 / 4, 0.0, 1.1])
    found = point_sample(ramp, torch.stack((x, torch.full_like(x, 0.5)), -1)[None])[0, 0]
    assert torch.allclose(found, torch.tensor([0.0, 0.5, 1.7, 0.0, 0.3]), atol=1e-5)


def test_half_precision_keeps_its_places() -> None:
    maps, points = torch.rand(1, 1, 200, 200), torch.rand(1, 50, 2)
    exact = point_sample(maps.bfloat16().float(), points)
    assert torch.allclose(point_sample(maps.bfloat16(), points).float(), exact, atol=4e-3)


def test_no_masks_and_gradients() -> None:
    empty = torch.zeros(0, 4, 7, 7, requires_grad=True)
    points = sample_uncertain(empty[:, :1], 9)
    assert points.shape == (0, 9, 2)
    out = point_sample(empty, points)
    assert out.shape == (0, 4, 9)
    out.sum().backward()
    maps = torch.zeros(1, 1, 3, 3, requires_grad=True)
    point_sample(maps, torch.tensor([[[0.5, 0.5]]])).sum().backward()
    assert maps.grad is not None
    assert maps.grad[0, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_most_points_lie_where_the_map_is_unsure() -> None:
    logits = torch.full((2, 1, 16, 16), 9.0)
    logits[..., 8:] = -9.0  # sure on both sides of one vertical line
    points = sample_uncertain(logits, 64, generator=torch.Generator().manual_seed(0))
    assert points.shape == (2, 64, 2)
    assert ((points >= 0) & (points <= 1)).all()
    doubts = uncertainty(point_sample(logits, points))[:, 0]
    assert (doubts[:, :48].diff() <= 0).all()
    # maps fade to 0 at their edges, so that points there are less sure than inside, too
    inner = ((points - 0.5).abs() < 0.5 - 1 / 32).all(-1)[:, :6]
    assert ((points[:, :6, 0] - 0.5).abs()[inner] < 1 / 32).all()
    assert (doubts[:, :48].mean(1) > doubts[:, 48:].mean(1)).all()


def test_shares_of_importance() -> None:
    logits = torch.randn(3, 1, 8, 8)
    for importance in (0.0, 0.75, 1.0):
        assert sample_uncertain(logits, 10, importance=importance).shape == (3, 10, 2)
    with pytest.raises(ValueError, match="oversample"):
        sample_uncertain(logits, 10, oversample=0.5)


def test_the_least_sure_cells() -> None:
    logits = torch.randn(2, 1, 4, 6)
    index, places = most_uncertain(uncertainty(logits), 5)
    assert torch.equal(index, (-logits.abs()).flatten(1).topk(5).indices)
    assert torch.allclose(point_sample(logits, places)[:, 0], logits.flatten(1).gather(1, index), atol=1e-5)
    assert most_uncertain(uncertainty(logits), 100)[0].shape == (2, 24)


def test_points_in_boxes() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert points_in_boxes(torch.tensor([[[0.0, 0.0], [0.5, 1.0]]]), boxes).tolist() == [[[10, 20], [20, 60]]]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 61)])
def test_runs_are_read_as_dense_masks_are(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[0])
    dense = torch.from_numpy(rng.random((4, *size)) < 0.5)
    dense[2], dense[3] = True, False
    masks = Masks.from_dense(dense)
    points = torch.from_numpy(rng.random((4, 300, 2), np.float32) * 1.2 - 0.1)
    found = point_sample_runs(masks.counts, masks.offsets, masks.size, points)
    assert torch.allclose(found, point_sample(dense[:, None].float(), points)[:, 0], atol=1e-4)
    points[0, 0] = torch.nan
    assert point_sample_runs(masks.counts, masks.offsets, masks.size, points)[0, 0] == 0
    none = Masks.empty(size)
    assert point_sample_runs(none.counts, none.offsets, none.size, torch.zeros(0, 3, 2)).shape == (0, 3)
