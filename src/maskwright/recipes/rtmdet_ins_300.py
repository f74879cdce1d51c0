"""RTMDet-Ins-m from random weights, 300 epochs of 256 images.

Lyu et al., arXiv:2212.07784 (the figures); numbers of mmdetection's ``configs/rtmdet/rtmdet-ins_m_8xb32-300e_coco.py``
and the two it is based on, ``rtmdet-ins_l_8xb32-300e_coco.py`` and ``rtmdet_l_8xb32-300e_coco.py``: the rate is
constant for half the run, then falls along a cosine to a twentieth. There a mosaic of twice the crop is scaled by 0.1
to 2; here each of its pictures is fitted into a quarter of the crop, which is the same with 0.2 to 4.
"""

from maskwright.recipes.recipe import ADAM_RATES, COCO_ANNOTATED, Recipe, steps_of

_STEPS = steps_of(300, COCO_ANNOTATED, 256)

RECIPES = {
    "rtmdet-ins-300": Recipe(
        name="rtmdet-ins-300",
        model="rtmdet-ins-m",
        source="https://github.com/open-mmlab/mmdetection/blob/main/configs/rtmdet/rtmdet-ins_m_8xb32-300e_coco.py",
        train={
            "steps": _STEPS,
            "learning_rate": 4e-3,
            "optimizer": "adamw",
            "weight_decay": 0.05,
            "schedule": "cosine",
            "final_rate": 0.05,
            "warmup": 1000 / _STEPS,
            "ema": 0.9998,
            "batch_size": 32,
            "accumulate": 8,
            "precision": "32",
        },
        augment={
            "hflip": 0.5,
            "fit": True,
            "scale": (0.2, 4.0),
            "crop": (640, 640),
            "mosaic": 1.0,
            "mixup": 1.0,
            "hue": 0.028,
            "saturation": 0.12,
            "brightness": 0.12,
        },
        epochs=300,
        published={"mask.AP": 0.421, "box.AP": 0.488},
        search=ADAM_RATES,
        otherwise=(
            "The cosine falls from the start instead of from the middle of the run.",
            "The warm-up begins at 1/1000 of the rate, in the original at 1/100,000 of it.",
            "Saturation and brightness change by factors; in the original by up to 30 of 255, half of the time.",
            "The moving average rises to its decay as (1 + t) / (10 + t); in the original over some 2000 steps.",
            "Pictures blended in by mixup are scaled too; in the original they fit the crop.",
            "Mosaic and mixup go on to the end; the original leaves them out for its last 20 epochs.",
        ),
    )
}
