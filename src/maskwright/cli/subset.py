"""``maskwright subset``: some of the images."""

from __future__ import annotations

import argparse

from maskwright.cli._dataset import add_source, add_target, load, save


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser)
    add_target(parser)
    parser.add_argument("--count", type=int, metavar="N", help="at most so many images a split")
    parser.add_argument("--seed", type=int, metavar="N", help="draw them at random (default: the first ones)")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="only images that show one of these")
    parser.add_argument("--names", nargs="+", default=[], metavar="PATTERN", help="only images named so, as 'street/*'")
    parser.add_argument("--splits", nargs="+", default=[], metavar="NAME", help="only these splits")
    parser.add_argument("--with-objects", action="store_true", help="only images with objects")


def run(args: argparse.Namespace) -> int:
    """Read, choose, write."""
    from maskwright.data.edit import subset

    made = subset(
        load(args), count=args.count, classes=args.classes, keys=args.names, splits=args.splits,
        with_objects=args.with_objects, seed=args.seed,
    )  # fmt: skip
    return save(args, made)
