"""Queries to scenes: valid whatever the logits, in little memory; and what scenes teach queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.models.parts.queries import (
    QUERY_RULES,
    Matches,
    QueryTruth,
    dice_cost,
    enlarge,
    focal_cost,
    instance_scene,
    panoptic_scene,
    query_truth,
    semantic_scene,
    silent_masks,
)
from maskwright.nn.losses import Dice, Focal
from maskwright.structures import Geometry, Masks, Scene, Segments, Taxonomy
from tests.ops.peak import extra_megabytes

CLASSES = Taxonomy(names=("disc", "square", "sky", "grass"), thing=(True, True, False, False))
VIEW = Geometry.resized((90, 130), (60, 80))
PADDED = (64, 96)


def logits(seed: int, queries: int = 20, classes: int = 4, cells: tuple[int, int] = (16, 24)) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, queries, 5, 6, generator=rng) * 4
    maps = functional.interpolate(coarse, size=cells, mode="bilinear")[0]
    return torch.randn(queries, classes + 1, generator=rng) * 3, maps


@pytest.mark.parametrize("rule", sorted(QUERY_RULES))
@pytest.mark.parametrize("seed", range(6))
def test_panoptic_scenes_are_valid_by_construction(rule: str, seed: int) -> None:
    numbers = replace(QUERY_RULES[rule], overlap=0.3)
    scene = panoptic_scene(*logits(seed), VIEW, PADDED, CLASSES, numbers, score_threshold=0.3)
    assert scene.size == (90, 130)
    assert scene.panoptic is not None
    assert scene.semantic is not None
    found = scene.objects().validate(4)
    assert len(found) > 0
    assert found.ids is not None
    assert found.masks is not None
    assert found.scores is not None
    assert (found.scores.diff() <= 0).all()
    stuff = [label for label in found.labels.tolist() if not CLASSES.thing[label]]
    assert len(stuff) == len(set(stuff)), "stuff is merged"
    dense = found.masks.dense()
    assert int(dense.sum(0).max()) == 1, "no pixel has two segments"
    assert set(scene.panoptic.unique().tolist()) - {0} == set(found.ids.tolist())
    for name, label, mask in zip(found.ids.tolist(), found.labels.tolist(), dense, strict=True):
        assert torch.equal(mask, scene.panoptic == name)
        assert (scene.semantic[mask] == label).all()
    assert (scene.semantic[scene.panoptic == 0] == -1).all()


@pytest.mark.parametrize("rule", ["maskformer", "mask2former"])
def test_panoptic_scenes_are_what_all_masks_at_once_say(rule: str) -> None:
    numbers = replace(QUERY_RULES[rule], overlap=0.5)
    for seed in range(4):
        classes, maps = logits(seed)
        got = panoptic_scene(classes, maps, VIEW, PADDED, CLASSES, numbers, score_threshold=0.4)
        big = functional.interpolate(maps[None], size=PADDED, mode="bilinear")[..., :60, :80]
        prob = functional.interpolate(big, size=(90, 130), mode="bilinear")[0].sigmoid()
        scores, labels = classes.softmax(-1).max(-1)
        kept = [k for k in range(20) if labels[k] < 4 and scores[k] > 0.4]
        owner = (prob[kept] * scores[kept, None, None]).argmax(0)
        want, count, stuff = torch.zeros(90, 130, dtype=torch.int64), 0, {}
        for place, k in enumerate(kept):
            mine, label = owner == place, int(labels[k])
            claimed = int((prob[k] >= 0.5).sum())
            if not mine.any() or not claimed or int(mine.sum()) / claimed < 0.5:
                continue
            if label in stuff:
                name = stuff[label]
            else:
                count += 1
                name = count
                if label > 1:
                    stuff[label] = name
            want[mine & (prob[k] >= 0.5) if numbers.inside else mine] = name
        assert got.panoptic is not None
        assert (got.panoptic != want).sum() <= 3


def test_nothing_is_a_valid_answer() -> None:
    classes, maps = logits(0)
    classes[:, -1] = 50.0
    scene = panoptic_scene(classes, maps, VIEW, PADDED, CLASSES, QUERY_RULES["maskformer"], score_threshold=0.5)
    assert len(scene.objects()) == 0
    assert scene.panoptic is not None
    assert not scene.panoptic.any()
    found = instance_scene(
        classes, maps, VIEW, PADDED, CLASSES, QUERY_RULES["mask2former"], score_threshold=0.5, max_per_image=10
    )
    assert len(found.objects()) == 0


@pytest.mark.parametrize("rule", ["mask2former", "transformers"])
def test_instances_are_things_by_falling_score(rule: str) -> None:
    scene = instance_scene(*logits(1), VIEW, PADDED, CLASSES, QUERY_RULES[rule], score_threshold=0.1, max_per_image=15)
    found = scene.objects().validate(4)
    assert 0 < len(found) <= 15
    assert found.scores is not None
    assert found.masks is not None
    assert (found.labels < 2).all()
    assert (found.scores.diff() <= 0).all()
    assert (found.scores >= 0.1).all()
    assert (found.masks.area() > 0).all()


PANOPTIC = Taxonomy(names=tuple(f"class {i}" for i in range(133)), thing=(True,) * 80 + (False,) * 53)
LARGE = Geometry.identity((1024, 2048))
READINGS: dict[str, Callable[[Tensor, Tensor], Scene]] = {
    "semantic": lambda c, m: semantic_scene(c, m, LARGE, LARGE.valid, QUERY_RULES["maskformer"]),
    "panoptic": lambda c, m: panoptic_scene(
        c, m, LARGE, LARGE.valid, PANOPTIC, replace(QUERY_RULES["mask2former"], overlap=0.0), score_threshold=0.0
    ),
    "instance": lambda c, m: instance_scene(
        c, m, LARGE, LARGE.valid, PANOPTIC, QUERY_RULES["mask2former"], score_threshold=0.0, max_per_image=100
    ),
}


@pytest.mark.parametrize("task", sorted(READINGS))
def test_a_hundred_queries_on_a_large_picture_take_little_memory(task: str) -> None:
    classes, maps = logits(0, 100, 133, (256, 512))
    classes[:, -1] = -9.0
    # what is loaded or compiled once does not count: the better of two runs
    assert min(extra_megabytes(lambda: READINGS[task](classes, maps)) for _ in range(2)) < 100


# ---- learning -------------------------------------------------------------------------------------------------------


def squares(count: int, size: tuple[int, int] = (60, 80)) -> Tensor:
    dense = torch.zeros(count, *size, dtype=torch.bool)
    for i in range(count):
        dense[i, 10 * i : 10 * i + 12, 5 : 40 + i] = True
    return dense


def test_costs_are_losses_of_pairs() -> None:
    given, wanted = torch.randn(4, 50) * 3, (torch.rand(3, 50) > 0.5).float()
    focal, dice = focal_cost(given, wanted), dice_cost(given, wanted)
    exact = Dice(smooth=1.0, epsilon=0.0, squares=False)
    for q in range(4):
        for g in range(3):
            pair = given[q][None, None], wanted[g][None, None]
            assert float(focal[q, g]) == pytest.approx(float(Focal()(*pair)), rel=1e-4)
            assert float(dice[q, g]) == pytest.approx(float(exact(*pair)), rel=1e-4)


def test_classes_that_only_the_semantic_map_has_become_regions() -> None:
    dense = squares(2)
    semantic = torch.full((60, 80), 2)
    semantic[50:] = 3
    semantic[0, 0] = -1
    semantic[dense[0]] = 0
    masks = Masks.from_dense(dense[:1])
    things = Segments(size=(60, 80), labels=torch.tensor([0]), masks=masks, boxes=masks.boxes())
    known = query_truth(Scene(size=(60, 80), segments=things, semantic=semantic), CLASSES, PADDED, torch.device("cpu"))
    assert known.labels.tolist() == [0, 2, 3]
    wanted = known.dense(torch.arange(3), PADDED)
    assert torch.equal(wanted[1, :60, :80], semantic == 2)
    assert not wanted[:, 60:].any()
    alone = query_truth(Scene(size=(60, 80), semantic=semantic), CLASSES, PADDED, torch.device("cpu"))
    assert alone.labels.tolist() == [0, 2, 3]


def test_a_semantic_map_that_tells_nothing_new() -> None:
    dense = torch.zeros(1, 60, 80, dtype=torch.bool)
    dense[0, 10:30, 20:50] = True
    semantic = torch.where(dense[0], 0, -1)
    things = Segments(size=(60, 80), labels=torch.tensor([0]), masks=Masks.from_dense(dense))
    known = query_truth(Scene(size=(60, 80), segments=things, semantic=semantic), CLASSES, PADDED, torch.device("cpu"))
    assert known.labels.tolist() == [0]
    assert known.labels.dtype == torch.int64
    assert torch.equal(known.dense(torch.tensor([0]), PADDED)[0, :60, :80], dense[0])


def test_masks_come_from_the_panoptic_map_if_need_be() -> None:
    dense = squares(2)
    ids = torch.zeros(60, 80, dtype=torch.int64)
    ids[dense[0]], ids[dense[1] & ~dense[0]] = 7, 9
    segments = Segments(size=(60, 80), labels=torch.tensor([1, 2]), ids=torch.tensor([7, 9]))
    scene = Scene(size=(60, 80), segments=segments, panoptic=ids)
    known = query_truth(scene, CLASSES, (60, 80), torch.device("cpu"))
    assert torch.equal(known.dense(torch.tensor([1]), (60, 80))[0], ids == 9)


def test_what_is_ignored_teaches_nothing() -> None:
    dense = squares(3)
    masks = Masks.from_dense(dense)
    segments = Segments(
        size=(60, 80), labels=torch.tensor([0, 1, 1]), masks=masks, boxes=masks.boxes(),
        crowd=torch.tensor([False, False, True]),
    )  # fmt: skip
    scene = Scene(size=(60, 80), segments=segments, ignore=Masks.from_dense(dense[1:2]))
    known = query_truth(scene, CLASSES, PADDED, torch.device("cpu"))
    assert known.labels.tolist() == [0, 1]
    assert known.ignored is not None
    assert torch.equal(known.ignored[:60, :80], dense[1] | dense[2])
    maps = torch.full((1, 2, 16, 24), -5.0)
    maps[0, 0, 5:8, 2:9], maps[0, 1, 14:, 15:] = 5.0, 5.0
    silent = silent_masks(maps, [known])
    assert silent is not None
    assert silent.tolist() == [[True, False]]
    big = enlarge(maps[0], PADDED, known.ignored)
    assert (big[:, known.ignored] == -20).all()
    pairs = Matches.of([(torch.tensor([1]), torch.tensor([0]))], [known], silent)
    assert pairs.weights(torch.zeros(1, 2, 5), 0.1).tolist() == [[0.0, 1.0]]


def test_masks_are_needed() -> None:
    known = QueryTruth(torch.tensor([0]), None, torch.zeros(1, 4), None)
    with pytest.raises(ValueError, match="learns from masks"):
        known.dense(torch.tensor([0]), (8, 8))


def test_classes_weigh_as_cross_entropy_with_a_light_nothing() -> None:
    given = torch.randn(2, 5, 4)
    known = [QueryTruth(torch.tensor([2, 0]), None, None, None), QueryTruth(torch.zeros(0).long(), None, None, None)]
    none = torch.zeros(0, dtype=torch.int64)
    pairs = Matches.of([(torch.tensor([1, 4]), torch.tensor([0, 1])), (none, none)], known)
    total, weight = pairs.class_sum(given, 0.1)
    wanted = torch.full((2, 5), 3)
    wanted[0, 1], wanted[0, 4] = 2, 0
    want = functional.cross_entropy(given.transpose(1, 2), wanted, torch.tensor([1.0, 1, 1, 0.1]))
    assert float(total / weight) == pytest.approx(float(want), rel=1e-5)
    assert np.isclose(float(weight), 2 + 0.8)
