"""CenterMask2 through the importer that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.models.centermask import Raw, Rois
from maskwright.nn.norm import normalize_pixels
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import Case, Reference, inputs, matched

LEVELS = ("p3", "p4", "p5", "p6", "p7")
BODIES = {"centermask2_r50": ("res3", "res4", "res5"), "centermask2_v39": ("stage3", "stage4", "stage5")}
# Every recorded key is read by a test below; a new one must be added here and there.
KEYS = {
    *(f"{kind}_{level}" for kind in ("feat", "cls", "reg", "ctr") for level in LEVELS),
    *("det_boxes", "det_scores", "det_classes", "roi_pred_masks", "mask_scores"),
    *("final_boxes", "final_scores", "final_mask_area", "final_masks_first20", "final_mask_scores"),
}


@pytest.fixture(scope="module", params=sorted(BODIES))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    reference = Reference.read(request.param)
    importer = require_importer(reference.state, request.param)
    options = importer.options(reference.state)
    with torch.no_grad():
        model: Any = build(importer.model(reference.state), importer.taxonomy(reference.state), **options)
        assert load_state(model, importer.convert(reference.state), source=request.param).complete
        fcos = reference.meta["fcos"]
        model.score_threshold, model.nms_threshold = fcos["INFERENCE_TH_TEST"], fcos["NMS_TH"]
        model.max_per_image, model.pre_nms = fcos["POST_NMS_TOPK_TEST"], fcos["PRE_NMS_TOPK_TEST"]
        yield Case(reference, importer, model.eval())


@pytest.fixture(scope="module")
def raw(case: Case) -> Raw:
    return case.model(inputs())


def test_every_recorded_key_is_tested(case: Case) -> None:
    body = {f"feat_{name}" for name in BODIES[case.reference.family]}
    assert set(case.reference.meta["arrays"]) == KEYS | body


def test_body_pyramid_and_heads(case: Case, raw: Raw) -> None:
    model, reference, images = case.model, case.reference, inputs()
    pixels = normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes)
    for name, value in zip(BODIES[reference.family], model.backbone(pixels), strict=True):
        reference.near(f"feat_{name}", value, relative=1e-4)
    for i, (level, feature) in enumerate(zip(LEVELS, model.features(images), strict=True)):
        reference.near(f"feat_{level}", feature, relative=1e-4)
        reference.near(f"cls_{level}", raw.maps.classes[i], relative=1e-4)
        reference.near(f"reg_{level}", raw.maps.distances[i], relative=1e-4)
        reference.near(f"ctr_{level}", raw.maps.centerness[i], relative=1e-4)


def test_heads_on_the_recorded_detections(case: Case) -> None:
    model, reference, images = case.model, case.reference, inputs()
    boxes, classes = (torch.from_numpy(reference.full(key)) for key in ("det_boxes", "det_classes"))
    pooled = model.pool(model.features(images), [Rois(boxes, classes, classes)], images)
    rows = torch.arange(len(classes))
    logits = model.mask_head(pooled)[rows, classes]
    reference.near("roi_pred_masks", logits.sigmoid()[:, None], absolute=1e-3)
    scores = torch.from_numpy(reference.full("det_scores")) * model.iou_head(pooled, logits)[rows, classes]
    reference.near("mask_scores", scores, absolute=1e-3)


def test_detections(case: Case, raw: Raw) -> None:
    reference = case.reference
    assert raw.detections is not None
    found = raw.detections[0]
    boxes, classes = reference.full("det_boxes"), reference.full("det_classes")
    index, gap = matched(boxes, classes, found.boxes.numpy(), found.labels.numpy())
    good = gap <= 1e-2
    assert (~good).sum() <= 2
    assert np.abs(found.scores.numpy()[index[good]] - reference.full("det_scores")[good]).max() <= 1e-3
    scores = case.model.mask_scores(raw).numpy()
    assert np.abs(scores[index[good]] - reference.full("mask_scores")[good]).max() <= 1e-3


def test_final_objects(case: Case, raw: Raw) -> None:
    """Recorded by falling class score; ours are by falling mask score, cut to [0, 1]."""
    reference = case.reference
    size = tuple(reference.meta["input"]["output_size"])
    found = case.model.predict(raw, inputs(size).geometry)[0].objects()
    boxes = reference.full("final_boxes")
    index, gap = matched(boxes, reference.full("det_classes"), found.boxes.numpy(), found.labels.numpy())
    good = gap <= 1e-2
    assert (~good).sum() <= 2
    assert len(found) == pytest.approx(len(boxes), abs=2)
    want = reference.full("final_mask_scores")[good].clip(0, 1)
    assert np.abs(found.scores.numpy()[index[good]] - want).max() <= 1e-3
    assert (found.scores.diff() <= 0).all()
    assert np.array_equal(reference.full("final_scores"), reference.full("det_scores"))
    area, want = found.masks.area().numpy()[index[good]], reference.full("final_mask_area")[good]
    assert np.all(np.abs(area - want) <= np.maximum(5, 0.005 * want))
    masks = reference.full("final_masks_first20")
    first = np.flatnonzero(good[: len(masks)])
    dense = found.masks[torch.from_numpy(index[first])].dense().numpy()
    union, both = (dense | masks[first]).sum((1, 2)), (dense & masks[first]).sum((1, 2))
    assert np.all(both >= 0.995 * union - 3)
