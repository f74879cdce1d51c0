"""A moving average of the weights (Polyak and Juditsky 1992): steadier than the weights of any one step."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """An exponential moving average of a module's parameters and floating buffers; other buffers are copied.

    Args:
        module: what to average; it is not held.
        decay: share of the old average kept at each step; in the first steps less, ``(1 + t) / (10 + t)``, so that the
            random start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move toward the module's present weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        old: list[Tensor] = []
        new: list[Tensor] = []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                old.append(self.values[name])
                new.append(value)
            else:
                self.values[name].copy_(value)
        get_ema_multi_avg_fn(decay)(old, new, self.steps)

    @contextmanager
    def applied(self, module: nn.Module) -> Generator[None]:
        """The module with the averaged weights for a while; its own come back afterwards."""
        state = module.state_dict()
        own = {name: value.detach().clone() for name, value in state.items()}
        try:
            _copy(state, self.values)
            yield
        finally:
            _copy(state, own)

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """The average and its age."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self.steps = int(state["steps"])
        _copy(self.values, state["values"])


@torch.no_grad()
def _copy(to: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in to.items():
        value.copy_(values[name])
