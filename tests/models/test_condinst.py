"""CondInst: what its parts promise, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from maskwright.models.condinst import CondInst, condinst_r50
from maskwright.nn.backbones.timm import TimmBackbone
from maskwright.nn.heads.dense_box import DenseBoxHead, TopLevels
from maskwright.nn.heads.dynamic_masks import DynamicMasks, MaskBranch
from maskwright.nn.losses import mask_bce
from maskwright.nn.necks.fpn import FPN
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy

LOSSES = {"class", "box", "centerness", "mask"}
SIDE = 96


def tiny(classes: int = 2, **options: Any) -> CondInst:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {"channels": 64, "head_depth": 1, "branch_width": 16, "branch_depth": 1, "prior": 0.3}
    return condinst_r50(Taxonomy(names=tuple("abcdefgh"[:classes])), **{**numbers, **options})


def scene(dense: torch.Tensor, **options: Any) -> Scene:
    masks = Masks.from_dense(dense)
    ignore = options.pop("ignore", None)
    labels = torch.arange(len(dense)) % 2
    segments = Segments(size=(SIDE, SIDE), labels=labels, masks=masks, boxes=masks.boxes(), **options)
    return Scene(size=(SIDE, SIDE), segments=segments, ignore=ignore)


def blocks(count: int) -> torch.Tensor:
    dense = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for i in range(count):
        dense[i, 10 + 20 * i : 40 + 20 * i, 8 : 40 + i] = True
    return dense


def batch(*scenes: Scene) -> Batch:
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (len(scenes), 3, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    images = Images(pixels=pixels, geometry=(Geometry.identity((SIDE, SIDE)),) * len(scenes))
    return Batch(inputs=images, scenes=scenes, keys=tuple("abcdefgh"[: len(scenes)]))


def losses(model: CondInst, data: Batch) -> dict[str, torch.Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@pytest.mark.parametrize("objects", [0, 1, 3])
@pytest.mark.parametrize("rules", ["adelaidet", "mmdetection"])
def test_losses_are_finite_and_reach_every_parameter(objects: int, rules: str) -> None:
    model = tiny(rules=rules, semantic=True).train()
    found = losses(model, batch(scene(blocks(objects)), scene(blocks(objects))))
    assert set(found) == LOSSES | {"semantic"}
    sum(found.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(v) for v in found.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    "options",
    [
        {"mask_depth": 1},
        {"mask_width": 4, "mask_features": 2},
        {"coordinates": "absolute"},
        {"coordinates": None},
        {"mask_stride": 8},
        {"mask_stride": 2},
        {"radius": None},
        {"suppression": "mask", "candidates": 30},
        {"head_norm": None, "branch_norm": "group"},
    ],
)
def test_what_the_paper_varies(options: dict[str, Any]) -> None:
    model = tiny(**options)
    data = batch(scene(blocks(2)))
    raw = model(data.inputs, data.truth())
    assert raw.mask_logits.shape[1:] == (SIDE // model.mask_stride,) * 2
    assert all(torch.isfinite(v) for v in model.loss(raw, data).values())
    with torch.no_grad():
        assert model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects().masks is not None


def test_losses_of_two_pictures_are_those_of_each_weighted_by_the_counts() -> None:
    model = tiny(norm="frozen", branch_norm="group", max_masks=None, semantic=True).eval()
    one, two = batch(scene(blocks(3))), batch(scene(blocks(1)))
    both = Batch(
        inputs=Images(
            pixels=torch.cat((one.inputs.pixels, two.inputs.pixels)),
            geometry=one.inputs.geometry + two.inputs.geometry,
        ),
        scenes=one.scenes + two.scenes,
        keys=("a", "b"),
    )
    with torch.no_grad():
        raws = [model(d.inputs, d.truth()) for d in (one, two, both)]
        parts = [(model.loss(r, d), model.loss_counts(r, d)) for r, d in zip(raws, (one, two, both), strict=True)]
    for name in LOSSES | {"semantic"}:
        total = sum(loss[name] * count[name] for loss, count in parts[:2])
        torch.testing.assert_close(parts[2][0][name] * parts[2][1][name], total, rtol=1e-4, atol=1e-4)


def test_the_semantic_target_is_the_smallest_object_s_class_at_the_points_of_p3() -> None:
    dense = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    dense[0, 4:80, 4:80] = True
    dense[1, 20:21, 20:21] = True
    model, data = tiny(semantic=True), batch(scene(dense))
    truth = model(data.inputs, data.truth()).truth
    assert truth is not None
    assert truth[0].semantic is not None
    want = torch.full((12, 12), 2)
    want[:10, :10] = 0
    want[2, 2] = 1
    assert torch.equal(truth[0].semantic, want)


def test_crowds_and_ignored_regions_make_no_negatives() -> None:
    model = tiny().eval()
    dense = blocks(2)
    crowd = scene(dense, crowd=torch.tensor([False, True]))
    ignoring = scene(dense[:1], ignore=Masks.from_dense(dense[1:]))
    plain = scene(dense[:1])
    with torch.no_grad():
        raws = [model(batch(s).inputs, (s,)) for s in (crowd, ignoring, plain)]
    labels = [r.truth[0].targets.labels for r in raws if r.truth]
    assert torch.equal(labels[0], labels[1])
    assert not (labels[2] == -1).any()
    assert (labels[0] == -1).sum() > 5
    assert ((labels[0] != labels[2]) == (labels[0] == -1)).all()


def test_one_pixel_objects_and_five_hundred() -> None:
    dense = torch.zeros(500, SIDE, SIDE, dtype=torch.bool)
    rng = torch.Generator().manual_seed(0)
    where = torch.randint(0, SIDE, (500, 2), generator=rng)
    for i, (y, x) in enumerate(where.tolist()):
        dense[i, y : y + 1 + i % 9, x : x + 1 + i % 9] = True
    model = tiny(max_masks=20)
    data = batch(scene(dense))
    raw = model(data.inputs, data.truth())
    assert len(raw.mask_logits) == 20
    assert sum(len(c) for c in raw.cells) == 20
    assert all(torch.isfinite(v) for v in model.loss(raw, data).values())


def test_masks_can_be_empty_and_boxes_missing() -> None:
    dense = blocks(2)
    dense[1] = False
    given = scene(dense)
    assert given.segments is not None
    data = batch(
        Scene(size=given.size, segments=Segments(size=given.size, labels=torch.arange(2), masks=given.segments.masks))
    )
    assert all(torch.isfinite(v) for v in losses(tiny(), data).values())


def test_the_mask_loss_can_be_exchanged_and_needs_masks() -> None:
    model, data = tiny().eval(), batch(scene(blocks(2)))
    before = losses(model, data)
    model.mask_loss = mask_bce
    after = losses(model, data)
    assert before["mask"] != after["mask"]
    assert before["class"] == after["class"]
    boxes = Segments(
        size=(SIDE, SIDE), labels=torch.zeros(1, dtype=torch.int64), boxes=torch.tensor([[8.0, 8, 60, 60]])
    )
    with pytest.raises(ValueError, match="learns from masks"):
        losses(model, batch(Scene(size=(SIDE, SIDE), segments=boxes)))


def test_suppression_by_masks() -> None:
    model, data = tiny(suppression="mask", candidates=60).eval(), batch(scene(blocks(1)))
    model.nms_threshold, model.max_per_image = 0.4, 7
    with torch.no_grad():
        raw = model(data.inputs)
        assert raw.detections is not None
        assert len(raw.detections[0].boxes) == 60
        found = model.predict(raw, data.inputs.geometry)[0].objects()
    assert found.masks is not None
    assert found.scores is not None
    assert 0 < len(found) <= 7
    assert (found.scores.diff() <= 0).all()
    overlap = found.masks.iou(found.masks).triu(1)
    same = found.labels[:, None] == found.labels
    assert not ((overlap > 0.4) & same).any()


def test_half_precision() -> None:
    model, data = tiny(semantic=True), batch(scene(blocks(2)))
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(model.train(), data)
        with torch.no_grad():
            model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects().validate(2)
    assert all(torch.isfinite(v) for v in found.values())


def test_wrong_raws_and_options_are_refused() -> None:
    model, data = tiny().eval(), batch(scene(blocks(1)))
    with torch.no_grad():
        with pytest.raises(ValueError, match="made without scenes"):
            model.loss(model(data.inputs), data)
        with pytest.raises(ValueError, match="made with scenes"):
            model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
    with pytest.raises(ValueError, match="rules must be one of"):
        tiny(rules="fcos")
    with pytest.raises(ValueError, match="suppression must be"):
        tiny(suppression="soft")


def test_it_learns_one_picture() -> None:
    dense = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    dense[0, 10:50, 10:50] = True
    dense[1, 50:86, 40:90] = True
    data = batch(scene(dense))
    data.inputs.pixels[0] = (dense[0] * 200 + dense[1] * 90).to(torch.uint8)
    torch.manual_seed(0)
    backbone = TimmBackbone("resnet18", out_indices=(2, 3, 4), norm="frozen", zero_init=True)
    model = CondInst(
        backbone,
        nn.Sequential(FPN(backbone.channels, 64, extra=0), TopLevels(64)),
        DenseBoxHead(64, 2, depth=1),
        MaskBranch(64, width=32, depth=1, norm="group"),
        DynamicMasks(8),
        taxonomy=Taxonomy(names=("a", "b")),
    ).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        sum(losses(model, data).values(), torch.zeros(())).backward()
        optimizer.step()
    with torch.no_grad():
        found = model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects()
    assert found.masks is not None
    assert data.scenes[0] is not None
    overlap = found.masks.iou(Masks.from_dense(dense))
    assert overlap.amax(0).min() > 0.7
