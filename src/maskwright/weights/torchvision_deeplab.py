"""torchvision's DeepLabv3 on a ResNet (``deeplabv3_resnet50``, ``_resnet101``) in our names.

Origin: pytorch/vision, BSD-3. Its classes are those of Pascal VOC with the background first, which is a class of its
own here: "background", stuff. The auxiliary classifier serves training only and is left out. Pixels are RGB in 0..1,
ours in 0..255.
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

_LAST = "classifier.4.weight"
_BODY = "backbone."
_MEAN = tuple(255 * v for v in (0.485, 0.456, 0.406))
_STD = tuple(255 * v for v in (0.229, 0.224, 0.225))
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class TorchvisionDeepLab:
    """Importer of torchvision's DeepLabv3 on a ResNet."""

    origin = "torchvision DeepLab"

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of torchvision's DeepLabv3 on a ResNet."""
        needed = (_LAST, "classifier.0.convs.4.1.weight", "classifier.0.project.0.weight", f"{_BODY}conv1.weight")
        return all(name in state for name in needed)

    def model(self, state: Mapping[str, Any]) -> str:
        """``deeplabv3plus-r50``, whose body ``options`` names."""
        return "deeplabv3plus-r50"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """Pascal VOC's classes and the background for 21 outputs, numbered ones otherwise."""
        classes = int(state[_LAST].shape[0])
        if classes == len(_VOC):
            return Taxonomy(
                names=_VOC, thing=(False,) + (True,) * (classes - 1), source_ids=tuple(range(classes))
            )  # fmt: skip
        return taxonomy_for(classes)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """No decoder, a stride of 8, and the body from the blocks there are."""
        body = resnet_model([name.removeprefix(_BODY) for name in state if name.startswith(_BODY)], False)
        return {
            "body": f"resnet{body.removeprefix('mask-rcnn-r')}",
            "decoder": False,
            "output_stride": 8,
            "width": int(state["classifier.1.weight"].shape[0]),
            "dropout": 0.5,
            "pixel_mean": _MEAN,
            "pixel_std": _STD,
            "resize": Resize(short=520, antialias=False),
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with the pixel statistics."""
        out = rename(state, _rules())
        return {**out, "pixel_mean": torch.tensor(_MEAN), "pixel_std": torch.tensor(_STD)}


def _rules() -> list[Rule]:
    rules = [Rule(r"aux_classifier\..*", None), Rule(r"backbone\.(.*)", r"backbone.body.\1")]
    for branch in range(4):
        theirs, ours = rf"classifier\.0\.convs\.{branch}\.", f"head.aspp.branches.{branch}."
        rules += [Rule(rf"{theirs}0\.(\w+)", rf"{ours}conv.\1"), Rule(rf"{theirs}1\.(\w+)", rf"{ours}norm.\1")]
    return [
        *rules,
        Rule(r"classifier\.0\.convs\.4\.1\.(\w+)", r"head.aspp.whole.\1"),
        Rule(r"classifier\.0\.convs\.4\.2\.(\w+)", r"head.aspp.whole_norm.\1"),
        Rule(r"classifier\.0\.project\.0\.(\w+)", r"head.aspp.join.conv.\1"),
        Rule(r"classifier\.0\.project\.1\.(\w+)", r"head.aspp.join.norm.\1"),
        Rule(r"classifier\.1\.(\w+)", r"head.conv.conv.\1"),
        Rule(r"classifier\.2\.(\w+)", r"head.conv.norm.\1"),
        Rule(r"classifier\.4\.(\w+)", r"head.predictor.\1"),
    ]
