"""mmdetection's Cascade Mask R-CNN through the importer that users run, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from maskwright.models.cascade_mask_rcnn import CascadeMaskRCNN
from maskwright.weights.importers import recognize
from tests.parity import two_stage
from tests.parity.harness import Case, Reference, inputs

FAMILY = "mmdet_cascade_mask_rcnn_r50"
STAGES = range(3)
LOSSES = {
    f"{ours}_{i}": f"s{i}.loss_{theirs}"
    for i in STAGES
    for ours, theirs in (("class", "cls"), ("box", "bbox"), ("mask", "mask"))
}


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    with torch.no_grad():
        yield two_stage.case(FAMILY)


@pytest.fixture(scope="module")
def raw(case: Case) -> Any:
    return case.model(inputs())


def test_every_recorded_key_is_tested(case: Case) -> None:
    stages = {f"train/{name}" for name in LOSSES.values()} | {f"train/s{i}.acc" for i in STAGES}
    assert set(case.reference.meta["arrays"]) == two_stage.DENSE | two_stage.FINAL | two_stage.RPN_LOSSES | stages


def test_the_importer_knows_a_cascade_from_its_relatives(case: Case) -> None:
    assert type(case.model) is CascadeMaskRCNN
    for other in ("mmdet_htc_without_semantic_r50", "mmdet_solo_r50", "mmdet_yolact_r50"):
        found = recognize(Reference.read(other).state)
        assert found is None or type(found) is not type(case.importer)


def test_pixels_pyramid_and_rpn(case: Case) -> None:
    two_stage.check_pixels(case)
    two_stage.check_dense(case)


def test_proposals(case: Case, raw: Any) -> None:
    two_stage.check_proposals(case, raw.proposals[0], ("proposals", "proposal_scores"))


def test_detections(case: Case, raw: Any) -> None:
    two_stage.check_final(case, raw)


def test_losses(case: Case) -> None:
    two_stage.check_losses(case, two_stage.losses(case), LOSSES)
