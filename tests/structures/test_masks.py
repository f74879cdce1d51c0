"""``Masks``: pixels survive, selections behave as tensors do, wrong runs are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.ops import masks_to_boxes, roi_align

from maskwright.errors import InputError
from maskwright.structures import Masks

quick = settings(deadline=None, max_examples=50)
dense_masks = st.integers(1, 3).flatmap(
    lambda dims: hnp.arrays(np.bool_, st.tuples(st.integers(0, 4), *[st.integers(1, 6)] * dims))
)


def random_masks(count: int, *size: int, seed: int = 0) -> torch.Tensor:
    """Bool [count, *size] of noise."""
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(seed)) < 0.4


@quick
@given(dense_masks)
def test_pixels_survive(values: np.ndarray) -> None:
    dense = torch.from_numpy(values)
    masks = Masks.from_dense(dense)
    assert len(masks) == len(dense)
    assert masks.size == dense.shape[1:]
    assert torch.equal(masks.dense(), dense)
    assert torch.equal(masks.area(), dense.flatten(1).sum(1) if len(dense) else torch.zeros(0, dtype=torch.int64))


@quick
@given(hnp.arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 6))))
def test_coco_dictionaries_survive(values: np.ndarray) -> None:
    masks = Masks.from_dense(torch.from_numpy(values))
    again = Masks.from_coco(masks.rle(), masks.size)
    assert torch.equal(again.counts, masks.counts)
    assert torch.equal(again.offsets, masks.offsets)


def test_both_uncompressed_and_compressed_forms_are_read() -> None:
    masks = Masks.from_coco([{"size": [2, 3], "counts": [1, 2, 3]}, {"size": [2, 3], "counts": b"123"}], (2, 3))
    assert torch.equal(masks.dense()[0], masks.dense()[1])
    assert masks.area().tolist() == [2, 2]


def test_integers_count_as_foreground_whatever_their_value() -> None:
    values = torch.tensor([[[0, 255], [7, 0]]])
    assert torch.equal(Masks.from_dense(values).dense(), values != 0)


@quick
@given(st.integers(0, 5), st.data())
def test_selection_is_that_of_tensors(count: int, data: st.DataObject) -> None:
    dense = random_masks(count, 3, 4)
    masks = Masks.from_dense(dense)
    for index in (
        torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool),
        torch.tensor(
            data.draw(st.lists(st.integers(-count, count - 1), max_size=6)) if count else [], dtype=torch.int64
        ),
        data.draw(st.slices(count).filter(lambda cut: cut.step is None or cut.step > 0)),
    ):
        assert torch.equal(masks[index].dense(), dense[index])


def test_selection_by_a_list_and_concatenation() -> None:
    dense = random_masks(5, 3, 4)
    masks = Masks.from_dense(dense)
    assert torch.equal(masks[[4, 0]].dense(), dense[[4, 0]])
    assert len(masks[[]]) == 0
    parts = [masks[:2], Masks.empty((3, 4)), masks[2:]]
    assert torch.equal(Masks.cat(parts).dense(), dense)


def test_an_index_outside_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        _ = Masks.from_dense(random_masks(2, 3, 4))[torch.tensor([2])]


def test_boxes_are_tight_with_exclusive_far_edges() -> None:
    dense = random_masks(6, 9, 11)
    dense[:, 0, 0] = True
    wanted = masks_to_boxes(dense) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert torch.equal(Masks.from_dense(dense).boxes(), wanted)
    assert Masks.from_dense(torch.zeros(1, 3, 4)).boxes().tolist() == [[0, 0, 0, 0]]


def test_iou_and_the_rule_for_crowds() -> None:
    a, b = random_masks(3, 9, 11), random_masks(4, 9, 11, seed=1)
    common = (a[:, None] & b).sum((2, 3)).double()
    own, other = a.sum((1, 2))[:, None].double(), b.sum((1, 2)).double()
    got = Masks.from_dense(a).iou(Masks.from_dense(b))
    assert torch.equal(got, common / (own + other - common))
    crowd = torch.tensor([True, False, True, False])
    got = Masks.from_dense(a).iou(Masks.from_dense(b), crowd)
    assert torch.equal(got, torch.where(crowd, common / own, common / (own + other - common)))


@pytest.mark.parametrize("aligned", [True, False])
def test_crop_is_roi_align(aligned: bool) -> None:
    dense = random_masks(3, 20, 30)
    boxes = torch.tensor([[2.5, 3.0, 17.25, 19.0], [-4.0, 5.0, 40.0, 12.0], [0.0, 0.0, 30.0, 20.0]])
    rois = torch.cat([torch.arange(3.0)[:, None], boxes], dim=1)
    wanted = roi_align(dense[:, None].float(), rois, (14, 7), 1.0, -1, aligned)[:, 0]
    got = Masks.from_dense(dense).crop(boxes, (14, 7), aligned=aligned)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert Masks.from_dense(dense).crop(boxes, 28).shape == (3, 28, 28)


def test_no_masks() -> None:
    none = Masks.empty((3, 4))
    assert len(none) == 0
    assert none.dense().shape == (0, 3, 4)
    assert none.rle() == []
    assert none.boxes().shape == (0, 4)
    assert none.iou(Masks.from_dense(random_masks(2, 3, 4))).shape == (0, 2)
    assert none.crop(torch.zeros(0, 4), 7).shape == (0, 7, 7)


@pytest.mark.parametrize("runs", [[4, 4, 5], [4, 4], [4, -4, 12], [2**31 - 1, -(2**31 - 13)]])
def test_runs_that_do_not_fit_name_the_mask(runs: list[int]) -> None:
    counts = torch.tensor([12, 4, 4, 4, *runs], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"12 = 3x4.*mask 2 does not"):
        Masks(size=(3, 4), counts=counts, offsets=torch.tensor([0, 1, 4, len(counts)]))


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 4, 3], [0, -1, 3]])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="mask"):
        Masks(size=(3, 4), counts=torch.tensor([4, 4, 4], dtype=torch.int32), offsets=torch.tensor(offsets))


def test_errors_say_what_must_hold() -> None:
    masks = Masks.from_dense(random_masks(2, 3, 4))
    with pytest.raises(ValueError, match=r"counts must be torch.int32, got torch.int64"):
        Masks(size=(3, 4), counts=masks.counts.long(), offsets=masks.offsets)
    with pytest.raises(ValueError, match=r"\(N, \*size\), got \(12,\)"):
        Masks.from_dense(torch.zeros(12))
    with pytest.raises(ValueError, match=r"share one size, got \(3, 4\) and \(4, 3\)"):
        masks.iou(Masks.empty((4, 3)))
    with pytest.raises(ValueError, match="share one size"):
        Masks.cat([masks, Masks.empty((4, 3))])
    with pytest.raises(ValueError, match="at least one"):
        Masks.cat([])
    with pytest.raises(ValueError, match=r"boxes must have shape \(2, 4\), got \(1, 4\)"):
        masks.crop(torch.zeros(1, 4), 7)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        Masks.from_dense(random_masks(1, 2, 3, 4)).rle()
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        Masks.from_dense(random_masks(1, 12)).boxes()
    with pytest.raises(InputError, match="mask 1"):
        Masks.from_coco([{"size": [3, 4], "counts": [12]}, {"size": [3, 4], "counts": [13]}], (3, 4))
