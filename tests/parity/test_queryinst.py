"""mmdetection's QueryInst through the importer that users run, stage by stage."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.models.queryinst import QueryInst
from maskwright.nn.norm import normalize_pixels
from maskwright.weights.importers import recognize
from maskwright.weights.mmdetection_queryinst import MMDetectionQueryInst
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import Case, Reference, batch, inputs, matched, recipe
from tests.shared import shared

FAMILY = "mmdet_queryinst_r50"
STAGES = range(6)
LOSSES = {
    f"{ours}_{i}": f"train/s{i}.loss_{theirs}"
    for i in STAGES
    for ours, theirs in (("class", "cls"), ("box", "bbox"), ("iou", "iou"), ("mask", "mask"))
}


def read() -> Reference:
    """The recording; its first boxes were left at what the constructor makes them, the whole picture."""
    meta = json.loads(gzip.decompress(shared(f"parity/{FAMILY}.json.gz").read_bytes()))
    with np.load(shared(f"parity/{FAMILY}.npz")) as stored:
        arrays = {name: stored[name] for name in stored.files}
    filled = recipe().fill(meta["parameters"], meta["spec"])
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in filled.items()}
    assert meta["kept"] == ["rpn_head.init_proposal_bboxes.weight"]
    state[meta["kept"][0]] = torch.tensor([[0.5, 0.5, 1.0, 1.0]]).repeat(100, 1)
    return Reference(FAMILY, meta, arrays, state)


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    reference = read()
    importer, state = recognize(reference.state), reference.state
    assert isinstance(importer, MMDetectionQueryInst)
    model: Any = build(importer.model(state), importer.taxonomy(state), **importer.options(state))
    report = load_state(model, importer.convert(state), source=FAMILY)
    assert all(name.endswith("num_batches_tracked") for name in report.missing)
    model.max_per_image = reference.meta["model_cfg"]["test_cfg"]["rcnn"]["max_per_img"]
    with torch.no_grad():
        yield Case(reference, importer, model.eval())


def test_every_recorded_key_is_tested(case: Case) -> None:
    dense = {"preprocessed", *(f"neck_{i}" for i in range(4))}
    final = {"final_boxes", "final_scores", "final_labels", "final_mask_area", "final_masks_first20"}
    shares = {f"train/s{i}.pos_acc" for i in STAGES}  # of rightly classified objects, which we do not report
    assert set(case.reference.meta["arrays"]) == dense | final | shares | set(LOSSES.values())


def test_the_importer_builds_what_was_recorded(case: Case) -> None:
    assert type(case.model) is QueryInst
    assert case.importer.model(case.reference.state) == "queryinst-r50"
    head = case.reference.meta["model_cfg"]["roi_head"]
    assert case.importer.options(case.reference.state)["stages"] == head["num_stages"]
    for family in ("mmdet_cascade_mask_rcnn_r50", "mmdet_mask_rcnn_r50"):
        assert not case.importer.recognizes(Reference.read(family).state)


def test_pixels_and_pyramid(case: Case) -> None:
    images, model = inputs(), case.model
    pixels = normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes)
    case.reference.near("preprocessed", pixels, relative=1e-6)
    for i, level in enumerate(model.dense(images)):
        case.reference.near(f"neck_{i}", level, relative=1e-4)


def test_detections(case: Case) -> None:
    reference = case.reference
    size = tuple(reference.meta["input"]["metainfo"]["ori_shape"])
    found = case.model.predict(case.model(inputs()), inputs(size).geometry)[0].objects().validate(80)
    # recorded boxes reach beyond the picture, ours are clipped once their masks are drawn
    boxes = reference.full("final_boxes").clip(0, np.array([size[1], size[0]] * 2, np.float32))
    index, gap = matched(boxes, reference.full("final_labels"), found.boxes.numpy(), found.labels.numpy())
    assert len(found) == len(boxes)
    assert gap.max() <= 1e-2
    # many boxes are the whole picture, so that scores are compared in their order
    assert np.abs(found.scores.numpy() - np.sort(reference.full("final_scores"))[::-1]).max() <= 1e-4
    order = np.argsort(-reference.full("final_scores"), kind="stable")
    area, want = found.masks.area().numpy(), reference.full("final_mask_area")[order]
    assert (np.abs(area - want) > np.maximum(5, 0.005 * want)).sum() <= 2  # two of equal score may change places
    masks = reference.full("final_masks_first20")
    rank = np.argsort(order)[: len(masks)]
    different = (found.masks[torch.from_numpy(rank)].dense().numpy() ^ masks).sum((1, 2))
    assert (different > np.maximum(5, 0.005 * masks.sum((1, 2)))).sum() <= 2, different
    assert len(index) == len(boxes)


def test_losses(case: Case) -> None:
    data = batch()
    ours = case.model.loss(case.model(data.inputs, data.truth()), data)
    assert set(ours) == set(LOSSES)
    for name, theirs in LOSSES.items():
        assert float(ours[name]) == pytest.approx(float(case.reference.full(theirs)), rel=1e-4), name
