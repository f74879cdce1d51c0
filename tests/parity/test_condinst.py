"""CondInst of AdelaiDet and of mmdetection through the importers that users run, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.models.condinst import Raw
from maskwright.nn.heads.dense_box import dense_losses, dense_points
from maskwright.nn.norm import normalize_pixels
from maskwright.ops.aligned import aligned_bilinear
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import Case, Reference, batch, check_detections, inputs, matched, recipe
from tests.shared import shared

LEVELS = ("p3", "p4", "p5", "p6", "p7")
FINAL = ("final_boxes", "final_scores", "final_mask_area", "final_masks_first20")
# Every recorded key is read by a test below; a new one must be added here and there.
KEYS = {
    "adet_condinst_r50": {
        *(f"{kind}_{level}" for kind in ("feat", "cls", "reg", "ctr", "controller") for level in LEVELS),
        *("mask_feats", "det_boxes", "det_scores", "det_classes", "det_locations", "mask_probs", "final_classes"),
        *FINAL,
        *(f"train/loss_{name}" for name in ("fcos_cls", "fcos_loc", "fcos_ctr", "mask")),
    },
    "mmdet_condinst_r50": {
        "preprocessed",
        *(f"neck_{i}" for i in range(5)),
        *(f"bbox_head_{kind}_{i}" for kind in range(4) for i in range(5)),
        *("final_labels", *FINAL),
        *(f"train/loss_{name}" for name in ("cls", "bbox", "centerness", "mask")),
    },
}


def ready(family: str, score: float) -> Case:
    reference = Reference.read(family)
    importer = require_importer(reference.state, family)
    options = {**importer.options(reference.state), "max_masks": None}
    model: Any = build(importer.model(reference.state), importer.taxonomy(reference.state), **options)
    assert load_state(model, importer.convert(reference.state), source=family).complete
    model.score_threshold, model.nms_threshold, model.max_per_image, model.pre_nms = score, 0.6, 100, 1000
    return Case(reference, importer, model.eval())


@pytest.fixture(scope="module", params=sorted(KEYS))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with torch.no_grad():
        yield ready(request.param, {"adet_condinst_r50": 0.4, "mmdet_condinst_r50": 0.3}[request.param])


@pytest.fixture(scope="module")
def raw(case: Case) -> Raw:
    return case.model(inputs())


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS[case.reference.family]


def test_pyramid_and_heads(case: Case, raw: Raw) -> None:
    model, reference, images = case.model, case.reference, inputs()
    ours = reference.family.startswith("mmdet")
    if ours:
        pixels = normalize_pixels(images.pixels, model.pixel_mean, model.pixel_std, images.sizes)
        reference.near("preprocessed", pixels, relative=1e-6)
    for i, (level, feature) in enumerate(zip(LEVELS, model.features(images), strict=True)):
        # mmdetection records distances in pixels, AdelaiDet in strides.
        distances = raw.maps.distances[i] * (model.strides[i] if ours else 1)
        maps = (raw.maps.classes[i], distances, raw.maps.centerness[i], raw.parameters[i])
        reference.near(f"neck_{i}" if ours else f"feat_{level}", feature, relative=1e-4)
        for kind, (name, value) in enumerate(zip(("cls", "reg", "ctr", "controller"), maps, strict=True)):
            reference.near(f"bbox_head_{kind}_{i}" if ours else f"{name}_{level}", value, relative=1e-4)


def test_detections(case: Case, raw: Raw) -> None:
    reference = case.reference
    assert raw.detections is not None
    labels = reference.full("final_labels") if "final_labels" in reference.arrays else None
    check_detections(case, case.model.predict(raw, inputs((375, 465)).geometry)[0], labels=labels)
    if labels is not None:
        return
    found = raw.detections[0]
    boxes, classes = reference.full("det_boxes"), reference.full("det_classes")
    index, gap = matched(boxes, classes, found.boxes.numpy(), found.labels.numpy())
    assert (gap > 1e-2).sum() <= 2
    good = gap <= 1e-2
    assert np.abs(found.scores.numpy()[index[good]] - reference.full("det_scores")[good]).max() <= 1e-3
    points, _ = dense_points(raw.maps.sizes, case.model.strides, torch.device("cpu"))
    assert np.array_equal(points[found.cells].numpy()[index[good]], reference.full("det_locations")[good])


def test_masks_of_the_recorded_detections(case: Case, raw: Raw) -> None:
    reference, model = case.reference, case.model
    if "det_locations" not in reference.arrays:
        return  # mmdetection's are compared after they were drawn
    reference.near("mask_feats", raw.shared, relative=1e-4)
    points, _ = dense_points(raw.maps.sizes, model.strides, torch.device("cpu"))
    wanted = torch.from_numpy(reference.full("det_locations"))
    # Points of different levels never coincide: P3's are 4 modulo 8, P4's 8 modulo 16, and so on.
    cells = (points[None] == wanted[:, None]).all(-1).int().argmax(1)
    logits = model.masks(raw.maps, raw.parameters, raw.shared, [cells])
    reference.near("mask_probs", logits[:, None].sigmoid(), absolute=1e-3)


def test_losses(case: Case) -> None:
    data = batch()
    raw = case.model(data.inputs, data.truth())
    losses = case.model.loss(raw, data)
    names = {"class": ("fcos_cls", "cls"), "box": ("fcos_loc", "bbox"), "centerness": ("fcos_ctr", "centerness")}
    for ours, theirs in {**names, "mask": ("mask", "mask")}.items():
        key = next(f"train/loss_{name}" for name in theirs if f"train/loss_{name}" in case.reference.arrays)
        assert float(losses[ours]) == pytest.approx(float(case.reference.full(key)), rel=1e-4), key


@torch.no_grad()
def test_boxinst_is_condinst_until_the_mask_loss() -> None:
    case = ready("adet_boxinst_r50", 0.4)
    data = batch()
    raw = case.model(data.inputs, data.truth())
    assert raw.truth is not None
    sums, counts = dense_losses(raw.maps, [t.targets for t in raw.truth], rules=case.model.rules)
    for ours, theirs in (("class", "cls"), ("box", "loc"), ("centerness", "ctr")):
        want = float(case.reference.full(f"iter0/loss_fcos_{theirs}"))
        assert float(sums[ours] / counts[ours]) == pytest.approx(want, rel=1e-4)


def test_aligned_bilinear() -> None:
    reference = Reference("ops", *_ops())
    features = torch.from_numpy(recipe().normal("ops.feat", (1, 8, 24, 32)))
    reference.near("aligned_bilinear_x2", aligned_bilinear(features[:, :2], 2), absolute=1e-5)
    points, _ = dense_points([(3, 4)], [8], torch.device("cpu"))
    assert np.array_equal(reference.full("compute_locations_3x4_s8"), points.numpy())


def _ops() -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, torch.Tensor]]:
    with np.load(shared("parity/ops.npz")) as stored:
        arrays = {name: stored[name] for name in ("aligned_bilinear_x2", "compute_locations_3x4_s8")}
    return json.loads(shared("parity/ops.json").read_bytes()), arrays, {}
