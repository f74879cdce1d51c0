"""The official MaskFormer (facebookresearch/MaskFormer) in our names.

Weights: CC BY-NC 4.0. Pixels are RGB with ImageNet's statistics; ResNets have their stride in the 3x3 convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.errors import InputError
from maskwright.structures import Resize, Taxonomy
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.coco_panoptic_names import coco_panoptic
from maskwright.weights.detr import statistics, transformer_rules
from maskwright.weights.mask2former import count, official_swin_rules, split_projections, swin_row
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

PIXELS = "sem_seg_head.pixel_decoder."
QUERIES = "sem_seg_head.predictor."
SWIN_NAMES = {
    "swin-t": "swin_tiny_patch4_window7_224",
    "swin-s": "swin_small_patch4_window7_224",
    "swin-b": "swin_base_patch4_window12_384",
    "swin-l": "swin_large_patch4_window12_384",
}


class OfficialMaskFormer:
    """Importer of MaskFormer on a ResNet or a Swin."""

    origin = "maskformer"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of the official MaskFormer with mask classification."""
        needed = (
            f"{PIXELS}adapter_3.weight",
            f"{QUERIES}class_embed.weight",
            f"{QUERIES}transformer.decoder.norm.weight",
        )
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``maskformer-r50`` or ``-swin-t``; other bodies are options of these rows."""
        return "maskformer-r50" if _is_resnet(state) else "maskformer-swin-t"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's panoptic classes for 133 outputs; numbered ones for numbers that nothing is known of."""
        return maskformer_classes(int(state[f"{QUERIES}class_embed.weight"].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Body, depths and queries from the shapes; norms frozen where the checkpoint's are."""
        classes = int(state[f"{QUERIES}class_embed.weight"].shape[0]) - 1
        options: dict[str, Any] = {
            "task": maskformer_task(classes),
            "queries": int(state[f"{QUERIES}query_embed.weight"].shape[0]),
            "encoder_depth": count(state, rf"{re.escape(PIXELS)}transformer\.encoder\.layers\.(\d+)\..*"),
            "depth": count(state, rf"{re.escape(QUERIES)}transformer\.decoder\.layers\.(\d+)\..*"),
            "resize": Resize(short=800, long=1333) if classes == 133 else Resize(short=512, long=2048),
        }
        if not _is_resnet(state):
            row, other = swin_row(state, "backbone.layers.", ".attn.relative_position_bias_table")
            return {**options, "body": other or SWIN_NAMES[row]}
        names = [name.removeprefix("backbone.res") for name in state if name.startswith("backbone.res")]
        ours = [f"layer{int(name[0]) - 1}{name[1:]}" for name in names]
        body = {"mask-rcnn-r50": "resnet50", "mask-rcnn-r101": "resnet101"}.get(resnet_model(ours, False))
        if body is None:
            raise InputError(
                "the checkpoint's body must be a ResNet-50, -101 or a Swin. Build the model with it yourself."
            )
        tracked = "backbone.stem.conv1.norm.num_batches_tracked" in state
        return {**options, "body": body, "norm": "train" if tracked else "frozen"}

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        rules = [
            Rule(r"criterion\.empty_weight|pixel_mean|pixel_std|.*num_batches_tracked", None),
            *_pixel_rules(),
            *transformer_rules(QUERIES + "transformer."),
            Rule(rf"{re.escape(QUERIES)}query_embed\.weight", "queries.weight"),
            Rule(rf"{re.escape(QUERIES)}input_proj\.(\w+)", r"project.\1"),
            Rule(rf"{re.escape(QUERIES)}class_embed\.(\w+)", r"class_logits.\1"),
            Rule(rf"{re.escape(QUERIES)}mask_embed\.layers\.(\d)\.(\w+)", r"mask_embedding.linear\1.\2"),
            *_resnet_rules(),
            *official_swin_rules(),
        ]
        return {**rename(split_projections(state), rules), **statistics()}


def maskformer_classes(outputs: int) -> Taxonomy:
    """COCO's panoptic classes for 133 outputs, else what ``taxonomy_for`` knows."""
    return coco_panoptic() if outputs == 133 else taxonomy_for(outputs)


def maskformer_task(classes: int) -> str:
    """Panoptic for COCO's 133 classes; the other published models are semantic."""
    return "panoptic" if classes == 133 else "semantic"


def _is_resnet(state: Mapping[str, Any]) -> bool:
    return "backbone.stem.conv1.weight" in state


def _pixel_rules() -> list[Rule]:
    pixels = re.escape(PIXELS)
    rules = [
        Rule(rf"{pixels}input_proj\.(\w+)", r"pixel_decoder.project.\1"),
        Rule(rf"{pixels}mask_features\.(\w+)", r"pixel_decoder.embed.\1"),
        Rule(rf"{pixels}layer_4\.weight", "pixel_decoder.top.conv.weight"),
        Rule(rf"{pixels}layer_4\.norm\.(\w+)", r"pixel_decoder.top.norm.\1"),
    ]
    for k in (1, 2, 3):  # counted from C2
        for theirs, ours in (("adapter", "lateral"), ("layer", "output")):
            rules += [
                Rule(rf"{pixels}{theirs}_{k}\.weight", f"pixel_decoder.{ours}.{k - 1}.conv.weight"),
                Rule(rf"{pixels}{theirs}_{k}\.norm\.(\w+)", rf"pixel_decoder.{ours}.{k - 1}.norm.\1"),
            ]
    encoder = transformer_rules(PIXELS + "transformer.")
    return [
        *rules,
        *(Rule(r.pattern, f"pixel_decoder.{r.name}") for r in encoder if (r.name or "").startswith("encoder")),
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
