"""detectron2's Panoptic FPN (``PanopticFPN``) in our names: its Mask R-CNN, and a semantic head.

Origin: facebookresearch/detectron2, model zoo weights under CC BY-SA 3.0. Class 0 of the semantic head is all things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskwright.structures import Taxonomy
from maskwright.weights.coco_names import taxonomy_for
from maskwright.weights.coco_panoptic_names import coco_panoptic
from maskwright.weights.detectron2 import Detectron2MaskRCNN
from maskwright.weights.rename import Rule, rename

_HEAD = "sem_seg_head."
_PREDICTOR = f"{_HEAD}predictor.weight"


class Detectron2PanopticFPN:
    """Importer of detectron2's Panoptic FPN on a ResNet."""

    origin = "detectron2 Panoptic FPN"

    def __init__(self) -> None:
        self.things = Detectron2MaskRCNN()

    def recognizes(self, state: Mapping[str, Any]) -> bool:
        """Whether the names are those of detectron2's Mask R-CNN with the semantic head of Panoptic FPN."""
        return self.things.recognizes(state) and _PREDICTOR in state and f"{_HEAD}p2.0.weight" in state

    def model(self, state: Mapping[str, Any]) -> str:
        """``panoptic-fpn-r50`` or ``-r101``, from the blocks there are."""
        return f"panoptic-fpn{self.things.model(state).removeprefix('mask-rcnn')}"

    def taxonomy(self, state: Mapping[str, Any]) -> Taxonomy:
        """COCO's 80 things and 53 classes of stuff where these are the numbers, numbered classes otherwise."""
        things = self.things.taxonomy(state)
        stuff = int(state[_PREDICTOR].shape[0]) - 1
        if (len(things), stuff) == (80, 53):
            return coco_panoptic()
        both = taxonomy_for(len(things) + stuff)
        return Taxonomy(names=both.names, thing=(True,) * len(things) + (False,) * stuff)

    def options(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Mask R-CNN's, and the semantic head's width and norm; all things are one class of it."""
        return {
            **self.things.options(state),
            "merge_things": True,
            "semantic_width": int(state[_PREDICTOR].shape[1]),
            "semantic_norm": "group" if f"{_HEAD}p2.0.norm.weight" in state else None,
        }

    def convert(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same tensors in our names, with RGB input and the pixel statistics."""
        head = {name: value for name, value in state.items() if name.startswith(_HEAD)}
        rest = self.things.convert({name: value for name, value in state.items() if name not in head})
        return {**{f"detector.{name}": value for name, value in rest.items()}, **rename(head, _rules())}


def _rules() -> list[Rule]:
    """Convolutions of a level are numbered 0, 2, 4 there: enlargements are between them."""
    rules = [Rule(r"sem_seg_head\.predictor\.(\w+)", r"semantic_head.predictor.\1")]
    for level in range(2, 7):
        for conv in range(5):
            theirs, ours = rf"sem_seg_head\.p{level}\.{2 * conv}\.", f"semantic_head.levels.{level - 2}.{conv}."
            rules += [
                Rule(rf"{theirs}(weight|bias)", rf"{ours}conv.\1"),
                Rule(rf"{theirs}norm\.(\w+)", rf"{ours}norm.\1"),
            ]
    return rules
