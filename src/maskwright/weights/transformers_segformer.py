"""transformers' SegFormer (``SegformerForSemanticSegmentation``) in our names, as 4.x writes them.

Origin: huggingface/transformers, Apache-2.0; the weights ``nvidia/segformer-*`` on the hub are converted from the
authors', under the NVIDIA Source Code License for SegFormer, non-commercial. Pixels are RGB with ImageNet's statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.structures import Taxonomy
from maskwright.weights.detr import statistics
from maskwright.weights.rename import Rule, rename
from maskwright.weights.scene_names import scene_classes
from maskwright.weights.segformer_official import as_convolution, coarse_first, segformer_resize, segformer_row

_JOIN = "decode_head.linear_fuse.weight"


class TransformersSegFormer:
    """Importer of transformers' SegFormer."""

    origin = "transformers SegFormer"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of transformers' SegFormer with its decoder."""
        return all(name in state for name in ("segformer.encoder.patch_embeddings.0.proj.weight", _JOIN))

    def model(self, state: Mapping[str, Any]) -> str:
        """``segformer-b0`` to ``-b5``, by width and depths."""
        return segformer_row(rename(state, _rules()))

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """ADE20K's classes for 150 outputs, Cityscapes' for 19, numbered ones for most other numbers."""
        return scene_classes(int(state["decode_head.classifier.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' epsilon and way of enlarging; the decoder's width from its shape."""
        return {
            "epsilon": (1e-5, 1e-5),
            "at_once": True,
            "width": int(state[_JOIN].shape[0]),
            "resize": segformer_resize(self.model(state), int(state["decode_head.classifier.weight"].shape[0])),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        return {**rename(state, _rules()), **statistics()}


def _rules() -> list[Rule]:
    start, stage = r"segformer\.encoder\.", r"backbone.stages.\1."
    block, ours = rf"{start}block\.(\d)\.(\d+)\.", r"backbone.stages.\1.blocks.\2."
    attention = rf"{block}attention\."
    return [
        Rule(r".*num_batches_tracked", None),
        Rule(rf"{start}patch_embeddings\.(\d)\.proj\.(\w+)", rf"{stage}embed.conv.\2"),
        Rule(rf"{start}patch_embeddings\.(\d)\.layer_norm\.(\w+)", rf"{stage}embed.norm.\2"),
        Rule(rf"{start}layer_norm\.(\d)\.(\w+)", rf"{stage}norm.\2"),
        Rule(rf"{block}layer_norm_(\d)\.(\w+)", rf"{ours}norm\3.\4"),
        Rule(rf"{attention}self\.(query|key|value)\.(\w+)", rf"{ours}attention.attention.\3.\4"),
        Rule(rf"{attention}self\.sr\.(\w+)", rf"{ours}attention.reduce.\3"),
        Rule(rf"{attention}self\.layer_norm\.(\w+)", rf"{ours}attention.norm.\3"),
        Rule(rf"{attention}output\.dense\.(\w+)", rf"{ours}attention.attention.output.\3"),
        Rule(rf"{block}mlp\.dense1\.(\w+)", rf"{ours}feed.widen.\3"),
        Rule(rf"{block}mlp\.dense2\.(\w+)", rf"{ours}feed.narrow.\3"),
        Rule(rf"{block}mlp\.dwconv\.dwconv\.(\w+)", rf"{ours}feed.mix.\3"),
        Rule(r"decode_head\.linear_c\.(\d)\.proj\.weight", r"head.levels.\1.weight", as_convolution),
        Rule(r"decode_head\.linear_c\.(\d)\.proj\.bias", r"head.levels.\1.bias"),
        Rule(r"decode_head\.linear_fuse\.weight", "head.join.weight", coarse_first),
        Rule(r"decode_head\.batch_norm\.(\w+)", r"head.norm.\1"),
        Rule(r"decode_head\.classifier\.(\w+)", r"head.predictor.\1"),
    ]
