"""``maskwright compress``: a model made smaller, tuned again, and what that cost and brought.

The folder that is made is a model: ``best.safetensors`` holds it, physically smaller, for ``predict``, ``evaluate``,
``export`` and ``train --weights``; ``report.json`` what was measured, ``pruned.safetensors`` the model before it was
tuned, ``run/`` the training, ``exported/`` the quantized program.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskwright.cli._launch import add_passed_on
from maskwright.cli._runs import aligned
from maskwright.cli.evaluate import Counter
from maskwright.cli.progress import Download, Line
from maskwright.errors import InputError

if TYPE_CHECKING:
    from maskwright.data.source import Loads

TUNING_RATE = "1e-4"
"""The learning rate of the tuning, a quarter of what trainings from scratch have."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("weights", metavar="W", help="a run directory, a checkpoint, a published name, or embedded")
    parser.add_argument("--model", help="the model of a checkpoint that does not say it itself (see maskwright models)")
    parser.add_argument(
        "--prune",
        type=float,
        metavar="X",
        help="the share of channels to take out, from 0 to 1, inside residual blocks, towers, feed-forward layers and "
        "heads, whose inputs and outputs stay as wide as they are",
    )
    parser.add_argument(
        "--by",
        choices=("group", "l1", "scale"),
        default="group",
        help="which channels go first: those whose parameters in all layers together are smallest (default), whose "
        "filters are (l1), or whose batch norm's factors are (scale)",
    )
    parser.add_argument(
        "--multiple", type=int, default=8, metavar="N", help="widths left are multiples of this (default: 8)"
    )
    parser.add_argument(
        "--quantize",
        choices=("fp16", "bf16", "int8"),
        help="also export what comes out, in this precision (see maskwright export); int8 is calibrated on --data, and "
        "parts that cost too much stay in fp32",
    )
    parser.add_argument(
        "--to",
        choices=("onnx", "openvino", "tensorrt", "torch"),
        default="onnx",
        help="with --quantize: for what (default: onnx, the only one that has int8)",
    )
    parser.add_argument(
        "--calibrate", type=int, default=16, metavar="N", help="pictures that int8 is calibrated on (default: 16)"
    )
    parser.add_argument(
        "--lose",
        type=float,
        default=0.01,
        metavar="X",
        help="how much of the main figure int8 may lose against the same program in fp32 (default: 0.01)",
    )
    parser.add_argument(
        "--culprits", action="store_true", help="int8: measure what each part costs, also where little is lost"
    )
    parser.add_argument("--distill", metavar="TEACHER", help="tune with a teacher, such as W itself, or a larger model")
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="annotations to tune on, in any format; PATH@SPLIT for a split"
    )
    parser.add_argument("--val", metavar="PATH", help="annotations to measure on (default: the val split of --data)")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: where the format has them)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make, new or empty")
    parser.add_argument("--no-tuning", action="store_true", help="measure what pruning alone leaves")
    parser.add_argument("--max-per-image", type=int, default=100, metavar="N", help="objects an image (default: 100)")
    parser.add_argument("--repeat", type=int, default=10, metavar="N", help="time each picture so often (default: 10)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: auto, the GPU if there is one)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object instead of a table")
    add_passed_on(parser)


def run(args: argparse.Namespace) -> int:
    """Prune, tune, quantize, measure."""
    _refuse(args)
    from maskwright import zoo
    from maskwright.data.opening import open_split
    from maskwright.data.task_views import for_task
    from maskwright.protocols import task_of
    from maskwright.train.directory import prepare
    from maskwright.weights import store

    options_of_data = {"images": args.images, "strict": not args.lenient}
    before = _load(args)
    train = for_task(open_split(args.data, "train", **options_of_data), task_of(before))
    val = for_task(open_split(args.val or args.data, "val", **options_of_data), task_of(before))
    _require_classes(args, before, train)
    prepare(args.out, resume=False)
    (args.out / "checkpoints").rmdir()

    stages = {"before": _figures(args, before, val)}
    after: Any = before
    widths: dict[str, Any] = {}
    if args.prune is not None:
        after, widths = _pruned(before, args)
        path = args.out / "pruned.safetensors"
        store.save(path, after.state_dict(), {**zoo.describe(after), "card": _card(before, args)})
        stages["pruned"] = _figures(args, after, val)
        if not args.no_tuning:
            _tune(args, str(after.built[0]), path)
            after = zoo.load(args.out / "run")
            stages["tuned"] = _figures(args, after, val)
    described = {**zoo.describe(after), "card": _card(before, args)}
    store.save(args.out / "best.safetensors", after.state_dict(), described)
    models, integers = {"before": before, "after": after}, None
    pictures = pictures_of(val)
    if args.quantize is not None:
        if args.quantize == "int8":
            integers = _int8_of(args, after, described, train, val)
            models["quantized"] = zoo.load(args.out / "exported")
        else:
            models["quantized"] = _quantized(args, after, described, pictures)
        stages["quantized"] = _figures(args, models["quantized"], val)
    report = _report(args, stages, _times(args, models, pictures), widths, train, val)
    report["int8"] = integers
    from maskwright.storage import write_json

    write_json(args.out / "report.json", report, indent=True)
    print(json.dumps(report) if args.json else _text(report, args))
    return 0


def _refuse(args: argparse.Namespace) -> None:
    """What can be refused before anything is read."""
    if args.prune is None and args.quantize is None:
        raise InputError("say how to make the model smaller: --prune 0.4, --quantize fp16, or both.")
    if args.prune is not None and not 0 <= args.prune < 1:
        raise InputError(f"--prune must be a share of at least 0 and below 1, got {args.prune:g}.")
    if args.quantize == "int8" and args.to != "onnx":
        raise InputError(f"int8 is made for onnx, got --to {args.to}.")
    if not args.lose >= 0:
        raise InputError(f"--lose must be 0 or more, got {args.lose}.")
    for name in ("multiple", "max_per_image", "repeat", "calibrate"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(args, name)}.")
    tuned = args.prune is not None and not args.no_tuning
    if not tuned and (args.distill or args.rest):
        raise InputError("--distill and --with say how to tune, but nothing is tuned. Leave them out, or give --prune.")
    fixed = {"train", "val", "images", "out", "weights", "model", "teacher", "resume", "json", "recipe"}
    twice = sorted(fixed & {word[2:].partition("=")[0] for word in args.rest if word.startswith("--")})
    if twice:
        raise InputError(f"--with gives {', '.join(twice)}, which compress sets itself. Leave it out.")
    if tuned:
        from maskwright.cli import _launch

        _launch.check(_words(args, "any", Path("any")))


def _require_classes(args: argparse.Namespace, model: Any, train: Loads) -> None:
    tuned = args.prune is not None and not args.no_tuning
    if tuned and tuple(train.taxonomy.names) != tuple(model.taxonomy.names):
        raise InputError(
            f"to tune {args.weights}, the data must have its classes, in its order ({_few(model.taxonomy.names)}), got "
            f"{_few(train.taxonomy.names)}. Bring the data there with maskwright remap, or give --no-tuning."
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _load(args: argparse.Namespace) -> Any:
    from maskwright import zoo

    named = (args.weights,) if args.model is None else (args.model, args.weights)
    model: Any = zoo.load(*named, commercial=args.commercial, progress=Download())
    if next(model.parameters(), None) is None:
        raise InputError(f"{args.weights} is an exported program, which cannot be changed. Name what it was made of.")
    return model


# ---- steps ----------------------------------------------------------------------------------------------------------


def _pruned(model: Any, args: argparse.Namespace) -> tuple[Any, dict[str, list[int]]]:
    """The smaller model, and by chain how many channels there were and are."""
    import copy

    from maskwright.nn.chains import chains
    from maskwright.nn.prune import choose, cut

    out = copy.deepcopy(model)
    units = {name: chain.units for name, chain in chains(out).items()}
    widths = cut(out, choose(out, args.prune, by=args.by, multiple=args.multiple))
    name, options = out.built
    if widths:
        out.built = (name, {**options, "pruned": {**options.get("pruned", {}), **widths}})
    return out, {chain: [units[chain], width] for chain, width in widths.items()}


def _card(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    card = dict(getattr(model, "card", None) or {})
    return card if args.prune is None else {**card, "pruned": f"{args.prune:g} by {args.by}"}


def _words(args: argparse.Namespace, model: str, weights: Path) -> list[str]:
    """``maskwright train``'s words for the tuning."""
    words = [model, "--weights", str(weights), "--train", args.data, "--val", args.val or args.data]
    words += ["--out", str(args.out / "run"), "--max-per-image", str(args.max_per_image)]
    words += [] if args.images is None else ["--images", str(args.images)]
    words += ["--lenient"] * args.lenient + ["--commercial"] * args.commercial
    words += [] if args.distill is None else ["--teacher", args.distill]
    own = ["--learning-rate", TUNING_RATE, "--device", args.device, "--workers", str(args.workers)]
    return [*words, *own, *args.rest]


def _tune(args: argparse.Namespace, model: str, weights: Path) -> None:
    from maskwright.cli import train

    parser = argparse.ArgumentParser(prog="maskwright train")
    train.configure(parser)
    with redirect_stdout(sys.stderr):
        train.run(parser.parse_args(_words(args, model, weights)))


def _quantized(args: argparse.Namespace, model: Any, described: dict[str, Any], pictures: Sequence[Path]) -> Any:
    from maskwright import zoo
    from maskwright.data.io import read_image
    from maskwright.export.artifact import export

    shown = [read_image(path) for path in pictures[:2]]
    folder = args.out / "exported"
    export(model.cpu(), described, args.to, folder, precision=args.quantize, pictures=shown)
    return zoo.load(folder)


def _int8_of(
    args: argparse.Namespace, model: Any, described: dict[str, Any], train: Loads, val: Loads
) -> dict[str, Any]:
    from maskwright.cli import _int8

    return _int8.make(
        model.cpu(),
        described,
        args.out / "exported",
        train=train,
        measure=lambda program: _main(args, program, val)[1],
        calibrate=args.calibrate,
        limit=args.lose,
        blame=args.culprits,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )


# ---- measuring ------------------------------------------------------------------------------------------------------


def _main(args: argparse.Namespace, model: Any, val: Loads) -> tuple[str, float, dict[str, Any]]:
    """The task's main figure by name, and all of them."""
    from maskwright.evaluate import evaluate
    from maskwright.metrics.by_task import main_figure
    from maskwright.protocols import task_of

    name = main_figure(task_of(model))
    options = {"device": args.device, "workers": args.workers, "max_per_image": args.max_per_image}
    found = evaluate(model, val, progress=Counter(), **options)
    group, _, own = name.partition(".")
    return name, float(found[group][own]), found


def _figures(args: argparse.Namespace, model: Any, val: Loads) -> dict[str, Any]:
    """The task's main figure, and the size."""
    from maskwright.metrics.computation import count_parameters, file_size

    name, value, found = _main(args, model, val)
    model.to("cpu")
    exported = next(model.parameters(), None) is None
    counted = {} if exported else count_parameters(model)
    return {
        name: value,
        "parameters": counted.get("parameters"),
        "bytes": file_size(args.out / "exported") if exported else counted["bytes"],
        "figures": found,
    }


def pictures_of(val: Loads, most: int = 8) -> list[Path]:
    """Some of the files, evenly spread."""
    count = min(most, len(val))
    paths = [val.record(i * len(val) // count).path for i in range(count)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"to be timed, pictures must be files, but there is none at {missing[0]}.")
    return paths


def _times(args: argparse.Namespace, models: dict[str, Any], pictures: Sequence[Path]) -> dict[str, Any]:
    """Milliseconds a picture from file to scene, the models taking turns."""
    from maskwright.infer.timing import time_files
    from maskwright.protocols import task_of

    threshold = 0.5 if task_of(models["before"]) == "instance" else None
    with Line("time", "runs") as line:
        found = time_files(
            models,
            pictures,
            rounds=args.repeat,
            warmup=2,
            device=args.device,
            score_threshold=threshold,
            precision="32",
            progress=line,
        )
    return {
        name: {**own["end_to_end"], "network": own["stages"]["network"]["p50"], "threads": own["threads"]}
        for name, own in found.items()
    }


def _report(
    args: argparse.Namespace,
    stages: dict[str, dict[str, Any]],
    times: dict[str, Any],
    widths: dict[str, Any],
    train: Loads,
    val: Loads,
) -> dict[str, Any]:
    last = [name for name in stages if name != "quantized"][-1]
    main = next(iter(stages["before"]))
    lost = stages["before"][main] - stages["quantized" if "quantized" in stages else last][main]
    medians = {name: own["p50"] for name, own in times.items()}
    return {
        "weights": args.weights,
        "prune": args.prune,
        "by": args.by,
        "quantize": args.quantize,
        "main": main,
        "stages": stages,
        "lost": lost,
        "milliseconds": times,
        "speedup": {name: medians["before"] / value for name, value in medians.items() if name != "before"},
        "widths": widths,
        "measured_on_what_it_learned_from": _same(train, val),
    }


def _same(a: Loads, b: Loads) -> bool:
    return len(a) == len(b) and all(a.record(i).key == b.record(i).key for i in range(len(a)))


def _text(report: dict[str, Any], args: argparse.Namespace) -> str:
    main, times = report["main"], report["milliseconds"]
    last = [name for name in report["stages"] if name != "quantized"][-1]
    rows = [("", main, "Mpar", "MB", "ms", "network ms", "faster")]
    for name, own in report["stages"].items():
        key = {"before": "before", last: "after", "quantized": "quantized"}.get(name)
        time = times.get(key) if key is not None else None
        rows.append(
            (
                name,
                f"{own[main]:.4f}",
                "-" if own["parameters"] is None else f"{own['parameters'] / 1e6:.2f}",
                f"{own['bytes'] / 1e6:.1f}",
                "-" if time is None else f"{time['p50']:.1f}",
                "-" if time is None else f"{time['network']:.1f}",
                "-" if key in (None, "before") else f"{report['speedup'][key]:.2f}x",
            )
        )
    lines = [aligned(rows, right=range(1, len(rows[0])))]
    if report["measured_on_what_it_learned_from"] and "tuned" in report["stages"]:
        lines.append("measured on the pictures that it was tuned on, which flatters it: give --val.")
    integers = report["int8"]
    if integers is not None:
        kept = f"; in fp32 stay {', '.join(integers['without'])}" if integers["without"] else ""
        lines.append(f"int8 against the same program in fp32: {integers['int8']:.4f}, {integers['fp32']:.4f}{kept}")
        blamed = sorted(integers["culprits"].items(), key=lambda item: -item[1])
        lines += [f"  {part} alone in fp32: {value:+.4f}" for part, value in blamed]
    lines.append(f"written to {args.out}: maskwright predict IMAGES --weights {args.out}")
    return "\n".join(lines)
