"""Any turn, shear and bend: pixels, polygons, run-lengths and maps move together, and turns by 90 degrees are exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.data.augment.placement import Placement
from maskwright.data.augment.transforms import Augment
from maskwright.data.augment.warp import FILL, Warp, turn_and_shear
from maskwright.data.rasterize import scene_of
from maskwright.errors import InputError
from maskwright.ops import rle
from maskwright.structures import Scene
from tests.data.make import record, runs


def disc(size: int = 90, x: float = 43.0, y: float = 40.0, radius: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([x + radius * np.cos(angles), y + 0.6 * radius * np.sin(angles)], axis=1)
    grid = np.mgrid[:size, :size] + 0.5
    follow = np.roll(ring, -1, axis=0)
    sides = [
        (b[0] - a[0]) * (grid[0] - a[1]) - (b[1] - a[1]) * (grid[1] - a[0]) for a, b in zip(ring, follow, strict=True)
    ]
    return ring, np.min(sides, axis=0) >= 0


def white(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.repeat((mask * np.uint8(255))[None], 3, axis=0))


def dense(scene: Scene) -> np.ndarray:
    masks = scene.objects().masks
    assert masks is not None
    return masks.dense().numpy()


def warps(seed: int) -> Warp:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(50, 140, 2).tolist()
    placement = Placement(
        window=(8, 5, 70, 64), canvas=(height, width), transpose=bool(seed & 1),
        flip_x=bool(seed & 2), flip_y=bool(seed & 4),
    )  # fmt: skip
    return Warp(
        placement=placement, full=(90, 90), matrix=turn_and_shear(rng.uniform(-90, 90), rng.uniform(-20, 20)),
        bend=None if seed % 3 == 0 else Warp.draw_bend(placement.size, 6.0, 24.0, rng), spacing=24.0,
        reflect=bool(seed & 8),
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))), st.integers(0, 3))
def test_quarter_turns_are_exact(masks: np.ndarray, turn: int) -> None:
    _, height, width = masks.shape
    side = max(height, width) + (height + width) % 2
    side += (side - height) % 2  # the canvas's center must fall where the picture's does
    square = np.zeros((len(masks), side, side), bool)
    square[:, :height, :width] = masks
    warp = Warp(placement=Placement.whole((side, side)), full=(side, side), matrix=turn_and_shear(90.0 * turn, 0.0))
    want = np.rot90(square, -turn, axes=(1, 2))
    assert np.array_equal(rle.decode(*warp.runs(*rle.encode(square)), (side, side)), want)
    values = np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8)
    assert np.array_equal(warp.pixels(torch.from_numpy(values)).numpy(), np.rot90(values, -turn, axes=(1, 2)))
    assert np.array_equal(warp.labels(values[0], 0), np.rot90(values[0], -turn))
    assert len(warp.mirrored()[1]) == 1


@pytest.mark.parametrize("seed", range(12))
def test_everything_moves_together(seed: int) -> None:
    ring, mask = disc()
    warp = warps(seed)
    scene = scene_of(replace(record((90, 90), [(ring,), runs(mask)]), semantic=mask.astype(np.int16)), warp)
    pixels = warp.pixels(white(mask))
    assert pixels.shape[1:] == warp.size == scene.size
    inside = warp.labels(np.ones((90, 90), np.uint8), 0).astype(bool)
    seen = (pixels[0].numpy() >= 128) & inside
    polygon, stored = dense(scene)
    assert scene.semantic is not None
    area = max(int(seen.sum()), 1)
    assert (stored != seen).sum() / area < 0.01
    assert (polygon != seen).sum() / area < 0.09  # COCO's rasterizer shifts outlines by half a pixel
    assert ((scene.semantic.numpy() == 1) != seen).sum() / area < 0.1
    assert np.array_equal(scene.semantic.numpy() == -1, ~inside)
    covered = scene.ignore.dense().any(0).numpy() if scene.ignore else np.zeros_like(inside)
    assert np.array_equal(covered, ~inside if warp.reflect else np.zeros_like(inside))
    if not warp.reflect:
        assert (pixels.numpy()[:, ~inside] == FILL).all()
    else:
        assert len(scene.ignore or ()) <= 4
    around = warp.boxes(record((90, 90), [runs(mask)]).boxes)[0]
    tight = scene.objects().boxes
    assert tight is not None
    assert (tight[1, :2].numpy() >= np.maximum(around[:2], 0) - 1).all()
    assert (tight[1, 2:].numpy() <= around[2:] + 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_points_and_sources_undo_each_other(seed: int) -> None:
    """A pixel's source, carried forward, is its center again; so the bend is one to one."""
    warp = warps(seed)
    back = warp._sources().reshape(-1, 2)  # pyright: ignore[reportPrivateUsage]
    height, width = warp.size
    down, across = np.divmod(np.arange(height * width), width)
    found = warp.points(back)
    assert np.abs(found - np.stack([across, down], axis=1) - 0.5).max() < 0.01


def test_shrinking_averages() -> None:
    noise = torch.randint(0, 2, (3, 90, 90), dtype=torch.uint8) * 255
    warp = Warp(placement=Placement.whole((90, 90), (15, 15)), full=(90, 90), matrix=turn_and_shear(1e-9, 0.0))
    want = Placement.whole((90, 90), (15, 15)).pixels(noise).float()
    got = warp.pixels(noise).float()
    assert (got - want).abs().mean() < 12  # one sample a pixel would be 100 away


def test_polygons_that_leave_the_picture_stay_in_it() -> None:
    ring = np.array([(-30.0, 20.0), (30.0, 20.0), (30.0, 60.0), (-30.0, 60.0)])
    warp = Warp(placement=Placement.whole((90, 90)), full=(90, 90), matrix=turn_and_shear(30, 0))
    inside = warp.labels(np.ones((90, 90), np.uint8), 0).astype(bool)
    (mask,) = dense(scene_of(record((90, 90), [(ring,)]), warp))
    assert mask.any()
    assert not mask[~inside].any()


def test_panoptic_maps_turn_with_their_segments() -> None:
    ids = np.zeros((90, 90), np.int64)
    ids[:50] = 70_000
    ids[50:, 20:70] = 9
    made = replace(record((90, 90), [None, None, None], boxes=[(0, 0, 90, 50), (20, 50, 70, 90), (0, 0, 1, 1)]))
    made = replace(made, ids=np.array([70_000, 9, 4]), panoptic=ids)
    for seed in range(6):
        scene = scene_of(made, warps(seed), min_visible=0.0)
        assert scene.panoptic is not None
        segments = scene.objects()
        assert segments.ids is not None
        assert set(np.unique(scene.panoptic.numpy())) - {0} == set(segments.ids.tolist())
        for ident, mask in zip(segments.ids.tolist(), dense(scene), strict=True):
            assert np.array_equal(mask, scene.panoptic.numpy() == ident)


def test_augment_turns_and_bends() -> None:
    ring, mask = disc()
    made = record((90, 90), [(ring,), runs(mask)])
    augment = Augment(
        rotate=(-45, 45), shear=(-10, 10), elastic=5, elastic_spacing=30, crop=(64, 64), outside="reflect"
    )
    different = set()
    for seed in range(8):
        one, other = (augment(made, white(mask), np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(one.image, other.image)
        assert one.image.shape == (3, 64, 64)
        different.add(one.image.numpy().tobytes())
    assert len(different) == 8
    plain, _ = Augment(rotate=(0, 0)).draw(made, np.random.default_rng(0))
    assert isinstance(plain, Placement)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotate": (10.0, -10.0)}, "rotate must be a rising range"),
        ({"shear": (0.0, 89.0)}, "shear must be a rising range"),
        ({"elastic": 17.0}, "elastic must be at most a quarter"),
        ({"outside": "black"}, "outside must be constant or reflect"),
        ({"mosaic": 0.5}, "mosaic must be used with crop"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Augment(**options)  # type: ignore[arg-type]


def test_warps_that_cannot_be() -> None:
    place = Placement.whole((9, 9))
    with pytest.raises(ValueError, match="inverse"):
        Warp(placement=place, full=(9, 9), matrix=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="quarter"):
        Warp(placement=place, full=(9, 9), bend=np.full((2, 5, 5), 3.0), spacing=10.0)
