"""Published checkpoints of models for panoptic and semantic maps, and of those that do several tasks."""

# fmt: off

from __future__ import annotations

from maskwright.weights.rows import RGB_PIXELS, Published, detectron2, detr, hub, maskformer, torchvision

_EOMT_PIXELS = "RGB, ImageNet mean and std; within {0} x {0}"
_SEGFORMER_PIXELS = "RGB, ImageNet mean and std; short side {0}, long side at most {1}"
_CITYSCAPES_PIXELS = "RGB, ImageNet mean and std; 1024 x 2048"
_PANOPTIC_DEEPLAB = "panoptic_deeplab_R_52_os16_mg124_poly"

_PANOPTIC = (
    *(detectron2(f"panoptic-fpn-{name}", f"panoptic-fpn-{name.partition('-')[0]}",
                 f"COCO-PanopticSegmentation/panoptic_fpn_{path}.pkl", pq=pq, box_ap=box, mask_ap=mask)
      for name, path, pq, box, mask in (
        ("r50-detectron2-1x", "R_50_1x/139514544/model_final_dbfeb4", 0.394, 0.376, 0.347),
        ("r50-detectron2-3x", "R_50_3x/139514569/model_final_c10459", 0.415, 0.400, 0.365),
        ("r101-detectron2-3x", "R_101_3x/139514519/model_final_cafdb1", 0.430, 0.424, 0.385),
    )),
    detr("detr-panoptic-r50-official", "detr-panoptic-r50", "detr-r50-panoptic-00ce5173.pth",
         pq=0.434, box_ap=0.388, mask_ap=0.311),
    detr("detr-panoptic-r101-official", "detr-panoptic-r50", "detr-r101-panoptic-40021d53.pth",
         pq=0.451, box_ap=0.401, mask_ap=0.330),
    *(maskformer(f"maskformer-{name}", f"maskformer-{model}", f"panoptic-coco/maskformer_panoptic_{path}.pkl", pq=pq)
      for name, model, path, pq in (
        ("r50-official", "r50", "R50_bs64_554k/model_final_6f60dc", 0.465),
        ("r101-official", "r50", "R101_bs64_554k/model_final_57b049", 0.476),
        ("swin-t-official", "swin-t", "swin_tiny_bs64_554k/model_final_539394", 0.477),
        ("swin-s-official", "swin-t", "swin_small_bs64_554k/model_final_5bf6b1", 0.497),
        ("swin-b-official", "swin-t", "swin_base_IN21k_384_bs64_554k/model_final_4b7f49", 0.518),
        ("swin-l-official", "swin-t", "swin_large_IN21k_384_bs64_554k/model_final_7505c4", 0.527),
    )),
    *(maskformer(f"maskformer-{name}", f"maskformer-{model}", f"semantic-ade20k/maskformer_{path}.pkl", data="ADE20K",
                 miou=miou)
      for name, model, path, miou in (
        ("r50-official-ade20k", "r50", "R50_bs16_160k/model_final_d8dbeb", 0.445),
        ("r101-official-ade20k", "r50", "R101_bs16_160k/model_final_1aeb94", 0.455),
        ("swin-t-official-ade20k", "swin-t", "swin_tiny_bs16_160k/model_final_8657a5", 0.467),
        ("swin-s-official-ade20k", "swin-t", "swin_small_bs16_160k/model_final_528157", 0.498),
    )),
    *(maskformer(f"mask2former-panoptic-{name}", f"mask2former-panoptic-{model}",
                 f"mask2former/coco/panoptic/maskformer2_{path}.pkl", pq=pq, mask_ap=mask)
      for name, model, path, pq, mask in (
        ("r50-official", "r50", "R50_bs16_50ep/model_final_94dc52", 0.519, 0.417),
        ("swin-t-official", "swin-t", "swin_tiny_bs16_50ep/model_final_9fd0ae", 0.532, 0.433),
        ("swin-s-official", "swin-s", "swin_small_bs16_50ep/model_final_a407fd", 0.546, 0.447),
        ("swin-b-official", "swin-b", "swin_base_IN21k_384_bs16_50ep/model_final_54b88a", 0.564, 0.463),
        ("swin-b-official-in1k", "swin-b", "swin_base_384_bs16_50ep/model_final_9d7f02", 0.551, 0.452),
        ("swin-l-official", "swin-l", "swin_large_IN21k_384_bs16_100ep/model_final_f07440", 0.578, 0.486),
    )),
    *(maskformer(f"mask2former-semantic-{name}", f"mask2former-semantic-{model}",
                 f"mask2former/ade20k/semantic/maskformer2_{path}.pkl", data="ADE20K", miou=miou)
      for name, model, path, miou in (
        ("r50-official-ade20k", "r50", "R50_bs16_160k/model_final_500878", 0.472),
        ("swin-t-official-ade20k", "swin-t", "swin_tiny_bs16_160k/model_final_5274a6", 0.477),
        ("swin-s-official-ade20k", "swin-s", "swin_small_bs16_160k/model_final_011c6d", 0.513),
        ("swin-b-official-ade20k", "swin-b", "swin_base_IN21k_384_bs16_160k_res640/model_final_7e47bf", 0.539),
        ("swin-l-official-ade20k", "swin-l", "swin_large_IN21k_384_bs16_160k_res640/model_final_6b4a3a", 0.561),
    )),
)

_HUB = (
    *(hub(f"mask2former-{task}-{body}-hub", f"mask2former-{task}-{body}",
          f"facebook/mask2former-swin-{size}-coco-{task}/pytorch_model.bin", license="CC BY-NC 4.0", commercial=False,
          pixels=RGB_PIXELS, note="the official weights in transformers' names; figures are those of the official ones",
          **figures)
      for task, body, size, figures in (
        ("instance", "swin-t", "tiny", {"mask_ap": 0.450}),
        ("instance", "swin-s", "small", {"mask_ap": 0.463}),
        ("instance", "swin-l", "large", {"mask_ap": 0.501}),
        ("panoptic", "swin-t", "tiny", {"pq": 0.532}),
        ("panoptic", "swin-s", "small", {"pq": 0.546}),
        ("panoptic", "swin-l", "large", {"pq": 0.578}),
    )),
    *(hub(f"eomt-{name}-hub", f"eomt-{size}", f"tue-mps/coco_{repository}/model.safetensors", license="MIT",
          commercial=True, pixels=_EOMT_PIXELS.format(side), note="DINOv2 inside, which is Apache-2.0", **figures)
      for name, size, repository, side, figures in (
        ("s-640", "s", "panoptic_eomt_small_640_2x", 640, {"pq": 0.467}),
        ("b-640", "b", "panoptic_eomt_base_640_2x", 640, {"pq": 0.516}),
        ("l-640", "l", "panoptic_eomt_large_640", 640, {"pq": 0.560}),
        ("l-1280", "l", "panoptic_eomt_large_1280", 1280, {"pq": 0.583}),
        ("l-640-instance", "l", "instance_eomt_large_640", 640, {"mask_ap": 0.452}),
        ("l-1280-instance", "l", "instance_eomt_large_1280", 1280, {"mask_ap": 0.488}),
    )),
)

_SEMANTIC = tuple(
    torchvision(f"deeplabv3-{body}-torchvision", "deeplabv3plus-r50", f"deeplabv3_{file}.pth",
                f"DeepLabV3_{enum}_Weights.COCO_WITH_VOC_LABELS_V1",
                "RGB, ImageNet mean and std; short side 520", miou=miou, data="COCO's pictures, Pascal VOC's classes")
    for body, file, enum, miou in (
        ("r50", "resnet50_coco-cd0a2569", "ResNet50", 0.664),
        ("r101", "resnet101_coco-586e9e4e", "ResNet101", 0.674),
    )
)

SEGFORMER = tuple(
    hub(f"segformer-b{size}-hub-ade20k", f"segformer-b{size}",
        f"nvidia/segformer-b{size}-finetuned-ade-{side}-{side}/pytorch_model.bin",
        license="NVIDIA Source Code License for SegFormer, non-commercial", commercial=False, data="ADE20K", miou=miou,
        pixels=_SEGFORMER_PIXELS.format(side, 2048), note="single scale; transformers' names")
    for size, side, miou in (
        (0, 512, 0.374), (1, 512, 0.422), (2, 512, 0.465), (3, 512, 0.494), (4, 512, 0.503), (5, 640, 0.510),
    )
)

_PANOPTIC_DEEPLAB_ROWS = tuple(
    detectron2(f"panoptic-deeplab-r52-detectron2{name}", "panoptic-deeplab-r52", f"PanopticDeepLab/{path}.pkl",
               note="detectron2's project Panoptic-DeepLab", **figures)
    for name, path, figures in (
        ("", f"COCO-PanopticSegmentation/{_PANOPTIC_DEEPLAB}_200k_bs64_crop_640_640_coco_dsconv/model_final_5e6da2",
         {"pq": 0.355, "preprocessing": "RGB, ImageNet mean and std; within 640 x 640"}),
        ("-cityscapes", f"Cityscapes-PanopticSegmentation/{_PANOPTIC_DEEPLAB}_90k_bs32/model_final_bd324a",
         {"pq": 0.603, "miou": 0.782, "mask_ap": 0.332, "data": "Cityscapes", "preprocessing": _CITYSCAPES_PIXELS}),
        ("-cityscapes-separable",
         f"Cityscapes-PanopticSegmentation/{_PANOPTIC_DEEPLAB}_90k_bs32_crop_512_1024_dsconv/model_final_23d03a",
         {"pq": 0.603, "miou": 0.787, "mask_ap": 0.321, "data": "Cityscapes", "preprocessing": _CITYSCAPES_PIXELS}),
    )
)

MAPS: tuple[Published, ...] = (*_PANOPTIC, *_PANOPTIC_DEEPLAB_ROWS, *_HUB, *_SEMANTIC, *SEGFORMER)
