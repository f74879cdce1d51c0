"""VoVNetV2 (Lee & Park 2020, CenterMask, section 3.4; one-shot aggregation: Lee et al. 2019).

Each block runs 3x3 convolutions one after the other and concatenates all their outputs once, at its end; an effective
squeeze-and-excitation (one fully connected layer that keeps the channels) weighs them, and blocks that repeat a stage
add their input. timm has the networks too, but without the attention in any but a stage's last block, which the
published weights of CenterMask have in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn

from maskwright.nn.norm import ConvNorm


@dataclass(frozen=True, slots=True)
class VoVNetNumbers:
    """Widths of the stem's three convolutions, of each stage's convolutions and outputs; depths; separable or not."""

    stem: tuple[int, int, int]
    widths: tuple[int, int, int, int]
    outputs: tuple[int, int, int, int]
    layers: int
    blocks: tuple[int, int, int, int]
    separable: bool = False


_WIDE, _OUT = (128, 160, 192, 224), (256, 512, 768, 1024)
_SLIM, _SLIM_OUT = (64, 80, 96, 112), (112, 256, 384, 512)

VOVNETS: Mapping[str, VoVNetNumbers] = {
    "v19_slim_dw": VoVNetNumbers((64, 64, 64), _SLIM, _SLIM_OUT, 3, (1, 1, 1, 1), True),
    "v19_dw": VoVNetNumbers((64, 64, 64), _WIDE, _OUT, 3, (1, 1, 1, 1), True),
    "v19_slim": VoVNetNumbers((64, 64, 128), _SLIM, _SLIM_OUT, 3, (1, 1, 1, 1)),
    "v19": VoVNetNumbers((64, 64, 128), _WIDE, _OUT, 3, (1, 1, 1, 1)),
    "v39": VoVNetNumbers((64, 64, 128), _WIDE, _OUT, 5, (1, 1, 2, 2)),
    "v57": VoVNetNumbers((64, 64, 128), _WIDE, _OUT, 5, (1, 1, 4, 3)),
    "v99": VoVNetNumbers((64, 64, 128), _WIDE, _OUT, 5, (1, 3, 9, 3)),
}


class Separable(nn.Sequential):
    """A 3x3 convolution of each channel alone, a 1x1 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.add_module("depth", nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False))
        self.add_module("conv", nn.Conv2d(channels, out_channels, 1, bias=False))
        self.add_module("norm", nn.BatchNorm2d(out_channels))
        self.add_module("relu", nn.ReLU(inplace=True))


class ChannelAttention(nn.Module):
    """Effective squeeze-and-excitation (figure 3 c): channels times a hard sigmoid of a layer on their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        weights = self.fc(features.mean((2, 3), keepdim=True))
        return features * nn.functional.hardsigmoid(weights)


class Aggregation(nn.Module):
    """One-shot aggregation: input and all layers' outputs concatenated, mixed by a 1x1 convolution, weighed."""

    def __init__(
        self, channels: int, width: int, out_channels: int, layers: int, *, separable: bool, attention: bool
    ) -> None:
        super().__init__()
        reduces = separable and channels != width
        self.reduce = ConvNorm(channels, width, 1, norm="batch") if reduces else nn.Identity()
        inner = [width if i or reduces else channels for i in range(layers)]
        self.layers = nn.ModuleList(
            Separable(c, width) if separable else ConvNorm(c, width, norm="batch") for c in inner
        )
        self.concat = ConvNorm(channels + layers * width, out_channels, 1, norm="batch")
        self.attention = ChannelAttention(out_channels) if attention else nn.Identity()

    def forward(self, features: Tensor, residual: bool = False) -> Tensor:
        """[B, C, H, W] -> [B, out_channels, H, W]; ``residual`` adds the input."""
        parts, hidden = [features], self.reduce(features)
        for layer in self.layers:
            hidden = layer(hidden)
            parts.append(hidden)
        out = self.attention(self.concat(torch.cat(parts, 1)))
        return out + features if residual else out


class VoVNet(nn.Module):
    """VoVNetV2: pixels [B, 3, H, W] to maps of strides 4 to 32 (those asked for), finest first.

    Args:
        name: a key of ``VOVNETS``.
        out_stages: which of C2 to C5 to return.
        norm: ``"train"``, or ``"frozen"`` for fixed affine maps.
        frozen_stages: this many leading parts, of stem, C2, C3 ..., take no gradient.
        attention: effective squeeze-and-excitation (table 3); ``False`` is the first VoVNet with residuals.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(
        self,
        name: str = "v39",
        *,
        out_stages: Sequence[int] = (3, 4, 5),
        norm: Literal["train", "frozen"] = "train",
        frozen_stages: int = 0,
        attention: bool = True,
    ) -> None:
        super().__init__()
        if name not in VOVNETS:
            raise ValueError(f"a VoVNet must be one of {', '.join(VOVNETS)}, got {name!r}")
        numbers = VOVNETS[name]
        a, b, c = numbers.stem
        later = Separable if numbers.separable else _plain
        stem = nn.Sequential(ConvNorm(3, a, stride=2, norm="batch"), later(a, b), later(b, c, 2))
        stages: list[nn.Module] = []
        channels = c
        for width, out, blocks in zip(numbers.widths, numbers.outputs, numbers.blocks, strict=True):
            parts: list[nn.Module] = []
            for _ in range(blocks):
                kind = {"separable": numbers.separable, "attention": attention}
                parts.append(Aggregation(channels, width, out, numbers.layers, **kind))
                channels = out
            stages.append(nn.ModuleList(parts))
        for module in [*stem.modules(), *(m for s in stages for m in s.modules())]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.out_stages = tuple(out_stages)
        self.channels = tuple(numbers.outputs[s - 2] for s in self.out_stages)
        self.strides = tuple(2**s for s in self.out_stages)
        self.stem: nn.Module = freeze_batch_norm_2d(stem) if norm == "frozen" else stem
        body = nn.ModuleList(stages)
        self.stages: nn.Module = freeze_batch_norm_2d(body) if norm == "frozen" else body
        for module in [stem, *stages][:frozen_stages]:
            module.requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps, finest first."""
        features, out = self.stem(pixels), []
        for stage, blocks in enumerate(self.stages.children(), start=2):
            if stage > 2:
                features = nn.functional.max_pool2d(features, 3, 2, ceil_mode=True)
            for i, block in enumerate(blocks.children()):
                features = block(features, i > 0)
            if stage in self.out_stages:
                out.append(features)
        return out


def _plain(channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    return ConvNorm(channels, out_channels, stride=stride, norm="batch")
