"""Claim: 28 x 28 probabilities become COCO run-lengths on the picture >= 10x faster than detectron2's CPU way.

Ours is ``ops.paste.paste`` and ``rle.to_coco``. The peer's is written out below from its published behavior: on the CPU
detectron2 samples each map with ``grid_sample`` in the window of its box (one by one, ``skip_empty=True``) into a bool
[N, H, W], then its COCO evaluator encodes each mask with pycocotools from a Fortran-ordered copy. The strings must be
the same before anything is timed. Runs are interleaved; the figure is the ratio of medians. One thread for both.

    python benchmarks/paste_rle.py [--masks 100] [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor
from torch.nn.functional import grid_sample

from maskwright.ops import rle
from maskwright.ops.paste import paste


def detections(count: int, size: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Blobs float32 [N, 28, 28] as mask heads give them, and boxes [N, 4] of a few pixels up to half the picture."""
    rng = np.random.default_rng(seed)
    height, width = size
    sides = np.exp(rng.uniform(np.log(12), np.log(0.5 * np.array([width, height])), (count, 2)))
    near = rng.uniform(0, 1, (count, 2)) * (np.array([width, height]) - sides)
    grid = (np.arange(28) + 0.5) / 28 - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    angle = np.arctan2(y, x)
    lobes = rng.integers(2, 7, (count, 1, 1))
    turn, depth = rng.uniform(0, 6, (count, 1, 1)), rng.uniform(0, 0.3, (count, 1, 1))
    radius = 0.45 * (1 - depth + depth * np.cos(lobes * angle + turn))
    logits = 30 * (radius - np.hypot(x, y)) + rng.normal(0, 0.5, (count, 28, 28))
    probs = torch.from_numpy(1 / (1 + np.exp(-logits))).float()
    return probs, torch.from_numpy(np.concatenate([near, near + sides], axis=1)).float()


def ours(probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[dict]:
    """This project's way."""
    return rle.to_coco(*paste(probs, boxes, size), size)


def peer(probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[dict]:
    """detectron2's way on the CPU."""
    height, width = size
    pasted = torch.zeros(len(probs), height, width, dtype=torch.bool)
    for i in range(len(probs)):
        box = boxes[i : i + 1]
        left, top = (box[0, :2].floor() - 1).clamp(min=0).int().tolist()
        right = int((box[0, 2].ceil() + 1).clamp(max=width))
        bottom = int((box[0, 3].ceil() + 1).clamp(max=height))
        x1, y1, x2, y2 = box.split(1, dim=1)
        rows = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - y1) / (y2 - y1) * 2 - 1
        columns = (torch.arange(left, right, dtype=torch.float32) + 0.5 - x1) / (x2 - x1) * 2 - 1
        across = columns[:, None, :].expand(1, rows.shape[1], columns.shape[1])
        down = rows[:, :, None].expand(1, rows.shape[1], columns.shape[1])
        values = grid_sample(probs[i : i + 1, None], torch.stack([across, down], dim=3), align_corners=False)
        pasted[i, top:bottom, left:right] = values[0, 0] >= 0.5
    encoded = [coco.encode(np.array(mask[:, :, None], order="F", dtype="uint8"))[0] for mask in pasted.numpy()]
    return [{"size": item["size"], "counts": item["counts"].decode("ascii")} for item in encoded]


def extra_memory(work: Callable[[], object]) -> float:
    """MB by which the process grows at its peak while ``work`` runs (Linux); NaN where that cannot be read."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
        before = _kilobytes(status, "VmRSS")
        work()
        return max(_kilobytes(status, "VmHWM") - before, 0) / 1024
    except OSError:
        return float("nan")


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = (args.size[0], args.size[1])
    probs, boxes = detections(args.masks, size)

    ours(probs[:1], boxes[:1], (64, 64))  # compile; nothing large is allocated, so what follows is measured from cold
    memory_ours = extra_memory(lambda: ours(probs, boxes, size))
    assert ours(probs, boxes, size) == peer(probs, boxes, size), "the two ways disagree: nothing to compare"
    memory_peer = extra_memory(lambda: peer(probs, boxes, size))
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(args.rounds):
        for name, way in (("ours", ours), ("peer", peer)):
            begin = time.perf_counter()
            way(probs, boxes, size)
            seconds[name].append(time.perf_counter() - begin)
    fast, slow = (1e3 * statistics.median(seconds[name]) for name in ("ours", "peer"))
    figures = {
        "ours_ms": fast,
        "detectron2_way_ms": slow,
        "ratio": slow / fast,
        "ours_extra_mb": memory_ours,
        "peer_extra_mb": memory_peer,
    }
    if args.json:
        print(json.dumps(figures))
        return
    print(f"{args.masks} masks 28 x 28 into {size[0]} x {size[1]}, same strings, median of {args.rounds}, one thread")
    print(f"  paste to run-lengths      {fast:8.2f} ms   extra memory {memory_ours:6.1f} MB")
    print(f"  detectron2's CPU way      {slow:8.2f} ms   extra memory {memory_peer:6.1f} MB")
    print(f"  ratio                     {slow / fast:8.1f} x")


if __name__ == "__main__":
    main()
