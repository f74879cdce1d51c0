"""torchvision's Mask R-CNN, version 1 and 2, through the importer that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from maskwright.infer.predictor import predict
from maskwright.models.mask_rcnn import Raw
from maskwright.nn.norm import normalize_pixels
from maskwright.structures import Resize, Scene
from tests.parity.harness import Case, batch, check_detections, inputs, matched, picture

FAMILIES = ("torchvision_maskrcnn_r50_fpn", "torchvision_maskrcnn_r50_fpn_v2")

LEVELS = ("0", "1", "2", "3", "pool")
FINAL = ("boxes", "scores", "labels", "mask_prob", "mask_area", "masks_first20")
LOSSES = {"classifier": "class", "box_reg": "box", "mask": "mask", "objectness": "rpn_class", "rpn_box_reg": "rpn_box"}
# Every recorded key is read by a test below; a new one must be added here and there.
KEYS = {
    *("preprocessed", "proposal_boxes", "box_roi_feat", "box_head_out", "cls_logits", "box_deltas"),
    *(f"feat_{level}" for level in LEVELS),
    *(f"rpn_{kind}_{level}" for kind in ("obj", "delta") for level in range(5)),
    *(f"{prefix}_{name}" for prefix in ("final", "resized_final") for name in FINAL),
    *(f"train/loss_{name}" for name in LOSSES),
}


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with torch.no_grad():
        yield Case.make(request.param)


@pytest.fixture(scope="module")
def dense(case: Case) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    return case.model.dense(inputs())


@pytest.fixture(scope="module")
def raw(case: Case) -> Raw:
    return case.model(inputs())


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS


def test_pixels_pyramid_and_rpn(case: Case, dense: tuple[list[Tensor], list[Tensor], list[Tensor]]) -> None:
    model, reference = case.model, case.reference
    images = inputs()
    pixels = normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes)
    reference.near("preprocessed", pixels, relative=1e-6)
    for i, (level, feature, objectness, deltas) in enumerate(zip(LEVELS, *dense, strict=True)):
        reference.near(f"feat_{level}", feature, relative=1e-4)
        reference.near(f"rpn_obj_{i}", objectness, absolute=1e-3)
        reference.near(f"rpn_delta_{i}", deltas, absolute=1e-3)


def test_proposals(case: Case, raw: Raw) -> None:
    boxes = case.reference.full("proposal_boxes")
    ours = raw.proposals[0].numpy()
    _, gap = matched(boxes, np.zeros(len(boxes)), ours, np.zeros(len(ours)))
    assert len(ours) == pytest.approx(len(boxes), abs=2)
    assert (gap > 1e-2).sum() <= 2


def test_heads_on_the_recorded_proposals(case: Case, dense: tuple[list[Tensor], list[Tensor], list[Tensor]]) -> None:
    model, reference = case.model, case.reference
    pooled = model.pool(dense[0], [torch.from_numpy(reference.full("proposal_boxes"))], model.box_size)
    reference.near("box_roi_feat", pooled, relative=1e-4)
    hidden: list[Tensor] = []
    hook = model.box_head.class_logits.register_forward_hook(lambda _module, args, _out: hidden.append(args[0]))
    logits, deltas = model.box_head(pooled)
    hook.remove()
    reference.near("box_head_out", hidden[0], relative=1e-4)
    reference.near("cls_logits", logits.roll(1, 1), absolute=1e-3)  # theirs have the background first
    unread = torch.full((len(deltas), 4), torch.nan)  # boxes of the background: no one reads them, ours are gone
    reference.near("box_deltas", torch.cat([unread, deltas], 1), absolute=1e-3)


def check_probabilities(case: Case, scene: Scene, prefix: str, labels: np.ndarray) -> None:
    """Our masks are the recorded probabilities above one half, wherever those are not just there."""
    found, key = scene.objects(), f"{prefix}_mask_prob"
    assert found.boxes is not None
    assert found.masks is not None
    boxes = case.reference.full(f"{prefix}_boxes")
    index, gap = matched(boxes, labels, found.boxes.numpy(), found.labels.numpy())
    dense = np.full(case.reference.shape(key), np.nan, np.float32)
    good = gap <= 1e-2
    dense[good] = found.masks[torch.from_numpy(index[good])].dense().numpy()
    ours, want = case.reference.pair(key, dense)
    clear = (np.abs(want - 0.5) > 5e-3) & ~np.isnan(ours)
    assert clear.mean() > 0.9
    assert ((ours > 0) != (want > 0.5))[clear].sum() <= 1


def test_detections(case: Case, raw: Raw) -> None:
    scene = case.model.predict(raw, inputs().geometry)[0]
    labels = case.reference.full("final_labels") - 1
    check_detections(case, scene, labels=labels)
    check_probabilities(case, scene, "final", labels)


def test_detections_after_resizing(case: Case) -> None:
    about = case.reference.meta["resized"]
    resize = Resize(short=about["min_size"], long=about["max_size"], antialias=False)
    assert list(resize.target((250, 310))) == about["image_size"]
    scene = predict(case.model, picture(), resize=resize, precision="32")
    assert isinstance(scene, Scene)
    labels = case.reference.full("resized_final_labels") - 1
    check_detections(case, scene, "resized_final", labels)
    check_probabilities(case, scene, "resized_final", labels)


def test_losses(case: Case) -> None:
    model, data = case.model, batch()
    kept = model.rpn_batch, model.roi_batch
    model.rpn_batch, model.roi_batch = 10**6, 10**5
    losses = model.loss(model(data.inputs, data.truth()), data)
    model.rpn_batch, model.roi_batch = kept
    for theirs, ours in LOSSES.items():
        want = float(case.reference.full(f"train/loss_{theirs}"))
        assert float(losses[ours]) == pytest.approx(want, rel=1e-4), theirs
