"""Views and the ways back: flips and turns are undone bit for bit; masks and boxes agree after scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskwright.data.augment.test_time import View, views
from maskwright.structures import Masks, Scene, Segments


@st.composite
def scenes(draw: st.DrawFn, most: int = 12) -> Scene:
    size = (draw(st.integers(1, most)), draw(st.integers(1, most)))
    masks = draw(hnp.arrays(bool, (draw(st.integers(0, 3)), *size)))
    count = len(masks)
    whole = hnp.arrays(np.int32, (count, 2, 2), elements=st.integers(-256, 256 * most))
    corners = np.sort(draw(whole), axis=1).reshape(count, 4) / 256
    return Scene(
        size=size,
        segments=Segments(
            size=size, labels=torch.arange(count), masks=Masks.from_dense(torch.from_numpy(masks)),
            boxes=torch.from_numpy(corners.astype(np.float32)), scores=torch.linspace(0, 1, count),
            ids=torch.arange(count) + 5, crowd=torch.zeros(count, dtype=torch.bool),
        ),
        semantic=torch.from_numpy(draw(hnp.arrays(np.int64, size, elements=st.integers(-1, 3)))),
        panoptic=torch.from_numpy(draw(hnp.arrays(np.int64, size, elements=st.integers(0, 2**40)))),
        ignore=Masks.from_dense(torch.from_numpy(draw(hnp.arrays(bool, (1, *size))))),
    )  # fmt: skip


def same_masks(one: Masks | None, other: Masks | None) -> bool:
    assert one is not None
    assert other is not None
    return one.size == other.size and torch.equal(one.dense(), other.dense())


def same(one: Scene, other: Scene) -> bool:
    a, b = one.objects(), other.objects()
    fields = all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("labels", "boxes", "scores", "ids", "crowd"))
    assert one.semantic is not None
    assert one.panoptic is not None
    assert other.semantic is not None
    assert other.panoptic is not None
    maps = torch.equal(one.semantic, other.semantic) and torch.equal(one.panoptic, other.panoptic)
    return fields and maps and same_masks(a.masks, b.masks) and same_masks(one.ignore, other.ignore)


EIGHT = views(turns=True)


@settings(max_examples=60, deadline=None)
@given(scenes(), st.sampled_from(EIGHT))
def test_turns_are_undone_bit_for_bit(scene: Scene, view: View) -> None:
    size = (scene.size[0], scene.size[1])
    seen = view.scene(scene)
    assert seen.size == (size[::-1] if view.transpose else size)
    assert same(view.back(seen, size), scene)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    assert torch.equal(view.pixels_back(view.pixels(image), size), image)
    scores = torch.rand(5, *size)
    assert torch.equal(view.pixels_back(view.pixels(scores), size), scores)


@settings(max_examples=40, deadline=None)
@given(scenes(), st.sampled_from(EIGHT))
def test_everything_turns_alike(scene: Scene, view: View) -> None:
    seen = view.scene(scene)
    masks, was = seen.objects().masks, scene.objects().masks
    assert masks is not None
    assert was is not None
    assert torch.equal(masks.dense().to(torch.uint8), view.pixels(was.dense().to(torch.uint8)))
    assert scene.semantic is not None
    assert seen.semantic is not None
    assert torch.equal(seen.semantic, view.pixels(scene.semantic[None])[0])
    tight = was.boxes()[was.area() > 0]
    moved = view.scene(Scene(size=scene.size, segments=Segments(size=scene.size, labels=torch.zeros(len(tight)).long(),
                                                                boxes=tight))).objects().boxes  # fmt: skip
    assert moved is not None
    assert torch.equal(moved, masks.boxes()[was.area() > 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(EIGHT), st.floats(0.4, 3.0))
def test_boxes_and_masks_agree_after_scaling(seed: int, view: View, scale: float) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(20, 60)), int(rng.integers(20, 60)))
    y, x = int(rng.integers(0, size[0] - 8)), int(rng.integers(0, size[1] - 8))
    dense = torch.zeros(1, *size, dtype=torch.bool)
    dense[0, y : y + int(rng.integers(6, 40)), x : x + int(rng.integers(6, 40))] = True
    masks = Masks.from_dense(dense)
    segments = Segments(size=size, labels=torch.tensor([0]), masks=masks, boxes=masks.boxes())
    semantic = torch.where(dense[0], 1, 0)
    scaled = View(scale=scale, transpose=view.transpose, flip_y=view.flip_y, flip_x=view.flip_x)
    seen = scaled.scene(Scene(size=size, segments=segments, semantic=semantic))
    objects = seen.objects()
    assert objects.masks is not None
    assert objects.boxes is not None
    assert seen.semantic is not None
    assert (objects.boxes - objects.masks.boxes()).abs().max() <= 0.51
    other = (objects.masks.dense()[0] != (seen.semantic == 1)).sum()
    assert other <= 2 * sum(seen.size)  # along the outline at most
    again = scaled.back(seen, size).objects()
    assert again.masks is not None
    assert again.boxes is not None
    assert (again.boxes - segments.boxes).abs().max() < 1e-4  # type: ignore[operator]
    assert (again.masks.boxes() - masks.boxes()).abs().max() <= 1 + 0.5 / scale


def test_which_views() -> None:
    assert views() == (View(), View(flip_x=True))
    assert len(views(flips=False)) == 1
    assert len(views(flips=False, upside_down=True)) == 2
    assert len(views(upside_down=True)) == 4
    assert len(EIGHT) == len(set(EIGHT)) == 8
    four = views(flips=False, turns=True)
    assert len(four) == 4
    image = torch.arange(24, dtype=torch.uint8).reshape(1, 4, 6)
    turned = {view.pixels(image).numpy().tobytes() for view in four}
    assert turned == {np.ascontiguousarray(np.rot90(image.numpy(), k, axes=(1, 2))).tobytes() for k in range(4)}
    assert len(views(scales=(0.5, 1.0, 2.0))) == 6


def test_views_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="positive"):
        View(scale=0)
    with pytest.raises(ValueError, match="has size"):
        View(transpose=True).back(Scene(size=(4, 6)), (4, 6))


def test_other_boxes_come_back_to_the_last_bit() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.3 + 500, 799.7]])
    segments = Segments(size=(800, 640), labels=torch.tensor([0]), boxes=boxes)
    scene = Scene(size=(800, 640), segments=segments)
    for view in EIGHT:
        back = view.back(view.scene(scene), (800, 640)).objects().boxes
        assert back is not None
        assert (back - boxes).abs().max() <= 2**-14
