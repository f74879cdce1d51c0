"""detectron2's Panoptic FPN through the importer that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional

from maskwright.models.panoptic_fpn import Raw
from maskwright.structures import Batch, Scene
from tests.parity.harness import SIZE, Case, batch, inputs, matched

FINAL = (375, 465)
KEYS = {
    *("sem_logits_stride4", "sem_logits_full_padded", "sem_argmax", "sem_seg_final"),
    *(
        "inst_boxes",
        "inst_scores",
        "inst_classes",
        "inst_mask_area",
        "panoptic_seg",
        "sem_target",
        "train_loss_sem_seg",
    ),
}


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    with torch.no_grad():
        reference = Case.make("d2_panoptic_fpn_r50")
        about = reference.reference.meta["thresholds"]["combine"]
        assert (reference.model.overlap, reference.model.stuff_area) == (about["overlap"], about["stuff_area"])
        yield reference


@pytest.fixture(scope="module")
def raw(case: Case) -> Raw:
    return case.model(inputs(FINAL))


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == KEYS
    assert case.importer.model(case.reference.state) == "panoptic-fpn-r50"
    assert sum(case.importer.taxonomy(case.reference.state).thing) == 80


def test_semantic_maps(case: Case, raw: Raw) -> None:
    reference = case.reference
    reference.near("sem_logits_stride4", raw.semantic_logits, relative=1e-4)
    full = functional.interpolate(raw.semantic_logits, scale_factor=4, mode="bilinear", align_corners=False)
    reference.near("sem_logits_full_padded", full, relative=1e-4)
    cut = full[..., : SIZE[0], : SIZE[1]]
    final = functional.interpolate(cut, size=FINAL, mode="bilinear", align_corners=False)[0]
    reference.near("sem_seg_final", final, relative=1e-4)
    classes = case.model.likeliest(raw.semantic_logits[0], inputs(FINAL).geometry[0])
    theirs = torch.tensor([case.model.semantic_classes.of_class[c] if c >= 0 else 0 for c in range(-1, 133)])
    got, want = reference.pair("sem_argmax", theirs[classes + 1])
    assert (got != want).mean() < 1e-3


def test_instances(case: Case, raw: Raw) -> None:
    reference = case.reference
    found = case.model.instances(raw, inputs(FINAL).geometry)[0].objects()
    boxes, classes = reference.full("inst_boxes"), reference.full("inst_classes")
    index, gap = matched(boxes, classes, found.boxes.numpy(), found.labels.numpy())
    assert len(found) == len(boxes)
    assert gap.max() <= 1e-2
    assert np.abs(found.scores.numpy()[index] - reference.full("inst_scores")).max() <= 1e-3
    area, want = found.masks.area().numpy()[index], reference.full("inst_mask_area")
    assert np.all(np.abs(area - want) <= np.maximum(5, 0.005 * want))


def test_panoptic_map(case: Case, raw: Raw) -> None:
    scene = case.model.predict(raw, inputs(FINAL).geometry)[0]
    segments, wanted = scene.objects(), case.reference.meta["segments_info"]
    assert len(segments) == len(wanted)
    theirs = case.reference.full("panoptic_seg").astype(np.int64)
    assert (theirs != scene.panoptic.numpy()).mean() < 1e-3
    label = dict(zip(segments.ids.tolist(), segments.labels.tolist(), strict=True))
    score = dict(zip(segments.ids.tolist(), segments.scores.tolist(), strict=True))
    for about in wanted:  # stuff counts from 1 there
        thing = about["isthing"]
        assert label[about["id"]] == about["category_id"] + (0 if thing else 79)
        assert not thing or score[about["id"]] == pytest.approx(about["score"], abs=1e-3)


def test_semantic_loss(case: Case) -> None:
    target = torch.from_numpy(case.reference.full("sem_target").astype(np.int64))
    classes = torch.tensor([*case.model.semantic_classes.to_class])
    classes[0] = 0  # any thing
    semantic = torch.where(target == 255, -1, classes[target.clamp(max=53)])
    plain = batch()
    data = Batch(
        inputs=plain.inputs, keys=plain.keys,
        scenes=(Scene(size=SIZE, segments=plain.truth()[0].segments, semantic=semantic),),
    )  # fmt: skip
    raw = case.model(data.inputs, data.truth())
    losses, counts = case.model.loss(raw, data), case.model.loss_counts(raw, data)
    wanted = float(case.reference.full("train_loss_sem_seg"))
    assert float(losses["semantic"]) == pytest.approx(wanted, rel=1e-4)
    assert losses.keys() == counts.keys()
    assert int(counts["semantic"]) == int((target != 255).sum())
