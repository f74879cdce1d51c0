"""``maskwright predict``: overlays, COCO documents, maps and tables from any number of images.

What is written follows from the model's task. Instance: ``results.json`` (COCO instances) and ``objects.csv``.
Semantic: ``semantic/`` (label images and ``classes.json``) and ``areas.csv``. Panoptic: all of these, of which
``results.json`` holds the things, and ``panoptic.json`` with ``panoptic/`` (COCO panoptic).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.cli.progress import Download
from maskwright.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from maskwright.structures import Scene, Taxonomy


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files, folders or glob patterns")
    parser.add_argument(
        "--weights",
        default="embedded",
        help="a run directory, a checkpoint, a published name, or embedded, which ships with the package (default)",
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
    parser.add_argument("--no-overlays", action="store_true", help="write no pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    """Predict every image; 1 if some of them could not be read, which never loses the others' results."""
    # Everything that can be refused is refused before the model is loaded.
    overlays = None if args.no_overlays else args.out / "overlays"
    require_writable(args.out if overlays is None else overlays)
    from maskwright import zoo
    from maskwright.data.io import find_images
    from maskwright.infer.predictor import stream
    from maskwright.protocols import task_of

    paths = find_images(args.paths)
    began = time.perf_counter()
    named = (args.weights,) if args.model is None else (args.model, args.weights)
    model: Any = zoo.load(*named, commercial=args.commercial, progress=Download())
    taxonomy: Taxonomy = model.taxonomy
    task = task_of(model)
    threshold = 0.5 if args.score_threshold is None and task == "instance" else args.score_threshold
    answers = stream(
        model,
        paths,
        resize=args.resize,
        score_threshold=threshold,
        max_per_image=args.max_per_image,
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
    )
    counts: dict[str, dict[str, int]] = {}
    failed: dict[str, str] = {}
    interrupted = False
    with ExitStack() as stack:
        adds = _outputs(stack, args.out, taxonomy, task)
        names, inside = unique_names(), _inside(paths)
        painter = None if overlays is None else stack.enter_context(_Painter(overlays, taxonomy, failed))
        try:
            for path, picture, scene in answers:
                name = path.as_posix()
                if isinstance(scene, InputError):
                    failed[name] = str(scene)
                    continue
                stem = names(path)
                for add in adds:
                    add(inside(path), scene, stem)
                if painter is not None and picture is not None:
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


def _inside(paths: Sequence[Path]) -> Callable[[Path], str]:
    """What documents call a file: its path as given, or, where one is absolute or leads upward, from what all share.

    Readers, ours too, take only names that stay inside of a folder, which ``--images`` then names.
    """
    if not any(path.is_absolute() or ".." in path.parts for path in paths):
        return lambda path: path.as_posix()
    whole = {path: Path(os.path.abspath(path)) for path in paths}
    base = os.path.commonpath([path.parent for path in whole.values()])
    return lambda path: whole[path].relative_to(base).as_posix()


def _outputs(stack: ExitStack, out: Path, taxonomy: Taxonomy, task: str) -> list[Callable[[str, Scene, str], None]]:
    """What takes each image's file name, scene and the name of its maps."""
    from maskwright.infer.map_writers import area_table, label_images, panoptic_document
    from maskwright.infer.writers import coco_document, object_table

    adds: list[Callable[[str, Scene, str], None]] = []
    if task != "semantic":
        for name, write in {"results.json": coco_document, "objects.csv": object_table}.items():
            plain = stack.enter_context(write(out / name, taxonomy))
            adds.append(lambda name, scene, stem, plain=plain: plain(name, scene))
    if task != "instance":
        maps = {"semantic": label_images, "areas.csv": area_table}
        for name, write in ({**maps, "panoptic.json": panoptic_document} if task == "panoptic" else maps).items():
            adds.append(stack.enter_context(write(out / name, taxonomy)))
    return adds


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


def require_writable(folder: Path) -> None:
    """Make ``folder`` and see that files can be made in it, or raise ``InputError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"results go to a folder that can be written, but {folder} cannot: {error.strerror}. Choose another --out."
        ) from error


def _sizing(text: str) -> tuple[int, int] | str | None:
    if text in ("default", "none"):
        return None if text == "none" else text
    try:
        short, long = (int(side) for side in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be SHORT,LONG in pixels, none or default, got {text!r}") from None
    return short, long


class _Painter:
    """Draws and writes overlays in one thread beside the model's; a few at most wait."""

    def __init__(self, folder: Path, taxonomy: Taxonomy, failed: dict[str, str], waiting: int = 2) -> None:
        self.folder, self.taxonomy, self.failed, self.limit = folder, taxonomy, failed, waiting
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="overlay")
        self.waiting: deque[tuple[Path, Future[None]]] = deque()

    def __enter__(self) -> _Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self._settle(0)
        self.pool.shutdown()

    def __call__(self, path: Path, stem: str, picture: Tensor, scene: Scene) -> None:
        target = self.folder / f"{stem}.png"
        self.waiting.append((path, self.pool.submit(_paint, target, picture, scene, self.taxonomy)))
        self._settle(self.limit)

    def _settle(self, left: int) -> None:
        while len(self.waiting) > left:
            path, done = self.waiting.popleft()
            try:
                done.result()
            except (InputError, OSError) as error:
                self.failed[path.as_posix()] = f"{path}: the overlay could not be written: {error}"


def _paint(target: Path, picture: Tensor, scene: Scene, taxonomy: Taxonomy) -> None:
    from maskwright.draw.image import overlay, save

    save(target, overlay(picture, scene, taxonomy))


def unique_names() -> Callable[[Path], str]:
    """A function from an image's path to a name for its overlay and maps, different for every call.

    The stem where it is free, then with its folder, its ending, and a number. Case does not count, as some file
    systems do not tell it apart.
    """
    used: set[str] = set()

    def name(path: Path) -> str:
        stem, folder, ending = path.stem, path.parent.name, path.suffix[1:]
        first = [stem, f"{folder}-{stem}" if folder else stem, f"{stem}-{ending}"]
        free = (choice for choice in chain(first, (f"{stem}-{n}" for n in count(2))) if choice.casefold() not in used)
        used.add((chosen := next(free)).casefold())
        return chosen

    return name
