"""Writes ``docs/models.md``, the table of models and published weights, from the zoo."""

from __future__ import annotations

from pathlib import Path

from maskwright.weights.table import find
from maskwright.zoo import models


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Models",
        "",
        "Made by `make docs` from `zoo.py` and `weights/table.py`. AP on COCO val, as published.",
        "",
        "| model | task | paper | weights | mask AP | box AP | license |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in models():
        rows = [find(name) for name in entry.weights]
        for row in rows or [None]:
            cells = (
                ["", "", ""] if row is not None and row is not rows[0] else [f"`{entry.name}`", entry.task, entry.paper]
            )
            known = (
                ["", "", "", ""] if row is None else [f"`{row.name}`", _ap(row.mask_ap), _ap(row.box_ap), row.license]
            )
            lines.append(f"| {' | '.join([*cells, *known])} |")
    return "\n".join(lines) + "\n"


def _ap(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    Path(__file__).with_name("models.md").write_text(page())
