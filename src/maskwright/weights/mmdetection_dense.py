"""mmdetection's CondInst (version 3) in our names.

Origin: open-mmlab/mmdetection, Apache-2.0. Pixels are RGB with torchvision's statistics; the ResNet has its stride in
the 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.adelaidet import pixel_statistics, with_scales
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
_BRANCH = "mask_head.mask_feature_head."


class MMDetectionCondInst:
    """Importer of mmdetection's CondInst on a ResNet with FPN."""

    origin = "mmdetection CondInst"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of mmdetection's CondInst on a ResNet."""
        needed = ("bbox_head.controller.weight", f"{_BRANCH}conv_pred.weight", "backbone.conv1.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``condinst-r50`` or ``-r101``, from the blocks there are."""
        names = [name.removeprefix("backbone.") for name in state if name.startswith("backbone.")]
        return resnet_model(names, False).replace("mask-rcnn", "condinst")

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state["bbox_head.conv_cls.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """mmdetection's rules; norms as a fine-tuning freezes them, widths and depths from the shapes."""
        names = [name for name in state if name.endswith(".conv.weight")]
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "rules": "mmdetection",
            "max_masks": 300,
            "channels": int(state["neck.fpn_convs.0.conv.weight"].shape[0]),
            "head_depth": sum(name.startswith("bbox_head.cls_convs.") for name in names),
            "head_norm": "group" if "bbox_head.cls_convs.0.gn.weight" in state else None,
            "branch_width": int(state[f"{_BRANCH}conv_pred.weight"].shape[1]),
            "branch_depth": sum(name.startswith(f"{_BRANCH}conv_branch.") for name in names),
            "mask_features": int(state[f"{_BRANCH}conv_pred.weight"].shape[0]),
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=800, long=1333, antialias=False),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        branch = r"mask_head\.mask_feature_head\."
        rules = [
            Rule(r".*num_batches_tracked", None),
            Rule(r"data_preprocessor\..*", None),
            Rule(r"backbone\.(.*)", r"backbone.body.\1"),
            Rule(r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"neck.0.lateral.\1.\2"),
            Rule(r"neck\.fpn_convs\.([012])\.conv\.(\w+)", r"neck.0.output.\1.\2"),
            Rule(r"neck\.fpn_convs\.3\.conv\.(\w+)", r"neck.1.convs.0.\1"),
            Rule(r"neck\.fpn_convs\.4\.conv\.(\w+)", r"neck.1.convs.1.\1"),
            Rule(r"bbox_head\.cls_convs\.(\d)\.conv\.(\w+)", r"head.class_tower.\1.conv.\2"),
            Rule(r"bbox_head\.cls_convs\.(\d)\.gn\.(\w+)", r"head.class_tower.\1.norm.\2"),
            Rule(r"bbox_head\.reg_convs\.(\d)\.conv\.(\w+)", r"head.box_tower.\1.conv.\2"),
            Rule(r"bbox_head\.reg_convs\.(\d)\.gn\.(\w+)", r"head.box_tower.\1.norm.\2"),
            Rule(r"bbox_head\.conv_cls\.(\w+)", r"head.class_logits.\1"),
            Rule(r"bbox_head\.conv_reg\.(\w+)", r"head.distances.\1"),
            Rule(r"bbox_head\.conv_centerness\.(\w+)", r"head.centerness.\1"),
            Rule(r"bbox_head\.controller\.(\w+)", r"controller.\1"),
            Rule(rf"{branch}convs_all_levels\.(\d)\.conv\d\.conv\.weight", r"mask_branch.refine.\1.conv.weight"),
            Rule(rf"{branch}convs_all_levels\.(\d)\.conv\d\.bn\.(\w+)", r"mask_branch.refine.\1.norm.\2"),
            Rule(rf"{branch}conv_branch\.(\d+)\.conv\.weight", r"mask_branch.tower.\1.conv.weight"),
            Rule(rf"{branch}conv_branch\.(\d+)\.bn\.(\w+)", r"mask_branch.tower.\1.norm.\2"),
            Rule(rf"{branch}conv_pred\.(\w+)", r"mask_branch.output.\1"),
        ]
        return {**rename(with_scales(state, "bbox_head.scales."), rules), **pixel_statistics(_MEAN, _STD)}
