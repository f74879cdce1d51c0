"""SOLO R50-FPN, 36 epochs of 16 images (3x).

Wang et al., ECCV 2020, arXiv:1912.04488, section 4; numbers of mmdetection's ``configs/solo/solo_r50_fpn_3x_coco.py``
and ``solo_r50_fpn_1x_coco.py`` with ``configs/_base_/schedules/schedule_1x.py``.
"""

from maskwright.recipes.recipe import (
    COCO_ANNOTATED,
    FIXED,
    NONE_DECAYS,
    RATES,
    SHORT_640_800,
    Recipe,
    falling,
    steps_of,
)

EPOCH = steps_of(1, COCO_ANNOTATED, 16)
SGD = {
    **falling(36 * EPOCH, 27 * EPOCH, 33 * EPOCH, warmup=500, rate=0.01),
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 2,
    "accumulate": 8,
    "precision": "32",
}
START = "The warm-up begins at 1/1000 of the rate, in the original at a third of it."

RECIPES = {
    "solo-3x": Recipe(
        name="solo-3x",
        model="solo-r50",
        source="https://github.com/open-mmlab/mmdetection/blob/main/configs/solo/solo_r50_fpn_3x_coco.py",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2},
        train=SGD,
        augment=SHORT_640_800,
        resize=(800, 1333),
        epochs=36,
        published={"mask.AP": 0.359},
        search=RATES,
        otherwise=(NONE_DECAYS, START, FIXED),
    )
}
