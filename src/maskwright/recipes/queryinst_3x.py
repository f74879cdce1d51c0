"""QueryInst R50-FPN with 100 queries, 36 epochs of 16 images (3x), sides of 480 to 800.

Fang et al., ICCV 2021, arXiv:2105.01928; numbers of mmdetection 2's ``configs/queryinst/
queryinst_r50_fpn_mstrain_480-800_3x_coco.py`` and the 1x one it is based on, whose weights are the published ones.
mmdetection 3 warms up over 500 steps instead of 1000.
"""

from maskwright.recipes.recipe import ADAM_RATES, FIXED, NONE_DECAYS, SHORT_480_800, Recipe, falling
from maskwright.recipes.solo_3x import EPOCH

RECIPES = {
    "queryinst-3x": Recipe(
        name="queryinst-3x",
        model="queryinst-r50",
        source="https://github.com/open-mmlab/mmdetection/blob/v2.28.2/configs/queryinst/queryinst_r50_fpn_mstrain_480-800_3x_coco.py",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2},
        train={
            **falling(36 * EPOCH, 27 * EPOCH, 33 * EPOCH, warmup=1000, rate=1e-4),
            "optimizer": "adamw",
            "weight_decay": 1e-4,
            "backbone_rate": 0.1,
            "clip_norm": 0.1,
            "batch_size": 2,
            "accumulate": 8,
            "precision": "32",
        },
        augment=SHORT_480_800,
        resize=(800, 1333),
        epochs=36,
        published={"mask.AP": 0.398, "box.AP": 0.448},
        search=ADAM_RATES,
        otherwise=(NONE_DECAYS, FIXED),
    )
}
