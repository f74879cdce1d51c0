"""MaskFormer R50 for panoptic segmentation, 554k steps of 64 images (300 epochs).

Cheng et al., NeurIPS 2021, arXiv:2107.06278, section 4.1; numbers of the authors' ``configs/coco-panoptic/
maskformer_panoptic_R50_bs64_554k.yaml`` and ``Base-COCO-PanopticSegmentation.yaml``: one fall, after 200 epochs. How
many devices shared the batch is not in these files; 2 images each are taken.
"""

from maskwright.recipes.recipe import ADAM_RATES, COCO, CROP, NO_DECAY, SHORT_480_800, Recipe, falling

RECIPES = {
    "maskformer-300": Recipe(
        name="maskformer-300",
        model="maskformer-r50",
        source="https://github.com/facebookresearch/MaskFormer/blob/main/configs/coco-panoptic/maskformer_panoptic_R50_bs64_554k.yaml",
        options={"pretrained": True, "norm": "frozen"},
        train={
            **falling(554_400, 369_600, warmup=0, rate=1e-4),
            "optimizer": "adamw",
            "weight_decay": 1e-4,
            "backbone_rate": 0.1,
            "clip_norm": 0.01,
            "batch_size": 2,
            "accumulate": 32,
            "precision": "32",
        },
        augment=SHORT_480_800,
        resize=(800, 1333),
        images=COCO,
        epochs=300,
        published={"panoptic.PQ": 0.465},
        search=ADAM_RATES,
        otherwise=(CROP, NO_DECAY),
    )
}
