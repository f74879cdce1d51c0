"""Deformable attention: the kernel for the host against the definition, and the definition against single samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskwright.ops.deformable_attention import attend, deformable_attention, sampled_sum
from maskwright.ops.point_sample import point_sample

SHAPES = [(3, 5), (6, 4), (1, 1)]


def case(seed: int = 0, spread: float = 1.0, batch: int = 2, queries: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations around and beyond the maps, and weights, for 3 heads of 6 channels and 2 points."""
    torch.manual_seed(seed)
    cells = sum(h * w for h, w in SHAPES)
    values = torch.randn(batch, cells, 3, 6, requires_grad=True)
    locations = (0.5 + spread * torch.randn(batch, queries, 3, len(SHAPES), 2, 2)).requires_grad_()
    weights = torch.randn(batch, queries, 3, len(SHAPES), 2, requires_grad=True)
    return values, locations, weights


@pytest.mark.parametrize("spread", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("threads", [1, 2])
def test_kernel_equals_the_definition(spread: float, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        values, locations, weights = case(spread=spread)
        pushed = torch.randn(2, 7, 18)
        results: list[tuple[Tensor, ...]] = []
        for way in (attend, sampled_sum):
            out = way(values, SHAPES, locations, weights)
            results.append((out, *torch.autograd.grad(out, (values, locations, weights), pushed)))
        for ours, defined in zip(*results, strict=True):
            torch.testing.assert_close(ours, defined, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(before)


def test_definition_is_a_weighted_sum_of_samples() -> None:
    values, locations, weights = (t.detach() for t in case(batch=1, queries=2))
    out = sampled_sum(values, SHAPES, locations, weights).view(2, 3, 6)
    parts = values[0].split([h * w for h, w in SHAPES])
    for query in range(2):
        for head in range(3):
            wanted = torch.zeros(6)
            for level, (h, w) in enumerate(SHAPES):
                cells = parts[level][:, head].T.reshape(1, 6, h, w)
                for point in range(2):
                    place = locations[0, query, head, level, point].view(1, 1, 2)
                    wanted += weights[0, query, head, level, point] * point_sample(cells, place)[0, :, 0]
            torch.testing.assert_close(out[query, head], wanted, rtol=1e-4, atol=1e-5)


def test_centers_give_the_cells_themselves() -> None:
    values = torch.arange(12.0).view(1, 6, 1, 2)
    y, x = torch.meshgrid((torch.arange(2) + 0.5) / 2, (torch.arange(3) + 0.5) / 3, indexing="ij")
    locations = torch.stack((x, y), -1).view(1, 6, 1, 1, 1, 2)
    out = deformable_attention(values, [(2, 3)], locations, torch.ones(1, 6, 1, 1, 1))
    torch.testing.assert_close(out, values[:, :, 0])


def test_places_that_are_no_numbers_read_nothing_and_harm_nothing() -> None:
    values, locations, weights = (t.detach() for t in case())
    locations[0, 0] = torch.nan
    locations[0, 1] = torch.inf
    locations[0, 2] = -1e30
    out = attend(values, SHAPES, locations, weights)
    assert not out[0, :3].any()
    assert torch.isfinite(out).all()


def test_half_precision_and_double() -> None:
    values, locations, weights = (t.detach() for t in case(spread=0.3))
    whole = attend(values, SHAPES, locations, weights)
    half = deformable_attention(values.bfloat16(), SHAPES, locations, weights)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.1)
    double = deformable_attention(values.double(), SHAPES, locations.double(), weights.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), whole, rtol=1e-4, atol=1e-4)


def test_no_queries_and_no_pictures() -> None:
    for batch, queries in ((0, 3), (2, 0)):
        values, locations, weights = case(batch=batch, queries=queries)
        out = deformable_attention(values, SHAPES, locations, weights)
        assert out.shape == (batch, queries, 18)
        out.sum().backward()


def test_exported_graph_is_the_definition() -> None:
    class Net(torch.nn.Module):
        def forward(self, values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
            return deformable_attention(values, SHAPES, locations, weights)

    inputs = tuple(t.detach() for t in case())
    program = torch.export.export(Net(), inputs, strict=False).module()
    torch.testing.assert_close(program(*inputs), attend(inputs[0], SHAPES, *inputs[1:]), rtol=1e-4, atol=1e-4)


def test_shapes_that_do_not_fit_are_named() -> None:
    values, locations, weights = case()
    with pytest.raises(ValueError, match="values must hold the cells"):
        deformable_attention(values, SHAPES[:2], locations, weights)
    with pytest.raises(ValueError, match=r"weights must be given for \(B, Q, M, L, P\)"):
        deformable_attention(values, SHAPES, locations, weights[..., :1])
