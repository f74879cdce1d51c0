"""mmdetection's QueryInst in our names.

Origin: open-mmlab/mmdetection, Apache-2.0. Checkpoints of versions 2 and 3 (``torch.save``, under ``state_dict``); all
of them have a "pytorch" ResNet, which sees RGB over its standard deviation. Sparse R-CNN, the same without masks, is
not taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_BODY, _BOX, _MASK = "backbone.", "roi_head.bbox_head.", "roi_head.mask_head."
_CLASSES, _QUERIES = f"{_BOX}0.fc_cls.weight", "rpn_head.init_proposal_features.weight"
_KERNELS = "instance_interactive_conv.dynamic_layer.weight"
_NEEDED = (_CLASSES, _QUERIES, f"{_BOX}0.{_KERNELS}", f"{_MASK}0.conv_logits.weight", f"{_BODY}layer1.0.conv1.weight")
_FIXED_HEADS = 8
"""Attention heads, which no parameter tells."""


class MMDetectionQueryInst:
    """Importer of mmdetection's QueryInst on a ResNet."""

    origin = "mmdetection QueryInst"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of queries with boxes, dynamic kernels and mask heads."""
        return all(name in state for name in _NEEDED)

    def model(self, state: Mapping[str, Any]) -> str:
        """``queryinst-r50`` or ``-r101``, from the blocks there are."""
        plain = resnet_model([name.removeprefix(_BODY) for name in state if name.startswith(_BODY)], False)
        return f"queryinst{plain.removeprefix('mask-rcnn')}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state[_CLASSES].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Norms of the body frozen, the stem and first stage fixed; sizes and numbers as the shapes say."""
        queries, channels = (int(side) for side in state[_QUERIES].shape)
        first = f"{_MASK}0.convs.0.conv.weight"
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "queries": queries,
            "channels": channels,
            "stages": _count(state, _BOX, ".fc_cls.weight"),
            "heads": _FIXED_HEADS,
            "hidden": int(state[f"{_BOX}0.ffn.layers.0.0.weight"].shape[0]),
            "dynamic_width": int(state[f"{_BOX}0.{_KERNELS}"].shape[0]) // (2 * channels),
            "class_depth": _count(state, f"{_BOX}0.cls_fcs.", ".weight", 3),
            "box_depth": _count(state, f"{_BOX}0.reg_fcs.", ".weight", 3),
            "mask_width": int(state[first].shape[0]) if first in state else 256,
            "mask_depth": _count(state, f"{_MASK}0.convs.", ".conv.weight"),
            "mask_norm": "batch" if f"{_MASK}0.convs.0.bn.weight" in state else None,
            "dynamic_mask": f"{_MASK}0.{_KERNELS}" in state,
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=800, long=1333, antialias=False),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        kept = {name: value for name, value in state.items() if not name.startswith("data_preprocessor.")}
        out = rename(_split_attention(kept), _rules())
        return {**out, "pixel_mean": torch.tensor(_MEAN), "pixel_std": torch.tensor(_STD)}


def _count(state: Mapping[str, Any], before: str, after: str, step: int = 1) -> int:
    """How many of ``before 0 after``, ``before step after`` … there are."""
    return next(i for i in range(100) if f"{before}{i * step}{after}" not in state)


def _split_attention(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Attention's one matrix for queries, keys and values as three."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        head, found, kind = name.partition(".attention.attn.in_proj_")
        if found:
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            out |= {f"{head}.attention.{part}.{kind}": tensor for part, tensor in parts}
        else:
            out[name] = value
    return out


def _rules() -> list[Rule]:
    box, mask, conv = r"roi_head\.bbox_head\.(\d)\.", r"roi_head\.mask_head\.(\d)\.", r"instance_interactive_conv\."
    rules = [
        Rule(r".*num_batches_tracked", None),
        Rule(r"backbone\.(.*)", r"backbone.body.\1"),
        Rule(r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"neck.lateral.\1.\2"),
        Rule(r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", r"neck.output.\1.\2"),
        Rule(r"rpn_head\.init_proposal_bboxes\.weight", "query_boxes.weight"),
        Rule(r"rpn_head\.init_proposal_features\.weight", "queries.weight"),
        Rule(rf"{box}attention\.attn\.out_proj\.(\w+)", r"box_head.\1.attention.output.\2"),
        Rule(rf"{box}attention\.(query|key|value)\.(\w+)", r"box_head.\1.attention.\2.\3"),
        Rule(rf"{box}attention_norm\.(\w+)", r"box_head.\1.attention_norm.\2"),
        Rule(rf"{box}{conv}fc_layer\.(\w+)", r"box_head.\1.project.\2"),
        Rule(rf"{box}{conv}fc_norm\.(\w+)", r"box_head.\1.project_norm.\2"),
        Rule(rf"{box}instance_interactive_conv_norm\.(\w+)", r"box_head.\1.interaction_norm.\2"),
        Rule(rf"{box}ffn\.layers\.0\.0\.(\w+)", r"box_head.\1.expand.\2"),
        Rule(rf"{box}ffn\.layers\.1\.(\w+)", r"box_head.\1.shrink.\2"),
        Rule(rf"{box}ffn_norm\.(\w+)", r"box_head.\1.feed_norm.\2"),
        Rule(rf"{box}fc_cls\.(\w+)", r"box_head.\1.class_logits.\2"),
        Rule(rf"{box}fc_reg\.(\w+)", r"box_head.\1.box_deltas.\2"),
        Rule(rf"{mask}convs\.(\d)\.conv\.(\w+)", r"mask_head.\1.convs.\2.conv.\3"),
        Rule(rf"{mask}convs\.(\d)\.bn\.(\w+)", r"mask_head.\1.convs.\2.norm.\3"),
        Rule(rf"{mask}upsample\.(\w+)", r"mask_head.\1.upsample.\2"),
        Rule(rf"{mask}conv_logits\.(\w+)", r"mask_head.\1.predictor.\2"),
    ]
    for theirs, ours in ((box, "box_head"), (mask, "mask_head")):
        rules += [
            Rule(rf"{theirs}{conv}dynamic_layer\.(\w+)", rf"{ours}.\1.dynamic.kernels.\2"),
            Rule(rf"{theirs}{conv}(norm_in|norm_out)\.(\w+)", rf"{ours}.\1.dynamic.\2.\3"),
        ]
    # linear layer, norm and activation take three places in a row there
    for kind, ours in (("cls", "class_layers"), ("reg", "box_layers")):
        for place in range(24):
            layer, part = divmod(place, 3)
            rules.append(Rule(rf"{box}{kind}_fcs\.{place}\.(\w+)", rf"box_head.\1.{ours}.{layer}.{part}.\2"))
    return rules
