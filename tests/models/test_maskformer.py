"""MaskFormer: tasks, matching and losses, on a tiny network with either body."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskwright.models.maskformer import MaskFormer, maskformer_r50, maskformer_swin_t
from maskwright.nn.losses import mask_bce
from maskwright.structures import Batch
from tests.models.test_detr import CLASSES, SIDE, batch, scene

TINY: dict[str, Any] = {
    "channels": 32, "embedding": 16, "heads": 2, "hidden": 32, "queries": 12, "encoder_depth": 1, "depth": 2,
}  # fmt: skip


def tiny(body: str = "resnet18", **options: Any) -> MaskFormer:
    torch.manual_seed(0)
    build = maskformer_swin_t if body.startswith("swin") else maskformer_r50
    return build(CLASSES, **{**TINY, "body": body, **options}).eval()


@torch.no_grad()
def losses(model: MaskFormer, data: Batch) -> dict[str, torch.Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@pytest.mark.parametrize("body", ["resnet18", "swin_nano"])
def test_every_task_gives_its_kind_of_scene(body: str) -> None:
    data = batch(scene(2))
    for task in ("semantic", "instance", "panoptic"):
        model = tiny(body, task=task, score_threshold=0.0)
        with torch.no_grad():
            found = model.predict(model(data.inputs), data.inputs.geometry)[0]
        assert (found.segments is None) == (task == "semantic")
        assert (found.panoptic is None) == (task != "panoptic")
        if task == "semantic":
            assert found.semantic is not None
            assert found.semantic.shape == (SIDE, SIDE)
        else:
            found.objects().validate(3)


@torch.no_grad()
def test_masks_of_matched_queries_are_those_of_all() -> None:
    model, data = tiny(), batch(scene(3), scene(1))
    taught, whole = model(data.inputs, data.truth()), model(data.inputs)
    assert taught.matches is not None
    pairs = taught.matches[-1]
    torch.testing.assert_close(
        taught.mask_logits[-1], whole.mask_logits[-1][pairs.picture, pairs.query], rtol=1e-4, atol=1e-4
    )


def test_losses_of_pictures_add_up() -> None:
    model = tiny("swin_nano", encoder_depth=0)
    both, one, two = batch(scene(3), scene(1)), batch(scene(3)), batch(scene(1))
    two.inputs.pixels.copy_(both.inputs.pixels[1:])

    def total(data: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            raw = model(data.inputs, data.truth())
            counts = model.loss_counts(raw, data)
            return {name: loss * counts[name] for name, loss in model.loss(raw, data).items()}

    parts, whole = (total(one), total(two)), total(both)
    assert set(whole) == {"class", "mask", "class_0", "mask_0"}
    for name, loss in whole.items():
        torch.testing.assert_close(loss, parts[0][name] + parts[1][name], rtol=1e-3, atol=1e-3)


def test_nothing_to_learn_and_another_mask_loss() -> None:
    model = tiny()
    for data in (batch(scene(0)), batch(scene(0), scene(2)), batch(scene(3, crowd=True))):
        assert all(torch.isfinite(loss) for loss in losses(model, data).values())
    data = batch(scene(2))
    before = losses(model, data)
    model.mask_loss = mask_bce
    after = losses(model, data)
    assert before["mask"] != after["mask"]
    assert before["class"] == after["class"]


def test_wrong_raws_and_options_are_refused() -> None:
    model, data = tiny(), batch(scene(1))
    with torch.no_grad():
        with pytest.raises(ValueError, match="made without scenes"):
            model.loss(model(data.inputs), data)
        with pytest.raises(ValueError, match="made with scenes"):
            model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
    with pytest.raises(ValueError, match="rule must be one of"):
        tiny(rule="detr")
    with pytest.raises(ValueError, match="task must be"):
        tiny(task="depth")
