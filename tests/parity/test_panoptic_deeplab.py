"""detectron2's Panoptic-DeepLab through the importer that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from maskwright.models.panoptic_deeplab import Raw
from maskwright.ops.group_centers import find_centers
from maskwright.ops.query_maps import Resampling
from maskwright.structures import Geometry, Images
from maskwright.weights.importers import require_importer
from maskwright.weights.report import load_state
from maskwright.zoo import build
from tests.parity.harness import Case, Reference, picture

SIZE, FINAL = (256, 320), (384, 480)
KEYS = {
    *("feat_res2", "feat_res3", "feat_res5", "sem_logits", "center_heatmap", "offset", "panoptic_seg", "centers_yx"),
    *("inst_scores", "inst_classes", "inst_mask_area", "inst_boxes"),
}


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    reference = Reference.read("d2_panoptic_deeplab_r52")
    importer = require_importer(reference.state, reference.family)
    # the reference was made for crops of 128 x 160; offsets are not scaled there
    options = {**importer.options(reference.state), "pool": (8, 10), "scale_offsets": False}
    model: Any = build(importer.model(reference.state), importer.taxonomy(reference.state), **options)
    assert load_state(model, importer.convert(reference.state), source=reference.family).complete
    with torch.no_grad():
        yield Case(reference, importer, model.eval())


@pytest.fixture(scope="module")
def inputs(case: Case) -> Images:
    return Images.pad([picture(SIZE)], [Geometry.resized(FINAL, SIZE)], multiple=16)


@pytest.fixture(scope="module")
def raw(case: Case, inputs: Images) -> Raw:
    return case.model(inputs)


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS
    assert case.importer.model(case.reference.state) == "panoptic-deeplab-r52"
    taxonomy = case.importer.taxonomy(case.reference.state)
    assert [i for i, thing in enumerate(taxonomy.thing) if thing] == case.reference.meta["thing_ids"]
    about = case.reference.meta["panoptic_deeplab"]
    model = case.model
    assert (model.stuff_area, model.score_threshold, model.window, model.max_per_image) == tuple(
        about[name] for name in ("STUFF_AREA", "CENTER_THRESHOLD", "NMS_KERNEL", "TOP_K_INSTANCE")
    )


def test_maps(case: Case, inputs: Images, raw: Raw) -> None:
    reference, model = case.reference, case.model
    pixels = (inputs.pixels - model.pixel_mean.view(1, 3, 1, 1)) / model.pixel_std.view(1, 3, 1, 1)
    for name, features in zip(("feat_res2", "feat_res3", "feat_res5"), model.backbone(pixels), strict=True):
        reference.near(name, features, relative=1e-4)
    for name, maps, scale in (
        ("sem_logits", raw.semantic_logits, 1),
        ("center_heatmap", raw.heat, 1),
        ("offset", raw.offsets, 4),
    ):
        full = functional.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False) * scale
        reference.near(name, full, relative=1e-4)


def test_centers(case: Case, inputs: Images, raw: Raw) -> None:
    view = inputs.geometry[0]
    way = Resampling.chained((64, 80), SIZE, view.valid, view.original)
    heat, _ = case.model.located(raw.heat[0], raw.offsets[0], view, SIZE, way)
    found = {tuple(place) for place in find_centers(heat).tolist()}
    wanted = {tuple(place) for place in case.reference.full("centers_yx").tolist()}
    assert len(found ^ wanted) <= 2


def test_panoptic_map_and_instances(case: Case, inputs: Images, raw: Raw) -> None:
    reference = case.reference
    scene = case.model.predict(raw, inputs.geometry)[0]
    segments = scene.objects()
    theirs = reference.full("panoptic_seg").astype(np.int64)
    ours = scene.panoptic.numpy()
    assert ((theirs == -1) != (ours == 0)).mean() < 1e-3
    # the same partition: each of their segments is one of ours, of the same class
    labels = dict(zip(segments.ids.tolist(), segments.labels.tolist(), strict=True))
    strayed = 0
    for name in np.unique(theirs[theirs >= 0]):
        inside = ours[theirs == name]
        most = np.bincount(inside).argmax()
        strayed += int((inside != most).sum())
        assert labels[int(most)] == name // 1000
    assert strayed <= 1e-3 * theirs.size
    things = torch.tensor([case.model.taxonomy.thing[label] for label in segments.labels])
    objects = segments[things.nonzero().flatten()]
    boxes, area = reference.full("inst_boxes"), reference.full("inst_mask_area")
    assert len(objects) == len(boxes)
    apart = np.abs(objects.boxes.numpy()[:, None] - boxes[None]).max(-1)
    apart = apart + np.abs(objects.masks.area().numpy()[:, None] - area[None]) / area[None]
    index = apart.argmin(0)
    same = apart[index, np.arange(len(boxes))] < 0.02
    assert same.mean() > 0.97
    assert len(set(index[same].tolist())) == same.sum()
    gap = np.abs(objects.scores.numpy()[index] - reference.full("inst_scores").clip(min=0))
    assert gap[same].max() <= 1e-3
    assert (objects.labels.numpy()[index] == reference.full("inst_classes"))[same].all()
