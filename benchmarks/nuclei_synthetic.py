"""Drawn cells alone: a light Mask R-CNN from scratch that never sees a photograph, measured on real nuclei.

Training pictures come from ``data.synthetic.cells``, drawn when they are asked for, no two alike. ``nuclei/val`` is
looked at once, after the last step; settings of the painter were chosen by eye and on ``nuclei/train``, which
``--on train`` measures instead (every n-th picture, 60 of them).

    python benchmarks/nuclei_synthetic.py --data NUCLEI --minutes 60 --threads 1 --out runs/drawn
    python benchmarks/nuclei_synthetic.py --data NUCLEI --realism 30   # no training: do drawn nuclei look like nuclei?
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.formats.coco import read_coco
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.source import FileSource
from maskwright.data.synthetic.cells import MODALITIES, Cells
from maskwright.data.synthetic.scenes import Synthetic
from maskwright.evaluate import evaluate
from maskwright.storage import read_json, replacing
from maskwright.train import TrainOptions, seed_all, train
from maskwright.zoo import load

NAME = "mask-rcnn-r18-light"
SIZE = (256, 256)
LIMIT = 400
RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = "## Nuclei, from drawn cells alone"
INTRO = """`benchmarks/nuclei_synthetic.py`: `mask-rcnn-r18-light` from scratch, trained only on pictures of
`data.synthetic.cells`; `nuclei/val` (real, 98 images, up to 400 objects each), looked at once. AP / AP50 of masks.

| date | command | on | steps | minutes | all | fluorescence | stained | brightfield | machine |
|---|---|---|---|---|---|---|---|---|---|"""

AUGMENT = Augment(
    vflip=0.5,
    quarter_turns=True,
    scale=(1.4, 2.4),
    crop=(256, 256),
    crop_on_object=0.8,
    min_visible=0.15,
    brightness=0.2,
    contrast=0.3,
    saturation=0.4,
    hue=0.08,
    gamma=(0.7, 1.4),
    invert=0.1,
    grayscale=0.1,
    blur=0.1,
    noise=0.1,
)
"""As the embedded weights are trained: enlarged about twofold, cropped around a nucleus."""


def drawn(count: int, seed: int, modalities: Mapping[str, float] | None = None) -> Synthetic:
    """``count`` drawn pictures of 256x256 pixels with their nuclei."""
    return Synthetic(Cells(modalities), count, SIZE, seed)


def fit(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Train on drawn pictures only; the model and the run's summary."""
    options = TrainOptions(
        steps=args.steps,
        minutes=args.minutes,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup=0.05,
        clip_norm=5.0,
        ema=0.995,
        precision=args.precision,
        threads=args.threads,
        workers=args.workers,
        seed=args.seed,
    )
    seed_all(args.seed)
    torch.set_flush_denormal(True)
    source = drawn(1_000_000, args.seed + 1)
    model = zoo.build(NAME, source.taxonomy, zero_init=True)
    loader = make_loader(source, AUGMENT, Shuffled(source, options.batch_size, seed=args.seed), workers=args.workers)
    summary = train(model, loader, options=options, out=args.out, meta=zoo.describe(model))
    # The averaged weights of the last step.
    trained: Any = zoo.load(args.out)
    trained.eval()
    return trained, summary


def measure(model: Any, data: Path, on: str) -> dict[str, tuple[float, float]]:
    """Mask AP and AP50 on real pictures, overall and per modality."""
    source = read_coco(data / f"{on}.json")
    kinds = {int(image["id"]): str(image["modality"]) for image in read_json(data / f"{on}.json")["images"]}
    records = [source.record(index) for index in range(len(source))]
    if on == "train":
        records = records[:: max(1, len(records) // 60)]
    out: dict[str, tuple[float, float]] = {}
    for kind in ("all", *sorted(set(kinds.values()))):
        chosen = [r for r in records if kind in ("all", kinds[r.image_id])]
        if chosen:
            found = evaluate(model, FileSource.from_records(chosen, source.taxonomy), max_per_image=LIMIT)["mask"]
            out[kind] = round(found["AP"], 4), round(found["AP50"], 4)
    return out


def realism(args: argparse.Namespace) -> None:
    """The embedded weights, trained on real nuclei, on drawn ones: high where a network takes them for nuclei."""
    model = load()
    for kind in ("all", *MODALITIES):
        source = drawn(args.realism, args.seed + 100, None if kind == "all" else {kind: 1.0})
        found = evaluate(model, source, max_per_image=LIMIT)["mask"]
        print(f"{kind}: AP {found['AP']:.4f}, AP50 {found['AP50']:.4f} on {args.realism} drawn pictures", flush=True)


def note(row: Mapping[str, Any], figures: Mapping[str, tuple[float, float]], args: argparse.Namespace) -> None:
    """Add a row to this benchmark's table in ``RESULTS.md``, and the table where it is not yet there."""
    budget = f"--minutes {args.minutes:g}" if args.minutes else f"--steps {args.steps}"
    command = f"`{budget} --threads {args.threads} --precision {args.precision} --seed {args.seed}`"
    machine = f"{platform.machine()}, torch {torch.__version__}"
    shown = [
        "{:.4f} / {:.4f}".format(*figures[kind]) if kind in figures else ""
        for kind in ("all", "fluorescence", "stained", "brightfield")
    ]
    cells = [time.strftime("%Y-%m-%d"), command, args.on, str(row["steps"]), str(row["minutes"]), *shown, machine]
    text = RESULTS.read_text()
    if HEADING not in text:
        text = f"{text.rstrip()}\n\n{HEADING}\n\n{INTRO}\n"
    lines = text.splitlines()
    place = lines.index(HEADING)
    while not lines[place].startswith("|"):
        place += 1
    while place < len(lines) and lines[place].startswith("|"):
        place += 1
    lines.insert(place, f"| {' | '.join(cells)} |")
    with replacing(RESULTS) as beside:
        beside.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Train, measure once, print one line and add it to ``RESULTS.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json, val.json and images/")
    parser.add_argument("--out", type=Path, default=Path("runs/drawn"))
    parser.add_argument("--minutes", type=float, default=0.0, help="training time")
    parser.add_argument("--steps", type=int, default=0, help="training steps of 8 crops")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="32", choices=("auto", "32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on", default="val", choices=("val", "train"), help="what is measured")
    parser.add_argument("--realism", type=int, default=0, metavar="N", help="embedded weights on N drawn pictures")
    parser.add_argument("--dry", action="store_true", help="do not add to RESULTS.md")
    args = parser.parse_args()
    if args.realism:
        if args.threads:
            torch.set_num_threads(args.threads)
        realism(args)
        return
    if not args.minutes and not args.steps:
        parser.error("give --minutes or --steps")
    model, summary = fit(args)
    row = {"steps": summary["step"], "minutes": round(summary["seconds"] / 60, 1)}
    figures = measure(model, args.data, args.on)
    print(json.dumps({**row, "on": args.on, "mask AP, AP50": figures}), flush=True)
    if not args.dry:
        note(row, figures, args)


if __name__ == "__main__":
    main()
