"""Records ``cells.json``: what HoVer-Net's and StarDist's own scripts say of label images drawn by ``data``.

    python record_cells.py FOLDER

FOLDER holds ``metrics/stats_utils.py`` of github.com/vqdang/hover_net (commit 67e2ce5) and ``stardist/matching.py`` of
github.com/stardist/stardist (commit 650d3a1). Neither is installed: what they import besides numpy, scipy, numba and
tqdm is not used by the functions called here and is put in as empty modules.

The tests draw the same images again, so only the figures are stored.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

THRESHOLDS = (0.5, 0.6, 0.75, 0.9)


def data(seed: int, images: int = 4, side: int = 64) -> list[tuple[np.ndarray, np.ndarray]]:
    """Prediction and truth of each image: int32 [H, W], cells moved, merged, split, missed and invented."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:side, :side]
    out: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(images):
        found, truth = np.zeros((2, side, side), np.int32)
        for name in range(1, 16):
            (y, x), (a, b) = rng.random(2) * side, 3 + 5 * rng.random(2)
            truth[((ys - y) / a) ** 2 + ((xs - x) / b) ** 2 < 1] = name
            y, x = y + rng.normal(0, 1), x + rng.normal(0, 1)
            if rng.random() < 0.85:
                cell = ((ys - y) / a) ** 2 + ((xs - x) / b) ** 2 < 1
                found[cell] = name if rng.random() < 0.85 else name % 15 + 1
                if rng.random() < 0.2:
                    found[cell & (xs > x)] = 20 + name
        found[:5, :6] = 50
        out.append((found, truth))
    return out


def figures(seed: int, hover: Any, star: Any) -> dict[str, Any]:
    """AJI, AJI+, DQ, SQ, PQ and Dice of each image; figures pooled and meant over images at each threshold.

    StarDist matches at IoUs from the threshold on; for ``above`` it is the next number up, so that IoUs exceed it.
    """
    each: list[dict[str, float]] = []
    for pair in data(seed):
        found, truth = (hover.remap_label(side) for side in pair)
        dq, sq, pq = hover.get_fast_pq(truth, found)[0]
        row = {"AJI": hover.get_fast_aji(truth, found), "AJI+": hover.get_fast_aji_plus(truth, found)}
        row |= {"DQ": dq, "SQ": sq, "PQ": pq, "Dice": hover.get_dice_1(truth, found)}
        each.append({name: float(value) for name, value in row.items()})
    found, truth = ([pair[k] for pair in data(seed)] for k in (0, 1))
    out: dict[str, Any] = {"hover_net": each}
    above = tuple(np.nextafter(np.float32(THRESHOLDS), np.float32(1)).tolist())  # its IoUs are float32
    forms = ("pooled", THRESHOLDS, False), ("pooled above", above, False), ("per_image above", above, True)
    for name, thresholds, by_image in forms:
        rows = star.matching_dataset(truth, found, thresholds, by_image=by_image, show_progress=False)
        wanted = ("accuracy", "precision", "recall", "f1", "mean_matched_score", "panoptic_quality")
        out[name] = [{figure: float(getattr(row, figure)) for figure in wanted} for row in rows]
    return out


if __name__ == "__main__":
    for absent in ("cv2", "matplotlib", "matplotlib.pyplot", "csbdeep", "csbdeep.utils"):
        sys.modules[absent] = ModuleType(absent)
    sys.modules["csbdeep.utils"]._raise = None  # only called where input is wrong
    sys.path.insert(0, sys.argv[1])
    scripts = import_module("stats_utils"), import_module("matching")
    text = json.dumps({str(seed): figures(seed, *scripts) for seed in range(3)}, indent=1)
    Path(__file__).with_name("cells.json").write_text(text + "\n")
