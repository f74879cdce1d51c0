"""mmdetection's Mask R-CNN, with FPN and with PAFPN, through the importer that users run, stage by stage.

PANet itself has no code that still runs: PAFPN is its path aggregation, and the rest is tested against the paper in
``tests/models/test_panet.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from maskwright.models.mask_rcnn import MaskRCNN
from maskwright.models.panet import PANet
from tests.parity import two_stage
from tests.parity.harness import Case, inputs

FAMILIES = {"mmdet_mask_rcnn_r50": MaskRCNN, "mmdet_mask_rcnn_r50_pafpn": PANet}
LOSSES = {"class": "loss_cls", "box": "loss_bbox", "mask": "loss_mask"}


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with torch.no_grad():
        yield two_stage.case(request.param)


@pytest.fixture(scope="module")
def raw(case: Case) -> Any:
    return case.model(inputs())


def test_every_recorded_key_is_tested(case: Case) -> None:
    assert set(case.reference.meta["arrays"]) == two_stage.KEYS


def test_the_importer_tells_the_families_apart(case: Case) -> None:
    assert type(case.model) is FAMILIES[case.reference.family]
    assert len(case.model.taxonomy) == 80


def test_pixels_pyramid_and_rpn(case: Case) -> None:
    two_stage.check_pixels(case)
    two_stage.check_dense(case)


def test_proposals(case: Case, raw: Any) -> None:
    two_stage.check_proposals(case, raw.proposals[0], ("proposals", "proposal_scores"))


def test_detections(case: Case, raw: Any) -> None:
    two_stage.check_final(case, raw)


def test_losses(case: Case) -> None:
    two_stage.check_losses(case, two_stage.losses(case), LOSSES)
