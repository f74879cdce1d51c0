"""Multi-scale deformable attention: Zhu et al., "Deformable DETR", ICLR 2021 (arXiv:2010.04159), equation 3.

Each query reads a few points of each map, wherever it wants, and adds them up by its own weights. ``sampled_sum`` is
the definition in plain PyTorch, for accelerators and tracers. On the host it spends its time gathering single numbers;
there ``attend`` walks the points once, with the D channels of a head side by side in memory, and reads and (in the
backward pass) adds whole rows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_RELAXED = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered, so that they run in lanes; NaN and infinity keep their meaning."""


def deformable_attention(
    values: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """What each of Q queries reads of L maps through M heads, by the fastest way there is for these tensors.

    Args:
        values: [B, S, M, D], the cells of all maps one after the other, S the sum of H_l * W_l.
        shapes: (H, W) of each map.
        locations: [B, Q, M, L, P, 2], x and y in 0..1 of the whole map; what lies outside reads zeros.
        weights: [B, Q, M, L, P].

    Returns:
        [B, Q, M * D] in the dtype of ``values``; the sums are made in float32 at least.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    tracing = torch.compiler.is_compiling()
    if not tracing:
        _check(values, shapes, locations, weights)
    if values.device.type == "cpu" and not tracing and values.dtype != torch.float64:
        return attend(values, shapes, locations, weights)
    return sampled_sum(values, shapes, locations, weights)


def sampled_sum(values: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """``deformable_attention`` in plain PyTorch: bilinear samples of each map (pixel centers at +0.5), weighed."""
    batch, _, heads, width = values.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = (2 * locations - 1).to(values.dtype)
    out = values.new_zeros(batch * heads, width, queries)
    for level, cells in enumerate(values.split([h * w for h, w in shapes], 1)):
        maps = cells.permute(0, 2, 3, 1).reshape(batch * heads, width, *shapes[level])
        grid = grids[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        read = functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).reshape(batch * heads, 1, queries, points)
        out = out + (read * share.to(read.dtype)).sum(-1)
    return out.view(batch, heads * width, queries).transpose(1, 2)


def attend(values: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """``deformable_attention`` on the host, in float32, with gradients for all three tensors."""
    out: Any = _Attend.apply(values.float(), tuple(shapes), locations.float(), weights.float())
    return out.to(values.dtype)


def _check(values: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> None:
    batch, cells, heads, _ = values.shape
    if cells != sum(h * w for h, w in shapes):
        raise ValueError(f"values must hold the cells of maps {list(shapes)}, one after the other, got {cells} cells")
    want = (batch, locations.shape[1], heads, len(shapes), locations.shape[4])
    for name, got in (("locations", tuple(locations.shape[:-1])), ("weights", tuple(weights.shape))):
        if got != want:
            raise ValueError(f"{name} must be given for (B, Q, M, L, P) = {want}, got {got}")


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, shapes: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
    ) -> Tensor:
        ctx.shapes = np.array(shapes, np.int64).reshape(-1, 2)
        ctx.save_for_backward(values, locations, weights)
        out = torch.empty(values.shape[0], locations.shape[1], *values.shape[2:], dtype=torch.float32)
        arrays = [t.detach().contiguous().numpy() for t in (values, locations, weights)]
        _by_heads(_read, values.shape[2], arrays[0], ctx.shapes, *arrays[1:], out.numpy())
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        arrays = [t.detach().contiguous().numpy() for t in saved]
        grown = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in saved]
        arriving = gradients[0].float().contiguous().view(*saved[1].shape[:3], saved[0].shape[3]).numpy()
        results = [t.numpy() for t in grown]
        _by_heads(_give_back, saved[0].shape[2], arrays[0], ctx.shapes, *arrays[1:], arriving, *results)
        return grown[0], None, grown[1], grown[2]


def _by_heads(kernel: Callable[..., None], heads: int, *arrays: np.ndarray) -> None:
    """Run ``kernel(first, last, *arrays)`` on shares of the heads, one a thread: they share no memory to write."""
    workers = min(torch.get_num_threads(), heads)
    if workers <= 1:
        kernel(0, heads, *arrays)
        return
    bounds = [heads * i // workers for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(kernel, a, b, *arrays) for a, b in pairwise(bounds)]:
            done.result()


@numba.njit(cache=True, nogil=True, fastmath=_RELAXED)
def _read(first, last, values, shapes, locations, weights, out):
    batch, queries = locations.shape[:2]
    levels, points = locations.shape[3:5]
    width = values.shape[3]
    one = np.float32(1)
    for b in range(batch):
        for q in range(queries):
            for m in range(first, last):
                total = out[b, q, m]
                total[:] = 0
                start = 0
                for k in range(levels):
                    high, wide = shapes[k, 0], shapes[k, 1]
                    for p in range(points):
                        x = locations[b, q, m, k, p, 0] * np.float32(wide) - np.float32(0.5)
                        y = locations[b, q, m, k, p, 1] * np.float32(high) - np.float32(0.5)
                        if not (x > -1 and y > -1 and x < wide and y < high):  # also where it is not a number
                            continue
                        left, top = int(np.floor(x)), int(np.floor(y))
                        across, down = x - np.float32(left), y - np.float32(top)
                        share = weights[b, q, m, k, p]
                        # a corner outside the map has no weight and is read elsewhere
                        west = share * (one - across) if left >= 0 else np.float32(0)
                        east = share * across if left + 1 < wide else np.float32(0)
                        north = one - down if top >= 0 else np.float32(0)
                        south = down if top + 1 < high else np.float32(0)
                        x0, x1 = max(left, 0), min(left + 1, wide - 1)
                        upper, lower = start + max(top, 0) * wide, start + min(top + 1, high - 1) * wide
                        nw, ne = values[b, upper + x0, m], values[b, upper + x1, m]
                        sw, se = values[b, lower + x0, m], values[b, lower + x1, m]
                        w0, w1, w2, w3 = west * north, east * north, west * south, east * south
                        for d in range(width):
                            total[d] += w0 * nw[d] + w1 * ne[d] + w2 * sw[d] + w3 * se[d]
                    start += high * wide


@numba.njit(cache=True, nogil=True, fastmath=_RELAXED)
def _give_back(first, last, values, shapes, locations, weights, arriving, to_values, to_locations, to_weights):
    batch, queries = locations.shape[:2]
    levels, points = locations.shape[3:5]
    width = values.shape[3]
    one = np.float32(1)
    for b in range(batch):
        for q in range(queries):
            for m in range(first, last):
                g = arriving[b, q, m]
                start = 0
                for k in range(levels):
                    high, wide = shapes[k, 0], shapes[k, 1]
                    for p in range(points):
                        x = locations[b, q, m, k, p, 0] * np.float32(wide) - np.float32(0.5)
                        y = locations[b, q, m, k, p, 1] * np.float32(high) - np.float32(0.5)
                        if not (x > -1 and y > -1 and x < wide and y < high):
                            continue
                        left, top = int(np.floor(x)), int(np.floor(y))
                        across, down = x - np.float32(left), y - np.float32(top)
                        share = weights[b, q, m, k, p]
                        is_west, is_east = np.float32(left >= 0), np.float32(left + 1 < wide)
                        is_north, is_south = np.float32(top >= 0), np.float32(top + 1 < high)
                        west, east = (one - across) * is_west, across * is_east
                        north, south = (one - down) * is_north, down * is_south
                        x0, x1 = max(left, 0), min(left + 1, wide - 1)
                        upper, lower = start + max(top, 0) * wide, start + min(top + 1, high - 1) * wide
                        nw, ne = values[b, upper + x0, m], values[b, upper + x1, m]
                        sw, se = values[b, lower + x0, m], values[b, lower + x1, m]
                        to_nw, to_ne = to_values[b, upper + x0, m], to_values[b, upper + x1, m]
                        to_sw, to_se = to_values[b, lower + x0, m], to_values[b, lower + x1, m]
                        w0, w1 = share * west * north, share * east * north
                        w2, w3 = share * west * south, share * east * south
                        a, c = np.float32(0), np.float32(0)
                        e, f = np.float32(0), np.float32(0)
                        for d in range(width):
                            a += g[d] * nw[d]
                            c += g[d] * ne[d]
                            e += g[d] * sw[d]
                            f += g[d] * se[d]
                        for d in range(width):
                            to_nw[d] += w0 * g[d]
                        for d in range(width):
                            to_ne[d] += w1 * g[d]
                        for d in range(width):
                            to_sw[d] += w2 * g[d]
                        for d in range(width):
                            to_se[d] += w3 * g[d]
                        to_weights[b, q, m, k, p] = north * (west * a + east * c) + south * (west * e + east * f)
                        along = north * (is_east * c - is_west * a) + south * (is_east * f - is_west * e)
                        below = is_south * (west * e + east * f) - is_north * (west * a + east * c)
                        to_locations[b, q, m, k, p, 0] = share * along * np.float32(wide)
                        to_locations[b, q, m, k, p, 1] = share * below * np.float32(high)
                    start += high * wide
