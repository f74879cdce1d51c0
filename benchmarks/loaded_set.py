"""Claim: a loaded set takes <= 1.2 kB an object beside the pixels, shared by forked workers and not copied.

Writes a drawn COCO file (7 objects an image, as COCO has; two thirds of one polygon, the others of two, some 24 points
each; one in 50 is run-lengths of a crowd), loads it in a fresh process and reports, over what the process took before:

- resident: what the loaded set takes, from the process's proportional set size, after ``data.memory.give_back``, which
  ``make_loader`` calls before it forks; ``free`` is what that gave back;
- peak: the most it took while reading, which is the JSON parser's objects beside the table;
- private: what each of two forked workers adds, once it has visited every record twice, over what a worker adds that
  was forked before the set was loaded (garbage collection writes to every Python object, torch's too).

Linux only (/proc).

    python benchmarks/loaded_set.py [--objects 100000] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import orjson

EACH = 7
WORKERS = 2
LIMIT = 1200


def write(path: Path, objects: int) -> None:
    """The drawn file: blobs on pictures of 480 x 640."""
    from maskwright.ops import rle

    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    mask = np.zeros((1, 480, 640), bool)
    mask[0, 100:300:50, 50:400] = True
    crowd = rle.to_coco(*rle.encode(mask), (480, 640))[0]
    for number in range(objects):
        if number % EACH == 0:
            images.append({"id": number + 1, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640})
        rings = []
        center, radius = rng.uniform(100, 380, 2), rng.uniform(5, 90)
        for part in range(1 + (number % 3 == 0)):
            count = int(rng.integers(12, 37))
            angles = np.sort(rng.uniform(0, 2 * np.pi, count))
            reach = radius * rng.uniform(0.6, 1.0, count)
            points = center + 5 * part + np.stack([np.cos(angles) * reach, np.sin(angles) * reach], 1)
            rings.append(np.round(points, 2).reshape(-1).tolist())
        flat = np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings])
        low, high = flat.min(axis=0), flat.max(axis=0)
        annotations.append(
            {
                "id": number + 1,
                "image_id": images[-1]["id"],
                "category_id": int(rng.integers(1, 81)),
                "iscrowd": int(number % 50 == 49),
                "area": round(float(np.prod(high - low)) * 0.6, 2),
                "bbox": np.round([*low, *(high - low)], 2).tolist(),
                "segmentation": crowd if number % 50 == 49 else rings,
            }
        )
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    path.write_bytes(orjson.dumps({"images": images, "annotations": annotations, "categories": categories}))


def rollup(name: str) -> int:
    """A line of this process's memory, in bytes: Pss, Private_Dirty, ..."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/smaps_rollup has no {name}")


def status(name: str) -> int:
    """VmRSS, what this process has resident, or VmHWM, the most it had since the mark was reset; in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {name}")


def visit(source: Any, answer: Connection) -> None:
    """A worker: reads every record, as often as two passes would, and says what memory it took for itself."""
    before = rollup("Private_Dirty")
    points = 0
    for _ in range(2):
        for index in range(len(source)):
            record = source.record(index)
            points += sum(len(ring) for shape in record.shapes if isinstance(shape, tuple) for ring in shape)
    gc.collect()
    answer.send((rollup("Private_Dirty") - before, points))
    answer.close()


def private(source: Any) -> list[int]:
    """What each worker adds, in bytes."""
    context = multiprocessing.get_context("fork")
    out: list[int] = []
    for _ in range(WORKERS):
        ours, theirs = context.Pipe()
        worker = context.Process(target=visit, args=(source, theirs))
        worker.start()
        out.append(ours.recv()[0])
        worker.join()
    return out


def measure(path: Path) -> dict[str, float]:
    """Loads the file, in a process that did nothing yet."""
    from maskwright.data.formats.coco import read_coco
    from maskwright.data.memory import give_back

    small = path.with_name("small.json")
    write(small, 3 * EACH)
    few = read_coco(small, check=False)  # modules and kernels are loaded, not counted
    plain = max(private(few))
    give_back()
    before, before_peak = rollup("Pss"), status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    source = read_coco(path, check=False)
    at_peak = status("VmHWM")
    gc.collect()
    loaded = rollup("Pss")
    give_back()
    after = rollup("Pss")
    objects = source.table.objects
    return {
        "objects": objects,
        "images": len(source),
        "file": path.stat().st_size / objects,
        "resident": (after - before) / objects,
        "free": (loaded - after) / objects,
        "peak": (at_peak - before_peak) / objects,
        "private": (max(private(source)) - plain) / objects,
    }


def main() -> int:
    """Write, measure in a fresh process, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    args = parser.parse_args()
    if not os.path.exists("/proc/self/smaps_rollup"):
        raise SystemExit("this measures through /proc, which this system does not have")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.json")
        write(path, args.objects)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(measure, path).result()
    if args.json:
        print(json.dumps(found))
    else:
        print(f"{found['objects']} objects on {found['images']} images; bytes an object:")
        for name in ("file", "resident", "free", "peak", "private"):
            print(f"  {name:9} {found[name]:8.0f}")
    good = found["resident"] <= LIMIT and found["private"] <= LIMIT / 10
    print(f"limit {LIMIT} resident, {LIMIT // 10} private: {'holds' if good else 'MISSED'}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
