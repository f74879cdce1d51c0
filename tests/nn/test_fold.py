"""Folded norms: the same numbers, and only where a convolution and a norm belong to each other."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from maskwright.nn.backbones.csp_next import CSPNeXt
from maskwright.nn.fold import folded
from maskwright.nn.heads.rtmdet import LevelTower


def trained(network: Any) -> Any:
    """``network`` with norms as a training leaves them, in evaluation mode."""
    torch.manual_seed(0)
    for module in network.modules():
        if getattr(module, "running_var", None) is not None:
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(getattr(module, "running_var", None) is not None for module in network.modules())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "make",
    [
        lambda: CSPNeXt(depth=0.167, width=0.25),
        lambda: CSPNeXt(depth=0.167, width=0.25, norm="frozen"),
        lambda: timm.create_model("mobilenetv3_small_050", features_only=True),
        lambda: timm.create_model("resnet18", features_only=True),
    ],
)
def test_maps_stay_the_same(make: Any, mode: Any) -> None:
    network, pixels = trained(make()), torch.rand(2, 3, 64, 96)
    assert norms(network) > 10
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with mode():
        expected = network(pixels)
        copy = folded(network, pixels)
        for got, wanted in zip(copy(pixels), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert norms(copy) == 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Odd(nn.Module):
    """A norm that reads a sum, one that reads a changed output, two of one convolution, and one nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.of_sum, self.of_changed, self.one, self.other, self.idle = (nn.BatchNorm2d(3) for _ in range(5))

    def forward(self, pixels: Tensor) -> Tensor:
        total = self.of_sum(self.first(pixels) + pixels) + self.of_changed(self.second(pixels).mul_(2))
        maps = self.third(pixels)
        return total + self.one(maps) + self.other(maps)


def test_what_does_not_belong_together_stays() -> None:
    network, pixels = trained(Odd()), torch.rand(1, 3, 8, 8)
    copy = folded(network, pixels)
    assert norms(copy) == 5
    with torch.no_grad():
        torch.testing.assert_close(copy(pixels), network(pixels))


def test_a_convolution_that_levels_share_keeps_their_norms() -> None:
    tower, feature = trained(LevelTower(4, 4, 2, 1, shared=True)), torch.rand(1, 4, 8, 8)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, maps: Tensor) -> Tensor:
            return self.tower(maps, 0) + self.tower(maps, 1)

    network = Both().eval()
    copy = folded(network, feature)
    assert norms(copy) == 2
    with torch.no_grad():
        torch.testing.assert_close(copy(feature), network(feature))
