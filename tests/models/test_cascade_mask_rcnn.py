"""Cascade Mask R-CNN: what its stages promise, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskwright.models.cascade_mask_rcnn import CascadeMaskRCNN, cascade_mask_rcnn_r50
from maskwright.ops.boxes import iou
from maskwright.structures import Taxonomy
from tests.models.test_mask_rcnn import batch

NUMBERS = {"channels": 8, "mask_width": 8, "box_hidden": 16, "roi_batch": 16, "rpn_batch": 32}
LOSSES = {"rpn_class", "rpn_box", *(f"{kind}_{stage}" for kind in ("class", "box", "mask") for stage in range(3))}


def tiny(**options: Any) -> CascadeMaskRCNN:
    torch.manual_seed(0)
    return cascade_mask_rcnn_r50(Taxonomy(names=("disc", "square")), **{**NUMBERS, **options})


@pytest.mark.parametrize("objects", [0, 2])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model, data = tiny().train(), batch(objects)
    raw = model(data.inputs, data.truth())
    losses = model.loss(raw, data)
    assert set(losses) == LOSSES == set(model.loss_counts(raw, data))
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_each_stage_asks_for_more_overlap() -> None:
    model, data = tiny().eval(), batch(1)
    truth = data.truth()[0].objects().boxes
    assert truth is not None
    shifts = torch.arange(0, 12, 0.25)[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])
    moved = truth + shifts
    overlap = torch.cat([iou(truth, moved)[0], torch.ones(1)])
    for stage, least in enumerate((0.5, 0.6, 0.7)):
        model.roi_batch, model.roi_positive = 1000, 1.0
        drawn = model.sample([], 0, moved, data.truth()[0], stage)
        assert int((drawn.labels == 0).sum()) == int((overlap >= least).sum())


def test_the_truths_own_boxes_do_not_pass_on_to_the_next_stage() -> None:
    model, data = tiny(roi_batch=10_000, rpn_batch=64).eval(), batch(2)
    with torch.no_grad():
        raw = model(data.inputs, data.truth())
    counts = [[len(s.labels) for s in stage] for stage in raw.samples]
    assert counts[0] == counts[1] == counts[2]
    assert all(int(s.given.sum()) == 2 for stage in raw.samples for s in stage)


def test_boxes_are_refined_without_a_gradient() -> None:
    model, data = tiny().train(), batch(2)
    raw = model(data.inputs, data.truth())
    assert not any(s.boxes.requires_grad for stage in raw.samples for s in stage)
    assert not torch.equal(raw.samples[0][0].boxes, raw.samples[1][0].boxes)


def test_stage_factors_scale_each_stage() -> None:
    data, everything = batch(), {"roi_batch": 10_000, "rpn_batch": 100_000}
    plain = tiny(**everything).eval()
    other = tiny(**everything, stage_loss_weights=(1.0, 1.0, 0.0), loss_weights={"class_1": 2.0}).eval()
    other.load_state_dict(plain.state_dict())
    one, two = (m.loss(m(data.inputs, data.truth()), data) for m in (plain, other))
    assert torch.allclose(two["class_0"], one["class_0"])
    assert torch.allclose(two["class_1"], 4 * one["class_1"])
    assert two["mask_2"] == 0


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_stages_are_averaged(average: Any) -> None:
    model = tiny(average=average)
    logits = [torch.randn(5, 3) for _ in range(3)]
    wanted = torch.stack(logits).mean(0).softmax(-1)
    if average == "probabilities":
        wanted = torch.stack([each.softmax(-1) for each in logits]).mean(0)
    assert torch.allclose(model.averaged(logits).softmax(-1), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"mask_stages": (2,)},
        {"agnostic_box": False},
        {"agnostic_mask": True, "average": "probabilities"},
        {"roi_sampling": "hard", "box_head": "conv4_fc1"},
        {"convention": "detectron2", "anchor_border": None},
        {
            "stages": 2,
            "mask_stages": (0, 1),
            "overlaps": (0.5, 0.6),
            "stage_weights": ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0)),
            "stage_loss_weights": (1.0, 0.5),
        },
    ],
)
def test_options_learn_and_predict(options: dict[str, Any]) -> None:
    model, data = tiny(**options).train(), batch()
    sum(model.loss(model(data.inputs, data.truth()), data).values()).backward()
    model.eval().score_threshold = 0.0
    with torch.no_grad():
        scenes = model.predict(model(data.inputs), data.inputs.geometry)
    assert [s.size for s in scenes] == [(96, 96)] * 2
    assert all(len(s.objects().validate(classes=2)) for s in scenes)


def test_stages_must_agree() -> None:
    with pytest.raises(ValueError, match="must have 2 entries"):
        tiny(stages=2)


def test_a_loss_without_scenes_is_refused() -> None:
    model, data = tiny().eval(), batch()
    with pytest.raises(ValueError, match="forward\\(inputs, scenes\\)"):
        model.loss(model(data.inputs), data)
    with pytest.raises(ValueError, match="forward\\(inputs\\)"):
        model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
