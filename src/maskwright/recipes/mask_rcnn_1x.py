"""Mask R-CNN R50-FPN, 90k steps of 16 images (1x): detectron2's baseline.

He et al., ICCV 2017, arXiv:1703.06870; numbers of detectron2's ``configs/COCO-InstanceSegmentation/
mask_rcnn_R_50_FPN_1x.yaml`` with ``configs/Base-RCNN-FPN.yaml`` and ``detectron2/config/defaults.py``.
"""

from maskwright.recipes.recipe import MSRA, NO_DECAY, RATES, SHORT_640_800, Recipe, detectron

OPTIONS = {"pretrained": True, "norm": "frozen", "frozen_stages": 2, "convention": "detectron2"}

RECIPES = {
    "mask-rcnn-1x": Recipe(
        name="mask-rcnn-1x",
        model="mask-rcnn-r50",
        source="https://github.com/facebookresearch/detectron2/blob/main/configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        options=OPTIONS,
        train=detectron(90_000, 60_000, 80_000),
        augment=SHORT_640_800,
        resize=(800, 1333),
        epochs=12.3,
        published={"mask.AP": 0.352, "box.AP": 0.386},
        search=RATES,
        otherwise=(MSRA, NO_DECAY),
    )
}
