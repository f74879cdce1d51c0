"""Cascade Mask R-CNN R50-FPN, 270k steps of 16 images (3x): detectron2's baseline.

Cai and Vasconcelos, TPAMI 2019, arXiv:1906.09756; numbers of detectron2's ``configs/Misc/
cascade_mask_rcnn_R_50_FPN_3x.yaml``: box regression for all classes alike, 2000 proposals in training.
"""

from maskwright.recipes.recipe import MSRA, NO_DECAY, RATES, SHORT_640_800, Recipe, detectron

RECIPES = {
    "cascade-mask-rcnn-3x": Recipe(
        name="cascade-mask-rcnn-3x",
        model="cascade-mask-rcnn-r50",
        source="https://github.com/facebookresearch/detectron2/blob/main/configs/Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml",
        options={
            "pretrained": True,
            "norm": "frozen",
            "frozen_stages": 2,
            "agnostic_box": True,
            "proposals_train": (2000, 2000),
        },
        train=detectron(270_000, 210_000, 250_000),
        augment=SHORT_640_800,
        resize=(800, 1333),
        epochs=36.8,
        published={"mask.AP": 0.385, "box.AP": 0.443},
        search=RATES,
        otherwise=(
            MSRA,
            NO_DECAY,
            "Each of the three stages has a mask head, as in the paper; detectron2 has one after the last.",
        ),
    )
}
