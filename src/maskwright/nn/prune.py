"""Structured pruning: whole channels are taken out of a network's chains; it is physically smaller afterwards.

What a channel is worth (``BY``): ``l1``, the L1 norm of its filter (Li et al. 2017, arXiv:1608.08710); ``scale``, the
factor of its batch norm (Liu et al. 2017, arXiv:1708.06519), or ``l1`` where there is none; ``group``, the norm of all
parameters that belong to it in all layers of its chain (Fang et al. 2023, DepGraph, arXiv:2301.12900).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from maskwright.errors import InputError
from maskwright.nn.chains import STATISTICS, Chain, Member, chains, is_norm

By = Literal["l1", "scale", "group"]
BY: tuple[str, ...] = get_args(By)


def choose(network: nn.Module, share: float, *, by: By = "group", multiple: int = 8) -> dict[str, Tensor]:
    """What to keep of each chain: name -> int64 units, rising.

    Args:
        share: of each chain's channels to take out, in [0, 1); 0 keeps all.
        by: what a channel is worth, see above.
        multiple: the kept channels are a multiple of this where the chain is wider, as processors like it; at least
            one multiple is kept.

    Raises:
        InputError: an option out of range, or a network in which nothing can be pruned.
    """
    if not 0 <= share < 1:
        raise InputError(f"the share to prune must be at least 0 and below 1, got {share}.")
    if by not in BY or multiple < 1:
        raise InputError(f"channels are chosen by {', '.join(BY)}, in multiples from 1 on, got {by!r} and {multiple}.")
    found = chains(network)
    if not found:
        raise InputError(
            f"{type(network).__name__} has nothing that can be pruned: no residual blocks, towers or feed-forward "
            "layers whose channels only the next layer reads."
        )
    layers = dict(network.named_modules())
    out: dict[str, Tensor] = {}
    for name, chain in found.items():
        size = chain.members[0].size
        step = max(1, multiple // size) if chain.units * size > multiple else 1
        count = chain.units if share == 0 else max(step, round(chain.units * (1 - share) / step) * step)
        worth = importance(layers, chain, by)
        out[name] = worth.topk(min(count, chain.units)).indices.sort().values
    return out


@torch.no_grad()
def importance(layers: Mapping[str, nn.Module], chain: Chain, by: By) -> Tensor:
    """What each unit of a chain is worth, float32 [units].

    Args:
        layers: the network's ``named_modules``.
    """
    norms = [m for m in chain.members if is_norm(layers[m.path])]
    if by == "scale" and norms:
        factors = [_by_unit(_made(layers[m.path])[0], 0, chain.units).abs().sum(1).cpu() for m in norms]
        return torch.stack(factors).mean(0)
    if by != "group":
        first = chain.members[0]
        return _by_unit(*_made(layers[first.path]), chain.units).abs().sum(1).cpu()
    total = torch.zeros(chain.units)
    for member in chain.members:
        layer: Any = layers[member.path]
        if is_norm(layer) or member.role in ("each", "groups"):
            weight, axis = layer.weight, 0
        else:
            weight, axis = _made(layer) if member.role == "makes" else _read(layer)
        total += _by_unit(weight, axis, chain.units).square().sum(1).cpu()
    return total.sqrt()


def cut(network: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, int]:
    """Take all units but ``kept`` out of a network, in place: chain -> units left, of those that were cut.

    Raises:
        InputError: ``kept`` names a chain that the network does not have, or units that it does not have.
    """
    found, layers = chains(network), dict(network.named_modules())
    for name, units in kept.items():
        chain = found.get(name)
        if chain is None or len(units) == 0 or int(units.max()) >= chain.units:
            raise InputError(
                f"the model to prune must have {0 if len(units) == 0 else int(units.max()) + 1} channels or more to "
                f"keep at {name}, and has {0 if chain is None else chain.units}: it was pruned by another version of "
                "maskwright, or is another model."
            )
    widths: dict[str, int] = {}
    for name, units in kept.items():
        if len(units) < found[name].units:
            for member in found[name].members:
                _cut(layers[member.path], member, units)
            widths[name] = len(units)
    return widths


def narrow(network: nn.Module, widths: Mapping[str, int]) -> None:
    """Bring a fresh network to the widths that ``cut`` gave, in place, so that the cut network's weights fit.

    Raises:
        InputError: as ``cut``, or widths that are none.
    """
    known = isinstance(widths, Mapping) and all(isinstance(w, int) and w > 0 for w in widths.values())
    if not known:
        raise InputError(
            f"pruned widths must be whole numbers above 0 by the name of their layer, got {widths!r:.200}."
        )
    cut(network, {name: torch.arange(width) for name, width in widths.items()})


@torch.no_grad()
def silenced(network: nn.Module, kept: Mapping[str, Tensor]) -> nn.Module:
    """A copy, as wide as before, in which nobody listens to the units that are not kept: what ``cut`` must equal."""
    out = copy.deepcopy(network)
    layers = dict(out.named_modules())
    for name, chain in chains(out).items():
        lost = torch.ones(chain.units, dtype=torch.bool)
        lost[kept.get(name, torch.arange(chain.units))] = False
        for member in chain.members:
            if member.role == "reads":
                weight, axis = _read(layers[member.path])
                index = _channels(torch.nonzero(lost).flatten(), member.size).to(weight.device)
                weight.index_fill_(axis, index, 0.0)
    return out


def _cut(layer: Any, member: Member, units: Tensor) -> None:
    index = _channels(units, member.size)
    if is_norm(layer):
        for name in ("weight", "bias", *STATISTICS):
            _put(layer, name, 0, index)
        layer.num_features = len(index)
    elif member.role == "reads":
        _put(layer, "weight", 0 if isinstance(layer, nn.ConvTranspose2d) else 1, index)
        setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(index))
    else:
        _put(layer, "weight", 1 if isinstance(layer, nn.ConvTranspose2d) else 0, index)
        _put(layer, "bias", 0, index)
        if member.role != "makes":
            layer.in_channels = layer.in_channels // layer.groups * len(units)
            layer.groups = len(units)
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(index))


def _put(layer: nn.Module, name: str, axis: int, index: Tensor) -> None:
    value: Any = getattr(layer, name, None)
    if value is None:
        return
    part = value.detach().index_select(axis, index.to(value.device)).clone()
    setattr(layer, name, nn.Parameter(part, requires_grad=value.requires_grad) if _is_parameter(value) else part)


def _is_parameter(value: Tensor) -> bool:
    return isinstance(value, nn.Parameter)


def _channels(units: Tensor, size: int) -> Tensor:
    return (units[:, None] * size + torch.arange(size, device=units.device)).flatten()


def _made(layer: Any) -> tuple[Tensor, int]:
    return layer.weight, 1 if isinstance(layer, nn.ConvTranspose2d) else 0


def _read(layer: Any) -> tuple[Tensor, int]:
    return layer.weight, 0 if isinstance(layer, nn.ConvTranspose2d) else 1


def _by_unit(weight: Tensor, axis: int, units: int) -> Tensor:
    """[units, everything else]."""
    return weight.detach().float().movedim(axis, 0).reshape(units, -1)
