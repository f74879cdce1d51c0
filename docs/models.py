"""Writes ``docs/models.md``, the table of models and published weights, from the zoo."""

from __future__ import annotations

from pathlib import Path

from maskwright.cli.models import FIGURES, percent
from maskwright.weights.table import find
from maskwright.zoo import models


def page() -> str:
    """The page as Markdown."""
    titles = ["model", "task", "paper", "weights", "data", *FIGURES, "license"]
    lines = [
        "# Models",
        "",
        "Made by `make docs` from `zoo.py` and `weights/table.py`. Figures are as published, in percent, on the "
        "validation half of the data.",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
    ]
    for entry in models():
        for i, name in enumerate(entry.weights or (None,)):
            cells = [f"`{entry.name}`", entry.task, entry.paper] if i == 0 else [""] * 3
            lines.append(f"| {' | '.join([*cells, *_weights(name)])} |")
    return "\n".join(lines) + "\n"


def _weights(name: str | None) -> list[str]:
    """The cells of one published row, or empty ones."""
    if name is None:
        return [""] * (3 + len(FIGURES))
    row = find(name)
    figures = [percent(getattr(row, figure)) for figure in FIGURES.values()]
    return [f"`{name}`", row.data if any(figures) else "", *figures, row.license]


if __name__ == "__main__":
    Path(__file__).with_name("models.md").write_text(page())
