"""Records ``semantic.json``: what cityscapesScripts 2.3.0 says of label images drawn by ``data``.

    python -m venv v && v/bin/pip install cityscapesscripts && v/bin/python record_semantic.py

The tests draw the same images again, so only the figures are stored.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def data(seed: int, images: int = 4, height: int = 40, width: int = 60) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction of each image: uint8 [H, W], ids of Cityscapes, void and ignored ones among them."""
    rng = np.random.default_rng(seed)
    ids = np.arange(34)
    used = ids[rng.random(34) < 0.7]  # some classes are never there
    out: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(images):
        truth = np.full((height, width), rng.choice(used), np.uint8)
        for _ in range(25):
            y, x = int(rng.integers(height)), int(rng.integers(width))
            truth[y : y + int(rng.integers(2, 15)), x : x + int(rng.integers(2, 20))] = rng.choice(used)
        found = np.roll(truth, tuple(int(v) for v in rng.integers(-2, 3, 2)), (0, 1))
        for _ in range(8):
            y, x = int(rng.integers(height)), int(rng.integers(width))
            found[y : y + int(rng.integers(2, 15)), x : x + int(rng.integers(2, 20))] = rng.choice(ids)
        out.append((truth, found))
    return out


def figures(seed: int) -> dict[str, Any]:
    """IoU of classes and categories and their means; ``None`` for what it leaves undefined."""
    import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling  # as its script is called
    from PIL import Image

    official = cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling

    args = official.args
    args.JSONOutput, args.quiet, args.evalInstLevelScore, args.evalPixelAccuracy = False, True, False, False
    with tempfile.TemporaryDirectory() as folder:
        paths: tuple[list[str], list[str]] = [], []
        for i, pair in enumerate(data(seed)):
            for side, name, image in zip(paths, ("a_0_0_gtFine_labelIds", "b"), pair, strict=True):
                side.append(str(Path(folder) / f"{name}{i}.png"))
                Image.fromarray(image).save(side[-1])
        got = official.evaluateImgLists(paths[1], paths[0], args)

    def plain(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return {
        "classes": {name: plain(v) for name, v in got["classScores"].items()},
        "categories": {name: plain(v) for name, v in got["categoryScores"].items()},
        "mean_classes": plain(got["averageScoreClasses"]),
        "mean_categories": plain(got["averageScoreCategories"]),
    }


if __name__ == "__main__":
    text = json.dumps({str(seed): figures(seed) for seed in range(3)}, indent=1)
    Path(__file__).with_name("semantic.json").write_text(text + "\n")
