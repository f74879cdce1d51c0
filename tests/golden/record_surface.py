"""Records ``surface.json``: what MONAI 1.6.1 and DeepMind's surface-distance 0.1 say of masks drawn by ``data``.

    pip install --no-deps --target peers monai==1.6.1 surface-distance==0.1
    PYTHONPATH=peers python record_surface.py     # with torch, numpy and scipy

The tests draw the same masks again, so only the figures are stored. MONAI computes in float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

CASES: dict[str, tuple[int, tuple[int, ...], tuple[float, ...]]] = {
    "plane": (0, (30, 40), (1.0, 1.0)),
    "stretched plane": (1, (40, 30), (0.5, 2.0)),
    "volume": (2, (12, 20, 18), (1.0, 1.0, 1.0)),
    "stretched volume": (3, (10, 24, 24), (3.0, 0.7, 0.9)),
    "cut by the edge": (4, (9, 15, 15), (2.0, 1.0, 1.5)),
}
TOLERANCES = (0.6, 1.0, 2.5)


def data(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth, bool: a few ellipsoids that mostly agree."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    out = np.zeros((2, *shape), bool)
    for _ in range(3):
        center, radius = rng.random(len(shape)) * shape, (0.1 + 0.2 * rng.random(len(shape))) * shape
        for side in out:
            its = center + rng.normal(0, 1, len(shape))
            side |= (((grid - its) / (radius * (1 + 0.2 * rng.random()))) ** 2).sum(-1) < 1
    return out[0], out[1]


def figures(seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> dict[str, Any]:
    """Figures of both tools."""
    import surface_distance as deepmind
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    found, there = data(seed, shape)
    pair = [torch.from_numpy(m[None, None].astype(np.float32)) for m in (found, there)]
    options: dict[str, Any] = {"include_background": True, "spacing": spacing}
    out = {
        "HD": compute_hausdorff_distance(*pair, **options).item(),
        "HD95": compute_hausdorff_distance(*pair, percentile=95, **options).item(),
        "ASSD": compute_average_surface_distance(*pair, symmetric=True, **options).item(),
    }
    for tolerance in TOLERANCES:
        out[f"dice {tolerance}"] = compute_surface_dice(*pair, [tolerance], **options).item()
    far = deepmind.compute_surface_distances(there, found, spacing)
    means = deepmind.compute_average_surface_distance(far)
    other = {
        "HD": deepmind.compute_robust_hausdorff(far, 100),
        "HD95": deepmind.compute_robust_hausdorff(far, 95),
        "ASSD": sum(means) / 2,
    }
    return {"monai": out, "deepmind": {name: float(value) for name, value in other.items()}}


if __name__ == "__main__":
    text = json.dumps({name: figures(*case) for name, case in CASES.items()}, indent=1)
    Path(__file__).with_name("surface.json").write_text(text + "\n")
