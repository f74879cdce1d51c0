"""``maskwright curve``: what more labels would bring: trainings on shares of the data, and a law fitted to them."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskwright.cli import _launch
from maskwright.cli._runs import aligned, is_run, read_run
from maskwright.errors import InputError
from maskwright.storage import replacing, write_json

_EPOCHS = 12.0
"""Passes over all the data where ``--with`` says nothing of the length: those of ``maskwright train``."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", metavar="NAME", help="a model of the table (see maskwright models)")
    parser.add_argument("--train", required=True, metavar="PATH", help="annotations to learn from")
    parser.add_argument("--val", required=True, metavar="PATH", help="annotations to measure on, the same for all")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--fractions",
        default="0.1,0.25,0.5,1",
        metavar="F,F,...",
        help="shares of the training images, at least three; smaller ones are parts of larger ones (default: "
        "0.1,0.25,0.5,1)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="trainings for each share, drawn anew each (default: 1)"
    )
    parser.add_argument("--by", metavar="FIGURE", help="the figure, such as mask.AP50 (default: the task's main one)")
    parser.add_argument("--times", type=float, default=2.0, metavar="X", help="how much more data (default: 2)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="directory of the trainings; go on in it"
    )
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    _launch.add_passed_on(parser)
    parser.epilog = (
        "Every training takes as many steps as that on all the data, unless --with says --epochs. "
        "Trainings that are there are not repeated."
    )


def run(args: argparse.Namespace) -> int:
    """Train, fit, print."""
    from maskwright import zoo
    from maskwright.data.fractions import count_of
    from maskwright.data.opening import open_split
    from maskwright.data.task_views import for_task
    from maskwright.metrics.by_task import main_figure

    fractions = _fractions(args.fractions)
    if args.seeds < 1 or args.times <= 1:
        raise InputError(f"--seeds must be 1 or more and --times above 1, got {args.seeds} and {args.times}.")
    taken = sorted({"--fraction", "--seed", "--out", "--resume", "--train", "--val"} & set(args.rest))
    if taken:
        raise InputError(f"--with gives {', '.join(taken)}, which the curve sets itself. Leave it out.")
    task = zoo.entry(args.model).task
    figure = args.by or main_figure(task)
    source = for_task(open_split(args.train, "train", images=args.images, strict=not args.lenient), task)
    places: list[tuple[float, int, Path]] = []
    for seed in range(args.seeds):
        for fraction in fractions:
            words = _words(args, fraction, seed)
            out = args.out / f"{fraction:g}-seed{seed}"
            if not places:
                _launch.check([*words, "--out", str(out)])
            _train(words, out)
            places.append((fraction, seed, out))
    points = [(count_of(len(source), fraction), fraction, seed, _best(out, figure)) for fraction, seed, out in places]
    return _report(args, figure, len(source), points)


def _fractions(text: str) -> list[float]:
    try:
        found = sorted({float(word) for word in text.split(",")})
    except ValueError:
        raise InputError(f"--fractions must be numbers joined by commas, got {text!r}.") from None
    if len(found) < 3 or found[0] <= 0 or found[-1] > 1:
        raise InputError(f"--fractions must be at least three, above 0 and at most 1, got {text!r}.")
    return found


def _words(args: argparse.Namespace, fraction: float, seed: int) -> list[str]:
    words = [args.model, "--train", args.train, "--val", args.val, "--fraction", f"{fraction:g}", "--seed", str(seed)]
    words += ["--images", str(args.images)] * (args.images is not None) + ["--lenient"] * args.lenient
    if not {"--steps", "--epochs", "--minutes", "--recipe"} & set(args.rest):
        words += ["--epochs", f"{_EPOCHS / fraction:g}"]
    return [*words, *args.rest]


def _train(words: Sequence[str], out: Path) -> None:
    if is_run(out):
        if read_run(out).state == "finished":
            return
        words = [*words, "--resume"]
    print(f"training in {out}", file=sys.stderr)
    _launch.train(_launch.command([*words, "--out", str(out)]), out, out.parent / f"{out.name}.log", lambda *_: True)


def _best(out: Path, figure: str) -> float:
    run = read_run(out)
    known = [row[figure] for row in run.evaluations.values() if figure in row]
    if not known:
        names = ", ".join(next(reversed(run.evaluations.values()), {})) or "none"
        raise InputError(f"the evaluations in {out} have no {figure}; they have {names}. Name one by --by.")
    return max(known)


def _report(args: argparse.Namespace, figure: str, images: int, points: Sequence[tuple[int, float, int, float]]) -> int:
    from maskwright.draw.plot import Plot
    from maskwright.metrics.power_law import fit

    with replacing(args.out / "curve.csv") as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["images", "fraction", "seed", figure])
        writer.writerows(points)
    try:
        found = fit([n for n, *_ in points], [1 - value for *_, value in points])
    except ValueError as error:
        raise InputError(f"no law can be fitted to {args.out / 'curve.csv'}: {error}.") from error
    whole, more = found.expect(images), found.expect(args.times * images)
    gain = whole[0] - more[0]
    expected = {"value": 1 - more[0], "low": 1 - more[2], "high": 1 - more[1]}
    counts = sorted({n for n, *_ in points})
    low, high = counts[0], args.times * images
    grid = [low * (high / low) ** (k / 40) for k in range(41)]
    at = [found.expect(n) for n in grid]
    Plot(
        title=f"{args.model}: {figure} by training images",
        x="training images",
        y=f"1 - {figure}",
        lines={f"{found.law.a:.3g} n^-{found.law.b:.3g}": [(n, e[0]) for n, e in zip(grid, at, strict=True)]},
        points={"trained": [(n, 1 - value) for n, *_, value in points]},
        band=[(n, e[1], e[2]) for n, e in zip(grid, at, strict=True)],
        marks={f"{args.times:g}x": high},
        log_x=True,
        log_y=True,
    ).save(args.out / "curve.svg")
    laws: dict[str, Any] = {"a": found.law.a, "b": found.law.b, "sigma": found.sigma}
    if found.floored is not None:
        laws["floored"] = {"a": found.floored.a, "b": found.floored.b, "c": found.floored.c}
    summary: dict[str, Any] = {"figure": figure, "images": images, "times": args.times, "expected": expected}
    names = ("images", "fraction", "seed", "value")
    summary |= {"gain": gain, "law": laws, "points": [dict(zip(names, point, strict=True)) for point in points]}
    write_json(args.out / "curve.json", summary, indent=True)
    if args.json:
        print(json.dumps(summary))
        return 0
    rows = [("images", "fraction", "seed", figure)]
    rows += [(str(n), f"{fraction:g}", str(seed), f"{value:.4f}") for n, fraction, seed, value in sorted(points)]
    print(aligned(rows, right=(0, 1, 2, 3)))
    sure = f"[{expected['low']:.4f}, {expected['high']:.4f}]"
    print(f"\n1 - {figure} = {found.law.a:.4g} n^-{found.law.b:.4g}")
    if found.law.b <= 0:
        print("The figure does not rise with the data: more --seeds, or longer trainings, are needed.")
    print(
        f"{args.times:g}x the labels ({args.times * images:g} images): {figure} "
        f"{expected['value']:.4f} {sure}, {gain:+.4f}"
    )
    print(f"{args.out / 'curve.svg'}")
    return 0
