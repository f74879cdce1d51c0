"""The optimizer of a run, with its groups of parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from maskwright.errors import InputError
from maskwright.train.options import TrainOptions


def make_optimizer(objective: nn.Module, options: TrainOptions, *, fused: bool = False) -> Optimizer:
    """AdamW or SGD over the parameters that learn.

    Parameters with one axis or none (biases, norms, scales) do not decay. Those of a module called ``backbone`` learn
    at ``backbone_rate`` times the rate. Each group has ``rate``, its factor, for ``set_rate``.

    Raises:
        InputError: nothing learns.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            place = ("backbone" in name.split("."), parameter.ndim > 1)
            groups.setdefault(place, []).append(parameter)
    if not groups:
        raise InputError("a model must have parameters that learn, but all of this one's are frozen.")
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "rate": options.backbone_rate if in_backbone else 1.0,
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(described, lr=options.learning_rate, momentum=options.momentum, fused=fused)
    return torch.optim.AdamW(described, lr=options.learning_rate, betas=(options.momentum, 0.999), fused=fused)


def set_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]
