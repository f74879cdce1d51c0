"""Conversion of drawn objects from COCO to the JSON formats of annotation tools and back, end to end.

    python benchmarks/convert.py [--objects 100000] [--images 5000] [--points 30] [--formats labelme ...] [--profile N]

Every object is a polygon; every way is read, written to disk and timed as a whole, on one core. Bound: 15 s for 100,000
objects. Pictures are links to one JPEG. ``--profile N`` prints the N functions that take the most time.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from maskwright.data.dataset import WHOLE, Dataset
from maskwright.data.formats import coco_dataset
from maskwright.data.formats.build import Builder
from maskwright.structures import Record, Taxonomy

SIZE = (480, 640)
NAMES = tuple(f"class {i}" for i in range(20))
WRITERS = ("labelme", "label_studio", "via", "supervisely")


def drawn(objects: int, images: int, points: int, seed: int = 1) -> Dataset:
    """Star-shaped polygons of ``points`` corners, spread over the images."""
    rng = np.random.default_rng(seed)
    build = Builder(Path("drawn"), "drawn", Taxonomy(names=NAMES))
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    for i in range(images):
        build.image(f"{i:06d}.jpg", Path(f"{i:06d}.jpg"), SIZE)
        for k in range(i * objects // images, (i + 1) * objects // images):
            center = rng.uniform((100, 100), (540, 380))
            radii = rng.uniform(20, 90, points)
            ring = np.round(center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1), 2)
            build.object(NAMES[k % len(NAMES)], (ring,), str(k))
    return build.done()


def place(dataset: Dataset, where: Callable[[Record], Path], picture: Path) -> None:
    """Links to one picture wherever a format looks for one."""
    source = dataset.splits[WHOLE]
    for i in range(len(source)):
        path = where(source.record(i))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(picture, path)


def timed(work: Callable[[], None], profile: int) -> tuple[float, float]:
    """Seconds of wall time and of processor time; with a profile of the slowest functions where asked."""
    profiler = cProfile.Profile()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    if profile:
        profiler.runcall(work)
    else:
        work()
    seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(profile)
    return seconds


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--formats", nargs="+", default=list(WRITERS), choices=WRITERS)
    parser.add_argument("--profile", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        Image.new("L", SIZE[::-1]).save(root / "picture.jpg")
        dataset = drawn(args.objects, args.images, args.points)
        pictures = root / "coco" / "images"
        place(dataset, lambda record: pictures / record.key, root / "picture.jpg")
        file = root / "coco" / "annotations" / "instances_all.json"
        coco_dataset.write(file, dataset)
        for name in args.formats:
            module = import_module(f"maskwright.data.formats.{name}")
            out, back = root / name, root / f"{name}.json"
            where = getattr(module, "picture", lambda root, split, record: root / "images" / record.key)
            place(dataset, lambda record, out=out, where=where: where(out, WHOLE, record), root / "picture.jpg")

            def there(module=module, out=out) -> None:
                module.write(out, coco_dataset.read(file, images=pictures))

            def again(module=module, out=out, back=back) -> None:
                coco_dataset.write(back, module.read(out))

            for way, work in ((f"coco -> {name}", there), (f"{name} -> coco", again)):
                wall, busy = timed(work, args.profile)
                print(f"{way:24} {wall:7.2f} s, of which {busy:7.2f} s computing")
            kept = coco_dataset.read(back, images=pictures)
            objects = sum(len(kept.splits[WHOLE].record(i)) for i in range(args.images))
            assert (len(kept), objects) == (args.images, args.objects)


if __name__ == "__main__":
    main()
