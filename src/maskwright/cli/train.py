"""``maskwright train``: a model of the table, from annotations in any format to a run directory."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from maskwright.cli._options import add_flags, given
from maskwright.cli._tables import table
from maskwright.cli.evaluate import Counter
from maskwright.cli.progress import Download
from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.data.augment.transforms import Augment
    from maskwright.structures import Resize, Taxonomy

OPTIONS = ("train/options.py", "TrainOptions")
OBJECTIVE = ("objectives/options.py", "ObjectiveOptions")
AUGMENT = ("data/augment/transforms.py", "Augment")
CONDITIONS = ("data/augment/conditions.py", "Conditions")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "model", nargs="?", metavar="NAME", help="a model of the table (see maskwright models); a recipe may name it"
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="a published training (see maskwright recipes); other options go first"
    )
    parser.add_argument(
        "--train",
        required=True,
        metavar="PATH",
        help="annotations to learn from, in any format that knows what the model's task needs (panoptic annotations "
        "serve all tasks); PATH@SPLIT names a split",
    )
    parser.add_argument("--val", metavar="PATH", help="annotations to measure on; chooses the best")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: where the format has them)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="run directory, new or empty")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its newest checkpoint")
    parser.add_argument(
        "--weights", help="start from a checkpoint or published weights; layers for other classes start anew"
    )
    parser.add_argument("--pretrained", action="store_true", help="start from ImageNet weights of the backbone")
    parser.add_argument(
        "--resize", type=sizing, metavar="SHORT,LONG", help="sides at test time in pixels, or a factor such as 2x"
    )
    parser.add_argument(
        "--max-per-image",
        type=int,
        metavar="N",
        help="objects an image that average precision finds and counts (default: the recipe's, or 100 as COCO)",
    )
    parser.add_argument(
        "--stages",
        choices=("alternating",),
        help="a two-stage model's stages one after the other: proposals, detector on fixed proposals, both together",
    )
    parser.add_argument(
        "--stage-shares",
        type=_shares,
        metavar="A,B,C",
        help="shares of the steps for proposals, detector, both (default: 0.3,0.4,0.3)",
    )
    parser.add_argument(
        "--fraction", type=float, default=1.0, metavar="X", help="learn from this share of the images, drawn by --seed"
    )
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    add_flags(parser, "training", *OPTIONS)
    add_flags(parser, "losses, regions and a teacher", *OBJECTIVE)
    add_flags(parser, "changes of the pictures, on top of those that fit the model's own size", *AUGMENT)
    add_flags(parser, "weather, light, optics and compression", *CONDITIONS)


def run(args: argparse.Namespace) -> int:
    """Train, then print the last evaluation."""
    from maskwright import objectives, zoo
    from maskwright.data.augment.compose import with_partners
    from maskwright.data.augment.conditions import Conditions
    from maskwright.data.augment.transforms import Augment
    from maskwright.data.fractions import fraction_of
    from maskwright.data.loader import PREFETCH, make_loader
    from maskwright.data.opening import open_split
    from maskwright.data.rare_classes import sampling_weights
    from maskwright.data.replay import Replay
    from maskwright.data.samplers import Shuffled
    from maskwright.data.task_views import for_task
    from maskwright.evaluate import evaluate, pair
    from maskwright.recipes import find
    from maskwright.train import TrainOptions, distributed, loggers, seed_all, train
    from maskwright.train.directory import prepare
    from maskwright.train.log import tell
    from maskwright.train.provenance import provenance
    from maskwright.train.recall import proposal_recall
    from maskwright.train.samples import Samples
    from maskwright.train.stages import SHARES, train_stages, two_stages

    # Everything that can be refused is refused before data are read or a model is built.
    recipe = None if args.recipe is None else find(args.recipe)
    if args.model is None and recipe is None:
        raise InputError("a training needs the NAME of a model (see maskwright models), or --recipe.")
    args.model = args.model or cast(Any, recipe).model
    changed = given(args, *OPTIONS)
    options = TrainOptions(**changed) if recipe is None else recipe.train_options(changed)
    aims = objectives.ObjectiveOptions(**given(args, *OBJECTIVE))
    loggers.check(options.log)
    changes, weather = given(args, *AUGMENT), given(args, *CONDITIONS)
    Augment(**changes)
    conditions = Conditions(**weather) if weather else None
    task = zoo.entry(args.model).task
    if changes.get("mixup") and task != "instance":
        raise InputError(f"--mixup gives pixels two classes, but {args.model} is a {task} model. Leave it out.")
    most = args.max_per_image
    if most is None:
        most = 100 if recipe is None else recipe.max_per_image
    if most < 1:
        raise InputError(f"--max-per-image must be 1 or more, got {most}.")
    if args.stage_shares and args.stages is None:
        raise InputError("--stage-shares divide the steps of --stages, which is not given.")
    place = distributed.place()
    if place.first:
        prepare(args.out, resume=args.resume)
    if place.world > 1 and options.bad_images == "skip":
        raise InputError("several processes cannot leave out a picture each for itself; give --bad-images stop.")

    options_of_data = {"images": args.images, "strict": not args.lenient}
    source = for_task(open_split(args.train, "train", **options_of_data), task)
    source = fraction_of(source, args.fraction, options.seed)
    val = None if args.val is None else for_task(open_split(args.val, "val", **options_of_data), task)
    if val is not None:
        pair(source.taxonomy, val.taxonomy)
    seed_all(options.seed)
    model: Any = _model(args, source.taxonomy, {} if recipe is None else recipe.model_options())
    if args.stages is not None:
        two_stages(model)
    teacher = None
    if aims.teacher is not None:
        teacher = zoo.load(aims.teacher, commercial=args.commercial, progress=Download())
    objective = objectives.make(model, aims, teacher=teacher)
    weights = sampling_weights(source, options.sampling, options.repeat_threshold)
    ahead = options.workers * PREFETCH + options.accumulate  # batches whose losses cannot be known yet
    replay = Replay(options.replay, lag=max(32, ahead)) if options.replay else None
    order = Shuffled(
        source,
        options.batch_size,
        seed=options.seed,
        group=True,
        rank=place.rank,
        world=place.world,
        weights=weights,
        replay=replay,
    )
    fitting = _augment(model.resize, changes) if recipe is None else recipe.augmentation(changes)
    augment = with_partners(fitting, source, conditions)
    loader = make_loader(
        source,
        augment,
        order,
        workers=options.workers,
        multiple=model.size_divisor,
        left_out=tell if options.bad_images == "skip" else None,
        timeout=60 * options.timeout_minutes,
    )
    samples = None if val is None else Samples(val)

    def measure(network: Any) -> dict[str, Any]:
        assert val is not None
        return evaluate(
            network,
            val,
            max_per_image=most,
            device=options.device,
            precision=options.precision,
            workers=options.workers,
            progress=Counter() if place.first else None,
            found=samples,
            rank=place.rank,
            world=place.world,
            gather=distributed.gathered,
        )

    data = {"train": source} if val is None else {"train": source, "val": val}
    typed = {"train": args.train, "val": args.val or ""}
    about = {"recipe": args.recipe, "objective": asdict(aims), **provenance(data, typed)}
    running: dict[str, Any] = {
        "options": options,
        "out": args.out,
        "evaluate": None if val is None else measure,
        "meta": zoo.describe(model),
        "resume": args.resume,
        "epoch": order.epoch,
        "samples": samples,
    }
    if args.stages is None:
        summary = train(objective, loader, about=about, **running)
    else:
        shares = args.stage_shares or SHARES
        staged = {"stages": args.stages, "stage_shares": list(shares)}
        recall = None if val is None else partial(proposal_recall, source=val, device=options.device)
        summary = train_stages(objective, loader, shares=shares, recall=recall, about={**about, **staged}, **running)
    if not place.first:
        return 0
    if args.json:
        print(json.dumps(summary))
    elif summary["metrics"] is not None:
        print(table(summary["metrics"]))
    return 0


def _model(args: argparse.Namespace, taxonomy: Taxonomy, published: dict[str, Any]) -> Any:
    """The model with the recipe's options where it is built; weights bring their own."""
    from maskwright import zoo

    options = {**published, **({} if args.resize is None else {"resize": args.resize})}
    if args.weights is None:
        return zoo.build(args.model, taxonomy, **{**options, **({"pretrained": True} if args.pretrained else {})})
    if args.pretrained:
        raise InputError("--weights and --pretrained both say what to start from. Give one of them.")
    model: Any = zoo.load(
        args.model,
        args.weights,
        taxonomy=taxonomy,
        commercial=args.commercial,
        allow_missing="head",
        progress=Download(),
    )
    model.resize = options.get("resize", model.resize)
    return model


def _augment(resize: Resize, changes: dict[str, Any]) -> Augment:
    """What fits the model's test-time size, with the user's changes.

    Sides vary from 0.8 of the test-time size up to it (Detectron's 640 to 800); a fixed scale varies by a quarter, and
    is cropped to 512 pixels, as microscopy and aerial pictures can be of any size.
    """
    from maskwright.data.augment.transforms import Augment

    fitting: dict[str, Any]
    if resize.short is not None:
        step = max(1, resize.short // 25)
        fitting = {"short": tuple(range(resize.short - 5 * step, resize.short + 1, step)), "long": resize.long}
    else:
        fitting = {"scale": (0.8 * resize.scale, 1.25 * resize.scale), "crop": (512, 512), "min_visible": 0.1}
    if changes.get("fit") and not changes.get("short"):
        fitting = {}
    if changes.get("short") and "scale" not in changes:
        fitting.pop("scale", None)
    return Augment(**{**fitting, **changes})


def sizing(text: str) -> Resize:
    from maskwright.structures import Resize

    try:
        if text.endswith("x"):
            return Resize(scale=float(text[:-1]))
        short, long = (int(side) for side in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be SHORT,LONG in pixels or a factor such as 2x, got {text!r}") from None
    return Resize(short=short, long=long)


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or min(shares) <= 0:
        raise argparse.ArgumentTypeError(f"must be three numbers above 0 such as 0.3,0.4,0.3, got {text!r}")
    return shares
