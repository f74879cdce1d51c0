"""The 150 classes of ADE20K's scene parsing benchmark and the 19 of Cityscapes, in the order models have them.

Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017: a name is the first one that the benchmark's list has;
things are the 100 classes of its instance track. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene
Understanding", CVPR 2016.
"""

from __future__ import annotations

from maskwright.structures import Taxonomy
from maskwright.weights.coco_names import taxonomy_for

ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat",
    "bar", "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman",
    "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything",
    "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball",
    "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen",
    "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
ADE20K_STUFF = frozenset((
    1, 2, 3, 4, 5, 6, 7, 10, 12, 14, 17, 18, 22, 26, 27, 29, 30, 35, 41, 47, 49, 52, 53, 55, 60, 61, 62, 64, 69, 78,
    80, 85, 92, 95, 97, 100, 101, 102, 106, 107, 110, 114, 115, 118, 123, 129, 132, 141, 142, 146,
))  # fmt: skip
"""Source ids of what is not counted."""

CITYSCAPES: dict[int, str] = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""Values in the files' maps of labels, and names."""
_FIRST_CITYSCAPES_THING = 24


def ade20k() -> Taxonomy:
    """The 150 classes; source ids are the values 1 to 150 of the benchmark's maps."""
    ids = tuple(range(1, len(ADE20K) + 1))
    return Taxonomy(names=ADE20K, thing=tuple(i not in ADE20K_STUFF for i in ids), source_ids=ids)


def cityscapes() -> Taxonomy:
    """The 19 classes that are evaluated, of which 8 are things."""
    ids = tuple(CITYSCAPES)
    return Taxonomy(
        names=tuple(CITYSCAPES.values()), thing=tuple(i >= _FIRST_CITYSCAPES_THING for i in ids), source_ids=ids
    )


def scene_classes(outputs: int) -> Taxonomy:
    """What a model that names each pixel's class most likely knows: ADE20K for 150, Cityscapes for 19 outputs.

    Other numbers are as in ``taxonomy_for``.
    """
    known = {150: ade20k, 19: cityscapes}
    return known[outputs]() if outputs in known else taxonomy_for(outputs)
