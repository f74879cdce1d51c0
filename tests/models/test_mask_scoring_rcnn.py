"""Mask Scoring R-CNN: what its MaskIoU head learns, and what its scores are, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maskwright.models.mask_scoring_rcnn import MaskScoringRCNN, mask_scoring_rcnn_r50
from maskwright.models.parts.two_stage import Truth
from maskwright.nn.heads.mask_iou import MaskIoUHead, mask_iou_sum, mask_iou_targets
from maskwright.nn.heads.roi_box import Detections
from maskwright.nn.heads.roi_sampling import Samples
from maskwright.structures import Taxonomy
from tests.models.test_mask_rcnn import batch

LOSSES = {"rpn_class", "rpn_box", "class", "box", "mask", "mask_iou"}
NUMBERS = {"channels": 8, "mask_width": 8, "box_hidden": 16, "iou_width": 8, "iou_hidden": 16, "roi_batch": 16}


def tiny(**options: Any) -> MaskScoringRCNN:
    torch.manual_seed(0)
    return mask_scoring_rcnn_r50(Taxonomy(names=("disc", "square")), rpn_batch=32, **{**NUMBERS, **options})


# ---- the head -------------------------------------------------------------------------------------------------------


def test_the_mask_is_one_more_channel() -> None:
    head = MaskIoUHead(4, 6, 3, width=8, hidden=10)
    seen: list[Tensor] = []
    head.convs[0].register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    features, logits = torch.randn(2, 4, 6, 6), torch.randn(2, 12, 12)
    assert head(features, logits).shape == (2, 3)
    assert torch.equal(seen[0][:, :4], features)
    wanted = logits.sigmoid().unfold(1, 2, 2).unfold(2, 2, 2).amax((-1, -2))
    assert torch.equal(seen[0][:, 4], wanted)
    assert head(features[:0], logits[:0]).shape == (0, 3)


def test_a_perfect_mask_of_a_whole_object_has_iou_1() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, 2:6, 2:6] = 1
    logits = 10 * (target - 0.5)
    assert mask_iou_targets(logits, target, torch.ones(1)).item() == pytest.approx(1)
    # half of the object lies outside of the box: the mask cannot have that half
    assert mask_iou_targets(logits, target, torch.full((1,), 0.5)).item() == pytest.approx(0.5)
    assert mask_iou_targets(-logits.abs(), target, torch.ones(1)).item() == 0
    assert mask_iou_targets(-logits.abs(), 0 * target, torch.zeros(1)).item() == 0


def test_masks_that_miss_their_object_do_not_count() -> None:
    predicted = torch.tensor([0.5, 0.9], requires_grad=True)
    total, count = mask_iou_sum(predicted, torch.tensor([0.0, 0.5]))
    total.backward()
    assert total.item() == pytest.approx(0.5 * 0.4**2)
    assert int(count) == 1
    assert predicted.grad is not None
    assert predicted.grad[0] == 0
    none, count = mask_iou_sum(torch.zeros(0, requires_grad=True), torch.zeros(0))
    none.backward()
    assert int(count) == 0


# ---- the model ------------------------------------------------------------------------------------------------------


def test_shares_of_objects_within_rois() -> None:
    model, truth = tiny(), Truth.of(batch(1), torch.device("cpu"))
    mask = truth.objects[0].masks
    assert mask is not None
    dense = mask.dense()[0]
    boxes = torch.tensor([[8.0, 10.0, 40.0, 40.0], [8.0, 10.0, 24.9, 40.0], [50.0, 50.0, 60.0, 60.0]])
    sample = Samples(boxes, torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.int64), torch.ones(3))
    empty = Samples(boxes[:0], boxes[:0, 0].long(), boxes[:0, 0].long(), boxes[:0, 0])
    shares = model.shares_inside([sample, empty], truth)
    wanted = [1.0, float(dense[10:40, 8:24].sum() / dense.sum()), 0.0]
    assert shares.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("objects", [0, 2])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model, data = tiny().train(), batch(objects)
    raw = model(data.inputs, data.truth())
    losses = model.loss(raw, data)
    assert set(losses) == LOSSES == set(model.loss_counts(raw, data))
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_the_iou_of_the_true_class_is_learned() -> None:
    model, data = tiny().train(), batch()
    raw = model(data.inputs, data.truth())
    labels = torch.cat([s.labels for s in raw.samples])
    labels = labels[labels < 2]
    before = model.loss(raw, data)["mask_iou"]
    raw.mask_ious = raw.mask_ious.detach().clone()
    raw.mask_ious[torch.arange(len(labels)), 1 - labels] += 7.0
    assert torch.allclose(model.loss(raw, data)["mask_iou"], before)
    model.iou_classes = "all"
    assert model.loss(raw, data)["mask_iou"] >= 0


@pytest.mark.parametrize(
    "options",
    [
        {"iou_design": "multiply"},
        {"iou_design": "all"},
        {"iou_design": "fine"},
        {"iou_classes": "all"},
        {"iou_inputs_detached": True},
        {"agnostic_mask": True},
        {"convention": "maskrcnn-benchmark", "anchor_border": 0.0},
        {"convention": "mmdetection"},
    ],
)
def test_options_learn_and_predict(options: dict[str, Any]) -> None:
    model, data = tiny(**options).train(), batch()
    losses = model.loss(model(data.inputs, data.truth()), data)
    assert all(torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    model.eval().score_threshold = 0.0
    with torch.no_grad():
        scenes = model.predict(model(data.inputs), data.inputs.geometry)
    assert all(len(s.objects().validate(classes=2)) for s in scenes)


def test_results_are_ranked_by_class_score_times_iou() -> None:
    model, data = tiny().eval(), batch()
    model.score_threshold = 0.0
    with torch.no_grad():
        raw = model(data.inputs)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(4, 1) + torch.arange(4)[:, None]
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 0, 1]))
    raw.detections = [found, Detections(boxes[:0], boxes[:0, 0], boxes[:0, 0].long())]
    raw.mask_logits = torch.full((4, 2, 28, 28), 5.0)
    raw.mask_ious = torch.tensor([[0.5, 9.0], [9.0, 1.0], [2.0, 9.0], [9.0, -1.0]])
    assert model.scores(raw)[0].tolist() == pytest.approx([0.45, 0.8, 1.4, -0.6])
    objects = model.predict(raw, data.inputs.geometry)[0].objects()
    assert objects.boxes[:, 0].tolist() == [2, 1, 0, 3]
    assert objects.scores.tolist() == pytest.approx([1.0, 0.8, 0.45, 0.0])


def test_a_loss_without_scenes_is_refused() -> None:
    model, data = tiny().eval(), batch()
    with pytest.raises(ValueError, match="forward\\(inputs, scenes\\)"):
        model.loss(model(data.inputs), data)
    with pytest.raises(ValueError, match="forward\\(inputs\\)"):
        model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
