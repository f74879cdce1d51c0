"""Records ``tide.json``: what the authors' tool (tidecv 1.0.1, pycocotools) says of data drawn by ``data``.

    python -m venv v && v/bin/pip install tidecv pycocotools && v/bin/python record_tide.py [cocoapi's example results]

The tests draw the same data again, so only the figures are stored.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CASES = {"mixed": (0, 12, 4), "crowded": (1, 20, 3), "many classes": (2, 15, 12), "few": (3, 3, 2)}


def data(seed: int, images: int, classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO truth and results, masks that fill most of their box; all types of errors occur, all scores differ."""
    rng = np.random.default_rng(seed)
    side = 60
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []

    def entry(image: int, label: int, box: list[int]) -> dict[str, Any]:
        x, y, w, h = box
        w -= int(rng.integers(0, 1 + w // 3))  # so that masks and boxes are lost differently
        # column by column; an empty tail is left out as COCO's encoder does
        runs = [x * side + y] + [h, side - h] * (w - 1) + [h, side * side - (x + w - 1) * side - y - h]
        shape = {"size": [side, side], "counts": runs if runs[-1] else runs[:-1]}
        return {"image_id": image, "category_id": label, "bbox": [float(v) for v in box], "segmentation": shape}

    def box() -> list[int]:
        w, h = (int(v) for v in rng.integers(4, 25, 2))
        return [int(rng.integers(0, side - w)), int(rng.integers(0, side - h)), w, h]

    def moved(old: list[int], by: int) -> list[int]:
        x, y = (int(np.clip(v + rng.integers(-by, by + 1), 0, side - s)) for v, s in zip(old[:2], old[2:], strict=True))
        return [x, y, *old[2:]]

    for image in range(1, images + 1):
        for _ in range(int(rng.integers(0, 7))):
            label, here = int(rng.integers(1, classes + 1)), box()
            crowd = int(rng.random() < 0.15)
            more = {"id": len(annotations) + 1, "iscrowd": crowd, "area": float(here[2] * here[3])}
            annotations.append(entry(image, label, here) | more)
            for _ in range(int(rng.integers(0, 4))):
                other = label if rng.random() < 0.7 else int(rng.integers(1, classes + 1))
                results.append(entry(image, other, moved(here, int(rng.choice([1, 4, 10])))))
        for _ in range(int(rng.integers(0, 3))):
            results.append(entry(image, int(rng.integers(1, classes + 1)), box()))
    scores = rng.permutation(len(results))
    results = [r | {"score": (int(s) + 1) / (len(results) + 1)} for r, s in zip(results, scores, strict=True)]
    names = [{"id": c, "name": f"class {c}"} for c in range(1, classes + 1)]
    where = [{"id": i, "height": side, "width": side, "file_name": f"{i}.png"} for i in range(1, images + 1)]
    return {"images": where, "annotations": annotations, "categories": names}, results


EXAMPLES = {"coco mask": ("mask", "segm"), "coco box": ("box", "bbox")}
TRUTH, RESULTS = "instances_val2014_100.json", "instances_val2014_fake{}100_results.json"


def untied(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with scores that all differ: among equal ones the tool's order depends on what is mended."""
    return [r | {"score": r["score"] * 0.99 + i * 1e-9} for i, r in enumerate(results)]


def figures(truth: Path, results: Path, kind: str, limit: int = 100) -> dict[str, Any]:
    """AP, dAP and counts of tidecv, in percent as it states them."""
    import tidecv

    there, found = tidecv.datasets.COCO(str(truth)), tidecv.datasets.COCOResult(str(results))
    there.max_dets = limit
    for annotation in found.annotations:  # lists of run-lengths, which the tool does not read in results
        mask = annotation["mask"]
        if mask is not None and isinstance(mask["counts"], list):
            annotation["mask"] = tidecv.functions.toRLE(mask, *mask["size"][::-1])
    tide = tidecv.TIDE(mode=tidecv.TIDE.MASK if kind == "mask" else tidecv.TIDE.BOX)
    run = tide.evaluate(there, found, name="run")
    names = ("class", "localization", "both", "duplicate", "background", "missed")
    costs = run.fix_main_errors()
    order = list(costs)  # Cls, Loc, Both, Dupe, Bkg, Miss
    assert [e.short_name for e in order] == ["Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"]
    special = {e.short_name: value for e, value in run.fix_special_errors().items()}
    counts = {
        name: sum(not (hasattr(e, "pred") and e.pred["used"] is None) for e in run.error_dict[kind_])
        for name, kind_ in zip(names, order, strict=True)
    }
    out = {"AP": run.ap, "dAP": {name: costs[kind_] for name, kind_ in zip(names, order, strict=True)}}
    out["dAP"] |= {"false_positives": special["FalsePos"], "false_negatives": special["FalseNeg"]}
    return out | {"counts": counts}


def main() -> None:
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        truth, results = Path(folder) / "truth.json", Path(folder) / "results.json"
        for name, drawn in CASES.items():
            for path, value in zip((truth, results), data(*drawn), strict=True):
                path.write_text(json.dumps(value))
            out[name] = {kind: figures(truth, results, kind) for kind in ("mask", "box")}
            if name == "crowded":
                out["limited"] = {kind: figures(truth, results, kind, 5) for kind in ("mask", "box")}
    for name, (kind, word) in EXAMPLES.items() if len(sys.argv) > 1 else ():
        folder = Path(sys.argv[1])
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(untied(json.loads((folder / RESULTS.format(word)).read_text())), file)
            file.flush()
            out[name] = {kind: figures(folder / TRUTH, Path(file.name), kind)}
    Path(__file__).with_name("tide.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
