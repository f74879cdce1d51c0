"""How long pictures take from file to scene, stage by stage: the steps of ``predictor``, watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

from torch import nn

from maskwright.errors import InputError
from maskwright.infer.predictor import one_by_one
from maskwright.infer.ready import Sizing
from maskwright.metrics.computation import Stopwatch
from maskwright.ops.hardware import choose_device
from maskwright.protocols import Model
from maskwright.structures import Images, Scene


def time_files(
    models: Mapping[str, Model],
    paths: Sequence[Path],
    *,
    rounds: int = 20,
    warmup: int = 2,
    resize: Sizing = "default",
    score_threshold: float | None = None,
    max_per_image: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure models on files, one at a time; where there are several models they take turns, picture by picture.

    Args:
        models: by the name that the answer shall have.
        paths: pictures.
        rounds: how often each picture is measured.
        warmup: how often, at least, each model runs before it is measured, on the first pictures in turn.
        resize, score_threshold, max_per_image, device, precision: as ``predict`` takes them.
        progress: called with (runs done, runs in all).

    Returns:
        By name what ``Stopwatch.compute`` gives, with the stages of ``predictor.STAGES``, and ``objects``: how many
        objects a picture has on average (``None`` where scenes are maps).

    Raises:
        InputError: no pictures, one that cannot be read, or an option out of range.
    """
    if not paths:
        raise InputError("to measure a model, name at least one picture.")
    if rounds < 1 or warmup < 0:
        raise InputError(f"rounds must be 1 or more and warmup 0 or more, got {rounds} and {warmup}.")
    where = choose_device(device)
    options: dict[str, Any] = {"score_threshold": score_threshold, "max_per_image": max_per_image}
    steps = {
        name: one_by_one(model, resize=resize, device=where, precision=precision, **options)
        for name, model in models.items()
    }
    watches = {name: Stopwatch(device=where) for name in models}
    found: dict[str, list[int]] = {name: [] for name in models}
    total, done = len(models) * (warmup + rounds * len(paths)), 0
    first = [(False, paths[i % len(paths)]) for i in range(warmup)]
    order = [*first, *((True, path) for _ in range(rounds) for path in paths)]
    for counts, path in order:
        for name, step in steps.items():
            watch = watches[name] if counts else Stopwatch(device=where)
            with watch.run():
                scene = step(path, watch.stage)
            if counts:
                found[name].append(_objects(scene))
            done += 1
            if progress is not None:
                progress(done, total)
    return {name: watch.compute() | {"objects": _mean(found[name])} for name, watch in watches.items()}


def inputs_of(model: Model, path: Path, *, resize: Sizing = "default", device: str = "auto") -> Images:
    """What ``predict`` gives to the network for a file: for counting operations.

    Raises:
        InputError: as ``time_files``.
    """
    seen: list[Images] = []
    network = cast(nn.Module, model)

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    hook = network.register_forward_pre_hook(keep)
    try:
        one_by_one(model, resize=resize, device=choose_device(device), precision="32")(path, lambda _: nullcontext())
    finally:
        hook.remove()
    return seen[0]


def repeated(
    model: Model, path: Path, *, device: str = "auto", precision: str = "auto", **options: Any
) -> Callable[[], object]:
    """A call that finds what is in a file, each time from the file on: for measuring memory."""
    step = one_by_one(model, device=choose_device(device), precision=precision, **options)

    def call() -> Scene:
        return step(path, lambda _: nullcontext())

    return call


def _objects(scene: Scene) -> int:
    return -1 if scene.segments is None else len(scene.segments)


def _mean(counts: Sequence[int]) -> float | None:
    return None if min(counts) < 0 else sum(counts) / len(counts)
