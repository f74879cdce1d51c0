"""Records ``cityscapes.json``: what cityscapesScripts 2.3.0 says of images drawn by ``draw``.

    python -m venv v && v/bin/pip install cityscapesscripts==2.3.0 && v/bin/python record_cityscapes.py

The tests draw the same data again, so only the figures are stored.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CASES = {"mixed": (range(12), 20), "large": (range(20, 25), 60), "few": (range(30, 32), 8)}
"""By name: a seed for each image, and how many objects there are at most."""

SIZE = (120, 200)
LABELS = (24, 25, 26, 33, 28)
OTHERS = (0, 3, 4, 7, 8, 29, 29001, 11)  # void, void with a number, stuff


def draw(seed: int, most: int) -> tuple[np.ndarray, list[tuple[np.ndarray, int, float]]]:
    """An id map, and masks with label ids and scores. There are groups, truths below 100 pixels, void, empty masks,
    classes that are not compared, duplicates and equal scores."""
    rng = np.random.default_rng(seed)
    ids = np.full(SIZE, 7, np.int64)
    for value in OTHERS:
        _box(rng, ids, value, 30)
    found: list[tuple[np.ndarray, int, float]] = []
    for n in range(int(rng.integers(2, most + 1))):
        label = int(rng.choice(LABELS))
        group = rng.random() < 0.15
        y, x, h, w = _box(rng, ids, label if group else label * 1000 + n, 9 if rng.random() < 0.3 else 40)
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            mask = np.zeros(SIZE, bool)
            dy, dx, dh, dw = rng.integers(-3, 4, 4).tolist()
            mask[max(0, y + dy) : max(0, y + dy + h + dh), max(0, x + dx) : max(0, x + dx + w + dw)] = True
            other = int(rng.choice(LABELS)) if rng.random() < 0.1 else label
            found.append((mask, other, int(rng.integers(30, 101)) / 100))
    for _ in range(int(rng.integers(0, 5))):
        mask = np.zeros(SIZE, np.int64)
        if rng.random() < 0.9:
            _box(rng, mask, 1, 30)
        found.append((mask > 0, int(rng.choice([*LABELS, 7, 29])), int(rng.integers(0, 60)) / 100))
    return ids, found


def _box(rng: np.random.Generator, canvas: np.ndarray, value: int, most: int) -> list[int]:
    y, x = (int(rng.integers(0, side - 3)) for side in SIZE)
    h, w = (int(side) for side in rng.integers(2, most, 2))
    canvas[y : y + h, x : x + w] = value
    return [y, x, h, w]


def write(folder: Path, seeds: range, most: int) -> tuple[list[Path], list[Path]]:
    """The images of a case as files, truth and results as Cityscapes has them."""
    from PIL import Image

    truths: list[Path] = []
    texts: list[Path] = []
    for part in ("truth/town", "results/masks"):
        (folder / part).mkdir(parents=True)
    for seed in seeds:
        ids, found = draw(seed, most)
        name = f"town_{seed:06}_000019"
        truths.append(folder / "truth" / "town" / f"{name}_gtFine_instanceIds.png")
        Image.fromarray(ids.astype(np.uint16)).save(truths[-1])
        lines: list[str] = []
        for n, (mask, label, score) in enumerate(found):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "results" / "masks" / f"{name}_{n}.png")
            lines.append(f"masks/{name}_{n}.png {label} {score}\n")
        texts.append(folder / "results" / f"{name}_leftImg8bit_pred.txt")
        texts[-1].write_text("".join(lines))
    return truths, texts


def _record(folder: Path, seeds: range, most: int) -> dict[str, Any]:
    if not hasattr(np, "in1d"):
        np.in1d = np.isin  # numpy 2.4 dropped the name that the script uses
    from importlib import import_module

    official = import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    official.writeDict2JSON = lambda *_: None  # it cannot write the integers of numpy 2, and nobody reads them

    truths, texts = write(folder, seeds, most)
    args = official.args
    args.quiet, args.JSONOutput = True, False
    args.predictionPath = str(folder / "results")
    args.gtInstancesFile = str(folder / "instances.json")
    out = official.evaluateImgLists([str(path) for path in texts], [str(path) for path in truths], args)
    matrix = np.array(out["resultApMatrix"])[0]
    known = {n: row.tolist() for n, row in zip(args.instLabels, matrix, strict=True) if not np.isnan(row).any()}
    return {"AP": float(out["averages"]["allAp"]), "AP50": float(out["averages"]["allAp50%"]), "per_class": known}


if __name__ == "__main__":
    here = Path(__file__).resolve()
    recorded: dict[str, Any] = {"source": "cityscapesScripts 2.3.0"}
    for case, (images, count) in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            recorded[case] = _record(Path(place), images, count)
    here.with_name("cityscapes.json").write_text(json.dumps(recorded) + "\n")
