"""Where a sample comes from: pixels, polygons, boxes and run-lengths move together; windows keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.data.augment.placement import Placement
from maskwright.data.augment.resample import place_runs
from maskwright.data.augment.window import draw_window
from maskwright.data.rasterize import cut_ids, scene_of
from maskwright.ops import rle
from maskwright.structures import Masks, Scene
from tests.data.make import record, runs


def turned(mask: np.ndarray, placement: Placement) -> np.ndarray:
    out = mask.T if placement.transpose else mask
    out = out[::-1] if placement.flip_y else out
    return out[:, ::-1] if placement.flip_x else out


def known(scene: Scene) -> Masks:
    masks = scene.objects().masks
    assert masks is not None
    return masks


turns = st.tuples(st.booleans(), st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))), turns, st.data())
def test_cropping_and_turning_runs_is_exact(
    masks: np.ndarray, turn: tuple[bool, bool, bool], data: st.DataObject
) -> None:
    _, height, width = masks.shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    h, w = data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x))
    placement = Placement(window=(y, x, h, w), canvas=(h, w), transpose=turn[0], flip_y=turn[1], flip_x=turn[2])
    got = rle.decode(*place_runs(*rle.encode(masks), (height, width), placement), placement.size)
    want = np.stack([turned(mask[y : y + h, x : x + w], placement) for mask in masks])
    assert np.array_equal(got, want)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(bool, st.tuples(st.just(1), st.integers(2, 9), st.integers(2, 9))),
    st.integers(1, 30),
    st.integers(1, 30),
    turns,
)
def test_resizing_runs_is_a_mean_over_footprints(
    masks: np.ndarray, high: int, wide: int, turn: tuple[bool, bool, bool]
) -> None:
    """Against the definition, by dense matrices of overlaps."""
    _, height, width = masks.shape
    placement = Placement(
        window=(0, 0, height, width), canvas=(high, wide), transpose=turn[0], flip_y=turn[1], flip_x=turn[2]
    )

    def weights(out: int, full: int) -> np.ndarray:
        scale = out / full
        centers, half = (np.arange(out) + 0.5) / scale, 0.5 * max(1.0, 1 / scale)
        near, far = np.maximum(centers - half, 0)[:, None], np.minimum(centers + half, full)[:, None]
        cells = np.arange(full)[None]
        return np.clip(np.minimum(far, cells + 1) - np.maximum(near, cells), 0, None) / (far - near)

    mean = weights(high, height) @ masks[0].astype(float) @ weights(wide, width).T
    got = rle.decode(*place_runs(*rle.encode(masks), (height, width), placement), placement.size)[0]
    clear = turned(np.abs(mean - 0.5) > 1e-6, placement)
    assert np.array_equal(got[clear], turned(mean >= 0.5, placement)[clear])


def disc(size: int = 60, x: float = 33.0, y: float = 24.0, radius: float = 15.0) -> tuple[np.ndarray, np.ndarray]:
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    ring = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    grid = np.mgrid[:size, :size] + 0.5
    return ring, (grid[1] - x) ** 2 + (grid[0] - y) ** 2 <= radius**2


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize("canvas", [(90, 70), (20, 25)])
def test_polygons_runs_and_pixels_move_together(turn: int, canvas: tuple[int, int]) -> None:
    ring, mask = disc()
    placement = Placement(
        window=(5, 10, 40, 36), canvas=canvas, transpose=bool(turn & 4), flip_y=bool(turn & 2), flip_x=bool(turn & 1)
    )
    both = record((60, 60), [(ring,), runs(mask)])
    scene = scene_of(both, placement)
    polygon, stored = known(scene).dense()
    image = torch.from_numpy(np.repeat((mask * np.uint8(255))[None], 3, axis=0))
    pixels = placement.pixels(image)
    assert pixels.shape[1:] == placement.size == scene.size
    assert (stored != (pixels[0] >= 128)).float().mean() < 0.01
    overlap = (polygon & stored).sum() / (polygon | stored).sum()
    assert overlap > (0.93 if canvas == (90, 70) else 0.85)  # COCO's rasterizer shifts outlines by half a pixel
    box = placement.boxes(np.array([[18.0, 9.0, 46.0, 39.0]]))  # around the disc, cut by the window
    height, width = placement.size
    seen = np.clip(box[0], 0, (width, height, width, height))
    boxes = scene.objects().boxes
    assert boxes is not None
    assert np.abs(boxes[1].numpy() - seen).max() < 2.5


def test_untouched_records_keep_their_runs() -> None:
    _, mask = disc()
    scene = scene_of(record((60, 60), [runs(mask)]))
    assert np.array_equal(known(scene).dense()[0].numpy(), mask)


def test_resize_equals_the_crop_of_the_resized_picture() -> None:
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    whole = Placement.whole((40, 50), (80, 100)).pixels(image)
    part = Placement(window=(10, 20, 16, 24), canvas=(32, 48)).pixels(image)
    inside = whole[:, 20:52, 40:88].int()
    assert (part.int() - inside)[:, 2:-2, 2:-2].abs().max() <= 1
    assert Placement.whole((40, 50)).pixels(image).is_contiguous()


def test_lost_and_hidden_objects() -> None:
    ring, mask = disc()
    edge = np.zeros((60, 60), bool)
    edge[0:10, 17:28] = True
    made = record((60, 60), [(ring,), runs(mask), runs(edge)])
    window = Placement(window=(0, 0, 60, 20), canvas=(60, 20))
    assert scene_of(made, window).objects().ids.tolist() == [1, 2, 3]  # type: ignore[union-attr]
    strict = scene_of(made, window, min_visible=0.2)
    assert strict.objects().ids.tolist() == [3]  # type: ignore[union-attr]
    assert strict.ignore is not None
    assert len(strict.ignore) == 2
    assert set(cut_ids(made, window).tolist()) == {1, 2, 3}
    assert cut_ids(made, Placement(window=(0, 0, 60, 17), canvas=(60, 17))).tolist() == []
    gone = scene_of(made, Placement(window=(50, 50, 10, 10), canvas=(10, 10)))
    assert len(gone.objects()) == 0
    assert gone.ignore is None


def test_boxes_alone_and_boxes_among_outlines() -> None:
    ring, _ = disc()
    alone = record((60, 60), [None, None], boxes=[(10, 10, 30, 20), (40, 40, 50, 50)])
    scene = scene_of(alone, Placement(window=(0, 0, 30, 25), canvas=(60, 50), flip_x=True))
    assert scene.objects().masks is None
    assert scene.objects().boxes.tolist() == [[0.0, 20.0, 30.0, 40.0]]  # type: ignore[union-attr]
    mixed = scene_of(record((60, 60), [(ring,), None], boxes=[(18, 9, 48, 39), (40, 40, 50, 50)])).objects()
    assert mixed.crowd is not None
    assert mixed.crowd.tolist() == [False, True]
    assert mixed.masks is not None
    assert mixed.masks.area()[1] == 100


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_windows_lie_inside_and_keep_what_they_center_on(data: st.DataObject) -> None:
    size = (data.draw(st.integers(5, 80)), data.draw(st.integers(5, 80)))
    factor = data.draw(st.floats(0.3, 3))
    full = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    crop = (data.draw(st.integers(4, 60)), data.draw(st.integers(4, 60)))
    corners = st.tuples(*(st.floats(0, size[i] - 1, width=32) for i in (1, 0)))
    boxes = []
    for x, y in data.draw(st.lists(corners, max_size=4)):
        boxes.append((x, y, min(x + data.draw(st.floats(1, 9)), size[1]), min(y + data.draw(st.floats(1, 9)), size[0])))
    made = record(size, [None] * len(boxes), boxes=boxes)
    seed = data.draw(st.integers(0, 1000))
    options = {"keep_whole": data.draw(st.booleans()), "on_object": data.draw(st.booleans())}
    (y, x, h, w), canvas = draw_window(made, full, crop, np.random.default_rng(seed), **options)
    assert 0 <= y <= y + h <= size[0]
    assert 0 <= x <= x + w <= size[1]
    assert canvas == (min(full[0], crop[0]), min(full[1], crop[1]))
    assert h == size[0] if full[0] <= crop[0] else abs(h - crop[0] / (full[0] / size[0])) <= 0.5 or h == 1
    if len(boxes) == 1 and options["on_object"]:
        x1, y1, x2, y2 = made.boxes[0].tolist()
        assert y - 1 <= (y1 + y2) / 2 <= y + h + 1
        assert x - 1 <= (x1 + x2) / 2 <= x + w + 1
    if options == {"keep_whole": True, "on_object": True} and len(boxes) == 1:
        outer = np.array([np.ceil(y2) - np.floor(y1), np.ceil(x2) - np.floor(x1)])  # pyright: ignore
        if (outer <= (h, w)).all():
            assert len(cut_ids(made, Placement(window=(y, x, h, w), canvas=canvas))) == 0


def test_keep_whole_cuts_less_of_what_it_centers_on() -> None:
    rng = np.random.default_rng(0)
    spots = [(float(x), float(y), float(x + 12), float(y + 12)) for x in range(0, 90, 30) for y in range(0, 90, 30)]
    made = record((100, 100), [None] * len(spots), boxes=spots)
    centers = made.boxes.reshape(-1, 2, 2).mean(axis=1)

    def cuts(keep: bool) -> int:
        total = 0
        for _ in range(100):
            window, canvas = draw_window(made, (100, 100), (40, 40), rng, keep_whole=keep)
            cut = cut_ids(made, Placement(window=window, canvas=canvas))
            corner = (window[1], window[0])
            total += int(((centers[cut - 1] >= corner) & (centers[cut - 1] < np.add(corner, 40))).all(axis=1).sum())
        return total

    assert cuts(True) < 0.05 * cuts(False)
