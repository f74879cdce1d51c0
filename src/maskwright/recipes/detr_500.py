"""DETR R50 for boxes, 500 epochs of 64 images, the rate falling after 400.

Carion et al., ECCV 2020, arXiv:2005.12872, section 4 and appendix A.4; numbers of the authors' ``main.py`` and README
(16 GPUs with 4 images each). Masks are learned afterwards: ``--weights`` of this, 25 epochs, 15 before the fall (4.4).
"""

from maskwright.recipes.recipe import ADAM_RATES, COCO, SHORT_480_800, Recipe, falling

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
        otherwise=(
            "The crop that the original makes of half of the pictures before the resize is left out.",
            "Norms and biases do not decay.",
        ),
    )
}
