"""``maskwright inspect``: what a data set is, in numbers and, where asked, in pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.cli._dataset import add_json, add_source, load

if TYPE_CHECKING:
    from maskwright.data.dataset import Dataset


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser)
    parser.add_argument(
        "--draw", type=int, default=0, metavar="N", help="draw what is annotated on N images of each split"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the drawings go (default: out)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read, count, draw."""
    from maskwright.data.summary import summarize

    dataset = load(args)
    summary = summarize(dataset)
    drawn = _draw(dataset, args.draw, args.out) if args.draw > 0 else []
    if args.json:
        print(json.dumps({**summary, "drawn": [str(path) for path in drawn]}))
        return 0
    print(f"{args.src}: {summary['format']}, {summary['images']} images, {summary['objects']} objects")
    for name, split in summary["splits"].items():
        print("\n".join(_split_lines(name, split)))
    print("classes (objects, images):")
    wide = max((len(name) for name in summary["classes"]), default=0)
    for name, its in sorted(summary["classes"].items(), key=lambda item: -item[1]["objects"]):
        print(f"  {name:<{wide}}  {its['objects']:>8}  {its['images']:>7}{'' if its['thing'] else '  stuff'}")
    for path in drawn:
        print(path)
    return 0


def _split_lines(name: str, split: dict[str, Any]) -> list[str]:
    sides = " x ".join(_range(split[axis]) for axis in ("height", "width"))
    lines = [f"{name}: {split['images']} images of {sides} pixels (height x width), {split['empty']} without objects"]
    if split["objects"]:
        outlines = ", ".join(f"{count} {kind}" for kind, count in split["outlines"].items())
        sizes = ", ".join(f"{split[size]} {size}" for size in ("small", "medium", "large"))
        lines.append(f"  {split['objects']} objects ({outlines}; {sizes}), {split['crowd']} of them crowd")
        lines.append(f"  {_range(split['objects_per_image'])} an image, {_range(split['area'])} pixels each")
    for what in ("tracks", "sequences"):
        if split[what]:
            lines.append(f"  {split[what]} {what}")
    for what in ("semantic", "panoptic"):
        if split[what]:
            lines.append(f"  {split[what]} images with a {what} map")
    return lines


def _range(spread: dict[str, float]) -> str:
    low, middle, high = (f"{spread[key]:.0f}" for key in ("min", "median", "max"))
    return low if low == high else f"{low} to {high} (median {middle})"


def _draw(dataset: Dataset, count: int, out: Path) -> list[Path]:
    """Images spread evenly over each split, overlaid with what is annotated."""
    from maskwright.data.rasterize import scene_of
    from maskwright.draw.image import overlay, save

    paths: list[Path] = []
    for split, source in dataset.splits.items():
        chosen = sorted({round(k * (len(source) - 1) / max(count - 1, 1)) for k in range(min(count, len(source)))})
        for index in chosen:
            record, image = source.load(index)
            path = out / split / f"{Path(record.key).with_suffix('').as_posix().replace('/', '_')}.png"
            save(path, overlay(image, scene_of(record), dataset.taxonomy))
            paths.append(path)
    return paths
