"""``maskwright remap``: rename, join and remove classes."""

from __future__ import annotations

import argparse

from maskwright.cli._dataset import add_source, add_target, load, pairs, save


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser)
    add_target(parser)
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="OLD=NEW",
        help="new names; several to one name joins them, OLD= removes the class",
    )
    parser.add_argument("--only", action="store_true", help="remove all classes that are not named")


def run(args: argparse.Namespace) -> int:
    """Read, rename, write."""
    from maskwright.data.edit import remap

    wanted = {old: new or None for old, new in pairs(args.classes, "classes").items()}
    return save(args, remap(load(args), wanted, others=not args.only))
