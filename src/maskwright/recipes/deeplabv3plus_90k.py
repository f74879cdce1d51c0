"""DeepLabv3+ R103 on Cityscapes, 90k steps of 16 images.

Chen et al., ECCV 2018, arXiv:1802.02611 (the method); numbers of detectron2's ``projects/DeepLab/configs/
Cityscapes-SemanticSegmentation/deeplab_v3_plus_R_103_os16_mg124_poly_90k_bs16.yaml`` and
``Base-DeepLabV3-OS16-Semantic.yaml``, figure of ``projects/DeepLab/README.md``, on Cityscapes' validation set.
"""

from maskwright.recipes.recipe import CITYSCAPES, NO_DECAY, POLY, RATES, Recipe

_STEPS = 90_000

RECIPES = {
    "deeplabv3plus-90k": Recipe(
        name="deeplabv3plus-90k",
        model="deeplabv3plus-r50",
        source="https://github.com/facebookresearch/detectron2/blob/main/projects/DeepLab/configs/Cityscapes-SemanticSegmentation/deeplab_v3_plus_R_103_os16_mg124_poly_90k_bs16.yaml",
        options={"pretrained": True, "body": "resnet101s"},
        train={
            "steps": _STEPS,
            "learning_rate": 0.01,
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "schedule": "poly",
            "power": 0.9,
            "warmup": 1000 / _STEPS,
            "batch_size": 2,
            "accumulate": 8,
            "precision": "32",
            "sync_norm": True,
        },
        augment={
            "hflip": 0.5,
            "short": (512, 768, 1024, 1280, 1536, 1792, 2048),
            "long": 4096,
            "crop": (512, 1024),
        },
        resize=(1024, 2048),
        images=CITYSCAPES,
        epochs=484,
        published={"semantic.mIoU": 0.80},
        search=RATES,
        otherwise=(
            NO_DECAY,
            POLY,
            "The loss is a mean over all pixels; in the original over the worst fifth.",
            "The last stage is dilated by 2; in the original by 2, 4 and 8.",
            "ImageNet weights of the backbone are timm's, not detectron2's.",
        ),
    )
}
