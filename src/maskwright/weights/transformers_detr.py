"""transformers' DETR in our names: ``DetrForObjectDetection`` and ``DetrForSegmentation``, 4.x names.

Origin: huggingface/transformers, Apache-2.0; weights on the hub are converted from facebookresearch/detr. Their
backbone is transformers' own ResNet or timm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.detr import deep_body, detr_classes, detr_row, has_masks, mask_rules, plain, statistics
from maskwright.weights.mask2former import count
from maskwright.weights.rename import Rule, rename
from maskwright.weights.transformers_mask2former import resnet_rules

_BODY = "model.backbone.conv_encoder.model."


class TransformersDETR:
    """Importer of transformers' DETR on a ResNet, with or without its mask head."""

    origin = "transformers DETR"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of transformers' DETR."""
        needed = ("model.query_position_embeddings.weight", "class_labels_classifier.weight")
        return all(name in state or f"detr.{name}" in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``detr-r50`` or ``-r101``, and ``detr-panoptic-r50`` where there is a mask head."""
        ours = rename(plain(state), _body_rules())
        return detr_row([name.removeprefix("backbone.body.") for name in ours], has_masks(state))

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's ids for 91 and 250 outputs, numbered classes otherwise."""
        return detr_classes(int(plain(state)["class_labels_classifier.weight"].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' way of decoding; frozen norms; depths and queries from the shapes."""
        known = plain(state)
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "rule": "transformers",
            "masks": has_masks(state),
            "queries": int(known["model.query_position_embeddings.weight"].shape[0]),
            "encoder_depth": count(known, r"model\.encoder\.layers\.(\d+)\..*"),
            "decoder_depth": count(known, r"model\.decoder\.layers\.(\d+)\..*"),
            "resize": Resize(short=800, long=1333),
            **deep_body(rename(known, _body_rules()), "backbone.body.layer3.22.conv1.weight", has_masks(state)),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        rules = [
            Rule(r".*num_batches_tracked", None),
            *_body_rules(),
            *encoder_rules("model."),
            *decoder_rules("model."),
            Rule(r"model\.query_position_embeddings\.weight", "queries.weight"),
            Rule(r"model\.input_projection\.(\w+)", r"project.\1"),
            Rule(r"class_labels_classifier\.(\w+)", r"class_logits.\1"),
            Rule(r"bbox_predictor\.layers\.(\d)\.(\w+)", r"box.linear\1.\2"),
            *mask_rules(),
        ]
        return {**rename(plain(state), rules), **statistics()}


def _body_rules() -> list[Rule]:
    """transformers' own ResNet, else timm's, whose names are ours."""
    return [*resnet_rules(_BODY), Rule(rf"{_BODY.replace('.', r'[.]')}(.+)", r"backbone.body.\1")]


def encoder_rules(prefix: str) -> list[Rule]:
    """The encoder's layers, whose names begin with ``prefix``."""
    layer, ours = rf"{prefix.replace('.', r'[.]')}encoder\.layers\.(\d+)\.", r"encoder.layers.\1."
    return [
        *_attention(rf"{layer}self_attn\.", f"{ours}attention."),
        Rule(rf"{layer}self_attn_layer_norm\.(\w+)", rf"{ours}norm.\2"),
        *_feed(layer, ours),
    ]


def decoder_rules(prefix: str) -> list[Rule]:
    """The decoder's layers, whose names begin with ``prefix``; MaskFormer's are the same."""
    start = prefix.replace(".", r"[.]")
    layer, ours = rf"{start}decoder\.layers\.(\d+)\.", r"decoder.layers.\1."
    return [
        *_attention(rf"{layer}self_attn\.", f"{ours}among."),
        *_attention(rf"{layer}encoder_attn\.", f"{ours}across."),
        Rule(rf"{layer}self_attn_layer_norm\.(\w+)", rf"{ours}among_norm.\2"),
        Rule(rf"{layer}encoder_attn_layer_norm\.(\w+)", rf"{ours}across_norm.\2"),
        *_feed(layer, ours),
        Rule(rf"{start}decoder\.layernorm\.(\w+)", r"decoder.norm.\1"),
    ]


def _attention(theirs: str, ours: str) -> list[Rule]:
    parts = (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output"))
    return [Rule(rf"{theirs}{short}_proj\.(\w+)", rf"{ours}{name}.\2") for short, name in parts]


def _feed(layer: str, ours: str) -> list[Rule]:
    return [
        Rule(rf"{layer}fc1\.(\w+)", rf"{ours}feed.widen.\2"),
        Rule(rf"{layer}fc2\.(\w+)", rf"{ours}feed.narrow.\2"),
        Rule(rf"{layer}final_layer_norm\.(\w+)", rf"{ours}feed.norm.\2"),
    ]
