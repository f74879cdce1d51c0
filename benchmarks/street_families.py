"""Panoptic families under one budget on drawn streets, and whether each can learn photographs by heart.

Without ``--overfit``: every family trains on the same drawn street pictures in the same order (``maskwright synth
street`` draws such ones) with the same optimizer, schedule and number of steps, a ResNet-18 each begun from the
backbone of the weights that ship with the package (EoMT, which has no such backbone, a small transformer from random
numbers), and is measured on other streets, once, after the last step. Figures go to ``docs/families/street-NAME.json``
and the table to ``docs/families/street.md``.

With it: every family trains on 20 photographs of COCO until it knows them; the claim is PQ > 60 on these very ones, so
that each part (things, stuff, crowds, void) is shown to learn. Nothing is held out: these figures say nothing else.
The 20 are those with the fewest segments under 32 x 32 pixels (pictures are seen at 0.4 of their size), four of them
with crowds; ``--photographs`` takes fewer, for a quick look at whether a family learns at all. Figures of 20 go to
``docs/families/overfit-NAME.json``.

    python benchmarks/street_families.py --overfit COCO128 --train panoptic-fpn mask2former
    python benchmarks/street_families.py --train panoptic-fpn upsnet     # train on streets, measure, write the table
    python benchmarks/street_families.py                                 # write the table
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _light import begin_backbone, keep_json

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.formats import coco_panoptic
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.source import CachedSource, Loads, Subset
from maskwright.data.synthetic.scenes import Synthetic
from maskwright.evaluate import evaluate
from maskwright.storage import replacing
from maskwright.structures import Resize
from maskwright.train import TrainOptions, seed_all, train

KEPT = Path(__file__).parents[1] / "docs" / "families"
PHOTOGRAPHS, SMALL = 20, 32 * 32
SHORT, LONG = 192, 256
"""Sides of the pictures in training and at test time; files have about 480 x 640 pixels."""
STREET_SIZE = (192, 320)
DRAWN, HELD_OUT, STREET_STEPS, BATCH, SEED = 400, 60, 300, 4, 0
CLAIM = 0.60

RCNN: dict[str, Any] = {
    "body": "resnet18",
    "norm": "train",
    "channels": 96,
    "neck_norm": "batch",
    "head_norm": "batch",
    "box_hidden": 256,
    "mask_width": 64,
    "semantic_width": 64,
    "roi_batch": 128,
    "anchor_sizes": (16, 32, 64, 128, 256),
    "stuff_area": 256,
}
TRANSFORMER: dict[str, Any] = {
    "body": "resnet18",
    "norm": "train",
    "channels": 128,
    "hidden": 512,
    "queries": 60,
    "dropout": 0.0,
}

FAMILIES: dict[str, tuple[str, dict[str, Any], float]] = {
    "panoptic-fpn": ("panoptic-fpn-r50", RCNN, 1e-3),
    "upsnet": ("upsnet-r50", RCNN, 1e-3),
    "panoptic-deeplab": (
        "panoptic-deeplab-r52",
        {"body": "resnet18", "norm": "train", "dilations": (), "output_stride": 32},
        1e-3,
    ),
    "detr-panoptic": ("detr-panoptic-r50", {**TRANSFORMER, "encoder_depth": 2, "decoder_depth": 3}, 5e-4),
    "maskformer": ("maskformer-r50", {**TRANSFORMER, "embedding": 128, "depth": 3}, 5e-4),
    "mask2former": (
        "mask2former-panoptic-r50",
        {
            **TRANSFORMER,
            "mask_channels": 128,
            "encoder_depth": 2,
            "encoder_hidden": 256,
            "depth": 4,
            "mask_points": 3136,
        },
        5e-4,
    ),
    "eomt": ("eomt-s", {"side": LONG, "queries": 60, "mask_points": 3136}, 5e-4),
}
"""The zoo's row of each family, what makes it light, and its learning rate on photographs."""

STREET_RATE = 5e-4


def build(name: str, taxonomy: Any, resize: Resize, **more: Any) -> Any:
    """A light model of the family, its ResNet-18 begun from the shipped weights."""
    row, options, _ = FAMILIES[name]
    model: Any = zoo.build(row, taxonomy, **{**options, "resize": resize, **more})
    if "body" in options:
        begin_backbone(getattr(model, "detector", model).backbone)
    return model


def photographs(folder: Path, count: int) -> CachedSource:
    """The photographs with the fewest small segments, a fifth of them with crowds."""
    dataset = coco_panoptic.read(folder)
    (source,) = dataset.splits.values()
    rows: list[tuple[int, int, bool]] = []
    for index in range(len(source)):
        record = source.record(index)
        if record.panoptic is not None and len(record):
            crowd = record.crowd is not None and bool(record.crowd.any())
            rows.append((int((record.areas < SMALL).sum()), index, crowd))
    rows.sort()
    crowded = [index for _, index, crowd in rows if crowd][: -(-count // 5)]
    plain = [index for _, index, _ in rows if index not in crowded][: count - len(crowded)]
    return CachedSource(Subset(source, np.array(sorted(crowded + plain))))


def fit(model: Any, source: Loads, augment: Augment, options: TrainOptions, out: Path) -> tuple[Any, float, int]:
    """The model after training, the minutes of processor time that it took, and its steps."""
    loader = make_loader(source, augment, Shuffled(source, options.batch_size, seed=SEED))
    begun = time.process_time()
    done = train(model, loader, options=options, out=out, meta=zoo.describe(model))["step"]
    return zoo.load(out / "last.safetensors"), (time.process_time() - begun) / 60, done


def options(steps: int, rate: float, minutes: float = 0.0) -> TrainOptions:
    """What all trainings have in common."""
    return TrainOptions(
        steps=steps, minutes=minutes, batch_size=BATCH, learning_rate=rate, clip_norm=5.0, ema=0.98, precision="32",
        channels_last=False, threads=1, workers=0, seed=SEED, device="cpu",
    )  # fmt: skip


def measure(model: Any, source: Loads) -> dict[str, float]:
    """PQ, SQ, RQ, those of things and stuff, of boundaries, and mean IoU."""
    found = evaluate(model.eval(), source, device="cpu", precision="32")
    whole, edge = found["panoptic"], found["boundary"]
    return {
        **{key: whole[key] for key in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st") if key in whole},
        "boundary_PQ": edge["PQ"],
        "mIoU": found["semantic"]["mIoU"],
    }


def learn_by_heart(
    name: str, folder: Path, out: Path, steps: int, minutes: float, rate: float | None, count: int
) -> None:
    """Train one family on the photographs and measure it on the same."""
    seed_all(SEED)
    torch.set_flush_denormal(True)
    source = photographs(folder, count)
    model = build(name, source.taxonomy, Resize(short=SHORT, long=LONG))
    chosen = options(steps, rate or FAMILIES[name][2], minutes)
    augment = Augment(hflip=0.0, short=(SHORT,), long=LONG)
    trained, spent, done = fit(model, source, augment, chosen, out / f"overfit-{name}")
    figures = measure(trained, source)
    known = {
        "family": name, "row": FAMILIES[name][0], "photographs": len(source), "steps": done,
        "learning_rate": chosen.learning_rate, "parameters": sum(p.numel() for p in trained.parameters()),
        "training_minutes": spent, **figures, "claim_holds": figures["PQ"] > CLAIM,
    }  # fmt: skip
    if count == PHOTOGRAPHS:
        keep_json(KEPT / f"overfit-{name}.json", known)
    else:
        print(json.dumps(known), flush=True)


def drive(name: str, out: Path, steps: int) -> None:
    """Train one family on drawn streets and measure it on others."""
    seed_all(SEED)
    torch.set_flush_denormal(True)
    source = CachedSource(Synthetic("street", DRAWN, STREET_SIZE, seed=1, instances=False))
    held_out = Synthetic("street", HELD_OUT, STREET_SIZE, seed=2, instances=False)
    model = build(name, source.taxonomy, Resize(scale=1.0, long=LONG))
    trained, minutes, done = fit(model, source, Augment(hflip=0.5), options(steps, STREET_RATE), out / f"street-{name}")
    known = {
        "family": name, "row": FAMILIES[name][0], "steps": done,
        "parameters": sum(p.numel() for p in trained.parameters()), "training_minutes": minutes,
        **measure(trained, held_out),
    }  # fmt: skip
    keep_json(KEPT / f"street-{name}.json", known)


def kept(prefix: str) -> list[dict[str, Any]]:
    """The figures that were written so far, in the order of the families."""
    files = [KEPT / f"{prefix}-{name}.json" for name in FAMILIES]
    return [json.loads(file.read_text()) for file in files if file.is_file()]


def page() -> str:
    """Both tables as Markdown."""
    head = "| family | row | PQ | SQ | RQ | mIoU | boundary PQ | parameters | steps | minutes |"
    rule = "|---|---|---|---|---|---|---|---|---|---|"
    parts = {
        "street": "# Panoptic families on drawn streets\n\nMade by `python benchmarks/street_families.py` (its first "
        f"lines say how): {DRAWN} drawn streets of {STREET_SIZE[0]} x {STREET_SIZE[1]} pixels to learn from, "
        f"{HELD_OUT} others to be measured on, batches of {BATCH}, AdamW at {STREET_RATE:g}, one cycle, seed {SEED}, "
        "fp32, one core. A small budget: it ranks how soon families learn, not what they reach.",
        "overfit": "## Photographs learned by heart\n\nMeasured on the training pictures: whether every "
        "part learns, nothing else. The learning rate and the number of steps were chosen on them too.",
    }
    lines: list[str] = []
    for prefix, text in parts.items():
        lines += [text, "", head, rule]
        for row in kept(prefix):
            figures = [f"{100 * row[key]:.1f}" for key in ("PQ", "SQ", "RQ", "mIoU", "boundary_PQ")]
            lines.append(
                f"| {row['family']} | `{row['row']}` | {' | '.join(figures)} | {row['parameters'] / 1e6:.1f} M | "
                f"{row['steps']} | {row['training_minutes']:.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Train what is named and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overfit", type=Path, metavar="COCO128", help="folder with panoptic.json, panoptic/, images/")
    known = {entry.name for entry in zoo.models()}
    there = [name for name, (row, *_) in FAMILIES.items() if row in known]
    parser.add_argument("--train", nargs="*", choices=there, default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/street"))
    parser.add_argument("--steps", type=int, help=f"{STREET_STEPS} on streets, 600 on photographs")
    parser.add_argument("--minutes", type=float, default=0.0, help="a limit on each training on photographs")
    parser.add_argument("--photographs", type=int, default=PHOTOGRAPHS, help="how many are learned by heart")
    parser.add_argument("--rate", type=float, help="the learning rate on photographs, if not the family's own")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}")
    for name in args.train:
        if args.overfit is not None:
            learn_by_heart(name, args.overfit, args.out, args.steps or 600, args.minutes, args.rate, args.photographs)
        else:
            drive(name, args.out, args.steps or STREET_STEPS)
    KEPT.mkdir(parents=True, exist_ok=True)
    with replacing(KEPT / "street.md") as beside:
        beside.write_text(page())


if __name__ == "__main__":
    main()
