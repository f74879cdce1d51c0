"""Semantic FPN R50 on Cityscapes, 80k steps of 8 images.

Kirillov et al., CVPR 2019, arXiv:1901.02446, section 3.1 (the method); numbers and figure of mmsegmentation's
``configs/sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py`` and ``metafile.yaml`` there with ``configs/_base_/models/
fpn_r50.py``, ``datasets/cityscapes.py`` and ``schedules/schedule_80k.py``.
"""

from maskwright.recipes.recipe import CITYSCAPES, COLORS, NONE_DECAYS, ONE_CLASS, RATES, SSD_COLORS, Recipe

RECIPES = {
    "semantic-fpn-80k": Recipe(
        name="semantic-fpn-80k",
        model="semantic-fpn-r50",
        source="https://github.com/open-mmlab/mmsegmentation/blob/main/configs/sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py",
        options={"pretrained": True, "body": "resnet50c", "head_norm": "batch"},
        train={
            "steps": 80_000,
            "learning_rate": 0.01,
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule": "poly",
            "power": 0.9,
            "final_rate": 0.01,
            "warmup": 0.0,
            "batch_size": 2,
            "accumulate": 4,
            "precision": "32",
            "sync_norm": True,
        },
        augment={"hflip": 0.5, "short": (1024,), "long": 2048, "scale": (0.5, 2.0), "crop": (512, 1024), **SSD_COLORS},
        resize=(1024, 2048),
        images=CITYSCAPES,
        epochs=215.1,
        published={"semantic.mIoU": 0.7452},
        search={name: RATES[name] for name in ("learning_rate", "weight_decay")},
        otherwise=(
            NONE_DECAYS,
            COLORS,
            ONE_CLASS,
            "Nothing is dropped; in the original a tenth of the features before the last layer.",
        ),
    )
}
