"""detectron2's Mask R-CNN with FPN (``GeneralizedRCNN``) in our names.

Origin: facebookresearch/detectron2, model zoo weights under CC BY-SA 3.0. Its checkpoints are pickles
``{"model": name -> numpy array}`` or ``torch.save`` files. Backgrounds are last as ours are; pixels are BGR, so the
first convolution's input channels are reversed once here.
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

_CLASSES = "roi_heads.box_predictor.cls_score.weight"
_BOXES = "roi_heads.box_predictor.bbox_pred.weight"
_MASKS = "roi_heads.mask_head.predictor.weight"
_BODY = "backbone.bottom_up."
_MEAN_BGR = (103.53, 116.28, 123.675)


class Detectron2MaskRCNN:
    """Importer of detectron2's Mask R-CNN on a ResNet or ResNeXt with FPN."""

    origin = "detectron2"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of detectron2's Mask R-CNN with FPN."""
        needed = (_CLASSES, _MASKS, f"{_BODY}stem.conv1.weight", "backbone.fpn_lateral2.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``mask-rcnn-r50``, ``-r101`` or ``-x101``, from the blocks there are."""
        return resnet_model([_body_name(name) for name in state if name.startswith(_BODY)], _grouped(state))

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state[_CLASSES].shape[0]) - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Stride in the 1x1 convolution (the MSRA ResNet; not the ResNeXt), frozen norms, detectron2's conventions."""
        mean, std = _statistics(state)
        fourth = f"{_CONVS}4.weight"
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "stride_in_1x1": not _grouped(state) and not _is_rgb(state),
            "convention": "detectron2",
            "rpn_depth": 2 if "proposal_generator.rpn_head.conv.conv1.weight" in state else 1,
            "box_head": "conv4_fc1" if fourth in state else "fc2",
            "neck_norm": _norm_of(state, "backbone.fpn_lateral2"),
            "head_norm": _norm_of(state, "roi_heads.mask_head.mask_fcn1"),
            "agnostic_box": int(state[_BOXES].shape[0]) == 4 and int(state[_CLASSES].shape[0]) > 2,
            "agnostic_mask": int(state[_MASKS].shape[0]) == 1 and int(state[_CLASSES].shape[0]) > 2,
            "pixel_mean": mean,
            "pixel_std": std,
            "resize": Resize(short=800, long=1333, antialias=True),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with RGB input and the pixel statistics."""
        mean, std = _statistics(state)
        rest = {name: value for name, value in state.items() if name not in ("pixel_mean", "pixel_std")}
        rules = _rules(reverse=not _is_rgb(state), neck_norm="backbone.fpn_lateral2.norm.weight" in state)
        out = rename(rest, rules)
        return {**out, "pixel_mean": torch.tensor(mean), "pixel_std": torch.tensor(std)}


_CONVS = "roi_heads.box_head.conv"


def _rules(*, reverse: bool, neck_norm: bool) -> list[Rule]:
    stem = _reverse_input if reverse else None
    body = r"backbone\.bottom_up\."
    conv = "conv." if neck_norm else ""
    rules = [
        Rule(r".*num_batches_tracked", None),
        Rule(r"proposal_generator\.anchor_generator\..*", None),
        Rule(rf"{body}stem\.conv1\.weight", "backbone.body.conv1.weight", stem),
        Rule(rf"{body}stem\.conv1\.norm\.(\w+)", r"backbone.body.bn1.\1"),
    ]
    for stage in range(2, 6):
        block, ours = rf"{body}res{stage}\.(\d+)\.", rf"backbone.body.layer{stage - 1}.\g<1>."
        level = stage - 2
        rules += [
            Rule(rf"{block}shortcut\.weight", f"{ours}downsample.0.weight"),
            Rule(rf"{block}shortcut\.norm\.(\w+)", rf"{ours}downsample.1.\2"),
            Rule(rf"{block}conv(\d)\.weight", rf"{ours}conv\2.weight"),
            Rule(rf"{block}conv(\d)\.norm\.(\w+)", rf"{ours}bn\2.\3"),
            Rule(rf"backbone\.fpn_(lateral|output){stage}\.(weight|bias)", rf"neck.\1.{level}.{conv}\2"),
            Rule(rf"backbone\.fpn_(lateral|output){stage}\.norm\.(\w+)", rf"neck.\1.{level}.norm.\2"),
        ]
    rpn, roi = r"proposal_generator\.rpn_head\.", r"roi_heads\."
    rules += [
        Rule(rf"{rpn}conv\.(weight|bias)", r"rpn.convs.0.\1"),
        Rule(rf"{rpn}conv\.conv(\d+)\.(weight|bias)", r"rpn.convs.\1.\2"),
        Rule(rf"{rpn}objectness_logits\.(\w+)", r"rpn.objectness.\1"),
        Rule(rf"{rpn}anchor_deltas\.(\w+)", r"rpn.deltas.\1"),
    ]
    # detectron2 counts its convolutions and layers from 1.
    for k in range(1, 9):
        rules += [
            Rule(rf"{roi}box_head\.conv{k}\.(weight|bias)", rf"box_head.convs.{k - 1}.conv.\1"),
            Rule(rf"{roi}box_head\.conv{k}\.norm\.(\w+)", rf"box_head.convs.{k - 1}.norm.\1"),
            Rule(rf"{roi}box_head\.fc{k}\.(\w+)", rf"box_head.fcs.{k - 1}.\1"),
            Rule(rf"{roi}mask_head\.mask_fcn{k}\.(weight|bias)", rf"mask_head.convs.{k - 1}.conv.\1"),
            Rule(rf"{roi}mask_head\.mask_fcn{k}\.norm\.(\w+)", rf"mask_head.convs.{k - 1}.norm.\1"),
        ]
    return [
        *rules,
        Rule(rf"{roi}box_predictor\.cls_score\.(\w+)", r"box_head.class_logits.\1"),
        Rule(rf"{roi}box_predictor\.bbox_pred\.(\w+)", r"box_head.box_deltas.\1"),
        Rule(rf"{roi}mask_head\.deconv\.(\w+)", r"mask_head.upsample.\1"),
        Rule(rf"{roi}mask_head\.predictor\.(\w+)", r"mask_head.predictor.\1"),
    ]


def _reverse_input(weight: Tensor) -> Tensor:
    return weight.flip(1)


def _body_name(name: str) -> str:
    stage, _, rest = name.removeprefix(_BODY).partition(".")
    return f"layer{int(stage[3:]) - 1}.{rest}" if stage.startswith("res") else rest


def _grouped(state: Mapping[str, Any]) -> bool:
    weight = state.get(f"{_BODY}res2.0.conv2.weight")
    return weight is not None and int(weight.shape[1]) < int(weight.shape[0])


def _norm_of(state: Mapping[str, Any], conv: str) -> str | None:
    if f"{conv}.norm.weight" not in state:
        return None
    return "batch" if f"{conv}.norm.running_mean" in state else "group"


def _is_rgb(state: Mapping[str, Any]) -> bool:
    """Whether the checkpoint was made for RGB pixels: its stored means then fall from red to blue."""
    mean = state.get("pixel_mean")
    return mean is not None and float(mean.reshape(-1)[0]) > float(mean.reshape(-1)[2])


def _statistics(state: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation in RGB: the stored ones (older checkpoints have them), else the model zoo's."""
    step = 1 if _is_rgb(state) else -1
    default_std = (57.375, 57.12, 58.395) if _grouped(state) else (1.0, 1.0, 1.0)
    stored = (state.get("pixel_mean"), state.get("pixel_std"))
    values = [
        default if tensor is None else tuple(round(float(v), 4) for v in tensor.reshape(-1))
        for tensor, default in zip(stored, (_MEAN_BGR, default_std), strict=True)
    ]
    return values[0][::step], values[1][::step]
