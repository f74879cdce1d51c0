"""Label maps go where the pixels go; the objects of panoptic records are cut out of their map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from maskwright.data.augment.placement import Placement
from maskwright.data.augment.transforms import Augment
from maskwright.data.rasterize import scene_of
from maskwright.errors import InputError
from maskwright.structures import LabelMap, Record, Region, Scene, Shape
from tests.data.make import record, runs

turns = st.tuples(st.booleans(), st.booleans(), st.booleans())


def turned(values: np.ndarray, placement: Placement) -> np.ndarray:
    out = values.T if placement.transpose else values
    out = out[::-1] if placement.flip_y else out
    return out[:, ::-1] if placement.flip_x else out


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9))), turns, st.data())
def test_cropping_and_turning_maps_is_exact(values: np.ndarray, turn: tuple[bool, ...], data: st.DataObject) -> None:
    height, width = values.shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    h, w = data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x))
    placement = Placement(window=(y, x, h, w), canvas=(h, w), transpose=turn[0], flip_y=turn[1], flip_x=turn[2])
    got = placement.labels(values, -1)
    assert got.dtype == values.dtype
    assert np.array_equal(got, turned(values[y : y + h, x : x + w], placement))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(1, 30), st.integers(1, 30))
def test_resizing_maps_takes_the_pixel_under_the_center(values: np.ndarray, high: int, wide: int) -> None:
    height, width = values.shape
    got = Placement.whole((height, width), (high, wide)).labels(values, 0)
    for i in range(high):
        for j in range(wide):
            y, x = int((i + 0.5) * height / high + 1e-9), int((j + 0.5) * width / wide + 1e-9)
            assert got[i, j] == values[y, x]


def mapped(folder: Path | None = None, tracks: list[int] | None = None) -> tuple[Record, torch.Tensor, np.ndarray]:
    """Four segments, in a file if a folder is given; red is the place of a segment in the record, times 50."""
    ids = np.zeros((90, 110), np.int64)
    ids[:40], ids[40:, :30] = 70_001, 300
    ids[20:60, 50:80] = 9
    ids[70:75, 100:] = 256
    order = np.array([70_001, 300, 9, 256])
    boxes: list[tuple[float, ...]] = [(0, 0, 110, 40), (0, 40, 30, 90), (50, 20, 80, 60), (100, 70, 110, 75)]
    panoptic: LabelMap | np.ndarray = ids
    shapes: list[Shape] = [None] * 4
    if folder is not None:
        path = folder / "map.png"
        Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)
        panoptic, shapes = LabelMap(path=path, form="rgb"), [Region(path, "rgb", int(i)) for i in order]
    made = record((90, 110), list(shapes), boxes=boxes, labels=[0, 1, 2, 2])
    made = replace(made, ids=order, panoptic=panoptic, tracks=None if tracks is None else np.array(tracks))
    red = np.zeros((90, 110), np.uint8)
    for k, ident in enumerate(order.tolist()):
        red[ids == ident] = 50 * (k + 1)
    return made, torch.from_numpy(np.repeat(red[None], 3, axis=0)), ids


def agree(scene: Scene) -> None:
    """No overlap, and each pixel of the map is in the mask of its segment."""
    segments = scene.objects()
    assert scene.panoptic is not None
    assert segments.masks is not None
    assert segments.ids is not None
    dense = segments.masks.dense()
    assert int(dense.sum(0).max()) <= 1 if len(dense) else True
    for ident, mask in zip(segments.ids.tolist(), dense, strict=True):
        assert torch.equal(mask, scene.panoptic == ident)
    assert set(scene.panoptic.unique().tolist()) - {0} == set(segments.ids.tolist())


JITTER = Augment(fit=True, scale=(0.1, 2.0), crop=(64, 48), vflip=0.5, quarter_turns=True)
WHOLE = Augment(crop=(50, 40), keep_whole=True, crop_on_object=0.5, min_visible=0.3)


@pytest.mark.parametrize("augment", [JITTER, WHOLE, replace(JITTER, rotate=(-30, 30), elastic=4)])
def test_panoptic_maps_through_augmentations(augment: Augment) -> None:
    made, image, _ = mapped()
    made = replace(made, semantic=image[0].numpy().astype(np.int16) // 50 - 1)
    dropped = ignored = 0
    for seed in range(25):
        sample = augment(made, image, np.random.default_rng(seed))
        assert sample.scene is not None
        agree(sample.scene)
        segments = sample.scene.objects()
        dropped += len(segments) < 4
        ignored += sample.scene.ignore is not None
        assert sample.scene.semantic is not None
        shown, known = sample.image[0].long(), sample.scene.semantic >= 0
        wrong = (50 * (sample.scene.semantic + 1) - shown).abs()[known]
        if augment is WHOLE:
            assert not wrong.any()
        elif len(wrong):
            assert (wrong > 25).sum() < 3 * sum(sample.scene.size)  # blended pixels, along outlines
    assert dropped
    assert bool(ignored) == (augment is WHOLE)


def test_maps_in_files(tmp_path: Path) -> None:
    made, _, ids = mapped(tmp_path)
    scene = scene_of(made)
    agree(scene)
    assert scene.panoptic is not None
    assert np.array_equal(scene.panoptic.numpy(), ids)
    assert scene.objects().labels.tolist() == [0, 1, 2, 2]
    regions = scene_of(
        replace(made, panoptic=None, semantic=LabelMap(path=tmp_path / "map.png", form="rgb", classes={9: 2, 300: 1}))
    )
    one, other = regions.objects().masks, scene.objects().masks
    assert one is not None
    assert other is not None
    assert torch.equal(one.dense(), other.dense())
    assert regions.semantic is not None
    assert np.array_equal(regions.semantic.numpy(), np.select([ids == 9, ids == 300], [2, 1], -1))


def test_tracks_are_the_ids() -> None:
    made, _, ids = mapped(tracks=[-1, 12, 700, 3])
    scene = scene_of(made)
    agree(scene)
    found = scene.objects().ids
    assert found is not None
    assert found.tolist() == [-70_002, 12, 700, 3]
    assert scene.panoptic is not None
    assert np.array_equal(scene.panoptic.numpy() == 700, ids == 9)
    with pytest.raises(InputError, match="must not be 0"):
        scene_of(replace(made, tracks=np.array([0, 1, 2, 3])))
    mask = np.ones((5, 5), bool)
    alone = replace(record((5, 5), [runs(mask), runs(mask)]), tracks=np.array([-1, 44]))
    plain = scene_of(alone).objects().ids
    assert plain is not None
    assert plain.tolist() == [-1, 44]


def test_slivers_of_a_panoptic_map_are_void() -> None:
    made, _, _ = mapped()
    scene = scene_of(made, Placement(window=(0, 0, 90, 53), canvas=(90, 53)), min_visible=0.6)
    agree(scene)
    assert scene.objects().labels.tolist() == [1]
    assert scene.ignore is not None
    assert scene.ignore.area().tolist() == [40 * 53 - 20 * 3, 40 * 3]
