"""pycocotools' COCOeval as the oracle, and random data to compare on."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import binary_erosion


def boundary(mask: np.ndarray, ratio: float = 0.02) -> np.ndarray:
    """What the paper "Boundary IoU" takes of a mask, uint8 [H, W]: its definition, pixel by pixel."""
    margin = max(1, round(ratio * math.hypot(*mask.shape)))
    inner = binary_erosion(mask, np.ones((3, 3), bool), iterations=margin, border_value=0)
    return np.asfortranarray(mask.astype(bool) & ~inner).astype(np.uint8, order="F")


def _boundary_ious(run: COCOeval, image: int, label: int) -> Any:
    plain = COCOeval.computeIoU(run, image, label)
    if not len(plain):
        return plain
    found = sorted(run._dts[image, label], key=lambda d: -d["score"])[: run.params.maxDets[-1]]
    there = run._gts[image, label]
    sides = [[coco_mask.encode(boundary(coco_mask.decode(e["segmentation"]))) for e in s] for s in (found, there)]
    crowd = np.array([int(e["iscrowd"]) for e in there])
    return np.where(crowd == 1, plain, np.minimum(plain, coco_mask.iou(*sides, crowd)))


BoundaryEval = type("BoundaryEval", (COCOeval,), {"computeIoU": _boundary_ious})
"""COCOeval of masks whose IoU is the lesser of the masks' and their boundaries'; against a crowd that of masks."""


def evaluated(
    truth: dict[str, Any], results: list[dict[str, Any]], kind: str, limit: int = 100, **params: Any
) -> COCOeval:
    """A COCOeval after ``accumulate``; the data are copied, for pycocotools writes into what it is given."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps({"info": {}, **truth}))
        coco.createIndex()
        found = coco.loadRes(json.loads(json.dumps(results)))
        run = (BoundaryEval if kind == "boundary" else COCOeval)(coco, found, "bbox" if kind == "box" else "segm")
        run.params.maxDets = [k for k in (1, 10) if k < limit] + [limit]
        vars(run.params).update(params)
        run.evaluate()
        run.accumulate()
    return run


def figures(run: COCOeval) -> dict[str, Any]:
    """The twelve numbers over all classes, and for each by category id."""
    return {"all": _twelve(run, slice(None))} | {
        int(c): _twelve(run, slice(k, k + 1)) for k, c in enumerate(run.params.catIds)
    }


def _twelve(run: COCOeval, classes: slice) -> dict[str, float]:
    precision, recall = run.eval["precision"], run.eval["recall"]  # [T, R, K, A, M], [T, K, A, M]
    limits = run.params.maxDets

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    p, r = precision[:, :, classes], recall[:, classes]
    out = {"AP": mean(p[..., 0, -1]), "AP50": mean(p[0, ..., 0, -1]), "AP75": mean(p[5, ..., 0, -1])}
    out |= {f"AP_{name}": mean(p[..., a, -1]) for a, name in enumerate(("small", "medium", "large"), 1)}
    out |= {f"AR_{limit}": mean(r[..., 0, m]) for m, limit in enumerate(limits)}
    out |= {f"AR_{name}": mean(r[..., a, -1]) for a, name in enumerate(("small", "medium", "large"), 1)}
    return out


def check(got: dict[str, Any], run: COCOeval, names: dict[int, str]) -> None:
    """Assert that ``got`` (one kind of our output) has all numbers of ``run``, each class too, to 1e-10."""
    want = figures(run)
    per_class = got["per_class"]
    assert len(per_class) == len(names)
    ours = {"all": {k: v for k, v in got.items() if k != "per_class"}} | {c: per_class[n] for c, n in names.items()}
    for key, numbers in want.items():
        assert list(ours[key]) == list(numbers)
        for name, value in numbers.items():
            assert abs(ours[key][name] - value) < 1e-10, (key, name, ours[key][name], value)


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A blob with ragged edges and sometimes a hole, or nothing; uint8 [H, W]."""
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.uniform(0, height), rng.uniform(0, width)
    ry, rx = rng.uniform(1, max(height * 0.6, 1)), rng.uniform(1, max(width * 0.6, 1))
    distance = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 + rng.normal(0, 0.05, (height, width))
    inside = distance < 1
    if rng.random() < 0.2:
        inside &= distance > 0.3
    return np.asfortranarray(inside.astype(np.uint8))


def random_data(seed: int, kind: str, limit: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results: ties, crowds, all segmentation forms, empty images and classes, too many detections."""
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(8, 140)), int(rng.integers(8, 140))
    images = [{"id": int(i), "height": height, "width": width} for i in rng.permutation(50)[: rng.integers(1, 7)]]
    classes = [int(c) for c in rng.permutation(20)[: rng.integers(1, 5)]]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images:
        known: list[tuple[np.ndarray, int]] = []
        for _ in range(int(rng.integers(0, 6))):
            dense, label = random_mask(rng, height, width), int(rng.choice(classes[: max(1, len(classes) - 1)]))
            area = float(dense.sum()) if rng.random() < 0.7 else float(rng.choice([0.0, 1024.0, 9216.0, 500.5]))
            rle = coco_mask.encode(dense)
            entry = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": label, "area": area}
            entry |= {"iscrowd": int(rng.random() < 0.2), "bbox": [float(v) for v in coco_mask.toBbox(rle)]}
            form = rng.integers(3)
            if form == 0 and not entry["iscrowd"]:
                entry["segmentation"] = [polygon(rng, height, width) for _ in range(int(rng.integers(1, 4)))]
            elif form == 1:
                entry["segmentation"] = {"size": [height, width], "counts": uncompressed(dense)}
            else:
                entry["segmentation"] = {"size": [height, width], "counts": rle["counts"].decode()}
            annotations.append(entry)
            known.append((dense, label))
        for _ in range(int(rng.integers(0, 3 * limit + 2 if limit < 10 else 12))):
            if known and rng.random() < 0.7:
                dense, label = known[int(rng.integers(len(known)))]
                dense = np.roll(dense, int(rng.integers(-2, 3)), int(rng.integers(2)))
            else:
                dense, label = random_mask(rng, height, width), int(rng.choice(classes))
            rle = coco_mask.encode(np.asfortranarray(dense))
            found = {"image_id": image["id"], "category_id": label, "score": int(rng.integers(0, 11)) / 10}
            if kind == "box":
                box = [float(v) for v in coco_mask.toBbox(rle)]
                moved = [max(v + float(rng.normal(0, 0.5)), 0.0) for v in box]
                found["bbox"] = box if rng.random() < 0.5 else moved
            else:
                found["segmentation"] = {"size": [height, width], "counts": rle["counts"].decode()}
            results.append(found)
    categories = [{"id": c, "name": f"class {c}"} for c in classes]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def polygon(rng: np.random.Generator, height: int, width: int) -> list[float]:
    """A polygon that may leave the picture and cross itself, flat [x, y, x, y, ...]."""
    count = int(rng.integers(3, 9))
    x, y = rng.uniform(-0.3 * width, 1.3 * width, count), rng.uniform(-0.3 * height, 1.3 * height, count)
    points = np.stack([x, y], 1)
    if rng.random() < 0.3:
        points = points.round()
    return [float(v) for v in points.round(2).reshape(-1)]


def uncompressed(dense: np.ndarray) -> list[int]:
    """Run-lengths of a mask as a list, column by column."""
    flat = dense.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def broken_up(runs: list[int], rng: np.random.Generator) -> list[int]:
    """The same mask with runs of no length in it."""
    out: list[int] = []
    for run in runs:
        cut = int(rng.integers(0, run + 1))
        out += [cut, 0, run - cut] if rng.random() < 0.5 else [run]
    return out


def compressed(runs: list[int], height: int, width: int) -> str:
    """COCO's string of a list of run-lengths."""
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"].decode()


def write(folder: Path, truth: Any, results: Any) -> tuple[Path, Path]:
    """Both as JSON files."""
    paths = folder / "truth.json", folder / "results.json"
    for path, value in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(value))
    return paths
