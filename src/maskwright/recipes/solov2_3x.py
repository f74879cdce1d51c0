"""SOLOv2 R50-FPN, 36 epochs of 16 images (3x).

Wang et al., NeurIPS 2020, arXiv:2003.10152, section 4; numbers of mmdetection's ``configs/solov2/
solov2_r50_fpn_ms-3x_coco.py`` and ``solov2_r50_fpn_1x_coco.py``: SOLO's, and clipping at 35.
"""

from maskwright.recipes.recipe import FIXED, NONE_DECAYS, RATES, SHORT_640_800, Recipe
from maskwright.recipes.solo_3x import SGD, START

RECIPES = {
    "solov2-3x": Recipe(
        name="solov2-3x",
        model="solov2-r50",
        source="https://github.com/open-mmlab/mmdetection/blob/main/configs/solov2/solov2_r50_fpn_ms-3x_coco.py",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2},
        train={**SGD, "clip_norm": 35.0},
        augment=SHORT_640_800,
        resize=(800, 1333),
        epochs=36,
        published={"mask.AP": 0.375},
        search=RATES,
        otherwise=(NONE_DECAYS, START, FIXED),
    )
}
