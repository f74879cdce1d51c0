"""PointRend R50-FPN, 270k steps of 16 images (3x).

Kirillov et al., CVPR 2020, arXiv:1912.08193, section 4.1; numbers of detectron2's ``projects/PointRend/configs/
InstanceSegmentation/pointrend_rcnn_R_50_FPN_3x_coco.yaml`` and ``Base-PointRend-RCNN-FPN.yaml``.
"""

from maskwright.recipes.recipe import MSRA, NO_DECAY, RATES, SHORT_640_800, Recipe, detectron

RECIPES = {
    "pointrend-3x": Recipe(
        name="pointrend-3x",
        model="pointrend-r50",
        source="https://github.com/facebookresearch/detectron2/blob/main/projects/PointRend/configs/InstanceSegmentation/pointrend_rcnn_R_50_FPN_3x_coco.yaml",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2},
        train=detectron(270_000, 210_000, 250_000),
        augment=SHORT_640_800,
        resize=(800, 1333),
        epochs=36.8,
        published={"mask.AP": 0.383},
        search=RATES,
        otherwise=(MSRA, NO_DECAY, "Masks learn in proposals; in the original in the boxes predicted from them."),
    )
}
