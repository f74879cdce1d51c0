"""YOLACT's own checkpoints (``yolact_resnet50_54_800000.pth`` and the like) in our names.

Origin: dbolya/yolact, MIT. Background is the first class of each anchor, ours the last. Its pyramid's layers are stored
coarsest first. YOLACT++ (deformable convolutions, more anchors, mask scoring) is not understood.
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

_HEAD = "prediction_layers.0."
_MEAN = (123.68, 116.78, 103.94)
_STD = (58.4, 57.12, 57.38)


class YolactOriginal:
    """Importer of the original YOLACT on a ResNet."""

    origin = "yolact"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of YOLACT on a plain ResNet."""
        needed = (f"{_HEAD}mask_layer.weight", "proto_net.10.weight", "backbone.layers.0.0.conv3.weight")
        return all(name in state for name in needed) and not any(name.startswith("maskiou_net") for name in state)

    def model(self, state: Mapping[str, Any]) -> str:
        """``yolact-r50`` or ``-r101``, from the blocks there are."""
        return resnet_model([_body_name(name) for name in state], False).replace("mask-rcnn", "yolact")

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 classes for 80 outputs, numbered ones otherwise."""
        return taxonomy_for(_classes(state))

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The original's rules; widths from the shapes. Its Pascal models have larger anchors that are not square."""
        pascal = _classes(state) == 20
        return {
            "channels": int(state["fpn.lat_layers.0.weight"].shape[0]),
            "width": int(state[f"{_HEAD}upfeature.0.weight"].shape[0]),
            "prototype_width": int(state["proto_net.0.weight"].shape[0]),
            "prototypes": int(state["proto_net.10.weight"].shape[0]),
            "anchor_sizes": (32, 64, 128, 256, 512) if pascal else (24, 48, 96, 192, 384),
            "square_anchors": not pascal,
            "clip_first": False,
            "second_threshold": False,
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=550, long=550, antialias=False),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, background last, with the pixel statistics."""
        used = {name: value for name, value in state.items() if _needed(name)}
        out = rename(used, _rules(_classes(state) + 1))
        return {**out, "pixel_mean": torch.tensor(_MEAN), "pixel_std": torch.tensor(_STD)}


def _rules(outputs: int) -> list[Rule]:
    block = r"backbone\.layers\.(\d)\.(\d+)\."
    rules = [
        Rule(r".*num_batches_tracked", None),
        Rule(r"backbone\.(conv1|bn1)\.(\w+)", r"backbone.body.\1.\2"),
        Rule(r"fpn\.downsample_layers\.(\d)\.(\w+)", r"neck.extra.\1.\2"),
        Rule(r"prediction_layers\.0\.upfeature\.0\.(\w+)", r"head.tower.0.\1"),
        Rule(r"prediction_layers\.0\.bbox_layer\.(\w+)", r"head.box_deltas.\1"),
        Rule(r"prediction_layers\.0\.conf_layer\.(\w+)", r"head.class_logits.\1", background_last(outputs)),
        Rule(r"prediction_layers\.0\.mask_layer\.(\w+)", r"head.coefficients.\1"),
        Rule(r"semantic_seg_conv\.(\w+)", r"semantic.\1"),
    ]
    for k in range(4):
        stage = block.replace(r"(\d)", str(k), 1)
        rules.append(Rule(rf"{stage}(.*)", rf"backbone.body.layer{k + 1}.\1.\2"))
    for k in range(3):
        rules += [
            Rule(rf"fpn\.lat_layers\.{k}\.(\w+)", rf"neck.lateral.{2 - k}.\1"),
            Rule(rf"fpn\.pred_layers\.{k}\.(\w+)", rf"neck.output.{2 - k}.\1"),
        ]
    return [*rules, *prototype_rules(r"proto_net\.")]


def prototype_rules(prefix: str) -> list[Rule]:
    """Rules for the prototype network, whose sequence holds its activations too."""
    places = {"0": "convs.0", "2": "convs.1", "4": "convs.2", "8": "upsampled", "10": "output"}
    return [Rule(rf"{prefix}{theirs}\.(\w+)", rf"prototypes.{ours}.\1") for theirs, ours in places.items()]


def background_last(outputs: int) -> Callable[[Tensor], Tensor]:
    """Moves the first of each anchor's ``outputs`` classes behind the others."""

    def change(value: Tensor) -> Tensor:
        return value.reshape(-1, outputs, *value.shape[1:]).roll(-1, 1).reshape(value.shape)

    return change


def _classes(state: Mapping[str, Any]) -> int:
    return int(state["semantic_seg_conv.weight"].shape[0])


def _body_name(name: str) -> str:
    parts = name.removeprefix("backbone.layers.").split(".", 1)
    return f"layer{int(parts[0]) + 1}.{parts[1]}" if name.startswith("backbone.layers.") else name


def _needed(name: str) -> bool:
    """Old checkpoints hold the body twice and a third downsampling, which the original drops too."""
    return not (name.startswith("backbone.layer") and not name.startswith("backbone.layers.")) and not (
        name.startswith("fpn.downsample_layers.") and int(name.split(".")[2]) >= 2
    )
