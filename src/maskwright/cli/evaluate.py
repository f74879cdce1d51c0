"""``maskwright evaluate``: the official numbers of a model's task on annotated images, clean or damaged."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.cli import _looks
from maskwright.cli._tables import robustness, table
from maskwright.data.robustness.table import KINDS, SEVERITIES
from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.data.source import Loads
    from maskwright.structures import Record, Scene, Taxonomy

    Found = Callable[[Record, Scene], None]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "target",
        nargs="?",
        metavar="WEIGHTS",
        help="a run directory, a checkpoint, a published name, or embedded, which ships with the package (default)",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="annotations to measure against, any format; PATH@SPLIT for a split",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: where the format has them)"
    )
    parser.add_argument(
        "--weights",
        action="append",
        help="the same as WEIGHTS; then WEIGHTS may name the model; several, given one by one or with commas, are "
        "merged; they know the same classes",
    )
    parser.add_argument("--model", help="the model of a checkpoint that does not say it itself (see maskwright models)")
    parser.add_argument(
        "--max-per-image",
        type=int,
        default=100,
        metavar="N",
        help="objects an image that the model gives and average precision counts (default: 100, as COCO)",
    )
    parser.add_argument(
        "--score-threshold", type=float, metavar="S", help="leave out objects below this (default: the model's)"
    )
    parser.add_argument(
        "--kind", choices=("mask", "box"), action="append", help="what to compare of instances (default: both)"
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images computed at once (default: 1)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    parser.add_argument("--precision", choices=("auto", "32", "bf16", "16"), default="32", help="default: 32")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    _looks.add_flags(parser)
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="PATH",
        help="also write what was found, for maskwright score: instances as a COCO result file, panoptic segments as "
        "COCO panoptic JSON with a folder of PNGs, semantic maps as a folder of label images with classes.json",
    )
    parser.add_argument(
        "--intervals",
        type=int,
        nargs="?",
        const=1000,
        metavar="N",
        help="give each figure its 95 %% interval by resampling the images N times (default: 1000)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write one HTML page: figures, curves, confusions, worst images"
    )
    parser.add_argument(
        "--corrupt",
        nargs="*",
        metavar="KIND",
        help="measure robustness: clean and damaged pictures, mPC and rPC (Michaelis et al. 2019); WEIGHTS comes "
        f"before it; without a KIND, or with all, by all 15: {', '.join(KINDS)}",
    )
    parser.add_argument(
        "--severities",
        nargs="+",
        type=int,
        metavar="N",
        help="strengths of --corrupt, 1 (weakest) to 5 (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from maskwright.data.opening import open_split
    from maskwright.data.task_views import for_task
    from maskwright.evaluate import evaluate_corrupted
    from maskwright.infer.tiles import Tiled
    from maskwright.protocols import task_of

    damages = _damages(args)
    if args.intervals is not None and args.intervals < 1:
        raise InputError(f"--intervals must be at least 1, got {args.intervals}.")
    weights = _looks.named_weights(args.weights, args.target or "embedded")
    _looks.check(args, weights)
    data = open_split(args.data, "val", images=args.images, strict=not args.lenient)
    model, tiles = _looks.load(args, weights, args.model or (args.target if args.weights else None))
    if tiles is not None:
        model = Tiled(model, tiles)
    task = task_of(model)
    if args.kind and task != "instance":
        raise InputError(
            f"--kind chooses between masks and boxes of instances, but {', '.join(weights)} is a {task} model."
        )
    source = for_task(data, task)
    options: dict[str, Any] = {
        "max_per_image": args.max_per_image,
        "score_threshold": args.score_threshold,
        "batch_size": args.batch_size,
        "device": args.device,
        "precision": args.precision,
        "workers": args.workers,
        "kinds": tuple(args.kind or ("mask", "box")),
        "progress": Counter(),
    }
    if damages is not None:
        kinds, severities = damages
        figures = evaluate_corrupted(model, source, corruptions=kinds, severities=severities, **options)
        print(json.dumps(figures) if args.json else robustness(figures))
        return 0
    return _evaluate(args, model, source, task, f"{', '.join(weights)} on {args.data}", options)


def _evaluate(
    args: argparse.Namespace, model: Any, source: Loads, task: str, title: str, options: dict[str, Any]
) -> int:
    """One evaluation, with what was asked for beside its figures."""
    from maskwright.cli import _figures
    from maskwright.cli._measures import Measured
    from maskwright.cli._worst import Worst
    from maskwright.evaluate import evaluate
    from maskwright.metrics import confidence
    from maskwright.metrics.by_task import judge

    taxonomy = source.taxonomy
    measure = judge(task, taxonomy, kinds=options["kinds"], max_detections=args.max_per_image)
    worst = Worst(source, task, options["kinds"], args.max_per_image) if args.report else None
    with ExitStack() as stack:
        takers: list[Found] = [worst] if worst is not None else []
        if args.results is not None:
            takers.append(stack.enter_context(_results(args.results, task, taxonomy)))

        def found(record: Record, scene: Scene) -> None:
            for take in takers:
                take(record, scene)

        plain = evaluate(model, source, found=found, measure=measure, **options)
    figures = plain
    if args.intervals:
        try:
            figures = confidence.intervals(measure, samples=args.intervals)
        except ValueError as error:
            raise InputError(str(error)) from error
    measured = Measured(title=title, metric=measure, plain=plain, figures=figures)
    if worst is not None:
        from maskwright.cli import _page

        _page.write_evaluation(args.report, measured, worst.rows())
    if args.json:
        print(json.dumps(figures))
    else:
        print(_figures.text(measured) if args.intervals else table(plain))
    return 0


@contextmanager
def _results(path: Path, task: str, taxonomy: Taxonomy) -> Generator[Found]:
    """Takes what was found in each image and writes it in the form that ``maskwright score`` reads."""
    if task == "instance":
        from maskwright.data.formats.coco import result_file

        with result_file(path, taxonomy) as take:
            yield take
        return
    from maskwright.infer.map_writers import label_images, panoptic_document

    with (panoptic_document if task == "panoptic" else label_images)(path, taxonomy) as add:
        yield lambda record, scene: add(record.key, scene, str(Path(record.key).with_suffix("")), record.image_id)


def _damages(args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
    """The kinds and severities that were asked for; refused before anything is loaded."""
    if args.corrupt is None:
        if args.severities is not None:
            raise InputError("--severities says how strong the damage of --corrupt is. Add --corrupt, or leave it out.")
        return None
    from maskwright.data.robustness.corruptions import check

    given = [f"--{name}" for name in ("results", "report", "intervals") if getattr(args, name) is not None]
    if given:
        raise InputError(f"{given[0]} goes with one evaluation, --corrupt makes many. Leave out one of them.")
    kinds = KINDS if args.corrupt in ([], ["all"]) else tuple(args.corrupt)
    severities = SEVERITIES if args.severities is None else tuple(args.severities)
    check(kinds, severities)
    return kinds, severities


class Counter:
    """A progress bar on a terminal's stderr for ``evaluate(progress=...)``; silent elsewhere."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.what = ""

    def __call__(self, done: int, total: int, what: str = "evaluate") -> None:
        """``done`` images of ``total`` are measured; ``what`` is being measured."""
        if self.bar is None:
            from tqdm import tqdm

            quiet = not sys.stderr.isatty()
            self.bar = tqdm(total=total, unit=" images", leave=False, disable=quiet)
        if what != self.what:
            self.what = what
            self.bar.set_description(what)
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()
