"""mmdetection's Mask R-CNN and its kin (PAFPN neck, Mask Scoring, Cascade) in our names.

Origin: open-mmlab/mmdetection, Apache-2.0. Checkpoints of versions 2 and 3 (``torch.save``, under ``state_dict``) have
their background last as ours. Which ResNet a checkpoint was trained on is nowhere in it: "pytorch" ones see RGB over
its standard deviation, "caffe" ones BGR as it is, with the stride in the first convolution. The latter come from
Detectron with frozen norms whose means are all 0, which no trained norm has, so that they are told apart by this.
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
_BODY, _ROI = "backbone.", "roi_head."
_IOU, _BOTTOM_UP = f"{_ROI}mask_iou_head.fc_mask_iou.weight", "neck.pafpn_convs.0.conv.weight"
_NEEDED = (f"{_BODY}layer1.0.conv1.weight", "neck.lateral_convs.0.conv.weight", "rpn_head.rpn_conv.weight")
_OTHERS = ("conv_res", "point_head", "semantic", "glbctx_head", "feat_relay_head", "mask_head.conv_logits_low")


class MMDetectionTwoStage:
    """Importer of mmdetection's Mask R-CNN, also with PAFPN, a MaskIoU head, or as a cascade, on a ResNet."""

    origin = "mmdetection"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of a two-stage model of mmdetection with masks, and of no relative of it."""
        heads = _first(state, "bbox_head", "fc_cls") in state and _first(state, "mask_head", "conv_logits") in state
        return heads and all(name in state for name in _NEEDED) and not any(o in n for n in state for o in _OTHERS)

    def model(self, state: Mapping[str, Any]) -> str:
        """The family by its parts, the ResNet by its blocks: ``panet-r50`` and so on."""
        first = state.get(f"{_BODY}layer1.0.conv2.weight")
        grouped = first is not None and int(first.shape[1]) < int(first.shape[0])
        plain = resnet_model([name.removeprefix(_BODY) for name in state if name.startswith(_BODY)], grouped)
        family = "mask-rcnn"
        if _IOU in state:
            family = "mask-scoring-rcnn"
        elif _stages(state):
            family = "cascade-mask-rcnn"
        elif _BOTTOM_UP in state:
            family = "panet"
        return f"{family}{plain.removeprefix('mask-rcnn')}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state[_first(state, "bbox_head", "fc_cls")].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """mmdetection's conventions, norms frozen, the stem and first stage fixed, and what the parts are."""
        classes = int(state[_first(state, "bbox_head", "fc_cls")].shape[0])
        box = _first(state, "bbox_head", "fc_reg").removesuffix("fc_reg.weight")
        mask = _first(state, "mask_head", "conv_logits").removesuffix("conv_logits.weight")
        agnostic_box = int(state[f"{box}fc_reg.weight"].shape[0]) == 4 and (classes > 2 or _stages(state) > 0)
        agnostic_mask = int(state[f"{mask}conv_logits.weight"].shape[0]) == 1 and classes > 2
        mean, std = _statistics(state)
        options: dict[str, Any] = {
            "norm": "frozen",
            "frozen_stages": 2,
            "stride_in_1x1": _is_caffe(state),
            "convention": "mmdetection",
            "box_head": "conv4_fc1" if f"{box}shared_convs.3.conv.weight" in state else "fc2",
            "neck_norm": _norm_of(state, "neck.lateral_convs.0"),
            "head_norm": _norm_of(state, f"{mask}convs.0"),
            "agnostic_box": agnostic_box,
            "agnostic_mask": agnostic_mask,
            "pixel_mean": mean,
            "pixel_std": std,
            "resize": Resize(short=800, long=1333, antialias=False),
        }
        if _IOU in state:
            options |= {"iou_threshold": 0.5}
        elif _stages(state):
            options |= {"stages": _stages(state)}
        elif _BOTTOM_UP in state:
            options |= {"bottom_up": "mmdetection", "adaptive": None, "fully_connected": False}
        return options

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics; BGR weights turned to RGB."""
        mean, std = _statistics(state)
        kept = {name: value for name, value in state.items() if not name.startswith("data_preprocessor.")}
        out = rename(kept, _rules(state))
        return {**out, "pixel_mean": torch.tensor(mean), "pixel_std": torch.tensor(std)}


def _rules(state: Mapping[str, Any]) -> list[Rule]:
    neck = "conv." if _norm_of(state, "neck.lateral_convs.0") else ""
    pyramid = r"neck.fpn." if _BOTTOM_UP in state else "neck."
    box, mask, stage = r"roi_head\.bbox_head\.", r"roi_head\.mask_head\.", r"(\d+\.)?"
    rules = [
        Rule(r".*num_batches_tracked", None),
        Rule(r"backbone\.conv1\.weight", "backbone.body.conv1.weight", _reverse_input if _is_caffe(state) else None),
        Rule(r"backbone\.(.*)", r"backbone.body.\1"),
        Rule(r"neck\.downsample_convs\.(\d)\.conv\.(\w+)", r"neck.down.\1.conv.\2"),
        Rule(r"neck\.pafpn_convs\.(\d)\.conv\.(\w+)", r"neck.fuse.\1.conv.\2"),
        Rule(r"neck\.downsample_convs\.(\d)\.[bg]n\.(\w+)", r"neck.down.\1.norm.\2"),
        Rule(r"neck\.pafpn_convs\.(\d)\.[bg]n\.(\w+)", r"neck.fuse.\1.norm.\2"),
        Rule(r"rpn_head\.rpn_conv\.(weight|bias)", r"rpn.convs.0.\1"),
        Rule(r"rpn_head\.rpn_conv\.(\d+)\.conv\.(\w+)", r"rpn.convs.\1.\2"),
        Rule(r"rpn_head\.rpn_cls\.(\w+)", r"rpn.objectness.\1"),
        Rule(r"rpn_head\.rpn_reg\.(\w+)", r"rpn.deltas.\1"),
        Rule(rf"{box}{stage}shared_fcs\.(\d)\.(\w+)", r"box_head.\1fcs.\2.\3"),
        Rule(rf"{box}{stage}shared_convs\.(\d)\.conv\.(\w+)", r"box_head.\1convs.\2.conv.\3"),
        Rule(rf"{box}{stage}shared_convs\.(\d)\.[bg]n\.(\w+)", r"box_head.\1convs.\2.norm.\3"),
        Rule(rf"{box}{stage}fc_cls\.(\w+)", r"box_head.\1class_logits.\2"),
        Rule(rf"{box}{stage}fc_reg\.(\w+)", r"box_head.\1box_deltas.\2"),
        Rule(rf"{mask}{stage}upsample\.(\w+)", r"mask_head.\1upsample.\2"),
        Rule(rf"{mask}{stage}conv_logits\.(\w+)", r"mask_head.\1predictor.\2"),
        Rule(r"roi_head\.mask_iou_head\.convs\.(\d)\.(\w+)", r"iou_head.convs.\1.\2"),
        Rule(r"roi_head\.mask_iou_head\.fcs\.(\d)\.(\w+)", r"iou_head.fcs.\1.\2"),
        Rule(r"roi_head\.mask_iou_head\.fc_mask_iou\.(\w+)", r"iou_head.iou.\1"),
    ]
    # PANet's own mask head keeps its convolutions where levels are fused; without levels all of them follow that.
    convs = "rest" if _BOTTOM_UP in state else "convs"
    rules += [
        Rule(rf"{mask}{stage}convs\.(\d)\.conv\.(\w+)", rf"mask_head.\1{convs}.\2.conv.\3"),
        Rule(rf"{mask}{stage}convs\.(\d)\.[bg]n\.(\w+)", rf"mask_head.\1{convs}.\2.norm.\3"),
    ]
    for theirs, ours in (("lateral", "lateral"), ("fpn", "output")):
        rules += [
            Rule(rf"neck\.{theirs}_convs\.(\d)\.conv\.(\w+)", rf"{pyramid}{ours}.\1.{neck}\2"),
            Rule(rf"neck\.{theirs}_convs\.(\d)\.[bg]n\.(\w+)", rf"{pyramid}{ours}.\1.norm.\2"),
        ]
    return rules


def _stages(state: Mapping[str, Any]) -> int:
    """How many box heads a cascade has; 0 for a single one."""
    return sum(f"{_ROI}bbox_head.{i}.fc_cls.weight" in state for i in range(8))


def _first(state: Mapping[str, Any], head: str, layer: str) -> str:
    """The name of a layer's weight in the only head, or a cascade's first."""
    name = f"{_ROI}{head}.{layer}.weight"
    return name if name in state else f"{_ROI}{head}.0.{layer}.weight"


def _norm_of(state: Mapping[str, Any], module: str) -> str | None:
    if f"{module}.bn.weight" in state:
        return "batch"
    return "group" if f"{module}.gn.weight" in state else None


def _is_caffe(state: Mapping[str, Any]) -> bool:
    mean = state.get(f"{_BODY}bn1.running_mean")
    return mean is not None and not bool(mean.any())


def _reverse_input(weight: Tensor) -> Tensor:
    return weight.flip(1)


def _statistics(state: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return _MEAN, (1.0, 1.0, 1.0) if _is_caffe(state) else _STD
