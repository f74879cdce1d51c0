"""What the commands on data sets share: reading one by any format, writing one, saying what it is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.data.dataset import Dataset


def add_source(parser: argparse.ArgumentParser, name: str = "src", *, several: bool = False) -> None:
    """The annotations to read, and how."""
    nargs: dict[str, Any] = {"nargs": "+"} if several else {}
    parser.add_argument(name, metavar=name.upper(), type=Path, help="a file or folder of annotations", **nargs)
    from maskwright.data.formats import FORMATS

    known = ", ".join(row.name for row in FORMATS)
    parser.add_argument(
        "--from", dest="source_format", metavar="FORMAT", help=f"its format (default: recognized): {known}"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="its pictures, where they do not lie as its format has them"
    )
    parser.add_argument("--lenient", action="store_true", help="leave out objects that cannot be used, and count them")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Where to write, and how."""
    parser.add_argument("dst", metavar="DST", type=Path, help="the folder (or JSON file) to write")
    from maskwright.data.formats import FORMATS

    known = ", ".join(row.name for row in FORMATS if row.writes)
    parser.add_argument("--to", default="coco", metavar="FORMAT", help=f"what to write (default: coco): {known}")
    parser.add_argument(
        "--pictures",
        choices=("link", "copy", "none"),
        default="link",
        help="bring the pictures along: as hard links, which cost no space (default), copied, or not at all",
    )
    parser.add_argument(
        "--overlap",
        choices=("refuse", "cover"),
        help="where a format has one object a pixel: refuse objects that overlap (default), or let later ones cover",
    )
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag of every command that prints figures."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def load(args: argparse.Namespace, path: Path | None = None, *, quiet: bool = False) -> Dataset:
    """Read what the arguments name; what was left out is said on standard error unless ``quiet``."""
    from maskwright.data import formats

    path = path or Path(args.src)
    dataset = formats.read(path, args.source_format, images=args.images, strict=not args.lenient)
    for kind, where in () if quiet else dataset.dropped.items():
        more = ", ..." if len(where) > 5 else ""
        print(f"{path}: left out {len(where)} with {kind}: {', '.join(where[:5])}{more}", file=sys.stderr)
    return dataset


def save(args: argparse.Namespace, dataset: Dataset) -> int:
    """Write what came of it, with its pictures, and say so."""
    from maskwright.data import formats
    from maskwright.data.pictures import place_pictures

    require_new(args.dst)
    row = formats.find(args.to, writes=True)
    how = args.pictures if not args.dst.suffix else "none"
    formats.write(args.dst, dataset, row.name, **({} if args.overlap is None else {"overlap": args.overlap}))
    place_pictures(dataset, args.dst, formats.place_of(row), how)
    splits = {name: len(source) for name, source in dataset.splits.items()}
    objects = sum(len(source.record(i)) for source in dataset.splits.values() for i in range(len(source)))
    if args.json:
        print(
            json.dumps(
                {"out": str(args.dst), "format": row.name, "images": len(dataset), "objects": objects, "splits": splits}
            )
        )
        return 0
    parts = ", ".join(f"{name} {n}" for name, n in splits.items())
    print(
        f"{args.dst}: {len(dataset)} images ({parts}), {objects} objects, {len(dataset.taxonomy)} classes as {row.name}"
    )
    return 0


def write_coco_folder(path: Path, dataset: Dataset) -> None:
    """Write a data set as COCO, its pictures linked beside unless ``path`` is a file."""
    from maskwright.data import formats
    from maskwright.data.pictures import place_pictures

    formats.write(path, dataset, "coco")
    if not path.suffix:
        place_pictures(dataset, path, formats.place_of(formats.find("coco")))


def require_new(path: Path) -> None:
    """Refuse an output that would mix with what is there."""
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"the output must be new or empty, but {path} is there. Name another, or remove it first.")


def pairs(words: list[str], what: str) -> dict[str, str]:
    """``NAME=VALUE`` words as a mapping; ``InputError`` for others."""
    out: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name or name in out:
            raise InputError(f"{what} must be given once each as NAME=VALUE, got {word!r}")
        out[name] = value
    return out
