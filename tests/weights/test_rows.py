"""The rows' models: what the importers say of each origin's names, as the recorded references have them."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest
import torch

from maskwright.weights.importers import require_importer
from maskwright.weights.table import find, published
from tests.shared import shared

_SAME_NAMES = {
    "hf_segformer_b0.json": "segformer-b0-hub-ade20k",
    "d2_mask_rcnn_r50_fpn.json": "mask-rcnn-r50-detectron2-3x",
    "d2_mask_rcnn_r101_fpn.json": "mask-rcnn-r101-detectron2-3x",
    "torchvision_maskrcnn_r50_fpn.json": "mask-rcnn-r50-torchvision-v1",
    "torchvision_maskrcnn_r50_fpn_v2.json": "mask-rcnn-r50-torchvision-v2",
    "mmdet_mask_rcnn_r50.json": "mask-rcnn-r50-mmdetection-3x",
    "mmdet_ms_rcnn_r50.json": "mask-scoring-rcnn-r50-mmdetection-1x",
    "msrcnn_official_r50_fpn.json": "mask-scoring-rcnn-r50-official",
    "mmdet_cascade_mask_rcnn_r50.json": "cascade-mask-rcnn-r50-mmdetection-1x",
    "d2_panoptic_deeplab_r52.json": "panoptic-deeplab-r52-detectron2",
    "d2_pointrend_r50_fpn.json": "pointrend-r50-detectron2-3x",
    "mmdet_queryinst_r50.json.gz": "queryinst-r50-mmdetection-1x",
    "mmdet_solo_r50.json": "solo-r50-mmdetection-1x",
    "mmdet_decoupled_solo_r50.json": "solo-decoupled-r50-mmdetection-1x",
    "mmdet_solov2_r50.json": "solov2-r50-mmdetection-1x",
    "adet_solov2_r50.json": "solov2-r50-adelaidet-3x",
    "yolact_r50.json": "yolact-r50-official",
    "mmdet_yolact_r50.json": "yolact-r50-mmdetection",
    "mmdet_rtmdet_ins_tiny.json": "rtmdet-ins-tiny-mmdetection",
    "adet_condinst_r50.json": "condinst-r50-adelaidet-3x",
    "mmdet_condinst_r50.json": "condinst-r50-mmdetection-1x",
    "centermask2_v39.json": "centermask-v39-centermask2",
    "detr_r50.json": "detr-r50-official",
    "detr_r50_panoptic.json": "detr-panoptic-r50-official",
    "d2_panoptic_fpn_r50.json": "panoptic-fpn-r50-detectron2-3x",
    "maskformer_official_r50_panoptic.json": "maskformer-r50-official",
    "maskformer_official_swin_tiny_panoptic.json": "maskformer-swin-t-official",
    "m2f_official_r50_panoptic.json.gz": "mask2former-panoptic-r50-official",
    "m2f_official_swin_tiny_panoptic.json": "mask2former-panoptic-swin-t-official",
    "hf_mask2former_swin_tiny.json.gz": "mask2former-panoptic-swin-t-hub",
}
"""A reference with the names of the origin, and a row whose file has the same names and sizes."""


def _names(reference: str) -> dict[str, Any]:
    """The reference's names with tensors of its sizes, which take no memory."""
    content = shared(f"parity/{reference}").read_bytes()
    known = json.loads(gzip.decompress(content) if reference.endswith(".gz") else content)["parameters"]
    return {name: torch.zeros(()).expand(shape) for name, (_, shape) in known.items()}


@pytest.mark.parametrize(("reference", "row"), _SAME_NAMES.items())
def test_the_importer_says_the_rows_model(reference: str, row: str) -> None:
    state = _names(reference)
    importer = require_importer(state, reference)
    assert importer.model(state) == find(row).model
    assert len(importer.taxonomy(state)) in (19, 80, 90, 91, 133, 150, 250)


def test_addresses_are_distinct_and_whole() -> None:
    urls = [row.url for row in published() if row.url]
    assert len(set(urls)) == len(urls)
    assert all(
        re.fullmatch(r"https://[\w./+-]+\.(pth|pkl|bin|safetensors)|package:\w+\.safetensors", url) for url in urls
    )


def test_every_row_has_a_figure_or_says_where_to_look() -> None:
    for row in published():
        figures = (row.mask_ap, row.box_ap, row.pq, row.miou)
        assert any(figures) or " AP " in row.note, row.name
        assert all(value is None or 0.15 < value < 0.9 for value in figures), row.name


def test_licenses_by_origin() -> None:
    for row in published():
        if row.origin in ("adelaidet", "centermask2", "maskformer", "mask2former", "hub facebook", "hub nvidia"):
            assert row.commercial is False, row.name
        if row.origin == "mmdetection":
            assert row.commercial is None, row.name


@pytest.mark.parametrize(
    ("name", "end", "begin"),
    [
        ("solov2-light-r18-mmdetection-3x", "solov2_light_r18_fpn_3x_coco_20220511_083717-75fa355b.pth", "75fa355b"),
        ("mask-scoring-rcnn-r101-mmdetection-2x", "_20200506_011134-5f3cc74f.pth", "5f3cc74f"),
        ("detr-panoptic-r101-official", "/detr/detr-r101-panoptic-40021d53.pth", "40021d53"),
        ("pointrend-x101-detectron2-3x", "X_101_32x8d_FPN_3x_coco/28119989/model_final_ba17b9.pkl", None),
    ],
)
def test_addresses_and_hashes(name: str, end: str, begin: str | None) -> None:
    row = find(name)
    assert row.url.endswith(end)
    assert row.sha256 == begin
