"""``maskwright runs``: a table of training runs: what of, on which data, how far, how good."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from maskwright.cli._runs import Run, aligned, changed, find_runs


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="run directories, or folders that hold some"
    )
    parser.add_argument(
        "--by",
        choices=("path", "best", "time"),
        default="path",
        help="order: by path (default), the best figure first, or the newest first",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print a row for each run."""
    found = find_runs(args.folders)
    if args.by == "best":
        found.sort(key=lambda each: float("inf") if each.best is None else -each.best)
    elif args.by == "time":
        found.sort(key=lambda each: -(each.path / "options.json").stat().st_mtime)
    if args.json:
        print(json.dumps({"runs": [_whole(each) for each in found]}))
        return 0
    head = ("run", "model", "state", "step", "best", "", "data", "git", "options")
    print(aligned([head, *(_row(each) for each in found)], right=(3, 4)))
    return 0


def _row(run: Run) -> tuple[str, ...]:
    of = f"/{run.steps}" if run.steps else ""
    best = "" if run.best is None else f"{run.best:.4f}"
    where = "" if run.main is None else f"{run.main} @{run.best_step}"
    data = str(run.data.get("train", {}).get("hash", "?"))[:8]
    git = str(run.git.get("commit", "?"))[:8] + "+" * bool(run.git.get("dirty"))
    said = " ".join(f"{name}={_short(value)}" for name, value in changed(run.options).items())
    return (str(run.path), run.model, run.state, f"{run.step}{of}", best, where, data, git, said)


def _whole(run: Run) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "model": run.model,
        "state": run.state,
        "step": run.step,
        "steps": run.steps or None,
        "seconds": round(run.seconds, 3),
        "main": run.main,
        "best": run.best,
        "best_step": run.best_step,
        "figures": run.at_best,
        "data": run.data,
        "git": run.git or None,
        "options": run.options,
        "changed": changed(run.options),
        "versions": run.described.get("versions", {}),
    }


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(_short, value)) if isinstance(value, list) else str(value)
