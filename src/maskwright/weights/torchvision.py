"""torchvision's Mask R-CNN (``maskrcnn_resnet50_fpn``, version 1 and 2) in our names.

Origin: pytorch/vision, BSD-3. Its background is the first class, ours the last: the class layer's rows are rolled, and
boxes and masks lose the background's, which nothing reads. Pixels are RGB in 0..1, ours in 0..255.
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

_CLASSES = "roi_heads.box_predictor.cls_score.weight"
_MASKS = "roi_heads.mask_predictor.mask_fcn_logits.weight"
_BODY = "backbone.body."
_MEAN = tuple(255 * v for v in (0.485, 0.456, 0.406))
_STD = tuple(255 * v for v in (0.229, 0.224, 0.225))
_EPS = 1e-5


class TorchvisionMaskRCNN:
    """Importer of torchvision's Mask R-CNN on a ResNet or ResNeXt with FPN."""

    origin = "torchvision"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of torchvision's Mask R-CNN on a ResNet."""
        return all(name in state for name in (_CLASSES, _MASKS, f"{_BODY}conv1.weight"))

    def model(self, state: Mapping[str, Any]) -> str:
        """``mask-rcnn-r18``, ``-r50``, ``-r101`` or ``-x101``, from the blocks there are."""
        first = state.get(f"{_BODY}layer1.0.conv2.weight")
        grouped = first is not None and int(first.shape[1]) < int(first.shape[0])
        return resnet_model([name.removeprefix(_BODY) for name in state if name.startswith(_BODY)], grouped)

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's ids 1 to 90 for 91 outputs, numbered classes otherwise."""
        return taxonomy_for(int(state[_CLASSES].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """torchvision's conventions; version 2 has a deeper RPN, a convolutional box head, norms in neck and heads."""
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "stride_in_1x1": False,
            "convention": "torchvision",
            "rpn_depth": 2 if "rpn.head.conv.1.0.weight" in state else 1,
            "box_head": "conv4_fc1" if "roi_heads.box_head.0.0.weight" in state else "fc2",
            "neck_norm": "batch" if "backbone.fpn.inner_blocks.0.1.weight" in state else None,
            "head_norm": "batch" if "roi_heads.mask_head.0.1.weight" in state else None,
            "proposals_train": (2000, 2000),
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=800, long=1333, antialias=False),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, background last, with the pixel statistics."""
        neck_norm = "backbone.fpn.inner_blocks.0.1.weight" in state
        out = rename(_without_eps(state), _rules(neck_norm=neck_norm))
        return {**out, "pixel_mean": torch.tensor(_MEAN), "pixel_std": torch.tensor(_STD)}


def _rules(*, neck_norm: bool) -> list[Rule]:
    conv = "conv." if neck_norm else ""
    roi = r"roi_heads\."
    rules = [
        Rule(r"backbone\.body\..*num_batches_tracked", None),
        Rule(r"backbone\.body\.(.*)", r"backbone.body.\1"),
        Rule(r"rpn\.head\.conv\.(?:(\d+)\.0\.)(weight|bias)", r"rpn.convs.\1.\2"),
        # Names from before torchvision 0.13, which the published version 1 still has.
        Rule(r"rpn\.head\.conv\.(weight|bias)", r"rpn.convs.0.\1"),
        Rule(r"rpn\.head\.cls_logits\.(\w+)", r"rpn.objectness.\1"),
        Rule(r"rpn\.head\.bbox_pred\.(\w+)", r"rpn.deltas.\1"),
        Rule(rf"{roi}box_head\.fc6\.(\w+)", r"box_head.fcs.0.\1"),
        Rule(rf"{roi}box_head\.fc7\.(\w+)", r"box_head.fcs.1.\1"),
        Rule(rf"{roi}box_head\.(\d+)\.0\.(\w+)", r"box_head.convs.\1.conv.\2"),
        Rule(rf"{roi}box_head\.(\d+)\.1\.(\w+)", r"box_head.convs.\1.norm.\2"),
        Rule(rf"{roi}box_head\.\d+\.(weight|bias)", r"box_head.fcs.0.\1"),
        Rule(rf"{roi}box_predictor\.cls_score\.(\w+)", r"box_head.class_logits.\1", _background_last),
        Rule(rf"{roi}box_predictor\.bbox_pred\.(\w+)", r"box_head.box_deltas.\1", _without_first(4)),
        Rule(rf"{roi}mask_head\.(\d+)\.0\.(\w+)", r"mask_head.convs.\1.conv.\2"),
        Rule(rf"{roi}mask_head\.(\d+)\.1\.(\w+)", r"mask_head.convs.\1.norm.\2"),
        Rule(rf"{roi}mask_predictor\.conv5_mask\.(\w+)", r"mask_head.upsample.\1"),
        Rule(rf"{roi}mask_predictor\.mask_fcn_logits\.(\w+)", r"mask_head.predictor.\1", _without_first(1)),
    ]
    for k in range(1, 5):
        rules.append(Rule(rf"{roi}mask_head\.mask_fcn{k}\.(\w+)", rf"mask_head.convs.{k - 1}.conv.\1"))
    for theirs, ours in (("inner", "lateral"), ("layer", "output")):
        rules += [
            Rule(rf"backbone\.fpn\.{theirs}_blocks\.(\d)\.(?:0\.)?(weight|bias)", rf"neck.{ours}.\1.{conv}\2"),
            Rule(rf"backbone\.fpn\.{theirs}_blocks\.(\d)\.1\.(\w+)", rf"neck.{ours}.\1.norm.\2"),
        ]
    return rules


def _background_last(value: Tensor) -> Tensor:
    return value.roll(-1, 0)


def _without_first(rows: int) -> Callable[[Tensor], Tensor]:
    return lambda value: value[rows:].clone()


def _without_eps(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Fold version 1's missing epsilon into the scales of the body's norms.

    torchvision runs the published version 1, and what was fine-tuned from it, with frozen norms without the epsilon of
    1e-5 that ours have. Frozen norms are the ones saved without a count of batches.
    """
    out = dict(state)
    names = [name for name in state if name.startswith(_BODY)]
    if any(name.endswith("num_batches_tracked") for name in names):
        return out
    for name in names:
        if name.endswith(".running_var"):
            scale, variance = f"{name.removesuffix('running_var')}weight", state[name]
            factor = ((variance.double() + _EPS) / variance.double()).sqrt()
            out[scale] = (state[scale].double() * factor).to(state[scale].dtype)
    return out
