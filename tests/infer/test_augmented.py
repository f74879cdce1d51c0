"""Test-time augmentation and the merging core: exact ways back, groups, votes, scores; semantic and panoptic maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskwright.data.augment.test_time import View
from maskwright.errors import InputError
from maskwright.infer.augmented import augmented, parse_views
from maskwright.infer.looks import Looks
from maskwright.infer.merge import Merging, merge
from maskwright.infer.predictor import predict
from maskwright.ops import rle
from maskwright.ops.votes import vote_labels, vote_masks
from maskwright.protocols import Model
from maskwright.structures import Geometry, Images, Masks, Resize, Scene, Segments, Taxonomy
from tests.infer.exact import Exact, discs
from tests.infer.test_tiles import said, tensor
from tests.infer.toy import Toy, spot

NAMES = Taxonomy(names=("a", "b", "sky"), thing=(True, True, False))


def one(model: Model, picture: Tensor | np.ndarray, **options: float) -> Scene:
    scene = predict(model, picture, **options)  # type: ignore[arg-type]
    assert isinstance(scene, Scene)
    return scene


# ---- the words ------------------------------------------------------------------------------------------------------


def test_words_for_views() -> None:
    assert parse_views("flip") == (View(), View(flip_x=True))
    assert len(parse_views("flip,scale")) == 6
    assert len(parse_views("vflip, flip")) == 4
    assert len(parse_views("rot90")) == 4
    assert len(parse_views("flip,vflip,rot90,scale")) == 24
    assert [view.scale for view in parse_views("scale=0.5/1/2")] == [0.5, 1.0, 2.0]
    assert parse_views("flip,scale")[0] == View()
    for text in (
        "",
        "mirror",
        "flip,",
        "flip,flip",
        "flip=2",
        "scale=",
        "scale=0/1",
        "scale=1/1",
        "scale=x",
        "scale=99",
    ):
        with pytest.raises(InputError, match=r"augmentation|scale"):
            parse_views(text)


# ---- exact models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["flip", "vflip", "rot90", "flip,vflip,rot90"])
@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_an_exact_model_says_the_same_from_every_side(task: str, kinds: str) -> None:
    picture, drawn = discs((75, 103), 30, (2, 12), 3)
    assert drawn > 5
    plain, seen = one(Exact(task), tensor(picture)), one(augmented(Exact(task), kinds), tensor(picture))
    if task != "instance":
        assert torch.equal(plain.classes(), seen.classes())
    if task != "semantic":
        assert said(plain) == said(seen)
        assert seen.objects().scores is not None
        assert torch.allclose(seen.objects().scores, torch.tensor(0.9))  # type: ignore[arg-type]
        assert torch.equal(seen.objects().boxes, seen.with_masks().objects().masks.boxes())  # type: ignore[union-attr, arg-type]


def test_it_is_a_model_and_gives_every_look_its_own_size() -> None:
    toy = Toy(Resize(short=80))
    looks = augmented(toy, "scale=0.5/1,rot90")
    assert isinstance(looks, Model)
    scene = one(looks, spot())
    assert [seen["sizes"] for seen in toy.seen] == [
        ((40, 60),), ((40, 60),), ((60, 40),), ((60, 40),), ((80, 120),), ((80, 120),), ((120, 80),), ((120, 80),),
    ]  # fmt: skip
    assert scene.size == (40, 60)
    assert scene.objects().boxes is not None
    assert scene.objects().boxes.tolist() == [[10, 20, 30, 35]] * 2  # type: ignore[union-attr]
    assert {seen["threshold"] for seen in toy.seen} == {0.1}


def test_thresholds_and_limits_hold_after_merging() -> None:
    toy = Toy()
    looks = augmented(toy, "flip")
    assert len(one(looks, spot(), score_threshold=0.6).objects()) == 1
    assert {seen["threshold"] for seen in toy.seen} == {0.1}
    assert len(one(looks, spot(), max_per_image=1).objects()) == 1
    assert toy.seen[-1]["limit"] == 1
    assert (looks.score_threshold, looks.max_per_image) == (0.1, 100)
    assert not toy.seen[-1]["training"]
    assert not toy.seen[-1]["grad"]
    with pytest.raises(InputError, match="cannot be trained"):
        looks.loss(None, None)  # type: ignore[arg-type]


def test_pictures_of_a_batch_keep_to_themselves() -> None:
    model = augmented(Toy(), "flip,vflip")
    pictures = [spot(), spot((90, 30), (2, 3, 20, 80))]
    together = predict(model, pictures, batch_size=2)
    assert isinstance(together, list)
    for scene, picture in zip(together, pictures, strict=True):
        assert said(scene) == said(one(model, picture))


# ---- the core -------------------------------------------------------------------------------------------------------


def opinion(*found: tuple[int, int, int, int, int, float], boxes: bool = True) -> Scene:
    """(label, x1, y1, x2, y2, score) on 20 x 30."""
    dense = torch.zeros((len(found), 20, 30), dtype=torch.bool)
    for i, (_, x1, y1, x2, y2, _) in enumerate(found):
        dense[i, y1:y2, x1:x2] = True
    masks = Masks.from_dense(dense)
    segments = Segments(
        size=(20, 30),
        labels=torch.tensor([each[0] for each in found], dtype=torch.int64),
        masks=masks,
        boxes=masks.boxes() if boxes else None,
        scores=torch.tensor([each[5] for each in found]),
    )
    return Scene(size=(20, 30), segments=segments)


def merged(
    scenes: Sequence[Scene], weights: Sequence[float] | None = None, how: Merging | None = None
) -> list[tuple[int, list[int], float]]:
    """(label, mask's box, score) by falling score."""
    found = merge(scenes, weights or [1.0] * len(scenes), "instance", NAMES, how or Merging()).objects().validate(3)
    assert found.masks is not None
    assert found.scores is not None
    rows = zip(found.labels.tolist(), found.masks.boxes().tolist(), found.scores.tolist(), strict=True)
    return [(label, [int(v) for v in box], round(score, 4)) for label, box, score in rows]


def test_what_few_see_is_less_sure() -> None:
    scenes = [opinion((0, 2, 2, 10, 10, 0.9), (1, 15, 5, 25, 15, 0.6)), opinion((0, 2, 2, 10, 10, 0.7)), opinion()]
    assert merged(scenes) == [(0, [2, 2, 10, 10], round(1.6 / 3, 4)), (1, [15, 5, 25, 15], 0.2)]
    assert merged(scenes, [2, 1, 1]) == [(0, [2, 2, 10, 10], round(2.5 / 4, 4)), (1, [15, 5, 25, 15], 0.3)]
    assert merged(scenes, None, Merging(score_threshold=0.3)) == [(0, [2, 2, 10, 10], round(1.6 / 3, 4))]
    assert len(merged(scenes, None, Merging(max_per_image=1))) == 1


def test_pixels_are_where_most_of_the_weight_is() -> None:
    three = [opinion((0, 2, 2, 12, 10, 0.5)), opinion((0, 3, 2, 13, 10, 0.5)), opinion((0, 2, 2, 15, 10, 0.5))]
    assert merged(three) == [(0, [2, 2, 13, 10], 0.5)]
    assert merged(three, [1, 1, 5]) == [(0, [2, 2, 15, 10], 0.5)]
    two = [opinion((0, 2, 2, 12, 10, 0.5)), opinion((0, 3, 2, 13, 10, 0.9))]
    assert merged(two) == [(0, [3, 2, 13, 10], 0.7)]


def test_one_opinions_objects_stay_apart_and_classes_too() -> None:
    twice = [opinion((0, 2, 2, 12, 10, 0.9), (0, 3, 2, 13, 10, 0.8)), opinion((0, 2, 2, 12, 10, 0.7))]
    assert [score for _, _, score in merged(twice)] == [0.8, 0.4]
    assert len(merged([opinion((0, 2, 2, 12, 10, 0.9)), opinion((1, 2, 2, 12, 10, 0.9))])) == 2
    far = [opinion((0, 2, 2, 12, 10, 0.9)), opinion((0, 7, 2, 17, 10, 0.9))]  # IoU 1/3
    assert len(merged(far)) == 2
    assert len(merged(far, None, Merging(agree=0.3))) == 1


def test_boxes_are_means_where_all_have_them() -> None:
    two = [opinion((0, 2, 2, 12, 10, 0.5)), opinion((0, 4, 2, 12, 10, 0.5))]
    found = merge(two, [3, 1], "instance", NAMES, Merging()).objects()
    assert found.boxes is not None
    assert found.boxes.tolist() == [[2.5, 2, 12, 10]]
    two = [opinion((0, 2, 2, 12, 10, 0.5)), opinion((0, 4, 2, 12, 10, 0.5), boxes=False)]
    found = merge(two, [3, 1], "instance", NAMES, Merging()).objects()
    assert found.boxes is not None
    assert found.boxes.tolist() == [[2, 2, 12, 10]]


def test_a_group_without_a_majority_keeps_its_first_mask() -> None:
    # Each overlaps the first by 2/3, no pixel has more than half of the weight of all.
    scenes = [opinion((0, 5, 0, 10, 20, 0.9))] + [opinion((0, 5 + k, 0, 10 + k, 20, 0.9)) for k in (1, -1)]
    assert len(merged(scenes, None, Merging(agree=0.5))) == 1
    lone = [opinion((0, 0, 0, 10, 10, 0.9)), opinion((0, 3, 0, 13, 10, 0.9)), opinion((0, 0, 3, 10, 13, 0.9))]
    found = merged(lone, [1e-6, 1, 1], Merging(agree=0.5))
    assert found[0][1] != [0, 0, 0, 0]


def test_no_objects_at_all_and_bad_opinions() -> None:
    assert merged([opinion(), opinion()]) == []
    with pytest.raises(InputError, match="one picture"):
        merge([opinion(), Scene(size=(5, 5), segments=Segments.empty((5, 5)))], [1, 1], "instance", NAMES, Merging())
    for weights in ([1.0], [1.0, 0.0], [1.0, float("inf")]):
        with pytest.raises(InputError, match="weight above 0"):
            merge([opinion(), opinion()], weights, "instance", NAMES, Merging())
    bare = Scene(size=(5, 5), segments=Segments(size=(5, 5), labels=torch.zeros(1, dtype=torch.int64)))
    with pytest.raises(InputError, match="merged on masks"):
        merge([bare], [1.0], "instance", NAMES, Merging())


@pytest.mark.parametrize("seed", range(20))
def test_votes_are_those_of_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number, groups = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    dense = rng.random((number, 9, 7)) < rng.random((number, 1, 1))
    group = np.concatenate(
        [np.arange(min(groups, number)), rng.integers(0, min(groups, number), max(0, number - groups))]
    )
    weights = rng.integers(1, 5, number).astype(float)
    runs = vote_masks(*rle.encode(dense), group, weights, 63)
    expected = np.stack([
        2 * (dense[group == g] * weights[group == g, None, None]).sum(0) > weights[group == g].sum()
        for g in range(group.max() + 1)
    ])  # fmt: skip
    assert np.array_equal(rle.decode(*runs, (9, 7)), expected)
    maps = rng.integers(-1, 4, (number, 6, 5))
    got = vote_labels(maps, weights)
    tally = np.stack([((maps == label) * weights[:, None, None]).sum(0) for label in range(4)])
    best = np.take_along_axis(tally, np.maximum(got, 0)[None], 0)[0]
    assert np.array_equal(got < 0, (maps < 0).all(0))
    assert (best[got >= 0] == tally.max(0)[got >= 0]).all()


def test_votes_refuse_what_makes_no_sense() -> None:
    counts, offsets = rle.encode(np.ones((2, 3, 3), bool))
    for groups, weights in (([0], [1, 1]), ([0, 1], [1, 0]), ([0, 2], [1, 1]), ([-1, 0], [1, 1])):
        with pytest.raises(InputError, match=r"vote"):
            vote_masks(counts, offsets, groups, weights, 9)
    assert len(vote_masks(np.zeros(0, np.int32), np.zeros(1, np.int64), [], [], 9)[1]) == 1
    with pytest.raises(InputError, match="vote needs maps"):
        vote_labels(np.zeros((2, 3, 3), int), [1.0])


# ---- maps -----------------------------------------------------------------------------------------------------------


@dataclass
class LogitsRaw:
    semantic_logits: Tensor
    padded: tuple[int, int]


class Shades(nn.Module):
    """A semantic model with logits: class 1 where a pixel is bright, less sure of what lies on the right."""

    task, size_divisor = "semantic", 1

    def __init__(self, names: tuple[str, ...] = ("dark", "bright"), gain: float = 1.0, tells: bool = True) -> None:
        super().__init__()
        self.taxonomy, self.resize = Taxonomy(names=names), Resize()
        self.score_threshold, self.max_per_image = 0.0, 100
        self.gain, self.tells = gain, tells
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Images, scenes: Sequence[Scene] | None = None) -> LogitsRaw | Tensor:
        bright = (inputs.pixels.float().mean(1, keepdim=True) / 128 - 1) * self.gain
        slope = torch.linspace(2, -1, inputs.pixels.shape[-1])
        maps = {"bright": bright * slope, "dark": -bright * slope}
        logits = torch.cat([maps[name] for name in self.taxonomy.names], 1)
        return LogitsRaw(logits, (logits.shape[-2], logits.shape[-1])) if self.tells else logits

    def loss(self, raw: object, batch: object) -> dict[str, Tensor]:
        return {}

    def loss_counts(self, raw: object, batch: object) -> dict[str, Tensor]:
        return {}

    def predict(self, raw: LogitsRaw | Tensor, geometry: Sequence[Geometry]) -> list[Scene]:
        logits = raw if isinstance(raw, Tensor) else raw.semantic_logits
        return [Scene(size=g.original, semantic=each.argmax(0)) for each, g in zip(logits, geometry, strict=True)]


def test_semantic_is_the_mean_of_probabilities() -> None:
    picture = torch.full((3, 4, 9), 200, dtype=torch.uint8)
    plain = one(Shades(), picture).classes()
    assert plain[0].tolist() == [1] * 6 + [0] * 3
    assert one(augmented(Shades(), "flip"), picture).classes().tolist() == [[1] * 9] * 4
    unsure = one(augmented(Shades(), "flip"), picture, score_threshold=0.9)
    assert unsure.classes().tolist() == [[-1] * 9] * 4
    assert one(augmented(Shades(tells=False), "flip"), picture).classes().tolist() == plain.tolist()  # votes: a tie
    other = Looks([Shades(), Shades(("bright", "dark"), 50.0)], weights=[1, 3])
    assert one(other, picture).classes().tolist() == plain.tolist()


def panoptic_scene(things: Sequence[tuple[int, int, int, int, int, float]], sky: float = 0.5) -> Scene:
    """Things on sky, (label, x1, y1, x2, y2, score), on 20 x 30."""
    ids = torch.full((20, 30), len(things) + 1, dtype=torch.int64)
    for k, (_, x1, y1, x2, y2, _) in enumerate(things):
        ids[y1:y2, x1:x2] = k + 1
    ids[:, 28:] = 0
    segments = Segments(
        size=(20, 30),
        labels=torch.tensor([*(each[0] for each in things), 2]),
        scores=torch.tensor([*(each[5] for each in things), sky]),
        ids=torch.arange(1, len(things) + 2),
    )
    return Scene(size=(20, 30), panoptic=ids, segments=segments)


def test_panoptic_keeps_things_that_half_of_the_weight_sees() -> None:
    three = [
        panoptic_scene([(0, 2, 2, 10, 10, 0.9), (1, 15, 2, 20, 10, 0.8)]),
        panoptic_scene([(0, 2, 2, 10, 10, 0.7)]),
        panoptic_scene([(0, 3, 2, 10, 10, 0.5)]),
    ]
    scene = merge(three, [1, 1, 1], "panoptic", NAMES, Merging())
    objects = scene.objects().validate(3)
    assert objects.labels.tolist() == [0, 2]
    assert objects.scores is not None
    assert objects.scores.tolist() == pytest.approx([0.7, 0.5])
    assert scene.panoptic is not None
    assert int((scene.classes() == 0).sum()) == 64
    assert int((scene.classes() == -1).sum()) == 40  # void for all
    assert int(scene.classes()[5, 17]) == 2  # the thing that one saw is the sky that two saw
    assert torch.equal(scene.panoptic > 0, scene.classes() >= 0)
    both = merge(three[:2], [1, 1], "panoptic", NAMES, Merging())
    assert sorted(both.objects().labels.tolist()) == [0, 1, 2]
