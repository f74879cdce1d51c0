"""RTMDet-Ins of mmdetection through the importer that users run, stage by stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from maskwright.models.rtmdet_ins import Raw
from maskwright.nn.norm import normalize_pixels
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import Case, Reference, check_detections, picture, recipe

FAMILY = "mmdet_rtmdet_ins_tiny"
SIDE = (256, 320)
# Every recorded key is read by a test below; a new one must be added here and there.
KEYS = {
    "preprocessed",
    *(f"neck_{i}" for i in range(3)),
    *(f"bbox_head_{kind}_{i}" for kind in range(3) for i in range(3)),
    "bbox_head_3",
    *("final_boxes", "final_scores", "final_labels", "final_mask_area", "final_masks_first20"),
    *(f"train/loss_{name}_{i}" for name in ("cls", "bbox") for i in range(3)),
    "train/loss_mask",
}


@pytest.fixture(scope="module")
def case() -> Case:
    reference = Reference.read(FAMILY)
    importer, state = require_importer(reference.state, FAMILY), reference.state
    model: Any = build(importer.model(state), importer.taxonomy(state), **importer.options(state))
    assert load_state(model, importer.convert(state), source=FAMILY).complete
    model.score_threshold = reference.meta["model_cfg"]["test_cfg"]["score_thr"]
    return Case(reference, importer, model.eval())


def images() -> Images:
    return Images(pixels=picture(SIDE)[None], geometry=(Geometry.resized((384, 480), SIDE),))


@pytest.fixture(scope="module")
def raw(case: Case) -> Raw:
    with torch.no_grad():
        return case.model(images())


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS


def test_dense_stages(case: Case, raw: Raw) -> None:
    model, near = case.model, case.reference.near
    inputs = images()
    normal = normalize_pixels(inputs.pixels, model.pixel_mean, model.pixel_std, inputs.sizes)
    near("preprocessed", normal.flip(1), relative=1e-5)
    with torch.no_grad():
        features = model.features(inputs)
        kernels = model.head.kernels(features)
    for i in range(3):
        near(f"neck_{i}", features[i], relative=1e-4)
        near(f"bbox_head_0_{i}", raw.maps.classes[i], relative=1e-4)
        near(f"bbox_head_1_{i}", raw.maps.distances[i], relative=1e-4)
        near(f"bbox_head_2_{i}", kernels[i], relative=1e-4)
    near("bbox_head_3", raw.shared, relative=1e-4)


def test_detections(case: Case, raw: Raw) -> None:
    scene = case.model.predict(raw, images().geometry)[0]
    check_detections(case, scene, labels=case.reference.full("final_labels"))


def test_losses(case: Case) -> None:
    corners, labels, dense = recipe().targets(*SIDE)
    segments = Segments(
        size=SIDE,
        labels=torch.from_numpy(labels),
        boxes=torch.from_numpy(corners),
        masks=Masks.from_dense(torch.from_numpy(dense)),
    )
    inputs = Images(pixels=picture(SIDE)[None], geometry=(Geometry.identity(SIDE),))
    batch = Batch(inputs=inputs, scenes=(Scene(size=SIDE, segments=segments),), keys=("recipe",))
    with torch.no_grad():
        losses: dict[str, Tensor] = case.model.loss(case.model(batch.inputs, batch.truth()), batch)

    def recorded(name: str) -> float:
        return sum(float(case.reference.full(f"train/{key}")) for key in KEYS_OF[name])

    for name in ("class", "box", "mask"):
        assert float(losses[name]) == pytest.approx(recorded(name), rel=1e-4), name


KEYS_OF = {
    "class": [f"loss_cls_{i}" for i in range(3)],
    "box": [f"loss_bbox_{i}" for i in range(3)],
    "mask": ["loss_mask"],
}
