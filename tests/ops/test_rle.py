"""Run-lengths against pixels, pycocotools and torchvision; hostile runs are refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from torchvision.ops import roi_align

from maskwright.errors import InputError
from maskwright.ops import rle
from tests.ops.peak import extra_megabytes

sides = st.integers(1, 9)
quick = settings(deadline=None, max_examples=60)


@st.composite
def masks(draw: st.DrawFn, dims: int = 2, count: st.SearchStrategy[int] | None = None) -> np.ndarray:
    """Bool [N, *size]: noise, or overlapping rectangles, or empty, or full."""
    shape = (draw(st.integers(0, 4) if count is None else count), *(draw(sides) for _ in range(dims)))
    kind = draw(st.sampled_from(("noise", "boxes", "empty", "full")))
    if kind == "noise":
        return draw(hnp.arrays(np.bool_, shape))
    out = np.full(shape, kind == "full")
    if kind == "boxes":
        for mask in out:
            cut = tuple(slice(*sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in shape[1:])
            mask[cut] ^= True
    return out


def reference(values: np.ndarray) -> list[dict[str, Any]]:
    """pycocotools' encoding of bool [N, H, W]."""
    return [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in values]


def blobs(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Bool [N, H, W] of rectangles, some with a hole."""
    rng = np.random.default_rng(seed)
    out = np.zeros((count, *size), bool)
    for mask in out:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
            mask[y : y + rng.integers(1, size[0] + 1), x : x + rng.integers(1, size[1] + 1)] ^= True
    return out


# ---- pixels ---------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 3).flatmap(masks))
def test_decode_undoes_encode_on_any_canvas(values: np.ndarray) -> None:
    counts, offsets = rle.encode(values)
    size = values.shape[1:]
    assert counts.dtype == np.int32
    assert offsets.dtype == np.int64
    assert rle.first_invalid(counts, offsets, int(np.prod(size))) == -1
    back = rle.decode(counts, offsets, size)
    assert back.dtype == np.bool_
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(rle.area(counts, offsets), values.sum(tuple(range(1, values.ndim))))


@quick
@given(masks())
def test_runs_strings_areas_and_boxes_are_those_of_pycocotools(values: np.ndarray) -> None:
    size = values.shape[1:]
    counts, offsets = rle.encode(values)
    wanted = reference(values)
    ours = rle.to_coco(counts, offsets, size)
    assert [item["counts"].encode() for item in ours] == [item["counts"] for item in wanted]
    assert all(item["size"] == list(size) for item in ours)
    for objects in (ours, wanted):
        again = rle.from_coco(objects, size)
        np.testing.assert_array_equal(again[0], counts)
        np.testing.assert_array_equal(again[1], offsets)
    if wanted:
        xywh = np.asarray(coco.toBbox(wanted))
        np.testing.assert_array_equal(
            rle.boxes(counts, offsets, size[0]), np.c_[xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]
        )


@pytest.mark.parametrize("rows", [1, 254, 255, 256, 257, 511, 512, 700])
def test_tall_masks_with_many_changes_in_a_column(rows: int) -> None:
    values = np.stack([np.indices((rows, 70)).sum(0) % 2 == 0, np.ones((rows, 70), bool)])
    np.testing.assert_array_equal(rle.decode(*rle.encode(values), (rows, 70)), values)
    assert rle.to_coco(*rle.encode(values), (rows, 70))[0]["counts"].encode() == reference(values)[0]["counts"]


def test_leading_axes_are_slowest_and_integers_count_as_foreground() -> None:
    values = np.zeros((1, 2, 3, 4), np.uint8)
    values[0, 1, 2, 0] = 255
    counts, _ = rle.encode(values)
    assert counts.tolist() == [12 + 2, 1, 9]
    assert rle.encode(np.array([[0, 1, 1, 0]], np.uint8))[0].tolist() == [1, 2, 1]


def test_views_and_read_only_arrays_are_taken() -> None:
    values = np.broadcast_to(np.eye(5, dtype=bool), (2, 5, 5))[:, ::-1].transpose(0, 2, 1)
    np.testing.assert_array_equal(rle.decode(*rle.encode(values), (5, 5)), values)


def test_nothing_in_nothing_out() -> None:
    none = rle.encode(np.zeros((0, 4, 5), bool))
    assert rle.decode(*none, (4, 5)).shape == (0, 4, 5)
    assert rle.boxes(*none, 4).shape == (0, 4)
    assert rle.iou(*none, *none).shape == (0, 0)
    assert rle.to_coco(*none, (4, 5)) == []
    assert rle.from_coco([], (4, 5))[1].tolist() == [0]
    assert rle.decode(*rle.encode(np.zeros((2, 0), bool)), (0,)).shape == (2, 0)


# ---- selection and sets ---------------------------------------------------------------------------------------------


@quick
@given(masks(count=st.integers(1, 5)), st.data())
def test_take_selects_in_order_and_may_repeat(values: np.ndarray, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(-len(values), len(values) - 1), max_size=6)), np.int64)
    np.testing.assert_array_equal(rle.decode(*rle.take(*rle.encode(values), index), values.shape[1:]), values[index])


def test_take_names_an_index_outside() -> None:
    with pytest.raises(InputError, match=r"\[-2, 2\), got 5"):
        rle.take(*rle.encode(np.ones((2, 3, 3), bool)), np.array([0, 5]))


@quick
@given(masks(count=st.integers(1, 4)), st.data())
def test_iou_is_that_of_pycocotools_also_for_crowds(values: np.ndarray, data: st.DataObject) -> None:
    others = data.draw(hnp.arrays(np.bool_, (3, *values.shape[1:])))
    crowd = np.array(data.draw(st.lists(st.booleans(), min_size=3, max_size=3)))
    wanted = np.asarray(coco.iou(reference(values), reference(others), crowd.astype(np.uint8).tolist()))
    for height in (None, values.shape[1]):
        got = rle.iou(*rle.encode(values), *rle.encode(others), crowd, height=height)
        np.testing.assert_array_equal(got, wanted)
    common = (values[:, None] & others[None]).sum((2, 3))
    np.testing.assert_array_equal(rle.intersection(*rle.encode(values), *rle.encode(others)), common)


@quick
@given(masks(count=st.integers(1, 5)))
def test_union_and_intersection_are_canonical(values: np.ndarray) -> None:
    runs = rle.encode(values)
    np.testing.assert_array_equal(rle.union(*runs), rle.encode(values.any(0)[None])[0])
    np.testing.assert_array_equal(rle.intersect(*runs), rle.encode(values.all(0)[None])[0])


def test_runs_of_length_zero_inside_a_mask_change_nothing() -> None:
    odd = np.array([0, 0, 2, 1, 0, 2, 3, 0, 1], np.int32)  # a file may hold such runs; the canonical form is [2, 3, 4]
    cuts = np.array([0, len(odd)])
    plain = rle.encode(rle.decode(odd, cuts, (3, 3)))
    assert plain[0].tolist() == [2, 3, 4]
    np.testing.assert_array_equal(rle.boxes(odd, cuts, 3), rle.boxes(*plain, 3))
    np.testing.assert_array_equal(rle.union(odd, cuts), plain[0])
    np.testing.assert_array_equal(rle.iou(odd, cuts, *plain), [[1.0]])
    np.testing.assert_array_equal(rle.hflip(*rle.hflip(odd, cuts, (3, 3)), (3, 3))[0], plain[0])


# ---- geometry -------------------------------------------------------------------------------------------------------


@quick
@given(masks(count=st.integers(1, 3)), st.data())
def test_flips_and_windows_move_the_pixels(values: np.ndarray, data: st.DataObject) -> None:
    size = values.shape[1:]
    runs = rle.encode(values)
    np.testing.assert_array_equal(rle.hflip(*runs, size)[0], rle.encode(values[:, :, ::-1])[0])
    np.testing.assert_array_equal(rle.vflip(*runs, size)[0], rle.encode(values[:, ::-1])[0])
    top, left = (data.draw(st.integers(-12, 12)) for _ in range(2))
    height, width = data.draw(sides), data.draw(sides)
    wide = np.pad(values, ((0, 0), (12, 24), (12, 24)))
    wanted = wide[:, 12 + top : 12 + top + height, 12 + left : 12 + left + width]
    np.testing.assert_array_equal(rle.window(*runs, size, (top, left, height, width))[0], rle.encode(wanted)[0])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("whole", [True, False], ids=["integer-boxes", "any-boxes"])
def test_crop_is_roi_align_of_the_dense_masks(aligned: bool, whole: bool) -> None:
    rng = np.random.default_rng(7)
    for trial in range(60):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        values = blobs(4, (height, width), trial)
        near = rng.uniform(-10, [width + 10, height + 10], (4, 2))
        boxes = np.concatenate([near, near + rng.uniform(0, 60, (4, 2))], axis=1).astype(np.float32)
        boxes = np.round(boxes) if whole else boxes
        out = (int(rng.integers(1, 30)), int(rng.integers(1, 30)))
        rois = torch.cat([torch.arange(4.0)[:, None], torch.from_numpy(boxes)], dim=1)
        wanted = roi_align(torch.from_numpy(values[:, None]).float(), rois, out, 1.0, -1, aligned)[:, 0]
        got = rle.crop(*rle.encode(values), (height, width), boxes.astype(np.float64), out, aligned)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-5, rtol=0)


def test_crop_of_a_box_far_larger_than_the_canvas_is_quick_and_of_none_is_zero() -> None:
    runs = rle.encode(np.ones((2, 6, 7), bool))
    boxes = np.array([[-1e8, -1e8, 1e8, 1e8], [5.0, 5.0, 2.0, 2.0]])
    assert rle.crop(*runs, (6, 7), boxes, (4, 4)).max() < 1e-6
    np.testing.assert_array_equal(rle.crop(*runs, (6, 7), boxes, (4, 4))[1], np.zeros((4, 4)))


# ---- hostile input --------------------------------------------------------------------------------------------------

SOUND = [4, 4, 4]
HOSTILE = {
    "overflow": [4, 4, 5],
    "short": [4, 4],
    "negative": [4, -4, 12],
    "cancelling": [2**31 - 1, -(2**31 - 13)],
    "wraps around 32 bits": [2**31 - 1, 2**31 - 1, 14],
    "none": [],
}
READERS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "decode": lambda c, o: rle.decode(c, o, (3, 4)),
    "to_coco": lambda c, o: rle.to_coco(c, o, (3, 4)),
    "crop": lambda c, o: rle.crop(c, o, (3, 4), np.zeros((2, 4)), (2, 2)),
    "hflip": lambda c, o: rle.hflip(c, o, (3, 4)),
    "window": lambda c, o: rle.window(c, o, (3, 4), (0, 0, 2, 2)),
    "union": rle.union,
    "intersect": rle.intersect,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("bad", HOSTILE)
def test_runs_that_do_not_fit_are_refused_by_index(reader: str, bad: str) -> None:
    counts = np.array(SOUND + HOSTILE[bad], np.int32)
    offsets = np.array([0, 3, len(counts)])
    assert rle.first_invalid(counts, offsets, 12) == 1
    with pytest.raises(InputError, match="mask 1"):
        READERS[reader](counts, offsets)


@pytest.mark.parametrize("reader", [*READERS, "area", "take"])
@pytest.mark.parametrize("offsets", [[0, 3, 9], [0, 7, 6], [0, -5, 6], [1, 3, 6], [0, 3, 5], []])
def test_offsets_that_point_elsewhere_are_refused(reader: str, offsets: list[int]) -> None:
    every = {**READERS, "area": rle.area, "take": lambda c, o: rle.take(c, o, np.array([0]))}
    with pytest.raises(InputError, match="offsets"):
        every[reader](np.array(SOUND * 2, np.int32), np.array(offsets, np.int64))
    assert rle.first_invalid(np.array(SOUND * 2, np.int32), np.array(offsets, np.int64), 12) >= 0


def test_a_canvas_that_no_machine_holds_is_refused_without_allocating() -> None:
    for size in ((10**6, 10**6), (2**62, 4), (-3, 4), ()):
        with pytest.raises(InputError, match=r"canvas|size"):
            rle.decode(np.array([12], np.int32), np.array([0, 1]), size)
    with pytest.raises(InputError, match="mask 0"):  # allowed, but the runs do not fill it
        rle.decode(np.array([12], np.int32), np.array([0, 1]), (40_000, 40_000))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"size": [3, 4], "counts": "o"}, "middle of a number"),
        ({"size": [3, 4], "counts": "4 4"}, "outside '0'..'o'"),
        ({"size": [3, 4], "counts": "ooooooooooooo1"}, "no run can have"),
        ({"size": [3, 4], "counts": "O"}, "no run can have"),
        ({"size": [3, 4], "counts": "4é4"}, "ASCII"),
        ({"size": [3, 4], "counts": "444"[:2]}, "add up"),
        ({"size": [3, 4], "counts": ""}, "add up"),
        ({"size": [4, 3], "counts": "444"}, "(W, H)"),
        ({"size": [9, 9], "counts": "444"}, "another image"),
        ({"size": None, "counts": "444"}, "size"),
        ({"size": [3, 4]}, "counts"),
        ({"counts": "444"}, "size"),
        ("444", "got str"),
        (None, "got NoneType"),
        ({"size": [3, 4], "counts": [4, 4, 5]}, "add up"),
        ({"size": [3, 4], "counts": [4, -4, 12]}, "0..2"),
        ({"size": [3, 4], "counts": [2**70]}, "integers"),
        ({"size": [3, 4], "counts": [2**32 + 12]}, "0..2"),
        ({"size": [3, 4], "counts": [4.5, 7.5]}, "integers"),
        ({"size": [3, 4], "counts": [[4], [4, 4]]}, "integers"),
        ({"size": [3, 4], "counts": ["4", "8"]}, "integers"),
        ({"size": [3, 4], "counts": {"a": 1}}, "integers"),
        ({"size": [3, 4], "counts": 12}, "integers"),
        ({"size": [3, 4], "counts": None}, "integers"),
        ({"size": [3, 4], "counts": [True, False]}, "integers"),
    ],
)
def test_what_is_not_a_coco_mask_is_refused_by_index(item: Any, message: str) -> None:
    good = {"size": [3, 4], "counts": SOUND}
    with pytest.raises(InputError, match="mask 2") as caught:
        rle.from_coco([good, good, item], (3, 4))
    assert message in str(caught.value)


@settings(deadline=None, max_examples=150)
@given(st.one_of(st.binary(max_size=30), st.text(alphabet="".join(map(chr, range(48, 112))), max_size=30)))
def test_any_string_is_read_or_refused(text: bytes | str) -> None:
    try:
        counts = rle.decompress(text)
    except InputError:
        return
    assert counts.min(initial=0) >= 0
    np.testing.assert_array_equal(rle.decompress(rle.compress(counts)), counts)


@quick
@given(hnp.arrays(np.int32, st.integers(0, 12), elements=st.integers(0, 2**31 - 1)))
def test_any_runs_survive_the_string(counts: np.ndarray) -> None:
    np.testing.assert_array_equal(rle.decompress(rle.compress(counts)), counts)


def test_boxes_and_flags_that_do_not_fit_are_named() -> None:
    runs = rle.encode(np.ones((2, 3, 4), bool))
    with pytest.raises(InputError, match="box 1 is"):
        rle.crop(*runs, (3, 4), np.array([[0, 0, 1, 1], [0, 0, np.nan, 1]]), (2, 2))
    with pytest.raises(InputError, match=r"shape \(2, 4\).*\(1, 4\)"):
        rle.crop(*runs, (3, 4), np.zeros((1, 4)), (2, 2))
    with pytest.raises(InputError, match="crowd"):
        rle.iou(*runs, *runs, np.zeros(3, bool))
    with pytest.raises(InputError, match="at least one mask"):
        rle.union(np.zeros(0, np.int32), np.zeros(1, np.int64))


# ---- scale ----------------------------------------------------------------------------------------------------------


def test_a_hundred_megapixels_without_pixels() -> None:
    """Measures, sets, crops and flips of sparse masks on 10,000 x 10,000 keep to the size of their runs."""

    def everything(counts: np.ndarray, offsets: np.ndarray, size: tuple[int, int]) -> None:
        boxes = rle.boxes(counts, offsets, size[0]).astype(np.float64)
        rle.crop(counts, offsets, size, boxes, (28, 28))
        rle.iou(counts, offsets, counts, offsets)
        rle.union(counts, offsets)
        rle.hflip(counts, offsets, size)
        rle.window(counts, offsets, size, (0, 0, 2, 2))
        rle.from_coco(rle.to_coco(counts, offsets, size), size)

    everything(*rle.encode(np.ones((2, 3, 4), bool)), (3, 4))
    side, columns = 10_000, 400
    mask = np.concatenate([[2_000 * side + 50], np.tile([300, side - 300], columns)])
    mask[-1] = side * side - mask[:-1].sum()
    counts, offsets = np.tile(mask, 20).astype(np.int32), np.arange(21) * len(mask)
    assert rle.area(counts, offsets).tolist() == [300 * columns] * 20
    assert extra_megabytes(lambda: everything(counts, offsets, (side, side))) < 30
