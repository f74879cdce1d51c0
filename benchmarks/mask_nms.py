"""Claims: matrix NMS of 500 masks of 120 x 160 is >= 5x, IoU of 100 x 100 masks of 480 x 640 >= 20x the matmul way.

Ours is ``ops.mask_nms`` (bits and popcounts). The peer's way is that of AdelaiDet's and mmdetection's SOLOv2, written
from the paper's equations: masks as float32 [N, H W], common pixels by one matrix product, decay by whole matrices.
Two kinds of masks: ``blobs``, outlines like those of objects (ellipses with lobes, a twelfth to half a side long), and
``noise``, half of the pixels at random: no row is empty and no word is spared. Results must be equal before anything is
timed. Runs are interleaved; the figure is the ratio of medians. One thread for both.

    python benchmarks/mask_nms.py [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from maskwright.ops.mask_nms import mask_iou, matrix_nms


def blobs(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Masks bool [N, H, W]: ellipses with two to six lobes, from a twelfth to half of a side long, anywhere."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.uniform(np.log(1 / 12), np.log(1 / 2), (count, 2))) * np.array(size)
    centers = rng.uniform(0, 1, (count, 2)) * np.array(size)
    lobes, turn, depth = rng.integers(2, 7, count), rng.uniform(0, 6, count), rng.uniform(0, 0.3, count)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    out = np.zeros((count, *size), bool)
    for i in range(count):
        down, right = (y - centers[i, 0]) / lengths[i, 0], (x - centers[i, 1]) / lengths[i, 1]
        radius = 0.5 * (1 - depth[i] + depth[i] * np.cos(lobes[i] * np.arctan2(down, right) + turn[i]))
        out[i] = np.hypot(down, right) <= radius
    return torch.from_numpy(out)


def noise(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Masks bool [N, H, W] of pixels that are set by the toss of a coin."""
    return torch.from_numpy(np.random.default_rng(seed).random((count, *size)) < 0.5)


def iou_by_product(a: Tensor, b: Tensor) -> Tensor:
    """IoU float32 [N, M] by a matrix product of float32 pixels."""
    first, second = a.flatten(1).float(), b.flatten(1).float()
    common = first @ second.T
    return common / (first.sum(1)[:, None] + second.sum(1)[None] - common).clamp(min=1)


def nms_by_product(masks: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """New scores [N], given by falling score: the paper's equations 4 and 5, gaussian with sigma 2."""
    pixels = masks.flatten(1).float()
    common, areas = pixels @ pixels.T, pixels.sum(1).expand(len(masks), len(masks))
    iou = (common / (areas + areas.T - common).clamp(min=1)).triu(1)
    iou = iou * (labels[:, None] == labels[None]).float().triu(1)
    most = iou.amax(0).expand(len(masks), len(masks)).T
    decay = (torch.exp(-2 * iou**2) / torch.exp(-2 * most**2)).amin(0)
    return scores * decay


def interleaved(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians in milliseconds."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for kept, way in zip(seconds, (ours, peer), strict=True):
            begin = time.perf_counter()
            way()
            kept.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(seconds[0]), 1e3 * statistics.median(seconds[1])


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    for kind, draw in (("blobs", blobs), ("noise", noise)):
        masks = draw(500, (120, 160))
        rng = torch.Generator().manual_seed(0)
        scores = torch.rand(500, generator=rng).sort(descending=True).values
        labels = torch.randint(0, 5, (500,), generator=rng)
        torch.testing.assert_close(matrix_nms(masks, scores, labels), nms_by_product(masks, scores, labels))
        times = interleaved(
            lambda m=masks, s=scores, k=labels: matrix_nms(m, s, k),
            lambda m=masks, s=scores, k=labels: nms_by_product(m, s, k),
            args.rounds,
        )
        figures[f"matrix NMS, 500 masks 120 x 160, {kind}"] = _figures(times)
        first, second = draw(100, (480, 640), 1), draw(100, (480, 640), 2)
        torch.testing.assert_close(mask_iou(first, second), iou_by_product(first, second))
        times = interleaved(
            lambda a=first, b=second: mask_iou(a, b), lambda a=first, b=second: iou_by_product(a, b), args.rounds
        )
        figures[f"mask IoU, 100 x 100 of 480 x 640, {kind}"] = _figures(times)
    if args.json:
        print(json.dumps(figures))
        return
    print(f"results equal; medians of {args.rounds}, interleaved, one thread")
    for name, known in figures.items():
        print(f"{name:45} {known['ours_ms']:8.2f} ms against {known['matmul_ms']:8.2f} ms, {known['ratio']:6.1f} x")


def _figures(times: tuple[float, float]) -> dict[str, float]:
    return {"ours_ms": times[0], "matmul_ms": times[1], "ratio": times[1] / times[0]}


if __name__ == "__main__":
    main()
