"""A folder of photographs: ``predict_many`` by a process a processor against the same model called one by one.

Run: ``python benchmarks/folder.py [--pictures 2000] [--chunks 4] [--weights embedded]``. The folder is cut into chunks;
ours and the plain call take turns on each, and what they find is compared before a time counts. Ours pays for its
processes and loads the model in each of them every time; ``start`` says how long that takes, measured on one picture.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskwright import zoo
from maskwright.infer.inputs import Item
from maskwright.infer.many import predict_many
from maskwright.infer.parts import read_part
from maskwright.infer.predictor import predict


@dataclass(frozen=True)
class Load:
    """Loads the model in every worker."""

    weights: str

    def __call__(self) -> Any:
        return zoo.load(self.weights)


def photographs(folder: Path, count: int) -> list[Item]:
    """JPEG of 480 x 640 and 640 x 480: smooth colors, discs and noise."""
    random, items = np.random.default_rng(0), []
    for n in range(count):
        height, width = (480, 640) if n % 3 else (640, 480)
        small = Image.fromarray(random.integers(0, 120, (12, 16, 3), np.uint8))
        pixels = np.array(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        rows, columns = np.mgrid[:height, :width]
        for y, x, radius in random.integers((0, 0, 8), (height, width, 40), (12, 3)):
            pixels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] += random.integers(40, 130, 3, np.int16)
        pixels += random.integers(-6, 7, pixels.shape, np.int16)
        path = folder / f"{n:05d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        items.append(Item(path.name, str(path)))
    return items


def same(plain: list[Any], rows: list[dict[str, Any]]) -> bool:
    """Whether both found as many objects on each picture, with scores within 1e-3 and areas within 0.5 % or 5 px."""
    for scene, row in zip(plain, rows, strict=True):
        segments = scene.objects()
        areas = np.array([each["area"] for each in row["objects"]], float)
        scores = np.array([each["score"] for each in row["objects"]], float)
        if len(areas) != len(segments) or not np.allclose(scores, segments.scores.numpy(), atol=1e-3):
            return False
        if not np.allclose(np.sort(areas), np.sort(segments.masks.area().numpy()), rtol=5e-3, atol=5):
            return False
    return True


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    torch.set_num_threads(args.workers)
    load = Load(args.weights)
    model = load()
    known: dict[str, Any] = {"weights": args.weights, "pictures": args.pictures, "workers": args.workers}
    with tempfile.TemporaryDirectory() as folder:
        items = photographs(Path(folder), args.pictures)

        def ours(chosen: list[Item], name: str) -> tuple[float, list[dict[str, Any]]]:
            size = max(1, -(-len(chosen) // (4 * args.workers)))
            begun = time.perf_counter()
            lines = predict_many(
                load, chosen, Path(folder) / name, model=model, part_size=size, workers=args.workers, device="cpu",
                batch_size=args.batch_size,
            )  # fmt: skip
            seconds = time.perf_counter() - begun
            return seconds, [row for line in lines for row in read_part(Path(folder) / name / line["file"], "coco")]

        predict(model, items[0].path)
        known["start_s"] = round(ours(items[: args.workers], "start")[0], 2)
        times: dict[str, list[float]] = {"ours": [], "one by one": []}
        for chunk in range(args.chunks):
            chosen = items[chunk :: args.chunks]
            begun = time.perf_counter()
            plain = [predict(model, item.path) for item in chosen]
            times["one by one"].append((time.perf_counter() - begun) / len(chosen))
            seconds, rows = ours(chosen, f"chunk-{chunk}")
            times["ours"].append(seconds / len(chosen))
            if not same(plain, rows):
                raise SystemExit(f"chunk {chunk}: the two found different objects; nothing is measured")
    known |= {f"{name}, ms a picture": round(1000 * median(each), 1) for name, each in times.items()}
    known["ratio"] = round(median(times["one by one"]) / median(times["ours"]), 2)
    print(json.dumps(known))


if __name__ == "__main__":
    main()
