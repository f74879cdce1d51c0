"""UPSNet R50, 90k steps of 16 images (1x), one on each of 16 GPUs, at one size.

Xiong et al., CVPR 2019, arXiv:1901.03784, figure of the authors' README; numbers of their ``upsnet/experiments/
upsnet_resnet50_coco_16gpu.yaml`` and ``upsnet/upsnet_end2end_train.py``: the semantic head's loss on RoIs weighs a
fifth of its loss on pixels.
"""

from maskwright.recipes.recipe import COCO, RATES, TWICE, Recipe, falling

RECIPES = {
    "upsnet-1x": Recipe(
        name="upsnet-1x",
        model="upsnet-r50",
        source="https://github.com/uber-research/UPSNet/blob/master/upsnet/experiments/upsnet_resnet50_coco_16gpu.yaml",
        options={"pretrained": True, "norm": "frozen", "frozen_stages": 2},
        train={
            **falling(90_000, 60_000, 80_000, warmup=1500, rate=0.02),
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "batch_size": 1,
            "accumulate": 16,
            "precision": "32",
        },
        augment={"hflip": 0.5, "short": (800,), "long": 1333},
        resize=(800, 1333),
        images=COCO,
        epochs=12.2,
        published={"panoptic.PQ": 0.425},
        search=RATES,
        otherwise=(
            TWICE,
            "ImageNet weights of the backbone are timm's, not Caffe's.",
            "The warm-up begins at 1/1000 of the rate, in the original at a tenth of it.",
            "Momentum stays when the rate falls; the original divides it by 10 too.",
        ),
    )
}
