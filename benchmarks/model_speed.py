"""What a model costs: parameters, operations, memory of the host, and time by stage from file to scene.

Stages: read (decode the file), resize, collate (pad and stack), forward, predict (decode boxes, NMS, paste to
run-lengths). ``--check`` counts torchvision's two Mask R-CNNs whole and compares with what torchvision publishes; the
tests do it stage by stage.

    python benchmarks/model_speed.py [--model embedded] [--images FOLDER] [--size 480x640] [--batch 1] [--runs 20]
        [--threads 1] [--device cpu] [--json]
    python benchmarks/model_speed.py --check
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from maskwright import zoo
from maskwright.data.io import read_image
from maskwright.metrics.computation import Stopwatch, count_flops, count_parameters, measure_latency
from maskwright.metrics.memory import peak_memory
from maskwright.structures import Geometry, Images, Taxonomy

WEIGHTS = {
    "maskrcnn_resnet50_fpn": "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",
    "maskrcnn_resnet50_fpn_v2": "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1",
}


def model_of(name: str) -> Any:
    """A published or trained model, or one of the table with random weights and 80 classes."""
    if name == "embedded" or Path(name).exists():
        return zoo.load(name).eval()
    return zoo.build(name, Taxonomy(names=tuple(f"class {i}" for i in range(80)))).eval()


def prepared(picture: Tensor, resize: Any) -> tuple[Tensor, Geometry]:
    """A picture, uint8 [3, H, W], at the model's size."""
    size = (picture.shape[1], picture.shape[2])
    target = resize.target(size) if resize is not None else size
    pixels = picture if resize is None or resize.antialias else picture.float()
    if target != size:
        pixels = interpolate(pixels[None], size=target, mode="bilinear", antialias=resize.antialias)[0]
    return pixels, Geometry.resized(size, target)


@torch.no_grad()
def infer(model: Any, paths: list[Path], watch: Stopwatch) -> None:
    """One batch from files to scenes."""
    device = next(model.parameters()).device
    with watch.stage("read"):
        pictures = [read_image(path) for path in paths]
    with watch.stage("resize"):
        ready = [prepared(picture, model.resize) for picture in pictures]
    with watch.stage("collate"):
        inputs = Images.pad([p for p, _ in ready], [g for _, g in ready], multiple=model.size_divisor).to(device)
    with watch.stage("forward"):
        raw = model(inputs)
    with watch.stage("predict"):
        model.predict(raw, inputs.geometry)


def ready_to_infer(name: str, paths: list[Path]) -> Callable[[], object]:
    """For ``peak_memory``: the model, built in the process that is measured."""
    torch.set_num_threads(1)
    model = model_of(name)

    def call() -> None:
        watch = Stopwatch()
        with watch.run(len(paths)):
            infer(model, paths, watch)

    return call


def pictures(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Noise with edges, as JPEG."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
    return sorted(folder.iterdir())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        size = tuple(int(v) for v in args.size.split("x"))
        paths = sorted(args.images.iterdir()) if args.images else pictures(Path(folder), size, args.batch)
        paths = paths[: args.batch]
        model = model_of(args.model).to(args.device)
        pixels, geometry = prepared(read_image(paths[0]), model.resize)
        inputs = Images.pad([pixels], [geometry], multiple=model.size_divisor).to(args.device)
        options: dict[str, Any] = {"runs": args.runs, "warmup": args.warmup, "images": len(paths)}
        times = measure_latency(partial(infer, model, paths), **options, threads=args.threads, device=args.device)
        return {
            "model": args.model,
            "input": list(inputs.pixels.shape),
            "parameters": count_parameters(model),
            "operations": count_flops(model, [inputs]),
            "latency": times,
            "host_memory": peak_memory(partial(ready_to_infer, args.model, paths)),
        }


def check() -> None:
    """Whole runs of torchvision's models; the first makes detections on noise here, those published made none."""
    from torchvision.models import get_model, get_weight

    for name, weights in WEIGHTS.items():
        torch.manual_seed(0)
        got = count_flops(get_model(name, weights=None, weights_backbone=None), [[torch.rand(3, 512, 512)]], depth=2)
        modules = got["by_module"]
        masks = (modules.get("roi_heads.mask_head", 0) + modules.get("roi_heads.mask_predictor", 0)) / 2e9
        whole, published = got["macs"] / 1e9, get_weight(weights).meta["_ops"]
        print(f"{name}: {whole:.3f} GMAC, without masks {whole - masks:.3f}; published {published}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--size", default="480x640")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        check()
        return
    out = measure(args)
    if args.json:
        print(json.dumps(out, indent=1))
        return
    times = out["latency"]
    print(f"{out['model']}, input {out['input']}, {times['device']}, {times['threads']} threads")
    print(f"parameters {out['parameters']['parameters'] / 1e6:.2f} M, {out['operations']['macs'] / 1e9:.2f} GMAC")
    print(f"host memory added {out['host_memory']['added'] / 2**20:.0f} MiB, {times['images_per_second']:.2f} images/s")
    for name, row in {"end to end": times["end_to_end"], **times["stages"]}.items():
        print(f"{name:>12}  p50 {row['p50']:9.2f}  p90 {row['p90']:9.2f}  p99 {row['p99']:9.2f} ms")


if __name__ == "__main__":
    main()
