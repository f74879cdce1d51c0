"""Claim: deformable attention, forward and backward on the CPU, takes <= 1 / 1.5 of the time of transformers' way.

Ours is ``ops.deformable_attention.attend``; the peer is transformers' own ``multi_scale_deformable_attention``, which
its Mask2Former runs on a CPU (a ``grid_sample`` a level, stacked, weighed and summed). Sizes are Mask2Former's: maps at
strides 32, 16 and 8 of pictures of 480 x 640 and of 800 x 1333 padded to whole cells, each cell a query too, 8 heads of
32 channels, 4 points a map. Results and gradients must agree before anything is timed. Runs are interleaved; the
figures are ratios of medians. ``plain`` is our definition, which accelerators and exported graphs use.

    python benchmarks/deformable_attention.py [--rounds 9] [--threads 1] [--json]    # needs: pip install transformers
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from maskwright.ops.deformable_attention import attend, sampled_sum

SIZES = {"480x640": (480, 640), "800x1333": (800, 1344)}
Shapes = list[tuple[int, int]]
Way = Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]
WAYS: dict[str, Way] = {"ours": attend, "transformers": multi_scale_deformable_attention, "plain": sampled_sum}


def inputs(shapes: Shapes, heads: int = 8, width: int = 32, points: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Values, places some cells around each query's own, and weights."""
    torch.manual_seed(0)
    centers = [
        torch.stack(torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"), -1)
        for h, w in shapes
    ]
    own = torch.cat([part.flatten(0, 1) for part in centers])
    values = torch.randn(1, len(own), heads, width)
    cells = torch.tensor([[w, h] for h, w in shapes], dtype=torch.float32)[:, None]
    steps = 3 * torch.randn(1, len(own), heads, len(shapes), points, 2) / cells
    weights = torch.rand(1, len(own), heads, len(shapes) * points).softmax(-1).unflatten(-1, (len(shapes), points))
    places = own[None, :, None, None, None] + steps
    return values.requires_grad_(), places.requires_grad_(), weights.contiguous().requires_grad_()


def once(way: Way, tensors: tuple[Tensor, ...], shapes: Shapes, pushed: Tensor) -> tuple[float, float, list[Tensor]]:
    """Seconds forward, seconds backward, and the result with its gradients."""
    values, places, weights = tensors
    start = time.perf_counter()
    out = way(values, shapes, places, weights)
    middle = time.perf_counter()
    gradients = torch.autograd.grad(out, tensors, pushed)
    end = time.perf_counter()
    return middle - start, end - middle, [out.detach(), *gradients]


def compare(size: tuple[int, int], rounds: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds of each way for a picture's size, after they were found to agree."""
    shapes = [(size[0] // stride, size[1] // stride) for stride in (32, 16, 8)]
    tensors = inputs(shapes)
    pushed = torch.randn(1, sum(h * w for h, w in shapes), 256)
    results = {name: once(way, tensors, shapes, pushed)[2] for name, way in WAYS.items()}
    for name in ("transformers", "plain"):
        for got, want in zip(results["ours"], results[name], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            times[name].append(once(way, tensors, shapes, pushed)[:2])
    return {
        name: {
            "forward_ms": 1e3 * statistics.median(f for f, _ in each),
            "both_ms": 1e3 * statistics.median(f + b for f, b in each),
        }
        for name, each in times.items()
    }


def main() -> None:
    """Time each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, size in SIZES.items():
        medians = compare(size, options.rounds)
        ratios = {
            f"transformers / {way}, {part}": medians["transformers"][key] / medians[way][key]
            for way in ("ours", "plain")
            for part, key in (("forward", "forward_ms"), ("forward and backward", "both_ms"))
        }
        if options.json:
            print(json.dumps({"size": name, "threads": options.threads, "medians": medians, "ratios": ratios}))
            continue
        for way, median in medians.items():
            print(f"{name} {way:13} forward {median['forward_ms']:7.1f} ms, both {median['both_ms']:7.1f} ms")
        for what, ratio in ratios.items():
            print(f"{name} {what}: {ratio:.2f}x")


if __name__ == "__main__":
    main()
