"""``maskwright compare``: two runs: which options differ, and which figures, with or without confidence."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskwright.cli._runs import Run, aligned, flatten, read_run
from maskwright.errors import InputError

_APART = ("recipe", "options", "objective", "model", "chosen", "data", "git", "versions", "machine")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("a", type=Path, metavar="A", help="a run directory")
    parser.add_argument("b", type=Path, metavar="B", help="another")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="annotations to measure both on, PATH@SPLIT for a split: differences get intervals and p-values by the "
        "paired bootstrap over its images",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: where the format has them)"
    )
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="draws of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument("--max-per-image", type=int, default=100, metavar="N", help="objects an image (default: 100)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Print what differs."""
    a, b = read_run(args.a), read_run(args.b)
    if args.samples < 2:
        raise InputError(f"--samples must be at least 2, got {args.samples}.")
    apart = differences(a, b)
    if args.data is None:
        figures = plain_figures(a, b)
        note = _note(a, b)
        if args.json:
            print(json.dumps({"a": str(a.path), "b": str(b.path), "differ": apart, "figures": figures, "note": note}))
            return 0
        print(_options_table(a, b, apart))
        if figures:
            rows = [("figure", "A", "B", "A - B")]
            rows += [(n, f"{f['a']:.4f}", f"{f['b']:.4f}", f"{f['difference']:+.4f}") for n, f in figures.items()]
            print("\n" + aligned(rows, right=(1, 2, 3)))
        print(f"\n{note}")
        return 0
    compared, sentence = _measured(args, a, b)
    if args.json:
        print(json.dumps({"a": str(a.path), "b": str(b.path), "differ": apart, "compared": compared, "said": sentence}))
        return 0
    print(_options_table(a, b, apart))
    rows = [("figure", "A", "B", "A - B", "95 % interval", "p")]
    rows += [_line(name, leaf) for name, leaf in _leaves(compared)]
    print("\n" + aligned(rows, right=(1, 2, 3, 4, 5)))
    print(f"\n{sentence}")
    return 0


def differences(a: Run, b: Run) -> dict[str, tuple[Any, Any]]:
    """What the two runs' descriptions do not share, by dotted name."""
    mine, its = ({**dict(flatten({k: r.described.get(k) or {} for k in _APART}))} for r in (a, b))
    names = [*mine, *(name for name in its if name not in mine)]
    return {name: (mine.get(name), its.get(name)) for name in names if mine.get(name) != its.get(name)}


def plain_figures(a: Run, b: Run) -> dict[str, dict[str, float]]:
    """The figures of both runs' best evaluations and their differences, where both have them."""
    return {
        name: {"a": value, "b": b.at_best[name], "difference": value - b.at_best[name]}
        for name, value in a.at_best.items()
        if name in b.at_best and not name.endswith(("images", "max_per_image")) and min(value, b.at_best[name]) >= 0
    }


def _note(a: Run, b: Run) -> str:
    if not a.at_best or not b.at_best:
        without = " and ".join(str(each.path) for each in (a, b) if not each.at_best)
        return f"No figures to compare: {without} was not evaluated yet. Give --data to measure both now."
    hashes = [each.data.get("val", {}).get("hash") for each in (a, b)]
    apart = "" if hashes[0] == hashes[1] else " The two were measured on different data, so their figures say little."
    if None in hashes:
        apart = " Whether both were measured on the same data is not recorded."
    return (
        "Figures of each run's best evaluation, without confidence: the runs keep no results by image. Give --data to "
        f"measure both on the same images, with intervals.{apart}"
    )


def _options_table(a: Run, b: Run, apart: Mapping[str, tuple[Any, Any]]) -> str:
    rows = [("", f"A: {a.path}", f"B: {b.path}")]
    rows += [(name, _text(mine), _text(its)) for name, (mine, its) in apart.items()]
    return aligned(rows) if apart else f"{a.path} and {b.path} were run alike: nothing recorded differs."


def _text(value: Any) -> str:
    return "-" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _measured(args: argparse.Namespace, a: Run, b: Run) -> tuple[dict[str, Any], str]:
    from maskwright import zoo
    from maskwright.data.opening import open_split
    from maskwright.data.task_views import for_task
    from maskwright.evaluate import evaluate
    from maskwright.metrics import confidence
    from maskwright.metrics.by_task import judge, main_figure
    from maskwright.protocols import task_of

    data = open_split(args.data, "val", images=args.images, strict=not args.lenient)
    models: list[Any] = [zoo.load(each.path) for each in (a, b)]
    tasks = {task_of(model) for model in models}
    if len(tasks) > 1:
        raise InputError(f"runs to compare must have one task, got {' and '.join(sorted(tasks))}.")
    (task,) = tasks
    source = for_task(data, task)
    measures = [judge(task, source.taxonomy, max_detections=args.max_per_image) for _ in models]
    for model, measure in zip(models, measures, strict=True):
        evaluate(
            model, source, measure=measure, max_per_image=args.max_per_image, device=args.device, workers=args.workers
        )
        model.to("cpu")
    try:
        compared = confidence.compare(*measures, samples=args.samples, seed=args.seed)
    except ValueError as error:
        raise InputError(str(error)) from error
    main = main_figure(task).replace(".", "/")
    return compared, confidence.sentence(compared, main, str(a.path), str(b.path))


def _leaves(compared: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    out: list[tuple[str, Mapping[str, Any]]] = []
    for name, value in compared.items():
        if not isinstance(value, Mapping) or name == "per_class":
            continue
        if {"a", "b", "difference"} <= value.keys():
            out.append((f"{prefix}{name}", value))
        else:
            out += _leaves(value, f"{prefix}{name}.")
    return out


def _line(name: str, leaf: Mapping[str, Any]) -> tuple[str, ...]:
    if leaf["difference"] is None:
        return (name, "-", "-", "-", "-", "-")
    interval = f"[{leaf['low']:+.4f}, {leaf['high']:+.4f}]"
    return (name, f"{leaf['a']:.4f}", f"{leaf['b']:.4f}", f"{leaf['difference']:+.4f}", interval, f"{leaf['p']:.3f}")
