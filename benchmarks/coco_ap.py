"""Mask AP of a result file, whole process: ``maskwright score`` against hotcoco and pycocotools, interleaved.

1,000 images of 480 x 640, 80 classes, about 7 truths and 100 run-length detections an image. Peers that are
not installed are left out::

    python benchmarks/coco_ap.py --peer-python path/to/python      # one with hotcoco, pycocotools; default: this one
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

HEIGHT, WIDTH, IMAGES, CLASSES, DETECTIONS = 480, 640, 1000, 80, 100

PEERS = {
    "hotcoco": "from hotcoco import COCO, COCOeval",
    "pycocotools": "from pycocotools.coco import COCO; from pycocotools.cocoeval import COCOeval",
}
RUN = "t = COCO({!r}); e = COCOeval(t, t.loadRes({!r}), 'segm'); e.evaluate(); e.accumulate(); e.summarize()"


def outline(rng: np.random.Generator, center: np.ndarray, radius: float, points: int) -> list[float]:
    """A wavy ring, flat [x, y, ...], inside of the picture."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    wave = sum(rng.normal(0, 0.15 / k) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in range(2, 7))
    ring = center + radius * np.stack([np.cos(angle), np.sin(angle)], 1) * (1 + wave)[:, None]
    return ring.clip(0, [WIDTH - 1, HEIGHT - 1]).round(2).reshape(-1).tolist()


def write_data(folder: Path) -> tuple[Path, Path]:
    """Draw the truth and the results and write both as COCO JSON."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(CLASSES, 0.6))
    annotations, results = [], []
    for image in range(1, IMAGES + 1):
        labels = rng.choice(CLASSES, 3, p=share) + 1
        known = []
        for _ in range(int(rng.poisson(7.3))):
            center, radius = rng.uniform(0, [WIDTH, HEIGHT]), float(np.clip(np.exp(rng.normal(3.2, 0.95)), 2.5, 230))
            label, crowd = int(rng.choice(labels)), bool(rng.random() < 0.013)
            shape = [outline(rng, center, radius, int(rng.integers(12, 60)))]
            mask = coco_mask.merge(coco_mask.frPyObjects(shape, HEIGHT, WIDTH))
            area = float(coco_mask.area(mask))
            entry = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "iscrowd": int(crowd)}
            entry |= {"area": area, "bbox": coco_mask.toBbox(mask).tolist(), "segmentation": shape}
            if crowd:
                entry["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": mask["counts"].decode()}
            annotations.append(entry)
            known.append((center, radius, label))
        for _ in range(DETECTIONS):
            if known and rng.random() < 0.6:
                center, radius, label = known[int(rng.integers(len(known)))]
                blur = float(rng.choice([0.03, 0.08, 0.2, 0.5]))
                center = center + rng.normal(0, blur * radius, 2)
                score = float(np.clip(rng.normal(0.75 - 0.9 * blur, 0.2), 0.01, 0.999))
            else:
                center, radius = (
                    rng.uniform(0, [WIDTH, HEIGHT]),
                    float(np.clip(np.exp(rng.normal(3.2, 0.95)), 2.5, 230)),
                )
                label, score = int(rng.integers(1, CLASSES + 1)), float(rng.beta(1, 6))
            mask = coco_mask.frPyObjects([outline(rng, center, radius, 96)], HEIGHT, WIDTH)[0]
            mask["counts"] = mask["counts"].decode()
            results.append({"image_id": image, "category_id": label, "score": round(score, 6), "segmentation": mask})
    images = [{"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(1, IMAGES + 1)]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)]
    paths = folder / "truth.json", folder / "results.json"
    paths[0].write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    paths[1].write_text(json.dumps(results))
    return paths


def seconds(command: list[str]) -> float:
    """Wall time of one process."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Print the median time of each and the median ratio to ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        truth, results = map(str, write_data(Path(folder)))
        ours = [sys.executable, "-m", "maskwright.cli.main", "score", "--truth", truth, "--results", results, "--json"]
        commands = {"maskwright": ours}
        for name, imports in PEERS.items():
            command = [args.peer_python, "-c", f"{imports}\n{RUN.format(truth, results)}"]
            if subprocess.run([args.peer_python, "-c", imports], capture_output=True).returncode == 0:
                commands[name] = command
            else:
                print(f"{name} is not installed: left out")
        for command in commands.values():
            seconds(command)
        rounds = [{name: seconds(command) for name, command in commands.items()} for _ in range(args.rounds)]
    for name in commands:
        ratio = statistics.median(r[name] / r["maskwright"] for r in rounds)
        print(f"{name}: {statistics.median(r[name] for r in rounds):.2f} s, {ratio:.2f}x our time")


if __name__ == "__main__":
    main()
