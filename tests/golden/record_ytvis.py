"""Records ``ytvis.json``: what YouTube-VIS's own script says of videos drawn by ``draw``.

    git clone https://github.com/youtubevos/cocoapi && git -C cocoapi checkout f3f9948a1f749fb95797f31a9616872811eea559
    python -m venv v && v/bin/pip install pycocotools && v/bin/python record_ytvis.py cocoapi/PythonAPI/pycocotools

Only its two Python files are used, on pycocotools' masks. The tests draw the same data again, so only the figures are
stored.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

CASES = {"mixed": (1, 8, 3), "one class": (2, 5, 1), "many classes": (3, 6, 9)}
"""By name: a seed, videos, classes."""


def draw(seed: int, videos: int, classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results of videos of different lengths and sizes. Tubes move and pause, some are crowds, some are never
    visible, the areas that files state are a little larger than the masks, and scores tie."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"videos": [], "annotations": []}
    results: list[dict[str, Any]] = []
    for video in range(1, videos + 1):
        height, width, length = int(rng.integers(200, 400)), int(rng.integers(200, 400)), int(rng.integers(1, 7))
        truth["videos"].append({"id": video, "height": height, "width": width, "length": length})

        def tube(box: list[int], moves: list[list[int]], shown: list[bool], size: list[int]) -> list[Any]:
            out: list[Any] = []
            y, x, h, w = box
            for move, there in zip(moves, shown, strict=True):
                y, x = (int(np.clip(v + m, 0, s - 2)) for v, m, s in zip((y, x), move, size, strict=True))
                out.append(_runs(y, x, min(h, size[0] - y), min(w, size[1] - x), size) if there else None)
            return out

        for _ in range(int(rng.integers(1, 6))):
            most = int(rng.choice([60, 160, 300]))
            box = [*rng.integers(0, 150, 2).tolist(), *rng.integers(most // 3, most, 2).tolist()]
            moves = rng.integers(-9, 10, (length, 2)).tolist()
            shown = (rng.random(length) < 0.8).tolist()
            label = int(rng.integers(1, classes + 1))
            parts = tube(box, moves, shown, [height, width])
            entry = {"id": len(truth["annotations"]) + 1, "video_id": video, "category_id": label}
            entry |= {"iscrowd": int(rng.random() < 0.2), "segmentations": parts}
            truth["annotations"].append(entry | {"areas": [p and _area(p) + 40 for p in parts]})
            for _ in range(int(rng.integers(0, 4))):
                near = (np.array(box) + rng.integers(-9, 10, 4)).clip([0, 0, 4, 4]).tolist()
                there = (np.array(shown) ^ (rng.random(length) < 0.15)).tolist()
                other = label if rng.random() < 0.9 else int(rng.integers(1, classes + 1))
                found = {"video_id": video, "category_id": other, "score": int(rng.integers(20, 100)) / 100}
                results.append(found | {"segmentations": tube(near, moves, there, [height, width])})
    truth["categories"] = [{"id": c, "name": f"class {c}"} for c in range(1, classes + 1)]
    return truth, results


def _runs(y: int, x: int, h: int, w: int, size: list[int]) -> dict[str, Any]:
    runs = [x * size[0] + y, *([h, size[0] - h] * (w - 1)), h, size[0] * size[1] - (x + w - 1) * size[0] - y - h]
    return {"size": size, "counts": runs if runs[-1] else runs[:-1]}


def _area(part: dict[str, Any]) -> int:
    return sum(part["counts"][1::2])


def _record(case: tuple[int, int, int], ytvos: Any, evaluation: Any) -> list[float]:
    from pycocotools import mask

    truth, results = draw(*case)
    for entry in results:  # the script takes strings only
        size = [part["size"] for part in entry["segmentations"] if part]
        forms = [part and mask.frPyObjects(part, *size[0]) for part in entry["segmentations"]]
        entry["segmentations"] = [form and form | {"counts": form["counts"].decode()} for form in forms]
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("truth", truth), ("results", results)):
            Path(folder, name).write_text(json.dumps(data))
        there = ytvos.YTVOS(str(Path(folder, "truth")))
        run = evaluation.YTVOSeval(there, there.loadRes(str(Path(folder, "results"))), "segm")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats.tolist()


if __name__ == "__main__":
    # The script is older than numpy 1.20: a name is gone, and counts must be integers now.
    np.float, linspace = float, np.linspace
    np.linspace = lambda low, high, count, **how: linspace(low, high, int(count), **how)
    import pycocotools

    package = types.ModuleType("official")
    package.__path__ = [sys.argv[1]]
    sys.modules |= {"official": package, "official.mask": import_module("pycocotools.mask")}
    package.mask = pycocotools.mask
    modules = import_module("official.ytvos"), import_module("official.ytvoseval")
    recorded = {case: _record(how, *modules) for case, how in CASES.items()}
    source = "youtubevos/cocoapi f3f9948a1f749fb95797f31a9616872811eea559"
    text = json.dumps({"source": source} | recorded) + "\n"
    Path(__file__).with_name("ytvis.json").write_text(text)
