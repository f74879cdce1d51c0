"""Panoptic-DeepLab R52 with separable decoders: Cityscapes, 90k steps of 32 images, or COCO, 200k steps of 64.

Cheng et al., CVPR 2020, arXiv:1911.10194 (the method); numbers of detectron2's ``projects/Panoptic-DeepLab/configs/
Cityscapes-PanopticSegmentation/panoptic_deeplab_R_52_os16_mg124_poly_90k_bs32_crop_512_1024_dsconv.yaml`` with
``Base-PanopticDeepLab-OS16.yaml`` and ``COCO-PanopticSegmentation/
panoptic_deeplab_R_52_os16_mg124_poly_200k_bs64_crop_640_640_coco_dsconv.yaml``, figures and devices (8 and 16) of the
project's README. Adam without decay. The first figures are those of Cityscapes' validation set.
"""

from collections.abc import Mapping
from typing import Any

from maskwright.recipes.recipe import CITYSCAPES, COCO, POLY, Recipe

_OTHERWISE = (POLY, "ImageNet weights of the backbone are timm's, not detectron2's.")
_SEARCH = {"learning_rate": "1e-5..1e-2:log", "warmup": "5e-4..0.1:log"}


def _train(steps: int, rate: float, devices: int) -> Mapping[str, Any]:
    return {
        "steps": steps,
        "learning_rate": rate,
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "schedule": "poly",
        "power": 0.9,
        "warmup": 1000 / steps,
        "batch_size": 4,
        "accumulate": devices,
        "precision": "32",
        "sync_norm": True,
    }


RECIPES = {
    "panoptic-deeplab-90k": Recipe(
        name="panoptic-deeplab-90k",
        model="panoptic-deeplab-r52",
        source="https://github.com/facebookresearch/detectron2/blob/main/projects/Panoptic-DeepLab/configs/Cityscapes-PanopticSegmentation/panoptic_deeplab_R_52_os16_mg124_poly_90k_bs32_crop_512_1024_dsconv.yaml",
        options={"pretrained": True, "separable": True, "sigma": 10.0},
        train=_train(90_000, 1e-3, 8),
        augment={
            "hflip": 0.5,
            "short": (512, 640, 704, 832, 896, 1024, 1152, 1216, 1344, 1408, 1536, 1664, 1728, 1856, 1920, 2048),
            "long": 4096,
            "crop": (512, 1024),
        },
        resize=(1024, 2048),
        max_per_image=200,
        images=CITYSCAPES,
        epochs=968,
        published={"panoptic.PQ": 0.603, "mask.AP": 0.321, "semantic.mIoU": 0.787},
        search=_SEARCH,
        otherwise=_OTHERWISE,
    ),
    "panoptic-deeplab-200k": Recipe(
        name="panoptic-deeplab-200k",
        model="panoptic-deeplab-r52",
        source="https://github.com/facebookresearch/detectron2/blob/main/projects/Panoptic-DeepLab/configs/COCO-PanopticSegmentation/panoptic_deeplab_R_52_os16_mg124_poly_200k_bs64_crop_640_640_coco_dsconv.yaml",
        options={
            "pretrained": True,
            "separable": True,
            "sigma": 8.0,
            "hard_share": 1.0,
            "window": 41,
            "stuff_area": 4096,
        },
        train=_train(200_000, 5e-4, 16),
        augment={"hflip": 0.5, "short": tuple(range(320, 961, 64)), "long": 640, "crop": (640, 640)},
        resize=(640, 640),
        max_per_image=200,
        images=COCO,
        epochs=108.2,
        published={"panoptic.PQ": 0.355, "mask.AP": 0.197, "box.AP": 0.186},
        search=_SEARCH,
        otherwise=_OTHERWISE,
    ),
}
