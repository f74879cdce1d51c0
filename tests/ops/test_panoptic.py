"""Fusion to panoptic maps: valid by construction, equal to detectron2's on the recorded case, and edge cases."""

from __future__ import annotations

import json

import numpy as np
import pytest

from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.ops.panoptic import Fused, from_map, fuse, fuse_maps, ids_to_rgb, prune, rgb_to_ids
from tests.shared import shared


def check(fused: Fused, size: tuple[int, int]) -> None:
    """Every pixel has one segment at most, every segment has pixels, ids count from 1."""
    assert fused.ids.shape == size
    assert fused.ids.dtype == np.int64
    areas = np.bincount(fused.ids.reshape(-1), minlength=len(fused) + 1)
    assert len(areas) == len(fused) + 1
    assert areas[1:].tolist() == fused.areas.tolist()
    assert (fused.areas > 0).all()
    stuff = fused.labels[fused.source < 0]
    assert len(set(stuff.tolist())) == len(stuff), "stuff is merged"
    assert (np.diff((fused.source < 0).astype(int)) >= 0).all(), "things come first"


def test_equal_to_detectron2() -> None:
    with np.load(shared("parity/ops.npz")) as stored:
        arrays = {name: stored[name] for name in stored.files if name.startswith("combine")}
    about = json.loads(shared("parity/ops.json").read_bytes())
    size = tuple(about["arrays"]["combine_panoptic"]["shape"])
    kind = about["arrays"]["combine_masks"]
    masks = arrays["combine_masks"]
    if kind["kind"] == "packbits":
        masks = np.unpackbits(masks)[: np.prod(kind["shape"])]
    masks = masks.reshape(kind["shape"]).astype(bool)
    semantic = arrays["combine_sem"].reshape(size).astype(np.int64)
    fused = fuse(
        rle.encode(masks), arrays["combine_classes"], arrays["combine_scores"], np.where(semantic == 0, -1, semantic),
        score_threshold=0.4, overlap=0.5, stuff_area=150,
    )  # fmt: skip
    check(fused, size)
    assert np.array_equal(fused.ids, arrays["combine_panoptic"].reshape(size))
    for i, segment in enumerate(about["combine_segments"]):
        assert fused.labels[i] == segment["category_id"]
        assert fused.source[i] == segment.get("instance_id", -1)
        assert fused.areas[i] == segment.get("area", fused.areas[i])


@pytest.mark.parametrize("seed", range(8))
def test_fusion_is_what_a_dense_loop_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, count = (23, 31), int(rng.integers(0, 12))
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        y, x = rng.integers(0, 20, 2)
        mask[y : y + rng.integers(0, 14), x : x + rng.integers(0, 14)] = True
    labels, scores = rng.integers(0, 3, count), rng.random(count).round(1)
    stuff = rng.integers(-1, 3, (4, 4)).repeat(8, 0).repeat(8, 1)[: size[0], : size[1]] + 3
    stuff[stuff < 3] = -1
    fused = fuse(rle.encode(masks), labels, scores, stuff, score_threshold=0.2, overlap=0.4, stuff_area=60)
    check(fused, size)
    ids, kept = np.zeros(size, np.int64), []
    for i in np.argsort(-scores, kind="stable"):
        free = masks[i] & (ids == 0)
        if scores[i] >= 0.2 and masks[i].any() and (masks[i].sum() - free.sum()) / masks[i].sum() <= 0.4:
            kept.append(i)
            ids[free] = len(kept)
    number = len(kept)
    for label in range(3, 6):
        rest = (stuff == label) & (ids == 0)
        if rest.sum() >= 60:
            number += 1
            ids[rest] = number
    assert np.array_equal(fused.ids, ids)
    assert fused.source[: len(kept)].tolist() == kept
    few = fuse(rle.encode(masks), labels, scores, stuff, limit=1)
    assert (few.source >= 0).sum() <= 1


def test_only_stuff_only_void_and_no_stuff() -> None:
    none = rle.encode(np.zeros((0, 4, 5), bool))
    only = fuse(none, [], [], np.full((4, 5), 2), stuff_area=20)
    check(only, (4, 5))
    assert (only.labels.tolist(), only.source.tolist()) == ([2], [-1])
    assert len(fuse(none, [], [], np.full((4, 5), 2), stuff_area=21)) == 0
    assert not fuse(none, [], [], np.full((4, 5), -1)).ids.any()
    whole = fuse(rle.encode(np.ones((2, 4, 5), bool)), [0, 1], [0.5, 0.9], np.full((4, 5), 2), stuff_area=1)
    assert (whole.labels.tolist(), whole.source.tolist()) == ([1], [1])
    with pytest.raises(InputError, match="one per mask"):
        fuse(none, [1], [0.5], np.zeros((4, 5), int))


def test_objects_take_the_class_of_most_of_their_pixels() -> None:
    objects = np.array([[1, 1, 1, 0], [7, 7, 0, 0], [0, 0, 0, 9]])
    semantic = np.array([[0, 1, 1, 2], [0, 2, 0, 2], [2, 2, -1, 2]])
    fused = fuse_maps(objects, semantic, (True, True, False), stuff_area=3)
    check(fused, (3, 4))
    assert (fused.labels.tolist(), fused.source.tolist()) == ([1, 0, 2], [1, 7, -1])
    # a thing's pixel without an object stays void, stuff within an object is stuff, an object without things vanishes
    assert fused.ids.tolist() == [[1, 1, 1, 3], [2, 3, 0, 3], [3, 3, 0, 3]]
    assert fuse_maps(objects, semantic, (True, True, False), stuff_area=9, thing_area=2).labels.tolist() == [1]
    with pytest.raises(InputError, match="share one"):
        fuse_maps(objects, semantic[:2], (True,) * 3)


def test_a_map_of_owners() -> None:
    owner = np.array([[0, 0, 2], [-1, 3, 3], [1, 0, 0]])
    fused = from_map(owner, [5, 6, 8, 9, 9], 2, stuff_area=2)
    check(fused, (3, 3))
    assert (fused.labels.tolist(), fused.source.tolist()) == ([8, 9, 5], [0, 1, -1])
    assert fused.ids.tolist() == [[3, 3, 1], [0, 2, 2], [0, 3, 3]]


def test_pruning_is_within_a_class() -> None:
    masks = np.zeros((4, 6, 10), bool)
    masks[0, :, :6], masks[1, :, 3:9], masks[2, :, 3:9] = True, True, True
    runs = rle.encode(masks)
    assert prune(runs, [0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6], (6, 10), 0.3).tolist() == [0, 2]
    assert prune(runs, [0, 0, 1, 0], [0.9, 0.8, 0.95, 0.6], (6, 10), 0.5).tolist() == [2, 0, 1]
    assert prune(rle.encode(masks[:0]), [], [], (6, 10)).tolist() == []


def test_colors() -> None:
    ids = np.array([[0, 255, 256], [65536, (1 << 24) - 1, 77]])
    assert ids_to_rgb(ids).dtype == np.uint8
    assert ids_to_rgb(ids)[0, 2].tolist() == [0, 1, 0]
    assert np.array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)
    with pytest.raises(ValueError, match="must lie in"):
        ids_to_rgb(np.array([[1 << 24]]))
