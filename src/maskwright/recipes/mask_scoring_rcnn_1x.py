"""Mask Scoring R-CNN R50-FPN, 90k steps of 16 images (1x) at one size.

Huang et al., CVPR 2019, arXiv:1903.00241; numbers of the authors' ``configs/e2e_ms_rcnn_R_50_FPN_1x.yaml`` and
``maskrcnn_benchmark/config/defaults.py``, figures of their README.
"""

from maskwright.recipes.recipe import MSRA, RATES, TWICE, Recipe, detectron

RECIPES = {
    "mask-scoring-rcnn-1x": Recipe(
        name="mask-scoring-rcnn-1x",
        model="mask-scoring-rcnn-r50",
        source="https://github.com/zjhuang22/maskscoring_rcnn/blob/master/configs/e2e_ms_rcnn_R_50_FPN_1x.yaml",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2, "convention": "maskrcnn-benchmark"},
        train=detectron(90_000, 60_000, 80_000, warmup=500),
        augment={"hflip": 0.5, "short": (800,), "long": 1333},
        resize=(800, 1333),
        epochs=12.3,
        published={"mask.AP": 0.356, "box.AP": 0.379},
        search=RATES,
        otherwise=(
            MSRA,
            TWICE,
            "The warm-up begins at 1/1000 of the rate, in the original at a third of it.",
            "An image trains on 1000 proposals; in the original the images of a device share 2000.",
        ),
    )
}
