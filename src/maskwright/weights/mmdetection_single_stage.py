"""mmdetection's YOLACT and RTMDet-Ins (version 3) in our names.

Origin: open-mmlab/mmdetection, Apache-2.0.
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
from maskwright.weights.yolact import prototype_rules

_MEAN = (123.68, 116.78, 103.94)
_STD = (58.4, 57.12, 57.38)


class MMDetectionYolact:
    """Importer of mmdetection's YOLACT on a ResNet.

    Its semantic layer learns each class in the output before it (labels that count from 0 are treated as if they
    counted from 1), so its outputs are moved up by one here.
    """

    origin = "mmdetection YOLACT"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of mmdetection's YOLACT on a ResNet."""
        needed = ("bbox_head.conv_coeff.weight", "mask_head.protonet.0.weight", "backbone.layer1.0.conv3.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``yolact-r50`` or ``-r101``, from the blocks there are."""
        names = [name.removeprefix("backbone.") for name in state if name.startswith("backbone.")]
        return resnet_model(names, False).replace("mask-rcnn", "yolact")

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        anchors = int(state["bbox_head.conv_reg.weight"].shape[0]) // 4
        return taxonomy_for(int(state["bbox_head.conv_cls.weight"].shape[0]) // anchors - 1)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """mmdetection's rules, anchors and pyramid; widths from the shapes."""
        return {
            "channels": int(state["neck.fpn_convs.0.conv.weight"].shape[0]),
            "width": int(state["bbox_head.conv_cls.weight"].shape[1]),
            "prototype_width": int(state["mask_head.protonet.0.weight"].shape[0]),
            "prototypes": int(state["mask_head.protonet.10.weight"].shape[0]),
            "extra_from": "input",
            "neck_relu": False,
            "anchor_ratios": (0.5, 1.0, 2.0),
            "square_anchors": False,
            "forced": "last",
            "clip_first": True,
            "pre_nms": 1000,
            "second_threshold": True,
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=550, long=550, antialias=False),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        rules = [
            Rule(r".*num_batches_tracked", None),
            Rule(r"data_preprocessor\..*", None),
            Rule(r"backbone\.(.*)", r"backbone.body.\1"),
            Rule(r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"neck.lateral.\1.\2"),
            Rule(r"neck\.fpn_convs\.([012])\.conv\.(\w+)", r"neck.output.\1.\2"),
            Rule(r"neck\.fpn_convs\.3\.conv\.(\w+)", r"neck.extra.0.\1"),
            Rule(r"neck\.fpn_convs\.4\.conv\.(\w+)", r"neck.extra.1.\1"),
            Rule(r"bbox_head\.head_convs\.(\d)\.conv\.(\w+)", r"head.tower.\1.\2"),
            Rule(r"bbox_head\.conv_cls\.(\w+)", r"head.class_logits.\1"),
            Rule(r"bbox_head\.conv_reg\.(\w+)", r"head.box_deltas.\1"),
            Rule(r"bbox_head\.conv_coeff\.(\w+)", r"head.coefficients.\1"),
            Rule(r"(?:mask_head\.segm_branch|segm_head)\.segm_conv\.(\w+)", r"semantic.\1", lambda v: v.roll(1, 0)),
            *prototype_rules(r"mask_head\.protonet\."),
        ]
        return {**rename(state, rules), "pixel_mean": torch.tensor(_MEAN), "pixel_std": torch.tensor(_STD)}
