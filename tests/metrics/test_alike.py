"""When two answers are called the same."""

from __future__ import annotations

from dataclasses import replace

import torch

from maskwright.metrics.alike import TOLERANCES, Agreement, compare
from maskwright.structures import Masks, Scene, Segments

SIZE = (40, 60)
EXACT = TOLERANCES["fp32"]


def scene(*scores: float, shift: int = 0, label: int = 0) -> Scene:
    dense = torch.zeros(len(scores), *SIZE, dtype=torch.bool)
    for i in range(len(scores)):
        dense[i, 4 + 5 * i + shift : 20 + 5 * i + shift, 3 + 4 * i : 30 + 4 * i] = True
    masks = Masks.from_dense(dense)
    labels = torch.full((len(scores),), label)
    segments = Segments(size=SIZE, labels=labels, masks=masks, boxes=masks.boxes(), scores=torch.tensor(scores))
    return Scene(size=SIZE, segments=segments)


def agreement(a: Scene, b: Scene, threshold: float = 0.05, limit: int = 100) -> Agreement:
    return compare([a], [b], EXACT, threshold=threshold, limit=limit)


def test_equal_scenes_agree() -> None:
    same = agreement(scene(0.9, 0.5), scene(0.9, 0.5))
    assert same == Agreement(1.0, 1.0, 2, 0.0)
    assert same.holds(EXACT)
    near = agreement(scene(0.9005, 0.5), scene(0.9, 0.5))
    assert near.holds(EXACT)
    assert 4e-4 < near.score_error < 6e-4


def test_objects_that_differ_do_not() -> None:
    wanted = scene(0.9, 0.5)
    for other in (
        scene(0.9),
        scene(0.9, 0.5, 0.3),
        scene(0.9, 0.5, shift=1),
        scene(0.9, 0.5, label=1),
        scene(0.9, 0.4),
    ):
        for pair in ((other, wanted), (wanted, other)):
            assert not agreement(*pair).holds(EXACT)


def test_what_is_there_by_a_hair_may_be_missing() -> None:
    assert agreement(scene(0.9, 0.0504), scene(0.9)).holds(EXACT)
    assert not agreement(scene(0.9, 0.06), scene(0.9)).holds(EXACT)
    # two of equal score at the end of a full picture
    assert agreement(scene(0.9, 0.5, label=0), scene(0.9, 0.5, shift=0), limit=2).holds(EXACT)
    full = scene(0.9, 0.5)
    assert full.segments is not None
    swapped = replace(full, segments=replace(full.segments, labels=torch.tensor([0, 1])))
    assert not agreement(swapped, full, limit=3).holds(EXACT)
    assert agreement(swapped, full, limit=2).holds(EXACT)


def test_nothing_found_on_both_sides_agrees() -> None:
    assert agreement(scene(), scene()) == Agreement(1.0, 1.0, 0, 0.0)


def test_class_maps() -> None:
    names = torch.zeros(SIZE, dtype=torch.int64)
    other = names.clone()
    other[0, :12] = 1
    found = compare(
        [Scene(size=SIZE, semantic=names)], [Scene(size=SIZE, semantic=other)], EXACT, threshold=0.0, limit=1
    )
    assert abs(found.pixels - (1 - 12 / 2400)) < 1e-6
    assert not found.holds(EXACT)
    assert found.holds(TOLERANCES["fp16"])
