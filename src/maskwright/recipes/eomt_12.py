"""EoMT-L at 640 pixels for panoptic segmentation, 12 epochs of 16 images with large-scale jitter.

Kerssies et al., CVPR 2025, arXiv:2503.19108, section 4.1: AdamW at 1e-4, layer-wise decay 0.8, a polynomial of power
0.9 after a warm-up, weight decay 0.05, masks annealed block by block.
"""

from maskwright.recipes.recipe import ADAM_RATES, COCO, Recipe

_STEPS = 12 * (COCO // 16)

RECIPES = {
    "eomt-12": Recipe(
        name="eomt-12",
        model="eomt-l",
        source="arXiv:2503.19108, section 4.1; https://github.com/tue-mps/eomt, COCO panoptic, large, 640",
        options={"pretrained": True},
        train={
            "steps": _STEPS,
            "learning_rate": 1e-4,
            "optimizer": "adamw",
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup": 1500 / _STEPS,
            "clip_norm": 0.01,
            "batch_size": 4,
            "accumulate": 4,
            "precision": "auto",
        },
        augment={
            "hflip": 0.5,
            "fit": True,
            "scale": (0.1, 2.0),
            "crop": (640, 640),
            "brightness": 0.125,
            "contrast": 0.5,
            "saturation": 0.5,
            "hue": 0.05,
        },
        images=COCO,
        epochs=12,
        published={"panoptic.PQ": 0.56},
        search=ADAM_RATES,
        otherwise=(
            "Without layer-wise decay (0.8 in the original), and along a cosine instead of a polynomial.",
            "All layers warm up over 1500 steps; in the original new ones over the first 500, then the ViT.",
        ),
    )
}
