"""Panoptic FPN and UPSNet on mixed taxonomies: what is learned, what is predicted, and odd cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from maskwright.metrics.panoptic_quality import PanopticQuality
from maskwright.models.panoptic_fpn import panoptic_fpn_r50
from maskwright.models.parts.panoptic import semantic_of, semantic_target, things_only
from maskwright.models.upsnet import upsnet_r50
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy

MIXED = Taxonomy(names=("sky", "disc", "grass", "bar"), thing=(False, True, False, True))
SIDE = 96
BUILDERS = (panoptic_fpn_r50, upsnet_r50)
Builder = Callable[..., Any]


def build(builder: Builder, taxonomy: Taxonomy = MIXED, **options: Any) -> Any:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {
        "body": "resnet18", "channels": 16, "mask_width": 16, "box_hidden": 32, "rpn_batch": 64, "roi_batch": 32,
        "semantic_width": 16, "score_threshold": 0.05, "stuff_area": 16,
    }  # fmt: skip
    model = builder(taxonomy, **{**numbers, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
    return model


def scene(things: int = 2, side: int = SIDE, crowd: bool = False) -> Scene:
    """Sky above grass, things on top; ids are 10, 20, ..."""
    ids = torch.full((side, side), 10)
    ids[side // 2 :] = 20
    for i in range(things):
        ids[10 + 30 * i : 34 + 30 * i, 12 + 32 * i : 40 + 32 * i] = 30 + 10 * i
    ids[:3] = 0
    names = torch.tensor([10, 20, *(30 + 10 * i for i in range(things))])
    labels = torch.tensor([0, 2, *(1 + 2 * (i % 2) for i in range(things))])
    masks = Masks.from_dense(ids[None] == names[:, None, None])
    flags = torch.tensor([False] * (1 + things) + [crowd])
    segments = Segments(
        size=(side, side), labels=labels, masks=masks, boxes=masks.boxes(), ids=names, crowd=flags
    )  # fmt: skip
    return Scene(size=(side, side), segments=segments, panoptic=ids)


def batch(*scenes: Scene) -> Batch:
    rng = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (3, *s.size), dtype=torch.uint8, generator=rng) for s in scenes]
    return Batch(inputs=Images.pad(pictures), scenes=scenes, keys=tuple(map(str, range(len(scenes)))))


def loss(model: Any, data: Batch) -> dict[str, Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@pytest.mark.parametrize("builder", BUILDERS)
def test_losses_reach_every_parameter(builder: Builder) -> None:
    model = build(builder).train()
    for data in (batch(scene(), scene(1)), batch(scene(0), scene(0))):
        model.zero_grad()
        raw = model(data.inputs, data.truth())
        losses, counts = model.loss(raw, data), model.loss_counts(raw, data)
        assert losses.keys() == counts.keys()
        assert all(torch.isfinite(value) for value in losses.values())
        cast(Tensor, sum(losses.values())).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


@pytest.mark.parametrize("builder", BUILDERS)
def test_void_ignored_and_crowd(builder: Builder) -> None:
    """Void teaches the semantic head nothing, a crowd is no object; and no semantic truth at all is an error."""
    model = build(builder).eval()
    plain = scene()
    raw = model(batch(plain).inputs, [plain])
    assert int(model.loss_counts(raw, batch(plain))["semantic"]) == 93 * SIDE
    ignore = Masks.from_dense(torch.ones(1, SIDE, SIDE, dtype=torch.bool))
    nothing = Scene(size=plain.size, segments=plain.segments, panoptic=plain.panoptic, ignore=ignore)
    losses = model.loss(model(batch(nothing).inputs, [nothing]), batch(nothing))
    assert float(losses["semantic"]) == 0
    assert len(things_only(scene(crowd=True), MIXED).objects()) == 2
    boxes = Segments(size=plain.size, labels=torch.tensor([1]), boxes=torch.tensor([[0.0, 0, 9, 9]]))
    with pytest.raises(ValueError, match=r"semantic map|masks"):
        loss(model, batch(Scene(size=plain.size, segments=boxes)))


@pytest.mark.parametrize("builder", BUILDERS)
def test_predictions_are_valid_panoptic_scenes(builder: Builder) -> None:
    model = build(builder).eval()
    originals = [(150, 211), (40, 30)]
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((96, 128), (90, 64))]
    inputs = Images.pad(
        pictures, [Geometry.resized(o, s) for o, s in zip(originals, ((96, 128), (90, 64)), strict=True)]
    )
    raw = model(inputs)
    for found, size in zip(model.predict(raw, inputs.geometry), originals, strict=True):
        segments = found.objects().validate(len(MIXED))
        assert found.size == size
        assert found.panoptic is not None
        assert found.semantic is not None
        assert segments.ids is not None
        assert segments.masks is not None
        assert segments.scores is not None
        assert sorted(segments.ids.tolist()) == [v for v in found.panoptic.unique().tolist() if v]
        dense = segments.masks.dense()
        assert int(dense.sum(0).max()) <= 1
        for name, mask in zip(segments.ids, dense, strict=True):
            assert torch.equal(found.panoptic == name, mask)
        stuff = segments.labels[~torch.tensor(MIXED.thing)[segments.labels]].tolist()
        assert len(set(stuff)) == len(stuff)
        assert (segments.scores.diff() <= 0).all()
        measure = PanopticQuality(MIXED)
        measure.update(found, found)
        assert measure.compute()["panoptic"]["PQ"] == pytest.approx(1.0)
    model.max_per_image, model.score_threshold = 2, 0.0
    limited = model.predict(model(inputs), inputs.geometry)[0].objects()
    assert int(torch.tensor(MIXED.thing)[limited.labels].sum()) <= 2


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("thing", [True, False])
def test_one_class(builder: Builder, thing: bool) -> None:
    taxonomy = Taxonomy(names=("only",), thing=(thing,))
    model = build(builder, taxonomy)
    plain = scene(2)
    objects = plain.objects()
    segments = Segments(
        size=plain.size, labels=torch.zeros_like(objects.labels), masks=objects.masks, ids=objects.ids
    )  # fmt: skip
    one = Scene(size=plain.size, segments=segments, panoptic=plain.panoptic)
    assert all(torch.isfinite(value) for value in loss(model, batch(one, one)).values())
    data = batch(one)
    found = model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects()
    assert not found.labels.any()


def test_upsnet_needs_masks_and_knows_unknown() -> None:
    model = build(upsnet_r50, unknown=1.0)
    data = batch(scene(2))
    raw = model(data.inputs, data.truth())
    assert len(raw.claimed[0].labels) == 0
    assert raw.claimed[0].target.unique().tolist() == [-1, 0, 1, 2]  # void, stuff, stuff, unknown
    assert torch.isfinite(model.loss(raw, data)["panoptic"])


def test_semantic_truth() -> None:
    plain = scene(2)
    from_map = semantic_of(plain)
    objects = plain.objects()
    masks_only = Scene(size=plain.size, segments=Segments(size=plain.size, labels=objects.labels, masks=objects.masks))
    assert torch.equal(semantic_of(masks_only), from_map)
    assert torch.equal(semantic_of(Scene(size=plain.size, semantic=from_map)), from_map)
    target = semantic_target([plain], (128, 128), "cpu", (1, 0, 2, 0))
    assert target.shape == (1, 128, 128)
    assert (target[0, SIDE:] == -1).all()
    assert target[0, :SIDE, :SIDE].unique().tolist() == [-1, 0, 1, 2]
    assert target[0, 60, 60] == 0
