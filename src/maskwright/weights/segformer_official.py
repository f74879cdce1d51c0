"""SegFormer as its authors (NVlabs/SegFormer) and mmsegmentation 1.x name it, in our names.

The authors' weights, and what is derived from them, are under the NVIDIA Source Code License for SegFormer, for
research and evaluation only. Pixels are RGB with ImageNet's statistics. The authors' decoder joins its levels coarsest
first, mmsegmentation's and ours finest first; mmsegmentation's has norms after its first layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.nn.backbones.mit import MITS
from maskwright.structures import Resize, Taxonomy
from maskwright.weights.detr import statistics
from maskwright.weights.mask2former import count, split_projections
from maskwright.weights.rename import Rule, rename
from maskwright.weights.scene_names import scene_classes


class OfficialSegFormer:
    """Importer of the authors' SegFormer."""

    origin = "SegFormer"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of the authors' SegFormer with its decoder."""
        return all(name in state for name in ("backbone.patch_embed1.proj.weight", "decode_head.linear_c4.proj.weight"))

    def model(self, state: Mapping[str, Any]) -> str:
        """``segformer-b0`` to ``-b5``, by width and depths."""
        return segformer_row(rename(state, _official_rules()))

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """ADE20K's classes for 150 outputs, Cityscapes' for 19, numbered ones for most other numbers."""
        return scene_classes(int(state["decode_head.linear_pred.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The decoder's width from its shape, and the pictures' size by the number of classes."""
        return {
            "width": int(state["decode_head.linear_pred.weight"].shape[1]),
            "resize": segformer_resize(self.model(state), int(state["decode_head.linear_pred.weight"].shape[0])),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        return {**rename(_split_key_value(state), _official_rules()), **statistics()}


class MMSegmentationSegFormer:
    """Importer of mmsegmentation's SegFormer."""

    origin = "mmsegmentation SegFormer"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of mmsegmentation's SegFormer with its decoder."""
        needed = ("backbone.layers.0.0.projection.weight", "decode_head.fusion_conv.conv.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``segformer-b0`` to ``-b5``, by width and depths."""
        return segformer_row(rename(state, _mmsegmentation_rules()))

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """ADE20K's classes for 150 outputs, Cityscapes' for 19, numbered ones for most other numbers."""
        return scene_classes(int(state["decode_head.conv_seg.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """mmsegmentation's epsilon and norms; the decoder's width from its shape."""
        return {
            "epsilon": (1e-6, 1e-6),
            "level_norm": True,
            "width": int(state["decode_head.conv_seg.weight"].shape[1]),
            "resize": segformer_resize(self.model(state), int(state["decode_head.conv_seg.weight"].shape[0])),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        return {**rename(split_projections(state), _mmsegmentation_rules()), **statistics()}


def segformer_row(ours: Mapping[str, Any]) -> str:
    """The zoo's name of the variant that an encoder in our names belongs to.

    Raises:
        InputError: its widths and depths are those of no variant.
    """
    width = int(ours["backbone.stages.0.embed.conv.weight"].shape[0])
    depths = tuple(count(ours, rf"backbone\.stages\.{i}\.blocks\.(\d+)\..*") for i in range(4))
    for name, size in MITS.items():
        if name != "mit_nano" and (size.widths[0], size.depths) == (width, depths):
            return f"segformer-{name.removeprefix('mit_')}"
    raise InputError(
        f"the checkpoint's encoder must be a MiT-B0 to -B5, but it is {width} wide and has {depths} blocks. "
        "Build the model yourself and convert the names with its importer."
    )


def segformer_resize(model: str, classes: int) -> Resize:
    """How pictures were brought in where ``classes`` are Cityscapes' 19 or, as for all others, ADE20K's 150."""
    if classes == 19:
        return Resize(short=1024, long=2048)
    return Resize(short=640 if model == "segformer-b5" else 512, long=2048)


def coarse_first(weight: Tensor) -> Tensor:
    """[K, L * K, 1, 1] of four levels, coarsest first, to finest first."""
    return torch.cat(weight.chunk(4, 1)[::-1], 1)


def as_convolution(weight: Tensor) -> Tensor:
    """[K, C] of a linear layer as [K, C, 1, 1]."""
    return weight[..., None, None]


def _as_linear(weight: Tensor) -> Tensor:
    """[K, C, 1, 1] of a convolution as [K, C]."""
    return weight.flatten(1)


def _split_key_value(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """``attn.kv``, two matrices in one, as ``attn.k`` and ``attn.v``."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        match = re.fullmatch(r"(backbone\..*\.attn\.)kv\.(weight|bias)", name)
        if match is None:
            out[name] = value
            continue
        out[f"{match[1]}k.{match[2]}"], out[f"{match[1]}v.{match[2]}"] = value.chunk(2)
    return out


def _official_rules() -> list[Rule]:
    rules = [Rule(r".*num_batches_tracked|decode_head\.conv_seg\.\w+", None)]
    for i in range(4):
        theirs, stage = rf"backbone\.block{i + 1}\.(\d+)\.", f"backbone.stages.{i}."
        ours = rf"{stage}blocks.\1."
        rules += [
            Rule(rf"backbone\.patch_embed{i + 1}\.proj\.(\w+)", rf"{stage}embed.conv.\1"),
            Rule(rf"backbone\.patch_embed{i + 1}\.norm\.(\w+)", rf"{stage}embed.norm.\1"),
            Rule(rf"backbone\.norm{i + 1}\.(\w+)", rf"{stage}norm.\1"),
            Rule(rf"{theirs}(norm[12])\.(\w+)", rf"{ours}\2.\3"),
            Rule(rf"{theirs}attn\.q\.(\w+)", rf"{ours}attention.attention.query.\2"),
            Rule(rf"{theirs}attn\.k\.(\w+)", rf"{ours}attention.attention.key.\2"),
            Rule(rf"{theirs}attn\.v\.(\w+)", rf"{ours}attention.attention.value.\2"),
            Rule(rf"{theirs}attn\.proj\.(\w+)", rf"{ours}attention.attention.output.\2"),
            Rule(rf"{theirs}attn\.sr\.(\w+)", rf"{ours}attention.reduce.\2"),
            Rule(rf"{theirs}attn\.norm\.(\w+)", rf"{ours}attention.norm.\2"),
            Rule(rf"{theirs}mlp\.fc1\.(\w+)", rf"{ours}feed.widen.\2"),
            Rule(rf"{theirs}mlp\.fc2\.(\w+)", rf"{ours}feed.narrow.\2"),
            Rule(rf"{theirs}mlp\.dwconv\.dwconv\.(\w+)", rf"{ours}feed.mix.\2"),
            Rule(rf"decode_head\.linear_c{i + 1}\.proj\.weight", f"head.levels.{i}.weight", as_convolution),
            Rule(rf"decode_head\.linear_c{i + 1}\.proj\.bias", f"head.levels.{i}.bias"),
        ]
    return [
        *rules,
        Rule(r"decode_head\.linear_fuse\.conv\.weight", "head.join.weight", coarse_first),
        Rule(r"decode_head\.linear_fuse\.bn\.(\w+)", r"head.norm.\1"),
        Rule(r"decode_head\.linear_pred\.(\w+)", r"head.predictor.\1"),
    ]


def _mmsegmentation_rules() -> list[Rule]:
    stage, block = r"backbone\.layers\.(\d)\.", r"backbone\.layers\.(\d)\.1\.(\d+)\."
    ours, blocks = r"backbone.stages.\1.", r"backbone.stages.\1.blocks.\2."
    feed: list[Rule] = []
    for theirs, name, change in ((0, "widen", _as_linear), (1, "mix", None), (4, "narrow", _as_linear)):
        feed += [
            Rule(rf"{block}ffn\.layers\.{theirs}\.weight", f"{blocks}feed.{name}.weight", change),
            Rule(rf"{block}ffn\.layers\.{theirs}\.bias", f"{blocks}feed.{name}.bias"),
        ]
    return [
        Rule(r".*num_batches_tracked|auxiliary_head\..*|data_preprocessor\..*", None),
        Rule(rf"{stage}0\.projection\.(\w+)", rf"{ours}embed.conv.\2"),
        Rule(rf"{stage}0\.norm\.(\w+)", rf"{ours}embed.norm.\2"),
        Rule(rf"{stage}2\.(\w+)", rf"{ours}norm.\2"),
        Rule(rf"{block}(norm[12])\.(\w+)", rf"{blocks}\3.\4"),
        Rule(rf"{block}attn\.attn\.(query|key|value)\.(\w+)", rf"{blocks}attention.attention.\3.\4"),
        Rule(rf"{block}attn\.attn\.out_proj\.(\w+)", rf"{blocks}attention.attention.output.\3"),
        Rule(rf"{block}attn\.sr\.(\w+)", rf"{blocks}attention.reduce.\3"),
        Rule(rf"{block}attn\.norm\.(\w+)", rf"{blocks}attention.norm.\3"),
        *feed,
        Rule(r"decode_head\.convs\.(\d)\.conv\.weight", r"head.levels.\1.weight"),
        Rule(r"decode_head\.convs\.(\d)\.bn\.(\w+)", r"head.level_norms.\1.\2"),
        Rule(r"decode_head\.fusion_conv\.conv\.weight", "head.join.weight"),
        Rule(r"decode_head\.fusion_conv\.bn\.(\w+)", r"head.norm.\1"),
        Rule(r"decode_head\.conv_seg\.(\w+)", r"head.predictor.\1"),
    ]
