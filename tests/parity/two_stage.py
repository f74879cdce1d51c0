"""What the parity tests of two-stage families share: mmdetection's recordings all have the same keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskwright.nn.norm import normalize_pixels
from maskwright.structures import Scene
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import Case, Reference, batch, inputs, matched

LEVELS = range(5)
DENSE = {
    "preprocessed",
    *(f"neck_{i}" for i in LEVELS),
    *(f"rpn_{kind}_{i}" for kind in (0, 1) for i in LEVELS),
    *("proposals", "proposal_scores"),
}
FINAL = {"final_boxes", "final_scores", "final_labels", "final_mask_area", "final_masks_first20"}
RPN_LOSSES = {f"train/loss_rpn_{kind}_{i}" for kind in ("cls", "bbox") for i in LEVELS}
ROI_LOSSES = {"train/loss_cls", "train/loss_bbox", "train/loss_mask"}
KEYS = DENSE | FINAL | RPN_LOSSES | ROI_LOSSES | {"train/acc"}
"""``train/acc`` is the share of RoIs that are classified rightly, which we do not report."""


def case(family: str) -> Case:
    """The model that the recognized importer says, with the recording's weights and thresholds."""
    reference = Reference.read(family)
    importer, state = require_importer(reference.state, family), reference.state
    model: Any = build(importer.model(state), importer.taxonomy(state), **importer.options(state))
    assert not [
        name for name in load_state(model, importer.convert(state), source=family).missing if "num_" not in name
    ]
    if "thresholds" in reference.meta:
        about = reference.meta["thresholds"]
        model.score_threshold, model.nms_threshold, model.max_per_image = (
            about[key] for key in ("score", "nms", "detections")
        )
    else:
        about = reference.meta["model_cfg"]["roi_head"]["test_cfg"]
        model.score_threshold, model.max_per_image = about["score_thr"], about["max_per_img"]
        model.nms_threshold = about["nms"]["iou_threshold"]
    return Case(reference, importer, model.eval())


def check_pixels(case: Case) -> None:
    """Normalized and padded pixels, as mmdetection hands them to the body."""
    images, model = inputs(), case.model
    pixels = normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes)
    case.reference.near("preprocessed", pixels, relative=1e-6)


def check_dense(case: Case, names: tuple[str, str, str] = ("neck", "rpn_0", "rpn_1")) -> None:
    """Pyramid, objectness and deltas of each level, recorded as ``{name}_{level}``."""
    for i, maps in enumerate(zip(*case.model.dense(inputs()), strict=True)):
        for name, value in zip(names, maps, strict=True):
            case.reference.near(f"{name}_{i}", value, relative=1e-4)


def check_proposals(case: Case, ours: Tensor, names: tuple[str, str], far_edge: float = 0.0) -> None:
    """Proposals [P, 4] and, by their order, that scores fall as recorded; two may differ at ties of the NMS."""
    boxes, scores = (case.reference.full(name) for name in names)
    got = ours.numpy() - far_edge * np.array([0, 0, 1, 1], np.float32)
    index, gap = matched(boxes, np.zeros(len(boxes)), got, np.zeros(len(got)))
    assert len(got) == pytest.approx(len(boxes), abs=2)
    assert (gap > 1e-2).sum() <= 2
    assert np.diff(scores[np.argsort(index)]).max() <= 1e-3


def check_scene(case: Case, scene: Scene, labels: np.ndarray, scores: np.ndarray, far_edge: float = 0.0) -> None:
    """Final boxes, classes, scores and masks; at most two detections may differ."""
    reference, found = case.reference, scene.objects()
    assert found.boxes is not None
    assert found.scores is not None
    assert found.masks is not None
    boxes = reference.full("final_boxes")
    got = found.boxes.numpy() - far_edge * np.array([0, 0, 1, 1], np.float32)
    index, gap = matched(boxes, labels, got, found.labels.numpy())
    good = gap <= 1e-2
    assert abs(len(found) - len(boxes)) <= 2
    assert (~good).sum() <= 2, f"{(~good).sum()} of {len(boxes)} detections differ, by {np.sort(gap)[-5:]}"
    assert np.abs(found.scores.numpy()[index[good]] - scores[good].clip(0, 1)).max() <= 1e-3
    assert np.all(np.diff(found.scores.numpy()) <= 0)
    area, want = found.masks.area().numpy()[index[good]], reference.full("final_mask_area")[good]
    assert np.all(np.abs(area - want) <= np.maximum(5, 0.005 * want)), np.abs(area - want).max()
    masks = reference.full("final_masks_first20")
    first = np.flatnonzero(good[: len(masks)])
    dense = found.masks[torch.from_numpy(index[first])].dense().numpy()
    assert np.all((dense ^ masks[first]).sum((1, 2)) <= np.maximum(5, 0.005 * masks[first].sum((1, 2))))


def check_final(case: Case, raw: Any) -> None:
    """mmdetection's results, at the picture's original size."""
    reference = case.reference
    geometry = inputs(tuple(reference.meta["input"]["metainfo"]["ori_shape"])).geometry
    scene = case.model.predict(raw, geometry)[0]
    check_scene(case, scene, reference.full("final_labels"), reference.full("final_scores"))


def losses(case: Case) -> dict[str, float]:
    """All losses with every labeled anchor and RoI counted, as the recordings have them."""
    model = case.model
    kept = model.rpn_batch, model.roi_batch
    model.rpn_batch, model.roi_batch = 10**6, 10**5
    data = batch()
    found = model.loss(model(data.inputs, data.truth()), data)
    model.rpn_batch, model.roi_batch = kept
    return {name: float(value) for name, value in found.items()}


def check_losses(case: Case, ours: dict[str, float], names: dict[str, str]) -> None:
    """The RPN's losses, summed over levels, and those of ``names``: ours to theirs."""
    for name, theirs in (("rpn_class", "cls"), ("rpn_box", "bbox")):
        wanted = sum(float(case.reference.full(f"train/loss_rpn_{theirs}_{i}")) for i in LEVELS)
        assert ours[name] == pytest.approx(wanted, rel=1e-4), name
    for name, theirs in names.items():
        assert ours[name] == pytest.approx(float(case.reference.full(f"train/{theirs}").sum()), rel=1e-4), name
