"""facebookresearch/detr in our names: boxes only (``detr-r50``, ``-r101``) or with the mask head.

Origin: facebookresearch/detr, Apache-2.0. Classes are COCO's category ids, 0 and the gaps included: 91 outputs for
boxes, 250 for panoptic segmentation. Pixels are RGB with ImageNet's statistics; norms are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.structures.taxonomy import numbered
from maskwright.weights.coco_panoptic_names import coco_ids
from maskwright.weights.mask2former import count, split_projections
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class OfficialDETR:
    """Importer of the official DETR on a ResNet, with or without its mask head."""

    origin = "detr"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of the official DETR."""
        needed = ("backbone.0.body.conv1.weight", "bbox_embed.layers.0.weight", "query_embed.weight")
        return all(name in state or f"detr.{name}" in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``detr-r50`` or ``-r101``, and ``detr-panoptic-r50`` where there is a mask head."""
        names = [name.partition("backbone.0.body.")[2] for name in state if "backbone.0.body." in name]
        return detr_row(names, has_masks(state))

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's ids for 91 and 250 outputs, numbered classes otherwise."""
        return detr_classes(int(plain(state)["class_embed.weight"].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Frozen norms; depths and queries from the shapes, ``body`` where the row has another."""
        known = plain(state)
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "masks": has_masks(state),
            "queries": int(known["query_embed.weight"].shape[0]),
            "encoder_depth": count(known, r"transformer\.encoder\.layers\.(\d+)\..*"),
            "decoder_depth": count(known, r"transformer\.decoder\.layers\.(\d+)\..*"),
            "resize": Resize(short=800, long=1333),
            **deep_body(known, "backbone.0.body.layer3.22.conv1.weight", has_masks(state)),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        rules = [
            Rule(r".*num_batches_tracked", None),
            Rule(r"backbone\.0\.body\.(.+)", r"backbone.body.\1"),
            *transformer_rules("transformer."),
            Rule(r"query_embed\.weight", "queries.weight"),
            Rule(r"input_proj\.(\w+)", r"project.\1"),
            Rule(r"class_embed\.(\w+)", r"class_logits.\1"),
            Rule(r"bbox_embed\.layers\.(\d)\.(\w+)", r"box.linear\1.\2"),
            *mask_rules(),
        ]
        return {**rename(split_projections(plain(state)), rules), **statistics()}


def plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The names without the ``detr.`` that the mask head's wrapper puts before them."""
    return {name.removeprefix("detr."): value for name, value in state.items()}


def has_masks(state: Mapping[str, Any]) -> bool:
    """Whether there is a mask head."""
    return "mask_head.lay1.weight" in state


def detr_row(names: list[str], masks: bool) -> str:
    """The row for a ResNet's parameter names; the panoptic row takes any body."""
    depth = resnet_model(names, False).removeprefix("mask-rcnn-")
    return "detr-panoptic-r50" if masks else f"detr-{depth}"


def deep_body(state: Mapping[str, Any], block: str, masks: bool) -> dict[str, str]:
    """``body`` for a mask head on ResNet-101, which has no row of its own; ``block`` is one that only it has."""
    return {"body": "resnet101"} if masks and block in state else {}


def detr_classes(outputs: int) -> Taxonomy:
    """COCO's ids for the published numbers of outputs, numbered classes otherwise."""
    return coco_ids(outputs) if outputs in (91, 250) else numbered(outputs)


def statistics() -> dict[str, Tensor]:
    """ImageNet's mean and standard deviation in 0..255."""
    return {"pixel_mean": torch.tensor(MEAN), "pixel_std": torch.tensor(STD)}


def transformer_rules(prefix: str) -> list[Rule]:
    """DETR's transformer after ``split_projections``; MaskFormer's too, with other prefixes."""
    start = prefix.replace(".", r"\.")
    encoder, decoder = rf"{start}encoder\.layers\.(\d+)\.", rf"{start}decoder\.layers\.(\d+)\."
    rules: list[Rule] = []
    for layer, ours, attentions in (
        (encoder, "encoder", {"self_attn": "attention"}),
        (decoder, "decoder", {"self_attn": "among", "multihead_attn": "across"}),
    ):
        for theirs, name in attentions.items():
            rules += [
                Rule(rf"{layer}{theirs}\.(query|key|value)\.(\w+)", rf"{ours}.layers.\1.{name}.\2.\3"),
                Rule(rf"{layer}{theirs}\.out_proj\.(\w+)", rf"{ours}.layers.\1.{name}.output.\2"),
            ]
        norms = ["norm"] if ours == "encoder" else ["among_norm", "across_norm"]
        for k, name in enumerate([*norms, "feed.norm"]):
            rules.append(Rule(rf"{layer}norm{k + 1}\.(\w+)", rf"{ours}.layers.\1.{name}.\2"))
        for k, name in ((1, "widen"), (2, "narrow")):
            rules.append(Rule(rf"{layer}linear{k}\.(\w+)", rf"{ours}.layers.\1.feed.{name}.\2"))
    return [*rules, Rule(rf"{start}decoder\.norm\.(\w+)", r"decoder.norm.\1")]


def mask_rules() -> list[Rule]:
    """The mask head, whose names transformers kept."""
    rules = [
        Rule(r"bbox_attention\.q_linear\.(\w+)", r"attention_maps.query.\1"),
        Rule(r"bbox_attention\.k_linear\.(\w+)", r"attention_maps.key.\1"),
        Rule(r"mask_head\.out_lay\.(\w+)", r"mask_head.output.\1"),
    ]
    for k in range(1, 6):  # counted from 1
        rules += [
            Rule(rf"mask_head\.lay{k}\.(\w+)", rf"mask_head.convs.{k - 1}.\1"),
            Rule(rf"mask_head\.gn{k}\.(\w+)", rf"mask_head.norms.{k - 1}.\1"),
            Rule(rf"mask_head\.adapter{k}\.(\w+)", rf"mask_head.laterals.{k - 1}.\1"),
        ]
    return rules
