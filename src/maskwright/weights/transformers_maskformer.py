"""transformers' MaskFormer in our names, as 4.x writes them.

Weights: converted from the official ones, CC BY-NC 4.0. Its pixel decoder has no encoder, so it knows the Swins, and
ResNets of the semantic models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.errors import InputError
from maskwright.structures import Resize, Taxonomy
from maskwright.weights.detr import statistics
from maskwright.weights.mask2former import count, swin_row
from maskwright.weights.maskformer import SWIN_NAMES, maskformer_classes, maskformer_task
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model
from maskwright.weights.transformers_detr import decoder_rules
from maskwright.weights.transformers_mask2former import join_projections, resnet_rules, swin_rules

PIXELS = "model.pixel_level_module.decoder."
QUERIES = "model.transformer_module."
_RESNET = "model.pixel_level_module.encoder."
_SWIN = "model.pixel_level_module.encoder.model."


class TransformersMaskFormer:
    """Importer of transformers' MaskFormer on a Swin or a ResNet."""

    origin = "transformers MaskFormer"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of transformers' MaskFormer."""
        needed = (f"{PIXELS}fpn.stem.0.weight", f"{QUERIES}queries_embedder.weight", "class_predictor.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``maskformer-r50`` or ``-swin-t``; other bodies are options of these rows."""
        return "maskformer-r50" if _is_resnet(state) else "maskformer-swin-t"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's panoptic classes for 133 outputs; numbered ones for numbers that nothing is known of."""
        return maskformer_classes(int(state["class_predictor.weight"].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """transformers' way of decoding; body, depths and queries from the shapes."""
        classes = int(state["class_predictor.weight"].shape[0]) - 1
        options: dict[str, Any] = {
            "task": maskformer_task(classes),
            "rule": "transformers",
            "queries": int(state[f"{QUERIES}queries_embedder.weight"].shape[0]),
            "encoder_depth": 0,
            "depth": count(state, rf"{re.escape(QUERIES)}decoder\.layers\.(\d+)\..*"),
            "resize": Resize(short=800, long=1333) if classes == 133 else Resize(short=512, long=2048),
        }
        if not _is_resnet(state):
            row, other = swin_row(state, f"{_SWIN}encoder.layers.", ".attention.self.relative_position_bias_table")
            return {**options, "body": other or SWIN_NAMES[row]}
        ours = [name.removeprefix("backbone.body.") for name in rename(state, resnet_rules(_RESNET))]
        body = {"mask-rcnn-r50": "resnet50", "mask-rcnn-r101": "resnet101"}.get(resnet_model(ours, False))
        if body is None:
            raise InputError(
                "the checkpoint's body must be a ResNet-50, -101 or a Swin. Build the model with it yourself."
            )
        return {**options, "body": body, "norm": "frozen"}

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        swin = re.escape(_SWIN)
        body = resnet_rules(_RESNET) if _is_resnet(state) else swin_rules(_SWIN)
        rules = [
            Rule(rf"criterion\.empty_weight|.*num_batches_tracked|{swin}layernorm\.\w+", None),
            Rule(r"model\.pixel_level_module\.encoder\.hidden_states_norms\.(\d)\.(\w+)", r"backbone.norms.\1.\2"),
            *body,
            *_pixel_rules(),
            *decoder_rules(QUERIES),
            Rule(rf"{re.escape(QUERIES)}queries_embedder\.weight", "queries.weight"),
            Rule(rf"{re.escape(QUERIES)}input_projection\.(\w+)", r"project.\1"),
            Rule(r"class_predictor\.(\w+)", r"class_logits.\1"),
            Rule(r"mask_embedder\.(\d)\.0\.(\w+)", r"mask_embedding.linear\1.\2"),
        ]
        return {**rename(join_projections(state), rules), **statistics()}


def _is_resnet(state: Mapping[str, Any]) -> bool:
    return f"{_RESNET}embedder.embedder.convolution.weight" in state


def _pixel_rules() -> list[Rule]:
    fpn = rf"{re.escape(PIXELS)}fpn\."
    rules = [
        Rule(rf"{fpn}stem\.0\.weight", "pixel_decoder.top.conv.weight"),
        Rule(rf"{fpn}stem\.1\.(\w+)", r"pixel_decoder.top.norm.\1"),
        Rule(rf"{re.escape(PIXELS)}mask_projection\.(\w+)", r"pixel_decoder.embed.\1"),
    ]
    for k in range(3):  # counted from C4 down
        for theirs, ours in (("proj", "lateral"), ("block", "output")):
            rules += [
                Rule(rf"{fpn}layers\.{k}\.{theirs}\.0\.weight", f"pixel_decoder.{ours}.{2 - k}.conv.weight"),
                Rule(rf"{fpn}layers\.{k}\.{theirs}\.1\.(\w+)", rf"pixel_decoder.{ours}.{2 - k}.norm.\1"),
            ]
    return rules
