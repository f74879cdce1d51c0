"""Training samples a second on one core: maskwright against albumentations and torchvision's v2 transforms.

JPEG files of 480 x 640 with seven polygons each are drawn here, decoded, resized so that the shorter side is one of
480 to 800, cropped to 512 x 512, mirrored half of the time, and normalized to float32; boxes and masks follow. Peers
get their masks from the polygons with pycocotools, which is how a COCO data set gives them; ours are run-lengths, and
dense on a line of their own. First, our masks are compared with pycocotools, pixel by pixel. Rounds are interleaved;
each contestant lives in a process of its own with one thread, and its processor time is counted. Peers that are not
installed are left out::

    python benchmarks/augment.py --peer-python path/to/python      # one with albumentations, torchvision; default: this
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, OBJECTS, CROP = 480, 640, 7, 512
SHORT = tuple(range(480, 801, 32))
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PEERS = {
    "albumentations": "import albumentations, cv2, pycocotools.mask",
    "torchvision": "import torchvision.transforms.v2, pycocotools.mask",
}
OURS: tuple[str, ...] = ("maskwright", "maskwright, dense masks")


def polygons(image: int) -> list[np.ndarray]:
    """Seven wavy rings float64 [40, 2] of many sizes, inside the picture."""
    rng = np.random.default_rng(image)
    rings: list[np.ndarray] = []
    for _ in range(OBJECTS):
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        wave = sum(
            (rng.normal(0, 0.15 / k) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in range(2, 7)), np.zeros(40)
        )
        ring = np.stack([np.cos(angle), np.sin(angle)], 1) * (1 + wave)[:, None]
        ring = rng.uniform(0, (WIDTH, HEIGHT)) + np.exp(rng.normal(3.8, 0.7)) * ring
        rings.append(ring.clip(0, (WIDTH - 1, HEIGHT - 1)).round(2))
    return rings


def write_pictures(folder: Path, count: int) -> None:
    """Pictures with the detail of photographs: smooth color, the objects, and some noise."""
    from PIL import Image, ImageDraw

    for k in range(count):
        rng = np.random.default_rng(k)
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        picture = small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(picture)
        for ring in polygons(k):
            draw.polygon([(x, y) for x, y in ring.tolist()], fill=tuple(rng.integers(0, 256, 3).tolist()))
        pixels = np.asarray(picture) + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.jpg", quality=90)


# ---- contestants: a function of the number of an image ---------------------------------------------------------------


def maskwright(folder: Path, count: int, *, dense: bool = False) -> Callable[[int], Any]:
    """The road of training, with the normalization that a model does first."""
    import torch

    from maskwright.data.augment.transforms import Augment
    from maskwright.data.source import FileSource
    from maskwright.structures import Taxonomy

    torch.set_num_threads(1)
    records = [our_record(folder, k) for k in range(count)]
    source = FileSource.from_records(records, Taxonomy(names=("thing",)))
    augment = Augment(short=SHORT, crop=(CROP, CROP))
    mean = torch.tensor(MEAN).reshape(3, 1, 1)
    scale = 1 / torch.tensor(STD).reshape(3, 1, 1)
    rng = np.random.default_rng(0)

    def step(k: int) -> Any:
        sample = augment(*source.load(k), rng)
        pixels = sample.image.float().sub_(mean).mul_(scale)
        assert sample.scene is not None
        masks = sample.scene.objects().masks
        assert masks is not None
        return pixels, masks.dense() if dense else masks, sample.scene.objects().boxes

    return step


def our_record(folder: Path, k: int) -> Any:
    """The record of image ``k``."""
    from maskwright.structures import Record

    rings = polygons(k)
    boxes = [(*ring.min(axis=0), *ring.max(axis=0)) for ring in rings]
    return Record(
        key=f"{k}.jpg",
        path=folder / f"{k}.jpg",
        size=(HEIGHT, WIDTH),
        labels=np.zeros(OBJECTS, np.int64),
        shapes=tuple((ring,) for ring in rings),
        boxes=np.array(boxes, np.float32),
        crowd=np.zeros(OBJECTS, bool),
        ids=np.arange(OBJECTS) + 1,
        areas=np.ones(OBJECTS),
        image_id=k,
    )


def coco_masks(rings: list[np.ndarray]) -> np.ndarray:
    """uint8 [N, H, W] as pycocotools draws them."""
    from pycocotools import mask

    coco: Any = mask
    return np.stack([coco.decode(coco.frPyObjects([r.reshape(-1).tolist()], HEIGHT, WIDTH))[..., 0] for r in rings])


def coco_boxes(rings: list[np.ndarray]) -> np.ndarray:
    """float32 [N, 4], (x1, y1, x2, y2)."""
    return np.array([(*ring.min(axis=0), *(ring.max(axis=0) + 1)) for ring in rings], np.float32)


def albumentations(folder: Path, count: int) -> Callable[[int], Any]:
    """As its documentation does it: OpenCV reads, masks are a stack, ``ToTensorV2`` ends."""
    import albumentations as a  # pyright: ignore
    import cv2  # pyright: ignore
    from albumentations.pytorch import ToTensorV2  # pyright: ignore

    cv2.setNumThreads(1)
    change = a.Compose(
        [
            a.SmallestMaxSize(max_size=list(SHORT), interpolation=cv2.INTER_LINEAR, p=1),
            a.RandomCrop(CROP, CROP, pad_if_needed=True),
            a.HorizontalFlip(p=0.5),
            a.Normalize(MEAN, STD, max_pixel_value=1.0),
            ToTensorV2(),
        ],
        bbox_params=a.BboxParams(format="pascal_voc", label_fields=["labels"]),
    )
    rings = [polygons(k) for k in range(count)]

    def step(k: int) -> Any:
        image = cv2.cvtColor(cv2.imread(str(folder / f"{k}.jpg")), cv2.COLOR_BGR2RGB)
        masks = coco_masks(rings[k])
        return change(image=image, masks=masks, bboxes=coco_boxes(rings[k]), labels=list(range(OBJECTS)))

    return step


def torchvision(folder: Path, count: int) -> Callable[[int], Any]:
    """As its documentation does it: tensors that know what they are, through ``v2``."""
    import torch
    from torchvision import io, tv_tensors  # pyright: ignore
    from torchvision.transforms import v2  # pyright: ignore

    torch.set_num_threads(1)
    box_kind: Any = tv_tensors.BoundingBoxes
    change = v2.Compose(
        [
            v2.RandomShortestSize(list(SHORT), antialias=True),
            v2.RandomCrop((CROP, CROP), pad_if_needed=True),
            v2.RandomHorizontalFlip(0.5),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=False),
            v2.Normalize(MEAN, STD),
        ]
    )
    rings = [polygons(k) for k in range(count)]

    def step(k: int) -> Any:
        pixels = io.decode_jpeg(io.read_file(str(folder / f"{k}.jpg")), mode=io.ImageReadMode.RGB)
        target = {
            "boxes": box_kind(torch.from_numpy(coco_boxes(rings[k])), format="XYXY", canvas_size=(HEIGHT, WIDTH)),
            "masks": tv_tensors.Mask(torch.from_numpy(coco_masks(rings[k]))),
            "labels": torch.zeros(OBJECTS, dtype=torch.int64),
        }
        return change(tv_tensors.Image(pixels), target)

    return step


# ---- running ---------------------------------------------------------------------------------------------------------


def check_masks(folder: Path, count: int) -> None:
    """Our masks, unresized, are pycocotools' to the pixel; resized ones those of its polygons moved by our numbers."""
    from pycocotools import mask

    from maskwright.data.augment.placement import Placement
    from maskwright.data.rasterize import scene_of

    coco: Any = mask
    for k in range(count):
        record = our_record(folder, k)
        masks = scene_of(record).objects().masks
        assert masks is not None
        want = coco_masks(polygons(k))
        assert np.array_equal(masks.dense().numpy(), want[want.any(axis=(1, 2))]), f"image {k}"
        place = Placement(window=(7, 50 + k, 400, 400), canvas=(CROP, CROP), flip_x=k % 2 == 1)
        moved = [place.points(ring).reshape(-1).tolist() for ring in polygons(k)]
        drawn = np.stack([coco.decode(coco.frPyObjects([ring], CROP, CROP))[..., 0] for ring in moved])
        masks = scene_of(record, place).objects().masks
        assert masks is not None
        assert np.array_equal(masks.dense().numpy(), drawn[drawn.any(axis=(1, 2))]), f"image {k}, placed"


def work(name: str, folder: Path, count: int) -> None:
    """A contestant's process: for each line read, make all samples once and write the seconds it took."""
    made: dict[str, Callable[[], Callable[[int], Any]]] = {
        "maskwright": lambda: maskwright(folder, count),
        "maskwright, dense masks": lambda: maskwright(folder, count, dense=True),
        "albumentations": lambda: albumentations(folder, count),
        "torchvision": lambda: torchvision(folder, count),
    }
    step = made[name]()
    for k in range(min(count, 8)):
        step(k)
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.process_time()
        for k in range(count):
            step(k)
        print(time.process_time() - begin, flush=True)


def main() -> None:
    """Print images a second and the ratio of medians for each contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker[0], Path(args.worker[1]), args.images)
        return
    one = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), args.images)
        check_masks(Path(folder), args.images)
        print(f"masks of {args.images} pictures are pycocotools' to the pixel, before and after the crop")
        pythons = dict.fromkeys(OURS, sys.executable)
        for name, imports in PEERS.items():
            if subprocess.run([args.peer_python, "-c", imports], capture_output=True, env=one).returncode == 0:
                pythons[name] = args.peer_python
            else:
                print(f"{name} is not installed: left out")
        workers: dict[str, subprocess.Popen[str]] = {}
        for name, python in pythons.items():
            command = [python, __file__, "--images", str(args.images), "--worker", name, folder]
            workers[name] = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=one)
            assert _line(workers[name]).strip() == "ready"
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(args.rounds):
            for name, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write("go\n")
                worker.stdin.flush()
                seconds[name].append(float(_line(worker)))
        for worker in workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()
    best = statistics.median(seconds[OURS[0]])
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"{name}: {args.images / middle:.0f} images/s, {middle / best:.2f}x our time")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _line(worker: subprocess.Popen[str]) -> str:
    assert isinstance(worker.stdout, io.TextIOBase)
    return worker.stdout.readline()


if __name__ == "__main__":
    main()
