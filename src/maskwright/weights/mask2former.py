"""The official Mask2Former (facebookresearch/Mask2Former) in our names.

Weights: CC BY-NC 4.0 (those trained on Cityscapes and ADE20K have those sets' terms too). Pixels are RGB with
ImageNet's statistics; the ResNets have their stride in the 3x3 convolution. Frozen norms (COCO) have no
``num_batches_tracked``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.structures import Resize, Taxonomy
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.coco_panoptic_names import coco_panoptic
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

PIXELS = "sem_seg_head.pixel_decoder."
QUERIES = "sem_seg_head.predictor."
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

SWIN_SIZES: dict[tuple[int, int, int], tuple[str, str | None]] = {
    (96, 6, 7): ("swin-t", None),
    (96, 18, 7): ("swin-s", None),
    (128, 18, 7): ("swin-b", "swin_base_patch4_window7_224"),
    (128, 18, 12): ("swin-b", None),
    (192, 18, 7): ("swin-l", "swin_large_patch4_window7_224"),
    (192, 18, 12): ("swin-l", None),
}
"""(width, blocks of the third stage, window) -> (the row's suffix, the body where it is not the row's own)."""


class OfficialMask2Former:
    """Importer of Mask2Former on a ResNet or a Swin."""

    origin = "mask2former"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of the official Mask2Former with its deformable pixel decoder."""
        needed = (f"{PIXELS}transformer.level_embed", f"{QUERIES}class_embed.weight", f"{QUERIES}level_embed.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """The row for this body and, by the number of classes and queries, this task."""
        task = task_of(self._classes(state), _queries(state))
        if "backbone.stem.conv1.weight" in state:
            names = [name.removeprefix("backbone.res") for name in state if name.startswith("backbone.res")]
            ours = [f"layer{int(name[0]) - 1}{name[1:]}" for name in names]
            return f"mask2former-{task}-{resnet_model(ours, False).removeprefix('mask-rcnn-')}"
        return f"mask2former-{task}-{swin_row(state, 'backbone.layers.', '.attn.relative_position_bias_table')[0]}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's classes where their number tells, numbered ones otherwise."""
        return taxonomy_of(self._classes(state))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Queries, depths and widths from the shapes; norms frozen where the checkpoint's are."""
        options: dict[str, Any] = {
            "queries": _queries(state),
            "encoder_depth": count(state, rf"{re.escape(PIXELS)}transformer\.encoder\.layers\.(\d+)\..*"),
            "depth": count(state, rf"{re.escape(QUERIES)}transformer_ffn_layers\.(\d+)\..*"),
            "resize": Resize(short=800, long=1333),
        }
        if "backbone.stem.conv1.weight" in state:
            tracked = "backbone.stem.conv1.norm.num_batches_tracked" in state
            return {**options, "norm": "train" if tracked else "frozen"}
        body = swin_row(state, "backbone.layers.", ".attn.relative_position_bias_table")[1]
        return {**options, "body": body} if body else options

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        state = {n.replace("predictor.static_query.", "predictor.query_feat."): v for n, v in state.items()}
        rules = [
            Rule(r"criterion\.empty_weight|pixel_mean|pixel_std", None),
            *_pixel_rules(),
            *_query_rules(),
            *_resnet_rules(),
            *official_swin_rules(),
        ]
        return {
            **rename(split_projections(state), rules),
            "pixel_mean": torch.tensor(MEAN),
            "pixel_std": torch.tensor(STD),
        }

    def _classes(self, state: Mapping[str, Any]) -> int:
        return int(state[f"{QUERIES}class_embed.weight"].shape[0]) - 1


def _queries(state: Mapping[str, Any]) -> int:
    return int(state[f"{QUERIES}query_embed.weight"].shape[0])


def task_of(classes: int, queries: int) -> str:
    """What published models with so many classes do: 80 and 8 are instances of COCO and Cityscapes, 133 COCO panoptic.

    Cityscapes' 19 classes and ADE20K's 150 are semantic with 100 queries and panoptic with 200, though there are a few
    panoptic ones with 100. One network does all three: build another row, or set ``model.task``.
    """
    if classes in (8, 40, 80, 100):
        return "instance"
    return "semantic" if classes in (19, 150) and queries == 100 else "panoptic"


def taxonomy_of(classes: int) -> Taxonomy:
    """COCO's things for 80 outputs, its things and stuff for 133, numbered classes otherwise."""
    return coco_panoptic() if classes == 133 else taxonomy_for(classes)


def count(state: Mapping[str, Any], pattern: str) -> int:
    """How many layers there are whose number ``pattern`` captures."""
    known = re.compile(pattern)
    found = {int(match[1]) for match in map(known.fullmatch, state) if match}
    return max(found, default=-1) + 1


def swin_row(state: Mapping[str, Any], stages: str, table: str) -> tuple[str, str | None]:
    """Which Swin it is: the row's suffix, and the body where it is not the row's own.

    Args:
        stages: what the stages' names begin with. table: what the bias tables' names end with.
    """
    first = state[f"{stages}0.blocks.0{table}"]
    blocks = count(state, rf"{re.escape(stages)}2\.blocks\.(\d+)\..*")
    heads, window = int(first.shape[1]), (round(int(first.shape[0]) ** 0.5) + 1) // 2
    known = SWIN_SIZES.get((heads * 32, blocks, window))
    if known is None:
        raise InputError(
            f"the checkpoint's Swin must be tiny, small, base or large, got {heads} heads, {blocks} blocks in the "
            f"third stage and windows of {window}. Build the model with that body and convert with the importer."
        )
    return known


def split_projections(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """``in_proj_weight`` and ``in_proj_bias``, three matrices in one, as those of query, key and value."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        stem, found, kind = name.rpartition("in_proj_")
        if not found:
            out[name] = value
            continue
        for part, tensor in zip(("query", "key", "value"), value.chunk(3), strict=True):
            out[f"{stem}{part}.{kind}"] = tensor
    return out


def _pixel_rules() -> list[Rule]:
    pixels = re.escape(PIXELS)
    layer, ours = rf"{pixels}transformer\.encoder\.layers\.(\d+)\.", r"pixel_decoder.layers.\1."
    return [
        Rule(rf"{pixels}input_proj\.(\d)\.([01])\.(\w+)", r"pixel_decoder.project.\1.\2.\3"),
        Rule(rf"{pixels}transformer\.level_embed", "pixel_decoder.level"),
        Rule(rf"{layer}self_attn\.sampling_offsets\.(\w+)", rf"{ours}attention.offsets.\2"),
        Rule(rf"{layer}self_attn\.attention_weights\.(\w+)", rf"{ours}attention.weights.\2"),
        Rule(rf"{layer}self_attn\.(value|output)_proj\.(\w+)", rf"{ours}attention.\2.\3"),
        Rule(rf"{layer}(norm[12]|linear[12])\.(\w+)", rf"{ours}\2.\3"),
        Rule(rf"{pixels}adapter_1\.weight", "pixel_decoder.lateral.0.weight"),
        Rule(rf"{pixels}adapter_1\.norm\.(\w+)", r"pixel_decoder.lateral.1.\1"),
        Rule(rf"{pixels}layer_1\.weight", "pixel_decoder.smooth.0.weight"),
        Rule(rf"{pixels}layer_1\.norm\.(\w+)", r"pixel_decoder.smooth.1.\1"),
        Rule(rf"{pixels}mask_features\.(\w+)", r"pixel_decoder.mask_features.\1"),
    ]


def _query_rules() -> list[Rule]:
    queries = re.escape(QUERIES)
    rules: list[Rule] = []
    for theirs, attention, ours in (("self", "self_attn", "among"), ("cross", "multihead_attn", "across")):
        layer = rf"{queries}transformer_{theirs}_attention_layers\.(\d+)\."
        rules += [
            Rule(rf"{layer}{attention}\.(query|key|value)\.(\w+)", rf"decoder.layers.\1.{ours}.\2.\3"),
            Rule(rf"{layer}{attention}\.out_proj\.(\w+)", rf"decoder.layers.\1.{ours}.output.\2"),
            Rule(rf"{layer}norm\.(\w+)", rf"decoder.layers.\1.{ours}_norm.\2"),
        ]
    feed = rf"{queries}transformer_ffn_layers\.(\d+)\."
    return [
        *rules,
        Rule(rf"{feed}linear1\.(\w+)", r"decoder.layers.\1.feed.widen.\2"),
        Rule(rf"{feed}linear2\.(\w+)", r"decoder.layers.\1.feed.narrow.\2"),
        Rule(rf"{feed}norm\.(\w+)", r"decoder.layers.\1.feed.norm.\2"),
        Rule(rf"{queries}decoder_norm\.(\w+)", r"decoder.norm.\1"),
        Rule(rf"{queries}query_feat\.weight", "decoder.features"),
        Rule(rf"{queries}query_embed\.weight", "decoder.places"),
        Rule(rf"{queries}level_embed\.weight", "decoder.level"),
        Rule(rf"{queries}class_embed\.(\w+)", r"decoder.class_logits.\1"),
        Rule(rf"{queries}mask_embed\.layers\.(\d)\.(\w+)", r"decoder.mask_embedding.linear\1.\2"),
    ]


def _resnet_rules() -> list[Rule]:
    """detectron2's ResNet; its input is RGB here."""
    rules = [
        Rule(r"backbone\.stem\.conv1\.weight", "backbone.body.conv1.weight"),
        Rule(r"backbone\.stem\.conv1\.norm\.(\w+)", r"backbone.body.bn1.\1"),
    ]
    for stage in range(2, 6):
        block, ours = rf"backbone\.res{stage}\.(\d+)\.", rf"backbone.body.layer{stage - 1}.\g<1>."
        rules += [
            Rule(rf"{block}shortcut\.weight", f"{ours}downsample.0.weight"),
            Rule(rf"{block}shortcut\.norm\.(\w+)", rf"{ours}downsample.1.\2"),
            Rule(rf"{block}conv(\d)\.weight", rf"{ours}conv\2.weight"),
            Rule(rf"{block}conv(\d)\.norm\.(\w+)", rf"{ours}bn\2.\3"),
        ]
    return rules


def official_swin_rules() -> list[Rule]:
    """Swin-Transformer-Object-Detection's Swin, as MaskFormer and Mask2Former have it: merging ends a stage there."""
    merging = [
        Rule(rf"backbone\.layers\.{i}\.downsample\.(.+)", rf"backbone.layers.{i + 1}.downsample.\1") for i in range(3)
    ]
    return [
        Rule(r"backbone\..*(relative_position_index|attn_mask)", None),
        *merging,
        Rule(r"backbone\.norm(\d)\.(\w+)", r"backbone.norms.\1.\2"),
    ]
