"""Matching of candidates with objects, in detectron2's way."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import Matcher

from maskwright.ops.matching import match


def test_three_kinds() -> None:
    iou = torch.tensor([[0.1, 0.4, 0.7, 0.3, 0.69], [0.2, 0.0, 0.1, 0.8, 0.1]])
    matched, kind = match(iou, 0.3, 0.7, False)
    assert matched.tolist() == [1, 0, 0, 1, 0]
    assert kind.tolist() == [0, -1, 1, 1, -1]
    assert (matched.dtype, kind.dtype) == (torch.int64, torch.int8)


def test_every_object_claims_its_best_ties_included() -> None:
    iou = torch.tensor([[0.2, 0.2, 0.1], [0.0, 0.25, 0.9]])
    matched, kind = match(iou, 0.3, 0.7, True)
    assert kind.tolist() == [1, 1, 1]
    assert matched.tolist() == [0, 1, 1]  # the second candidate is claimed by object 0, but overlaps object 1 more


def test_an_object_that_nothing_touches_claims_nothing() -> None:
    matched, kind = match(torch.zeros(2, 4), 0.3, 0.7, True)
    assert kind.tolist() == [0, 0, 0, 0]
    assert matched.tolist() == [0, 0, 0, 0]


def test_nothing_to_match() -> None:
    matched, kind = match(torch.zeros(0, 5), 0.3, 0.7, True)
    assert matched.tolist() == [0] * 5
    assert kind.tolist() == [0] * 5
    assert [len(t) for t in match(torch.zeros(3, 0), 0.3, 0.7, True)] == [0, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 60), st.integers(0, 2**20), st.booleans())
def test_equals_torchvision(objects: int, candidates: int, seed: int, low_quality: bool) -> None:
    # overlaps in steps of a tenth, so that ties and exact thresholds are common
    iou = torch.randint(0, 11, (objects, candidates), generator=torch.Generator().manual_seed(seed)) / 10
    iou[:, 0] = iou[:, 0].clamp(min=0.1)
    for low, high in ((0.3, 0.7), (0.5, 0.5)):
        reference = Matcher(high, low, allow_low_quality_matches=low_quality)(iou)
        matched, kind = match(iou, low, high, low_quality)
        assert torch.equal(kind == 1, reference >= 0)
        assert torch.equal(kind == 0, reference == -1)
        assert torch.equal(matched[kind == 1], reference[kind == 1])
