"""Mask2Former R50: 368,750 steps of 16 images (50 epochs of COCO) with large-scale jitter, or 160k steps of ADE20K.

Cheng et al., CVPR 2022, arXiv:2112.01527, section 4.1; numbers of the authors'
``configs/coco/instance-segmentation/Base-COCO-InstanceSegmentation.yaml``,
``configs/coco/panoptic-segmentation/Base-COCO-PanopticSegmentation.yaml`` and
``configs/ade20k/semantic-segmentation/Base-ADE20K-SemanticSegmentation.yaml``, figures of ``MODEL_ZOO.md``. On COCO the
rate falls at 327,778 and 355,092 steps (0.889 and 0.963 of the run; the paper says 0.9 and 0.95), for semantic maps
along a polynomial. That figure is of ADE20K's validation set.
"""

from maskwright.recipes.recipe import ADAM_RATES, ADE, COCO, COLORS, NO_DECAY, SSD_COLORS, Recipe, falling

_ADAMW = {
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "backbone_rate": 0.1,
    "clip_norm": 0.01,
    "batch_size": 2,
    "accumulate": 8,
    "precision": "auto",
}


def _recipe(task: str, published: dict[str, float]) -> Recipe:
    return Recipe(
        name=f"mask2former-{task}-50",
        model=f"mask2former-{task}-r50",
        source=f"https://github.com/facebookresearch/Mask2Former/blob/main/configs/coco/{task}-segmentation/maskformer2_R50_bs16_50ep.yaml",
        options={"pretrained": True, "norm": "frozen"},
        train={**falling(368_750, 327_778, 355_092, warmup=0, rate=1e-4), **_ADAMW},
        augment={"hflip": 0.5, "fit": True, "scale": (0.1, 2.0), "crop": (1024, 1024)},
        resize=(800, 1333),
        images=COCO,
        epochs=49.9,
        published=published,
        search=ADAM_RATES,
        otherwise=(
            NO_DECAY,
            "Of the pictures' border only what the crop leaves is padded, to the batch's size instead of 1024.",
        ),
    )


_SEMANTIC = Recipe(
    name="mask2former-semantic-160k",
    model="mask2former-semantic-r50",
    source="https://github.com/facebookresearch/Mask2Former/blob/main/configs/ade20k/semantic-segmentation/maskformer2_R50_bs16_160k.yaml",
    options={"pretrained": True, "norm": "frozen"},
    train={"steps": 160_000, "learning_rate": 1e-4, "schedule": "poly", "power": 0.9, "warmup": 0.0, **_ADAMW},
    augment={
        "hflip": 0.5,
        "short": tuple(int(k * 0.1 * 512) for k in range(5, 21)),
        "long": 2048,
        "crop": (512, 512),
        **SSD_COLORS,
    },
    resize=(512, 2048),
    images=ADE,
    epochs=126.7,
    published={"semantic.mIoU": 0.472},
    search={name: ADAM_RATES[name] for name in ("learning_rate", "weight_decay", "ema")},
    otherwise=(NO_DECAY, COLORS),
)

RECIPES = {
    "mask2former-instance-50": _recipe("instance", {"mask.AP": 0.437}),
    "mask2former-panoptic-50": _recipe("panoptic", {"panoptic.PQ": 0.519, "mask.AP": 0.417}),
    "mask2former-semantic-160k": _SEMANTIC,
}
