"""``maskwright score``: COCO's twelve numbers of a result file; no model, no torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from maskwright.errors import InputError

_COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--truth", required=True, metavar="JSON", help="COCO instances file with the annotations")
    parser.add_argument("--results", required=True, metavar="JSON", help="COCO result file: a list of detections")
    parser.add_argument("--kind", choices=("mask", "box"), default="mask", help="what to compare (default: mask)")
    parser.add_argument(
        "--max-per-image",
        type=int,
        default=100,
        metavar="N",
        help="best-scored detections of a class in an image that count (default: 100, as in COCO)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, figures as fractions")
    parser.add_argument("--lenient", action="store_true", help="drop and count entries that cannot be used")
    parser.add_argument(
        "--corrected",
        action="store_true",
        help="without two habits of pycocotools: a mask's size class is taken from its own area even where the result "
        "also has a box, and the annotation with id 0 can be found",
    )


def run(args: argparse.Namespace) -> int:
    """Score, print, and return the exit code."""
    from maskwright.metrics.files import score

    if args.max_per_image < 1:
        raise InputError(f"--max-per-image must be at least 1, got {args.max_per_image}")
    figures = score(
        args.truth,
        args.results,
        (args.kind,),
        max_detections=args.max_per_image,
        lenient=args.lenient,
        official=not args.corrected,
    )
    print(json.dumps(figures) if args.json else _table(figures, args.kind))
    return 0


def _table(figures: dict[str, Any], kind: str) -> str:
    numbers = figures[kind]
    limit = figures["max_per_image"]
    lines = [f"{kind}, {figures['images']} images, at most {limit} detections of a class in an image", ""]
    lines += [f"  {name:<10} {_percent(value)}" for name, value in numbers.items() if name != "per_class"]
    width = max((len(name) for name in numbers["per_class"]), default=0)
    width = max(width, len("class"))
    lines += ["", "  ".join([f"{'class':<{width}}", *(f"{column:>9}" for column in _COLUMNS)])]
    for name, own in numbers["per_class"].items():
        lines.append("  ".join([f"{name:<{width}}", *(f"{_percent(own[column]):>9}" for column in _COLUMNS)]))
    if "dropped" in figures:
        lines += ["", ", ".join(f"{count} entries of the {name} dropped" for name, count in figures["dropped"].items())]
    return "\n".join([*lines, "", "Percent; - where there is no truth."])


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.1f}"
