"""The weights that ship with the package: a light Mask R-CNN for nuclei and coins, trained from scratch.

Real pictures: the training half of the 2018 Data Science Bowl's nuclei (stage 1, CC0). Drawn pictures: round objects
from ``maskwright.data.synthetic.discs``. Nothing else, and nothing of the validation half: the averaged weights of the
last step are the result, whatever they measure.

    python -m maskwright.recipes.embedded --data NUCLEI --out runs/embedded --minutes 80
    python -m maskwright.recipes.embedded --data NUCLEI --pack runs/embedded
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.formats.coco import read_coco
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.source import CachedSource, FileSource, MixedSource
from maskwright.data.synthetic.discs import Discs
from maskwright.structures import Taxonomy
from maskwright.train import TrainOptions, checkpoint, train
from maskwright.weights import store

NAME = "mask-rcnn-r18-light"
CLASSES = Taxonomy(names=("nucleus", "coin"))
PACKAGED = Path(__file__).parents[1] / "weights" / "files" / "embedded.safetensors"

DRAWN = 0.25
"""Share of drawn pictures."""

AUGMENT = Augment(
    vflip=0.5,
    quarter_turns=True,
    scale=(1.2, 2.4),
    crop=(256, 256),
    crop_on_object=0.8,
    min_visible=0.15,
    brightness=0.2,
    contrast=0.3,
    saturation=0.4,
    hue=0.08,
    gamma=(0.7, 1.4),
    invert=0.15,
    grayscale=0.1,
    blur=0.1,
    noise=0.1,
)
"""Pictures are enlarged about twofold, as at test time, and cropped around a nucleus."""


def options(minutes: float, threads: int = 0) -> TrainOptions:
    """The options of the run; ``minutes`` of training on this machine."""
    return TrainOptions(
        minutes=minutes,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup=0.05,
        clip_norm=5.0,
        ema=0.995,
        precision="32",
        channels_last=False,
        threads=threads,
        workers=1,
        seed=1,
    )


def nuclei(folder: Path) -> FileSource:
    """The training nuclei; a picture of n x 256 x 256 pixels, up to 6, is listed n times, for its many objects."""
    source = read_coco(folder / "train.json")
    records = [source.record(index) for index in range(len(source))]
    shown = [r for r in records if len(r) for _ in range(max(1, min(6, round(r.size[0] * r.size[1] / 65536))))]
    return FileSource.from_records(shown, CLASSES)


def run(data: Path, out: Path, minutes: float, *, start: Path | None, resume: bool, threads: int) -> dict[str, Any]:
    """Train; ``start`` holds weights to start from instead of random ones."""
    chosen = options(minutes, threads)
    checkpoint.seed_all(chosen.seed)
    torch.set_flush_denormal(True)
    model = zoo.load(NAME, start, taxonomy=CLASSES) if start else zoo.build(NAME, CLASSES, zero_init=True)
    source = MixedSource([CachedSource(nuclei(data)), Discs(20_000, taxonomy=CLASSES, seed=7)], [1 - DRAWN, DRAWN])
    order = Shuffled(source, chosen.batch_size, seed=chosen.seed)
    loader = make_loader(source, AUGMENT, order, workers=chosen.workers)
    card = {
        "data": "2018 Data Science Bowl stage 1, training half (CC0 1.0), and drawn discs of maskwright",
        "license": "CC0-1.0",
        "recipe": "maskwright.recipes.embedded",
        "seed": chosen.seed,
    }
    return train(model, loader, options=chosen, out=out, meta={**zoo.describe(model), "card": card}, resume=resume)


def pack(data: Path, trained: Path, packaged: Path = PACKAGED) -> dict[str, Any]:
    """Store the trained weights in half precision, with the figures measured on the validation half in their card."""
    from maskwright.evaluate import evaluate

    state, meta = store.read(trained / "last.safetensors")
    half = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    store.save(packaged, half, meta)
    model = zoo.load(packaged)
    measured = evaluate(model, read_coco(data / "val.json"), max_per_image=400)
    names = ("AP", "AP50", "AP75")
    figures = {kind: {name: round(measured[kind][name], 4) for name in names} for kind in ("mask", "box")}
    card = {**meta["card"], "measured": {"on": "nuclei val, 98 images, up to 400 objects each", **figures}}
    store.save(packaged, half, {**meta, "card": card})
    return figures


def main() -> None:
    """Train, or pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json, val.json and images/")
    parser.add_argument("--out", type=Path, help="run directory to train in")
    parser.add_argument("--minutes", type=float, default=80.0, help="training time")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--threads", type=int, default=0, help="threads of the computation; 0 takes all cores")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--pack", type=Path, help="a finished run to store in the package")
    args = parser.parse_args()
    if args.pack is not None:
        pack(args.data, args.pack)
    elif args.out is not None:
        run(args.data, args.out, args.minutes, start=args.start, resume=args.resume, threads=args.threads)
    else:
        parser.error("give --out to train, or --pack to store a finished run")


if __name__ == "__main__":
    main()
