"""DETR R50 for boxes, 500 epochs of 64 images, the rate falling after 400.

Carion et al., ECCV 2020, arXiv:2005.12872, section 4 (technical details): 500 epochs, 16 GPUs with 4 images each;
rates, decay and clipping of the authors' ``main.py``, whose defaults are 300 epochs and a fall after 200; sizes of
their ``datasets/coco.py``. Masks are learned afterwards: ``--weights`` of this, 25 epochs, 15 before the fall (README).
"""

from maskwright.recipes.recipe import ADAM_RATES, COCO, CROP, NONE_DECAYS, SHORT_480_800, Recipe, falling

_EPOCH = COCO // 64  # batches that are not full are left out

RECIPES = {
    "detr-500": Recipe(
        name="detr-500",
        model="detr-r50",
        source="https://github.com/facebookresearch/detr/blob/main/main.py; arXiv:2005.12872, section 4",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2, "masks": False},
        train={
            **falling(500 * _EPOCH, 400 * _EPOCH, warmup=0, rate=1e-4),
            "optimizer": "adamw",
            "weight_decay": 1e-4,
            "backbone_rate": 0.1,
            "clip_norm": 0.1,
            "batch_size": 4,
            "accumulate": 16,
            "precision": "32",
            "best_by": "box.AP",
        },
        augment=SHORT_480_800,
        resize=(800, 1333),
        images=COCO,
        epochs=500,
        published={"box.AP": 0.42},
        search=ADAM_RATES,
        otherwise=(CROP, NONE_DECAYS),
    )
}
