"""``maskwright evaluate``: COCO's numbers of a model on annotated images, clean or damaged."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from maskwright.cli.progress import Download
from maskwright.data.robustness.table import KINDS, SEVERITIES
from maskwright.errors import InputError


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
    parser.add_argument("--weights", help="the same as WEIGHTS; then WEIGHTS may name the model")
    parser.add_argument("--model", help="the model of a checkpoint that does not say it itself (see maskwright models)")
    parser.add_argument(
        "--max-per-image",
        type=int,
        default=100,
        metavar="N",
        help="objects an image that the model gives and the metric counts (default: 100, as COCO)",
    )
    parser.add_argument(
        "--score-threshold", type=float, metavar="S", help="leave out objects below this (default: the model's)"
    )
    parser.add_argument("--kind", choices=("mask", "box"), action="append", help="what to compare (default: both)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images computed at once (default: 1)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    parser.add_argument("--precision", choices=("auto", "32", "bf16", "16"), default="32", help="default: 32")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="also write what was found as a COCO result file, for maskwright score: intervals, errors, a report",
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
    from maskwright import zoo
    from maskwright.data.formats.coco import result_file
    from maskwright.data.opening import open_split
    from maskwright.data.tasks import things_of
    from maskwright.evaluate import evaluate, evaluate_corrupted

    damages = _damages(args)
    source = things_of(open_split(args.data, "val", images=args.images, strict=not args.lenient))
    weights = args.weights or args.target or "embedded"
    name = args.model or (args.target if args.weights else None)
    named = (weights,) if name is None else (name, weights)
    model = zoo.load(*named, commercial=args.commercial, progress=Download())
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
    with result_file(args.results, source.taxonomy) if args.results else nullcontext() as keep:
        figures = evaluate(model, source, found=keep, **options)
    print(json.dumps(figures) if args.json else table(figures))
    return 0


def _damages(args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
    """The kinds and severities that were asked for; refused before anything is loaded."""
    if args.corrupt is None:
        if args.severities is not None:
            raise InputError("--severities says how strong the damage of --corrupt is. Add --corrupt, or leave it out.")
        return None
    from maskwright.data.robustness.corruptions import check

    if args.results is not None:
        raise InputError("--results keeps what one evaluation found, --corrupt makes many. Leave out one of them.")
    kinds = KINDS if args.corrupt in ([], ["all"]) else tuple(args.corrupt)
    severities = SEVERITIES if args.severities is None else tuple(args.severities)
    check(kinds, severities)
    return kinds, severities


def robustness(figures: Mapping[str, Any]) -> str:
    """AP of each kind of damage by its strength as text, for masks and for boxes, and the benchmark's two summaries."""
    from maskwright.evaluate import mean_ap

    rows: Mapping[str, Mapping[str, Any]] = figures["corrupted"]
    severities = list(next(iter(rows.values())))
    width = max(map(len, ("clean", *rows)))
    lines = [f"{figures['images']} images, up to {figures['max_per_image']} objects each"]
    for what, clean in figures["clean"].items():
        head = "".join(f"{severity:>8}" for severity in (*severities, "mean"))
        lines += ["", f"{f'{what} AP':<{width}}{head}"]
        lines.append(f"{'clean':<{width}}" + " " * 8 * len(severities) + _figure(clean["AP"]))
        for kind, row in rows.items():
            values = [row[severity][what]["AP"] for severity in severities]
            lines.append(f"{kind:<{width}}" + "".join(map(_figure, (*values, mean_ap(values)))))
        for name in ("mPC", "rPC"):
            lines.append(f"{name:<{width}}" + " " * 8 * len(severities) + _figure(figures[name][what]))
    return "\n".join(lines)


def table(figures: Mapping[str, Any]) -> str:
    """The figures as text: a column for masks and one for boxes, then AP by class where there is more than one."""
    kinds = [kind for kind in ("mask", "box") if kind in figures]
    lines = [f"{figures['images']} images, up to {figures['max_per_image']} objects each"]
    names = [name for name in figures[kinds[0]] if name != "per_class"]
    width = max(len(name) for name in names)
    lines.append(" " * width + "".join(f"{kind:>8}" for kind in kinds))
    lines += [f"{name:<{width}}" + "".join(_figure(figures[kind].get(name)) for kind in kinds) for name in names]
    classes = list(figures[kinds[0]].get("per_class", {}))
    if len(classes) > 1:
        width = max(len(name) for name in classes)
        lines += ["", "AP by class"]
        for name in classes:
            found = (figures[kind]["per_class"][name].get("AP") for kind in kinds)
            lines.append(f"{name:<{width}}" + "".join(_figure(value) for value in found))
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    """COCO writes -1, and JSON null, where nothing was there to be found."""
    return f"{'-':>8}" if value is None or value < 0 or value != value else f"{value:>8.4f}"


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
