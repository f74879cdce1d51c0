"""Chains: channels of a network that one layer makes and only the next ones read, so that some can be taken out.

In between, layers treat each channel on its own (norms, activations, depthwise convolutions). The inputs and outputs of
a block stay as wide as they are, residual sums included. Chains are found by structure, the same in every network that
is built alike:

    residual blocks      conv1 - norm - conv2 [- norm - conv3] of ResNets (ResNeXt: by whole groups of conv2), CSPNeXt's
                         3x3 - depthwise - 1x1, MobileNet's inverted residuals with their squeeze and excitation
    towers               convolutions and linear layers that follow one another in an ``nn.Sequential``
    feed-forward layers  the hidden layer of transformers, SegFormer's with its depthwise convolution
    heads of regions     hidden layers of the box head; convolutions of the mask head
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from maskwright.nn.heads.roi_box import BoxHead
from maskwright.nn.heads.roi_mask import MaskHead

Role = Literal["makes", "each", "groups", "reads"]

STATISTICS = ("running_mean", "running_var")
_PLAIN = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.Upsample,
    nn.MaxPool2d,
    nn.AvgPool2d,
)
"""Layers that treat each channel on its own and know no number of channels."""


@dataclass(frozen=True, slots=True)
class Member:
    """A layer of a chain.

    Attributes:
        path: its name in the network.
        role: it makes the channels; treats each on its own (a norm or a depthwise convolution); does so by groups; or
            reads them.
        size: how many of its channels a unit is.
    """

    path: str
    role: Role
    size: int = 1


@dataclass(frozen=True, slots=True)
class Chain:
    """Channels that can be taken out: ``units`` of them, or groups of them; the first member makes them."""

    units: int
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The name of the layer that makes the channels."""
        return self.members[0].path


def chains(network: nn.Module) -> dict[str, Chain]:
    """All chains of a network by name, in the order of its modules.

    Layers that a network holds in two places, and weights that two layers share, belong to none.
    """
    places = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    holders = Counter(
        id(value) for module in network.modules() for value in module.parameters(recurse=False) if value is not None
    )
    layers = dict(network.named_modules())
    out: dict[str, Chain] = {}
    taken: set[tuple[str, str]] = set()
    for path, module in layers.items():
        for find in _FINDERS:
            for members in find(module):
                whole = tuple(Member(f"{path}.{m.path}" if path else m.path, m.role, m.size) for m in members)
                sides = {(m.path, "in" if m.role == "reads" else "out") for m in whole}
                parts: list[Any] = [layers[m.path] for m in whole]
                alone = all(
                    places[id(part)] == 1 and all(holders[id(v)] == 1 for v in part.parameters(recurse=False))
                    for part in parts
                )
                units = _units(parts[0]) // whole[0].size
                if alone and units > 1 and not sides & taken and _fits(parts, whole, units):
                    taken |= sides
                    out[whole[0].path] = Chain(units, whole)
    return out


def _units(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _fits(parts: list[Any], members: tuple[Member, ...], units: int) -> bool:
    """Whether every layer has the channels that it should."""
    for layer, member in zip(parts, members, strict=True):
        want = units * member.size
        if is_norm(layer):
            have = len(layer.weight) if layer.weight is not None else -1
        elif member.role == "reads":
            have = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            have = have if getattr(layer, "groups", 1) == 1 else -1
        elif member.role == "makes":
            have = _units(layer) if getattr(layer, "groups", 1) == 1 else -1
        else:
            have = layer.out_channels if layer.groups == units else -1
        if have != want:
            return False
    return True


def _residual(block: Any) -> Iterator[list[Member]]:
    """ResNet's basic blocks and bottlenecks."""
    first, second, third = (getattr(block, f"conv{i}", None) for i in (1, 2, 3))
    if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and is_norm(getattr(block, "bn1", None))):
        return
    if not isinstance(getattr(block, "aa", None), nn.Identity | None):
        return
    if second.groups == 1:
        yield [Member("conv1", "makes"), Member("bn1", "each"), Member("conv2", "reads")]
        if isinstance(third, nn.Conv2d) and is_norm(getattr(block, "bn2", None)):
            yield [Member("conv2", "makes"), Member("bn2", "each"), Member("conv3", "reads")]
    elif isinstance(third, nn.Conv2d) and is_norm(getattr(block, "bn2", None)):
        inner, outer = second.in_channels // second.groups, second.out_channels // second.groups
        made = [Member("conv1", "makes", inner), Member("bn1", "each", inner)]
        middle = [Member("conv2", "groups", outer), Member("bn2", "each", outer)]
        yield [*made, *middle, Member("conv3", "reads", outer)]


def _separable(block: Any) -> Iterator[list[Member]]:
    """CSPNeXt's blocks, and MobileNet's inverted residuals."""
    if all(isinstance(getattr(block, name, None), nn.Sequential) for name in ("first", "depth", "point")):
        made = [Member("first.conv", "makes"), Member("first.norm", "each")]
        yield [*made, Member("depth.conv", "each"), Member("depth.norm", "each"), Member("point.conv", "reads")]
    if all(isinstance(getattr(block, name, None), nn.Conv2d) for name in ("conv_pw", "conv_dw", "conv_pwl")):
        if not isinstance(getattr(block, "aa", None), nn.Identity | None):
            return
        made = [Member("conv_pw", "makes"), Member("bn1", "each"), Member("conv_dw", "each"), Member("bn2", "each")]
        squeeze: Any = getattr(block, "se", None)
        if isinstance(squeeze, nn.Identity | None):
            yield [*made, Member("conv_pwl", "reads")]
        elif all(isinstance(getattr(squeeze, name, None), nn.Conv2d) for name in ("conv_reduce", "conv_expand")):
            beside = [Member("se.conv_reduce", "reads"), Member("se.conv_expand", "makes")]
            yield [*made, *beside, Member("conv_pwl", "reads")]


def _feed_forward(block: Any) -> Iterator[list[Member]]:
    for wide, back in (("fc1", "fc2"), ("linear1", "linear2"), ("widen", "narrow")):
        layers = (getattr(block, wide, None), getattr(block, back, None))
        if all(isinstance(layer, nn.Linear) for layer in layers) and isinstance(
            getattr(block, "norm", None) if wide == "fc1" else None, nn.Identity | None
        ):
            mix = [Member("mix", "each")] if isinstance(getattr(block, "mix", None), nn.Conv2d) else []
            yield [Member(wide, "makes"), *mix, Member(back, "reads")]


def _tower(module: nn.Module) -> Iterator[list[Member]]:
    """Layers that follow one another in a plain sequence."""
    if not _is_sequence(module):
        return
    since: list[Member] | None = None
    for path, layer in _flat(module):
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            groups = getattr(layer, "groups", 1)
            if since is not None and groups > 1 and groups == layer.in_channels == layer.out_channels:
                since.append(Member(path, "each"))
                continue
            if since is not None:
                yield [*since, Member(path, "reads")]
            since = [Member(path, "makes")]
        elif is_norm(layer):
            since = None if since is None else [*since, Member(path, "each")]
        elif not isinstance(layer, _PLAIN):
            since = None


def _flat(sequence: nn.Module, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in sequence.named_children():
        if _is_sequence(child):
            yield from _flat(child, f"{before}{name}.")
        else:
            yield f"{before}{name}", child


def _regions(head: nn.Module) -> Iterator[list[Member]]:
    """The heads of two-stage detectors."""
    if isinstance(head, BoxHead):
        last = len(head.fcs) - 1
        for i in range(last):
            yield [Member(f"fcs.{i}", "makes"), Member(f"fcs.{i + 1}", "reads")]
        read = [Member("class_logits", "reads"), Member("box_deltas", "reads")]
        yield [Member(f"fcs.{last}", "makes"), *read]
    if isinstance(head, (BoxHead, MaskHead)):
        convs: list[Any] = list(head.convs)
        for i, block in enumerate(convs):
            each = [Member(f"convs.{i}.norm", "each")] if hasattr(block, "norm") else []
            if i + 1 < len(convs):
                yield [Member(f"convs.{i}.conv", "makes"), *each, Member(f"convs.{i + 1}.conv", "reads")]
            elif isinstance(head, MaskHead):
                yield [Member(f"convs.{i}.conv", "makes"), *each, Member("upsample", "reads")]
    if isinstance(head, MaskHead):
        yield [Member("upsample", "makes"), Member("predictor", "reads")]


_FINDERS: tuple[Callable[[Any], Iterator[list[Member]]], ...] = (
    _residual,
    _separable,
    _feed_forward,
    _tower,
    _regions,
)


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_norm(layer: Any) -> bool:
    return isinstance(layer, nn.Module) and all(isinstance(getattr(layer, name, None), Tensor) for name in STATISTICS)
