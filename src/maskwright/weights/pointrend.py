"""detectron2's PointRend for instances (``projects/PointRend``) in our names.

Origin: facebookresearch/detectron2, weights under CC BY-SA 3.0. All but the mask heads is detectron2's Mask R-CNN. The
published checkpoints still have the names of 2020 (``mask_coarse_head``, ``mask_point_head``); both forms are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.structures import Taxonomy
from maskwright.weights.detectron2 import Detectron2MaskRCNN
from maskwright.weights.rename import Rule, rename

_HEADS = ("roi_heads.mask_head.", "roi_heads.mask_coarse_head.", "roi_heads.mask_point_head.")
_POINT = ("roi_heads.mask_head.point_head.", "roi_heads.mask_point_head.")
_COARSE = ("roi_heads.mask_head.coarse_head.", "roi_heads.mask_coarse_head.")
_PLAIN = "roi_heads.mask_head.predictor.weight"
_CLASSES = "roi_heads.box_predictor.cls_score.weight"


class Detectron2PointRend:
    """Importer of detectron2's PointRend on a ResNet or ResNeXt with FPN."""

    origin = "detectron2 PointRend"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of a Mask R-CNN with FPN and PointRend's standard mask heads."""
        if _named(state, _POINT, "fc1.weight") is None or _named(state, _COARSE, "prediction.weight") is None:
            return False
        return Detectron2MaskRCNN().recognizes(_as_mask_rcnn(state))

    def model(self, state: Mapping[str, Any]) -> str:
        """``pointrend-r50``, ``-r101`` or ``-x101``, from the blocks there are."""
        plain = Detectron2MaskRCNN().model(_as_mask_rcnn(state))
        return f"pointrend{plain.removeprefix('mask-rcnn')}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return Detectron2MaskRCNN().taxonomy(state)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """detectron2's conventions, and how the mask heads are built."""
        options = Detectron2MaskRCNN().options(_as_mask_rcnn(state))
        point, coarse = _prefix(state, _POINT), _prefix(state, _COARSE)
        width, inputs = _shape(state, f"{point}fc1.weight")[0], _shape(state, f"{point}predictor.weight")[1]
        classes = _shape(state, _CLASSES)[0] - 1
        side = round((_shape(state, f"{coarse}prediction.weight")[0] / classes) ** 0.5)
        first = f"{coarse}reduce_channel_dim_conv.weight"
        reduced = _shape(state, f"{coarse}reduce_spatial_dim_conv.weight")[0]
        entering = _shape(state, first)[1] if first in state else reduced
        return {
            **options,
            "agnostic_mask": False,
            "mask_width": reduced,
            "mask_hidden": _shape(state, f"{coarse}prediction.weight")[1],
            "mask_depth": sum(f"{coarse}{fc}{k}.weight" in state for k in range(1, 9) for fc in _FCS),
            "mask_size": 2 * side,
            "point_width": width,
            "point_depth": sum(f"{point}fc{k}.weight" in state for k in range(1, 9)),
            "point_levels": entering // _shape(state, "backbone.fpn_output2.weight")[0],
            "coarse_each_layer": inputs > width,
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with RGB input and the pixel statistics."""
        rest = {name: value for name, value in state.items() if not name.startswith(_HEADS)}
        heads = {name: value for name, value in state.items() if name.startswith(_HEADS)}
        return {**Detectron2MaskRCNN().convert(rest), **rename(heads, _rules())}


_FCS = ("fc", "coarse_mask_fc")


def _rules() -> list[Rule]:
    point, coarse = (rf"(?:{'|'.join(p.replace('.', chr(92) + '.') for p in names)})" for names in (_POINT, _COARSE))
    rules = [
        Rule(rf"{point}predictor\.(\w+)", r"point_head.predictor.\1"),
        Rule(rf"{coarse}prediction\.(\w+)", r"mask_head.predictor.\1"),
        Rule(rf"{coarse}reduce_channel_dim_conv\.(\w+)", r"mask_head.narrow.\1"),
        Rule(rf"{coarse}reduce_spatial_dim_conv\.(\w+)", r"mask_head.reduce.\1"),
    ]
    for k in range(1, 9):  # detectron2 counts its layers from 1
        rules += [
            Rule(rf"{point}fc{k}\.(\w+)", rf"point_head.layers.{k - 1}.\1"),
            Rule(rf"{coarse}(?:{'|'.join(_FCS)}){k}\.(\w+)", rf"mask_head.fcs.{k - 1}.\1"),
        ]
    return rules


def _as_mask_rcnn(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with the point head's last layer where a Mask R-CNN has its own."""
    return {**state, _PLAIN: state[f"{_prefix(state, _POINT)}predictor.weight"]}


def _named(state: Mapping[str, Any], prefixes: tuple[str, ...], layer: str) -> str | None:
    return next((prefix for prefix in prefixes if f"{prefix}{layer}" in state), None)


def _prefix(state: Mapping[str, Any], prefixes: tuple[str, ...]) -> str:
    return _named(state, prefixes, "predictor.weight") or _named(state, prefixes, "prediction.weight") or prefixes[0]


def _shape(state: Mapping[str, Any], name: str) -> tuple[int, ...]:
    return tuple(int(side) for side in state[name].shape)
