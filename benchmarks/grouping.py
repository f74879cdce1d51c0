"""Grouping of pixels by the centers they point at, 1024 x 2048, against the distances to all centers, the official way.

    python benchmarks/grouping.py [repeats]

The peer is written out here: the distance of every place to every center, chunk by chunk, and the nearest. One thread,
in seconds of the processor, which other programs on the machine do not count towards; asked: under 150 ms for 200
centers and under 500 ms for 2,000.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch

from maskwright.ops.group_centers import group

SIZE = (1024, 2048)


def scene(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centers, and offsets that point at the nearest one with an error of some pixels."""
    rng = np.random.default_rng(seed)
    centers = np.stack([rng.integers(0, side, count) for side in SIZE], 1)
    true = group(centers, np.zeros((2, *SIZE), np.float32)) - 1
    offsets = centers[true].transpose(2, 0, 1) - np.indices(SIZE)
    return centers, (offsets + rng.normal(0, 6, offsets.shape)).astype(np.float32)


def plainly(centers: np.ndarray, offsets: np.ndarray, chunk: int = 1 << 14) -> np.ndarray:
    """The nearest of all centers, by all distances."""
    places = (torch.from_numpy(offsets) + torch.from_numpy(np.indices(SIZE).astype(np.float32))).flatten(1).T
    points = torch.from_numpy(centers.astype(np.float32))
    nearest = [
        torch.linalg.vector_norm(points[:, None] - part[None], dim=-1).argmin(0) for part in places.split(chunk)
    ]  # fmt: skip
    return (torch.cat(nearest).reshape(SIZE) + 1).numpy()


def check_same(centers: np.ndarray, offsets: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> int:
    """How many pixels differ; each of those is as near to one center as to the other, to rounding."""
    where = np.nonzero(ours != theirs)
    places = offsets[:, *where].astype(np.float64).T + np.stack(where, 1)
    far = [np.linalg.norm(centers[names[where] - 1] - places, axis=1) for names in (ours, theirs)]
    if not np.allclose(*far, rtol=1e-5, atol=1e-3):
        raise AssertionError("groups differ where centers are not equally near")
    return len(where[0])


def main(repeats: int) -> None:
    """Print medians of both, and their ratio."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numpy {np.__version__}, one thread, {repeats} runs each", flush=True)
    for count in (200, 2000):
        centers, offsets = scene(count, seed=count)
        times: tuple[list[float], list[float]] = ([], [])
        tied = 0
        for _ in range(repeats):
            results = []
            for run, taken in zip((group, plainly), times, strict=True):
                began = time.process_time()
                results.append(run(centers, offsets))
                taken.append(time.process_time() - began)
            tied = check_same(centers, offsets, *results)
        mine, other = (1e3 * statistics.median(taken) for taken in times)
        print(
            f"{count} centers: {mine:.0f} ms, all distances {other:.0f} ms: {other / mine:.1f}x; {tied} tied",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
