"""``maskwright models``: the table of models, without importing torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from maskwright.zoo import models


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print a row for each model and, below it, for each of its published weights."""
    rows = [_row(entry) for entry in models()]
    if args.json:
        print(json.dumps({"models": rows}))
        return 0
    table = [("model", "task", "weights", "mask AP", "box AP", "license")]
    for row in rows:
        known = row["weights"] or [{"name": "—", "mask_ap": None, "box_ap": None, "license": ""}]
        for i, weights in enumerate(known):
            model, task = (row["name"], row["task"]) if i == 0 else ("", "")
            figures = (_percent(weights["mask_ap"]), _percent(weights["box_ap"]))
            table.append((model, task, weights["name"], *figures, weights["license"] or "none stated"))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = (f"{c:>{w}}" if i in (3, 4) else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        print("  ".join(cells).rstrip())
    return 0


def _row(entry: Any) -> dict[str, Any]:
    return {}


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
