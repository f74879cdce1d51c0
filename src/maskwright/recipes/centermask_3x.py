"""CenterMask2 V39-FPN, 270k steps of 16 images (3x).

Lee and Park, CVPR 2020, arXiv:1911.06667; numbers of centermask2's ``configs/centermask/
centermask_V_39_eSE_FPN_ms_3x.yaml`` and ``Base-CenterMask-VoVNet.yaml``: no stage is frozen, 50 objects an image are
kept.
"""

from maskwright.recipes.recipe import NO_DECAY, RATES, SHORT_640_800, Recipe, detectron

RECIPES = {
    "centermask-3x": Recipe(
        name="centermask-3x",
        model="centermask-v39",
        source="https://github.com/youngwanLEE/centermask2/blob/master/configs/centermask/centermask_V_39_eSE_FPN_ms_3x.yaml",
        options={"norm": "frozen", "frozen_stages": 0},
        train=detectron(270_000, 210_000, 250_000, rate=0.01),
        augment=SHORT_640_800,
        resize=(800, 1333),
        max_per_image=50,
        epochs=36.8,
        published={"mask.AP": 0.397, "box.AP": 0.442},
        search=RATES,
        otherwise=(NO_DECAY, "ImageNet weights of VoVNet must be given by --weights; nobody hosts them by name."),
    )
}
