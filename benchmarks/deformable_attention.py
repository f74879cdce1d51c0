"""Claim: deformable attention, forward and backward on the CPU, takes <= 1 / 1.5 of the time of transformers' way.

Ours is ``ops.deformable_attention.attend``. The peer's is written out below from what transformers'
``multi_scale_deformable_attention`` does: a ``grid_sample`` a level, its results stacked, weighed and summed. Sizes are
Mask2Former's at 480 x 640: maps of 15 x 20, 30 x 40 and 60 x 80 cells, each of which is a query too, 8 heads of 32
channels, 4 points a map. Results and gradients must agree before anything is timed. Runs are interleaved; the figures
are ratios of medians. ``plain`` is our definition, which accelerators and exported graphs use.

    python benchmarks/deformable_attention.py [--rounds 9] [--threads 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from maskwright.ops.deformable_attention import attend, sampled_sum

SHAPES = [(15, 20), (30, 40), (60, 80)]
Way = Callable[[Tensor, Sequence[tuple[int, int]], Tensor, Tensor], Tensor]


def inputs(seed: int = 0, heads: int = 8, width: int = 32, points: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Values, places some cells around each query's own, and weights."""
    torch.manual_seed(seed)
    centers = [
        torch.stack(torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"), -1)
        for h, w in SHAPES
    ]
    own = torch.cat([part.flatten(0, 1) for part in centers])
    values = torch.randn(1, len(own), heads, width)
    cells = torch.tensor([[w, h] for h, w in SHAPES], dtype=torch.float32)[:, None]
    steps = 3 * torch.randn(1, len(own), heads, len(SHAPES), points, 2) / cells
    weights = torch.rand(1, len(own), heads, len(SHAPES) * points).softmax(-1).unflatten(-1, (len(SHAPES), points))
    places = own[None, :, None, None, None] + steps
    return values.requires_grad_(), places.requires_grad_(), weights.contiguous().requires_grad_()


def peer(values: Tensor, shapes: Sequence[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """transformers' way."""
    batch, _, heads, width = values.shape
    _, queries, _, levels, points, _ = places.shape
    grids = 2 * places - 1
    read: list[Tensor] = []
    for level, part in enumerate(values.split([h * w for h, w in shapes], 1)):
        maps = part.flatten(2).transpose(1, 2).reshape(batch * heads, width, *shapes[level])
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        read.append(grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    shares = weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    out = (torch.stack(read, -2).flatten(-2) * shares).sum(-1)
    return out.view(batch, heads * width, queries).transpose(1, 2).contiguous()


def once(way: Way, tensors: tuple[Tensor, Tensor, Tensor], pushed: Tensor) -> tuple[float, float, list[Tensor]]:
    """Seconds forward, seconds backward, and the result with its gradients."""
    values, places, weights = tensors
    start = time.perf_counter()
    out = way(values, SHAPES, places, weights)
    middle = time.perf_counter()
    gradients = torch.autograd.grad(out, tensors, pushed)
    end = time.perf_counter()
    return middle - start, end - middle, [out.detach(), *gradients]


def main() -> None:
    """Check that all ways agree, then time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tensors = inputs()
    pushed = torch.randn(1, sum(h * w for h, w in SHAPES), 256)
    ways: dict[str, Way] = {"ours": attend, "transformers": peer, "plain": sampled_sum}
    results = {name: once(way, tensors, pushed)[2] for name, way in ways.items()}
    for name in ("transformers", "plain"):
        for got, want in zip(results["ours"], results[name], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            times[name].append(once(way, tensors, pushed)[:2])
    medians = {
        name: {
            "forward_ms": 1e3 * statistics.median(f for f, _ in each),
            "both_ms": 1e3 * statistics.median(f + b for f, b in each),
        }
        for name, each in times.items()
    }
    ratios = {
        f"transformers / {name}": medians["transformers"]["both_ms"] / medians[name]["both_ms"]
        for name in ("ours", "plain")
    }
    if options.json:
        print(json.dumps({"threads": options.threads, "medians": medians, "ratios": ratios}))
        return
    for name, median in medians.items():
        print(f"{name:13} forward {median['forward_ms']:7.1f} ms   with backward {median['both_ms']:7.1f} ms")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")


if __name__ == "__main__":
    main()
