"""YOLACT-550 R50-FPN, 800k steps of 8 images on one GPU.

Bolya et al., ICCV 2019, arXiv:1904.02689, section 6; numbers of the authors' ``data/config.py`` (``yolact_base_config``
and ``yolact_resnet50_config``): SGD from 1e-3, divided by 10 at 280k, 600k, 700k and 750k, decay 5e-4, SSD's
augmentations. The figure is that of test-dev (README).
"""

from maskwright.recipes.recipe import COLORS, NONE_DECAYS, RATES, Recipe, falling

RECIPES = {
    "yolact-800k": Recipe(
        name="yolact-800k",
        model="yolact-r50",
        source="arXiv:1904.02689, section 6; https://github.com/dbolya/yolact/blob/master/data/config.py",
        options={"pretrained": True},
        train={
            **falling(800_000, 280_000, 600_000, 700_000, 750_000, warmup=500, rate=1e-3),
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "batch_size": 8,
            "accumulate": 1,
            "precision": "32",
        },
        augment={
            "hflip": 0.5,
            "fit": True,
            "scale": (0.25, 2.0),
            "crop": (550, 550),
            "brightness": 0.125,
            "contrast": 0.5,
            "saturation": 0.5,
            "hue": 0.05,
        },
        epochs=54.6,
        published={"mask.AP": 0.282},
        search=RATES,
        otherwise=(
            NONE_DECAYS,
            COLORS,
            "SSD's expansion to four times and its crop by overlap are one jitter of the scale and a crop; pictures "
            "keep their aspect instead of being squeezed to a square.",
            "The warm-up begins at 1/1000 of the rate, in the original at a tenth of it.",
        ),
    )
}
