"""Mask2Former of facebookresearch and of transformers through the importers that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskwright.models import mask2former
from maskwright.models.mask2former import Raw
from maskwright.nn.losses import Dice, mask_bce
from maskwright.structures import Images, Taxonomy
from maskwright.weights.mask2former import OfficialMask2Former
from maskwright.weights.transformers_mask2former import TransformersMask2Former
from tests.parity.harness import Case, recipe
from tests.parity.queries import batch, inputs, ready

ROWS = {
    "mask2former-panoptic-r50": mask2former.mask2former_panoptic_r50,
    "mask2former-panoptic-swin-t": mask2former.mask2former_panoptic_swin_t,
}
LAYERS = (*(f"_{i}" for i in range(9)), "")
_OFFICIAL = {
    *(f"feat_res{i}" for i in (2, 3, 4, 5)),
    *(f"ms_{i}" for i in range(3)),
    *(f"aux{i}_{kind}" for i in (0, 4) for kind in ("masks", "logits")),
    *("mask_features", "pred_logits", "pred_masks", "panoptic_seg", "sem_seg", "sem_argmax", "match"),
    *("inst_scores", "inst_classes", "inst_mask_area", "inst_masks_first10"),
    *(f"loss/loss_{name}{layer}" for name in ("ce", "mask", "dice") for layer in LAYERS),
}
_TRANSFORMERS = {
    *(f"backbone_{i}" for i in range(4)),
    *(f"pixel_decoder_{i}" for i in range(3)),
    *("pixel_mask_features", "class_logits", "mask_logits", "decoder_last", "match"),
    *("panoptic_seg", "instance_seg", "semantic_seg", "loss_total"),
    *(f"loss/loss_{name}{layer}" for name in ("cross_entropy", "mask", "dice") for layer in LAYERS),
}
KEYS = {
    "m2f_official_r50_panoptic": _OFFICIAL,
    "m2f_official_swin_tiny_panoptic": _OFFICIAL,
    "hf_mask2former_r50": _TRANSFORMERS,
    "hf_mask2former_swin_tiny": _TRANSFORMERS,
}


@pytest.fixture(scope="module", params=sorted(KEYS))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    importer = TransformersMask2Former() if request.param.startswith("hf") else OfficialMask2Former()
    with torch.no_grad():
        yield ready(request.param, importer, ROWS)


def theirs(case: Case) -> bool:
    return case.reference.family.startswith("hf")


@pytest.fixture(scope="module")
def images(case: Case) -> Images:
    """The official one pads to a multiple of 32; transformers' recording has a size that is one."""
    known = inputs([(256, 320)], [(384, 480)]) if theirs(case) else inputs([(250, 310)], [(375, 465)])
    height, width = (-(-side // 32) * 32 for side in known.pixels.shape[-2:])
    pixels = known.pixels.new_zeros(1, 3, height, width)
    pixels[..., : known.pixels.shape[-2], : known.pixels.shape[-1]] = known.pixels
    return Images(pixels=pixels, geometry=known.geometry)


@pytest.fixture(scope="module")
def raw(case: Case, images: Images) -> Raw:
    return case.model(images)


@pytest.fixture(scope="module")
def taught(case: Case, images: Images) -> Iterator[tuple[Raw, Any]]:
    """With every layer, and with random points as they were recorded."""
    patch = pytest.MonkeyPatch()
    patch.setattr(torch, "rand", lambda *size, **_: torch.from_numpy(recipe().rand_values(prod(size))).reshape(size))
    data = batch(images)
    yield case.model(images, data.truth()), data
    patch.undo()


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS[case.reference.family]


def test_stages(case: Case, images: Images, raw: Raw) -> None:
    model, reference = case.model, case.reference
    pyramid = model.features(images)
    fine, maps = model.pixel_decoder(pyramid)
    hf = theirs(case)
    for i, feature in enumerate(pyramid):
        reference.near(f"backbone_{i}" if hf else f"feat_res{i + 2}", feature, relative=1e-4)
    for i, feature in enumerate(maps):
        reference.near(f"pixel_decoder_{i}" if hf else f"ms_{i}", feature, relative=1e-4)
    reference.near("pixel_mask_features" if hf else "mask_features", fine, relative=1e-4)
    last = raw.layers[-1]
    reference.near("class_logits" if hf else "pred_logits", last.class_logits, relative=1e-4)
    reference.near("mask_logits" if hf else "pred_masks", last.mask_logits, relative=1e-4)
    if hf:
        reference.near("decoder_last", last.states, relative=1e-4)


def test_every_layer(case: Case, taught: tuple[Raw, Any]) -> None:
    layers, reference, hf = taught[0].layers, case.reference, theirs(case)
    reference.near("class_logits" if hf else "pred_logits", layers[-1].class_logits, relative=1e-4)
    reference.near("mask_logits" if hf else "pred_masks", layers[-1].mask_logits, relative=1e-4)
    for i in () if hf else (0, 4):
        reference.near(f"aux{i}_logits", layers[i].class_logits, relative=1e-4)
        reference.near(f"aux{i}_masks", layers[i].mask_logits, relative=1e-4)


def test_matching_and_losses(case: Case, taught: tuple[Raw, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (raw, data), reference, model, hf = taught, case.reference, case.model, theirs(case)
    assert raw.learned is not None
    last = raw.learned.matches[-1]
    assert np.array_equal(torch.stack((last.query, last.object)).numpy(), reference.full("match"))
    parts: dict[str, dict[str, Tensor]] = {}
    for name, loss in (("mask", mask_bce), ("dice", Dice(smooth=1.0, epsilon=0.0, squares=False))):
        monkeypatch.setattr(model, "mask_loss", loss)
        parts[name] = model.loss(raw, data)
    total = 0.0
    for layer in LAYERS:
        values = {
            "cross_entropy" if hf else "ce": float(parts["mask"][f"class{layer}"]) / 2 * (2 if hf else 1),
            "mask": float(parts["mask"][f"mask{layer}"]) * (5 if hf else 1),
            "dice": float(parts["dice"][f"mask{layer}"]) * (5 if hf else 1),
        }
        for name, value in values.items():
            assert value == pytest.approx(float(reference.full(f"loss/loss_{name}{layer}")), rel=1e-4), (name, layer)
        total += sum(values.values())
    if hf:
        assert total == pytest.approx(float(reference.full("loss_total")), rel=1e-4)


def test_weighted_sum_of_losses(case: Case, taught: tuple[Raw, Any]) -> None:
    if theirs(case):
        found = case.model.loss(*taught)
        assert float(sum(found.values())) == pytest.approx(float(case.reference.full("loss_total")), rel=1e-4)


def test_panoptic(case: Case, images: Images, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference, hf = case.model, case.reference, theirs(case)
    overlap, score = (0.3, 0.3) if hf else (0.1, 0.12)
    monkeypatch.setattr(model, "rule", replace(model.rule, overlap=overlap))
    monkeypatch.setattr(model, "score_threshold", score)
    found = model.predict(raw, images.geometry)[0]
    assert found.panoptic is not None
    wanted = reference.full("panoptic_seg").astype(np.int64) - hf  # transformers' ids were stored one higher
    assert (found.panoptic.numpy() != wanted).sum() <= 10
    told = reference.meta["panoptic_segments_info" if hf else "segments_info"]
    labels = {s["id"]: s["label_id" if hf else "category_id"] for s in told}
    objects = found.objects()
    assert objects.ids is not None
    assert dict(zip(objects.ids.tolist(), objects.labels.tolist(), strict=True)) == labels


def test_semantic(case: Case, images: Images, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case.model, "task", "semantic")
    found = case.model.predict(raw, images.geometry)[0].semantic
    assert (found.numpy() != case.reference.full("semantic_seg" if theirs(case) else "sem_argmax")).sum() <= 5
    if not theirs(case):
        last, view = raw.layers[-1], images.geometry[0]
        way = case.model.rule.resampling(last.mask_logits, raw.padded, view)
        prob = last.class_logits[0].softmax(-1)[:, :-1].T
        sums = torch.zeros(prob.shape[0], *view.original)
        for rows, columns, values in way.tiles(last.mask_logits[0]):
            sums[:, rows, columns] = torch.einsum("cq,qhw->chw", prob, values.sigmoid())
        case.reference.near("sem_seg", sums, relative=1e-4)


def test_instances(case: Case, images: Images, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = case.model, case.reference
    monkeypatch.setattr(model, "task", "instance")
    if theirs(case):  # there stuff makes instances too
        names = model.taxonomy.names
        monkeypatch.setattr(model, "taxonomy", Taxonomy(names=names))
        monkeypatch.setattr(model, "score_threshold", 0.3)
        found = model.predict(raw, images.geometry)[0].objects()
        assert found.scores is not None
        told = sorted(reference.meta["instance_segments_info"], key=lambda s: -s["score"])
        # the mean probability within a mask, taken in the file's pixels here and at 384 x 384 there
        assert np.abs(found.scores.numpy() - [s["score"] for s in told]).max() <= 2e-3
        assert sorted(found.labels.tolist()) == sorted(s["label_id"] for s in told)
        return
    monkeypatch.setattr(model, "score_threshold", 0.0)
    monkeypatch.setattr(model, "max_per_image", 50)
    found = model.predict(raw, images.geometry)[0].objects()
    assert found.scores is not None
    assert found.masks is not None
    order = np.argsort(-reference.full("inst_scores"), kind="stable")
    assert np.abs(found.scores.numpy() - reference.full("inst_scores")[order]).max() <= 1e-3
    assert np.array_equal(found.labels.numpy(), reference.full("inst_classes")[order])
    area = reference.full("inst_mask_area")[order]
    assert np.all(np.abs(found.masks.area().numpy() - area) <= np.maximum(5, 0.005 * area))
    masks = reference.full("inst_masks_first10")
    place = torch.from_numpy(np.argsort(order, kind="stable")[: len(masks)])
    assert (found.masks[place].dense().numpy() != masks).sum() <= 10
