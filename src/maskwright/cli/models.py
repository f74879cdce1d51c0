"""``maskwright models``: the table of models, without importing torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from maskwright.weights.table import Published, find
from maskwright.zoo import Entry, models

FIGURES = {"mask AP": "mask_ap", "box AP": "box_ap", "PQ": "pq", "mIoU": "miou"}
"""Titles of the published figures, and how a row calls them."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print a row for each model and, below it, for each of its published weights."""
    rows = [_row(entry) for entry in models()]
    if args.json:
        print(json.dumps({"models": rows}))
        return 0
    table = [("model", "task", "weights", "data", *FIGURES, "license")]
    for row in rows:
        known: list[dict[str, Any]] = row["weights"] or [{"name": "—", "license": ""}]
        for i, weights in enumerate(known):
            model, task = (row["name"], row["task"]) if i == 0 else ("", "")
            figures = [percent(weights.get(name)) for name in FIGURES.values()]
            data = weights["data"] if any(figures) else ""
            table.append((model, task, weights["name"], data, *figures, weights["license"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    numbers = range(4, 4 + len(FIGURES))
    for line in table:
        cells = (
            f"{c:>{w}}" if i in numbers else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
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
    figures = {name: getattr(row, name) for name in FIGURES.values()}
    rights = {"license": row.license, "commercial": row.commercial}
    file = {"url": row.url, "sha256": row.sha256}
    return {"name": row.name, "origin": row.origin, "data": row.data, **figures, **rights, **file}


def percent(value: float | None) -> str:
    """A fraction as the tables show it, in percent; nothing for what was not published."""
    return "" if value is None else f"{100 * value:.1f}"
