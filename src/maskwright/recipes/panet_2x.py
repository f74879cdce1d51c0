"""PANet R50, 180k steps of 16 images (2x), sides of 400 to 1200.

Liu et al., CVPR 2018, arXiv:1803.01534; numbers of the authors' ``configs/panet/e2e_panet_R-50-FPN_2x_mask.yaml``,
figures and batch of their README (backbone norms fixed, group norm elsewhere); warm-up of Detectron.pytorch's
``lib/core/config.py``, which it is built on.
"""

from maskwright.recipes.recipe import MSRA, RATES, TWICE, Recipe, detectron

RECIPES = {
    "panet-2x": Recipe(
        name="panet-2x",
        model="panet-r50",
        source="https://github.com/ShuLiu1993/PANet/blob/master/configs/panet/e2e_panet_R-50-FPN_2x_mask.yaml",
        options={
            "pretrained": True,
            "norm": "frozen",
            "frozen_stages": 2,
            "neck_norm": "group",
            "head_norm": "group",
            "box_head": "conv4_fc1",
        },
        train=detectron(180_000, 120_000, 160_000, warmup=500),
        augment={"hflip": 0.5, "short": (1200, 1200, 1000, 800, 600, 400), "long": 1400},
        resize=(1000, 1400),
        epochs=24.6,
        published={"mask.AP": 0.383, "box.AP": 0.431},
        search=RATES,
        otherwise=(
            MSRA,
            TWICE,
            "The warm-up begins at 1/1000 of the rate, in the original at a third of it.",
            "Momentum stays when the rate falls; in the original it falls too.",
            "Linear layers have no group norm; in the original they have.",
        ),
    )
}
