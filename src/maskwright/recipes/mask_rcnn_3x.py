"""Mask R-CNN R50-FPN, 270k steps of 16 images (3x): detectron2's baseline.

He et al., ICCV 2017, arXiv:1703.06870; numbers of detectron2's ``configs/COCO-InstanceSegmentation/
mask_rcnn_R_50_FPN_3x.yaml``, which changes the steps of the 1x one and nothing else.
"""

from dataclasses import replace

from maskwright.recipes.mask_rcnn_1x import RECIPES as ONCE
from maskwright.recipes.recipe import detectron

RECIPES = {
    "mask-rcnn-3x": replace(
        ONCE["mask-rcnn-1x"],
        name="mask-rcnn-3x",
        source="https://github.com/facebookresearch/detectron2/blob/main/configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
        train=detectron(270_000, 210_000, 250_000),
        epochs=36.8,
        published={"mask.AP": 0.372, "box.AP": 0.41},
    )
}
