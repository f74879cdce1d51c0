"""EoMT: equal to transformers' implementation (recorded), mask annealing, padding."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.errors import InputError
from maskwright.models.eomt import EoMT, eomt_s
from maskwright.structures import Batch, Images, Masks, Scene, Segments, Taxonomy
from maskwright.weights.report import load_state
from maskwright.weights.transformers_eomt import TransformersEoMT
from tests.golden import record_eomt as golden
from tests.models.test_detr import CLASSES, SIDE, batch, scene

TINY: dict[str, Any] = {
    "body": "vit_nano", "side": 64, "queries": 12, "masked_blocks": 2, "mask_points": 200,
}  # fmt: skip
LAYERS = ("_0", "_1", "")


def tiny(**options: Any) -> EoMT:
    torch.manual_seed(0)
    return eomt_s(CLASSES, **{**TINY, **options}).eval()


def recorded(name: str) -> tuple[EoMT, dict[str, Any], Batch]:
    """Our model with the recording's weights, what it must give, and its picture with its objects."""
    known, importer = json.loads(golden.PATH.read_text()), TransformersEoMT()
    state = {**golden.weights(known["shapes"]), "attn_mask_probs": torch.tensor(golden.CHANCES[name])}
    assert importer.recognizes(state)
    options = {**importer.options(state), "body": "vit_nano", "mask_points": golden.POINTS}
    model = eomt_s(Taxonomy(names=tuple("abcde")), **options).eval()
    assert load_state(model, importer.convert(state), source=name).complete
    masks = Masks.from_dense(golden.masks())
    segments = Segments(size=masks.size, labels=torch.tensor(golden.LABELS), masks=masks, boxes=masks.boxes())
    images = Images.pad([golden.picture()])
    return model, known[name], Batch(inputs=images, scenes=(Scene(size=masks.size, segments=segments),), keys=("a",))


@pytest.mark.parametrize("name", ["masked", "plain"])
@torch.no_grad()
def test_logits_equal_those_of_transformers(name: str) -> None:
    model, known, data = recorded(name)
    raw = model(data.inputs)
    for got, want in ((raw.class_logits, known["classes"]), (raw.mask_logits, known["masks"])):
        step = 1 if want is known["classes"] else 7
        wanted = np.array(want)
        assert np.abs(got[-1].numpy().reshape(-1)[::step] - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", list(golden.CHANCES))
@torch.no_grad()
def test_losses_equal_those_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, known, data = recorded(name)
    monkeypatch.setattr(torch, "rand", golden.even)
    found = model.loss(model(data.inputs, data.truth()), data)
    for layer, theirs in zip(LAYERS, known["losses"], strict=True):
        assert float(found[f"class{layer}"]) == pytest.approx(theirs["loss_cross_entropy"], rel=1e-4)
        assert float(found[f"mask{layer}"]) == pytest.approx(theirs["loss_mask"] + theirs["loss_dice"], rel=1e-4)
    assert float(sum(found.values())) == pytest.approx(known["total"], rel=1e-4)


def test_importer_names_rows_and_sizes() -> None:
    importer = TransformersEoMT()
    names = json.loads(golden.PATH.read_text())["shapes"]
    state = {name: torch.zeros(1) for name in names}
    state |= {f"layers.{i}.norm1.weight": torch.zeros(1) for i in range(24)}
    state["query.weight"] = torch.zeros(200, 1024)
    assert importer.model(state) == "eomt-l"
    state["query.weight"] = torch.zeros(200, 1000)
    with pytest.raises(InputError, match="1000 x 24"):
        importer.model(state)
    state["class_predictor.weight"] = torch.zeros(134, 8)
    assert importer.taxonomy(state).thing.count(True) == 80
    assert not importer.recognizes({})


def test_masks_are_given_up_block_by_block() -> None:
    model = tiny(masked_blocks=4)
    # four blocks: the authors' steps of coco_panoptic_eomt_large_640, 14782 apart in 88692
    model.anneal(14782 / 88692)
    assert model.chances == (1.0, 1.0, 1.0, 1.0)
    model.anneal(1.5 * 14782 / 88692)
    assert model.chances == pytest.approx((0.5**0.9, 1.0, 1.0, 1.0))
    model.anneal(3 * 14782 / 88692)
    assert model.chances == pytest.approx((0.0, 0.0, 1.0, 1.0), abs=1e-4)
    model.anneal(1.0)
    assert model.chances == (0.0, 0.0, 0.0, 0.0)
    again = tiny(masked_blocks=4)
    again.load_state_dict(model.state_dict())
    assert again.chances == model.chances


@torch.no_grad()
def test_pictures_are_padded_with_black_to_a_square() -> None:
    model, small = tiny(), torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8)
    whole = torch.cat((small, torch.zeros(3, 24, 64, dtype=torch.uint8)), 1)
    raw, other = (model(Images.pad([p], multiple=1)) for p in (small, whole))
    assert raw.padded == (64, 64)
    torch.testing.assert_close(raw.mask_logits[-1], other.mask_logits[-1])
    assert tiny(square=False)(Images.pad([small], multiple=1)).padded == (48, 64)


@torch.no_grad()
def test_larger_pictures_have_interpolated_positions() -> None:
    model, data = tiny(), batch(scene(2))
    raw = model(data.inputs)
    assert raw.padded == (SIDE, SIDE)
    assert raw.mask_logits[-1].shape == (1, 12, SIDE // 4, SIDE // 4)
    flat = model.backbone
    flat.pos_embed.copy_(torch.ones_like(flat.pos_embed))
    torch.testing.assert_close(flat.positions((6, 7)), torch.ones(1, 42, flat.width))


@torch.no_grad()
def test_every_task_gives_its_kind_of_scene() -> None:
    data = batch(scene(2))
    for task in ("semantic", "instance", "panoptic"):
        model = tiny(task=task, score_threshold=0.0, overlap=0.0)
        found = model.predict(model(data.inputs), data.inputs.geometry)[0]
        assert (found.segments is None) == (task == "semantic")
        if task != "semantic":
            assert len(found.objects().validate(3))


def test_losses_reach_every_parameter() -> None:
    model = tiny().train()
    for data in (batch(scene(3), scene(1)), batch(scene(0))):
        model.zero_grad()
        found = model.loss(model(data.inputs, data.truth()), data)
        assert all(torch.isfinite(loss) for loss in found.values())
        sum(found.values(), torch.zeros(())).backward()
        assert not [name for name, p in model.named_parameters() if p.grad is None]
        assert set(model.loss_counts(model(data.inputs, data.truth()), data)) == set(found)


def test_numbers_that_do_not_fit_are_named() -> None:
    for options, words in (
        ({"body": "vit_huge"}, "must be one of"),
        ({"side": 50}, "divide side"),
        ({"masked_blocks": 9}, "masked_blocks"),
        ({"task": "all"}, "task must be"),
    ):
        with pytest.raises(ValueError, match=words):
            tiny(**options)
