"""A copy of a network for inference on processors: norms in their convolutions' weights, channels last in memory."""

from __future__ import annotations

import copy
import weakref
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

_STATISTICS = ("running_mean", "running_var", "eps")


def folded(network: nn.Module, *example: Any) -> nn.Module:
    """A copy of ``network`` in evaluation mode, in which fixed norms are part of the convolutions before them.

    Which convolution feeds which norm is seen in one run on ``example``. A pair is folded if neither is used with
    another one; a convolution of several norms (levels that share it) stays, and so does what the run does not call.
    The copy gives the same numbers but for rounding. It is no longer for training: its norms are gone.

    Args:
        network: any network of convolutions and batch norms; it stays as it is.
        example: what its ``forward`` takes.
    """
    with torch.inference_mode(False), torch.no_grad():  # what inference mode makes has no version to look at
        out = copy.deepcopy(network).eval()
        pairs = _pairs(out, example)
        parents = {child: (parent, name) for parent in out.modules() for name, child in parent.named_children()}
        for conv, norm in pairs:
            _fold(conv, norm)
            parent, name = parents[norm]
            setattr(parent, name, _rest(norm))
    return out.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _pairs(network: nn.Module, example: tuple[Any, ...]) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Convolutions and the norms that read their outputs, each of one of the other only."""
    made: dict[int, tuple[weakref.ref[Tensor], int, nn.Conv2d]] = {}
    reads: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)
    calls: dict[nn.Module, int] = defaultdict(int)

    def after(module: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made[id(output)] = (weakref.ref(output), output._version, module)
        calls[module] += 1

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tensor, version, conv = made.get(id(inputs[0]), (None, 0, None))
        same = tensor is not None and tensor() is inputs[0] and version == inputs[0]._version
        reads[module].add(conv if same else None)
        calls[module] += 1
        if same and conv is not None:
            reads[conv].add(module)

    hooks = [m.register_forward_hook(after) for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before) for m in network.modules() if _is_norm(m)]
    try:
        network(*example)
    finally:
        for hook in hooks:
            hook.remove()
    convs = [m for m in reads if isinstance(m, nn.Conv2d)]
    alone = [(conv, next(iter(reads[conv]))) for conv in convs if len(reads[conv]) == 1]
    return [
        (conv, norm)
        for conv, norm in alone
        if norm is not None and reads[norm] == {conv} and calls[norm] == calls[conv]
    ]


def _is_norm(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in _STATISTICS) and isinstance(module.running_var, Tensor)


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    """``norm(conv(x))`` as one convolution; in double precision, because scales may be large."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)


def _rest(norm: Any) -> nn.Module:
    """What a norm does besides: timm's have their activation inside."""
    inside = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if isinstance(part, nn.Module)]
    inside = [part for part in inside if not isinstance(part, nn.Identity)]
    return nn.Sequential(*inside) if inside else nn.Identity()
