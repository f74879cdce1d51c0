"""The order of a run: complete, fair, sharded without overlap, exact to resume."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.data.samplers import Draw, Sequential, Shuffled
from maskwright.data.source import FileSource, MixedSource, image_sizes
from maskwright.errors import InputError
from maskwright.structures import Record, Taxonomy
from tests.data.make import ANIMALS, record


def source(count: int, *, tall: int = 0) -> FileSource:
    made = [record((9, 5) if i < tall else (5, 9), [], key=f"{i}.png", image_id=i) for i in range(count)]
    return FileSource.from_records(made, ANIMALS)


def take(sampler: Any, count: int) -> list[list[Draw]]:
    return list(islice(iter(sampler), count))


def test_every_image_once_then_all_again_in_another_order() -> None:
    batches = take(Shuffled(source(12), 3), 8)
    indices = [d.index for b in batches for d in b]
    assert sorted(indices[:12]) == sorted(indices[12:]) == list(range(12))
    assert indices[:12] != indices[12:]
    seeds = [d.seed for b in batches for d in b]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert take(Shuffled(source(12), 3), 8) == batches
    assert take(Shuffled(source(12), 3, seed=1), 8) != batches
    assert Shuffled(source(13), 3).epoch == 5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 5), st.integers(0, 30), st.booleans())
def test_resumes_exactly(count: int, tall: int, batch: int, done: int, group: bool) -> None:
    data = source(count, tall=min(tall, count))
    whole = take(Shuffled(data, batch, seed=3, group=group), done + 10)
    first = Shuffled(data, batch, seed=3, group=group)
    take(first, done)
    state = json.loads(json.dumps(first.state_dict()))
    again = Shuffled(data, batch, seed=99, group=group)
    again.load_state_dict(state)
    assert take(again, 10) == whole[done:]


def test_ranks_together_are_one_process() -> None:
    alone = take(Shuffled(source(20, tall=7), 6, group=True), 10)
    ranks = [take(Shuffled(source(20, tall=7), 2, group=True, rank=r, world=3), 10) for r in range(3)]
    assert [[d for rank in ranks for d in rank[k]] for k in range(10)] == alone


def test_shapes_are_kept_apart_at_their_share() -> None:
    data = source(30, tall=10)
    batches = take(Shuffled(data, 5, group=True), 60)
    sizes = image_sizes(data)
    kinds = [{bool(sizes[d.index, 0] > sizes[d.index, 1]) for d in b} for b in batches]
    assert all(len(kind) == 1 for kind in kinds)
    assert sum(kind == {True} for kind in kinds) == 20
    seen = Counter(d.index for b in batches for d in b)
    assert set(seen.values()) == {10}


def test_mixing_honors_weights() -> None:
    mixed = MixedSource([source(4), source(40)], weights=[3, 1])
    seen = [d.index for b in take(Shuffled(mixed, 8), 50) for d in b]
    assert sum(i < 4 for i in seen) == 300
    assert set(Counter(i for i in seen if i < 4).values()) == {75}
    equally = [d.index for b in take(Shuffled(MixedSource([source(4), source(40)]), 11), 8) for d in b]
    assert set(Counter(equally).values()) == {2}
    grouped = take(Shuffled(MixedSource([source(4, tall=4), source(40)], weights=[1, 1]), 4, group=True), 20)
    assert sum(d.index < 4 for b in grouped for d in b) == 40


def test_a_mix_is_its_sources() -> None:
    mixed = MixedSource([source(2), source(3)])
    assert len(mixed) == 5
    assert [mixed.record(i).key for i in range(5)] == ["0.png", "1.png", "0.png", "1.png", "2.png"]
    assert mixed.record(-1).key == "2.png"
    with pytest.raises(IndexError):
        mixed.record(5)
    other = FileSource.from_records([record((5, 9), [])], Taxonomy(names=("ant",)))
    for arguments, words in (
        (([source(1), other],), "same classes"),
        (([],), "sources with images"),
        (([source(1), source(0)],), "sources with images"),
        (([source(1)], [0.0]), "positive number"),
        (([source(1)], [1.0, 2.0]), "one positive number for each"),
    ):
        with pytest.raises(InputError, match=words):
            MixedSource(*arguments)


def test_a_state_of_other_data_is_refused() -> None:
    state = Shuffled(source(5), 2).state_dict()
    with pytest.raises(InputError, match="5 images, now there are 6"):
        Shuffled(source(6), 2).load_state_dict(state)
    with pytest.raises(InputError, match="2 samples in a batch"):
        Shuffled(source(5), 3).load_state_dict(state)
    with pytest.raises(InputError, match="another mix"):
        Shuffled(MixedSource([source(2), source(3)]), 2).load_state_dict(state)
    with pytest.raises(InputError, match="must have images"):
        Shuffled(source(0), 2)
    with pytest.raises(InputError, match="rank < world"):
        Shuffled(source(1), 2, rank=1)


def test_sequential_shards_and_resumes() -> None:
    data = source(11)
    whole = list(Sequential(data, 2))
    assert [d.index for b in whole for d in b] == list(range(11))
    shards = [list(Sequential(data, 2, rank=r, world=4)) for r in range(4)]
    assert sorted(d.index for shard in shards for b in shard for d in b) == list(range(11))
    assert [len(Sequential(data, 2, rank=r, world=4)) for r in range(4)] == [len(s) for s in shards] == [2, 2, 1, 1]
    one = Sequential(data, 2)
    take(one, 2)
    again = Sequential(data, 2)
    again.load_state_dict(one.state_dict())
    assert list(again) == whole[2:]
    assert list(again) == whole


def test_seeds_do_not_hang_together() -> None:
    """Neighboring seeds and positions share no seed and no low bits."""
    seeds = [d.seed for s in range(20) for b in take(Shuffled(source(50), 10, seed=s), 20) for d in b]
    assert len(set(seeds)) == len(seeds)
    bits = np.array([[(s >> k) & 1 for k in range(63)] for s in seeds])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.05


def test_records_are_not_needed_by_the_order() -> None:
    class Endless:
        taxonomy = ANIMALS

        def __len__(self) -> int:
            return 10**6

        def record(self, index: int) -> Record:
            raise AssertionError("the order must not read records")

        def load(self, index: int) -> tuple[Record, torch.Tensor]:
            raise AssertionError

    assert len(take(Shuffled(Endless(), 4), 3)) == 3


def test_the_order_of_earlier_versions() -> None:
    """Runs resume under a new version: an order once given to a seed is kept."""
    mixed = MixedSource([source(3, tall=1), source(5)], weights=[1, 3])
    got = [[d.index for d in batch] for batch in take(Shuffled(mixed, 3, seed=5, group=True), 6)]
    assert got == [[7, 3, 2], [5, 6, 4], [4, 3, 1], [7, 6, 5], [7, 1, 5], [3, 4, 6]]
    assert take(Shuffled(source(4), 1, seed=2), 1)[0][0].seed == 243808509735772839
    old = {"count": 4, "seed": 2, "everyone": 1, "batches": 7, "groups": [7, 0], "parts": [[7], [0]]}
    again = Shuffled(source(4), 1)
    again.load_state_dict(old)
    assert take(again, 3) == take(Shuffled(source(4), 1, seed=2), 10)[7:]
