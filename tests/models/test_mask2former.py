"""Mask2Former: tasks, matching at points and losses, on a tiny network with either body."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maskwright.models import mask2former
from maskwright.models.mask2former import Mask2Former, mask2former_panoptic_r50, mask2former_panoptic_swin_t
from maskwright.models.parts.point_sets import PointCriterion, PointTargets
from maskwright.nn.losses import mask_bce, mask_iou
from maskwright.ops.point_sample import point_sample
from maskwright.structures import Batch, Masks, Scene
from tests.models.test_detr import CLASSES, SIDE, batch, scene

TINY: dict[str, Any] = {
    "channels": 64, "mask_channels": 16, "encoder_depth": 1, "encoder_hidden": 32, "points": 2,
    "queries": 12, "depth": 2, "heads": 2, "hidden": 32, "mask_points": 200,
}  # fmt: skip


def tiny(body: str = "resnet18", **options: Any) -> Mask2Former:
    torch.manual_seed(0)
    build = mask2former_panoptic_swin_t if body.startswith("swin") else mask2former_panoptic_r50
    return build(CLASSES, **{**TINY, "body": body, **options}).eval()


def losses(model: Mask2Former, data: Batch) -> dict[str, Tensor]:
    return model.loss(model(data.inputs, data.truth()), data)


@pytest.mark.parametrize("body", ["resnet18", "swin_nano"])
@torch.no_grad()
def test_every_task_gives_its_kind_of_scene(body: str) -> None:
    data = batch(scene(2))
    for task in ("semantic", "instance", "panoptic"):
        model = tiny(body, task=task, score_threshold=0.0, overlap=0.0)
        found = model.predict(model(data.inputs), data.inputs.geometry)[0]
        assert (found.segments is None) == (task == "semantic")
        if task == "semantic":
            assert found.semantic is not None
            assert found.semantic.shape == (SIDE, SIDE)
        else:
            assert len(found.objects().validate(3))


@torch.no_grad()
def test_transformers_way_of_decoding_gives_the_same_scenes_nearly() -> None:
    data = batch(scene(2))
    ours, theirs = tiny(task="semantic"), tiny(task="semantic", rule="transformers")
    one, two = (m.predict(m(data.inputs), data.inputs.geometry)[0].semantic for m in (ours, theirs))
    assert one is not None
    assert two is not None
    assert (one == two).float().mean() > 0.9


@pytest.mark.parametrize("body", ["resnet18", "swin_nano"])
def test_losses_reach_every_parameter(body: str) -> None:
    model = tiny(body).train()
    for data in (batch(scene(3), scene(1)), batch(scene(0), scene(0))):
        model.zero_grad()
        found = losses(model, data)
        assert set(found) == {f"{kind}{layer}" for kind in ("class", "mask") for layer in ("", "_0", "_1")}
        assert all(torch.isfinite(loss) for loss in found.values())
        sum(found.values(), torch.zeros(())).backward()
        assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


@torch.no_grad()
def test_losses_of_pictures_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch, "rand", lambda *size, **_: torch.linspace(0, 1, size[1] * 2).view(1, -1, 2).expand(size[0], -1, -1)
    )
    model = tiny()
    both, one, two = batch(scene(3), scene(1)), batch(scene(3)), batch(scene(1))
    two.inputs.pixels.copy_(both.inputs.pixels[1:])

    def total(data: Batch) -> dict[str, Tensor]:
        raw = model(data.inputs, data.truth())
        counts = model.loss_counts(raw, data)
        return {name: loss * counts[name] for name, loss in model.loss(raw, data).items()}

    parts, whole = (total(one), total(two)), total(both)
    for name, loss in whole.items():
        torch.testing.assert_close(loss, parts[0][name] + parts[1][name], rtol=1e-3, atol=1e-3)


def test_more_objects_than_queries() -> None:
    model = tiny(queries=2)
    found = losses(model, batch(scene(3)))
    assert all(torch.isfinite(loss) for loss in found.values())


@torch.no_grad()
def test_what_is_ignored_teaches_nothing() -> None:
    """A mask's loss is that of the same mask where the ignored half agrees with it."""
    criterion, truth = PointCriterion(points=400), torch.zeros(1, 32, 32, dtype=torch.bool)
    truth[0, 4:20, 4:12] = True
    void = torch.zeros(32, 32, dtype=torch.bool)
    void[:, 16:] = True
    labels = torch.zeros(1, dtype=torch.int64)
    right = truth[None].float() * 40 - 20
    wrong = right.clone()
    wrong[..., 17:] = 20.0

    def cost(masks: Tensor, ignored: Tensor | None) -> float:
        torch.manual_seed(0)
        return float(criterion.cost(torch.zeros(1, 2), masks[0], PointTargets(labels, truth, ignored)))

    assert cost(wrong, void) == pytest.approx(cost(right, void), abs=1e-4)
    assert cost(wrong, None) > cost(right, None) + 1


@torch.no_grad()
def test_targets_at_points_are_bilinear_samples() -> None:
    torch.manual_seed(0)
    masks = torch.rand(3, 9, 14) > 0.5
    targets = PointTargets(torch.arange(3), masks, None)
    which, points = torch.tensor([2, 0, 2, 1]), torch.rand(4, 50, 2) * 1.2 - 0.1
    wanted = point_sample(masks[which][:, None].float(), points)[:, 0]
    torch.testing.assert_close(targets.at(which, points), wanted, rtol=1e-4, atol=1e-5)


def test_crowds_are_no_objects() -> None:
    model, data = tiny(), batch(scene(3, crowd=True))
    raw = model(data.inputs, data.truth())
    assert raw.learned is not None
    assert raw.learned.objects == 2
    assert float(model.loss_counts(raw, data)["mask"]) == 2


def test_a_scene_that_ignores_all_of_the_picture() -> None:
    whole = Masks.from_dense(torch.ones(1, SIDE, SIDE, dtype=torch.bool))
    void = Scene(size=(SIDE, SIDE), segments=scene(1).segments, ignore=whole)
    found = losses(tiny(), batch(void))
    assert all(torch.isfinite(loss) for loss in found.values())


def test_another_mask_loss() -> None:
    model, data = tiny(), batch(scene(2))
    torch.manual_seed(0)
    model.mask_loss = mask_bce
    one = losses(model, data)["mask"]
    torch.manual_seed(0)
    model.mask_loss = mask_iou
    assert not torch.allclose(one, losses(model, data)["mask"])


def test_what_was_made_for_one_purpose_does_not_serve_the_other() -> None:
    model, data = tiny(), batch(scene(1))
    with pytest.raises(ValueError, match="made without scenes"):
        model.loss(model(data.inputs), data)
    with pytest.raises(ValueError, match="made with scenes"):
        model.predict(model(data.inputs, data.truth()), data.inputs.geometry)
    for options in ({"rule": "mine"}, {"task": "all"}):
        with pytest.raises(ValueError, match="must be"):
            tiny(**options)


def test_rows_differ_in_task_body_and_queries() -> None:
    for task in ("instance", "semantic", "panoptic"):
        for size in ("r50", "swin_t", "swin_s", "swin_b", "swin_l"):
            build = getattr(mask2former, f"mask2former_{task}_{size}")
            assert build(CLASSES, **{**TINY, "body": "swin_nano"}).task == task
