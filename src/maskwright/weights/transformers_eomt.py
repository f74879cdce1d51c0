"""transformers' EoMT, as the hub's files name it, in our names.

Origin: huggingface/transformers (Apache-2.0) and tue-mps/eomt (MIT), with DINOv2 backbones (Apache-2.0). Pixels are RGB
with ImageNet's statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.structures import Resize, Taxonomy
from maskwright.weights.mask2former import MEAN, STD, count, taxonomy_of
from maskwright.weights.rename import Rule, rename

_ROWS = {(384, 12): "eomt-s", (768, 12): "eomt-b", (1024, 24): "eomt-l"}
_PATCHES = "embeddings.patch_embeddings.projection.weight"


class TransformersEoMT:
    """Importer of transformers' EoMT on a DINOv2 backbone."""

    origin = "transformers EoMT"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of transformers' EoMT."""
        needed = (_PATCHES, "query.weight", "upscale_block.block.0.conv1.weight", "class_predictor.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``eomt-s``, ``-b`` or ``-l``, from the width and the number of blocks."""
        size = (int(state["query.weight"].shape[1]), count(state, r"layers\.(\d+)\..*"))
        if size not in _ROWS:
            known = ", ".join(f"{width} x {depth}" for width, depth in _ROWS)
            raise InputError(
                f"the checkpoint's ViT must have one of {known} channels x blocks, got {size[0]} x {size[1]}"
            )
        return _ROWS[size]

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's classes where their number tells, numbered ones otherwise."""
        return taxonomy_of(int(state["class_predictor.weight"].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Queries, blocks, sides and the task from the shapes."""
        patch = int(state[_PATCHES].shape[-1])
        cells = round(int(state["embeddings.position_embeddings.weight"].shape[0]) ** 0.5)
        classes = int(state["class_predictor.weight"].shape[0]) - 1
        return {
            "queries": int(state["query.weight"].shape[0]),
            "masked_blocks": int(state["attn_mask_probs"].shape[0]),
            "enlargements": count(state, r"upscale_block\.block\.(\d+)\..*"),
            "patch": patch,
            "side": patch * cells,
            "registers": int(state["embeddings.register_tokens"].shape[1]),
            "task": "instance" if classes == 80 else "panoptic",
            "resize": Resize(short=patch * cells, long=patch * cells),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        tensors: dict[str, Tensor] = {}
        for name, value in state.items():
            match = re.fullmatch(r"(layers\.\d+\.attention\.)([qkv])_proj\.(\w+)", name)
            if match is None:
                tensors[name] = value[None] if name.endswith("position_embeddings.weight") else value
            elif match[2] == "q":
                parts = [state[f"{match[1]}{part}_proj.{match[3]}"] for part in "qkv"]
                tensors[f"{match[1]}qkv.{match[3]}"] = torch.cat(parts)
        return {**rename(tensors, _rules()), "pixel_mean": torch.tensor(MEAN), "pixel_std": torch.tensor(STD)}


def _rules() -> list[Rule]:
    layer, block = r"layers\.(\d+)\.", r"backbone.blocks.\1."
    return [
        Rule(r"criterion\.empty_weight", None),
        Rule(r"embeddings\.cls_token", "backbone.cls_token"),
        Rule(r"embeddings\.register_tokens", "backbone.reg_token"),
        Rule(r"embeddings\.position_embeddings\.weight", "backbone.pos_embed"),
        Rule(r"embeddings\.patch_embeddings\.projection\.(\w+)", r"backbone.patch_embed.proj.\1"),
        Rule(r"layernorm\.(\w+)", r"backbone.norm.\1"),
        Rule(rf"{layer}(norm[12])\.(\w+)", rf"{block}\2.\3"),
        Rule(rf"{layer}attention\.qkv\.(\w+)", rf"{block}attn.qkv.\2"),
        Rule(rf"{layer}attention\.out_proj\.(\w+)", rf"{block}attn.proj.\2"),
        Rule(rf"{layer}layer_scale([12])\.lambda1", rf"{block}ls\2.gamma"),
        Rule(rf"{layer}mlp\.(fc[12])\.(\w+)", rf"{block}mlp.\2.\3"),
        Rule(r"query\.weight", "queries"),
        Rule(r"class_predictor\.(\w+)", r"class_logits.\1"),
        *[Rule(rf"mask_head\.fc{i + 1}\.(\w+)", rf"mask_embedding.{2 * i}.\1") for i in range(3)],
        Rule(r"upscale_block\.block\.(\d)\.conv1\.(\w+)", r"enlarge.\1.up.\2"),
        Rule(r"upscale_block\.block\.(\d)\.conv2\.(\w+)", r"enlarge.\1.smooth.\2"),
        Rule(r"upscale_block\.block\.(\d)\.layernorm2d\.(\w+)", r"enlarge.\1.norm.\2"),
        Rule(r"attn_mask_probs", "mask_chance"),
    ]
