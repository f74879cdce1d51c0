"""Optimizers' groups, update rules by hand, and learning rates that fall with depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskwright import zoo
from maskwright.structures import Taxonomy
from maskwright.train import TrainOptions
from maskwright.train.optimizer import block_levels, block_of, make_optimizer, set_rate
from tests.train.toy import Toy

ONE = Taxonomy(names=("disc",))


def groups(model: nn.Module, **options: Any) -> dict[str, dict[str, Any]]:
    """Each parameter's group by name, at a learning rate of 1."""
    optimizer = make_optimizer(model, TrainOptions(learning_rate=1.0, weight_decay=0.1, **options))
    set_rate(optimizer, 1.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in optimizer.param_groups for parameter in group["params"]}


def test_lion_moves_by_the_sign_of_the_interpolated_momentum() -> None:
    model = nn.Linear(3, 2, bias=False)
    optimizer = make_optimizer(model, TrainOptions(optimizer="lion", learning_rate=0.1, weight_decay=0.5, momentum=0.9))
    weights, momentum = model.weight.detach().clone(), torch.zeros(2, 3)
    for seed in range(3):
        gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed))
        model.weight.grad = gradient.clone()
        set_rate(optimizer, 0.1)
        optimizer.step()
        weights = weights * (1 - 0.1 * 0.5) - 0.1 * torch.sign(0.9 * momentum + 0.1 * gradient)
        momentum = 0.99 * momentum + 0.01 * gradient
        assert torch.allclose(model.weight.detach(), weights, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 3, 3)])
def test_muon_moves_weights_along_an_orthogonal_matrix(shape: tuple[int, ...]) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(shape))
    optimizer = make_optimizer(model, TrainOptions(optimizer="muon", learning_rate=0.1, weight_decay=0.0))
    gradient: Tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model.weight.grad = gradient.clone()
    set_rate(optimizer, 0.1)
    optimizer.step()
    moved = -model.weight.detach().flatten(1)
    singular = torch.linalg.svdvals(moved)
    left, _, right = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    # Newton and Schulz's five steps bring all singular values near one another, not exactly together.
    assert float(singular.max() / singular.min()) < 2
    assert float((moved * (left @ right)).sum() / (moved.norm() * (left @ right).norm())) > 0.95


def test_muon_leaves_what_does_not_decay_to_adamw() -> None:
    found = groups(Toy(norm=True), optimizer="muon")
    assert {name for name, group in found.items() if group.get("use_fallback")} == {
        "backbone.bias", "norm.weight", "norm.bias", "head.bias",
    }  # fmt: skip
    assert found["head.weight"]["weight_decay"] == 0.1


@pytest.mark.parametrize("name", ["lion", "muon", "sgd", "adamw"])
def test_every_optimizer_learns_and_resumes(name: Any) -> None:
    def run(steps: int, state: dict[str, Any] | None = None, model: nn.Module | None = None) -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)) if model is None else model
        optimizer = make_optimizer(model, TrainOptions(optimizer=name, learning_rate=0.02, weight_decay=0.0))
        set_rate(optimizer, 0.02)
        if state is not None:
            optimizer.load_state_dict(state)
        data = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(data)[:, 0], data[:, 0]).backward()
            optimizer.step()
        return model, optimizer

    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    whole, _ = run(60)
    assert float(nn.functional.mse_loss(whole(data)[:, 0], data[:, 0]).detach()) < 0.2
    half, optimizer = run(30)
    again, _ = run(30, optimizer.state_dict(), half)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("row", "options", "still"),
    [
        ("eomt-s", {"queries": 4, "side": 64}, {"backbone.pos_embed", "backbone.cls_token", "queries"}),
        ("mask2former-instance-r50", {}, {"pixel_decoder.level", "decoder.features", "decoder.places"}),
        ("queryinst-r50", {}, {"query_boxes.weight", "queries.weight"}),
    ],
)
def test_embeddings_and_positions_do_not_decay(row: str, options: dict[str, Any], still: set[str]) -> None:
    model: Any = zoo.build(row, ONE, **options)
    found = groups(model)
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    kept = {name for name, group in found.items() if group["weight_decay"] == 0 and shapes[name] > 1}
    assert still <= kept
    assert not [name for name in kept if "attn" in name or "conv" in name]


def test_rates_fall_with_depth_in_a_residual_network() -> None:
    found = groups(zoo.build("mask-rcnn-r18", ONE, frozen_stages=0), layer_decay=0.5, backbone_rate=0.1)
    rates = {name: group["lr"] for name, group in found.items()}
    blocks = sorted({block for name in rates if (block := block_of(name)) is not None})
    assert len(blocks) == 8  # of ResNet-18
    of_block = [{rates[name] for name in rates if block_of(name) == block} for block in blocks]
    assert all(len(each) == 1 for each in of_block)
    levels = [each.pop() for each in of_block]
    assert levels == pytest.approx([0.1 * 0.5 ** (9 - level) for level in range(1, 9)])
    assert rates[
        next(name for name in rates if name.endswith("conv1.weight") and block_of(name) is None)
    ] == pytest.approx(0.1 * 0.5**9)
    assert {rates[name] for name in rates if not name.startswith("backbone")} == {1.0}


def test_rates_fall_with_depth_in_a_transformer() -> None:
    model: Any = zoo.build("eomt-s", ONE, queries=4, side=64)
    names = [name for name, _ in model.named_parameters()]
    levels, top = block_levels(names)
    assert top == 13
    assert sorted({levels[name] for name in names if block_of(name) is not None}) == list(range(1, 13))
    assert all(levels[name] == 0 for name in names if "patch_embed" in name or "pos_embed" in name)
    plain = groups(model)
    assert {group["lr"] for group in plain.values()} == {1.0}
