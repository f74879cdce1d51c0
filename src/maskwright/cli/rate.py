"""``maskwright rate``: the learning-rate range test on a model and data, before a training is begun."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from maskwright.cli._options import add_flags, given
from maskwright.cli.progress import Line
from maskwright.cli.train import AUGMENT, OPTIONS, sizing
from maskwright.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", metavar="NAME", help="a model of the table (see maskwright models)")
    parser.add_argument(
        "--train", required=True, metavar="PATH", help="annotations to learn from; PATH@SPLIT names a split"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: where the format has them)"
    )
    parser.add_argument("--weights", help="start from a checkpoint or published weights")
    parser.add_argument("--pretrained", action="store_true", help="start from ImageNet weights of the backbone")
    parser.add_argument(
        "--resize", type=sizing, metavar="SHORT,LONG", help="sides at test time in pixels, or a factor such as 2x"
    )
    parser.add_argument("--low", type=float, default=1e-7, metavar="X", help="the first rate (default: 1e-7)")
    parser.add_argument("--high", type=float, default=1.0, metavar="X", help="the last rate (default: 1)")
    parser.add_argument(
        "--tries", type=int, default=100, metavar="N", help="optimizer steps from one to the other (default: 100)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("rate"), metavar="DIR", help="where rate.csv and rate.svg go (default: rate)"
    )
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    add_flags(parser, "training", *OPTIONS)
    add_flags(parser, "changes of the pictures, on top of those that fit the model's own size", *AUGMENT)


def run(args: argparse.Namespace) -> int:
    """Test, write, print."""
    import torch

    from maskwright import zoo
    from maskwright.cli.train import _augment, _model
    from maskwright.data.augment.compose import with_partners
    from maskwright.data.augment.transforms import Augment
    from maskwright.data.loader import make_loader
    from maskwright.data.opening import open_split
    from maskwright.data.samplers import Shuffled
    from maskwright.data.task_views import for_task
    from maskwright.train import TrainOptions, seed_all
    from maskwright.train.rate_finder import find_rate, rounded

    options = TrainOptions(**given(args, *OPTIONS))
    changes = given(args, *AUGMENT)
    Augment(**changes)
    task = zoo.entry(args.model).task
    if options.threads:
        torch.set_num_threads(options.threads)
    source = for_task(open_split(args.train, "train", images=args.images, strict=not args.lenient), task)
    seed_all(options.seed)
    model: Any = _model(args, source.taxonomy, {})
    model.train()
    order = Shuffled(source, options.batch_size, seed=options.seed, group=True)
    augment = with_partners(_augment(model.resize, changes), source)
    loader = make_loader(source, augment, order, workers=options.workers, multiple=model.size_divisor)
    with Line("range test", "steps") as line:
        found = find_rate(model, loader, options, low=args.low, high=args.high, steps=args.tries, progress=line)
    found.write(args.out)
    known = None if found.suggestion is None else rounded(found.suggestion)
    if args.json:
        figures = {"suggestion": known, "lowest": found.lowest, "ended": found.ended, "steps": len(found.rates)}
        print(json.dumps({**figures, "out": str(args.out)}))
        return 0
    seen = f"{len(found.rates)} steps from {found.rates[0]:.1e} to {found.rates[-1]:.1e}, ended: {found.ended}"
    print(f"{args.out / 'rate.svg'}: {seen}")
    if known is None:
        raise InputError(
            "the loss fell nowhere in the range test, so no rate can be suggested. Look at rate.svg; give more --tries "
            "or other --low and --high."
        )
    print(f"--learning-rate {known:g}  (falls fastest there; the loss turns at {found.lowest:.1e})")
    return 0
