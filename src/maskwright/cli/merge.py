"""``maskwright merge``: several data sets as one; classes are joined by name."""

from __future__ import annotations

import argparse

from maskwright.cli._dataset import add_source, add_target, load, save


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser, several=True)
    add_target(parser)


def run(args: argparse.Namespace) -> int:
    """Read all, join, write."""
    from maskwright.data.edit import merge

    datasets = [load(args, path) for path in args.src]
    stems = [path.stem for path in args.src]
    names = stems if len(set(stems)) == len(stems) else [f"{stem}-{i + 1}" for i, stem in enumerate(stems)]
    return save(args, merge(datasets, names))
