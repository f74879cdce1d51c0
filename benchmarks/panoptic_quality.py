"""Panoptic quality: from PNG files against hotcoco (whole processes), from maps in memory against panopticapi's way.

Drawn photographs' worth of data: 500 images of 480 x 640, 133 classes, about 12 segments each with ragged outlines;
the prediction is the truth with moved outlines, other classes and void. Or a real pair of files (``--truth``,
``--results``) with the maps beside them. Equal results are asserted before anything is timed, then peers take turns::

    python benchmarks/panoptic_quality.py --peer-python path/to/python      # one with hotcoco; default: this one

panopticapi is not on every package index, so its method - ``np.unique`` over a map and over the 64-bit pairs of both,
then dicts of what was counted - is written out here and stands for it, without its reading of files. That method
profits from numpy 2.3 and later, whose ``np.unique`` hashes; before, it sorted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskwright.metrics._png import Decoder
from maskwright.metrics.panoptic_quality import MapSegments, PanopticQuality

HEIGHT, WIDTH, CLASSES, THINGS = 480, 640, 133, 80
IN_MEMORY = 60  # images
END = "import resource; print(json.dumps([r, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))"
RUNS = {
    "maskwright": "import json; from maskwright.metrics.panoptic_files import read_panoptic\n"
    "r = read_panoptic({truth!r}, {results!r}).compute()['panoptic']; r = [r['PQ'], r['PQ_things'], r['PQ_stuff']]\n",
    "hotcoco": "import json; from hotcoco.panoptic import PanopticEval\n"
    "e = PanopticEval({truth!r}, {results!r}); e.evaluate(); r = e.results()\n"
    "r = [r[g]['pq'] for g in ('All', 'Things', 'Stuff')]\n",
}


def cells(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Which point each pixel is nearest to, on a grid that is bent, so that outlines are curved and ragged."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    for scale, size in ((60, 12), (12, 3), (1, 0.7)):
        for axis in (y, x):
            coarse = rng.normal(0, size, (HEIGHT // scale + 2, WIDTH // scale + 2)).astype(np.float32)
            axis += np.repeat(np.repeat(coarse, scale, 0), scale, 1)[:HEIGHT, :WIDTH]
    best, out = np.full(y.shape, np.inf, np.float32), np.zeros(y.shape, np.int64)
    for k, (py, px, pull) in enumerate(points):
        distance = ((y - py) ** 2 + (x - px) ** 2) * pull
        out[distance < best] = k
        np.minimum(best, distance, out=best)
    return out


def write_map(path: Path, ids: np.ndarray) -> None:
    """As panopticapi's tools write it."""
    Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(path)


def write_data(folder: Path, images: int) -> tuple[Path, Path]:
    """Draw the truth and the results and write both as COCO panoptic files."""
    rng = np.random.default_rng(0)
    paths = folder / "truth.json", folder / "results.json"
    entries: tuple[list[Any], list[Any]] = [], []
    for path in paths:
        path.with_suffix("").mkdir()
    for image in range(1, images + 1):
        count = 2 + int(rng.poisson(10))
        points = np.stack([rng.uniform(0, s, count) for s in (HEIGHT, WIDTH)] + [np.exp(rng.normal(0, 0.5, count))], 1)
        labels = rng.integers(0, CLASSES, count)
        for side, path in enumerate(paths):
            ids = rng.choice(1 << 24, count) + 1
            ids[rng.random(count) < 0.08] = 0
            ids = np.where(np.arange(count) == 0, 1, np.minimum(ids, (1 << 24) - 1))
            drawn = ids[cells(rng, points + side * rng.normal(0, [6, 8, 0], points.shape))]
            if side:
                labels = np.where(rng.random(count) < 0.2, rng.integers(0, CLASSES, count), labels)
            segments = [
                {"id": int(i), "category_id": int(labels[k]) + 1, "area": int(area), "iscrowd": 0, "bbox": [0, 0, 1, 1]}
                for k, i in enumerate(ids)
                if i and (area := (drawn == i).sum())
            ]
            write_map(path.with_suffix("") / f"{image}.png", drawn)
            entries[side].append({"image_id": image, "file_name": f"{image}.png", "segments_info": segments})
    categories = [{"id": k + 1, "name": f"class {k}", "isthing": int(k < THINGS)} for k in range(CLASSES)]
    sizes = [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(1, images + 1)]
    paths[0].write_text(json.dumps({"images": sizes, "categories": categories, "annotations": entries[0]}))
    paths[1].write_text(json.dumps({"annotations": entries[1]}))
    return paths


class ByUnique:
    """panopticapi's method on maps in memory."""

    def __init__(self) -> None:
        self.sums: dict[int, list[float]] = {}

    def add(
        self, found: np.ndarray, truth: np.ndarray, its: dict[int, int], there: dict[int, tuple[int, int, int]]
    ) -> None:
        """``its``: id -> class; ``there``: id -> class, crowd, area."""
        areas = {int(i): int(n) for i, n in zip(*np.unique(found, return_counts=True), strict=True)}
        codes, counts = np.unique(truth.astype(np.uint64) * (1 << 24) + found.astype(np.uint64), return_counts=True)
        shared = {(int(c) >> 24, int(c) & (1 << 24) - 1): int(n) for c, n in zip(codes, counts, strict=True)}
        hit_t, hit_p = set[int](), set[int]()
        for (t, p), n in shared.items():
            if t not in there or p not in its or there[t][1] or there[t][0] != its[p]:
                continue
            iou = n / (areas[p] + there[t][2] - n - shared.get((0, p), 0))
            if iou > 0.5:
                self._row(its[p])[0] += iou
                self._row(its[p])[1] += 1
                hit_t.add(t)
                hit_p.add(p)
        crowds = {c: t for t, (c, crowd, _) in there.items() if crowd}
        for t, (c, crowd, _) in there.items():
            if t not in hit_t and not crowd:
                self._row(c)[3] += 1
        for p, c in its.items():
            excused = shared.get((0, p), 0) + (shared.get((crowds[c], p), 0) if c in crowds else 0)
            if p not in hit_p and excused / areas[p] <= 0.5:
                self._row(c)[2] += 1

    def _row(self, label: int) -> list[float]:
        return self.sums.setdefault(label, [0.0, 0, 0, 0])

    def quality(self) -> float:
        """PQ over all classes."""
        return statistics.fmean(iou / (tp + 0.5 * fp + 0.5 * fn) for iou, tp, fp, fn in self.sums.values())


def load(truth: Path, results: Path) -> tuple[list[tuple[Any, ...]], list[str]]:
    """The first images in memory, and the names of the classes."""
    there, found = (json.loads(path.read_text()) for path in (truth, results))
    label_of = {c["id"]: k for k, c in enumerate(sorted(there["categories"], key=lambda c: c["id"]))}
    predictions = {a["image_id"]: a for a in found["annotations"]}
    decoder, out = Decoder(), []
    for annotation in there["annotations"][:IN_MEMORY]:
        other = predictions[annotation["image_id"]]
        maps = [
            decoder.read((path.with_suffix("") / a["file_name"]).read_bytes()).copy()
            for path, a in ((results, other), (truth, annotation))
        ]
        its = {s["id"]: label_of[s["category_id"]] for s in other["segments_info"]}
        annotated = annotation["segments_info"]
        listed = {s["id"]: (label_of[s["category_id"]], s["iscrowd"], s["area"]) for s in annotated}
        out.append((*maps, its, listed))
    return out, [str(k) for k in range(len(label_of))]


def ours(images: list[tuple[Any, ...]], names: list[str]) -> float:
    """PQ over all classes by ``PanopticQuality``."""
    metric = PanopticQuality(names)
    for found, truth, its, there in images:
        rows = np.array(list(there.values()), np.int64).reshape(-1, 3).T
        segments = MapSegments(np.array(list(there)), rows[0], rows[1], rows[2])
        metric.update_maps(found, truth, MapSegments(np.array(list(its)), np.array(list(its.values()))), segments)
    return metric.compute()["panoptic"]["PQ"]


def by_unique(images: list[tuple[Any, ...]]) -> float:
    """PQ over all classes by panopticapi's method."""
    peer = ByUnique()
    for image in images:
        peer.add(*image)
    return peer.quality()


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long ``work`` takes, and what it gives."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def compare(what: str, work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Time the peers in turns and print the ratio of medians to ours; what each gave."""
    results = {name: [run()] for name, run in work.items()}
    first, *others = (result[0] for result in results.values())
    for other in others:
        assert np.allclose(first[0], other[0], atol=1e-9), (what, first, other)
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            spent, result = seconds(run)
            times[name].append(spent)
            results[name].append(result)
    own = statistics.median(times["maskwright"])
    for name, spent in times.items():
        print(f"{what}, {name}: {statistics.median(spent):.2f} s, {statistics.median(spent) / own:.2f}x our time")
    return results


def main() -> None:
    """Print the median time of each and the ratio to ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has hotcoco")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--truth", type=Path, help="COCO panoptic JSON, the PNGs beside it")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        truth, results = (args.truth, args.results) if args.truth else write_data(Path(folder), args.images)
        commands: dict[str, Callable[[], Any]] = {}
        for name, code in RUNS.items():
            python = sys.executable if name == "maskwright" else args.peer_python
            if subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode:
                print(f"{name} is not installed: left out")
                continue
            command = [python, "-c", code.format(truth=str(truth), results=str(results)) + END]
            commands[name] = lambda command=command: json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
        for name, got in compare("files", commands, args.rounds).items():
            print(f"files, {name}: {max(peak for _, peak in got)} MiB at most, PQ {got[0][0][0]:.4f}")
        images, names = load(truth, results)
        work = {"maskwright": lambda: [ours(images, names)], "np.unique": lambda: [by_unique(images)]}
        compare(f"{len(images)} images in memory, one thread", work, args.rounds)


if __name__ == "__main__":
    main()
