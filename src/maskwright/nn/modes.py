"""How a network is used for a while: its mode, its settings, its arithmetic."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluating(network: nn.Module, settings: Mapping[str, float]) -> Generator[None]:
    """Evaluation mode, and these plain attributes; afterwards every module's mode and attribute is as it was."""
    before = {name: getattr(network, name) for name in settings}
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        for name, value in settings.items():
            setattr(network, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(network, name, value)
        # Frozen parts of a model in training are in evaluation mode: network.train() would wake them.
        for module, mode in modes:
            module.training = mode


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Automatic casting to ``"bf16"`` or ``"16"``; nothing for ``"32"``."""
    dtypes = {"bf16": torch.bfloat16, "16": torch.float16}
    return torch.autocast(device.type, dtypes[precision]) if precision in dtypes else nullcontext()
