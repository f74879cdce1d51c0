"""Maps enlarged tile by tile are what torch makes of them at once, in little memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from maskwright.ops import query_maps, rle
from maskwright.ops.query_maps import Resampling


def maps(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, height, width, generator=torch.Generator().manual_seed(seed)) * 3


def resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]


def whole(values: Tensor, way: Resampling) -> Tensor:
    out = torch.full((len(values), *way.size), torch.nan)
    for rows, columns, part in way.tiles(values):
        out[:, rows, columns] = part
    return out


@pytest.mark.parametrize(
    ("cells", "padded", "valid", "size"),
    [
        ((16, 24), (64, 96), (64, 96), (64, 96)),
        ((16, 24), (64, 96), (50, 90), (75, 135)),
        ((63, 78), (250, 310), (250, 310), (375, 465)),
        ((20, 20), (80, 80), (71, 80), (30, 33)),
        ((1, 1), (3, 3), (2, 3), (5, 9)),
    ],
)
def test_tiles_are_what_torch_enlarges(
    cells: tuple[int, int], padded: tuple[int, int], valid: tuple[int, int], size: tuple[int, int]
) -> None:
    values = maps(3, *cells)
    cut = resize(values, padded)[:, : valid[0], : valid[1]]
    near = functional.interpolate(cut[None], size=size, mode="nearest")[0]
    for last, want in (("bilinear", resize(cut, size)), ("nearest", near)):
        got = whole(values, Resampling.chained(cells, padded, valid, size, last))  # type: ignore[arg-type]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    if valid == padded:
        torch.testing.assert_close(
            whole(values, Resampling.direct(cells, padded, valid, size)), resize(values, size), rtol=1e-4, atol=1e-4
        )


def test_a_contest_is_what_all_maps_at_once_say() -> None:
    values, weights = maps(7, 20, 30), torch.rand(7)
    way = Resampling.chained((20, 30), (80, 120), (80, 120), (100, 150))
    prob = whole(values, way).sigmoid()
    owner = (prob * weights[:, None, None]).argmax(0)
    got = query_maps.contest(values, way, weights, logits=True)
    assert torch.equal(got.owner.long(), owner)
    assert torch.equal(got.won, torch.bincount(owner.flatten(), minlength=7))
    assert torch.equal(got.claimed, (prob >= 0.5).flatten(1).sum(1))
    assert torch.equal(got.sure, (prob >= 0.5).gather(0, owner[None])[0])
    first, won = query_maps.largest(values, way)
    assert torch.equal(first.long(), whole(values, way).argmax(0))
    assert int(won.sum()) == 100 * 150


@pytest.mark.parametrize("classes", [3, 12])
def test_the_likeliest_class(classes: int) -> None:
    values, votes = maps(7, 20, 30), torch.rand(7, classes)
    way = Resampling.direct((20, 30), (80, 120), (80, 120), (100, 150))
    for logits in (True, False):
        given = values if logits else values.sigmoid()
        big = whole(given, way)
        want = torch.einsum("qc,qhw->chw", votes, big.sigmoid() if logits else big)
        got = query_maps.likeliest(votes, given, way, logits=logits)
        assert (got != want.argmax(0)).sum() <= 2


def test_masks_as_run_lengths() -> None:
    values = maps(5, 20, 30)
    values[2] = -1.0
    way = Resampling.chained((20, 30), (80, 120), (80, 120), (100, 150))
    prob = whole(values, way).sigmoid()
    (counts, offsets), means = query_maps.above(values, way, 0.5, logits=True)
    assert np.array_equal(rle.decode(counts, offsets, (100, 150)), (prob > 0.5).numpy())
    inside = prob > 0.5
    want = (prob * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    torch.testing.assert_close(means, want)
    assert float(means[2]) == 0
    (counts, offsets), means = query_maps.above(values[:0], way, logits=True)
    assert len(offsets) == 1
    assert len(counts) == len(means) == 0
