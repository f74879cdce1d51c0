"""detectron2's project Panoptic-DeepLab (``PanopticDeepLab``) in our names.

Origin: facebookresearch/detectron2, model zoo weights under CC BY-SA 3.0. Input is RGB. The mean of ASPP was learned on
crops, and there is a mean of windows of that size where pictures are larger: 512 x 1024 for Cityscapes, 640 x 640 for
COCO, at a stride of 16. The models with separable convolutions have been read from the project's code alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskwright.structures import Resize, Taxonomy
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.coco_panoptic_names import coco_panoptic
from maskwright.weights.rename import Rule, rename
from maskwright.weights.scene_names import scene_classes

_PREDICTOR = "sem_seg_head.predictor.weight"
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Detectron2PanopticDeepLab:
    """Importer of detectron2's Panoptic-DeepLab on the ResNet with a stem of three convolutions."""

    origin = "detectron2 Panoptic-DeepLab"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of both decoders."""
        needed = (_PREDICTOR, "ins_embed_head.center_predictor.weight", "backbone.stem.conv3.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``panoptic-deeplab-r52``."""
        return "panoptic-deeplab-r52"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """Those of Cityscapes for 19 classes and of COCO for 133; numbered ones otherwise, all of them things."""
        classes = int(state[_PREDICTOR].shape[0])
        if classes == 133:
            return coco_panoptic()
        return scene_classes(classes) if classes == 19 else taxonomy_for(classes)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Whether convolutions are separable, and what differs between the data sets the weights were made for."""
        classes = int(state[_PREDICTOR].shape[0])
        options: dict[str, Any] = {"separable": "sem_seg_head.decoder.res3.fuse_conv.depthwise.weight" in state}
        if classes == 19:
            return {**options, "pool": (32, 64), "stuff_area": 2048, "resize": Resize(short=1024, long=2048)}
        return {**options, "pool": (40, 40), "stuff_area": 4096, "resize": Resize(short=640, long=640)}

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        kept = {name: value for name, value in state.items() if not name.startswith("pixel_")}
        return {**rename(kept, _rules()), "pixel_mean": torch.tensor(_MEAN), "pixel_std": torch.tensor(_STD)}


def _rules() -> list[Rule]:
    rules = _body()
    for theirs, ours in (("sem_seg_head", "semantic"), ("ins_embed_head", "instance")):
        decoder = rf"{theirs}\.decoder\."
        for level, map_ in enumerate(("res2", "res3")):
            rules += _conv(rf"{decoder}{map_}\.project_conv", f"{ours}.project.{level}")
            rules += _pair(rf"{decoder}{map_}\.fuse_conv", f"{ours}.fuse.{level}")
        aspp = rf"{decoder}res5\.project_conv\."
        for branch in range(4):
            rules += _conv(rf"{aspp}convs\.{branch}", f"{ours}.aspp.branches.{branch}")
            rules += _pair(rf"{aspp}convs\.{branch}", f"{ours}.aspp.branches.{branch}")
        rules += _conv(rf"{aspp}project", f"{ours}.aspp.join")
        rules.append(Rule(rf"{aspp}convs\.4\.1\.(\w+)", rf"{ours}.aspp.whole.\1"))
    for theirs, part, ours in (
        ("sem_seg_head", "", "classes"),
        ("ins_embed_head", "center_", "centers"),
        ("ins_embed_head", "offset_", "offsets"),
    ):
        rules += _pair(rf"{theirs}\.{part}head", f"{ours}.convs")
        rules.append(Rule(rf"{theirs}\.{part}predictor\.(\w+)", rf"{ours}.predictor.\1"))
    return rules


def _body() -> list[Rule]:
    """timm has the stem's convolutions at 0, 3 and 6 of a sequence; the norm of the last one is the body's own."""
    rules: list[Rule] = []
    for i, (conv, norm) in enumerate((("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")), start=1):
        rules.append(Rule(rf"backbone\.stem\.conv{i}\.weight", f"backbone.body.{conv}.weight"))
        rules.append(Rule(rf"backbone\.stem\.conv{i}\.norm\.(\w+)", rf"backbone.body.{norm}.\1"))
    for stage in range(2, 6):
        block, ours = rf"backbone\.res{stage}\.(\d+)\.", rf"backbone.body.layer{stage - 1}.\g<1>."
        rules += [
            Rule(rf"{block}shortcut\.weight", rf"{ours}downsample.0.weight"),
            Rule(rf"{block}shortcut\.norm\.(\w+)", rf"{ours}downsample.1.\2"),
            Rule(rf"{block}conv(\d)\.weight", rf"{ours}conv\2.weight"),
            Rule(rf"{block}conv(\d)\.norm\.(\w+)", rf"{ours}bn\2.\3"),
        ]
    return rules


def _conv(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(rf"{theirs}\.(weight|bias)", rf"{ours}.conv.\1"),
        Rule(rf"{theirs}\.norm\.(\w+)", rf"{ours}.norm.\1"),
    ]


def _pair(theirs: str, ours: str) -> list[Rule]:
    """Two convolutions in a row, by number; or the two of a separable one, by name."""
    rules: list[Rule] = []
    for place, name in enumerate(("depthwise", "pointwise")):
        rules += _conv(rf"{theirs}\.(?:{place}|{name})", f"{ours}.{place}")
    return rules
