"""CondInst R50-FPN, 90k (1x) or 270k steps (3x) of 16 images.

Tian et al., ECCV 2020, arXiv:2003.05664, section 3.1; numbers of AdelaiDet's ``configs/CondInst/Base-CondInst.yaml``,
``MS_R_50_1x.yaml`` and ``MS_R_50_3x.yaml``.
"""

from maskwright.recipes.recipe import MSRA, NO_DECAY, RATES, SHORT_640_800, Recipe, detectron


def _recipe(times: int, published: dict[str, float], epochs: float, *steps: int) -> Recipe:
    return Recipe(
        name=f"condinst-{times}x",
        model="condinst-r50",
        source=f"https://github.com/aim-uofa/AdelaiDet/blob/master/configs/CondInst/MS_R_50_{times}x.yaml",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2},
        train=detectron(*steps, rate=0.01),
        augment=SHORT_640_800,
        resize=(800, 1333),
        epochs=epochs,
        published=published,
        search=RATES,
        otherwise=(MSRA, NO_DECAY),
    )


RECIPES = {
    "condinst-1x": _recipe(1, {"mask.AP": 0.357, "box.AP": 0.397}, 12.3, 90_000, 60_000, 80_000),
    "condinst-3x": _recipe(3, {"mask.AP": 0.375, "box.AP": 0.419}, 36.8, 270_000, 210_000, 250_000),
}
