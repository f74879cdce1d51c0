"""Published checkpoints of models for instances."""

# fmt: off

from __future__ import annotations

from maskwright.weights.rows import (
    BGR_PIXELS,
    PACKAGED,
    RGB_PIXELS,
    Published,
    adelaidet,
    by_hand,
    centermask2,
    detectron2,
    detr,
    maskformer,
    mmdetection,
    torchvision,
)

_YOLACT_PIXELS = "RGB, ImageNet mean and std; 550 x 550, stretched"
_RTMDET_PIXELS = "BGR, means 103.53/116.28/123.675, std 57.375/57.12/58.395; within 640 x 640"
_LIGHT_PIXELS = "RGB, ImageNet mean and std; short side 448, long side at most 768"

_EMBEDDED = Published(
    name="embedded", model="mask-rcnn-r18-light", url=f"{PACKAGED}embedded.safetensors",
    sha256="77256d081aba24298c280678cbcd3cde7768ce9edbc938066fc7fd8d337a14f3", bytes=9_262_468, license="CC0-1.0",
    commercial=True, origin="maskwright", preprocessing="RGB, ImageNet mean and std; twofold enlarged",
    note="ships with the package; trained by this project on CC0 nuclei and drawn discs; mask AP 0.554, AP50 0.842 "
    "on the 98 held-out nuclei pictures",
)

_TWO_STAGE = (
    *(detectron2(f"mask-rcnn-{name}", f"mask-rcnn-{name.partition('-')[0]}",
                 f"COCO-InstanceSegmentation/mask_rcnn_{path}.pkl", box_ap=box, mask_ap=mask)
      for name, path, box, mask in (
        ("r50-detectron2-1x", "R_50_FPN_1x/137260431/model_final_a54504", 0.386, 0.352),
        ("r50-detectron2-3x", "R_50_FPN_3x/137849600/model_final_f10217", 0.410, 0.372),
        ("r101-detectron2-3x", "R_101_FPN_3x/138205316/model_final_a3ec72", 0.429, 0.386),
        ("x101-detectron2-3x", "X_101_32x8d_FPN_3x/139653917/model_final_2d9806", 0.443, 0.395),
    )),
    torchvision("mask-rcnn-r50-torchvision-v1", "mask-rcnn-r50", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
                "MaskRCNN_ResNet50_FPN_Weights.COCO_V1", RGB_PIXELS, box_ap=0.379, mask_ap=0.346),
    torchvision("mask-rcnn-r50-torchvision-v2", "mask-rcnn-r50", "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
                "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1", RGB_PIXELS, box_ap=0.474, mask_ap=0.418),
    *(mmdetection(name, name.partition("-mmdetection")[0], f"v2.0/{folder}_coco", version, mask, box, pixels)
      for name, folder, version, mask, box, pixels in (
        ("mask-rcnn-r50-mmdetection-3x", "mask_rcnn/mask_rcnn_r50_fpn_mstrain-poly_3x",
         "20210524_201154-21b550bb", 0.371, 0.409, RGB_PIXELS),
        ("mask-rcnn-r101-mmdetection-3x", "mask_rcnn/mask_rcnn_r101_fpn_mstrain-poly_3x",
         "20210524_200244-5675c317", 0.385, 0.427, RGB_PIXELS),
        ("mask-scoring-rcnn-r50-mmdetection-1x", "ms_rcnn/ms_rcnn_r50_caffe_fpn_1x",
         "20200702_180848-61c9355e", 0.360, 0.382, BGR_PIXELS),
        ("mask-scoring-rcnn-r101-mmdetection-2x", "ms_rcnn/ms_rcnn_r101_caffe_fpn_2x",
         "bbox_mAP-0.411__segm_mAP-0.381_20200506_011134-5f3cc74f", 0.381, 0.411, BGR_PIXELS),
        ("cascade-mask-rcnn-r50-mmdetection-1x", "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x",
         "20200203-9d4dcb24", 0.359, 0.412, RGB_PIXELS),
        ("cascade-mask-rcnn-r50-mmdetection-3x", "cascade_rcnn/cascade_mask_rcnn_r50_fpn_mstrain_3x",
         "20210628_164719-5bdc3824", 0.385, 0.443, RGB_PIXELS),
    )),
    *(by_hand(f"mask-scoring-rcnn-{body}-official", f"mask-scoring-rcnn-{body}", license="MIT", pixels=BGR_PIXELS,
              repository="zjhuang22/maskscoring_rcnn", note="as stated in", mask_ap=mask, box_ap=box)
      for body, mask, box in (("r50", 0.356, 0.379), ("r101", 0.374, 0.401))),
    *(detectron2(f"pointrend-{name}", f"pointrend-{name.partition('-')[0]}",
                 f"PointRend/InstanceSegmentation/pointrend_rcnn_{path}.pkl", note="detectron2's project PointRend",
                 mask_ap=mask)
      for name, path, mask in (
        ("r50-detectron2-1x", "R_50_FPN_1x_coco/164254221/model_final_736f5a", 0.362),
        ("r50-detectron2-3x", "R_50_FPN_3x_coco/164955410/model_final_edd263", 0.383),
        ("r101-detectron2-3x", "R_101_FPN_3x_coco/28119983/model_final_3f4d2a", 0.401),
        ("x101-detectron2-3x", "X_101_32x8d_FPN_3x_coco/28119989/model_final_ba17b9", 0.411),
    )),
    *(mmdetection(f"queryinst-{name}", f"queryinst-{name.partition('-')[0]}", f"v2.0/queryinst/queryinst_{folder}_coco",
                  version, mask, box)
      for name, folder, version, mask, box in (
        ("r50-mmdetection-1x", "r50_fpn_1x", "20210907_084916-5a8f1998", 0.375, 0.420),
        ("r50-mmdetection-3x", "r50_fpn_mstrain_480-800_3x", "20210901_103643-7837af86", 0.398, 0.448),
        ("r50-mmdetection-3x-300", "r50_fpn_300_proposals_crop_mstrain_480-800_3x", "20210904_101802-85cffbd8",
         0.417, 0.475),
        ("r101-mmdetection-3x", "r101_fpn_mstrain_480-800_3x", "20210904_104048-91f9995b", 0.410, 0.464),
        ("r101-mmdetection-3x-300", "r101_fpn_300_proposals_crop_mstrain_480-800_3x", "20210904_153621-76cce59f",
         0.429, 0.490),
    )),
)

_SINGLE_STAGE = (
    *(mmdetection(name, model, f"v2.0/{folder}", version, mask, None, pixels)
      for name, model, folder, version, mask, pixels in (
        ("solo-r50-mmdetection-1x", "solo-r50", "solo/solo_r50_fpn_1x_coco", "20210821_035055-2290a6b8", 0.331,
         RGB_PIXELS),
        ("solo-r50-mmdetection-3x", "solo-r50", "solo/solo_r50_fpn_3x_coco", "20210901_012353-11d224d7", 0.359,
         RGB_PIXELS),
        ("solo-decoupled-r50-mmdetection-1x", "solo-decoupled-r50", "solo/decoupled_solo_r50_fpn_1x_coco",
         "20210820_233348-6337c589", 0.339, RGB_PIXELS),
        ("solo-decoupled-r50-mmdetection-3x", "solo-decoupled-r50", "solo/decoupled_solo_r50_fpn_3x_coco",
         "20210821_042504-7b3301ec", 0.367, RGB_PIXELS),
        ("solov2-r50-mmdetection-1x", "solov2-r50", "solov2/solov2_r50_fpn_1x_coco", "20220512_125858-a357fa23", 0.348,
         RGB_PIXELS),
        ("solov2-r50-mmdetection-3x", "solov2-r50", "solov2/solov2_r50_fpn_3x_coco", "20220512_125856-fed092d4", 0.375,
         RGB_PIXELS),
        ("solov2-light-r18-mmdetection-3x", "solov2-light-r18", "solov2/solov2_light_r18_fpn_3x_coco",
         "20220511_083717-75fa355b", 0.297, _LIGHT_PIXELS),
        ("solov2-light-r50-mmdetection-3x", "solov2-light-r18", "solov2/solov2_light_r50_fpn_3x_coco",
         "20220512_165256-c93a6074", 0.337, _LIGHT_PIXELS),
        ("yolact-r50-mmdetection", "yolact-r50", "yolact/yolact_r50_1x8_coco", "20200908-f38d58df", 0.290,
         _YOLACT_PIXELS),
        ("yolact-r101-mmdetection", "yolact-r101", "yolact/yolact_r101_1x8_coco", "20200908-4cbe9101", 0.304,
         _YOLACT_PIXELS),
    )),
    adelaidet("solov2-r50-adelaidet-3x", "solov2-r50", "ZjuCv/AdelaiDet/SOLOv2_R50_3x.pth", 0.376),
    adelaidet("solov2-r101-adelaidet-3x", "solov2-r101", "ZjuCv/AdelaiDet/SOLOv2_R101_3x.pth", 0.390),
    *(by_hand(f"yolact-{body}-official", f"yolact-{body}", license="MIT", pixels=_YOLACT_PIXELS,
              repository="dbolya/yolact", note=f"mask AP {ap} on test-dev; {file}, linked (Google Drive) from")
      for body, ap, file in (
        ("r50", 0.282, "yolact_resnet50_54_800000.pth"),
        ("r101", 0.298, "yolact_base_54_800000.pth"),
    )),
    *(mmdetection(f"rtmdet-ins-{size}-mmdetection", f"rtmdet-ins-{size}",
                  f"v3.0/rtmdet/rtmdet-ins_{size}_8xb32-300e_coco", version, mask, box, _RTMDET_PIXELS)
      for size, version, mask, box in (
        ("tiny", "20221130_151727-ec670f7e", 0.354, 0.405),
        ("s", "20221121_212604-fdc5d7ec", 0.387, 0.440),
        ("m", "20221123_001039-6eba602e", 0.421, 0.488),
    )),
    *(adelaidet(f"condinst-{name}", f"condinst-{name.partition('-')[0]}",
                f"tianzhi/AdelaiDet-CondInst/CondInst_{file}.pth", mask, box)
      for name, file, mask, box in (
        ("r50-adelaidet-1x", "MS_R_50_1x", 0.357, 0.397),
        ("r50-adelaidet-3x", "MS_R_50_3x", 0.375, 0.419),
        ("r50-adelaidet-3x-semantic", "MS_R_50_3x_sem", 0.382, 0.426),
        ("r101-adelaidet-3x", "MS_R_101_3x", 0.386, 0.433),
        ("r101-adelaidet-3x-semantic", "MS_R_101_3x_sem", 0.398, 0.446),
    )),
    mmdetection("condinst-r50-mmdetection-1x", "condinst-r50",
                "v3.0/condinst/condinst_r50_fpn_ms-poly-90k_coco_instance", "20221129_125223-4c186406", 0.360, 0.398),
    centermask2("centermask-v39-centermask2", "centermask-v39",
                "tczecsdxt10uai5/centermask2-V-39-eSE-FPN-ms-3x.pth", 0.397, 0.442, 800, 1333),
    centermask2("centermask-lite-v19-centermask2", "centermask-lite",
                "dret2ap7djty7mp/centermask2-lite-V-19-eSE-FPN-ms-4x.pth", 0.328, 0.359, 600, 1000),
    centermask2("centermask-lite-v39-centermask2", "centermask-lite",
                "uwc0ypa1jvco2bi/centermask2-lite-V-39-eSE-FPN-ms-4x.pth", 0.367, 0.409, 600, 1000),
)

_QUERIES = (
    detr("detr-r50-official", "detr-r50", "detr-r50-e632da11.pth", box_ap=0.420),
    detr("detr-r101-official", "detr-r101", "detr-r101-2c7b67e5.pth", box_ap=0.435),
    *(maskformer(f"mask2former-instance-{name}", f"mask2former-instance-{model}",
                 f"mask2former/coco/instance/maskformer2_{path}.pkl", mask_ap=mask)
      for name, model, path, mask in (
        ("r50-official", "r50", "R50_bs16_50ep/model_final_3c8ec9", 0.437),
        ("swin-t-official", "swin-t", "swin_tiny_bs16_50ep/model_final_86143f", 0.450),
        ("swin-s-official", "swin-s", "swin_small_bs16_50ep/model_final_1e7f22", 0.463),
        ("swin-b-official", "swin-b", "swin_base_IN21k_384_bs16_50ep/model_final_83d103", 0.481),
        ("swin-b-official-in1k", "swin-b", "swin_base_384_bs16_50ep/model_final_f6e0f6", 0.467),
        ("swin-l-official", "swin-l", "swin_large_IN21k_384_bs16_100ep/model_final_e5f453", 0.501),
    )),
)

INSTANCE: tuple[Published, ...] = (_EMBEDDED, *_TWO_STAGE, *_SINGLE_STAGE, *_QUERIES)
