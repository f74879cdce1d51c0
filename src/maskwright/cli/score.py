"""``maskwright score``: result files measured against annotations; no model, no torch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from maskwright.cli._measures import KINDS, LOWER_IS_BETTER, Measured, read
from maskwright.errors import InputError

_ERRORS = ("mask", "box")
"""Kinds whose errors can be analyzed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    width = max(map(len, KINDS))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "kinds:\n" + "\n".join(f"  {name:<{width}}  {kind.help}" for name, kind in KINDS.items())
    parser.add_argument("--truth", required=True, metavar="PATH", help="the annotations: a file, or a folder of images")
    parser.add_argument("--results", required=True, metavar="PATH", help="what was found, in the form of its kind")
    parser.add_argument("--kind", choices=tuple(KINDS), default="mask", help="what to measure, see below")
    parser.add_argument(
        "--max-per-image",
        type=int,
        nargs="+",
        metavar="N",
        help="best-scored detections of a class in an image that count, one limit or several (default: 1 10 100, COCO)",
    )
    parser.add_argument(
        "--thresholds", type=float, nargs="+", metavar="T", help="IoU thresholds (default: COCO's .5 to .95)"
    )
    parser.add_argument(
        "--score-threshold", type=float, metavar="S", help="objects below do not count (cells; default: 0.5)"
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="JSON list of the names of label values 0, 1, ..., or object of name to value; or the word cityscapes",
    )
    parser.add_argument("--things", nargs="+", metavar="NAME", help="classes whose instances are told apart (step)")
    parser.add_argument("--tolerance", type=float, metavar="D", help="distance that is still right (contour, surface)")
    parser.add_argument(
        "--spacing", type=float, nargs="+", metavar="D", help="size of a pixel along each axis, (z) y x, in millimeters"
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
        "--against", metavar="PATH", help="results of another system: say whether the two differ, by resampling images"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")
    parser.add_argument("--errors", action="store_true", help="say what kinds of errors cost how much (mask and box)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures as CSV")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write one HTML page: figures, curves, worst images"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="where the pictures lie that the report shows")
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures as fractions")
    parser.add_argument("--lenient", action="store_true", help="drop and count entries that cannot be used")
    parser.add_argument(
        "--corrected",
        action="store_false",
        dest="official",
        help="without two habits of pycocotools: a mask's size class is taken from its own area even where the result "
        "also has a box, and the annotation with id 0 can be found",
    )


def run(args: argparse.Namespace) -> int:
    """Score, print, write what was asked for, and return the exit code."""
    for option in ("intervals", "max_per_image"):
        value = getattr(args, option)
        if value is not None and min([value] if isinstance(value, int) else value) < 1:
            raise InputError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    if args.errors and args.kind not in _ERRORS:
        raise InputError(f"--errors goes with the kinds {' and '.join(_ERRORS)}, not with {args.kind}.")
    measured = measure(args)
    if args.report is not None:
        from maskwright.cli._page import write

        write(args.report, measured, args)
    from maskwright.cli import _figures

    if args.csv is not None:
        from maskwright.storage import replacing

        with replacing(args.csv) as beside:
            beside.write_text(_figures.table(measured), encoding="utf-8")
    print(json.dumps(measured.figures) if args.json else _figures.text(measured))
    return 0


def _sense(kind: str) -> dict[str, Any]:
    return {"lower_is_better": True, "scale": 1.0} if kind in LOWER_IS_BETTER else {}


def measure(args: argparse.Namespace) -> Measured:
    """The figures asked for."""
    metric = read(args.kind, args.truth, args.results, args)
    plain: dict[str, Any] = metric.compute()
    figures, sentences = dict(plain), list[str]()
    resampling = {"samples": args.intervals or 1000, "seed": args.seed}
    if args.intervals or args.against:
        from maskwright.metrics import confidence

        try:
            if args.intervals:
                figures = confidence.intervals(metric, **resampling)
            if args.against:
                other = read(args.kind, args.truth, args.against, args)
                compared = confidence.compare(metric, other, **resampling)
                names = Path(args.results).name, Path(args.against).name
                sentences.append(confidence.sentence(compared, KINDS[args.kind].main, *names, **_sense(args.kind)))
                figures["against"] = {"results": args.against, **compared}
        except ValueError as error:
            raise InputError(str(error)) from error
    errors = None
    if args.errors or (args.report is not None and args.kind in _ERRORS):
        from maskwright.metrics.errors import read_errors

        errors = read_errors(args.truth, args.results, args.kind, lenient=args.lenient)
        if args.errors:
            figures["errors"] = errors.compute()[args.kind]
    if args.lenient:
        figures["dropped"] = metric.dropped
    title = f"{args.kind}: {Path(args.results).name} against {Path(args.truth).name}"
    return Measured(title=title, metric=metric, plain=plain, figures=figures, sentences=sentences, errors=errors)
