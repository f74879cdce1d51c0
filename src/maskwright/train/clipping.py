"""Gradients kept within bounds: by norm, by value, or by the norms of what they change."""

from __future__ import annotations

from math import isfinite
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from maskwright.train.options import TrainOptions
from maskwright.train.window import NotFiniteError

LEAST_NORM = 1e-3
"""Norm that a filter is taken to have at least, so that zeros can be learned from (Brock et al. 2021)."""


def clip(fabric: Fabric, network: Any, optimizer: Any, options: TrainOptions) -> dict[str, float]:
    """Clip as the options say, after a scaler's factor was taken out; at most one way is set.

    Returns:
        ``{"gradient_norm"}``, the norm before; with half precision only where it is clipped by norm.

    Raises:
        NotFiniteError: the norm is NaN or infinite, unless half precision's scaler is there, which skips such a step.
    """
    scaled = fabric.strategy.precision.precision == "16-mixed"
    if options.clip_norm:
        norm = fabric.clip_gradients(network, optimizer, max_norm=options.clip_norm, error_if_nonfinite=False)
        return _known(float(cast(Tensor, norm)), scaled)
    figures: dict[str, float] = {}
    if not scaled:
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        figures = _known(float(torch.nn.utils.get_total_norm(gradients)), scaled)
    if options.clip_value:
        fabric.clip_gradients(network, optimizer, clip_val=options.clip_value)
    elif options.clip_adaptive:
        fabric.strategy.precision.unscale_gradients(optimizer.optimizer)
        clip_adaptive(network, options.clip_adaptive)
    return figures


def _known(norm: float, scaled: bool) -> dict[str, float]:
    if not isfinite(norm) and not scaled:
        raise NotFiniteError(f"the gradient must be finite, but its norm is {norm}")
    return {"gradient_norm": norm}


@torch.no_grad()
def clip_adaptive(network: nn.Module, ratio: float) -> None:
    """Shrink each filter's gradient to ``ratio`` times the filter's norm (Brock et al. 2021, arXiv:2102.06171, eq. 3).

    A filter is what gives one output channel: norms are over all axes but the first, of a bias over its one number.
    The paper leaves the last layer out; here nothing is, as families have many last layers.
    """
    for parameter in network.parameters():
        if parameter.grad is None:
            continue
        allowed = ratio * _norms(parameter).clamp(min=LEAST_NORM)
        norms = _norms(parameter.grad)
        parameter.grad.mul_(torch.where(norms > allowed, allowed / norms.clamp(min=1e-6), 1.0))


def _norms(value: Tensor) -> Tensor:
    if value.ndim < 2:
        return value.abs()
    return value.square().sum(tuple(range(1, value.ndim)), keepdim=True).sqrt()
