"""``maskwright search``: the most accurate form of a model that keeps a budget of time on this machine.

Forms differ in the size of the pictures, in how many proposals a second stage looks at, and in width: channels pruned
by ``maskwright compress``, and tuned there. Every form is timed from file to masks on this machine, the forms taking
turns. Those within the budget are measured on a part of the data first; the best of them on all of it.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskwright.cli import _launch
from maskwright.cli._runs import aligned
from maskwright.cli.benchmark import milliseconds
from maskwright.cli.progress import Download, Line
from maskwright.errors import InputError

_FINAL = 3
"""Forms that are measured on all of the data."""


@dataclass(slots=True)
class Form:
    """A form of the model, and what was measured of it; times in milliseconds a picture."""

    scale: float
    proposals: int | None
    prune: float
    p50: float = 0.0
    p90: float = 0.0
    first: float | None = None
    figure: float | None = None

    @property
    def name(self) -> str:
        """As tables have it."""
        parts = [f"{self.scale:g}x"] + [f"{self.proposals} proposals"] * (self.proposals is not None)
        return ", ".join(parts + [f"pruned {self.prune:g}"] * (self.prune > 0))

    @property
    def known(self) -> float | None:
        """The best figure there is of it."""
        return self.first if self.figure is None else self.figure


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("weights", metavar="W", help="a run directory, a checkpoint, a published name, or embedded")
    parser.add_argument("--model", help="the model of a checkpoint that does not say it itself (see maskwright models)")
    parser.add_argument(
        "--budget",
        type=milliseconds,
        required=True,
        metavar="TIME",
        help="of a picture, file to masks: 30ms, 0.5s",
    )
    parser.add_argument(
        "--val", required=True, metavar="PATH", help="annotations to measure on, in any format; PATH@SPLIT for a split"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="annotations to tune pruned forms on; needed for --prune above 0"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: where the format has them)"
    )
    parser.add_argument(
        "--scales", default="0.5,0.7,1", metavar="X,X", help="of the model's own test size (default: 0.5,0.7,1)"
    )
    parser.add_argument(
        "--proposals", metavar="N,N", help="of a second stage, after suppression (default: the model's own and a third)"
    )
    parser.add_argument("--prune", default="0", metavar="X,X", help="shares of channels to take out (default: 0)")
    parser.add_argument("--distill", metavar="TEACHER", help="tune pruned forms with a teacher, such as W itself")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make, new or empty")
    parser.add_argument("--max-per-image", type=int, default=100, metavar="N", help="objects an image (default: 100)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="time each picture so often (default: 5)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: auto, the GPU if there is one)")
    parser.add_argument("--precision", choices=("auto", "32", "bf16"), default="auto", help="default: auto")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    parser.add_argument("--lenient", action="store_true", help="leave broken objects out instead of refusing the file")
    parser.add_argument("--commercial", action="store_true", help="refuse weights that may not be used commercially")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    _launch.add_passed_on(parser)


def run(args: argparse.Namespace) -> int:
    """Search; 1 if no form keeps the budget."""
    scales, prunes = _numbers(args.scales, "--scales"), _numbers(args.prune, "--prune", least=0.0, below=1.0)
    if max(prunes) > 0 and args.data is None:
        raise InputError("pruned forms must be tuned: give --data to do it on, or leave out --prune.")
    if max(prunes) == 0 and (args.rest or args.distill):
        raise InputError("--distill and --with say how to tune pruned forms, but --prune asks for none.")
    if args.repeat < 1 or args.max_per_image < 1:
        raise InputError(f"--repeat and --max-per-image must be 1 or more, got {args.repeat}, {args.max_per_image}.")
    from maskwright import zoo
    from maskwright.cli.compress import pictures_of
    from maskwright.data.opening import open_split
    from maskwright.data.task_views import for_task
    from maskwright.protocols import task_of
    from maskwright.train.directory import prepare
    from maskwright.weights import store

    named = (args.weights,) if args.model is None else (args.model, args.weights)
    model: Any = zoo.load(*named, commercial=args.commercial, progress=Download())
    if next(model.parameters(), None) is None:
        raise InputError(f"{args.weights} is an exported program, which cannot be changed. Name what it was made of.")
    val = for_task(open_split(args.val, "val", images=args.images, strict=not args.lenient), task_of(model))
    proposals = _proposals(args, model)
    prepare(args.out, resume=False)
    (args.out / "checkpoints").rmdir()
    widths = {share: model if share == 0 else _pruned(args, share) for share in prunes}
    forms = [Form(s, n, share) for share in prunes for s in scales for n in proposals]
    models = {form.name: form_of(widths[form.prune], form) for form in forms}

    _time(args, forms, models, pictures_of(val))
    fitting = sorted((form for form in forms if form.p50 <= args.budget), key=lambda form: form.p50)
    _choose(fitting, _measuring(args, models, val), len(val))
    best = max((form for form in fitting if form.figure is not None), key=lambda form: form.figure or 0.0, default=None)
    if best is not None:
        chosen = models[best.name].cpu()
        card = {**(getattr(model, "card", None) or {}), "searched": f"{best.name}, within {args.budget:g} ms"}
        store.save(args.out / "best.safetensors", chosen.state_dict(), {**zoo.describe(chosen), "card": card})
    return _report(args, forms, best, _figure(models))


def form_of(model: Any, form: Form) -> Any:
    """The model in that form; weights are shared, and its description says how to build it."""
    own_tensors = [*model.parameters(), *model.buffers()]
    out = copy.deepcopy(model, {id(tensor): tensor for tensor in own_tensors})
    own = model.resize
    short, long = (None if side is None else max(1, round(side * form.scale)) for side in (own.short, own.long))
    out.resize = replace(own, short=short, long=long, scale=own.scale * form.scale)
    if form.proposals is not None:
        out.proposals_test = (model.proposals_test[0], form.proposals)
        name, options = out.built
        out.built = (name, {**options, "proposals_test": out.proposals_test})
    return out


def frontier(forms: Sequence[Form]) -> set[str]:
    """Names of the forms than which none is both faster and better; of those that were measured."""
    found: set[str] = set()
    best = -1.0
    for form in sorted((f for f in forms if f.known is not None), key=lambda f: (f.p50, -(f.known or 0.0))):
        if (form.known or 0.0) > best:
            best = form.known or 0.0
            found.add(form.name)
    return found


# ---- steps ----------------------------------------------------------------------------------------------------------


def _numbers(text: str, flag: str, *, least: float = 0.05, below: float = 8.0) -> list[float]:
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < least or not found[-1] < below:
        raise InputError(f"{flag} must be numbers from {least:g} to below {below:g} with commas between, got {text!r}.")
    return found


def _proposals(args: argparse.Namespace, model: Any) -> list[int | None]:
    own = getattr(model, "proposals_test", None)
    if own is None:
        if args.proposals is not None:
            raise InputError(f"--proposals are for models with a second stage, and {type(model).__name__} has none.")
        return [None]
    if args.proposals is None:
        return sorted({max(1, own[1] // 3), own[1]})
    return [int(n) for n in _numbers(args.proposals, "--proposals", least=1, below=100_000)]


def _pruned(args: argparse.Namespace, share: float) -> Any:
    """The model that ``maskwright compress`` makes."""
    from maskwright import zoo
    from maskwright.cli import compress

    out = args.out / f"pruned-{share:g}"
    words = [args.weights, "--prune", f"{share:g}", "--data", args.data, "--val", args.val, "--out", str(out)]
    words += [] if args.model is None else ["--model", args.model]
    words += [] if args.images is None else ["--images", str(args.images)]
    words += [] if args.distill is None else ["--distill", args.distill]
    words += ["--lenient"] * args.lenient + ["--commercial"] * args.commercial
    words += ["--device", args.device, "--workers", str(args.workers), "--repeat", "1"]
    words += ["--max-per-image", str(args.max_per_image)] + (["--with", *args.rest] if args.rest else [])
    parser = argparse.ArgumentParser(prog="maskwright compress")
    compress.configure(parser)
    with redirect_stdout(sys.stderr):
        compress.run(parser.parse_args(words))
    return zoo.load(out / "best.safetensors")


def _time(args: argparse.Namespace, forms: Sequence[Form], models: dict[str, Any], pictures: Sequence[Path]) -> None:
    from maskwright.infer.timing import time_files
    from maskwright.protocols import task_of

    threshold = 0.5 if task_of(models[forms[0].name]) == "instance" else None
    with Line("time", "runs") as line:
        found = time_files(
            models, pictures, rounds=args.repeat, warmup=1, device=args.device, score_threshold=threshold,
            precision=args.precision, progress=line,
        )  # fmt: skip
    for form in forms:
        times = found[form.name]["end_to_end"]
        form.p50, form.p90 = times["p50"], times["p90"]


def _measuring(args: argparse.Namespace, models: dict[str, Any], val: Any) -> Callable[[Form, int], float]:
    """What measures a form on so many images, evenly spread."""
    import numpy as np

    from maskwright.cli.evaluate import Counter
    from maskwright.data.source import Subset
    from maskwright.evaluate import evaluate

    group, _, own = _figure(models).partition(".")

    def measure(form: Form, images: int) -> float:
        some = val if images == len(val) else Subset(val, np.arange(images) * len(val) // images)
        found = evaluate(
            models[form.name], some, progress=Counter(), device=args.device, precision=args.precision,
            workers=args.workers, max_per_image=args.max_per_image,
        )  # fmt: skip
        return float(found[group][own])

    return measure


def _figure(models: dict[str, Any]) -> str:
    from maskwright.metrics.by_task import main_figure
    from maskwright.protocols import task_of

    return main_figure(task_of(next(iter(models.values()))))


def _choose(fitting: Sequence[Form], measure: Callable[[Form, int], float], images: int) -> None:
    """Measure all on a quarter of the data, the best of them on all of it."""
    part = max(1, images // 4)
    if len(fitting) > _FINAL and part < images:
        for form in fitting:
            form.first = measure(form, part)
        fitting = sorted(fitting, key=lambda form: -(form.first or 0.0))[:_FINAL]
    for form in fitting:
        form.figure = measure(form, images)


def _report(args: argparse.Namespace, forms: Sequence[Form], best: Form | None, figure: str) -> int:
    from maskwright.draw.plot import Plot
    from maskwright.storage import replacing, write_json

    edge = frontier(forms)
    with replacing(args.out / "forms.csv") as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scale", "proposals", "pruned", "p50_ms", "p90_ms", f"{figure} of a part", figure, "frontier"])
        for f in forms:
            row = [f.scale, f.proposals, f.prune, round(f.p50, 2), round(f.p90, 2), f.first, f.figure, f.name in edge]
            writer.writerow(["" if value is None else value for value in row])
    measured = sorted((f for f in forms if f.known is not None), key=lambda f: f.p50)
    if measured:
        Plot(
            title=f"{args.weights}: {figure} by time",
            x="ms a picture",
            y=figure,
            points={"measured": [(f.p50, f.known or 0.0) for f in measured]},
            lines={"frontier": [(f.p50, f.known or 0.0) for f in measured if f.name in edge]},
            marks={"budget": args.budget},
        ).save(args.out / "forms.svg")
    rows = [{**{k: getattr(f, k) for k in Form.__slots__}, "name": f.name, "frontier": f.name in edge} for f in forms]
    summary = {"weights": args.weights, "budget_ms": args.budget, "figure": figure, "forms": rows}
    summary["best"] = None if best is None else best.name
    write_json(args.out / "search.json", summary, indent=True)
    if args.json:
        print(json.dumps(summary))
        return 0 if best is not None else 1
    table = [("form", "p50 ms", "p90 ms", "part", figure, "")]
    for form in sorted(forms, key=lambda f: f.p50):
        marks = "best" if best is not None and form.name == best.name else "over" if form.p50 > args.budget else ""
        marks = marks or ("*" if form.name in edge else "")
        part, whole = ("" if value is None else f"{value:.4f}" for value in (form.first, form.figure))
        table.append((form.name, f"{form.p50:.1f}", f"{form.p90:.1f}", part, whole, marks))
    print(aligned(table, right=(1, 2, 3, 4)))
    if best is None:
        least = min(forms, key=lambda form: form.p50)
        print(f"no form keeps {args.budget:g} ms; the fastest is {least.name}: {least.p50:.1f} ms")
        return 1
    print(f"{args.out / 'best.safetensors'}: {best.name}")
    return 0
