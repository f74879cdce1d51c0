"""EoMT-L at 640 pixels for panoptic segmentation, 12 epochs of 16 images with large-scale jitter.

Kerssies et al., CVPR 2025, arXiv:2503.19108; numbers of the authors'
``configs/dinov2/coco/panoptic/eomt_large_640.yaml``, ``training/mask_classification_panoptic.py``,
``datasets/coco_panoptic.py`` (colors stay), ``main.py`` (clipping) and README (4 GPUs with 4 images each): AdamW at
1e-4, layer-wise decay 0.8 from the last block downwards, a polynomial of power 0.9 after a warm-up. Masks are given up
between steps 14,782 and 73,910 of 88,692, that is 7391 an epoch.
"""

from maskwright.recipes.recipe import ADAM_RATES, COCO, NONE_DECAYS, Recipe

_STEPS = 12 * 7391

RECIPES = {
    "eomt-12": Recipe(
        name="eomt-12",
        model="eomt-l",
        source="https://github.com/tue-mps/eomt/blob/master/configs/dinov2/coco/panoptic/eomt_large_640.yaml",
        options={"pretrained": True},
        train={
            "steps": _STEPS,
            "learning_rate": 1e-4,
            "optimizer": "adamw",
            "weight_decay": 0.05,
            "backbone_rate": 1.25,  # so that the last block has the full rate
            "layer_decay": 0.8,
            "schedule": "poly",
            "power": 0.9,
            "warmup": 1500 / _STEPS,
            "clip_norm": 0.01,
            "batch_size": 4,
            "accumulate": 4,
            "precision": "auto",
        },
        augment={"hflip": 0.5, "fit": True, "scale": (0.1, 2.0), "crop": (640, 640)},
        images=COCO,
        epochs=12,
        published={"panoptic.PQ": 0.56},
        search=ADAM_RATES,
        otherwise=(
            NONE_DECAYS,
            "Patch embedding and position have the rate below the first block's; in the original the first block's.",
            "All layers warm up over 1500 steps; in the original new ones over the first 500, then the ViT.",
        ),
    )
}
