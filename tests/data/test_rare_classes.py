"""Rare classes: the weights are those of the papers, and a sampler honors them, with everything else it does."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.order import Stream, one_pass
from maskwright.data.rare_classes import class_weights, repeat_factors, sampling_weights
from maskwright.data.samplers import Draw, Shuffled
from maskwright.data.source import CachedSource, FileSource, MixedSource, Subset, image_labels, mix
from maskwright.errors import InputError
from maskwright.structures import Record
from tests.data.make import ANIMALS, record

SQUARE = np.array([[0, 0], [4, 0], [4, 4]], np.float64)


def source(labels: list[list[int]], *, crowd: list[list[bool]] | None = None, tall: int = 0) -> FileSource:
    made = [
        record(
            (9, 5) if i < tall else (5, 9),
            [(SQUARE,)] * len(on),
            labels=on,
            crowd=crowd[i] if crowd else None,
            key=f"{i}.png",
            image_id=i,
        )
        for i, on in enumerate(labels)
    ]
    return FileSource.from_records(made, ANIMALS)


class Slow:
    """A source of somebody else: records and nothing more."""

    taxonomy = ANIMALS

    def __init__(self, source: FileSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def record(self, index: int) -> Record:
        return self.source.record(index)

    def load(self, index: int) -> Any:
        raise AssertionError("weights must not read pixels")


def take(sampler: Shuffled, count: int) -> list[list[Draw]]:
    return list(islice(iter(sampler), count))


def flat(batches: list[list[Draw]]) -> list[int]:
    return [draw.index for batch in batches for draw in batch]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=12), st.floats(0, 1))
def test_repeat_factors_are_the_papers(labels: list[list[int]], threshold: float) -> None:
    fraction = {c: sum(c in on for on in labels) / len(labels) for c in range(3)}
    want = [max([1.0] + [max(1.0, (threshold / fraction[c]) ** 0.5) for c in on]) for on in labels]
    assert np.allclose(repeat_factors(source(labels), threshold), want)
    assert np.array_equal(repeat_factors(Slow(source(labels)), threshold), repeat_factors(source(labels), threshold))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=12), st.sampled_from([0.0, 0.5, 1.0]))
def test_class_weights_draw_a_class_then_an_image(labels: list[list[int]], power: float) -> None:
    data = source(labels)
    shown = {c: [i for i, on in enumerate(labels) if c in on] for c in range(3)}
    shown = {c: images for c, images in shown.items() if images}
    if not shown:
        with pytest.raises(InputError, match="images with objects"):
            class_weights(data, power)
        return
    rates = {c: len(images) ** power for c, images in shown.items()}
    chance = np.zeros(len(labels))
    for c, images in shown.items():
        chance[images] += rates[c] / sum(rates.values()) / len(images)
    assert np.allclose(class_weights(data, power), chance * len(labels))


def test_crowd_does_not_count() -> None:
    data = source([[0, 1], [0], [0]], crowd=[[False, True], [False], [False]])
    assert repeat_factors(data, 1.0).tolist() == [1, 1, 1]
    first, labels = image_labels(data)
    assert first.tolist() == [0, 1, 2, 3]
    assert labels.tolist() == [0, 0, 0]
    assert [v.tolist() for v in image_labels(Slow(data))] == [first.tolist(), labels.tolist()]


def test_labels_pass_through_views() -> None:
    a, b = source([[0], [], [1, 1]]), source([[2], [2, 0]])
    mixed = MixedSource([a, Slow(b)])
    for view in (mixed, Subset(mixed, [4, 0, 0, 2, 1]), Subset(mixed, [])):
        want = [view.record(i).labels.tolist() for i in range(len(view))]
        first, labels = image_labels(view)
        assert [labels[p:q].tolist() for p, q in pairwise(first)] == want
    picture = CachedSource(Subset(a, [2, 0]), limit=0)
    assert image_labels(picture)[1].tolist() == [1, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=20).filter(lambda w: sum(w) > 0.6), st.integers(0, 1000))
def test_a_pass_rounds_every_weight_up_or_down(weights: list[float], seed: int) -> None:
    given_weights = np.array(weights)
    total = max(1, round(given_weights.sum()))
    scaled = given_weights * total / given_weights.sum()
    order = one_pass(np.random.default_rng(seed), np.arange(len(weights)) + 7, given_weights)
    counts = np.bincount(order - 7, minlength=len(weights))
    assert counts.sum() == total
    assert (counts >= np.floor(scaled - 1e-9)).all()
    assert (counts <= np.ceil(scaled + 1e-9)).all()


def test_passes_come_to_the_weights() -> None:
    data = source([[0]] * 10)
    weights = np.array([1, 1, 1, 1, 1, 1, 2.25, 0.5, 0.25, 0], np.float64)
    seen = Counter(flat(take(Shuffled(data, 9, weights=weights), 4000)))
    assert 9 not in seen
    assert all(abs(seen[i] / 4000 - weights[i]) < 0.03 for i in range(10))
    assert Shuffled(data, 2, weights=weights).epoch == 5


def test_rare_images_come_at_the_factors_rate() -> None:
    labels = [[0]] * 99 + [[1]]
    weights = sampling_weights(source(labels), "repeat", 0.09)
    assert weights is not None
    assert weights[99] == 3.0
    seen = Counter(flat(take(Shuffled(source(labels), 6, weights=weights), 17 * 10)))
    assert 28 <= seen[99] <= 31
    assert sampling_weights(source(labels), "uniform") is None
    balanced = sampling_weights(source(labels), "balanced")
    assert balanced is not None
    half = flat(take(Shuffled(source(labels), 10, weights=balanced), 100))
    assert sum(i == 99 for i in half) == 500
    root = sampling_weights(source(labels), "sqrt")
    assert root is not None
    assert root[99] / root[:99].sum() == pytest.approx(1 / 99**0.5)
    with pytest.raises(InputError, match="uniform, repeat, sqrt, balanced"):
        sampling_weights(source(labels), "often")  # type: ignore[arg-type]


def test_weights_go_with_mixes_groups_ranks_and_resuming() -> None:
    a, b = source([[0]] * 4 + [[1]] * 2, tall=3), source([[2], [0], []], tall=1)
    data = MixedSource([a, b], [1, 3])
    weights = np.array([1, 2, 1, 1, 1, 4, 3, 1, 0], np.float64)

    def made(batch: int, **more: Any) -> Shuffled:
        return Shuffled(data, batch, seed=4, group=True, weights=weights, **more)

    alone = take(made(6), 200)
    ranks = [take(made(2, rank=r, world=3), 200) for r in range(3)]
    assert [[d for rank in ranks for d in rank[k]] for k in range(200)] == alone
    seen = Counter(flat(alone))
    assert sum(seen[i] for i in range(6)) == pytest.approx(300, abs=3)
    assert seen[8] == 0
    for group in ((0, 1, 2), (3, 4, 5), (6,), (7,)):
        total = sum(seen[i] for i in group)
        for i in group:
            assert seen[i] / total == pytest.approx(weights[i] / weights[list(group)].sum(), abs=0.03)
    tall = {0, 1, 2, 6}
    assert all(len({d.index in tall for d in batch}) == 1 for batch in alone)

    first = made(6)
    take(first, 37)
    state = json.loads(json.dumps(first.state_dict()))
    again = made(6)
    again.load_state_dict(state)
    assert take(again, 20) == alone[37:57]
    other = Shuffled(data, 6, group=True, weights=weights + 1)
    with pytest.raises(InputError, match="other weights"):
        other.load_state_dict(state)
    with pytest.raises(InputError, match="other weights"):
        Shuffled(data, 6, group=True).load_state_dict(state)


def test_without_shares_weights_go_across_the_mix() -> None:
    data = MixedSource([source([[0]] * 3), source([[1]])])
    seen = Counter(flat(take(Shuffled(data, 4, weights=np.array([1, 1, 1, 9.0])), 30)))
    assert seen[3] == 90
    assert {seen[i] for i in range(3)} == {10}


def test_a_mix_of_mixes_is_one_mix() -> None:
    inner = MixedSource([source([[0]] * 2), source([[0]] * 6)], [1, 1])
    found = mix(MixedSource([inner, source([[0]] * 4)], [1, 3]))
    assert found.shares is not None
    assert found.shares.tolist() == [0.125, 0.125, 0.75]
    assert found.parts.tolist() == [0] * 2 + [1] * 6 + [2] * 4
    unweighted = mix(MixedSource([inner, source([[0]] * 4)]))
    assert unweighted.shares is not None
    assert unweighted.shares.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    view = Subset(CachedSource(inner, limit=0), [7, 1, 5])
    assert mix(view).parts.tolist() == [1, 0, 1]
    assert Counter(flat(take(Shuffled(view, 2), 20)))[1] == 20
    lacking = Subset(inner, [7, 6])  # nothing of the first part is left
    assert set(flat(take(Shuffled(lacking, 2), 4))) == {0, 1}


def test_wrong_weights_are_refused() -> None:
    data = source([[0]] * 3)
    for wrong in ([1, 1], [1, 1, -1], [0, 0, 0], [1, 1, np.nan], [1, 1, np.inf]):
        with pytest.raises(InputError, match="weights must be 3 finite numbers"):
            Shuffled(data, 1, weights=np.array(wrong, np.float64))
    with pytest.raises(InputError, match="from 0 to 1"):
        repeat_factors(data, 1.5)
    with pytest.raises(InputError, match="from 0 to 1"):
        class_weights(data, -1.0)
    with pytest.raises(InputError, match="weights above 0"):
        Shuffled(MixedSource([data, data], [1, 1e-300]), 1, weights=np.array([0, 0, 0, 1e-320, 0, 0]))


def test_blocks_are_read_in_order_within_the_window() -> None:
    blocks = np.repeat(np.arange(10), [50, 3, 70, 50, 50, 1, 50, 50, 20, 50])
    members = np.arange(len(blocks)) * 2
    plain = one_pass(np.random.default_rng(1), members, None, blocks, Stream(open=2, window=1))
    assert sorted(plain.tolist()) == members.tolist()
    turns = [set(blocks[plain[:1] // 2].tolist())]
    for image in plain // 2:
        if blocks[image] not in turns[-1] and len(turns[-1]) == 2:
            turns.append(set())
        turns[-1].add(int(blocks[image]))
    assert len(turns) == 5  # two at a time, no block comes back
    for block in range(10):
        mine = [i for i in plain // 2 if blocks[i] == block]
        assert mine == sorted(mine)
    moved = one_pass(np.random.default_rng(1), members, None, blocks, Stream(open=2, window=20))
    assert sorted(moved.tolist()) == members.tolist()
    place = {image: k for k, image in enumerate(plain.tolist())}
    distance = [abs(place[image] - k) for k, image in enumerate(moved.tolist())]
    assert 5 < max(distance) < 20
    with pytest.raises(InputError, match="1 or more"):
        Stream(open=0)


def test_counts_need_no_records(tmp_path: Path) -> None:
    class Table(FileSource):
        def record(self, index: int) -> Record:
            raise AssertionError("a table's columns are enough")

    data = Table(source([[0], [1], [1]]).table, ANIMALS)
    assert repeat_factors(data, 1.0).tolist() == pytest.approx([3**0.5, 1.5**0.5, 1.5**0.5])
