"""The authors' Mask Scoring R-CNN (maskrcnn-benchmark, ResNet with FPN) in our names.

Origin: zjhuang22/maskscoring_rcnn, MIT. Checkpoints are ``torch.save`` files ``{"model": names -> tensors}``, with a
leading ``module.`` where several processes trained. Pixels are BGR and backgrounds first: the first convolution's input
channels are reversed and the background's row goes last here; boxes, masks and IoUs lose it. Frozen norms have no
epsilon, so that ours of 1e-5 is folded into their scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

_CLASSES = "roi_heads.box.predictor.cls_score.weight"
_IOU = "roi_heads.maskiou.predictor.maskiou.weight"
_BODY = "backbone.body."
_MEAN, _STD = (122.7717, 115.9465, 102.9801), (1.0, 1.0, 1.0)
_EPS = 1e-5


class OfficialMaskScoring:
    """Importer of the authors' Mask Scoring R-CNN on a ResNet with FPN."""

    origin = "maskscoring_rcnn"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of maskrcnn-benchmark with a MaskIoU head and FPN."""
        names = _plain(state)
        return all(
            name in names for name in (_CLASSES, _IOU, f"{_BODY}stem.conv1.weight", "backbone.fpn.fpn_inner1.weight")
        )

    def model(self, state: Mapping[str, Any]) -> str:
        """``mask-scoring-rcnn-r50`` or ``-r101``, from the blocks there are."""
        names = _plain(state)
        first = names.get(f"{_BODY}layer1.0.conv2.weight")
        grouped = first is not None and int(first.shape[1]) < int(first.shape[0])
        plain = resnet_model([name.removeprefix(_BODY) for name in names if name.startswith(_BODY)], grouped)
        return f"mask-scoring-rcnn{plain.removeprefix('mask-rcnn')}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 81 outputs, numbered ones otherwise."""
        return taxonomy_for(int(_plain(state)[_CLASSES].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """maskrcnn-benchmark's conventions, the MSRA ResNet with frozen norms, and its training numbers."""
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "stride_in_1x1": True,
            "convention": "maskrcnn-benchmark",
            "anchor_border": 0.0,
            "betas": (1 / 9, 1.0),
            "proposals_train": (2000, 2000),
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=800, long=1333, antialias=True),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, RGB input, background last, with the pixel statistics."""
        out = rename(_with_eps(_plain(state)), _rules())
        return {**out, "pixel_mean": torch.tensor(_MEAN), "pixel_std": torch.tensor(_STD)}


def _rules() -> list[Rule]:
    box, mask, iou = r"roi_heads\.box\.", r"roi_heads\.mask\.", r"roi_heads\.maskiou\."
    rules = [
        Rule(r"rpn\.anchor_generator\..*", None),
        Rule(r"backbone\.body\.stem\.conv1\.weight", "backbone.body.conv1.weight", _reverse_input),
        Rule(r"backbone\.body\.stem\.bn1\.(\w+)", r"backbone.body.bn1.\1"),
        Rule(r"backbone\.body\.(layer.*)", r"backbone.body.\1"),
        Rule(r"rpn\.head\.conv\.(\w+)", r"rpn.convs.0.\1"),
        Rule(r"rpn\.head\.cls_logits\.(\w+)", r"rpn.objectness.\1"),
        Rule(r"rpn\.head\.bbox_pred\.(\w+)", r"rpn.deltas.\1"),
        Rule(rf"{box}feature_extractor\.fc6\.(\w+)", r"box_head.fcs.0.\1"),
        Rule(rf"{box}feature_extractor\.fc7\.(\w+)", r"box_head.fcs.1.\1"),
        Rule(rf"{box}predictor\.cls_score\.(\w+)", r"box_head.class_logits.\1", _background_last),
        Rule(rf"{box}predictor\.bbox_pred\.(\w+)", r"box_head.box_deltas.\1", _without_first(4)),
        Rule(rf"{mask}predictor\.conv5_mask\.(\w+)", r"mask_head.upsample.\1"),
        Rule(rf"{mask}predictor\.mask_fcn_logits\.(\w+)", r"mask_head.predictor.\1", _without_first(1)),
        Rule(rf"{iou}feature_extractor\.maskiou_fc1\.(\w+)", r"iou_head.fcs.0.\1"),
        Rule(rf"{iou}feature_extractor\.maskiou_fc2\.(\w+)", r"iou_head.fcs.1.\1"),
        Rule(rf"{iou}predictor\.maskiou\.(\w+)", r"iou_head.iou.\1", _without_first(1)),
    ]
    for k in range(1, 5):  # theirs are counted from 1
        rules += [
            Rule(rf"backbone\.fpn\.fpn_inner{k}\.(\w+)", rf"neck.lateral.{k - 1}.\1"),
            Rule(rf"backbone\.fpn\.fpn_layer{k}\.(\w+)", rf"neck.output.{k - 1}.\1"),
            Rule(rf"{mask}feature_extractor\.mask_fcn{k}\.(\w+)", rf"mask_head.convs.{k - 1}.conv.\1"),
            Rule(rf"{iou}feature_extractor\.maskiou_fcn{k}\.(\w+)", rf"iou_head.convs.{k - 1}.\1"),
        ]
    return rules


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("module."): value for name, value in state.items()}


def _reverse_input(weight: Tensor) -> Tensor:
    return weight.flip(1)


def _background_last(value: Tensor) -> Tensor:
    return value.roll(-1, 0)


def _without_first(rows: int) -> Callable[[Tensor], Tensor]:
    return lambda value: value[rows:].clone()


def _with_eps(state: Mapping[str, Any]) -> dict[str, Any]:
    """Scales of the body's norms with which an epsilon of 1e-5 changes nothing."""
    out = dict(state)
    for name, variance in state.items():
        if name.startswith(_BODY) and name.endswith(".running_var"):
            scale = f"{name.removesuffix('running_var')}weight"
            factor = ((variance.double() + _EPS) / variance.double()).sqrt()
            out[scale] = (state[scale].double() * factor).to(state[scale].dtype)
    return out
