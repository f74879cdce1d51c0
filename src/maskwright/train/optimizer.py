"""The optimizer: parameters in groups by whether they decay and how fast they learn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim.lion import Lion
from timm.optim.muon import Muon
from torch import nn
from torch.optim import Optimizer

from maskwright.errors import InputError
from maskwright.train.options import TrainOptions


def make_optimizer(objective: nn.Module, options: TrainOptions, *, fused: bool = False) -> Optimizer:
    """AdamW, SGD, Lion or Muon over the parameters that learn.

    Parameters with one axis or none (biases, norms, scales), embeddings and learned tokens (what is not called
    ``weight``: positions, levels, queries) do not decay, as in Swin and Mask2Former. Those of a
    module called ``backbone`` learn at ``backbone_rate`` times the rate, and its lower blocks at ``layer_decay`` times
    that of the next one above. Each group has ``rate``, its factor, for ``set_rate``.

    Lion (Chen et al. 2023, arXiv:2302.06675) has betas of ``momentum`` and 0.99; Muon (Jordan 2024) orthogonalizes the
    momentum of weights, filters as matrices, scaled as AdamW's steps are, and leaves what does not decay to AdamW.

    Raises:
        InputError: nothing learns.
    """
    embeddings = {
        id(parameter)
        for module in objective.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    named = [(name, parameter) for name, parameter in objective.named_parameters() if parameter.requires_grad]
    if not named:
        raise InputError("a model must have parameters that learn, but all of this one's are frozen.")
    levels, top = block_levels(name for name, _ in objective.named_parameters())
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        # a module's filters and matrices are called weight; what has another name stands for places or tokens
        decays = parameter.ndim > 1 and id(parameter) not in embeddings and name.endswith("weight")
        level = levels.get(name, top) if options.layer_decay < 1 else top
        groups.setdefault((name in levels, level, decays), []).append(parameter)
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "rate": (options.backbone_rate if in_backbone else 1.0) * options.layer_decay ** (top - level),
            "weight_decay": options.weight_decay if decays else 0.0,
            **({} if decays or options.optimizer != "muon" else {"use_fallback": True}),
        }
        for (in_backbone, level, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
    rate, momentum = options.learning_rate, options.momentum
    if options.optimizer == "sgd":
        return torch.optim.SGD(described, lr=rate, momentum=momentum, fused=fused)
    if options.optimizer == "lion":
        return Lion(described, lr=rate, betas=(momentum, 0.99))
    if options.optimizer == "muon":
        return Muon(described, lr=rate, momentum=momentum, nesterov=True, betas=(momentum, 0.999))
    return torch.optim.AdamW(described, lr=rate, betas=(momentum, 0.999), fused=fused)


def set_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


def block_levels(names: Iterable[str]) -> tuple[dict[str, int], int]:
    """How deep the backbone's parameters lie, and the level of what comes after the backbone.

    What comes before the first block has level 0, blocks 1 to n, what follows a block the block's own; all outside of
    the backbone n + 1 (Bao et al. 2021, arXiv:2106.08254; there a block is a transformer layer).

    Args:
        names: of parameters, in the order of their modules.
    """
    levels: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        if "backbone" not in parts:
            continue
        block = block_of(name)
        if block is not None:
            numbers.setdefault(block, len(numbers) + 1)
        levels[name] = len(numbers) if block is None else numbers[block]
    return levels, len(numbers) + 1


def block_of(name: str) -> str | None:
    """The name of the backbone's block that a parameter or module lies in; ``None`` outside of blocks.

    A block is an element of a list, the inner one where lists are nested: ``layer1.0``, ``stages_2.blocks.5``.
    """
    parts = name.split(".")
    if "backbone" not in parts:
        return None
    start = parts.index("backbone") + 1
    end = next((i for i, part in enumerate(parts) if part == "downsample" or "stem" in part), len(parts))
    numbers = [i for i in range(start, end) if parts[i].isdigit()]
    inner = [i for i in numbers if parts[i - 1] == "blocks"]
    place = next(iter([*inner, *numbers]), None)
    return None if place is None else ".".join(parts[: place + 1])
