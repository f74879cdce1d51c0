"""Tiles: a model that is exact on any window gives in tiles what it gives on the whole picture."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskwright.data.rasters import InMemory
from maskwright.errors import InputError
from maskwright.infer.predictor import predict, predict_raster
from maskwright.infer.stitch import Stitcher, Tile
from maskwright.infer.tiles import Tiled, Tiles
from maskwright.protocols import Model
from maskwright.structures import Masks, Resize, Scene, Segments, Taxonomy
from tests.infer.exact import Exact, discs


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)


def said(scene: Scene) -> list[tuple[int, str]]:
    """Class and run-lengths of every object, sorted."""
    objects = scene.with_masks().objects()
    assert objects.masks is not None
    return sorted((int(label), each["counts"]) for label, each in zip(objects.labels, objects.masks.rle(), strict=True))


# ---- where tiles lie ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (40, 64), (64, 65), (200, 333), (129, 1000)])
@pytest.mark.parametrize("tiles", [Tiles(64, 0), Tiles(64, 16), Tiles(64, 31), Tiles(100, 7)])
def test_cores_fill_the_picture_and_lie_in_their_windows(size: tuple[int, int], tiles: Tiles) -> None:
    seen = np.zeros(size, int)
    cuts = tiles.over(size)
    for tile in cuts:
        top, left, height, width = tile.window
        assert (height, width) == (min(size[0], tiles.size), min(size[1], tiles.size))
        assert 0 <= top <= top + height <= size[0]
        assert 0 <= left <= left + width <= size[1]
        y, x, high, wide = tile.core
        assert y >= top
        assert x >= left
        assert y + high <= top + height
        assert x + wide <= left + width
        seen[y : y + high, x : x + wide] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("length", range(65, 300, 7))
def test_neighbors_share_the_overlap_at_least(length: int) -> None:
    starts = sorted({tile.window[1] for tile in Tiles(64, 20).over((10, length))})
    assert max(b - a for a, b in pairwise(starts)) <= 64 - 20
    assert len(starts) == -(-(length - 20) // 44)


def test_words_for_tiles() -> None:
    assert Tiles.parse("512", Resize()) == Tiles(512, 128)
    assert Tiles.parse("512,40", Resize()) == Tiles(512, 40)
    assert Tiles.parse("auto", Resize(short=800, long=1333)) == Tiles(800, 200)
    assert Tiles.parse("auto", Resize(scale=2.0)) == Tiles(512, 128)
    for text in ("", "x", "512,", "512,1,2", "512,256", "8", "-5", "512,-1", "70000", "automatic", "5e2"):
        with pytest.raises(InputError, match="tiles"):
            Tiles.parse(text, Resize())


# ---- the property ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_small_objects_are_as_on_the_whole_picture(task: str, seed: int) -> None:
    picture, drawn = discs((301, 437), 70, (1, 15), seed)  # at most 31 across
    model = Exact(task)
    whole = predict(model, tensor(picture))
    found = predict_raster(model, InMemory(tensor(picture)), Tiles(96, 32))
    assert isinstance(whole, Scene)
    assert model.largest <= 301 * 448 + 32 * 448
    if task == "semantic":
        assert torch.equal(whole.classes(), found.classes())
        return
    assert said(found) == said(whole)
    if task == "panoptic":
        assert torch.equal(whole.classes(), found.classes())
    else:
        assert len(found.objects()) == drawn
    assert found.objects().scores is not None
    assert bool((found.objects().scores[:1] - 0.9).abs().max() < 1e-6)  # type: ignore[index]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tiles", [Tiles(64, 24), Tiles(96, 32), Tiles(150, 10)])
def test_large_objects_are_joined_across_many_tiles(seed: int, tiles: Tiles) -> None:
    picture, drawn = discs((310, 417), 60, (5, 110), seed)
    model = Exact()
    whole = predict(model, tensor(picture))
    found = predict_raster(model, InMemory(tensor(picture)), tiles, batch_size=3)
    assert isinstance(whole, Scene)
    assert said(found) == said(whole)
    assert len(found.objects()) == drawn


def test_a_cross_over_the_whole_picture_is_one_object() -> None:
    picture = np.full((310, 417, 3), 20, np.uint8)
    picture[150:156, 3:400] = picture[3:300, 200:206] = (220, 30, 30)
    model = Exact()
    found = predict_raster(model, InMemory(tensor(picture)), Tiles(64, 16))
    assert said(found) == said(predict(model, tensor(picture)))  # type: ignore[arg-type]
    assert len(found.objects()) == 1


def test_an_object_whose_arms_a_tile_sees_apart_is_one() -> None:
    picture = np.full((100, 150, 3), 20, np.uint8)
    picture[20:30, 20:130] = picture[60:70, 20:130] = picture[20:70, 20:30] = (220, 30, 30)
    model = Exact()
    found = predict_raster(model, InMemory(tensor(picture)), Tiles(64, 20))
    assert len(found.objects()) == 1
    assert said(found) == said(predict(model, tensor(picture)))  # type: ignore[arg-type]


def test_a_picture_of_one_tile_and_one_without_objects() -> None:
    picture, _ = discs((50, 60), 9, (2, 6))
    model = Exact()
    assert said(predict_raster(model, InMemory(tensor(picture)), Tiles(64, 16))) == said(
        predict(model, tensor(picture))
    )  # type: ignore[arg-type]
    empty = predict_raster(model, InMemory(torch.zeros(3, 200, 200, dtype=torch.uint8)), Tiles(64, 16))
    assert len(empty.objects()) == 0
    assert empty.size == (200, 200)


def test_the_limit_holds_for_the_picture_where_it_is_given() -> None:
    picture, drawn = discs((200, 300), 60, (2, 6))
    assert drawn > 20
    model = Exact()
    raster = InMemory(tensor(picture))
    assert len(predict_raster(model, raster, Tiles(64, 16)).objects()) == drawn
    assert len(predict_raster(model, raster, Tiles(64, 16), max_per_image=7).objects()) == 7


def test_tiled_stands_in_a_models_place() -> None:
    picture, drawn = discs((200, 300), 60, (2, 6))
    model = Tiled(Exact(), Tiles(64, 16))
    assert isinstance(model, Model)
    scene = predict(model, tensor(picture))
    assert isinstance(scene, Scene)
    assert said(scene) == said(predict(Exact(), tensor(picture)))  # type: ignore[arg-type]
    assert len(scene.objects()) == drawn
    assert len(predict(model, tensor(picture), max_per_image=5).objects()) == 5  # type: ignore[union-attr]
    with pytest.raises(InputError, match="size of their file"):
        predict(model, tensor(picture), resize=(100, 500))
    with pytest.raises(InputError, match="cannot be trained"):
        model.loss([], None)  # type: ignore[arg-type]


# ---- opinions that differ -------------------------------------------------------------------------------------------

LEFT = Tile((0, 0, 20, 60), (0, 0, 20, 50))
RIGHT = Tile((0, 40, 20, 60), (0, 50, 20, 50))


def boxes(*found: tuple[int, int, int, int, int, float]) -> Scene:
    """A scene on a tile 20 x 60: (label, x1, y1, x2, y2, score)."""
    dense = torch.zeros((len(found), 20, 60), dtype=torch.bool)
    for i, (_, x1, y1, x2, y2, _) in enumerate(found):
        dense[i, y1:y2, x1:x2] = True
    masks = Masks.from_dense(dense)
    segments = Segments(
        size=(20, 60),
        labels=torch.tensor([each[0] for each in found], dtype=torch.int64),
        masks=masks,
        boxes=masks.boxes(),
        scores=torch.tensor([each[5] for each in found]),
    )
    return Scene(size=(20, 60), segments=segments)


def stitched(left: Scene, right: Scene) -> list[Any]:
    stitcher = Stitcher((20, 100), "instance", Taxonomy(names=("a", "b")))
    stitcher.add(LEFT, left)
    stitcher.add(RIGHT, right)
    objects = stitcher.scene().objects()
    assert objects.boxes is not None
    assert objects.scores is not None
    return [
        (int(label), *map(int, box), round(float(score), 2))
        for label, box, score in zip(objects.labels, objects.boxes.tolist(), objects.scores, strict=True)
    ]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        # seen whole by both, a little differently: once, as the surer tile sees it
        ([(0, 44, 5, 54, 15, 0.8)], [(0, 5, 5, 15, 15, 0.9)], [(0, 45, 5, 55, 15, 0.9)]),
        # cut by both: joined, the middle of the overlap decides
        ([(0, 20, 5, 60, 15, 0.8)], [(0, 0, 4, 40, 16, 0.7)], [(0, 20, 4, 80, 16, 0.8)]),
        # whole in one tile, a sliver of it in the other
        ([(0, 30, 5, 44, 15, 0.8)], [(0, 0, 5, 4, 15, 0.6)], [(0, 30, 5, 44, 15, 0.8)]),
        # of different classes: both are kept where each tile has most of its own
        ([(0, 20, 5, 60, 15, 0.8)], [(1, 0, 5, 40, 15, 0.7)], [(0, 20, 5, 60, 15, 0.8), (1, 40, 5, 80, 15, 0.7)]),
        # a sliver of another class that belongs to the other tile is dropped
        ([(0, 30, 5, 44, 15, 0.8)], [(1, 0, 5, 4, 15, 0.9)], [(0, 30, 5, 44, 15, 0.8)]),
        # a cut piece without partner, mostly in the other's core: dropped; mostly in its own: kept
        ([(0, 53, 5, 60, 15, 0.8)], [], []),
        ([(0, 33, 5, 60, 15, 0.8)], [], [(0, 33, 5, 60, 15, 0.8)]),
        # two neighbors of one class, far enough apart, stay two
        ([(0, 30, 5, 45, 15, 0.8)], [(0, 10, 5, 30, 15, 0.9)], [(0, 50, 5, 70, 15, 0.9), (0, 30, 5, 45, 15, 0.8)]),
        # the left tile merges what the right one, to which the place belongs, sees as two, none of them cut
        (
            [(0, 50, 2, 57, 18, 0.9)],
            [(0, 10, 2, 17, 9, 0.8), (0, 10, 11, 17, 18, 0.7)],
            [(0, 50, 2, 57, 9, 0.8), (0, 50, 11, 57, 18, 0.7)],
        ),
    ],
)
def test_two_tiles_that_differ(left: Sequence[Any], right: Sequence[Any], expected: list[Any]) -> None:
    assert stitched(boxes(*left), boxes(*right)) == expected


def test_the_middle_of_the_overlap_decides_a_joined_objects_pixels() -> None:
    stitcher = Stitcher((20, 100), "instance", Taxonomy(names=("a", "b")))
    stitcher.add(LEFT, boxes((0, 20, 5, 60, 15, 0.8)))
    stitcher.add(RIGHT, boxes((0, 0, 4, 40, 16, 0.7)))
    masks = stitcher.scene().objects().masks
    assert masks is not None
    expected = torch.zeros((20, 100), dtype=torch.bool)
    expected[5:15, 20:50] = expected[4:16, 50:80] = True
    assert torch.equal(masks.dense()[0], expected)


def test_scenes_must_lie_on_their_tile_and_have_masks() -> None:
    stitcher = Stitcher((20, 100), "instance", Taxonomy(names=("a", "b")))
    with pytest.raises(InputError, match="must have size"):
        stitcher.add(LEFT, Scene(size=(20, 61), segments=Segments.empty((20, 61))))
    scene = boxes((0, 1, 1, 5, 5, 0.5))
    with pytest.raises(InputError, match="stitched on masks"):
        stitcher.add(LEFT, replace(scene, segments=replace(scene.objects(), masks=None)))
    with pytest.raises(InputError, match="at most"):
        Stitcher((1 << 16, 1 << 16), "instance", Taxonomy(names=("a",)))


def test_windows_are_all_that_is_read() -> None:
    class Watched(InMemory):
        largest = 0

        def read(self, top: int, left: int, height: int, width: int) -> Tensor:
            self.largest = max(self.largest, height * width)
            return super().read(top, left, height, width)

    picture, _ = discs((300, 300), 20, (2, 9))
    raster, model = Watched(tensor(picture)), Exact()
    predict_raster(model, raster, Tiles(64, 16), batch_size=2, workers=3)
    assert raster.largest == 64 * 64
    assert model.largest == 64 * 64


def test_an_error_in_a_window_is_the_callers() -> None:
    class Broken(InMemory):
        def read(self, top: int, left: int, height: int, width: int) -> Tensor:
            if top > 100:
                raise InputError("a broken strip")
            return super().read(top, left, height, width)

    with pytest.raises(InputError, match="a broken strip"):
        predict_raster(Exact(), Broken(torch.zeros(3, 300, 300, dtype=torch.uint8)), Tiles(64, 16))


def test_memory_does_not_grow_with_objects_times_pixels() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "large_image.py"
    words = [sys.executable, str(script), "--side", "2400", "--objects", "300", "--tile", "512,128"]
    figures = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert figures["equal"]
    assert figures["objects"] > 250
    grown = figures["peak_mib"] - figures["peak_before_mib"]
    assert grown < 400  # as pixels, the masks alone would be 1,600 MiB
