"""Samplers keep their ratio, take without replacement, and are repeatable."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.ops.sampling import sample_balanced, sample_focal, sample_hard

kinds = st.lists(st.sampled_from([1, 0, -1]), max_size=60).map(lambda v: torch.tensor(v, dtype=torch.int8))


@settings(max_examples=80, deadline=None)
@given(kinds, st.integers(0, 40), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 1000))
def test_numbers_and_kinds(kind: torch.Tensor, count: int, fraction: float, seed: int) -> None:
    losses = torch.rand(len(kind), generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    for positive, negative in (
        sample_balanced(kind, count, fraction, generator),
        sample_hard(kind, losses, count, fraction),
        sample_focal(kind, losses, count, fraction, generator=generator),
    ):
        assert (kind[positive] == 1).all()
        assert (kind[negative] == 0).all()
        assert len(positive) == min(int((kind == 1).sum()), int(count * fraction))
        assert len(negative) == min(int((kind == 0).sum()), count - len(positive))
        for index in (positive, negative):
            assert index.tolist() == sorted(set(index.tolist()))


def test_repeatable_and_random() -> None:
    kind = (torch.arange(100) < 30).to(torch.int8)
    draws = [sample_balanced(kind, 40, 0.25, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][1], draws[2][1])


def test_every_candidate_is_as_likely() -> None:
    kind = torch.zeros(20, dtype=torch.int8)
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros(20)
    for _ in range(2000):
        seen[sample_balanced(kind, 5, 0.5, generator)[1]] += 1
    assert (seen / 2000 - 0.25).abs().max() < 0.04


def test_nothing_dropped_draws_no_randomness() -> None:
    kind = torch.tensor([0, 1, -1, 0, 1], dtype=torch.int8)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    positive, negative = sample_balanced(kind, 8, 0.5, generator)
    assert positive.tolist() == [1, 4]
    assert negative.tolist() == [0, 3]
    assert torch.equal(before, generator.get_state())


def test_the_hardest_stay() -> None:
    kind = torch.tensor([1, 1, 0, 0, 0, -1], dtype=torch.int8)
    losses = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.5, 9.0])
    positive, negative = sample_hard(kind, losses, 2, 0.5)
    assert positive.tolist() == [1]
    assert negative.tolist() == [2]


def test_what_is_wrong_is_drawn_in_proportion() -> None:
    """One of two: the chance of each is its focal factor over the sum of both."""
    prob = torch.tensor([0.9, 0.5])
    kind, generator = torch.zeros(2, dtype=torch.int8), torch.Generator().manual_seed(0)
    draws = [int(sample_focal(kind, -prob.log(), 1, 0.0, gamma=1.0, generator=generator)[1]) for _ in range(3000)]
    assert abs(sum(draws) / 3000 - 0.5 / 0.6) < 0.03
    draws = [int(sample_focal(kind, -prob.log(), 1, 0.0, gamma=0.0, generator=generator)[1]) for _ in range(3000)]
    assert abs(sum(draws) / 3000 - 0.5) < 0.03


def test_certain_and_hopeless_candidates() -> None:
    losses = torch.tensor([0.0, 0.0, 200.0, 0.0])
    kind, generator = torch.zeros(4, dtype=torch.int8), torch.Generator().manual_seed(0)
    assert sample_focal(kind, losses, 1, 0.0, generator=generator)[1].tolist() == [2]
    assert len(sample_focal(kind, losses, 3, 0.0, generator=generator)[1]) == 3
