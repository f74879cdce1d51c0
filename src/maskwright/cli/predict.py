"""``maskwright predict``: overlays, COCO documents, maps and tables from any number of images.

What is written follows from the model's task. Instance: ``results.json`` (COCO instances) and ``objects.csv``.
Semantic: ``semantic/`` (label images and ``classes.json``) and ``areas.csv``. Panoptic: all of these, of which
``results.json`` holds the things, and ``panoptic.json`` with ``panoptic/`` (COCO panoptic). Of images that say where
on Earth they lie, ``objects.geojson`` too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from maskwright.cli import _looks, _many
from maskwright.cli._outputs import (
    Painter,
    names_inside,
    open_outputs,
    open_places,
    require_writable,
    unique_names,
)
from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.structures import Scene, Taxonomy


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files, folders or glob patterns, or a table")
    parser.add_argument(
        "--weights",
        action="append",
        help="a run directory, a checkpoint, a published name, or embedded, which ships with the package (default); "
        "several, given one by one or with commas, are merged; they know the same classes",
    )
    parser.add_argument("--model", help="the model of a checkpoint that does not say it itself (see maskwright models)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        help="where results go (default: out): overlays/; COCO results.json and objects.csv; of a semantic model "
        "semantic/ (label images) and areas.csv; of a panoptic one all these and COCO panoptic.json with panoptic/",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="leave out objects below this, from 0 to 1 (default: 0.5, which lower for results that are to be scored; "
        "of a panoptic or semantic model its own)",
    )
    parser.add_argument("--max-per-image", type=int, metavar="N", help="at most so many objects an image")
    parser.add_argument(
        "--resize",
        type=_sizing,
        default="default",
        metavar="SHORT,LONG",
        help="short side and ceiling of the long side in pixels, none for each image's own size, or default: "
        "as the model was trained",
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images computed at once (default: 1)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: auto, the GPU if there is one)")
    parser.add_argument("--precision", choices=("auto", "32", "bf16"), default="auto", help="default: auto")
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    _looks.add_flags(parser)
    _many.add_flags(parser)
    parser.add_argument(
        "--map", choices=("geojson", "gpkg"), default="geojson", help="what GeoTIFFs' objects go to (default: geojson)"
    )
    parser.add_argument("--no-overlays", action="store_true", help="write no pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    """Predict every image; 1 if some of them could not be read, which never loses the others' results."""
    # Everything that can be refused is refused before the model is loaded.
    overlays = None if args.no_overlays or _many.wanted(args) else args.out / "overlays"
    require_writable(args.out if overlays is None else overlays)
    weights = _looks.named_weights(args.weights, "embedded")
    _looks.check(args, weights)
    if _many.wanted(args):
        return _many.run(args, weights)
    from maskwright.data.io import find_images
    from maskwright.infer.predictor import stream
    from maskwright.protocols import task_of

    paths = find_images(args.paths)
    began = time.perf_counter()
    model, tiles = _looks.load(args, weights, args.model, args.resize)
    taxonomy: Taxonomy = model.taxonomy
    task = task_of(model)
    threshold = 0.5 if args.score_threshold is None and task == "instance" else args.score_threshold
    merged = len(weights) > 1 or args.tta is not None  # then each model resizes for itself
    device, precision = _looks.settle(args, model, paths)
    answers = stream(
        model,
        paths,
        resize="default" if merged else args.resize,
        score_threshold=threshold,
        max_per_image=args.max_per_image,
        batch_size=args.batch_size,
        device=device,
        precision=precision,
        tiles=tiles,
    )
    counts: dict[str, dict[str, int]] = {}
    failed: dict[str, str] = {}
    interrupted = False
    with ExitStack() as stack:
        adds = open_outputs(stack, args.out, taxonomy, task)
        placed = None if task == "semantic" else open_places(stack, args.out, taxonomy, paths, failed, args.map)
        names, inside = unique_names(), names_inside(paths)
        painter = None if overlays is None else stack.enter_context(Painter(overlays, taxonomy, failed))
        try:
            for path, picture, scene in answers:
                name = path.as_posix()
                if isinstance(scene, InputError):
                    failed[name] = str(scene)
                    continue
                stem = names(path)
                for add in adds:
                    add(inside(path), scene, stem)
                if placed is not None:
                    placed(path, inside(path), scene)
                if painter is not None:
                    painter(path, stem, picture, scene)
                counts[name] = _count(scene, taxonomy)
                if not args.json:
                    print(_line(name, counts[name], task), flush=True)
        except KeyboardInterrupt:
            interrupted = True  # what is done so far is still written
    _report(args, counts, failed, task, time.perf_counter() - began)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if failed else 0


def _report(
    args: argparse.Namespace, counts: dict[str, dict[str, int]], failed: dict[str, str], task: str, seconds: float
) -> None:
    total = sum(sum(found.values()) for found in counts.values())
    noun = {"instance": "object", "semantic": "labeled pixel", "panoptic": "segment"}[task]
    if args.json:
        of = {"instance": "objects", "semantic": "pixels", "panoptic": "segments"}[task]
        figures = {"images": len(counts), of: total, "seconds": round(seconds, 3), "out": str(args.out)}
        print(json.dumps({**figures, "counts": counts, "failed": failed}))
    else:
        print(f"{_plural(len(counts), 'image')}, {_plural(total, noun)} in {seconds:.1f} s, written to {args.out}")
    if failed:
        print(f"{_plural(len(failed), 'file')} failed:", file=sys.stderr)
        for name, reason in failed.items():
            print(f"  {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)


def _count(scene: Scene, taxonomy: Taxonomy) -> dict[str, int]:
    """Class name -> segments, most first; of a scene without, pixels."""
    if scene.segments is None:
        from maskwright.infer.map_writers import class_areas

        return class_areas(scene, taxonomy)
    return {taxonomy.names[label]: n for label, n in Counter(scene.objects().labels.tolist()).most_common()}


def _line(name: str, counts: dict[str, int], task: str) -> str:
    if task == "semantic":
        total = max(sum(counts.values()), 1)
        parts = [f"{label} {n / total:.0%}" for label, n in counts.items()]
    else:
        parts = [f"{n} {label}" for label, n in counts.items()]
    return f"{name}: {', '.join(parts) or 'nothing found'}"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _sizing(text: str) -> tuple[int, int] | str | None:
    if text in ("default", "none"):
        return None if text == "none" else text
    try:
        short, long = (int(side) for side in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be SHORT,LONG in pixels, none or default, got {text!r}") from None
    return short, long
