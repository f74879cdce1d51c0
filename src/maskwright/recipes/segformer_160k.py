"""SegFormer-B0 on ADE20K, 160k steps of 16 images.

Xie et al., NeurIPS 2021, arXiv:2105.15203, table 1 (the figure, of ADE20K's validation set at one scale); numbers of
the authors' ``local_configs/segformer/B0/segformer.b0.512x512.ade.160k.py``, ``local_configs/_base_/datasets/
ade20k_repeat.py`` and the name of their schedule (8 GPUs): the head learns at ten times the backbone's 6e-5.
"""

from maskwright.recipes.recipe import ADAM_RATES, ADE, COLORS, ONE_CLASS, POLY, SSD_COLORS, Recipe

_STEPS = 160_000

RECIPES = {
    "segformer-b0-160k": Recipe(
        name="segformer-b0-160k",
        model="segformer-b0",
        source="https://github.com/NVlabs/SegFormer/blob/master/local_configs/segformer/B0/segformer.b0.512x512.ade.160k.py",
        train={
            "steps": _STEPS,
            "learning_rate": 6e-4,
            "backbone_rate": 0.1,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "schedule": "poly",
            "power": 1.0,
            "warmup": 1500 / _STEPS,
            "batch_size": 2,
            "accumulate": 8,
            "precision": "32",
            "sync_norm": True,
        },
        augment={"hflip": 0.5, "short": (512,), "long": 2048, "scale": (0.5, 2.0), "crop": (512, 512), **SSD_COLORS},
        resize=(512, 2048),
        images=ADE,
        epochs=126.7,
        published={"semantic.mIoU": 0.374},
        search=ADAM_RATES,
        otherwise=(
            "The backbone begins with random weights unless --weights has some; the original's are of ImageNet.",
            "Biases do not decay; in the original they do, and norms do not as here.",
            "The warm-up begins at 1/1000 of the rate, in the original at a millionth of it.",
            POLY,
            COLORS,
            ONE_CLASS,
        ),
    )
}
