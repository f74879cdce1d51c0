"""``maskwright benchmark``: how long models take from file to scene, stage by stage, and what they need."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from maskwright.cli._runs import aligned
from maskwright.cli.progress import Download, Line
from maskwright.errors import InputError

_DRAWN = (480, 640)
_PICTURES = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "weights",
        nargs="+",
        metavar="W",
        help="a run directory, a checkpoint, an exported folder, a published name, or embedded; several take turns",
    )
    parser.add_argument("--model", help="the model of a checkpoint that does not say it itself (see maskwright models)")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--images", nargs="+", metavar="PATH", help="image files, folders or glob patterns")
    pictures.add_argument(
        "--data", metavar="PATH", help="annotations whose pictures are taken, PATH@SPLIT for a split, in any format"
    )
    parser.add_argument(
        "--most",
        type=int,
        default=32,
        metavar="N",
        help=f"pictures at most, evenly spread over those there are (default: 32; without any, {_PICTURES} are drawn, "
        f"{_DRAWN[1]} x {_DRAWN[0]})",
    )
    parser.add_argument(
        "--budget",
        type=milliseconds,
        metavar="TIME",
        help="such as 100ms or 0.5s: exit code 1 if more than a tenth of the pictures take longer",
    )
    parser.add_argument(
        "--repeat", type=int, default=20, metavar="N", help="how often each picture is measured (default: 20)"
    )
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="runs before that (default: 3)")
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="objects below this are left out (default: 0.5, as predict; of a panoptic or semantic model its own)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: auto, the GPU if there is one)")
    parser.add_argument("--precision", choices=("auto", "32", "bf16"), default="auto", help="default: auto")
    parser.add_argument("--threads", type=int, metavar="N", help="of the computation on a CPU (default: PyTorch's)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory, which takes a process more")
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 if a model is over the budget."""
    for name, least in {"most": 1, "repeat": 1, "warmup": 0}.items():
        if getattr(args, name) < least:
            raise InputError(f"--{name} must be {least} or more, got {getattr(args, name)}.")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads must be 1 or more, got {args.threads}.")
    if len(set(args.weights)) < len(args.weights):
        raise InputError(f"each model must be named once, got {' '.join(args.weights)}.")
    import torch

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        paths = _pictures(args, Path(folder))
        models = {
            name: _load(name, model=args.model, commercial=args.commercial, threads=args.threads)
            for name in args.weights
        }
        figures = _measure(args, models, paths)
    _print(args, figures, len(paths))
    return _within(args, figures)


def _measure(args: argparse.Namespace, models: dict[str, Any], paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Times of all models in turn, and what each one needs."""
    from maskwright.infer.timing import time_files

    options: dict[str, Any] = {"device": args.device, "precision": args.precision}
    found: dict[str, dict[str, Any]] = {}
    thresholds = {name: _threshold(args.score_threshold, model) for name, model in models.items()}
    groups: dict[float | None, dict[str, Any]] = {}
    for name, model in models.items():
        groups.setdefault(thresholds[name], {})[name] = model
    for threshold, some in groups.items():
        with Line("benchmark", "runs") as line:
            found |= time_files(
                some, paths, rounds=args.repeat, warmup=args.warmup, score_threshold=threshold, progress=line, **options
            )
    for name, model in models.items():
        found[name]["random_weights"] = getattr(model, "report", None) is None and not _is_exported(model)
        found[name] |= _needs(args, name, model, paths[0], thresholds[name])
    return {name: found[name] for name in models}


def _needs(args: argparse.Namespace, name: str, model: Any, path: Path, threshold: float | None) -> dict[str, Any]:
    """Parameters, operations of one picture, bytes of the weights, and memory."""
    from maskwright.infer.timing import inputs_of, repeated
    from maskwright.metrics.computation import count_flops, count_parameters, file_size, peak_device_memory
    from maskwright.metrics.memory import peak_memory
    from maskwright.ops.hardware import choose_device

    out: dict[str, Any] = {"parameters": None, "macs": None, "host_memory": None, "device_memory": None}
    if _is_exported(model):
        out["bytes"] = file_size(name)
    else:
        inputs = inputs_of(model, path, device=args.device)
        counted = count_parameters(model)
        out |= {"parameters": counted["parameters"], "bytes": counted["bytes"]}
        out["macs"] = count_flops(model, [inputs])["macs"]
        out["input"] = list(inputs.pixels.shape[-2:])
    options = {"device": args.device, "precision": args.precision, "score_threshold": threshold}
    where = choose_device(args.device)
    if where.type == "cuda" and not _is_exported(model):
        out["device_memory"] = peak_device_memory(repeated(model, path, **options), where)
    if not args.no_memory:
        load = {"model": args.model, "commercial": args.commercial, "threads": args.threads}
        out["host_memory"] = peak_memory(partial(_ready, name, path, load, options), warmup=1)
    return out


def _ready(name: str, path: Path, load: dict[str, Any], options: dict[str, Any]) -> Callable[[], object]:
    """In the process whose memory is measured: the model, and a call of it."""
    from maskwright.infer.timing import repeated

    return repeated(_load(name, **load), path, **options)


def _load(name: str, *, model: str | None, commercial: bool, threads: int | None) -> Any:
    import torch

    from maskwright import zoo

    if threads is not None:
        torch.set_num_threads(threads)
    named = (name,) if model is None else (model, name)
    return zoo.load(*named, commercial=commercial, progress=Download())


def _is_exported(model: Any) -> bool:
    return next(model.parameters(), None) is None


def _threshold(wanted: float | None, model: Any) -> float | None:
    """As ``maskwright predict`` has it."""
    from maskwright.protocols import task_of

    return 0.5 if wanted is None and task_of(model) == "instance" else wanted


# ---- pictures -------------------------------------------------------------------------------------------------------


def _pictures(args: argparse.Namespace, folder: Path) -> list[Path]:
    """What to measure on; drawn into ``folder`` where nothing is named."""
    if args.images is not None:
        from maskwright.data.io import find_images

        return _spread(find_images(args.images), args.most)
    if args.data is None:
        return _draw(folder)
    from maskwright.data.opening import open_split

    source = open_split(args.data, "val")
    indices = _spread(list(range(len(source))), args.most)
    paths = [source.record(index).path for index in indices]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise InputError(
            f"a benchmark reads picture files, but {args.data} has "
            f"{f'none at {missing[0]}' if missing else 'no pictures'}. Name some with --images."
        )
    return paths


def _spread(found: list[Any], most: int) -> list[Any]:
    count = min(most, len(found))
    return [found[i * len(found) // count] for i in range(count)] if count else []


def _draw(folder: Path) -> list[Path]:
    from maskwright.draw.image import save
    from maskwright.export.golden import drawn

    paths = [folder / f"{i}.png" for i in range(_PICTURES)]
    for i, path in enumerate(paths):
        save(path, drawn(_DRAWN, i, objects=40).permute(1, 2, 0).numpy())
    return paths


# ---- telling --------------------------------------------------------------------------------------------------------


def _within(args: argparse.Namespace, figures: dict[str, dict[str, Any]]) -> int:
    if args.budget is None:
        return 0
    over = {name: found["end_to_end"]["p90"] for name, found in figures.items()}
    over = {name: value for name, value in over.items() if value > args.budget}
    if not over:
        return 0
    said = ", ".join(f"{name} {value:.1f} ms" for name, value in over.items())
    print(f"maskwright benchmark: over the budget of {args.budget:g} ms at p90: {said}", file=sys.stderr)
    return 1


def _print(args: argparse.Namespace, figures: dict[str, dict[str, Any]], pictures: int) -> None:
    if args.json:
        held = args.budget is None or all(f["end_to_end"]["p90"] <= args.budget for f in figures.values())
        budget = None if args.budget is None else {"ms": args.budget, "held": held}
        print(json.dumps({"pictures": pictures, "budget": budget, "models": figures}))
        return
    first = next(iter(figures.values()))
    machine = f"{first['device']}, {first['threads']} threads, torch {first['torch']}, {first['machine']}"
    print(f"{pictures} pictures {args.repeat} times after {args.warmup} runs of warm-up; {machine}; ms a picture\n")
    rows = [("", "p50", "p90", "p99", *_stages(first), "objects", "Mpar", "GMAC", "MB", "memory MB")]
    rows += [_row(name, found) for name, found in figures.items()]
    print(aligned(rows, right=range(1, len(rows[0]))))
    print("\nstages are medians; memory is the most that one picture adds to the process, the model before it.")
    if len(figures) > 1:
        slowest = max(found["end_to_end"]["p50"] for found in figures.values())
        ratios = (f"{name} {slowest / found['end_to_end']['p50']:.2f}x" for name, found in figures.items())
        print(f"medians against the slowest: {', '.join(ratios)}")
    random = [name for name, found in figures.items() if found["random_weights"]]
    if random:
        print(f"random weights, which find other objects than trained ones: {', '.join(random)}")


def _stages(found: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in found["stages"] if name != "rest")


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    whole, stages, memory = found["end_to_end"], found["stages"], found["device_memory"] or found["host_memory"]
    return (
        name,
        *(f"{whole[p]:.1f}" for p in ("p50", "p90", "p99")),
        *(f"{stages[stage]['p50']:.1f}" for stage in _stages(found)),
        _number(found["objects"], 1, 1),
        _number(found["parameters"], 1e6, 1),
        _number(found["macs"], 1e9, 1),
        _number(found["bytes"], 1e6, 1),
        "-" if memory is None else f"{memory['before'] / 1e6:.0f} + {memory['added'] / 1e6:.0f}",
    )


def _number(value: float | None, unit: float, places: int) -> str:
    return "-" if value is None else f"{value / unit:.{places}f}"


def milliseconds(text: str) -> float:
    plain, unit = (text[:-2], 1.0) if text.endswith("ms") else (text[:-1], 1e3) if text.endswith("s") else (text, 1.0)
    try:
        value = float(plain) * unit
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a time such as 100ms or 0.5s, got {text!r}")
    return value
