"""Panoptic FPN R50, 90k (1x) or 270k steps (3x) of 16 images.

Kirillov et al., CVPR 2019, arXiv:1901.02446, section 5; numbers of detectron2's ``configs/COCO-PanopticSegmentation/
panoptic_fpn_R_50_{1x,3x}.yaml``: the semantic loss weighs 0.5, images without objects stay.
"""

from maskwright.recipes.recipe import COCO, MSRA, NO_DECAY, RATES, SHORT_640_800, Recipe, detectron


def _recipe(times: int, quality: float, epochs: float, *steps: int) -> Recipe:
    return Recipe(
        name=f"panoptic-fpn-{times}x",
        model="panoptic-fpn-r50",
        source=f"https://github.com/facebookresearch/detectron2/blob/main/configs/COCO-PanopticSegmentation/panoptic_fpn_R_50_{times}x.yaml",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2, "loss_weights": {"semantic": 0.5}},
        train=detectron(*steps),
        augment=SHORT_640_800,
        resize=(800, 1333),
        images=COCO,
        epochs=epochs,
        published={"panoptic.PQ": quality},
        search=RATES,
        otherwise=(MSRA, NO_DECAY),
    )


RECIPES = {
    "panoptic-fpn-1x": _recipe(1, 0.394, 12.2, 90_000, 60_000, 80_000),
    "panoptic-fpn-3x": _recipe(3, 0.415, 36.5, 270_000, 210_000, 250_000),
}
