"""``maskwright synth``: scenes drawn into a folder with perfect labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from maskwright.cli._options import add_flags, given
from maskwright.errors import InputError

KINDS = ("street", "cells", "parts", "shelf", "orchard")
"""As in ``data.synthetic.scenes``, written out so that help need not wait for torch."""

_KNOBS = ("data/synthetic/drawn.py", "Knobs")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("kind", choices=KINDS, help="what to draw")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    parser.add_argument(
        "--n", type=int, default=100, metavar="N", help="pictures, or clips with --frames (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another set (default: 0)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="pixels (default: 480 640)"
    )
    parser.add_argument(
        "--frames", type=int, default=1, metavar="N", help="pictures of a clip; more than 1 gives flow (default: 1)"
    )
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="of the pictures (default: png)")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that draw (default: 0, this one)"
    )
    add_flags(parser, "knobs", *_KNOBS)


def run(args: argparse.Namespace) -> int:
    """Draw the set and say what it holds."""
    from tqdm import tqdm

    from maskwright.data.synthetic.drawn import Knobs
    from maskwright.data.synthetic.files import write_set
    from maskwright.data.synthetic.scenes import Synthetic

    try:
        knobs = Knobs(**given(args, *_KNOBS))
    except ValueError as error:
        raise InputError(str(error)) from error
    source = Synthetic(args.kind, args.n, (args.size[0], args.size[1]), args.seed, knobs, args.frames, instances=False)
    with tqdm(total=len(source), unit="picture", leave=False, disable=not sys.stderr.isatty()) as bar:

        def done(many: int) -> None:
            bar.update(many - bar.n)

        objects = write_set(source, args.out, form=args.format, workers=args.workers, done=done)
    print(f"{len(source)} pictures with {objects} objects of {sum(source.taxonomy.thing)} classes in {args.out}")
    return 0
