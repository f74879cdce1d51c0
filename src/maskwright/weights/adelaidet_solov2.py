"""AdelaiDet's SOLOv2 in our names.

Origin: aim-uofa/AdelaiDet, academic use only. Pixels are BGR; its ResNets are detectron2's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.adelaidet import BODY, MEAN, STD, pixel_statistics, resnet_depth, resnet_rules
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.rename import Rule, rename

_HEAD = "ins_head."


class AdelaiDetSOLOv2:
    """Importer of AdelaiDet's SOLOv2 on a ResNet with FPN."""

    origin = "adelaidet SOLOv2"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of AdelaiDet's SOLOv2 on a ResNet."""
        needed = (f"{_HEAD}kernel_pred.weight", f"{_HEAD}cate_pred.weight", f"{BODY}stem.conv1.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``solov2-r50`` or ``-r101``, from the blocks there are."""
        return f"solov2-{resnet_depth(state)}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state[f"{_HEAD}cate_pred.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Stride in the 1x1 convolution, frozen norms; widths and depths from the shapes."""
        first = state[f"{_HEAD}cate_tower.0.weight"]
        return {
            "norm": "frozen",
            "frozen_stages": 2,
            "stride_in_1x1": True,
            "channels": int(first.shape[1]),
            "width": int(first.shape[0]),
            "depth": sum(f"{_HEAD}cate_tower.{3 * i}.weight" in state for i in range(16)),
            "mask_width": int(state["mask_head.conv_pred.0.weight"].shape[1]),
            "kernels": int(state["mask_head.conv_pred.0.weight"].shape[0]),
            "rounded_targets": True,
            "pixel_mean": MEAN,
            "pixel_std": STD,
            "resize": Resize(short=800, long=1333, antialias=True),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with RGB input and the pixel statistics."""
        rules = [Rule(r".*num_batches_tracked", None), Rule(r"pixel_(mean|std)", None), *resnet_rules()]
        rules += [
            Rule(rf"backbone\.fpn_(lateral|output){level}\.(\w+)", rf"neck.\1.{level - 2}.\2") for level in range(2, 6)
        ]
        for k in range(16):
            for theirs, ours in (("cate", "categories"), ("kernel", "kernels")):
                rules += [
                    Rule(rf"ins_head\.{theirs}_tower\.{3 * k}\.(\w+)", rf"{ours}.tower.{k}.conv.\1"),
                    Rule(rf"ins_head\.{theirs}_tower\.{3 * k + 1}\.(\w+)", rf"{ours}.tower.{k}.norm.\1"),
                ]
        level = r"mask_head\.convs_all_levels\.(\d)\.conv(\d)"
        rules += [
            Rule(r"ins_head\.cate_pred\.(\w+)", r"categories.logits.\1"),
            Rule(r"ins_head\.kernel_pred\.(\w+)", r"kernels.kernels.\1"),
            Rule(rf"{level}\.0\.(\w+)", r"mask_features.levels.\1.\2.conv.\3"),
            Rule(rf"{level}\.1\.(\w+)", r"mask_features.levels.\1.\2.norm.\3"),
            Rule(r"mask_head\.conv_pred\.0\.(\w+)", r"mask_features.output.conv.\1"),
            Rule(r"mask_head\.conv_pred\.1\.(\w+)", r"mask_features.output.norm.\1"),
        ]
        return {**rename(state, rules), **pixel_statistics()}
