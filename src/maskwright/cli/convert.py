"""``maskwright convert``: any format in, any writable format out, and from task to task."""

from __future__ import annotations

import argparse
from dataclasses import replace

from maskwright.cli._dataset import add_source, add_target, load, save


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser)
    add_target(parser)
    parser.add_argument(
        "--task",
        choices=("instances", "semantic", "panoptic"),
        help="make another task's annotation of it: countable objects only, a class for every pixel, or both "
        "(default: what it is)",
    )


def run(args: argparse.Namespace) -> int:
    """Read, change the task where asked, write."""
    dataset = load(args)
    if args.task is not None:
        from maskwright.data.tasks import convert

        dataset = replace(dataset, splits={name: convert(source, args.task) for name, source in dataset.splits.items()})
    return save(args, dataset)
