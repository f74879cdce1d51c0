"""``maskwright split``: train, val, test anew, nothing of one known to the other."""

from __future__ import annotations

import argparse
import re

from maskwright.cli._dataset import add_source, add_target, load, pairs, save
from maskwright.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser)
    add_target(parser)
    parser.add_argument(
        "--shares",
        nargs="+",
        default=["train=0.8", "val=0.2"],
        metavar="NAME=SHARE",
        help="the splits and their shares of the images (default: train=0.8 val=0.2)",
    )
    parser.add_argument(
        "--group",
        metavar="REGEX",
        help="keep images together whose names agree in what this matches (its first group, if it has one), such as "
        "'^(patient[0-9]+)'; frames of a clip always stay together",
    )
    parser.add_argument(
        "--no-pictures",
        action="store_true",
        help="do not open the pictures, which is done to keep those in one split that are nearly the same",
    )
    parser.add_argument(
        "--no-stratify", action="store_true", help="look at the number of images only, not at the classes"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another split (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Read, divide, write."""
    from maskwright.data.audit.pictures import alike
    from maskwright.data.edit import joined, split
    from maskwright.structures import Record

    try:
        shares = {name: float(value) for name, value in pairs(args.shares, "shares").items()}
        pattern = None if args.group is None else re.compile(args.group)
    except ValueError as error:
        raise InputError(f"shares must be numbers: {error}") from error
    except re.error as error:
        raise InputError(f"--group must be a regular expression, got {args.group!r}: {error}") from error

    def group(record: Record) -> str:
        assert pattern is not None
        found = pattern.search(record.key)
        if found is None:
            raise InputError(f"--group {args.group!r} matches nothing in the name {record.key}")
        return found.group(1) if pattern.groups else found.group()

    dataset = load(args)
    together = [] if args.no_pictures else alike(joined(dataset))
    made = split(
        dataset, shares, group=None if pattern is None else group, together=together,
        stratify=not args.no_stratify, seed=args.seed,
    )  # fmt: skip
    return save(args, made)
