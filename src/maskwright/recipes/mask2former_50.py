"""Mask2Former R50, 368,750 steps of 16 images (50 epochs) with large-scale jitter, for instances or panoptic maps.

Cheng et al., CVPR 2022, arXiv:2112.01527, section 4.1; numbers of the authors' ``configs/coco/
instance-segmentation/maskformer2_R50_bs16_50ep.yaml`` and ``configs/coco/panoptic-segmentation/
Base-COCO-PanopticSegmentation.yaml``: the rate falls at 0.9 and 0.95 (327,778 and 355,092 steps).
"""

from maskwright.recipes.recipe import ADAM_RATES, COCO, Recipe, falling


def _recipe(task: str, published: dict[str, float]) -> Recipe:
    return Recipe(
        name=f"mask2former-{task}-50",
        model=f"mask2former-{task}-r50",
        source=f"https://github.com/facebookresearch/Mask2Former/blob/main/configs/coco/{task}-segmentation/maskformer2_R50_bs16_50ep.yaml",
        options={"pretrained": True, "norm": "frozen"},
        train={
            **falling(368_750, 327_778, 355_092, warmup=0, rate=1e-4),
            "optimizer": "adamw",
            "weight_decay": 0.05,
            "backbone_rate": 0.1,
            "clip_norm": 0.01,
            "batch_size": 2,
            "accumulate": 8,
            "precision": "auto",
        },
        augment={"hflip": 0.5, "fit": True, "scale": (0.1, 2.0), "crop": (1024, 1024)},
        resize=(800, 1333),
        images=COCO,
        epochs=49.9,
        published=published,
        search=ADAM_RATES,
        otherwise=(
            "Of the pictures' border only what the crop leaves is padded, to the batch's size instead of 1024.",
        ),
    )


RECIPES = {
    "mask2former-instance-50": _recipe("instance", {"mask.AP": 0.437}),
    "mask2former-panoptic-50": _recipe("panoptic", {"panoptic.PQ": 0.519, "mask.AP": 0.417}),
}
