"""``maskwright tune``: options searched with Optuna; every trial is a ``maskwright train`` of its own."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskwright.cli import _launch, _study
from maskwright.cli._options import fields
from maskwright.cli._runs import aligned, is_run
from maskwright.errors import InputError
from maskwright.storage import replacing, write_json

_PLACES = (
    ("train/options.py", "TrainOptions"),
    ("data/augment/transforms.py", "Augment"),
    ("data/augment/conditions.py", "Conditions"),
)
_SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", nargs="?", metavar="NAME", help="a model of the table; a recipe may name it instead")
    parser.add_argument("--recipe", metavar="NAME", help="a recipe (see maskwright recipes); searched over its marks")
    parser.add_argument("--train", required=True, metavar="PATH", help="annotations to learn from")
    parser.add_argument("--val", required=True, metavar="PATH", help="annotations to measure on")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the search's directory; go on in it")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trials in all (default: 20)")
    parser.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="OPTION=SPACE",
        help="an option of maskwright train and where to search: learning_rate=1e-5..1e-2:log, accumulate=1..4, "
        "optimizer=adamw,sgd; may be given several times, and goes before a recipe's marks",
    )
    parser.add_argument("--by", metavar="FIGURE", help="what is made large, such as mask.AP50 (default: the task's)")
    parser.add_argument(
        "--pruner",
        choices=_study.PRUNERS,
        default="median",
        help="which trials are cut short by their evaluations (default: median, those below the median of the others)",
    )
    parser.add_argument(
        "--patient", type=int, default=5, metavar="N", help="trials before any is cut short (default: 5)"
    )
    parser.add_argument(
        "--storage",
        choices=_study.STORAGES,
        default="sqlite",
        help="how trials are kept in --out: sqlite for one machine (default), journal for a folder that several share",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="trials at once (default: 1); the same command started elsewhere on the same --out joins in too",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the search (default: another each time)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    _launch.add_passed_on(parser)


def run(args: argparse.Namespace) -> int:
    """Search, then print the best trials."""
    for name in ("trials", "jobs"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} must be 1 or more, got {getattr(args, name)}.")
    if args.model is None and args.recipe is None:
        raise InputError("a search needs a model: name one of the table, or a --recipe.")
    _study.optuna()
    space = _space(args)
    base = [] if args.model is None else [args.model]
    if args.recipe is not None:
        base += ["--recipe", args.recipe]
    base += ["--train", args.train, "--val", args.val, *args.rest]
    fixed = {word.removeprefix("--").replace("-", "_") for word in args.rest if word.startswith("--")}
    twice = sorted(fixed & {*space, "out", "resume"})
    if twice:
        raise InputError(f"--with gives {', '.join(twice)}, which the search sets itself. Leave it out of one of them.")

    def line(values: Mapping[str, Any], out: Path) -> list[str]:
        resume = ["--resume"] if is_run(out) else []
        return _launch.command([*base, "--out", str(out), *_launch.flags(values), *resume])

    _launch.check([*base, "--out", str(args.out)])
    search = _study.Search(
        out=args.out,
        line=line,
        space=space,
        figure=args.by,
        pruner=args.pruner,
        patient=args.patient,
        storage=args.storage,
        seed=args.seed,
    )
    study = search.open({"command": base, "space": {name: repr(d) for name, d in space.items()}, "by": args.by})
    search.run(study, args.trials, jobs=args.jobs, say=lambda text: print(text, file=sys.stderr))
    return _finish(args, study, space)


def _space(args: argparse.Namespace) -> dict[str, Any]:
    from maskwright.recipes.search import parse_all

    kinds = {field.name: field.type.removesuffix(" | None") for place in _PLACES for field in fields(*place)}
    written: dict[str, str] = {}
    if args.recipe is not None:
        from maskwright.recipes import find

        written.update(find(args.recipe).search)
    for word in args.over:
        name, sign, text = word.partition("=")
        if not sign or not name or not text:
            raise InputError(
                f"--over must be given as OPTION=SPACE, such as learning_rate=1e-5..1e-2:log, got {word!r}."
            )
        written[name.replace("-", "_")] = text
    if not written:
        raise InputError("a search needs something to search over: give --over, or a --recipe that marks its fields.")
    return parse_all(written, kinds)


def _finish(args: argparse.Namespace, study: Any, space: Mapping[str, Any]) -> int:
    over = [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    rows = sorted(over, key=lambda trial: -_value(trial))
    best = next((trial for trial in rows if trial.state.name == "COMPLETE"), None)
    with replacing(args.out / "trials.csv") as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "directory", "state", "value", "evaluations", *space])
        for trial in sorted(over, key=lambda trial: trial.number):
            own = [trial.params.get(name, "") for name in space]
            state = "finished" if trial.state.name == "COMPLETE" else "cut short"
            place = f"{trial.user_attrs['directory']:04d}"
            writer.writerow([trial.number, place, state, _value(trial), len(trial.intermediate_values), *own])
    summary: dict[str, Any] = {"out": str(args.out), "trials": len(over), "best": None}
    summary["cut_short"] = sum(trial.state.name == "PRUNED" for trial in over)
    if best is not None:
        run = args.out / "trials" / f"{best.user_attrs['directory']:04d}"
        flags = _launch.flags(best.params)
        summary["best"] = {"value": best.value, "run": str(run), "options": dict(best.params), "flags": flags}
        write_json(args.out / "best.json", summary["best"], indent=True)
    if args.json:
        print(json.dumps(summary))
        return 0
    table = [("trial", "best", "state", *space)]
    for trial in rows[:_SHOWN]:
        state = "" if trial.state.name == "COMPLETE" else "cut short"
        own = (_study.shown(trial.params.get(name, "")) for name in space)
        table.append((str(trial.number), f"{_value(trial):.4f}", state, *own))
    print(aligned(table, right=(0, 1)))
    if best is not None:
        print(f"\n{summary['best']['run']}: {' '.join(summary['best']['flags'])}")
    return 0


def _value(trial: Any) -> float:
    return (
        float(trial.value) if trial.state.name == "COMPLETE" else max(trial.intermediate_values.values(), default=0.0)
    )
