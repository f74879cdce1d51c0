"""MaskFormer of facebookresearch and of transformers through the importers that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskwright.models import maskformer
from maskwright.models.maskformer import Raw
from maskwright.nn.losses import Dice, Focal
from maskwright.nn.norm import normalize_pixels
from maskwright.structures import Images
from maskwright.weights.maskformer import OfficialMaskFormer
from maskwright.weights.transformers_maskformer import TransformersMaskFormer
from tests.parity.harness import Case
from tests.parity.queries import batch, inputs, ready

ROWS = {"maskformer-r50": maskformer.maskformer_r50, "maskformer-swin-t": maskformer.maskformer_swin_t}
LAYERS = ("", *(f"_{i}" for i in range(5)))
_OFFICIAL = {
    *(f"feat_res{i}" for i in (2, 3, 4, 5)),
    *("pred_logits", "pred_masks", "aux0_masks", "panoptic_seg", "sem_seg", "sem_argmax", "match"),
    *(f"loss/loss_{name}{layer}" for name in ("ce", "mask", "dice") for layer in LAYERS),
}
KEYS = {
    "maskformer_official_r50_panoptic": _OFFICIAL,
    "maskformer_official_swin_tiny_panoptic": _OFFICIAL,
    "hf_maskformer_swin_tiny": {
        *(f"backbone_{i}" for i in range(4)),
        *(
            "pixel_mask_features",
            "class_logits",
            "mask_logits",
            "decoder_last",
            "panoptic_seg",
            "semantic_seg",
            "match",
        ),
        # The total has auxiliary losses of hidden states without the norm, which the official model does not have.
        *("loss_total", "loss/loss_mask", "loss/loss_dice", "loss/loss_cross_entropy"),
    },
}


@pytest.fixture(scope="module", params=sorted(KEYS))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    importer = TransformersMaskFormer() if request.param.startswith("hf") else OfficialMaskFormer()
    with torch.no_grad():
        yield ready(request.param, importer, ROWS)


@pytest.fixture(scope="module")
def images(case: Case) -> Images:
    if case.reference.family.startswith("hf"):
        return inputs([(256, 320)], [(384, 480)])
    return inputs([(250, 310)], [(375, 465)])


@pytest.fixture(scope="module")
def raw(case: Case, images: Images) -> Raw:
    return case.model(images)


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS[case.reference.family]


def test_stages(case: Case, images: Images, raw: Raw) -> None:
    model, reference = case.model, case.reference
    pyramid = model.backbone(normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes))
    states, pixels = model.features(images)
    theirs = reference.family.startswith("hf")
    for i, feature in enumerate(pyramid):
        reference.near(f"backbone_{i}" if theirs else f"feat_res{i + 2}", feature, relative=1e-4)
    reference.near("class_logits" if theirs else "pred_logits", raw.class_logits[-1], relative=1e-4)
    reference.near("mask_logits" if theirs else "pred_masks", raw.mask_logits[-1], relative=1e-4)
    if theirs:
        reference.near("pixel_mask_features", pixels, relative=1e-4)
        reference.near("decoder_last", states[-1], relative=1e-4)
    else:
        reference.near("aux0_masks", model.masks(states[0], pixels), relative=1e-4)


def test_scenes(case: Case, images: Images, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = case.model, case.reference
    theirs = reference.family.startswith("hf")
    told = reference.meta["panoptic_segments_info" if theirs else "segments_info"]
    rule = replace(model.rule, claim=0.06, overlap=0.1) if theirs else replace(model.rule, overlap=0.1)
    monkeypatch.setattr(model, "rule", rule)
    monkeypatch.setattr(model, "score_threshold", 0.1 if theirs else 0.12)
    scene = model.predict(raw, images.geometry)[0]
    assert scene.panoptic is not None
    want = reference.full("panoptic_seg").astype(np.int64) - theirs
    assert (scene.panoptic.numpy() != want).sum() <= 20
    found = scene.objects()
    assert found.ids is not None
    labels = dict(zip(found.ids.tolist(), found.labels.tolist(), strict=True))
    assert labels == {segment["id"]: segment["label_id" if theirs else "category_id"] for segment in told}
    monkeypatch.setattr(model, "task", "semantic")
    semantic = model.predict(raw, images.geometry)[0].semantic
    assert (semantic.numpy() != reference.full("semantic_seg" if theirs else "sem_argmax")).sum() <= 20


def test_losses(case: Case, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference, data = case.model, case.reference, batch(images)
    raw = model(images, data.truth())
    assert raw.matches is not None
    got = torch.stack((raw.matches[-1].query, raw.matches[-1].object)).numpy()
    assert np.array_equal(got, reference.full("match"))
    theirs = reference.family.startswith("hf")
    whole = model.loss(raw, data)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, loss in (("mask", Focal()), ("dice", Dice(smooth=1.0, epsilon=0.0, squares=False))):
        monkeypatch.setattr(model, "mask_loss", loss)
        parts[name] = model.loss(raw, data)
    for layer in ("",) if theirs else LAYERS:
        classes = reference.full("loss/loss_cross_entropy" if theirs else f"loss/loss_ce{layer}")
        assert float(whole[f"class{layer}"]) == pytest.approx(float(classes), rel=1e-4)
        for name, losses in parts.items():
            weight = 20.0 if theirs and name == "mask" else 1.0
            want = float(reference.full(f"loss/loss_{name}{layer}"))
            assert weight * float(losses[f"mask{layer}"]) == pytest.approx(want, rel=1e-4)
        want = 20 * float(parts["mask"][f"mask{layer}"]) + float(parts["dice"][f"mask{layer}"])
        assert float(whole[f"mask{layer}"]) == pytest.approx(want, rel=1e-5)
