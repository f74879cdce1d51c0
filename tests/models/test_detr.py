"""DETR: padding, boxes, masks, matching, losses and panoptic maps, on a tiny network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maskwright.models.detr import DETR, detr_panoptic_r50, detr_r50
from maskwright.nn.losses import mask_bce
from maskwright.nn.position import sine_position
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy

SIDE = 96
CLASSES = Taxonomy(names=("disc", "square", "sky"), thing=(True, True, False))
TINY: dict[str, Any] = {
    "body": "resnet18", "channels": 32, "hidden": 32, "queries": 12, "encoder_depth": 1, "decoder_depth": 2,
}  # fmt: skip


def tiny(panoptic: bool = False, **options: Any) -> DETR:
    torch.manual_seed(0)
    build = detr_panoptic_r50 if panoptic else detr_r50
    return build(CLASSES, **{**TINY, **options}).eval()


def scene(count: int, crowd: bool = False) -> Scene:
    dense = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for i in range(count):
        dense[i, 10 + 20 * i : 40 + 20 * i, 12 + 9 * i : 60 + 9 * i] = True
    masks = Masks.from_dense(dense)
    flags = torch.tensor([crowd and i == count - 1 for i in range(count)], dtype=torch.bool)
    return Scene(
        size=(SIDE, SIDE),
        segments=Segments(
            size=(SIDE, SIDE), labels=torch.arange(count) % 3, masks=masks, boxes=masks.boxes(), crowd=flags
        ),
    )


def batch(*scenes: Scene) -> Batch:
    rng = torch.Generator().manual_seed(1)
    pixels = [torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=rng) for _ in scenes]
    return Batch(inputs=Images.pad(pixels, multiple=1), scenes=scenes, keys=tuple("abcd"[: len(scenes)]))


@torch.no_grad()
def losses(model: DETR, data: Batch) -> dict[str, Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@torch.no_grad()
def test_padding_is_not_looked_at() -> None:
    model, inside = tiny(), torch.zeros(1, 5, 7, dtype=torch.bool)
    inside[:, :3, :6] = True
    features, position = torch.randn(1, 32, 5, 7), sine_position(inside, 32)
    other = torch.where(inside[:, None], features, 9.0)
    states = [
        model.decoder(model.queries.weight, model.encoder(f, position, inside), position, inside)[-1]
        for f in (features, other)
    ]
    torch.testing.assert_close(states[0], states[1])
    cut = sine_position(inside[:, :3, :6], 32)
    torch.testing.assert_close(cut, position[..., :3, :6])
    alone = model.decoder(model.queries.weight, model.encoder(features[..., :3, :6], cut), cut)[-1]
    torch.testing.assert_close(states[0], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_masks_of_matched_queries_are_those_of_all() -> None:
    model, data = tiny(), batch(scene(3), scene(1))
    taught, whole = model(data.inputs, data.truth()), model(data.inputs)
    assert taught.matches is not None
    assert taught.mask_logits is not None
    assert whole.mask_logits is not None
    pairs = taught.matches[-1]
    assert len(pairs) == 4
    torch.testing.assert_close(taught.mask_logits, whole.mask_logits[pairs.picture, pairs.query], rtol=1e-4, atol=1e-4)


def test_without_a_mask_head_there_are_boxes_only() -> None:
    model, data = tiny(masks=False, score_threshold=0.0), batch(scene(2))
    with torch.no_grad():
        found = model.predict(model(data.inputs), data.inputs.geometry)[0].objects().validate(3)
    assert found.masks is None
    assert found.boxes is not None
    assert len(found) > 0
    assert set(losses(model, data)) == {"class", "box", "giou", "class_0", "box_0", "giou_0"}
    with pytest.raises(ValueError, match="with a mask head"):
        tiny(panoptic=True, masks=False)


def test_panoptic_maps_fill_the_picture() -> None:
    model = tiny(panoptic=True, score_threshold=0.0)
    rng = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=rng)
    inputs = Images.pad([pixels], [Geometry.resized((100, 130), (64, 80))], multiple=32)
    with torch.no_grad():
        raw = model(inputs)
        raw.class_logits[-1][..., -1] = -9.0
        assert raw.mask_logits is not None
        raw.mask_logits += torch.randn(raw.mask_logits.shape, generator=rng) * 3
        found = model.predict(raw, inputs.geometry)[0]
        raw.class_logits[-1][..., -1] = 99.0
        nothing = model.predict(raw, inputs.geometry)[0]
    assert found.panoptic is not None
    objects = found.objects().validate(3)
    assert objects.ids is not None
    assert objects.masks is not None
    assert set(found.panoptic.unique().tolist()) == set(objects.ids.tolist())
    assert (objects.labels == 2).sum() <= 1, "stuff is merged"
    assert (objects.masks.area() > 4).all()
    assert int(objects.masks.area().sum()) == 100 * 130
    assert nothing.panoptic is not None
    assert not nothing.panoptic.any()


def test_losses_of_pictures_add_up() -> None:
    model = tiny()
    both, one, two = batch(scene(3), scene(1)), batch(scene(3)), batch(scene(1))
    two.inputs.pixels.copy_(both.inputs.pixels[1:])

    def total(data: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            raw = model(data.inputs, data.truth())
            counts = model.loss_counts(raw, data)
            return {name: loss * counts[name] for name, loss in model.loss(raw, data).items()}

    parts, whole = (total(one), total(two)), total(both)
    for name, loss in whole.items():
        torch.testing.assert_close(loss, parts[0][name] + parts[1][name], rtol=1e-3, atol=1e-3)


def test_crowds_are_neither_objects_nor_background() -> None:
    model = tiny()
    data, plain = batch(scene(3, crowd=True)), batch(scene(2))
    with torch.no_grad():
        raw, other = (model(d.inputs, d.truth()) for d in (data, plain))
    assert raw.matches is not None
    assert other.matches is not None
    assert len(raw.matches[-1]) == len(other.matches[-1]) == 2
    assert other.matches[-1].silent is None
    assert raw.matches[-1].silent is not None


def test_a_frozen_detector_learns_masks_only() -> None:
    model = tiny(frozen_detector=True).train()
    data = batch(scene(2))
    sum(model.loss(model(data.inputs, data.truth()), data).values(), torch.zeros(())).backward()
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert moved == {"mask_head", "attention_maps"}


def test_the_mask_loss_can_be_exchanged() -> None:
    model, data = tiny(), batch(scene(2))
    before = losses(model, data)
    model.mask_loss = mask_bce
    after = losses(model, data)
    assert before["mask"] != after["mask"]
    assert before["class"] == after["class"]


def test_more_objects_than_queries_and_empty_ones() -> None:
    dense = torch.zeros(20, SIDE, SIDE, dtype=torch.bool)
    for i in range(19):
        dense[i, 4 * i : 4 * i + 3, 2:50] = True
    masks = Masks.from_dense(dense)
    crowded = Scene(
        size=(SIDE, SIDE),
        segments=Segments(size=(SIDE, SIDE), labels=torch.zeros(20, dtype=torch.int64), masks=masks),
    )
    for data in (batch(crowded), batch(scene(0)), batch(scene(0), scene(2))):
        assert all(torch.isfinite(loss) for loss in losses(tiny(), data).values())


def test_wrong_raws_and_options_are_refused() -> None:
    model, data = tiny(), batch(scene(1))
    with torch.no_grad():
        with pytest.raises(ValueError, match="made without scenes"):
            model.loss(model(data.inputs), data)
        with pytest.raises(ValueError, match="made with scenes"):
            model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
    with pytest.raises(ValueError, match="rule must be"):
        tiny(rule="maskformer")
    with pytest.raises(ValueError, match="task must be"):
        tiny(task="semantic")
