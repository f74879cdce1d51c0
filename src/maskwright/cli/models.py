"""``maskwright models``: the table of models, without importing torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from maskwright.weights.table import Published, find
from maskwright.zoo import Entry, models


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
            table.append((model, task, weights["name"], *figures, weights["license"]))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = (f"{c:>{w}}" if i in (3, 4) else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        print("  ".join(cells).rstrip())
    return 0


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "task": entry.task,
        "domain": entry.domain,
        "paper": entry.paper,
        "weights": [_weights(find(name)) for name in entry.weights],
    }


def _weights(row: Published) -> dict[str, Any]:
    figures = {"mask_ap": row.mask_ap, "box_ap": row.box_ap}
    rights = {"license": row.license, "commercial": row.commercial}
    return {"name": row.name, "origin": row.origin, **figures, **rights, "url": row.url, "sha256": row.sha256}


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
