"""``maskwright agree``: how far annotators agree, who is apart, where; and what they come to together."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.cli._dataset import add_json, add_source, load, require_new, write_coco_folder
from maskwright.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from maskwright.data.source import Loads

_WORST = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_source(parser, several=True)
    parser.add_argument(
        "--intervals",
        type=int,
        nargs="?",
        const=1000,
        metavar="N",
        help="95 %% intervals, by resampling N times",
    )
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="draw the N images that are agreed on least")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the drawings go (default: out)")
    parser.add_argument("--consensus", type=Path, metavar="DST", help="write what most of them agree on, as COCO")
    parser.add_argument("--method", choices=("majority", "staple"), default="majority", help="how masks are joined")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read all, compare, say, draw, join."""
    if args.consensus is not None:
        require_new(args.consensus)
    from maskwright.data.consensus import by_key, consensus, shared_images
    from maskwright.metrics import confidence
    from maskwright.metrics.agreement import Agreement

    datasets = [load(args, path) for path in args.src]
    names = _names(args.src)
    sources, keys = shared_images(datasets)
    everyone = [key for key in keys if all(key in by_key(source) for source in sources)]
    if not everyone:
        raise InputError(f"no image is in all {len(sources)} data sets; compare them two by two")
    places = [by_key(source) for source in sources]
    metric = Agreement(sources[0].taxonomy.names, names)
    for key in everyone:
        metric.update_all([_opinion(source, at[key]) for source, at in zip(sources, places, strict=True)], key)
    figures = metric.compute()
    if args.intervals:
        if len(everyone) < 2:
            raise InputError("intervals need two images or more")
        figures = confidence.intervals(metric, samples=args.intervals)
    least = metric.per_image()[:_WORST]
    drawn = _draw(sources, places, [str(key) for key, _ in metric.per_image()[: args.draw]], args.out)
    if args.consensus is not None:
        write_coco_folder(args.consensus, consensus(datasets, args.method))
    if args.json:
        rows = [{"image": key, **row} for key, row in least]
        print(json.dumps({**figures, "least": rows, "drawn": [str(path) for path in drawn]}))
        return 0
    _print(figures, least, drawn)
    if args.consensus is not None:
        print(f"{args.consensus}: what most of them agree on")
    return 0


def _names(paths: list[Path]) -> list[str]:
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [f"{stem}-{i + 1}" for i, stem in enumerate(stems)]


def _opinion(source: Loads, index: int) -> Any:
    from maskwright.data.tasks import outlines_of
    from maskwright.metrics.agreement import opinion

    record = source.record(index)
    return opinion(record.labels, outlines_of(record), record.size, len(source.taxonomy))


def _print(figures: dict[str, Any], least: list[Any], drawn: list[Path]) -> None:
    from maskwright.cli._figures import number

    columns = ("PQ", "SQ", "RQ", "IoU", "distance", "agreement", "kappa")
    print(f"{figures['images']} images")
    for title, group in (("objects", figures["objects"]), ("pixels", figures["pixels"])):
        shown = "  ".join(f"{name} {number(value, name)}" for name, value in group.items() if name != "per_class")
        print(f"{title}: {shown}")
    for title in ("per_class", "annotators", "pairs"):
        rows = figures["objects"]["per_class"] if title == "per_class" else figures[title]
        wide = max(map(len, rows), default=0)
        print({"per_class": "by class", "annotators": "each against the others", "pairs": "by pair"}[title])
        for name, row in rows.items():
            cells = "  ".join(f"{column} {number(row[column], column)}" for column in columns if column in row)
            print(f"  {name:<{wide}}  {cells}")
    print("agreed on least")
    for key, row in least:
        print(f"  {key}: PQ {number(row['PQ'])}, pixels {number(row['agreement'])}")
    for path in drawn:
        print(path)


def _draw(sources: list[Loads], places: list[Any], keys: list[str], out: Path) -> list[Path]:
    """Pictures whose pixels are the redder the less the annotators agree on them."""
    if not keys:
        return []
    from maskwright.draw.image import save

    paths: list[Path] = []
    for key in keys:
        opinions = [_opinion(source, at[key]) for source, at in zip(sources, places, strict=True)]
        _, image = sources[0].load(places[0][key])
        path = out / f"{Path(key).with_suffix('').as_posix().replace('/', '_')}.png"
        save(path, _quarrel(image.permute(1, 2, 0).numpy(), [opinion.semantic for opinion in opinions]))
        paths.append(path)
    return paths


def _quarrel(picture: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    import numpy as np

    apart = np.zeros(picture.shape[:2])
    for i, first in enumerate(maps):
        for second in maps[i + 1 :]:
            apart += first != second
    share = 0.75 * apart[..., None] / max(apart.max(), 1)
    gray = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    return ((1 - share) * gray + share * np.array([255.0, 30.0, 30.0])).round().astype(np.uint8)
