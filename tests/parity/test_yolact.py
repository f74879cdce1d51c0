"""YOLACT of its authors and of mmdetection through the importers that users run, stage by stage.

The original's raw outputs and losses were recorded with batch norms in training mode, and its detections in evaluation
mode after that, with the statistics moved once. mmdetection's were all recorded in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.models.yolact import Raw
from maskwright.nn.norm import normalize_pixels
from maskwright.ops.boxes import clip
from maskwright.structures import Batch, Geometry, Images, Masks, Scene, Segments
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import SIZE, Case, Reference, check_detections, matched, picture, recipe

SIDE = (550, 550)
GRIDS = (69, 35, 18, 9, 5)
FINAL = ("final_boxes", "final_scores", "final_mask_area", "final_masks_first20")
# Every recorded key is read by a test below; a new one must be added here and there.
KEYS = {
    "yolact_r50": {
        *("preprocessed", "raw_loc", "raw_conf", "raw_mask", "raw_priors", "raw_proto", "raw_segm"),
        *("det_box", "det_mask", "det_class", "det_score", "ccnms_box", "ccnms_class", "ccnms_score"),
        *("final_classes", *FINAL),
        *(f"loss/{name}" for name in "BMCS"),
    },
    "mmdet_yolact_r50": {
        "preprocessed",
        *(f"neck_{i}" for i in range(5)),
        *(f"bbox_head_{kind}_{i}" for kind in range(3) for i in range(5)),
        *("final_labels", *FINAL),
        *(f"train/loss_{name}" for name in ("cls", "bbox", "mask", "segm")),
    },
}


def ready(family: str) -> Case:
    reference = Reference.read(family)
    importer, state = require_importer(reference.state, family), reference.state
    options = {**importer.options(state), "max_masks": None}
    model: Any = build(importer.model(state), importer.taxonomy(state), **options)
    assert load_state(model, importer.convert(state), source=family).complete
    return Case(reference, importer, model.eval())


def pixels(family: str) -> Tensor:
    if family.startswith("mmdet"):
        return picture(SIDE)[None]
    return functional.interpolate(picture()[None].float(), SIDE, mode="bilinear", align_corners=False)


def images(family: str) -> Images:
    original = (825, 825) if family.startswith("mmdet") else (375, 465)
    return Images(pixels=pixels(family), geometry=(Geometry.resized(original, SIDE),))


def batch(family: str) -> Batch:
    size = SIDE if family.startswith("mmdet") else SIZE
    corners, labels, dense = recipe().targets(*size)
    masks = functional.interpolate(torch.from_numpy(dense)[None].float(), SIDE, mode="nearest")[0].bool()
    boxes = torch.from_numpy(corners) * torch.tensor([SIDE[1] / size[1], SIDE[0] / size[0]] * 2)
    segments = Segments(size=SIDE, labels=torch.from_numpy(labels), boxes=boxes, masks=Masks.from_dense(masks))
    inputs = Images(pixels=pixels(family), geometry=(Geometry.identity(SIDE),))
    return Batch(inputs=inputs, scenes=(Scene(size=SIDE, segments=segments),), keys=("recipe",))


@pytest.fixture(scope="module", params=sorted(KEYS))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with torch.no_grad():
        yield ready(request.param)


@pytest.fixture(scope="module")
def learning(case: Case) -> tuple[Raw, Batch]:
    """The forward pass that was recorded for losses, and for the original's raw outputs."""
    data = batch(case.reference.family)
    case.model.train(case.reference.family == "yolact_r50")
    raw = case.model(data.inputs, data.truth())
    case.model.eval()
    return raw, data


@pytest.fixture(scope="module")
def raw(case: Case, learning: tuple[Raw, Batch]) -> Raw:
    assert learning
    return case.model(images(case.reference.family))


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS[case.reference.family]


def test_dense_stages(case: Case, raw: Raw, learning: tuple[Raw, Batch]) -> None:
    model, reference, inputs = case.model, case.reference, images(case.reference.family)
    normal = normalize_pixels(inputs.pixels, model.pixel_mean, model.pixel_std, inputs.sizes)
    reference.near("preprocessed", normal, relative=1e-5)
    if reference.family == "yolact_r50":
        trained = learning[0]
        assert trained.semantic is not None
        reference.near("raw_loc", trained.deltas, relative=1e-4)
        reference.near("raw_conf", trained.class_logits.roll(1, -1), relative=1e-4)
        reference.near("raw_mask", trained.coefficients, relative=1e-4)
        reference.near("raw_proto", trained.prototypes.permute(0, 2, 3, 1), relative=1e-4)
        reference.near("raw_segm", trained.semantic, relative=1e-4)
        corners = raw.anchors.unflatten(1, (2, 2))
        priors = torch.cat((corners.mean(1), corners[:, 1] - corners[:, 0]), 1) / SIDE[0]
        reference.near("raw_priors", priors, relative=1e-6)
        return
    start = 0
    for i, (side, feature) in enumerate(zip(GRIDS, model.features(inputs), strict=True)):
        reference.near(f"neck_{i}", feature, relative=1e-4)
        stop = start + side * side * 3
        for kind, value in enumerate((raw.class_logits, raw.deltas, raw.coefficients)):
            maps = value[:, start:stop].reshape(1, side, side, -1).permute(0, 3, 1, 2)
            reference.near(f"bbox_head_{kind}_{i}", maps, relative=1e-4)
        start = stop


def test_detections(case: Case, raw: Raw) -> None:
    scene = case.model.predict(raw, images(case.reference.family).geometry)[0]
    if case.reference.family == "mmdet_yolact_r50":
        check_detections(case, scene, labels=case.reference.full("final_labels"))
        return
    reference, found, objects = case.reference, (raw.detections or [])[0], scene.objects()
    # its last step scales and clips the boxes in place, so that det_box was stored in the file's pixels
    boxes, classes = reference.full("det_box"), reference.full("det_class")
    ours = clip(found.boxes * torch.tensor([465 / SIDE[1], 375 / SIDE[0]] * 2), (375, 465)).numpy()
    index, gap = matched(boxes, classes, ours, found.labels.numpy())
    good = gap <= 1e-2
    assert (~good).sum() <= 2
    assert np.abs(found.scores.numpy()[index[good]] - reference.full("det_score")[good]).max() <= 1e-3
    coefficients = raw.coefficients[0][found.rows].numpy()[index[good]]
    assert np.abs(coefficients - reference.full("det_mask")[good]).max() <= 1e-3
    assert objects.boxes is not None
    assert objects.masks is not None
    # the original cuts corners to whole pixels in the end
    whole = np.floor(objects.boxes.numpy()[index[good]] + 1e-3)
    assert np.array_equal(reference.full("final_classes")[good], objects.labels.numpy()[index[good]])
    assert np.abs(whole - reference.full("final_boxes")[good]).max() <= 1
    assert np.abs(reference.full("final_scores") - reference.full("det_score")).max() == 0
    area, want = objects.masks.area().numpy()[index[good]], reference.full("final_mask_area")[good]
    assert np.all(np.abs(area - want) <= np.maximum(5, 0.005 * want))
    first = np.flatnonzero(good[:20])
    drawn = objects.masks[torch.from_numpy(index[first])].dense().numpy()
    assert (drawn ^ reference.full("final_masks_first20")[first]).sum() <= 20


def test_fast_nms_across_classes(case: Case, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    assert raw.detections  # made after the statistics were moved, as what follows
    if "ccnms_box" not in case.reference.arrays:
        return
    monkeypatch.setattr(case.model, "agnostic_nms", True)
    monkeypatch.setattr(case.model, "max_per_image", 1000)
    monkeypatch.setattr(case.model, "top_k", 200)
    found = case.model(images("yolact_r50")).detections[0]
    boxes, classes = case.reference.full("ccnms_box") * SIDE[0], case.reference.full("ccnms_class")
    index, gap = matched(boxes, classes, found.boxes.numpy(), found.labels.numpy())
    assert len(found.boxes) == len(boxes)
    assert gap.max() <= 1e-2
    assert np.abs(found.scores.numpy()[index] - case.reference.full("ccnms_score")).max() <= 1e-3


def test_losses(case: Case, learning: tuple[Raw, Batch]) -> None:
    losses = case.model.loss(*learning)
    names = {"box": ("B", "bbox"), "mask": ("M", "mask"), "class": ("C", "cls"), "semantic": ("S", "segm")}
    for ours, (original, mmdetection) in names.items():
        key = f"loss/{original}" if case.reference.family == "yolact_r50" else f"train/loss_{mmdetection}"
        want = float(case.reference.full(key).reshape(()))
        assert float(losses[ours]) == pytest.approx(want, rel=1e-4), ours
