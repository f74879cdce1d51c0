"""Ways of training, one change at a time, on real nuclei: losses between masks, averages, balance, stages, a teacher.

The model is ``mask-rcnn-mobilenetv3`` with thin parts for small objects, from scratch. Crops, order, optimizer,
schedule and number of steps are equal within a seed, and so are the first weights; only what the way's name says
differs. The teacher is what ships with the package, a Mask R-CNN that learned from the same 467 pictures. Figures are
of the weights after the last step (their moving average, but for ``no average``), on ``val``, which chose nothing.
The steps of ``four stages`` are those of all stages together: its detector begins anew after 90, from random weights
and not from the ImageNet weights that the method begins with, so its row says what it costs from scratch, only that.
``--held-out`` measures on a fifth of ``train`` that is then not learned from; factors of the teacher were chosen there.

    python benchmarks/training_ways.py --data NUCLEI --steps 300 --keep docs/training.json --page docs/training.md
    python benchmarks/training_ways.py --data NUCLEI --held-out --ways plain features --loss-weights "teacher_*=0.3"
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from maskwright import zoo
from maskwright.data.augment.transforms import Augment
from maskwright.data.formats.coco import read_coco
from maskwright.data.loader import make_loader
from maskwright.data.samplers import Shuffled
from maskwright.data.source import CachedSource, FileSource
from maskwright.evaluate import evaluate
from maskwright.objectives import ObjectiveOptions, make
from maskwright.storage import replacing
from maskwright.structures import Resize
from maskwright.train import TrainOptions, seed_all, train
from maskwright.train.stages import train_stages

BATCH, CROP, LIMIT, ZOOM, RATE = 8, 160, 400, 2.0, 1e-3
HELD_OUT = 5
"""Every fifth picture of ``train`` is held out."""

PUPIL: dict[str, Any] = {
    "out_indices": (1, 2, 3),
    "channels": 64,
    "neck_norm": "batch",
    "head_norm": "batch",
    "box_hidden": 128,
    "mask_width": 48,
    "strides": (4, 8, 16, 32),
    "anchor_sizes": (16, 32, 64, 128),
    "roi_levels": 3,
    "canonical_size": 112.0,
    "roi_batch": 128,
    "agnostic_nms": True,
    "proposals_train": (1000, 500),
    "proposals_test": (1000, 1000),
    "resize": Resize(scale=ZOOM, long=2048),
}

TRAINING: dict[str, Any] = {
    "batch_size": BATCH,
    "learning_rate": RATE,
    "clip_norm": 5.0,
    "ema": 0.98,
    "precision": "32",
    "channels_last": False,
    "threads": 1,
    "workers": 0,
}

FOUR_STAGES = "four stages"

WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "dice": ({"mask_loss": "dice"}, {}),
    "bce+dice": ({"mask_loss": "bce+dice"}, {}),
    "bce+boundary": ({"mask_loss": "bce+boundary"}, {}),
    "no average": ({}, {"ema": 0.0}),
    "uncertainty": ({"balance": "uncertainty"}, {}),
    "hard regions": ({"roi_sampling": "hard"}, {}),
    FOUR_STAGES: ({}, {}),
    "response": ({"teacher": "embedded", "distill": "response", "teacher_share": 0.5}, {}),
    "features": ({"teacher": "embedded", "distill": "features"}, {}),
    "relations": ({"teacher": "embedded", "distill": "relations"}, {}),
}
"""Options of the objective and of the training that differ from those of ``plain``."""


def sources(data: Path, held_out: bool) -> tuple[Any, Any]:
    """What is learned from, and what is measured on."""
    source = read_coco(data / "train.json")
    records = [source.record(index) for index in range(len(source))]
    learned = [r for i, r in enumerate(records) if len(r) and not (held_out and i % HELD_OUT == 0)]
    kept = CachedSource(FileSource.from_records(learned, source.taxonomy))
    if not held_out:
        return kept, read_coco(data / "val.json")
    return kept, FileSource.from_records(records[::HELD_OUT], source.taxonomy)


def fit(way: str, weights: str, source: Any, steps: int, seed: int, out: Path) -> tuple[Any, float]:
    """The pupil trained one way, and the minutes of one core that it took."""
    seed_all(seed)
    torch.set_flush_denormal(True)
    pupil: Any = zoo.build("mask-rcnn-mobilenetv3", source.taxonomy, **PUPIL)
    wanted, trained = WAYS[way]
    aims = ObjectiveOptions(loss_weights=weights, **wanted)
    objective = make(pupil, aims, teacher=zoo.load(aims.teacher) if aims.teacher else None)
    options = TrainOptions(**{**TRAINING, "steps": steps, "seed": seed, **trained})
    augment = Augment(
        vflip=0.5, quarter_turns=True, scale=(0.8 * ZOOM, 1.2 * ZOOM), crop=(CROP, CROP), crop_on_object=0.8, invert=0.2
    )
    loader = make_loader(source, augment, Shuffled(source, BATCH, seed=seed))
    begun = time.process_time()
    way_of_training = train_stages if way == FOUR_STAGES else train
    way_of_training(objective, loader, options=options, out=out, meta=zoo.describe(pupil), quiet=True)
    return zoo.load(out / "last.safetensors"), (time.process_time() - begun) / 60


def table(rows: list[dict[str, Any]]) -> str:
    """A line a way: means over seeds with their deviation, and the gain over ``plain`` at equal seeds."""
    lines = ["| way | steps | seeds | AP | AP50 | gain of AP over plain | minutes |", "|---|---|---|---|---|---|---|"]
    keys = dict.fromkeys((r["way"], r["weights"], r["steps"], r["on"]) for r in rows)
    for way, weights, steps, on in keys:
        mine = [r for r in rows if (r["way"], r["weights"], r["steps"], r["on"]) == (way, weights, steps, on)]
        plain = {r["seed"]: r for r in rows if (r["way"], r["steps"], r["on"]) == ("plain", steps, on)}
        gains = [100 * (r["AP"] - plain[r["seed"]]["AP"]) for r in mine if r["seed"] in plain and way != "plain"]
        ap, ap50 = ([100 * r[name] for r in mine] for name in ("AP", "AP50"))
        named = f"{way} {weights}".strip() + ("" if on == "val" else f" ({on})")
        lines.append(
            f"| {named} | {steps} | {', '.join(str(r['seed']) for r in mine)} | {_spread(ap)} | {_spread(ap50)} | "
            f"{_spread(gains, sign=True)} | {mean(r['minutes'] for r in mine):.1f} |"
        )
    return "\n".join(lines)


def page(rows: list[dict[str, Any]], machine: str) -> str:
    """The table with what it is of."""
    said = (__doc__ or "").split("\n\n")
    shown = [f"{said[0]}\n\n{said[1]}", table(rows), f"{machine}. Made by:", said[2].rstrip()]
    return "\n\n".join(["# Ways of training, measured", *shown]).replace("``", "`") + "\n"


def _spread(values: list[float], *, sign: bool = False) -> str:
    if not values:
        return ""
    shown = f"{mean(values):+.1f}" if sign else f"{mean(values):.1f}"
    return shown if len(values) < 2 else f"{shown} ± {stdev(values):.1f}"


def main() -> None:
    """Train every way with every seed, print the table after each, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json, val.json and images/")
    parser.add_argument("--out", type=Path, default=Path("runs/ways"))
    parser.add_argument("--keep", type=Path, help="JSON file of figures; those in it are not measured again")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--loss-weights", default="", help="factors of the losses of all ways but plain")
    parser.add_argument("--held-out", action="store_true", help="measure on a fifth of train, not on val")
    parser.add_argument("--page", type=Path, help="Markdown file of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    on = "held out" if args.held_out else "val"
    machine = f"torch {torch.__version__}, {platform.machine()}"
    rows: list[dict[str, Any]] = json.loads(args.keep.read_text())["rows"] if args.keep and args.keep.is_file() else []
    source, measured = sources(args.data, args.held_out)
    for seed in args.seeds:
        for way in args.ways:
            weights = "" if way == "plain" else args.loss_weights
            known = {"way": way, "weights": weights, "steps": args.steps, "seed": seed, "on": on}
            if any(all(row[k] == v for k, v in known.items()) for row in rows):
                continue
            place = args.out / f"{way}-{weights or 'plain'}-{args.steps}-{seed}-{on}-{int(time.time())}".replace(
                " ", "-"
            )
            model, minutes = fit(way, weights, source, args.steps, seed, place)
            found = evaluate(model.eval(), measured, max_per_image=LIMIT, precision="32")["mask"]
            rows.append({**known, "AP": found["AP"], "AP50": found["AP50"], "minutes": minutes})
            print(json.dumps(rows[-1]), flush=True)
            if args.keep:
                with replacing(args.keep) as beside:
                    beside.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(machine)
    print(table(rows))
    if args.page:
        with replacing(args.page) as beside:
            beside.write_text(page(rows, machine))


if __name__ == "__main__":
    main()
