"""QueryInst: what its queries promise, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskwright.models.queryinst import QueryInst, queryinst_r50
from maskwright.structures import Batch, Masks, Scene, Taxonomy
from tests.models.test_mask_rcnn import batch

NUMBERS = {
    "channels": 16, "queries": 7, "stages": 3, "heads": 2, "hidden": 16, "dynamic_width": 4, "mask_width": 8,
    "mask_depth": 1, "box_std": 0.01,
}  # fmt: skip
LOSSES = {f"{kind}_{stage}" for kind in ("class", "box", "iou", "mask") for stage in range(3)}


def tiny(**options: Any) -> QueryInst:
    torch.manual_seed(0)
    return queryinst_r50(Taxonomy(names=("disc", "square")), **{**NUMBERS, **options})


@pytest.mark.parametrize("objects", [0, 2])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model, data = tiny().train(), batch(objects)
    raw = model(data.inputs, data.truth())
    losses = model.loss(raw, data)
    assert set(losses) == LOSSES == set(model.loss_counts(raw, data))
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_every_object_has_one_query_in_every_stage() -> None:
    model, data = tiny().eval(), batch(2)
    raw = model(data.inputs, data.truth())
    for pairs in raw.pairs:
        for (query, chosen), scene in zip(pairs, data.truth(), strict=True):
            assert sorted(chosen.tolist()) == list(range(len(scene.objects())))
            assert len(query.unique()) == len(query)


def test_fresh_boxes_are_the_whole_picture() -> None:
    model, data = tiny(), batch(1)
    boxes, queries = model._start(data.inputs, torch.float32)
    height, width = data.inputs.sizes[0]
    assert torch.equal(boxes[0], torch.tensor([[0.0, 0.0, width, height]]).expand(7, -1))
    assert queries.shape == (len(data), 7, 16)


def test_box_gradients_end_at_each_stage() -> None:
    model, data = tiny().eval(), batch(1)
    raw = model(data.inputs, data.truth())
    raw.boxes[1].sum().backward()
    assert model.query_boxes.weight.grad is None
    raw = model(data.inputs, data.truth())
    raw.boxes[0].sum().backward()
    assert model.query_boxes.weight.grad is not None


def test_ignored_regions_are_no_background() -> None:
    model, data = tiny().eval(), batch(1)
    size = data.truth()[0].size
    everywhere = Masks.from_dense(torch.ones(1, *size, dtype=torch.bool))
    blind = tuple(Scene(size=s.size, segments=s.segments, ignore=everywhere) for s in data.truth())
    other = Batch(inputs=data.inputs, scenes=blind, keys=data.keys)
    with torch.no_grad():
        raw = model(data.inputs, data.truth())
        one, two = model.loss(raw, data), model.loss(raw, other)
    assert all(float(two[f"class_{i}"]) < float(one[f"class_{i}"]) for i in range(3))
    assert float(two["mask_2"]) == float(one["mask_2"])


@pytest.mark.parametrize("options", [{"mask_stages": (2,)}, {"dynamic_mask": False}, {"mask_norm": None}])
def test_options(options: dict[str, Any]) -> None:
    model, data = tiny(**options), batch(1)
    losses = model.train().loss(model(data.inputs, data.truth()), data)
    assert {name for name in losses if name.startswith("mask")} == {
        f"mask_{i}" for i in options.get("mask_stages", range(3))
    }
    sum(losses.values()).backward()
    with torch.no_grad():
        found = model.eval().predict(model(data.inputs), data.inputs.geometry)
    assert all((scene.objects().scores.diff() <= 0).all() for scene in found)


def test_the_last_stage_must_draw() -> None:
    with pytest.raises(ValueError, match="mask_stages"):
        tiny(mask_stages=(0, 1))
