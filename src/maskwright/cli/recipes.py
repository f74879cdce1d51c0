"""``maskwright recipes``: the published trainings, and every number of one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from maskwright.cli._runs import aligned
from maskwright.recipes import TABLE, find, sentence

if TYPE_CHECKING:
    from maskwright.recipes.recipe import Recipe


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="say everything about this one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the table, or one recipe."""
    if args.name is not None:
        recipe = find(args.name)
        print(json.dumps(_whole(recipe)) if args.json else _text(recipe))
        return 0
    found = [find(name) for name in TABLE]
    if args.json:
        print(json.dumps({"recipes": [_whole(recipe) for recipe in found]}))
        return 0
    head = ("recipe", "model", "steps", "batch", "published", "what")
    rows: list[tuple[str, ...]] = [head]
    for recipe in found:
        figures = " ".join(f"{name} {100 * value:.1f}" for name, value in recipe.published.items())
        rows.append(
            (recipe.name, recipe.model, str(recipe.train["steps"]), str(recipe.batch), figures, sentence(recipe.name))
        )
    print(aligned(rows, right=(2, 3)))
    return 0


def _whole(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(recipe), "batch": recipe.batch, "about": sentence(recipe.name)}


def _text(recipe: Recipe) -> str:
    lines = [sentence(recipe.name), recipe.source, ""]
    lines += [f"model      {recipe.model}", f"batch      {recipe.batch}", f"epochs     {recipe.epochs:g}"]
    lines.append("published  " + ", ".join(f"{name} {100 * value:.1f}" for name, value in recipe.published.items()))
    for title in ("options", "train", "augment", "search"):
        values: Mapping[str, Any] = getattr(recipe, title)
        if values:
            lines += ["", title, *(f"  {name:<16} {_shown(value)}" for name, value in values.items())]
    if recipe.otherwise:
        lines += ["", "otherwise here", *(f"  {text}" for text in recipe.otherwise)]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
