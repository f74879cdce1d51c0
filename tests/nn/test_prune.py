"""Channels taken out of small networks: which, by what, and that nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.nn.backbones.mit import MixFeedForward
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.chains import chains
from maskwright.nn.heads.roi_box import BoxHead
from maskwright.nn.heads.roi_mask import MaskHead
from maskwright.nn.norm import ConvNorm
from maskwright.nn.prune import BY, By, choose, cut, importance, narrow, silenced

STEM = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def tower(norm: str | None = "batch") -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(ConvNorm(3, 16, norm=norm), ConvNorm(16, 24, norm=norm), nn.Conv2d(24, 5, 1))  # type: ignore[arg-type]
    return spread(net)


def spread(net: nn.Module) -> nn.Module:  # type: ignore[misc]
    """Norms that are not the identity."""
    for module in net.modules():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name, None)
            if isinstance(value, Tensor) and hasattr(module, "running_var"):
                with torch.no_grad():
                    value.copy_(torch.rand_like(value) + (0.5 if name in ("weight", "running_var") else -0.5))
    return net.eval()


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def answers(net: nn.Module, *inputs: Tensor) -> list[Tensor]:
    out = net(*inputs)
    return [out] if isinstance(out, Tensor) else list(out)


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x, y, rtol=1e-4, atol=1e-5 * float(x.abs().max())) for x, y in zip(a, b, strict=True))


NETWORKS: dict[str, tuple[nn.Module, Tensor, int]] = {
    "tower": (tower(), STEM, 2),
    "tower without norms": (tower(None), STEM, 2),
    "basic blocks": (TimmBackbone("resnet10t"), STEM, 6),
    "bottlenecks": (TimmBackbone("resnet26"), STEM, 16),
    "groups": (TimmBackbone("resnext26ts"), STEM, 0),
    "bottlenecks of groups": (TimmBackbone("resnext50_32x4d", out_indices=(1,)), STEM, 3),
    "frozen norms": (TimmBackbone("resnet18", norm="frozen"), STEM, 8),
    "inverted residuals": (TimmBackbone("mobilenetv3_small_050"), STEM, 10),
    "box head": (BoxHead(8, 4, 3, hidden=32), torch.rand(5, 8, 4, 4), 2),
    "box head with convolutions": (
        BoxHead(8, 4, 3, kind="conv4_fc1", hidden=32, norm="batch"),
        torch.rand(5, 8, 4, 4),
        4,
    ),
    "mask head": (MaskHead(8, 3, width=16), torch.rand(5, 8, 4, 4), 5),
    "feed-forward": (MixFeedForward(8, 32), torch.rand(2, 4, 4, 8), 1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_computes_what_it_did(name: str) -> None:
    plain, inputs, count = NETWORKS[name]
    net = spread(copy.deepcopy(plain))
    assert len(chains(net)) == count
    if not count:
        with pytest.raises(InputError, match="nothing that can be pruned"):
            choose(net, 0.4)
        return
    kept = choose(net, 0.4)
    wanted = answers(silenced(net, kept), inputs)
    before = parameters(net)
    widths = cut(net, kept)
    assert widths
    assert parameters(net) < 0.8 * before
    assert close(answers(net, inputs), wanted)
    fresh = copy.deepcopy(plain)
    narrow(fresh, widths)
    fresh.load_state_dict(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(answers(fresh.eval(), inputs), answers(net, inputs), strict=True))


def test_group_norms_and_residual_sums_stay_as_they_are() -> None:
    assert not chains(tower("group"))
    net = TimmBackbone("resnet10t")
    shapes = [a.shape for a in answers(net.eval(), STEM)]
    cut(net, choose(net, 0.5))
    assert [a.shape for a in answers(net, STEM)] == shapes


def test_a_share_of_zero_changes_nothing() -> None:
    net = tower()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert cut(net, choose(net, 0.0)) == {}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("by", BY)
def test_silent_channels_go_first(by: By) -> None:
    net = tower()
    silent = torch.tensor([1, 4, 5, 6, 7, 9, 12, 15])
    with torch.no_grad():
        conv, norm = net[0].conv, net[0].norm  # type: ignore[union-attr]
        conv.weight[silent] = norm.weight[silent] = norm.bias[silent] = 0  # type: ignore[index, operator]
        net[1].conv.weight[:, silent] = 0  # type: ignore[union-attr, index, operator]
    wanted = answers(net, STEM)
    kept = choose(net, 0.5, by=by)
    assert not set(kept["0.conv"].tolist()) & set(silent.tolist())
    cut(net, {"0.conv": kept["0.conv"]})
    assert net[0].conv.weight.shape == (8, 3, 3, 3)  # type: ignore[union-attr]
    assert close(answers(net, STEM), wanted)


def test_what_channels_are_worth() -> None:
    net = tower()
    chain, layers = chains(net)["0.conv"], dict(net.named_modules())
    conv, norm, after = net[0].conv, net[0].norm, net[1].conv  # type: ignore[union-attr]
    assert torch.allclose(importance(layers, chain, "l1"), conv.weight.abs().sum((1, 2, 3)))  # type: ignore[operator, union-attr]
    assert torch.allclose(importance(layers, chain, "scale"), norm.weight.abs())  # type: ignore[arg-type, operator]
    squares = [conv.weight.square().sum((1, 2, 3)), norm.weight.square(), after.weight.square().sum((0, 2, 3))]  # type: ignore[operator, union-attr]
    assert torch.allclose(importance(layers, chain, "group"), sum(squares).sqrt())  # type: ignore[union-attr]


def test_widths_are_multiples() -> None:
    net = tower()
    assert {name: len(units) for name, units in choose(net, 0.4).items()} == {"0.conv": 8, "1.conv": 16}
    assert {name: len(units) for name, units in choose(net, 0.4, multiple=1).items()} == {"0.conv": 10, "1.conv": 14}
    assert {name: len(units) for name, units in choose(net, 0.99).items()} == {"0.conv": 8, "1.conv": 8}


def test_shared_layers_are_left_alone() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    twice = nn.Sequential(conv, nn.ReLU(), conv)
    assert not chains(twice)
    tied = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    tied[2].weight = tied[0].weight
    assert not chains(tied)


def test_a_cut_network_learns() -> None:
    net = tower().train()
    cut(net, choose(net, 0.4))
    net(STEM).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())


def test_bad_input() -> None:
    with pytest.raises(InputError, match="at least 0 and below 1"):
        choose(tower(), 1.0)
    with pytest.raises(InputError, match="l1, scale, group"):
        choose(tower(), 0.4, by="size")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"17 channels or more to keep at 0\.conv, and has 16"):
        narrow(tower(), {"0.conv": 17})
    with pytest.raises(InputError, match=r"elsewhere\.conv, and has 0"):
        narrow(tower(), {"elsewhere.conv": 4})
    for widths in ({"0.conv": 0}, {"0.conv": "8"}, {"0.conv": -3}, ["0.conv"]):
        with pytest.raises(InputError, match="whole numbers above 0"):
            narrow(tower(), widths)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has 16"):
        cut(tower(), {"0.conv": torch.arange(0)})
