"""Mask R-CNN: what its parts promise, on a tiny model."""

from __future__ import annotations

import pytest
import torch

from maskwright.models.mask_rcnn import MaskRCNN, mask_rcnn_r18_light
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments, Taxonomy

LOSSES = {"rpn_class", "rpn_box", "class", "box", "mask"}


def tiny(**options: object) -> MaskRCNN:
    torch.manual_seed(0)
    numbers = {"channels": 16, "mask_width": 16, "box_hidden": 32, "roi_batch": 32, "rpn_batch": 32}
    return mask_rcnn_r18_light(Taxonomy(names=("disc", "square")), **{**numbers, **options})


def batch(objects: int = 2, *, crowd: bool = False) -> Batch:
    pixels = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    scenes = []
    for _ in range(2):
        dense = torch.zeros(objects, 96, 96, dtype=torch.bool)
        for i in range(objects):
            dense[i, 10 + 20 * i : 40 + 20 * i, 8 : 40 + i] = True
        masks = Masks.from_dense(dense)
        segments = Segments(
            size=(96, 96),
            labels=torch.arange(objects) % 2,
            masks=masks,
            boxes=masks.boxes(),
            crowd=torch.full((objects,), True) if crowd else None,
        )
        scenes.append(Scene(size=(96, 96), segments=segments))
    images = Images(pixels=pixels, geometry=(Geometry.identity((96, 96)),) * 2)
    return Batch(inputs=images, scenes=tuple(scenes), keys=("a", "b"))


@pytest.mark.parametrize("objects", [0, 1, 2])
def test_losses_are_finite_and_reach_every_parameter(objects: int) -> None:
    model = tiny().train()
    data = batch(objects)
    losses = model.loss(model(data.inputs, data.truth()), data)
    assert set(losses) == LOSSES
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing


def test_loss_weights_scale_each_loss() -> None:
    data = batch()
    options = {"roi_batch": 10_000, "rpn_batch": 100_000}
    plain, doubled = tiny(**options).eval(), tiny(**options, loss_weights={"mask": 2.0, "box": 0.0}).eval()
    doubled.load_state_dict(plain.state_dict())
    one = plain.loss(plain(data.inputs, data.truth()), data)
    two = doubled.loss(doubled(data.inputs, data.truth()), data)
    assert torch.allclose(two["mask"], 2 * one["mask"])
    assert two["box"].item() == 0.0
    assert torch.allclose(two["class"], one["class"])


def test_crowds_are_not_learned() -> None:
    model = tiny().train()
    data = batch(crowd=True)
    raw = model(data.inputs, data.truth())
    assert len(raw.mask_logits) == 0
    assert all(bool((s.labels == 2).all()) for s in raw.samples)


def test_the_mask_loss_is_decoupled_from_the_class() -> None:
    """Changing the maps of other classes changes nothing."""
    model = tiny().train()
    data = batch()
    raw = model(data.inputs, data.truth())
    labels = torch.cat([s.labels for s in raw.samples])
    labels = labels[labels < 2]
    before = model.loss(raw, data)["mask"]
    raw.mask_logits = raw.mask_logits.detach().clone()
    raw.mask_logits[torch.arange(len(labels)), 1 - labels] += 7.0
    assert torch.allclose(model.loss(raw, data)["mask"], before)


def test_mask_loss_can_be_exchanged() -> None:
    from maskwright.nn.losses import mask_dice

    model = tiny().train()
    data = batch()
    raw = model(data.inputs, data.truth())
    plain = model.loss(raw, data)["mask"].item()
    model.mask_loss = mask_dice
    assert model.loss(raw, data)["mask"].item() != pytest.approx(plain)


@pytest.mark.parametrize("options", [{"agnostic_mask": True}, {"agnostic_box": True}, {"pooling": "max"}])
def test_options_learn_and_predict(options: dict[str, object]) -> None:
    model = tiny(**options).train()
    data = batch()
    sum(model.loss(model(data.inputs, data.truth()), data).values()).backward()
    model.eval().score_threshold = 0.0
    with torch.no_grad():
        scenes = model.predict(model(data.inputs), data.inputs.geometry)
    assert [s.size for s in scenes] == [(96, 96)] * 2


@pytest.mark.parametrize(("mask_size", "side"), [(7, 14), (14, 28), (28, 56)])
def test_mask_resolution(mask_size: int, side: int) -> None:
    model = tiny(mask_size=mask_size).train()
    data = batch()
    assert model(data.inputs, data.truth()).mask_logits.shape[1:] == (2, side, side)


def test_positive_share_of_rois() -> None:
    model = tiny(roi_batch=16, roi_positive=0.25).train()
    data = batch(2)
    raw = model(data.inputs, data.truth())
    for sample in raw.samples:
        assert len(sample.labels) == 16
        assert int((sample.labels < 2).sum()) <= 4


def test_hard_sampling_takes_the_largest_losses() -> None:
    model = tiny(roi_batch=8, roi_sampling="hard").eval()
    data = batch(1)
    features = model.dense(data.inputs)[0]
    proposals = torch.rand(60, 2) * 60
    proposals = torch.cat([proposals, proposals + 20], 1)
    drawn = model.sample(features, 0, proposals, data.truth()[0])
    everything = tiny(roi_batch=10_000).eval()
    everything.load_state_dict(model.state_dict())
    rest = everything.sample(features, 0, proposals, data.truth()[0])

    def losses(sample: object) -> torch.Tensor:
        one = [feature[:1] for feature in features]
        logits, _ = model.box_head(model.pool(one, [sample.boxes], model.box_size))
        return torch.nn.functional.cross_entropy(logits, sample.labels, reduction="none")

    negatives = losses(rest)[rest.kind == 0].sort(descending=True).values
    kept = losses(drawn)[drawn.kind == 0].sort(descending=True).values
    assert torch.allclose(kept, negatives[: len(kept)], atol=1e-6)


def test_predict_returns_file_pixels() -> None:
    model = tiny().eval()
    model.score_threshold = 0.0
    view = Geometry.resized((48, 60), (77, 96))
    images = Images(pixels=torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8), geometry=(view,))
    with torch.no_grad():
        scene = model.predict(model(images), images.geometry)[0]
    objects = scene.objects().validate(classes=2)
    assert scene.size == (48, 60)
    assert len(objects) == model.max_per_image
    assert objects.masks is not None
    assert objects.masks.size == (48, 60)
    assert bool((objects.scores.diff() <= 0).all())
    assert float(objects.boxes[:, 2].max()) <= 60
    assert float(objects.boxes[:, 3].max()) <= 48


def test_a_loss_without_scenes_is_refused() -> None:
    model = tiny().eval()
    data = batch()
    raw = model(data.inputs)
    with pytest.raises(ValueError, match="forward\\(inputs, scenes\\)"):
        model.loss(raw, data)
    with pytest.raises(ValueError, match="forward\\(inputs\\)"):
        model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
