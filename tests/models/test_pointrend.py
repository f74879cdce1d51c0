"""PointRend: what its points promise, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskwright.models.pointrend import PointRend, pointrend_r50
from maskwright.nn.heads.point_mask import grid_features, subdivide
from maskwright.ops.point_sample import point_sample, points_in_boxes
from maskwright.ops.roi import roi_align
from maskwright.structures import Taxonomy
from tests.models.test_mask_rcnn import batch

NUMBERS = {
    "channels": 8, "mask_width": 8, "mask_hidden": 16, "point_width": 8, "box_hidden": 16, "roi_batch": 16,
    "rpn_batch": 32, "train_points": 20,
}  # fmt: skip


def tiny(**options: Any) -> PointRend:
    torch.manual_seed(0)
    return pointrend_r50(Taxonomy(names=("disc", "square")), **{**NUMBERS, **options})


@pytest.mark.parametrize("objects", [0, 2])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model, data = tiny().train(), batch(objects)
    raw = model(data.inputs, data.truth())
    losses = model.loss(raw, data)
    assert set(losses) == {"rpn_class", "rpn_box", "class", "box", "mask", "point"} == set(model.loss_counts(raw, data))
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_points_learn_the_dense_masks_values() -> None:
    model, data = tiny().eval(), batch(2)
    with torch.no_grad():
        raw = model(data.inputs, data.truth())
    seen: list[torch.Tensor] = []

    def watch(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(targets)
        return logits.sum() * 0.0

    model.mask_loss = watch
    model.loss(raw, data)
    assert raw.points is not None
    assert raw.masked is not None
    start, wanted = 0, []
    for sample, scene in zip(raw.masked, data.truth(), strict=True):
        dense = scene.objects().masks.dense()[sample.matched].float()
        shares = raw.points[start : start + len(sample.labels)]
        start += len(sample.labels)
        extent = torch.tensor([scene.size[1], scene.size[0]])
        wanted.append(point_sample(dense[:, None], points_in_boxes(shares, sample.boxes) / extent)[:, 0])
    points = next(each for each in seen if each.shape[1] == 1)
    assert torch.allclose(points[:, 0], torch.cat(wanted), atol=1e-4)


def test_masks_learn_on_refined_boxes_if_asked() -> None:
    data = batch(2)
    for refined in (True, False):
        model = tiny(refined_boxes=refined, roi_batch=1000).eval()
        raw = model(data.inputs, data.truth())
        positive = torch.cat([s.boxes[s.labels < 2] for s in raw.samples])
        moved = torch.cat([s.boxes for s in raw.masked])
        assert not moved.requires_grad
        assert torch.equal(positive, moved) is not refined


def test_the_grid_is_roi_align_with_one_sample_a_bin() -> None:
    features, boxes = torch.randn(2, 4, 20, 24), torch.tensor([[8.0, 8.0, 40.0, 60.0], [20.0, 12.0, 70.0, 50.0]])
    found = grid_features([features], [4], [boxes[:1], boxes[1:]], 6)
    wanted = roi_align(features, [boxes[:1], boxes[1:]], 6, 0.25, sampling_ratio=1)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_only_unsure_cells_are_asked_anew() -> None:
    asked: list[int] = []

    def ask(points: torch.Tensor) -> torch.Tensor:
        asked.append(points.shape[1])
        return (0.3 - (points - 0.5).norm(dim=-1)) * 50  # a disc

    out = subdivide(ask, 3, side=7, steps=5, points=784, on=torch.zeros(1))
    assert out.shape == (3, 224, 224)
    assert asked == [784] * 4  # 7 and 14 cells a side would all be asked again
    y, x = torch.meshgrid(*[(torch.arange(224) + 0.5) / 224] * 2, indexing="ij")
    truth = ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt() < 0.3
    assert (out[0] > 0).ne(truth).sum() <= 8
    assert subdivide(ask, 0, side=7, steps=1, points=9, on=torch.zeros(1)).shape == (0, 14, 14)


@pytest.mark.parametrize("options", [{"point_levels": 2}, {"agnostic_mask": True}, {"coarse_each_layer": False}])
def test_options(options: dict[str, Any]) -> None:
    model, data = tiny(**options), batch(1)
    losses = model.train().loss(model(data.inputs, data.truth()), data)
    sum(losses.values()).backward()
    with torch.no_grad():
        raw = model.eval()(data.inputs)
    assert raw.mask_logits.shape[1:] == (224, 224)
    assert len(model.predict(raw, data.inputs.geometry)) == len(data)
    with pytest.raises(ValueError, match="without scenes"):
        model.loss(raw, data)
