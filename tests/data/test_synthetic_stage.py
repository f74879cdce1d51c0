"""The painter of flat parts: known shapes at known places, who covers whom, and where points go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.synthetic import raster
from maskwright.data.synthetic.camera import Camera, Light
from maskwright.data.synthetic.drawn import Drawn, Knobs
from maskwright.data.synthetic.stage import Stage
from maskwright.ops import rle
from maskwright.structures import Taxonomy

SIZE = (60, 80)
TAXONOMY = Taxonomy(names=("card", "wall"), thing=(True, False))
STILL = Knobs(noise=(0, 0), blur=(0, 0))
RIGHT, UP, AHEAD = np.eye(3)


def stage(**camera: float) -> Stage:
    lens = Camera(place=np.zeros(3), focal=100.0, center=(40.0, 30.0), **camera)
    light = Light(
        sun=np.array([0, 0.6, -0.8]), beam=np.ones(3), sky=np.ones(3), haze=np.ones(3), density=0.0, exposure=1.0,
        shadows=0.5,
    )  # fmt: skip
    out = Stage(lens, light, TAXONOMY)
    out.begin("wall", 0)
    out.add((0, 0, 50), RIGHT, UP, raster.BOX, (100, 100, 0), 0, (0.2, 0.3, 0.4))
    return out


def card(
    on: Stage, place: tuple[float, float, float], half: float, color: tuple[float, float, float] = (0.9, 0.1, 0.1)
) -> None:
    on.begin("card", 5, place[2])
    on.add(place, RIGHT, UP, raster.BOX, (half, half, 0), 0, color)


def paint(on: Stage, after: Stage | None = None) -> Drawn:
    return on.picture(np.random.default_rng(0), SIZE, STILL, after)


def masks(runs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return rle.decode(*runs, SIZE)


def test_a_square_lies_where_the_lens_puts_it() -> None:
    on = stage()
    card(on, (0.2, -0.1, 2.0), 0.1)  # middle at (40 + 10, 30 + 5), half side 5 pixels
    drawn = paint(on)
    assert drawn.labels.tolist() == [1, 0]
    assert drawn.tracks.tolist() == [2, 3]
    want = np.zeros(SIZE, bool)
    want[30:40, 45:55] = True
    assert (masks(drawn.visible)[1] == want).all()
    assert (drawn.panoptic == np.where(want, 3, 2)).all()
    assert (drawn.semantic == np.where(want, 0, 1)).all()
    assert np.allclose(drawn.depth, np.where(want, 2.0, 50.0))
    assert drawn.image[0][want].min() > 150 > 100 > drawn.image[0][~want].max()
    assert drawn.flow is None


def test_the_nearer_covers_the_farther_whatever_came_first() -> None:
    for turned in (False, True):
        on = stage()
        cards = [((0.0, 0.0, 2.0), 0.1), ((0.2, 0.0, 4.0), 0.4)]
        for place, half in reversed(cards) if turned else cards:
            card(on, place, half)
        drawn = paint(on)
        near, far = (4, 3) if turned else (3, 4)
        order = drawn.tracks.tolist()
        seen, whole = masks(drawn.visible), masks(drawn.amodal)
        i, j = order.index(near), order.index(far)
        assert seen[i].sum() == whole[i].sum() == 100
        assert whole[j].sum() == 400
        assert seen[j].sum() == 400 - (whole[i] & whole[j]).sum()
        assert drawn.occluded[i] == 0
        assert drawn.occluded[j] == pytest.approx(1 - seen[j].sum() / 400)
        assert (masks(drawn.amodal)[order.index(2)]).all(), "the wall goes on behind the cards"


def test_edges_are_mixed_by_what_they_cover() -> None:
    on = stage()
    card(on, (0.205, 0.0, 2.0), 0.1)  # its left edge at 45.25
    image = paint(on).image[0, 30].astype(int)
    assert image[44] < image[45] < image[46]
    assert image[46] == image[50]


def test_points_go_where_the_next_frame_has_them() -> None:
    first, second = stage(yaw=0.1, pitch=-0.05), stage(yaw=0.13, pitch=-0.02, roll=0.05)
    for on, place in ((first, (0.3, 0.0, 2.0)), (second, (0.34, 0.02, 1.9))):
        card(on, place, 0.2)
    flow = paint(first, second).flow
    drawn, later = paint(first), paint(second)
    assert flow is not None
    for track, spot in ((3, (0.3, 0.0, 2.0)), (2, (2.0, 1.0, 50.0))):
        (here,), _ = first.camera.project(np.array([spot]))
        moved = (0.34, 0.02, 1.9) if track == 3 else spot
        (there,), _ = second.camera.project(np.array([moved]))
        x, y = int(here[0]), int(here[1])
        assert drawn.panoptic[y, x] == track
        # The point in the middle of this pixel lies within a pixel of the spot, and so does what it becomes.
        landed = np.array([x + 0.5, y + 0.5]) + flow[:, y, x]
        assert np.abs(landed - there).max() < 1.2
        assert later.panoptic[int(there[1]), int(there[0])] == track
    edge = masks(drawn.visible)[drawn.tracks.tolist().index(3)]
    ys, xs = np.nonzero(edge)
    to = np.stack([xs, ys]) + 0.5 + flow[:, ys, xs]
    inside = masks(later.visible)[later.tracks.tolist().index(3)]
    assert inside[to[1].astype(int), to[0].astype(int)].mean() > 0.97


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    on = stage()
    card(on, (0.0, 0.0, -3.0), 1.0)
    assert paint(on).labels.tolist() == [1]
    on = stage()  # a floor that begins behind the camera
    on.begin("card", 5, 1.0)
    on.add((0, -1, 0), RIGHT, AHEAD, raster.BOX, (3, 40, 0), 0, (1, 1, 1))
    drawn = paint(on)
    assert drawn.panoptic[-1, 40] == 3
    assert drawn.panoptic[0, 40] == 2
    column = drawn.depth[35:, 40]
    assert (np.diff(column) < 0).all(), "nearer towards the foot of the picture"


def test_faces_are_hidden_from_behind() -> None:
    corners = np.array([(-0.3, -0.3, 3.0), (0.3, -0.3, 3.0), (0.3, 0.3, 3.0), (-0.3, 0.3, 3.0)])
    for inner, seen in ((np.array([0, 0, 4.0]), True), (np.array([0, 0, 2.0]), False)):
        for turned in (corners, corners[::-1], np.roll(corners, 1, 0)):
            on = stage()
            on.begin("card", 5, 3.0)
            on.face(turned, inner, 0, (1, 1, 1))
            drawn = paint(on)
            assert (3 in drawn.tracks) == seen
            if seen:
                assert masks(drawn.visible)[1].sum() == 400


def test_shadows_darken_and_own_nothing() -> None:
    plain, shaded = stage(), stage()
    shaded.begin(None, 2)
    shaded.shadow((0, 0, 50), RIGHT, UP, raster.ELLIPSE, (5, 5), 1.0, 1.0)
    one, other = paint(plain), paint(shaded)
    assert (one.panoptic == other.panoptic).all()
    assert other.image[0, 30, 40] < 0.9 * one.image[0, 30, 40]
    assert other.image[0, 2, 2] == one.image[0, 2, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_runs_are_those_of_the_mask(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stamp = (rng.random((height, width)) < rng.random()).astype(np.int32) * 7
    ys, xs = np.nonzero(stamp)
    box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(ys) else (width, height, 0, 0)
    runs = np.zeros(3 * height * width + 4, np.int32)
    for at in (0, 5):
        used = raster.column_runs(stamp, 7, *box, runs, at)
        want, _ = rle.encode((stamp == 7)[None])
        assert runs[at:used].tolist() == want.tolist()
