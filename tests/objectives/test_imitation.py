"""Losses between maps, against slow loops; which levels meet."""

from __future__ import annotations

from math import exp, sqrt

import pytest
import torch
from torch import Tensor

from maskwright.errors import InputError
from maskwright.objectives.imitation import (
    Imitation,
    attended_error,
    object_weights,
    pair_levels,
    paired,
    relation_sum,
    valid_cells,
)


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_error(own: Tensor, theirs: Tensor, temperature: float) -> list[list[float]]:
    """The attended error cell by cell."""
    channels, height, width = theirs.shape
    scale = sum(float(v) ** 2 for v in theirs.flatten()) / theirs.numel()
    size = [[[abs(float(v)) / sqrt(scale) for v in row] for row in plane] for plane in theirs]
    by_channel = [exp(sum(map(sum, plane)) / (height * width) / temperature) for plane in size]
    by_place = [
        [exp(sum(size[c][y][x] for c in range(channels)) / channels / temperature) for x in range(width)]
        for y in range(height)
    ]
    places = sum(map(sum, by_place)) / (height * width)
    return [
        [
            sum(
                by_channel[c] / sum(by_channel) * channels * float(own[c, y, x] - theirs[c, y, x]) ** 2
                for c in range(channels)
            )
            / channels
            / scale
            * by_place[y][x]
            / places
            for x in range(width)
        ]
        for y in range(height)
    ]


def test_the_error_by_hand() -> None:
    own, theirs = maps(3, 4, 5), 10 * maps(3, 4, 5, seed=1)
    found = attended_error(own, theirs, 0.5)
    torch.testing.assert_close(found, torch.tensor(slow_error(own, theirs, 0.5)), rtol=1e-4, atol=1e-5)


def test_the_error_does_not_depend_on_the_teachers_scale() -> None:
    own, theirs = maps(3, 4, 5), maps(3, 4, 5, seed=1)
    torch.testing.assert_close(attended_error(own, theirs, 0.5), attended_error(7 * own, 7 * theirs, 0.5))


def test_objects_weigh_the_same_and_the_smaller_wins() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 3.0], [1.0, 1.0, 2.0, 2.0], [5.2, 0.1, 5.3, 0.2], [90.0, 90.0, 95.0, 95.0]])
    weight, covered = object_weights(boxes, (4, 6))
    wanted = torch.zeros(4, 6)
    wanted[:3, :4] = 1 / 12
    wanted[1, 1] = 1.0
    wanted[0, 5] = 1.0  # smaller than a cell: that cell
    wanted[3, 5] = 1.0  # outside: the nearest cell
    torch.testing.assert_close(weight, wanted)
    assert torch.equal(covered, wanted > 0)


def test_padding_is_not_seen() -> None:
    assert valid_cells(maps(2, 8, 8), (30, 17), (32, 32))[0] == (8, 5)
    assert valid_cells(maps(2, 8, 8), (32, 32), (32, 32))[0] == (8, 8)
    assert valid_cells(maps(2, 1, 1), (3, 3), (64, 64))[0] == (1, 1)


def test_imitation_by_hand() -> None:
    """Two pictures, one without objects; what lies in the padding matters to neither sum."""
    module = Imitation([(3, 3)])
    with torch.no_grad():
        module.adapters[0].weight.copy_(torch.eye(3)[:, :, None, None])
        module.adapters[0].bias.zero_()
    own, theirs = maps(2, 3, 4, 4), maps(2, 3, 4, 4, seed=1)
    boxes = [torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 4.0]]), torch.zeros(0, 4)]
    sizes, canvas = [(16, 16), (12, 8)], (16, 16)
    inside, outside = module([(own, theirs)], boxes, sizes, canvas)
    first = torch.tensor(slow_error(own[0], theirs[0], 0.5))
    second = torch.tensor(slow_error(own[1, :, :3, :2], theirs[1, :, :3, :2], 0.5))
    objects = torch.zeros(4, 4, dtype=torch.bool)
    objects[:2, :2] = objects[0, 2:] = True
    assert float(inside.detach()) == pytest.approx(float(first[:2, :2].mean() + first[0, 2:].mean()), rel=1e-4)
    assert float(outside.detach()) == pytest.approx(float(first[~objects].mean() + second.mean()), rel=1e-4)
    own[1, :, 3:] = theirs[1, :, :, 2:] = 99.0
    again = module([(own, theirs)], boxes, sizes, canvas)
    assert [part.item() for part in again] == pytest.approx([inside.item(), outside.item()])


def test_what_is_alike_costs_nothing() -> None:
    theirs = maps(1, 3, 4, 4)
    assert float(relation_sum([(5 * theirs, theirs)], [(16, 16)], (16, 16), 16)) == pytest.approx(0.0, abs=1e-10)
    assert not attended_error(theirs[0], theirs[0], 0.5).any()


def test_relations_by_hand() -> None:
    """Channels need not agree: only how places relate is compared."""
    own, theirs = maps(1, 2, 4, 4), maps(1, 5, 4, 4, seed=1)
    found = relation_sum([(own, theirs)], [(16, 8)], (16, 16), 2)

    def likeness(value: Tensor) -> list[list[float]]:
        places = [value[:, y : y + 2, x].mean(1) for y in (0, 2) for x in (0, 1)]  # 4 x 2 cells seen, 2 x 2 places
        return [[float(a @ b / a.norm() / b.norm()) for b in places] for a in places]

    pairs = [
        (a - b) ** 2
        for r, s in zip(likeness(own[0]), likeness(theirs[0]), strict=True)
        for a, b in zip(r, s, strict=True)
    ]
    assert float(found) == pytest.approx(sum(pairs) / 16, rel=1e-4)


def test_levels_of_one_size_meet() -> None:
    own = {"0": maps(1, 4, 8, 8), "1": maps(1, 4, 4, 4)}
    theirs = {"p3": maps(1, 6, 4, 4), "p4": maps(1, 6, 2, 2)}
    pairs = pair_levels(own, theirs)
    assert pairs == (("1", "p3"),)
    assert [tuple(v.shape) for v in paired(own, theirs, pairs)[0]] == [(1, 4, 4, 4), (1, 6, 4, 4)]
    with pytest.raises(InputError, match="must have one size, got 2x2 for the teacher and 4x4 for the pupil"):
        paired(own, theirs, (("1", "p4"),))


def test_unlike_pyramids_are_refused() -> None:
    with pytest.raises(InputError, match="the teacher's are 5x5 and the pupil's 8x8, 4x4"):
        pair_levels({"0": maps(1, 4, 8, 8), "1": maps(1, 4, 4, 4)}, {"0": maps(1, 4, 5, 5)})
    with pytest.raises(InputError, match="no maps at all"):
        pair_levels({}, {"0": maps(1, 4, 5, 5)})
