"""Mask Scoring R-CNN, the authors' and mmdetection's, through the importers that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.models.mask_scoring_rcnn import MaskScoringRCNN
from maskwright.zoo import load
from tests.parity import two_stage
from tests.parity.harness import Case, inputs, matched

LOSSES = {"class": "loss_cls", "box": "loss_bbox", "mask": "loss_mask", "mask_iou": "loss_mask_iou"}
DETECTIONS = {"det_boxes", "det_labels", "det_scores", "det_mask", "det_mask_scores"}
OFFICIAL = {
    *(f"{kind}_{i}" for kind in ("fpn", "rpn_obj", "rpn_reg") for i in two_stage.LEVELS),
    *("proposal_boxes", "proposal_objectness", "final_boxes", "final_mask_area", "final_masks_first20"),
    *DETECTIONS,
}
EDGE = torch.tensor([0.0, 0.0, 1.0, 1.0])
"""maskrcnn-benchmark's boxes end with their last pixel; ours behind it."""


@pytest.fixture(scope="module")
def official() -> Iterator[Case]:
    with torch.no_grad():
        yield two_stage.case("msrcnn_official_r50_fpn")


@pytest.fixture(scope="module")
def official_raw(official: Case) -> Any:
    return official.model(inputs())


@pytest.fixture(scope="module")
def mmdet() -> Iterator[Case]:
    with torch.no_grad():
        yield two_stage.case("mmdet_ms_rcnn_r50")


# ---- the authors' ---------------------------------------------------------------------------------------------------


def test_every_recorded_key_of_the_authors_is_tested(official: Case) -> None:
    assert set(official.reference.meta["arrays"]) == OFFICIAL


def test_official_anchors(official: Case) -> None:
    """The rounded ones of Faster R-CNN's first code, around the middle of a cell."""
    assert type(official.model) is MaskScoringRCNN
    assert (official.model.cells[0] - EDGE).tolist() == [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]]


def test_official_pyramid_and_rpn(official: Case) -> None:
    two_stage.check_dense(official, ("fpn", "rpn_obj", "rpn_reg"))


def test_official_proposals(official: Case, official_raw: Any) -> None:
    two_stage.check_proposals(official, official_raw.proposals[0], ("proposal_boxes", "proposal_objectness"), 1.0)


def test_official_detections(official: Case, official_raw: Any) -> None:
    reference, found = official.reference, official_raw.detections[0]
    labels = reference.full("det_labels") - 1  # background is theirs first
    boxes = (found.boxes - EDGE).numpy()
    index, gap = matched(reference.full("det_boxes"), labels, boxes, found.labels.numpy())
    good = gap <= 1e-2
    assert (~good).sum() <= 2
    for key, ours in (("det_scores", found.scores), ("det_mask_scores", official.model.scores(official_raw)[0])):
        assert np.abs(ours.numpy()[index[good]] - reference.full(key)[good]).max() <= 1e-3
    geometry = inputs(tuple(reference.meta["input"]["output_size"])).geometry
    scene = official.model.predict(official_raw, geometry)[0]
    two_stage.check_scene(official, scene, labels, reference.full("det_mask_scores"), 1.0)


def test_official_masks_and_ious_of_the_recorded_boxes(official: Case) -> None:
    model, reference = official.model, official.reference
    boxes = torch.from_numpy(reference.full("det_boxes")) + EDGE
    labels = torch.from_numpy(reference.full("det_labels")) - 1
    logits, ious = model.masks(model.dense(inputs())[0], [boxes], labels)
    reference.near("det_mask", model.chosen(logits, labels)[:, None].sigmoid(), absolute=1e-3)
    scores = torch.from_numpy(reference.full("det_scores")) * ious[torch.arange(len(labels)), labels]
    reference.near("det_mask_scores", scores, absolute=1e-3)


def test_official_files_are_recognized(official: Case, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in official.reference.state.items()}
    torch.save({"model": state, "iteration": 7}, tmp_path / "model_final.pth")
    model: Any = load("mask-scoring-rcnn-r50", weights=tmp_path / "model_final.pth")
    wanted = official.model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    assert model.convention == official.model.convention


# ---- mmdetection's --------------------------------------------------------------------------------------------------


def test_every_recorded_key_of_mmdetection_is_tested(mmdet: Case) -> None:
    assert set(mmdet.reference.meta["arrays"]) == two_stage.KEYS | {"train/loss_mask_iou"}


def test_mmdetections_pixels_pyramid_and_rpn(mmdet: Case) -> None:
    assert type(mmdet.model) is MaskScoringRCNN
    two_stage.check_pixels(mmdet)
    two_stage.check_dense(mmdet)


def test_mmdetections_proposals_and_detections(mmdet: Case) -> None:
    raw = mmdet.model(inputs())
    two_stage.check_proposals(mmdet, raw.proposals[0], ("proposals", "proposal_scores"))
    two_stage.check_final(mmdet, raw)
    # before they are clamped
    scores, wanted = np.sort(mmdet.model.scores(raw)[0].numpy()), np.sort(mmdet.reference.full("final_scores"))
    assert np.abs(scores - wanted).max() <= 1e-3


def test_mmdetections_losses(mmdet: Case) -> None:
    two_stage.check_losses(mmdet, two_stage.losses(mmdet), LOSSES)


def test_caffe_bodies_are_told_by_their_frozen_norms(mmdet: Case) -> None:
    state = dict(mmdet.reference.state)
    assert mmdet.importer.options(state)["stride_in_1x1"] is False
    for name in state:
        if name.startswith("backbone.") and name.endswith("running_mean"):
            state[name] = torch.zeros_like(state[name])
    options, out = mmdet.importer.options(state), mmdet.importer.convert(state)
    assert options["stride_in_1x1"] is True
    assert options["pixel_std"] == (1.0, 1.0, 1.0)
    assert torch.equal(out["backbone.body.conv1.weight"].flip(1), state["backbone.conv1.weight"])
