"""Records ``lvis.json``: random data in LVIS's form and what the authors' tool says of them.

Needs ``pip install lvis "numpy<2"`` in an environment of its own::

    python tests/golden/record_lvis.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lvis import LVIS, LVISEval, LVISResults
from pycocotools import mask as coco_mask

np.float = float  # the tool was written for an older numpy
HEIGHT, WIDTH, IMAGES, CLASSES = 110, 130, 14, 9


def blob(rng: np.random.Generator, center: np.ndarray, radius: np.ndarray) -> dict[str, Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 < 1
    rle = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    return rle | {"counts": rle["counts"].decode()}


def data(rng: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    images, annotations, results = [], [], []
    for image in rng.permutation(100)[:IMAGES].tolist():
        classes = rng.permutation(CLASSES) + 1
        there, absent = classes[: rng.integers(1, 4)], classes[4 : 4 + rng.integers(0, 4)]
        partly = [int(c) for c in (*there, *absent) if rng.random() < 0.3]
        images.append({"id": image, "height": HEIGHT, "width": WIDTH, "neg_category_ids": absent.tolist()})
        images[-1]["not_exhaustive_category_ids"] = partly
        shapes = []
        for _ in range(int(rng.integers(1, 5))):
            center, radius = rng.uniform(0, [HEIGHT, WIDTH]), np.exp(rng.uniform(0.5, 4.2, 2))
            shape, label = blob(rng, center, radius), int(rng.choice(there))
            area = float(coco_mask.area(shape))
            entry = {"id": len(annotations), "image_id": image, "category_id": label, "area": area}
            annotations.append(entry | {"bbox": coco_mask.toBbox(shape).tolist(), "segmentation": shape})
            shapes.append((center, radius, label))
        for _ in range(int(rng.integers(2, 10))):
            center, radius, label = shapes[int(rng.integers(len(shapes)))]
            moved = center + rng.normal(0, 0.08, 2) * radius, radius * np.exp(rng.normal(0, 0.08, 2))
            label = int(rng.integers(1, CLASSES + 1)) if rng.random() < 0.4 else label
            shape = blob(rng, *moved)
            if rng.random() < 0.05:
                shape = blob(rng, np.array([-99.0, -99.0]), np.ones(2))  # nothing
            score = int(rng.integers(0, 20)) / 20
            results.append({"image_id": image, "category_id": label, "score": score, "segmentation": shape})
    groups = [{"id": k + 1, "name": f"class {k + 1}", "frequency": "rcf"[k % 3]} for k in range(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": groups}, results


def main() -> None:
    """Write the data and the figures."""
    truth, results = data(np.random.default_rng(4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth))
        runs = []
        for boxed in (False, True):
            own = [r | {"bbox": coco_mask.toBbox(r["segmentation"]).tolist()} if boxed else r for r in results]
            for kind in ("segm", "bbox"):
                for limit in (300, 3):
                    gt = LVIS(str(path))
                    found = LVISResults(gt, json.loads(json.dumps(own)), max_dets=limit)
                    run = LVISEval(gt, found, kind)
                    run.params.max_dets = limit
                    run.run()
                    figures = {name: float(value) for name, value in run.get_results().items()}
                    runs.append({"boxed": boxed, "kind": kind, "limit": limit, "figures": figures})
    out = {"truth": truth, "results": results, "runs": runs}
    Path(__file__).with_name("lvis.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
