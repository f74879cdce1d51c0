"""Losses: their values against other implementations or by hand, their gradients, and no masks at all."""

from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from maskwright.nn.losses import (
    MASK_LOSSES,
    Boundary,
    Dice,
    Focal,
    Weighted,
    focal_sum,
    lovasz_hinge,
    lovasz_softmax,
    mask_bce,
    mask_dice,
    mask_iou,
)


def half(count: int = 2, side: int = 6) -> Tensor:
    targets = torch.zeros(count, side, side)
    targets[:, : side // 2] = 1
    return targets


def random(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 8, 9, generator=rng) * 2, (torch.rand(count, 8, 9, generator=rng) > 0.6).float()


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_right_masks_cost_nothing_and_wrong_ones_more(name: str) -> None:
    loss, targets = MASK_LOSSES[name], half()
    right, unsure, wrong = (float(loss((2 * targets - 1) * scale, targets)) for scale in (30.0, 0.0, -30.0))
    assert right == pytest.approx(0, abs=1e-3)
    assert wrong > right + 0.3
    assert unsure > right + 0.04


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_no_masks_give_zero_with_a_gradient(name: str) -> None:
    logits = torch.zeros(0, 6, 6, requires_grad=True)
    loss = MASK_LOSSES[name](logits, torch.zeros(0, 6, 6))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_it_is_a_mean_over_masks(name: str) -> None:
    logits, targets = random(4)
    each = torch.stack([MASK_LOSSES[name](logits[i : i + 1], targets[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(MASK_LOSSES[name](logits, targets), each.mean())


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_descent_finds_the_mask(name: str) -> None:
    torch.manual_seed(0)
    targets = half(1, 8)
    logits = (0.1 * torch.randn(1, 8, 8)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(80):
        optimizer.zero_grad()
        MASK_LOSSES[name](logits, targets).backward()
        optimizer.step()
    assert ((logits > 0) == (targets > 0)).float().mean() > 0.95


@pytest.mark.parametrize("name", MASK_LOSSES)
@pytest.mark.parametrize("scale", [1e4, 0.0])
def test_empty_and_full_targets_stay_finite(name: str, scale: float) -> None:
    for targets in (torch.zeros(2, 6, 6), torch.ones(2, 6, 6)):
        logits = torch.full((2, 6, 6), -scale, requires_grad=True)
        loss = MASK_LOSSES[name](logits, targets)
        loss.backward()
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_dice_by_hand() -> None:
    targets = half(1, 2)
    logits = torch.zeros(1, 2, 2)  # probabilities of a half: |pt| = 1, |p|^2 = 1, |p| = 2, |t| = 2
    assert Dice(epsilon=0)(logits, targets) == pytest.approx(1 - 2 / 3)
    assert Dice(epsilon=0, squares=False)(logits, targets) == pytest.approx(1 - 2 / 4)
    assert mask_dice(logits, targets) == pytest.approx(1 - 3 / 4)
    assert mask_iou(logits, targets) == pytest.approx(1 - 2 / 4)


def test_focal_equals_torchvision() -> None:
    logits, targets = torch.randn(50, 3) * 4, (torch.rand(50, 3) > 0.7).float()
    torch.testing.assert_close(focal_sum(logits, targets), sigmoid_focal_loss(logits, targets, reduction="sum"))
    bare = sigmoid_focal_loss(logits, targets, -1, 1.5, reduction="sum")
    torch.testing.assert_close(focal_sum(logits, targets, None, 1.5), bare)


def test_focal_without_focus_is_cross_entropy() -> None:
    torch.testing.assert_close(Focal(None, 0.0)(*random(3)), mask_bce(*random(3)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_lovasz_is_one_minus_iou_where_errors_are_binary(seed: int) -> None:
    _, targets = random(3, seed)
    _, found = random(3, seed + 5000)
    overlap = ((found > 0) & (targets > 0)).flatten(1).sum(1)
    union = ((found > 0) | (targets > 0)).flatten(1).sum(1)
    # a margin of 1 either way: the hinge is 0 where right and 2 where wrong
    torch.testing.assert_close(lovasz_hinge(2 * found - 1, targets), 2 * (1 - overlap / union).mean())
    prob = torch.stack((found, 1 - found), 1).clamp(1e-12, 1).log()
    torch.testing.assert_close(
        lovasz_softmax(prob[:1], 1 - targets[:1].long()),
        _mean_jaccard(found[:1] > 0, targets[:1] > 0),
        atol=1e-5,
        rtol=0,
    )


def _mean_jaccard(found: Tensor, true: Tensor) -> Tensor:
    parts = [1 - (a & b).sum() / (a | b).sum() for a, b in ((found, true), (~found, ~true))]
    return torch.stack(parts).mean()


def test_lovasz_softmax_leaves_the_ignored_out() -> None:
    logits = torch.randn(2, 3, 5, 5, requires_grad=True)
    labels = torch.randint(0, 3, (2, 5, 5))
    labels[:, 2] = -1
    lovasz_softmax(logits, labels).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, 2].any()
    assert logits.grad[:, :, 1].any()
    none = lovasz_softmax(logits, torch.full_like(labels, -1))
    assert none.item() == 0
    assert none.requires_grad


def test_boundary_sees_outlines_only() -> None:
    true = torch.zeros(1, 16, 16)
    true[:, 3:13, 3:13] = 1
    hollow = true.clone()
    hollow[:, 7:9, 7:9] = 0
    shifted = true.roll(1, 2)
    far = true.roll(3, 2)
    loss = {
        n: float(Boundary()(m * 60 - 30, true)) for n, m in (("hollow", hollow), ("shifted", shifted), ("far", far))
    }
    assert loss["shifted"] < 0.05  # within the tolerance
    assert 0.1 < loss["hollow"] < 0.5  # an outline too many
    assert loss["far"] > 0.3
    assert float(Boundary()(torch.full((1, 8, 8), -30.0), torch.zeros(1, 8, 8))) == pytest.approx(0, abs=1e-3)


def test_weighted_adds_up() -> None:
    logits, targets = torch.zeros(1, 2, 2), half(1, 2)
    assert float(Weighted(((2.0, mask_bce), (3.0, mask_iou)))(logits, targets)) == pytest.approx(2 * log(2) + 3 * 0.5)
