"""``Scene`` and ``Prompts``: everything lies on one canvas, and unknown is not empty."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskwright.structures import Masks, Prompts, Scene, Segments

SIZE = (4, 6)
POINTS, OBJECTS = torch.rand(3, 2), torch.tensor([0, 1, -1])


def test_unknown_is_not_empty() -> None:
    with pytest.raises(ValueError, match="no segments"):
        Scene(size=SIZE).objects()
    assert len(Scene(size=SIZE, segments=Segments.empty(SIZE)).objects()) == 0


def test_a_scene_moves_as_a_whole_and_leaves_runs_on_the_host() -> None:
    scene = Scene(
        size=SIZE,
        segments=Segments.empty(SIZE),
        semantic=torch.zeros(SIZE, dtype=torch.int64),
        panoptic=torch.zeros(SIZE, dtype=torch.int64),
        prompts=Prompts(size=SIZE, points=POINTS, point_labels=OBJECTS, boxes=torch.zeros(1, 4), words=("a cell",)),
        ignore=Masks.empty(SIZE),
    ).to("meta")
    assert scene.semantic is not None
    assert scene.prompts is not None
    assert scene.prompts.points is not None
    assert scene.ignore is not None
    assert {scene.semantic.device.type, scene.prompts.points.device.type, scene.objects().labels.device.type} == {
        "meta"
    }
    assert scene.ignore.counts.device.type == "cpu"
    assert scene.prompts.words == ("a cell",)
    assert Scene(size=SIZE).to("meta").semantic is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"segments": Segments.empty((6, 4))},
            r"segments must lie on size \(4, 6\), got \(6, 4\). Did you pass \(W, H\)",
        ),
        ({"segments": Segments.empty((5, 5))}, r"segments must lie on size \(4, 6\), got \(5, 5\)"),
        ({"prompts": Prompts(size=(5, 5))}, "prompts must lie on"),
        ({"ignore": Masks.empty((5, 5))}, "ignore must lie on"),
        ({"semantic": torch.zeros(6, 4, dtype=torch.int64)}, r"semantic must have shape \(4, 6\), got \(6, 4\)"),
        ({"semantic": torch.zeros(4, 6)}, "semantic must be torch.int64"),
        ({"panoptic": torch.zeros(4, 6, dtype=torch.int32)}, "panoptic must be torch.int64"),
    ],
)
def test_a_field_on_another_canvas_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scene(size=SIZE, **fields)


@pytest.mark.parametrize("size", [(), (1, 2, 3, 4), (-1, 4)])
def test_a_size_is_one_to_three_sides(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="size must be"):
        Scene(size=size)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"points": POINTS}, "points need point_labels"),
        ({"point_labels": OBJECTS}, "came without points"),
        ({"points": POINTS, "point_labels": OBJECTS[:2]}, r"point_labels must have shape \(3,\), got \(2,\)"),
        ({"points": POINTS.double(), "point_labels": OBJECTS}, "points must be torch.float32"),
        ({"points": torch.rand(3, 3), "point_labels": OBJECTS}, r"points must have shape \(K, 2\), got \(3, 3\)"),
        ({"boxes": torch.zeros(2, 6)}, r"boxes must have shape \(N, 4\), got \(2, 6\)"),
        ({"scribbles": Masks.empty((6, 4))}, r"scribbles must lie on size \(4, 6\), got \(6, 4\)"),
        ({"coarse": Masks.empty((6, 4))}, "coarse must lie on"),
    ],
)
def test_a_wrong_prompt_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts(size=SIZE, **fields)


def test_prompts_in_space() -> None:
    for size in ((50,), (2, 4, 6)):
        prompts = Prompts(
            size=size, points=torch.rand(2, 3), point_labels=torch.tensor([0, -1]), boxes=torch.zeros(1, 6)
        )
        assert prompts.to("meta").boxes is not None
