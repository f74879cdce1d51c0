"""Overlays: the right pixels are painted, nothing else is, and labels stay where there is room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from maskwright.draw import image
from maskwright.draw.image import overlay, save
from maskwright.structures import Masks, Scene, Segments, Taxonomy

ONE, TWO = Taxonomy(names=("coin",)), Taxonomy(names=("cat", "dog"))


def _scene(dense: np.ndarray, labels: list[int] | None = None, scores: bool = True) -> Scene:
    masks = Masks.from_dense(torch.from_numpy(dense))
    count, size = len(dense), tuple(dense.shape[1:])
    found = torch.tensor(labels if labels is not None else [0] * count, dtype=torch.int64)
    certain = torch.linspace(0.9, 0.5, count) if scores else None
    return Scene(
        size=size, segments=Segments(size=size, labels=found, masks=masks, boxes=masks.boxes(), scores=certain)
    )


@settings(max_examples=60, deadline=None)  # the first example waits for numba's compiler
@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=12), elements=st.booleans()))
def test_masks_are_cut_out_of_their_run_lengths_exactly(dense: np.ndarray) -> None:
    masks = Masks.from_dense(torch.from_numpy(dense))
    for i, want in enumerate(dense):
        piece, left, top = image._cut(masks, i)
        got = np.zeros_like(want)
        got[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
        assert (got == want).all()
        if want.any():
            assert piece.any(0).all() or piece.any(0)[[0, -1]].all()  # tight
            assert piece.any(1)[[0, -1]].all()


def test_only_the_objects_change_and_their_inside_stays_visible() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (200, 260, 3), dtype=np.uint8)
    before = picture.copy()
    dense = np.zeros((2, 200, 260), bool)
    dense[0, 40:120, 30:130] = True
    dense[0, 60:90, 60:100] = False  # a hole
    dense[1, 150:190, 200:250] = True
    painted = overlay(picture, _scene(dense), ONE, labels=False)
    assert (picture == before).all()
    assert painted.dtype == np.uint8
    changed = (painted != picture).any(2)
    assert not changed[~dense.any(0)].any()
    assert changed[dense.any(0)].mean() > 0.95
    inside, colors = dense[0] & changed, painted[dense[0]]
    assert np.corrcoef(picture[inside].astype(float).mean(1), painted[inside].astype(float).mean(1))[0, 1] > 0.8
    rim, counts = np.unique(colors, axis=0, return_counts=True)
    assert counts.max() > 200  # the outline is one color
    assert not (painted[0, 0] != picture[0, 0]).any()
    assert len(rim) > 100


def test_tensors_and_arrays_give_the_same() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    dense = np.zeros((1, 50, 70), bool)
    dense[0, 5:45, 5:60] = True
    scene = _scene(dense)
    assert (overlay(picture, scene, ONE) == overlay(torch.from_numpy(picture).permute(2, 0, 1), scene, ONE)).all()


def test_instances_of_one_class_differ_and_classes_keep_their_hue() -> None:
    dense = np.zeros((3, 60, 90), bool)
    for i in range(3):
        dense[i, 10:50, 30 * i + 3 : 30 * i + 27] = True
    black = np.zeros((60, 90, 3), np.uint8)
    spots = [(10, 30 * i + 10) for i in range(3)]
    alike = overlay(black, _scene(dense), ONE, labels=False)
    assert len({tuple(alike[spot]) for spot in spots}) == 3
    mixed = overlay(black, _scene(dense, [0, 1, 0]), TWO, labels=False)
    first, second, third = (mixed[spot].astype(int) for spot in spots)
    assert first.argmax() == third.argmax() == np.argmax(TWO.colors[0])
    assert second.argmax() == np.argmax(TWO.colors[1])


def test_labels_are_left_out_where_objects_are_small_or_many() -> None:
    black = np.zeros((300, 400, 3), np.uint8)
    dense = np.zeros((2, 300, 400), bool)
    dense[0, 100:250, 100:300] = True
    dense[1, 10:14, 10:14] = True
    scene = _scene(dense)
    painted, plain = overlay(black, scene, ONE), overlay(black, scene, ONE, labels=False)
    differ = (painted != plain).any(2)
    assert differ[80:100, 100:180].mean() > 0.3  # above the large object
    assert not differ[:60].any()  # none at the small one
    many = np.zeros((70, 300, 400), bool)
    for i in range(70):
        many[i, 40 * (i // 10) : 40 * (i // 10) + 38, 40 * (i % 10) : 40 * (i % 10) + 38] = True
    scene = _scene(many)
    assert (overlay(black, scene, ONE) == overlay(black, scene, ONE, labels=False)).all()


def test_labels_do_not_cover_one_another() -> None:
    taken = np.zeros((0, 4))
    box, size = np.array([10.0, 50.0, 200.0, 150.0]), np.array([80, 20])
    for _ in range(8):
        place = image._place(box, size, taken, (400, 300))
        if place is None:
            break
        overlap = (np.minimum(taken[:, 2:], place[2:]) - np.maximum(taken[:, :2], place[:2])).clip(0).prod(1)
        assert (overlap == 0).all()
        assert place.min() >= 0
        taken = np.vstack([taken, place])
    else:
        pytest.fail("labels of one object never run out of room")
    assert len(taken) >= 2


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("side", [8, 64, 1500])
def test_every_size_is_drawn(side: int, scores: bool) -> None:
    dense = np.zeros((3, side, side), bool)
    dense[0] = True
    dense[1, : side // 2, 0] = True
    picture = np.full((side, side, 3), 90, np.uint8)
    assert overlay(picture, _scene(dense, scores=scores), ONE, labels=True).shape == picture.shape


def test_boxes_are_framed_where_masks_are_unknown() -> None:
    size = (60, 80)
    boxes = torch.tensor([[10.0, 20.0, 50.0, 40.0], [-5.0, -5.0, 500.0, 500.0]])
    scene = Scene(size=size, segments=Segments(size=size, labels=torch.tensor([0, 1]), boxes=boxes))
    painted = overlay(np.zeros((*size, 3), np.uint8), scene, TWO, labels=False)
    assert painted[20, 10:50].any(1).all()
    assert not painted[30, 20:40].any()
    assert painted[0].any()


def test_nothing_to_draw() -> None:
    picture = np.full((5, 6, 3), 7, np.uint8)
    assert (overlay(picture, Scene(size=(5, 6)), ONE) == 7).all()
    assert (overlay(picture, Scene(size=(5, 6), segments=Segments.empty((5, 6))), ONE) == 7).all()


def test_a_semantic_map_is_washed_over_the_picture() -> None:
    """Void stays the picture, the inside is half class color, contacts of classes are drawn in full."""
    semantic = torch.tensor([[-1, 0, 0, 1, 1]] * 2)
    drawn = overlay(np.full((2, 5, 3), 100, np.uint8), Scene(size=(2, 5), semantic=semantic), TWO)
    cat, dog = (np.array(color) for color in TWO.colors)
    assert drawn[1].tolist() == [
        [100] * 3,
        cat.tolist(),
        np.round((100 + cat) / 2).tolist(),
        dog.tolist(),
        np.round((100 + dog) / 2).tolist(),
    ]


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scene's size \(5, 6\)"):
        overlay(np.zeros((6, 5, 3), np.uint8), Scene(size=(5, 6)), ONE)
    for wrong in (np.zeros((5, 6), np.uint8), np.zeros((5, 6, 3)), torch.zeros(5, 6, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            overlay(wrong, Scene(size=(5, 6)), ONE)


def test_saved_pictures_are_lossless(tmp_path: Path) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    save(tmp_path / "deep" / "a.png", picture)
    assert (np.array(Image.open(tmp_path / "deep" / "a.png")) == picture).all()
