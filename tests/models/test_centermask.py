"""CenterMask: what its parts promise, on a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskwright.models.centermask import CenterMask, centermask_lite
from maskwright.nn.losses import mask_dice
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy

LOSSES = {"class", "box", "centerness", "mask", "mask_iou"}
SIDE = 96


def tiny(classes: int = 2, **options: Any) -> CenterMask:
    torch.manual_seed(0)
    numbers: dict[str, Any] = {"channels": 64, "head_depth": 1, "mask_width": 48, "iou_hidden": 64, "prior": 0.3}
    return centermask_lite(Taxonomy(names=tuple("abcdefgh"[:classes])), **{"body": "v19_slim_dw", **numbers, **options})


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


def losses(model: CenterMask, data: Batch) -> dict[str, torch.Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@pytest.mark.parametrize("objects", [0, 1, 3])
@pytest.mark.parametrize("rules", ["centermask2", "mmdetection"])
def test_losses_are_finite_and_reach_every_parameter(objects: int, rules: str) -> None:
    model = tiny(rules=rules).train()
    found = losses(model, batch(scene(blocks(objects)), scene(blocks(objects))))
    assert set(found) == LOSSES
    sum(found.values(), torch.zeros(())).backward()
    assert all(torch.isfinite(v) for v in found.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    "options",
    [
        {"attention": False},
        {"mask_scoring": False},
        {"assignment": "canonical"},
        {"agnostic_mask": True},
        {"channel_attention": False},
        {"radius": None},
        {"roi_levels": 5},
        {"mask_depth": 1, "head_norm": None},
        {"body": "resnet18"},
        {"body": "resnet18", "stages": (2, 3, 4)},
        {"stages": (2, 3, 4)},
        {"stages": (2, 3, 4, 5)},
    ],
)
def test_what_the_paper_varies(options: dict[str, Any]) -> None:
    model = tiny(**options)
    data = batch(scene(blocks(2)))
    raw = model(data.inputs, data.truth())
    assert set(model.loss(raw, data)) == (LOSSES if model.iou_head else LOSSES - {"mask_iou"})
    assert all(torch.isfinite(v) for v in model.loss(raw, data).values())
    with torch.no_grad():
        assert model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects().masks is not None


def test_losses_of_two_pictures_are_those_of_each_weighted_by_the_counts() -> None:
    model = tiny(norm="frozen").eval()
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
    for name in LOSSES:
        total = sum(loss[name] * count[name] for loss, count in parts[:2])
        torch.testing.assert_close(parts[2][0][name] * parts[2][1][name], total, rtol=1e-4, atol=1e-4)


def test_crowds_and_ignored_regions_make_no_negatives() -> None:
    model = tiny().eval()
    dense = blocks(2)
    crowd = scene(dense, crowd=torch.tensor([False, True]))
    ignoring = scene(dense[:1], ignore=Masks.from_dense(dense[1:]))
    plain = scene(dense[:1])
    with torch.no_grad():
        raws = [model(batch(s).inputs, (s,)) for s in (crowd, ignoring, plain)]
    labels = [r.targets[0].labels for r in raws if r.targets]
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
    assert len(raw.mask_logits) == 20 == sum(len(r.boxes) for r in raw.rois)
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
    model.mask_loss = mask_dice
    after = losses(model, data)
    assert before["mask"] != after["mask"]
    assert before["class"] == after["class"]
    boxes = Segments(
        size=(SIDE, SIDE), labels=torch.zeros(1, dtype=torch.int64), boxes=torch.tensor([[8.0, 8, 60, 60]])
    )
    with pytest.raises(ValueError, match="learns from masks"):
        losses(model, batch(Scene(size=(SIDE, SIDE), segments=boxes)))


def test_half_precision() -> None:
    model, data = tiny(), batch(scene(blocks(2)))
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(model.train(), data)
        with torch.no_grad():
            model.eval().predict(model(data.inputs), data.inputs.geometry)[0].objects().validate(2)
    assert all(torch.isfinite(v) for v in found.values())


def test_scores_are_those_of_the_masks() -> None:
    model, data = tiny().eval(), batch(scene(blocks(1)))
    with torch.no_grad():
        raw = model(data.inputs)
        assert raw.mask_iou is not None
        raw.mask_iou = torch.rand(raw.mask_iou.shape, generator=torch.Generator().manual_seed(0))
        found = model.predict(raw, data.inputs.geometry)[0].objects()
        assert found.scores is not None
        torch.testing.assert_close(found.scores, model.mask_scores(raw).sort(descending=True)[0])
        raw.mask_iou = None
        plain = model.predict(raw, data.inputs.geometry)[0].objects()
    assert raw.detections is not None
    assert plain.scores is not None
    torch.testing.assert_close(plain.scores, raw.detections[0].scores)


def test_wrong_raws_and_options_are_refused() -> None:
    model, data = tiny().eval(), batch(scene(blocks(1)))
    with torch.no_grad():
        with pytest.raises(ValueError, match="made without scenes"):
            model.loss(model(data.inputs), data)
        with pytest.raises(ValueError, match="made with scenes"):
            model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
    with pytest.raises(ValueError, match="rules must be one of"):
        tiny(rules="fcos")
    with pytest.raises(ValueError, match="assignment must be"):
        tiny(assignment="area")


def test_it_learns_one_picture() -> None:
    dense = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    dense[0, 10:50, 10:50] = True
    dense[1, 50:86, 40:90] = True
    data = batch(scene(dense))
    data.inputs.pixels[0] = (dense[0] * 200 + dense[1] * 90).to(torch.uint8)
    model = tiny(norm="frozen").train()
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


def test_a_pyramid_from_stride_four_has_its_strides_and_limits() -> None:
    model = tiny(stages=(2, 3, 4))
    assert model.strides == (4, 8, 16, 32, 64)
    assert model.limits == (32, 64, 128, 256)
    data = batch(scene(blocks(1)))
    maps = model(data.inputs, data.truth()).maps
    assert maps.sizes[:3] == [(SIDE // 4, SIDE // 4), (SIDE // 8, SIDE // 8), (SIDE // 16, SIDE // 16)]
