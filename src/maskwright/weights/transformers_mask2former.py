"""transformers' Mask2Former, as the hub's files name it, in our names.

Origin: huggingface/transformers (Apache-2.0); the weights ``facebook/mask2former-*`` are the official ones, CC BY-NC
4.0. Names are those of transformers 4, which the files have; version 5 renames them when it loads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.mask2former import MEAN, STD, count, split_projections, swin_row, task_of, taxonomy_of
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

BODY = "model.pixel_level_module.encoder."
PIXELS = "model.pixel_level_module.decoder."
QUERIES = "model.transformer_module."
_TABLE = ".attention.self.relative_position_bias_table"


class TransformersMask2Former:
    """Importer of transformers' Mask2Former on a ResNet or a Swin."""

    origin = "transformers Mask2Former"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of transformers' Mask2Former."""
        needed = (f"{PIXELS}level_embed", f"{QUERIES}queries_embedder.weight", "class_predictor.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """The row for this body and, by the number of classes and queries, this task."""
        task = task_of(self._classes(state), self._queries(state))
        if f"{BODY}embedder.embedder.convolution.weight" in state:
            names = rename(state, resnet_rules(BODY))
            ours = [n.removeprefix("backbone.body.") for n in names if n.startswith("backbone.body.")]
            return f"mask2former-{task}-{resnet_model(ours, False).removeprefix('mask-rcnn-')}"
        return f"mask2former-{task}-{swin_row(state, f'{BODY}encoder.layers.', _TABLE)[0]}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's classes where their number tells, numbered ones otherwise."""
        return taxonomy_of(self._classes(state))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' way of decoding; queries, depths and widths from the shapes."""
        options: dict[str, Any] = {
            "rule": "transformers",
            "queries": self._queries(state),
            "encoder_depth": count(state, rf"{re.escape(PIXELS)}encoder\.layers\.(\d+)\..*"),
            "depth": count(state, rf"{re.escape(QUERIES)}decoder\.layers\.(\d+)\..*"),
            "resize": Resize(short=800, long=1333, antialias=False),
        }
        if f"{BODY}embedder.embedder.convolution.weight" in state:
            return {**options, "norm": "frozen"}
        body = swin_row(state, f"{BODY}encoder.layers.", _TABLE)[1]
        return {**options, "body": body} if body else options

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        rules = [
            Rule(r"criterion\.empty_weight|.*num_batches_tracked", None),
            *_pixel_rules(),
            *_query_rules(),
            *resnet_rules(BODY),
            *swin_rules(BODY),
        ]
        tensors = rename(split_projections(join_projections(state)), rules)
        return {**tensors, "pixel_mean": torch.tensor(MEAN), "pixel_std": torch.tensor(STD)}

    def _classes(self, state: Mapping[str, Any]) -> int:
        return int(state["class_predictor.weight"].shape[0]) - 1

    def _queries(self, state: Mapping[str, Any]) -> int:
        return int(state[f"{QUERIES}queries_embedder.weight"].shape[0])


def join_projections(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Swin's matrices of query, key and value as one, ``qkv``."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        match = re.fullmatch(r"(.*\.attention\.)self\.(query|key|value)\.(weight|bias)", name)
        if match is None:
            out[name] = value
        elif match[2] == "query":
            parts = [state[f"{match[1]}self.{part}.{match[3]}"] for part in ("query", "key", "value")]
            out[f"{match[1]}qkv.{match[3]}"] = torch.cat(parts)
    return out


def resnet_rules(prefix: str) -> list[Rule]:
    """transformers' ResNet backbone, whose names begin with ``prefix``."""
    body = re.escape(prefix)
    rules = [
        Rule(rf"{body}embedder\.embedder\.convolution\.(\w+)", r"backbone.body.conv1.\1"),
        Rule(rf"{body}embedder\.embedder\.normalization\.(\w+)", r"backbone.body.bn1.\1"),
    ]
    for stage in range(4):
        block, ours = rf"{body}encoder\.stages\.{stage}\.layers\.(\d+)\.", rf"backbone.body.layer{stage + 1}.\1."
        rules += [
            Rule(rf"{block}shortcut\.convolution\.(\w+)", rf"{ours}downsample.0.\2"),
            Rule(rf"{block}shortcut\.normalization\.(\w+)", rf"{ours}downsample.1.\2"),
        ]
        for k in range(3):
            rules += [
                Rule(rf"{block}layer\.{k}\.convolution\.(\w+)", rf"{ours}conv{k + 1}.\2"),
                Rule(rf"{block}layer\.{k}\.normalization\.(\w+)", rf"{ours}bn{k + 1}.\2"),
            ]
    return rules


def swin_rules(prefix: str) -> list[Rule]:
    """transformers' Swin backbone after ``join_projections``; merging ends a stage there and begins one here."""
    body = re.escape(prefix)
    block, ours = rf"{body}encoder\.layers\.(\d)\.blocks\.(\d+)\.", r"backbone.layers.\1.blocks.\2."
    ranks = range(4)
    return [
        Rule(rf"{body}.*relative_position_index", None),
        Rule(rf"{body}embeddings\.patch_embeddings\.projection\.(\w+)", r"backbone.patch_embed.proj.\1"),
        Rule(rf"{body}embeddings\.norm\.(\w+)", r"backbone.patch_embed.norm.\1"),
        Rule(rf"{block}layernorm_before\.(\w+)", rf"{ours}norm1.\3"),
        Rule(rf"{block}layernorm_after\.(\w+)", rf"{ours}norm2.\3"),
        Rule(rf"{block}attention\.self\.(\w+)", rf"{ours}attn.\3"),
        Rule(rf"{block}attention\.qkv\.(\w+)", rf"{ours}attn.qkv.\3"),
        Rule(rf"{block}attention\.output\.dense\.(\w+)", rf"{ours}attn.proj.\3"),
        Rule(rf"{block}intermediate\.dense\.(\w+)", rf"{ours}mlp.fc1.\3"),
        Rule(rf"{block}output\.dense\.(\w+)", rf"{ours}mlp.fc2.\3"),
        *[
            Rule(rf"{body}encoder\.layers\.{i}\.downsample\.(.+)", rf"backbone.layers.{i + 1}.downsample.\1")
            for i in ranks
        ],
        *[Rule(rf"{body}hidden_states_norms\.stage{i + 1}\.(\w+)", rf"backbone.norms.{i}.\1") for i in ranks],
    ]


def _pixel_rules() -> list[Rule]:
    pixels = re.escape(PIXELS)
    layer, ours = rf"{pixels}encoder\.layers\.(\d+)\.", r"pixel_decoder.layers.\1."
    return [
        Rule(rf"{pixels}input_projections\.(\d)\.([01])\.(\w+)", r"pixel_decoder.project.\1.\2.\3"),
        Rule(rf"{pixels}level_embed", "pixel_decoder.level"),
        Rule(rf"{layer}self_attn\.sampling_offsets\.(\w+)", rf"{ours}attention.offsets.\2"),
        Rule(rf"{layer}self_attn\.attention_weights\.(\w+)", rf"{ours}attention.weights.\2"),
        Rule(rf"{layer}self_attn\.(value|output)_proj\.(\w+)", rf"{ours}attention.\2.\3"),
        Rule(rf"{layer}self_attn_layer_norm\.(\w+)", rf"{ours}norm1.\2"),
        Rule(rf"{layer}final_layer_norm\.(\w+)", rf"{ours}norm2.\2"),
        Rule(rf"{layer}fc([12])\.(\w+)", rf"{ours}linear\2.\3"),
        Rule(rf"{pixels}adapter_1\.([01])\.(\w+)", r"pixel_decoder.lateral.\1.\2"),
        Rule(rf"{pixels}layer_1\.([01])\.(\w+)", r"pixel_decoder.smooth.\1.\2"),
        Rule(rf"{pixels}mask_projection\.(\w+)", r"pixel_decoder.mask_features.\1"),
    ]


def _query_rules() -> list[Rule]:
    queries = re.escape(QUERIES)
    masks = rf"{queries}decoder\.mask_predictor\.mask_embedder"
    layer, ours = rf"{queries}decoder\.layers\.(\d+)\.", r"decoder.layers.\1."
    rules = [
        Rule(rf"{layer}self_attn\.{short}_proj\.(\w+)", rf"{ours}among.{name}.\2")
        for short, name in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output"))
    ]
    return [
        *rules,
        Rule(rf"{layer}self_attn_layer_norm\.(\w+)", rf"{ours}among_norm.\2"),
        Rule(rf"{layer}cross_attn\.(query|key|value)\.(\w+)", rf"{ours}across.\2.\3"),
        Rule(rf"{layer}cross_attn\.out_proj\.(\w+)", rf"{ours}across.output.\2"),
        Rule(rf"{layer}cross_attn_layer_norm\.(\w+)", rf"{ours}across_norm.\2"),
        Rule(rf"{layer}fc1\.(\w+)", rf"{ours}feed.widen.\2"),
        Rule(rf"{layer}fc2\.(\w+)", rf"{ours}feed.narrow.\2"),
        Rule(rf"{layer}final_layer_norm\.(\w+)", rf"{ours}feed.norm.\2"),
        Rule(rf"{queries}decoder\.layernorm\.(\w+)", r"decoder.norm.\1"),
        Rule(rf"{masks}\.(\d)\.0\.(\w+)", r"decoder.mask_embedding.linear\1.\2"),
        Rule(rf"{queries}queries_features\.weight", "decoder.features"),
        Rule(rf"{queries}queries_embedder\.weight", "decoder.places"),
        Rule(rf"{queries}level_embed\.weight", "decoder.level"),
        Rule(r"class_predictor\.(\w+)", r"decoder.class_logits.\1"),
    ]
