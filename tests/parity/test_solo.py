"""SOLO, decoupled SOLO and SOLOv2 of their authors, of mmdetection and of AdelaiDet through the importers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskwright.nn.heads.grids import balanced, local_maxima, resize
from maskwright.nn.norm import normalize_pixels
from maskwright.structures import Geometry, Images, Masks, Scene
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import SIZE, Case, Reference, batch, inputs, picture

LEVELS = range(5)
FINAL = {"final_scores", "final_mask_area", "final_masks_first20"}
NECK = {f"neck_{i}" for i in LEVELS}


def _heads(name: str, kinds: int) -> set[str]:
    return {f"{name}_{kind}_{i}" for kind in range(kinds) for i in LEVELS}


MMDET = {"preprocessed", "final_boxes", "final_labels", "train/loss_mask", "train/loss_cls"} | FINAL | NECK
OFFICIAL = {"final_labels", "loss/loss_ins", "loss/loss_cate"} | FINAL | NECK
# Every recorded key is read by a test below; a new one must be added here and there. ``final_boxes`` are zeros.
KEYS = {
    "solo_official_solo_r50": OFFICIAL | _heads("head_eval", 2) | _heads("head_train", 2),
    "solo_official_decoupled_solo_r50": OFFICIAL
    | {f"head_eval_{k}_{i}" for k in (0, 1) for i in LEVELS}
    | _heads("head_train", 3),
    "solo_official_solov2_r50": None,
    "adet_solov2_r50": {f"{kind}_{i}" for kind in ("cate", "kernel") for i in LEVELS}
    | {"mask_feat", "final_classes", "train/loss_ins", "train/loss_cate"}
    | FINAL,
    "mmdet_solo_r50": MMDET | _heads("mask_head", 2),
    "mmdet_decoupled_solo_r50": MMDET | _heads("mask_head", 3),
    "mmdet_solov2_r50": MMDET | _heads("mask_head", 2) | {"mask_head_2"},
}
UNSTABLE = {"mmdet_solo_r50": {"mask_head_1_3"}, "mmdet_decoupled_solo_r50": {"mask_head_2_3"}}
"""Local maxima where two cells are all but equal (NOISE.txt)."""


def ready(family: str) -> Case:
    reference = Reference.read(family)
    importer, state = require_importer(reference.state, family), reference.state
    model: Any = build(importer.model(state), importer.taxonomy(state), **importer.options(state))
    assert load_state(model, importer.convert(state), source=family).complete
    about = reference.meta.get("test_cfg") or reference.meta.get("model_cfg", {}).get("test_cfg")
    if about is not None:
        model.score_threshold, update = about["score_thr"], about.get("filter_thr", about.get("update_thr"))
    else:
        about = reference.meta["thresholds"]
        model.score_threshold, update = about["SCORE_THR"], about["UPDATE_THR"]
    model.rules = replace(model.rules, update_threshold=update)
    return Case(reference, importer, model.eval())


@pytest.fixture(scope="module", params=sorted(KEYS))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with torch.no_grad():
        yield ready(request.param)


@pytest.fixture(scope="module")
def images(case: Case) -> Images:
    """The official code was given 256 x 320 pixels, of which 250 x 310 are said to be the picture's."""
    if not case.reference.family.startswith("solo_official"):
        return inputs((375, 465))
    pixels = picture((256, 320))[None].float()
    return Images(pixels=pixels, geometry=(Geometry.identity((256, 320)),))


@pytest.fixture(scope="module")
def raw(case: Case, images: Images) -> Any:
    return case.model(images)


def test_every_recorded_key_is_tested(case: Case) -> None:
    known = KEYS[case.reference.family]
    if known is not None:
        assert set(case.reference.meta["arrays"]) == known


def test_pyramid_and_heads(case: Case, images: Images, raw: Any) -> None:
    reference, model = case.reference, case.model
    if "preprocessed" in reference.arrays:
        pixels = normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes)
        reference.near("preprocessed", pixels, relative=1e-6)
    features = model.pyramid(images) if hasattr(model, "pyramid") else model.features(images)
    for i, level in enumerate(features):
        if f"neck_{i}" in reference.arrays:
            reference.near(f"neck_{i}", level, relative=1e-4)
    if hasattr(raw, "kernels"):
        _check_dynamic(reference, raw)
    else:
        _check_grids(case, raw, balanced(features))


def _check_dynamic(reference: Reference, raw: Any) -> None:
    for i in LEVELS:
        maxima = local_maxima(raw.classes[i].sigmoid())
        for key, value in {
            f"cate_{i}": raw.classes[i],
            f"kernel_{i}": raw.kernels[i],
            f"mask_head_0_{i}": raw.kernels[i],
            f"mask_head_1_{i}": raw.classes[i],
            f"head_train_0_{i}": raw.classes[i],
            f"head_train_1_{i}": raw.kernels[i],
            f"head_eval_0_{i}": maxima.permute(0, 2, 3, 1),
            f"head_eval_1_{i}": raw.kernels[i],
        }.items():
            if key in reference.arrays:
                reference.near(key, value, relative=1e-4)
    for key in ("mask_feat", "mask_head_2", "mask_feat_eval"):
        if key in reference.arrays:
            reference.near(key, raw.features, relative=1e-4)


def _check_grids(case: Case, raw: Any, features: list[Tensor]) -> None:
    """Maps in full, as the references have them; our model computes those of some cells."""
    reference, model = case.reference, case.model
    decoupled = model.masks.decoupled
    official = reference.family.startswith("solo_official")
    finest = raw.hidden[0][0].shape[-2:]
    for i in LEVELS:
        maps = raw.hidden[i] if decoupled else [model.masks.maps[0][i](raw.hidden[i][0])]
        for axis, values in enumerate(maps):
            if official:
                reference.near(f"head_train_{axis}_{i}", values, relative=1e-4)
            reference.near(
                f"{'head_eval' if official else 'mask_head'}_{axis}_{i}",
                resize(values.sigmoid(), finest),
                absolute=1e-4,
            )
        key = f"{'head_eval' if official else 'mask_head'}_{len(maps)}_{i}"
        maxima = local_maxima(raw.classes[i].sigmoid())
        if official:
            reference.near(f"head_train_{len(maps)}_{i}", raw.classes[i], relative=1e-4)
            maxima = maxima.permute(0, 2, 3, 1)
        if key in reference.arrays and key not in UNSTABLE.get(reference.family, set()):
            reference.near(key, maxima, absolute=1e-4)


def test_objects(case: Case, images: Images, raw: Any) -> None:
    reference = case.reference
    found = case.model.predict(raw, (Geometry.resized((375, 465), SIZE),))[0].objects()
    scores = reference.full("final_scores")
    labels = reference.full("final_classes" if "final_classes" in reference.arrays else "final_labels")
    areas = reference.full("final_mask_area")
    assert abs(len(found) - len(scores)) <= 2
    ours = (found.labels.numpy(), found.scores.numpy(), found.masks.area().numpy())
    partner = np.full(len(scores), -1)
    for i, (label, score, area) in enumerate(zip(labels, scores, areas, strict=True)):
        good = (ours[0] == label) & (np.abs(ours[1] - score) <= 1e-3)
        good &= np.abs(ours[2] - area) <= max(5, 0.005 * area)
        good[partner[partner >= 0]] = False
        if good.any():
            partner[i] = np.flatnonzero(good)[0]
    assert (partner < 0).sum() <= 2, f"{(partner < 0).sum()} of {len(scores)} objects differ"
    masks = reference.full("final_masks_first20")
    first = np.flatnonzero(partner[: len(masks)] >= 0)
    dense = found.masks[torch.from_numpy(partner[first])].dense().numpy()
    union, both = (dense | masks[first]).sum((1, 2)), (dense & masks[first]).sum((1, 2))
    wrong = both < 0.99 * union - 3  # equal scores of one class may change places
    assert wrong.sum() <= 2, (both / np.maximum(union, 1)).min()


def test_losses(case: Case, images: Images) -> None:
    data = batch()
    if case.reference.family.startswith("solo_official"):
        data = replace(data, inputs=images, scenes=(padded(data.truth()[0]),))
    raw = case.model(data.inputs, data.truth())
    losses = case.model.loss(raw, data)
    names = {"class": ("loss_cate", "loss_cls"), "mask": ("loss_ins", "loss_mask")}
    for ours, theirs in names.items():
        keys = [f"{kind}/{name}" for kind in ("train", "loss") for name in theirs]
        key = next(key for key in keys if key in case.reference.arrays)
        assert float(losses[ours]) == pytest.approx(float(case.reference.full(key)), rel=1e-4), key


def padded(scene: Scene) -> Scene:
    """The same objects on the larger picture that the official code was given."""
    objects = scene.objects()
    assert objects.masks is not None
    dense = torch.nn.functional.pad(objects.masks.dense(), (0, 10, 0, 6))
    segments = replace(objects, size=(256, 320), masks=Masks.from_dense(dense))
    return Scene(size=(256, 320), segments=segments)
