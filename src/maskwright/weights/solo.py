"""SOLO and SOLOv2 of their authors and of mmdetection in our names.

Origins: WXinlong/SOLO, non-commercial; open-mmlab/mmdetection, Apache-2.0. Both see RGB over torchvision's statistics,
with the ResNet's stride in the 3x3 convolution, and differ in the names of the heads alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.adelaidet import pixel_statistics
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.rename import Rule, rename
from maskwright.weights.resnet import resnet_model

_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
_BODY = "backbone."


class _SOLO:
    """What both importers do; they say their prefixes.

    ``heads``: of the branches; ``shared``: of SOLOv2's mask feature; ``names``: theirs of the category tower, its
    logits, the mask tower, SOLO's maps, the decoupled maps, and SOLOv2's kernels.
    """

    origin: str
    heads: str
    shared: str
    names: tuple[str, str, str, str, str, str]

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of this origin's SOLO or SOLOv2 on a ResNet."""
        body = f"{_BODY}layer1.0.conv1.weight" in state
        return body and self._logits(state) is not None and (self._dynamic(state) or self._maps(state) is not None)

    def model(self, state: Mapping[str, Any]) -> str:
        """The row whose heads these are; another ResNet than the row's is among the ``options``."""
        depth = self._depth(state)
        if self._dynamic(state):
            if self._count(state, self.names[0]) < 3:
                return "solov2-light-r18"
            return "solov2-r101" if depth == "r101" else "solov2-r50"
        return "solo-decoupled-r50" if self._decoupled(state) else "solo-r50"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        logits = self._logits(state)
        assert logits is not None
        return taxonomy_for(int(state[logits].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Frozen norms, the stem and first stage fixed; widths and depths from the shapes."""
        tower = self.names[0]
        first = state[f"{self.heads}{tower}.0.conv.weight"]
        bodies = {"r18": "resnet18", "r50": "resnet50", "r101": "resnet101"}
        options: dict[str, Any] = {
            "body": bodies[self._depth(state)],
            "norm": "frozen",
            "frozen_stages": 2,
            "channels": int(first.shape[1]),
            "width": int(first.shape[0]),
            "depth": self._count(state, tower),
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
        }
        if self._dynamic(state):
            features = self._features(state)
            options["mask_width"], options["kernels"] = int(features.shape[1]), int(features.shape[0])
        if self.model(state) != "solov2-light-r18":
            options["resize"] = Resize(short=800, long=1333, antialias=False)
        return options

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        head = self.heads.replace(".", r"\.")
        tower, logits, masks, maps, decoupled, kernels = self.names
        rules = [
            Rule(r".*num_batches_tracked", None),
            Rule(r"data_preprocessor\..*", None),
            Rule(r"backbone\.(.*)", r"backbone.body.\1"),
            Rule(r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"neck.lateral.\1.\2"),
            Rule(r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", r"neck.output.\1.\2"),
            Rule(rf"{head}{tower}\.(\d)\.conv\.(\w+)", r"categories.tower.\1.conv.\2"),
            Rule(rf"{head}{tower}\.(\d)\.gn\.(\w+)", r"categories.tower.\1.norm.\2"),
            Rule(rf"{head}{logits}\.(\w+)", r"categories.logits.\1"),
            Rule(rf"{head}{kernels}\.(\w+)", r"kernels.kernels.\1"),
            Rule(rf"{head}kernel_convs\.(\d)\.conv\.(\w+)", r"kernels.tower.\1.conv.\2"),
            Rule(rf"{head}kernel_convs\.(\d)\.gn\.(\w+)", r"kernels.tower.\1.norm.\2"),
            Rule(rf"{head}{maps}\.(\d)\.(\w+)", r"masks.maps.0.\1.\2"),
        ]
        for number, axis in enumerate(("", "_x", "_y")):
            ours = max(number - 1, 0)
            rules += [
                Rule(rf"{head}{masks}{axis}\.(\d)\.conv\.(\w+)", rf"masks.towers.{ours}.\1.conv.\2"),
                Rule(rf"{head}{masks}{axis}\.(\d)\.gn\.(\w+)", rf"masks.towers.{ours}.\1.norm.\2"),
            ]
            if axis:
                rules.append(Rule(rf"{head}{decoupled}{axis}\.(\d)\.(\w+)", rf"masks.maps.{ours}.\1.\2"))
        shared, part = self.shared.replace(".", r"\."), r"convs_all_levels\.(\d)\.conv(\d)"
        rules += [
            Rule(rf"{shared}{part}\.conv\.(\w+)", r"mask_features.levels.\1.\2.conv.\3"),
            Rule(rf"{shared}{part}\.gn\.(\w+)", r"mask_features.levels.\1.\2.norm.\3"),
            Rule(rf"{shared}conv_pred\.(?:0\.)?conv\.(\w+)", r"mask_features.output.conv.\1"),
            Rule(rf"{shared}conv_pred\.(?:0\.)?gn\.(\w+)", r"mask_features.output.norm.\1"),
        ]
        return {**rename(state, rules), **pixel_statistics(_MEAN, _STD)}

    def _logits(self, state: Mapping[str, Any]) -> str | None:
        names = self.names[1].removeprefix("(?:").removesuffix(")").split("|")
        return next((f"{self.heads}{n}.weight" for n in names if f"{self.heads}{n}.weight" in state), None)

    def _maps(self, state: Mapping[str, Any]) -> str | None:
        names = (f"{self.heads}{self.names[3]}.0.weight", f"{self.heads}{self.names[4]}_x.0.weight")
        return next((name for name in names if name in state), None)

    def _dynamic(self, state: Mapping[str, Any]) -> bool:
        return f"{self.heads}{self.names[5]}.weight" in state

    def _decoupled(self, state: Mapping[str, Any]) -> bool:
        return f"{self.heads}{self.names[4]}_x.0.weight" in state

    def _depth(self, state: Mapping[str, Any]) -> str:
        names = [name.removeprefix(_BODY) for name in state if name.startswith(_BODY)]
        return resnet_model(names, False).removeprefix("mask-rcnn-")

    def _features(self, state: Mapping[str, Any]) -> Tensor:
        name = f"{self.shared}conv_pred.conv.weight"
        return state[name] if name in state else state[f"{self.shared}conv_pred.0.conv.weight"]

    def _count(self, state: Mapping[str, Any], tower: str) -> int:
        return sum(f"{self.heads}{tower}.{i}.conv.weight" in state for i in range(16))


class OfficialSOLO(_SOLO):
    """Importer of the authors' SOLO, decoupled SOLO and SOLOv2."""

    origin = "SOLO"
    heads, shared = "bbox_head.", "mask_feat_head."
    names = ("cate_convs", "(?:solo_cate|dsolo_cate)", "ins_convs", "solo_ins_list", "dsolo_ins_list", "solo_kernel")


class MMDetectionSOLO(_SOLO):
    """Importer of mmdetection's SOLO, decoupled SOLO and SOLOv2."""

    origin = "mmdetection SOLO"
    heads, shared = "mask_head.", "mask_head.mask_feature_head."
    names = ("cls_convs", "conv_cls", "mask_convs", "conv_mask_list", "conv_mask_list", "conv_kernel")
