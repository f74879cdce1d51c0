"""mmdetection's RTMDet-Ins (version 3) in our names.

Origin: open-mmlab/mmdetection, Apache-2.0. The network is fed BGR pixels, so that the first convolution's channels are
reversed here. A checkpoint holds the towers' shared convolutions once for each level, and the tower for classes once
more as that for boxes: mmdetection makes one tower for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.adelaidet import pixel_statistics
from maskwright.weights.coco_names import taxonomy_for

_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
_FIRST = "backbone.stem.0.conv.weight"
_SHARED = re.compile(r"(bbox_head\.(?:cls|reg)_convs\.)(\d)(\.\d+\.conv\.weight)")
_NAMES = {24: "rtmdet-ins-tiny", 32: "rtmdet-ins-s"}
"""Models by the width of the stem; wider ones are the m, with numbers of their own."""


class MMDetectionRTMDetIns:
    """Importer of mmdetection's RTMDet-Ins, of any size."""

    origin = "mmdetection RTMDet-Ins"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of mmdetection's RTMDet-Ins on CSPNeXt."""
        needed = ("bbox_head.rtm_kernel.0.weight", "neck.reduce_layers.0.conv.weight", "backbone.stem.0.conv.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``rtmdet-ins-tiny``, ``-s`` or ``-m``, which larger ones are with other numbers."""
        return _NAMES.get(_stem(state), "rtmdet-ins-m")

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(int(state["bbox_head.rtm_cls.0.weight"].shape[0]))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers from the shapes."""
        blocks = _count(state, "backbone.stage2.1.blocks.")
        return {
            "width": _stem(state) / 64,
            "depth": {1: 0.167, 2: 0.33, 4: 0.67, 6: 1.0, 8: 1.33}.get(blocks, blocks / 6),
            "channels": int(state["neck.out_convs.0.conv.weight"].shape[0]),
            "neck_blocks": _count(state, "neck.top_down_blocks.0.blocks."),
            "head_width": int(state["bbox_head.rtm_cls.0.weight"].shape[1]),
            "share_convs": _shared(state),
            "box_tower": _box_tower(state),
            "head_depth": _count(state, "bbox_head.cls_convs.0."),
            "mask_depth": _count(state, "bbox_head.mask_head.stacked_convs."),
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=640, long=640, antialias=False),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, each once, with the pixel statistics."""
        boxes, shared = _box_tower(state), _shared(state)
        levels = _count(state, "neck.out_convs.")
        out: dict[str, Tensor] = {}
        for name, value in state.items():
            again = shared and (found := _SHARED.fullmatch(name)) is not None and found[2] != "0"
            if name.endswith("num_batches_tracked") or name.startswith("data_preprocessor.") or again:
                continue
            if boxes or ".reg_convs." not in name:
                out[_named(name, levels)] = value.flip(1) if name == _FIRST else value
        return {**out, **pixel_statistics(_MEAN, _STD)}


_PARTS = (
    (r"\.bn\.", ".norm."),
    (r"\.(main|short|final)_conv\.", r".\1."),
    (r"\.blocks\.(\d)\.conv1\.", r".blocks.\1.first."),
    (r"\.conv2\.(depth|point)wise_conv\.", r".\1."),
    (r"^backbone\.stem\.", "backbone.stages.0."),
    (r"^backbone\.stage4\.1\.conv1\.", "backbone.stages.4.1.reduce."),
    (r"^backbone\.stage4\.1\.conv2\.", "backbone.stages.4.1.mix."),
    (r"^backbone\.stage(\d)\.", r"backbone.stages.\1."),
    (r"^neck\.downsamples\.", "neck.downsample."),
    (r"^neck\.bottom_up_blocks\.", "neck.bottom_up."),
    (r"^neck\.out_convs\.", "neck.output."),
    (r"^bbox_head\.mask_head\.stacked_convs\.", "mask_features.tower."),
    (r"^bbox_head\.mask_head\.fusion_conv\.", "mask_features.fuse."),
    (r"^bbox_head\.mask_head\.projection\.", "mask_features.output."),
    (r"^bbox_head\.rtm_cls\.", "head.class_logits."),
    (r"^bbox_head\.rtm_reg\.", "head.distances."),
    (r"^bbox_head\.rtm_kernel\.", "head.parameters_of."),
)
"""What parts of a name become, one after the other."""


def _named(name: str, levels: int) -> str:
    """Our name for one of mmdetection's."""
    for pattern, text in _PARTS:
        name = re.sub(pattern, text, name)
    found = re.fullmatch(r"neck\.(reduce_layers|top_down_blocks)\.(\d)\.(.*)", name)
    if found:  # those count from the coarsest level
        part = "reduce" if found[1] == "reduce_layers" else "top_down"
        return f"neck.{part}.{levels - 2 - int(found[2])}.{found[3]}"
    found = re.fullmatch(r"bbox_head\.(cls|reg|kernel)_convs\.(\d)\.(\d)\.(conv|norm)\.(\w+)", name)
    if found:
        tower = {"cls": "class_tower", "reg": "box_tower", "kernel": "kernel_tower"}[found[1]]
        return f"head.{tower}.{found[4]}s.{found[2]}.{found[3]}.{found[5]}"
    return name


def _stem(state: Mapping[str, Any]) -> int:
    return int(state["backbone.stem.2.conv.weight"].shape[0])


def _count(state: Mapping[str, Any], prefix: str) -> int:
    """How many numbered parts there are behind ``prefix``."""
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))


def _box_tower(state: Mapping[str, Any]) -> bool:
    """Whether boxes have a tower of their own."""
    pairs = [(name, name.replace(".reg_convs.", ".cls_convs.")) for name in state if ".reg_convs." in name]
    return not all(torch.equal(state[one], state[other]) for one, other in pairs)


def _shared(state: Mapping[str, Any]) -> bool:
    """Whether all levels have the same convolutions."""
    found = [(name, _SHARED.fullmatch(name)) for name in state]
    return all(torch.equal(state[name], state[f"{m[1]}0{m[3]}"]) for name, m in found if m)
