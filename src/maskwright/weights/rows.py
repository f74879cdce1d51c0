"""Published checkpoints as data: the rows of ``weights.table``. Figures are fractions, as their projects state them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PACKAGED = "package:"
"""A ``url`` that begins so names a file inside ``maskwright/weights/files``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published checkpoint.

    Attributes:
        name: what ``load(..., weights=name)`` and ``--weights`` take.
        model: the zoo's name of the model it fits.
        url: where it is downloaded from, or ``package:FILE``; empty where a file must be fetched by hand, see ``note``.
        sha256: lower-case hexadecimal SHA-256, or the beginning of it, or ``None`` when unknown.
        bytes: the file's length, or ``None`` when unknown.
        license: of the weights.
        commercial: whether the license allows commercial use; ``None`` when the license says nothing.
        box_ap, mask_ap, pq, miou: published on the val half of ``data``; ``None`` where not stated.
        data: what they were measured on.
        origin: the project that made it.
        preprocessing: how pictures are brought in at test time.
        note: where the facts are from, and what else to know.
    """

    name: str
    model: str
    url: str
    license: str
    commercial: bool | None
    origin: str
    preprocessing: str
    note: str
    sha256: str | None = None
    bytes: int | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    pq: float | None = None
    miou: float | None = None
    data: str = "COCO"


_D2 = "https://dl.fbaipublicfiles.com/detectron2"
_TORCH = "https://download.pytorch.org/models"
_MMDET = "https://download.openmmlab.com/mmdetection"
_D2_PIXELS = "BGR, means 103.53/116.28/123.675, std 1; short side 800, long side at most 1333"
_RGB_PIXELS = "RGB, ImageNet mean and std; short side 800, long side at most 1333"
_UNREACHED = (
    "model zoo of mmdetection; its host has not answered since June 2026, so keep a copy or give a mirror's file"
)


def _detectron2(name: str, model: str, path: str, *, note: str = "detectron2 model zoo", **figures: Any) -> Published:
    return Published(
        name=name, model=model, url=f"{_D2}/{path}", license="CC BY-SA 3.0", commercial=True, origin="detectron2",
        preprocessing=_D2_PIXELS, note=f"{note}; share alike: weights derived from it keep its license", **figures,
    )  # fmt: skip


def _torchvision(name: str, file: str, enum: str, box: float, mask: float) -> Published:
    return Published(
        name=name, model="mask-rcnn-r50", url=f"{_TORCH}/{file}", sha256=file[-12:-4], license="BSD-3-Clause",
        commercial=True, box_ap=box, mask_ap=mask, origin="torchvision", preprocessing=f"{_RGB_PIXELS}, plain bilinear",
        note=f"MaskRCNN_ResNet50_FPN_{enum}; BSD-3 is the license of the code, weights trained on COCO",
    )  # fmt: skip


def _mmdetection(
    name: str, model: str, folder: str, file: str, mask: float, box: float | None = None, pixels: str = _RGB_PIXELS
) -> Published:
    """A row whose file's name ends with the beginning of its hash, as mmdetection publishes."""
    return Published(
        name=name, model=model, url=f"{_MMDET}/{folder}/{file}", sha256=file[-12:-4], license="none stated",
        commercial=None, box_ap=box, mask_ap=mask, origin="mmdetection", preprocessing=pixels,
        note=f"{_UNREACHED}; the code is Apache-2.0, of the weights nothing is said",
    )  # fmt: skip


ROWS: tuple[Published, ...] = (
    Published(
        name="embedded",
        model="mask-rcnn-r18-light",
        url=f"{PACKAGED}embedded.safetensors",
        sha256="77256d081aba24298c280678cbcd3cde7768ce9edbc938066fc7fd8d337a14f3",
        bytes=9_262_468,
        license="CC0-1.0",
        commercial=True,
        origin="maskwright",
        preprocessing="RGB, ImageNet mean and std; twofold enlarged",
        note="ships with the package; trained by this project on CC0 nuclei and drawn discs; mask AP 0.554, AP50 0.842 "
        "on the 98 held-out nuclei pictures",
    ),
    _detectron2(
        "mask-rcnn-r50-detectron2-3x",
        "mask-rcnn-r50",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl",
        box_ap=0.410,
        mask_ap=0.372,
    ),
    _detectron2(
        "mask-rcnn-r101-detectron2-3x",
        "mask-rcnn-r101",
        "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x/138205316/model_final_a3ec72.pkl",
        box_ap=0.429,
        mask_ap=0.386,
    ),
    _torchvision(
        "mask-rcnn-r50-torchvision-v1", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "Weights.COCO_V1", 0.379, 0.346
    ),
    _torchvision(
        "mask-rcnn-r50-torchvision-v2", "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "V2_Weights.COCO_V1", 0.474, 0.418
    ),
    _mmdetection(
        "mask-rcnn-r50-mmdetection-3x",
        "mask-rcnn-r50",
        "v2.0/mask_rcnn/mask_rcnn_r50_fpn_mstrain-poly_3x_coco",
        "mask_rcnn_r50_fpn_mstrain-poly_3x_coco_20210524_201154-21b550bb.pth",
        0.371,
        0.409,
    ),
    _mmdetection(
        "mask-scoring-rcnn-r50-mmdetection-1x",
        "mask-scoring-rcnn-r50",
        "v2.0/ms_rcnn/ms_rcnn_r50_caffe_fpn_1x_coco",
        "ms_rcnn_r50_caffe_fpn_1x_coco_20200702_180848-61c9355e.pth",
        0.360,
        0.382,
        _D2_PIXELS,
    ),
    _mmdetection(
        "mask-scoring-rcnn-r101-mmdetection-2x",
        "mask-scoring-rcnn-r101",
        "v2.0/ms_rcnn/ms_rcnn_r101_caffe_fpn_2x_coco",
        "ms_rcnn_r101_caffe_fpn_2x_coco_bbox_mAP-0.411__segm_mAP-0.381_20200506_011134-5f3cc74f.pth",
        0.381,
        0.411,
        _D2_PIXELS,
    ),
    Published(
        name="mask-scoring-rcnn-r50-official",
        model="mask-scoring-rcnn-r50",
        url="",
        license="MIT",
        commercial=True,
        mask_ap=0.356,
        origin="maskscoring_rcnn",
        preprocessing=_D2_PIXELS,
        note="linked from the authors' repository zjhuang22/maskscoring_rcnn",
    ),
    _mmdetection(
        "cascade-mask-rcnn-r50-mmdetection-1x",
        "cascade-mask-rcnn-r50",
        "v2.0/cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_coco",
        "cascade_mask_rcnn_r50_fpn_1x_coco_20200203-9d4dcb24.pth",
        0.359,
        0.412,
    ),
    Published(
        name="condinst-r50-adelaidet-3x",
        model="condinst-r50",
        url="https://huggingface.co/tianzhi/AdelaiDet-CondInst/resolve/main/CondInst_MS_R_50_3x.pth",
        license="non-commercial",
        commercial=False,
        mask_ap=0.375,
        origin="adelaidet",
        preprocessing=_D2_PIXELS,
        note="AdelaiDet's CondInst, 3x with large-scale jitter of the short side; academic use only",
    ),
    _mmdetection(
        "condinst-r50-mmdetection-1x",
        "condinst-r50",
        "v3.0/condinst/condinst_r50_fpn_ms-poly-90k_coco_instance",
        "condinst_r50_fpn_ms-poly-90k_coco_instance_20221129_125223-4c186406.pth",
        0.360,
        0.398,
    ),
    Published(
        name="centermask-v39-centermask2",
        model="centermask-v39",
        url="",
        license="CC BY-NC 4.0",
        commercial=False,
        box_ap=0.442,
        mask_ap=0.397,
        origin="centermask2",
        preprocessing=_D2_PIXELS,
        note="linked from the authors' repository youngwanLEE/centermask2 (Dropbox)",
    ),
)
