"""``maskwright predict`` of very many pictures: a table or a folder, parts, and going on after a kill."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.cli import _looks
from maskwright.errors import InputError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--format`` and what goes with it."""
    group = parser.add_argument_group(
        "very many pictures",
        "with --format, --cluster or a table (.csv, .tsv, .parquet with a column of paths; .txt with a path a line) "
        "results go to parts/ of --out; the same command, given again, goes on where it was stopped or killed",
    )
    group.add_argument("--format", choices=("coco", "parquet"), help="of the parts (default: coco)")
    group.add_argument("--part-size", type=int, default=256, metavar="N", help="pictures in a part (default: 256)")
    group.add_argument(
        "--workers", type=int, metavar="N", help="processes that compute (default: one a processor, one on a GPU)"
    )
    group.add_argument("--merge", action="store_true", help="make one COCO results.json of all parts at the end")
    group.add_argument("--restart", action="store_true", help="begin anew where --out holds the parts of another run")
    group.add_argument("--path-column", default="path", metavar="NAME", help="of a table (default: path)")
    group.add_argument("--key-column", metavar="NAME", help="names in the results (default: key, or else the paths)")
    group.add_argument(
        "--cluster", nargs="?", const="local", metavar="ADDRESS", help="compute through Ray (default: local)"
    )


def wanted(args: argparse.Namespace) -> bool:
    """Whether this is a run in parts."""
    from maskwright.infer.inputs import is_table

    return args.format is not None or args.cluster is not None or any(is_table(path) for path in args.paths)


@dataclass(frozen=True)
class Loader:
    """Loads in a worker what the flags say; plain values, so that it can be sent."""

    flags: dict[str, Any]
    weights: tuple[str, ...]

    def __call__(self) -> Any:
        """The model."""
        model, _ = _looks.load(
            argparse.Namespace(**self.flags), list(self.weights), self.flags["model"], self.flags["resize"]
        )
        return model


def run(args: argparse.Namespace, weights: list[str]) -> int:
    """Predict all parts that are not done; 1 if some pictures failed."""
    if args.tile is not None:
        raise InputError("--tile goes with pictures that are written one by one: leave out --format and --cluster.")
    from maskwright.infer.many import predict_many
    from maskwright.infer.parts import merge_coco
    from maskwright.ops.hardware import choose_device
    from maskwright.protocols import task_of

    items, began = _items(args), time.perf_counter()
    names = ("tta", "votes", "tile", "commercial", "model", "resize")
    load = Loader({name: getattr(args, name) for name in names}, tuple(_whole(name) for name in weights))
    merged = len(weights) > 1 or args.tta is not None  # then each model resizes for itself
    kind, parts = args.format or "coco", args.out / "parts"
    device = choose_device(args.device)
    alone = 1 if device.type != "cpu" else max(1, len(os.sched_getaffinity(0)))
    workers = alone if args.workers is None else args.workers
    model = load()
    threshold = 0.5 if args.score_threshold is None and task_of(model) == "instance" else args.score_threshold
    lines = predict_many(
        load,
        items,
        parts,
        model=model,
        kind=kind,
        part_size=args.part_size,
        resize="default" if merged else args.resize,
        score_threshold=threshold,
        max_per_image=args.max_per_image,
        batch_size=args.batch_size,
        device=str(device),
        precision=args.precision,
        workers=workers,
        cluster=args.cluster,
        files=[name for name in weights if Path(name).exists()],
        restart=args.restart,
        progress=None if args.json else _progress,
    )
    if args.merge:
        merge_coco(args.out / "results.json", [parts / line["file"] for line in lines], kind, model.taxonomy)
    figures = {name: sum(line[name] for line in lines) for name in ("pictures", "failed", "objects")}
    seconds = time.perf_counter() - began
    if args.json:
        print(json.dumps({**figures, "parts": len(lines), "seconds": round(seconds, 3), "out": str(args.out)}))
    else:
        print(
            f"{figures['pictures']} pictures, {figures['objects']} objects, {figures['failed']} failed: "
            f"{len(lines)} parts in {parts}, {seconds:.1f} s"
        )
    return 1 if figures["failed"] else 0


def _progress(done: int, total: int) -> None:
    print(f"{done} of {total} pictures", file=sys.stderr, flush=True)


def _items(args: argparse.Namespace) -> list[Any]:
    from maskwright.cli._outputs import names_inside
    from maskwright.data.io import find_images
    from maskwright.infer.inputs import Item, distinct, is_table, read_table

    listed = [path for path in args.paths if is_table(path)]
    if listed:
        if len(args.paths) > 1:
            raise InputError(f"a table is given alone, got {len(args.paths)} paths. Put all pictures into one table.")
        table = read_table(Path(listed[0]), args.path_column, args.key_column)
        return [Item(item.key, os.path.abspath(item.path)) for item in table]
    paths = find_images(args.paths)
    inside = names_inside(paths)
    return distinct([Item(inside(path), os.path.abspath(path)) for path in paths], "the list of pictures")


def _whole(name: str) -> str:
    return os.path.abspath(name) if Path(name).exists() else name
