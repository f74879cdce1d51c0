"""Mask R-CNN R50-FPN from random weights with large-scale jitter, 100, 200 or 400 epochs of 64 images.

Ghiasi et al., CVPR 2021, arXiv:2012.07177; numbers of detectron2's ``configs/new_baselines/
mask_rcnn_R_50_FPN_{100,200,400}ep_LSJ.py``: synchronized batch norm in backbone, neck and heads, two convolutions in
the RPN, four and one linear layer in the box head; an epoch has 118,000 images there.
"""

from maskwright.recipes.recipe import COCO, NO_DECAY, RATES, Recipe, falling

_STEPS = 184_375
_FALLS = (163_889, 177_546)
_AP = {100: (0.403, 0.446), 200: (0.417, 0.463), 400: (0.425, 0.474)}


def _recipe(epochs: int) -> Recipe:
    times = epochs // 100
    falls = (fall * times for fall in _FALLS)
    mask, box = _AP[epochs]
    return Recipe(
        name=f"mask-rcnn-lsj-{epochs}",
        model="mask-rcnn-r50",
        source=f"https://github.com/facebookresearch/detectron2/blob/main/configs/new_baselines/mask_rcnn_R_50_FPN_{epochs}ep_LSJ.py",
        options={
            "norm": "train",
            "stride_in_1x1": True,
            "rpn_depth": 2,
            "box_head": "conv4_fc1",
            "neck_norm": "batch",
            "head_norm": "batch",
            "convention": "detectron2",
        },
        train={
            **falling(_STEPS * times, *falls, warmup=500, rate=0.1),
            "optimizer": "sgd",
            "momentum": 0.9,
            "weight_decay": 4e-5,
            "batch_size": 8,
            "accumulate": 8,
            "precision": "auto",
            "sync_norm": True,
        },
        augment={"hflip": 0.5, "fit": True, "scale": (0.1, 2.0), "crop": (1024, 1024)},
        resize=(800, 1333),
        images=COCO,
        epochs=epochs,
        published={"mask.AP": mask, "box.AP": box},
        search=RATES,
        otherwise=(
            NO_DECAY,
            "The warm-up begins at 1/1000 of the rate, in the original at 0.067 of it.",
            "Batch norm sees the micro-batches of all processes, of one by default; in the original 64 images.",
        ),
    )


RECIPES = {f"mask-rcnn-lsj-{epochs}": _recipe(epochs) for epochs in _AP}
