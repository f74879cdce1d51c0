"""COCO's classes of stuff (panoptic 2018) with their ids, and the tables that published panoptic models count by."""

from __future__ import annotations

from maskwright.structures import Taxonomy
from maskwright.weights.coco_names import COCO_THINGS

COCO_STUFF: dict[int, str] = {
    92: "banner", 93: "blanket", 95: "bridge", 100: "cardboard", 107: "counter", 109: "curtain", 112: "door-stuff",
    118: "floor-wood", 119: "flower", 122: "fruit", 125: "gravel", 128: "house", 130: "light", 133: "mirror-stuff",
    138: "net", 141: "pillow", 144: "platform", 145: "playingfield", 147: "railroad", 148: "river", 149: "road",
    151: "roof", 154: "sand", 155: "sea", 156: "shelf", 159: "snow", 161: "stairs", 166: "tent", 168: "towel",
    171: "wall-brick", 175: "wall-stone", 176: "wall-tile", 177: "wall-wood", 178: "water-other",
    180: "window-blind", 181: "window-other", 184: "tree-merged", 185: "fence-merged", 186: "ceiling-merged",
    187: "sky-other-merged", 188: "cabinet-merged", 189: "table-merged", 190: "floor-other-merged",
    191: "pavement-merged", 192: "mountain-merged", 193: "grass-merged", 194: "dirt-merged", 195: "paper-merged",
    196: "food-other-merged", 197: "building-other-merged", 198: "rock-merged", 199: "wall-other-merged",
    200: "rug-merged",
}  # fmt: skip


def coco_panoptic() -> Taxonomy:
    """The 80 things and 53 classes of stuff, dense, with COCO's category ids as source ids."""
    return _taxonomy({**COCO_THINGS, **COCO_STUFF}, [*COCO_THINGS, *COCO_STUFF])


def coco_ids(classes: int) -> Taxonomy:
    """COCO's ids from 0 to ``classes`` - 1 as classes, as DETR has them (91 or 250); the others are ``unused 12``."""
    known = {**COCO_THINGS, **COCO_STUFF}
    return _taxonomy(known, list(range(classes)))


def _taxonomy(known: dict[int, str], ids: list[int]) -> Taxonomy:
    return Taxonomy(
        names=tuple(known.get(i, f"unused {i}") for i in ids),
        thing=tuple(i <= max(COCO_THINGS) for i in ids),
        source_ids=tuple(ids),
    )
