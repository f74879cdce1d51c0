"""The parts: shapes, freezing, padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.necks.fpn import FPN
from maskwright.nn.norm import ConvNorm, make_norm, normalize_pixels


def test_backbone_levels_and_strides() -> None:
    body = TimmBackbone("resnet18")
    maps = body(torch.rand(1, 3, 64, 96))
    assert body.channels == (64, 128, 256, 512)
    assert [tuple(m.shape[-2:]) for m in maps] == [(64 // s, 96 // s) for s in body.strides]


def test_frozen_stages_take_no_gradient() -> None:
    body = TimmBackbone("resnet18", frozen_stages=2)
    frozen = {name.split(".")[1] for name, p in body.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}


def test_frozen_norm_has_no_parameters_and_ignores_the_batch() -> None:
    body = TimmBackbone("resnet18", norm="frozen").train()
    assert not any("bn" in name for name, _ in body.named_parameters())
    before = {k: v.clone() for k, v in body.state_dict().items() if "running" in k}
    body(torch.rand(2, 3, 32, 32) * 9)
    assert before
    assert all(torch.equal(v, body.state_dict()[k]) for k, v in before.items())


def test_stride_in_1x1_moves_every_stride() -> None:
    body = TimmBackbone("resnet50", stride_in_1x1=True).body
    assert body.layer2[0].conv1.stride == (2, 2)
    assert body.layer2[0].conv2.stride == (1, 1)
    assert body.layer2[1].conv1.stride == (1, 1)
    with pytest.raises(ValueError, match="bottleneck"):
        TimmBackbone("resnet18", stride_in_1x1=True)


def test_unknown_backbones_suggest_close_names() -> None:
    with pytest.raises(ValueError, match="resnet50"):
        TimmBackbone("resnet5O")


def test_fpn_levels() -> None:
    neck = FPN((8, 16, 32), 12, extra=2)
    maps = neck([torch.rand(1, c, s, s) for c, s in ((8, 16), (16, 8), (32, 4))])
    assert [tuple(m.shape[1:]) for m in maps] == [(12, s, s) for s in (16, 8, 4, 2, 1)]
    assert torch.equal(maps[3], maps[2][:, :, ::2, ::2])


def test_fpn_takes_odd_sizes() -> None:
    neck = FPN((4, 4), 4)
    maps = neck([torch.rand(1, 4, 9, 7), torch.rand(1, 4, 5, 4)])
    assert tuple(maps[0].shape[-2:]) == (9, 7)


def test_padding_is_zero_after_normalization() -> None:
    pixels = torch.full((2, 3, 8, 8), 50, dtype=torch.uint8)
    out = normalize_pixels(pixels, torch.tensor([10.0, 20.0, 30.0]), torch.tensor([2.0, 2.0, 2.0]), ((8, 8), (5, 6)))
    assert out[0].amin().item() == 10.0
    assert out[1, 0, :5, :6].amin().item() == 20.0
    assert out[1, :, 5:].abs().sum().item() == 0.0
    assert out[1, :, :, 6:].abs().sum().item() == 0.0


def test_norms_by_name() -> None:
    assert isinstance(make_norm("group", 48), torch.nn.GroupNorm)
    assert ConvNorm(3, 4).conv.bias is not None
    assert ConvNorm(3, 4, norm="batch").conv.bias is None
    with pytest.raises(ValueError, match="batch"):
        make_norm("layer", 4)  # pyright: ignore[reportArgumentType]


def test_residual_branches_count_from_the_first_step() -> None:
    """timm begins each block of a ResNet as the identity; from scratch that learns more slowly, so it is a choice."""

    def closed(**options: Any) -> int:
        body = TimmBackbone("resnet18", **options)
        return sum(not bool(m.weight.any()) for m in body.modules() if isinstance(m, nn.BatchNorm2d))

    assert closed() == 0
    assert closed(zero_init=True) == 8
    frozen = TimmBackbone("resnet18", norm="frozen")  # nothing but the identity keeps its scale
    assert sum(not bool(m.weight.any()) for m in frozen.modules() if isinstance(m, FrozenBatchNorm2d)) == 8
