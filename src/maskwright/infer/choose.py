"""How to compute on this machine, chosen by measurement: device, precision, memory layout.

The ways that the machine has are run in turns on the same pictures. One that does not find what plain fp32 finds is
refused however fast it is; of the others the fastest is taken. What was chosen is kept, so that it is measured once.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import nn

from maskwright.errors import InputError
from maskwright.infer.predictor import one_by_one
from maskwright.infer.ready import Sizing
from maskwright.metrics.alike import TOLERANCES, compare
from maskwright.ops.hardware import choose_device, has_bf16
from maskwright.protocols import Model
from maskwright.storage import read_json, write_json
from maskwright.structures import Scene

PICTURES, ROUNDS = 3, 2


@dataclass(frozen=True, slots=True)
class Way:
    """One way of computing: where, in ``"32"`` or ``"bf16"``, and whether channels are the innermost axis."""

    device: str
    precision: str = "32"
    channels_last: bool = False

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}" + ", channels last" * self.channels_last


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and why.

    Attributes:
        way: the fastest of those that find the same.
        milliseconds: of each way a picture, median.
        refused: why other ways were not taken, by their name.
        known: whether it was measured before.
    """

    way: Way
    milliseconds: dict[str, float] = field(default_factory=dict[str, float])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    known: bool = False

    def __str__(self) -> str:
        ranked = sorted(self.milliseconds.items(), key=lambda item: item[1])
        figures = "; ".join(f"{name}: {value:.0f} ms" for name, value in ranked)
        refused = "".join(f"; not {name}: {why}" for name, why in self.refused.items())
        return f"computing on {self.way} ({'measured before' if self.known else 'measured'}: {figures}{refused})"


def ways() -> tuple[list[Way], dict[str, str]]:
    """The ways of this machine, plain fp32 first, and why others are none."""
    device = choose_device("auto")
    found = [Way(device.type)]
    refused: dict[str, str] = {}
    found.append(Way(device.type, channels_last=True))
    if has_bf16(device):
        found += [Way(device.type, "bf16"), Way(device.type, "bf16", channels_last=True)]
    else:
        refused[str(Way(device.type, "bf16"))] = "no bf16 in hardware"
    return found, refused


def choose(
    model: Model,
    pictures: Sequence[Path],
    *,
    resize: Sizing = "default",
    rounds: int = ROUNDS,
    candidates: Sequence[Way] | None = None,
    kept: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Choice:
    """Measure the ways of this machine on the first pictures, and leave the model as the best of them wants it.

    Args:
        model: moved and laid out in memory as chosen.
        pictures: files; ``PICTURES`` of them are looked at, those that cannot be read left out.
        resize: as ``predict`` takes it.
        rounds: how often each way sees each picture, after once for warming up.
        candidates: ways instead of ``ways()``; the first is what the others must equal.
        kept: file of choices made before; what is there for this model and machine is taken, else the new one is added.
        say: told before it measures.

    Raises:
        InputError: no picture can be read.
    """
    first, refused = (list(candidates), {}) if candidates is not None else ways()
    before = None if kept is None else known(model, kept, resize=resize, candidates=first)
    if before is not None:
        return before
    if say is not None:
        say(f"measuring {len(first)} ways to compute; the choice is kept")
    choice = _measured(model, pictures, first, refused, resize, rounds)
    lay_out(model, choice.way)
    if kept is not None:
        key = _key(model, first, resize)
        told = {"way": asdict(choice.way), "milliseconds": choice.milliseconds, "refused": choice.refused}
        write_json(kept, {**_read(kept), key: told})
    return choice


def known(
    model: Model, kept: Path, *, resize: Sizing = "default", candidates: Sequence[Way] | None = None
) -> Choice | None:
    """What ``choose`` chose before for this model and machine, the model left as it wants it; ``None`` if nothing."""
    if not kept.is_file():
        return None
    found = _read(kept).get(_key(model, ways()[0] if candidates is None else candidates, resize))
    if found is None:
        return None
    choice = Choice(Way(**found["way"]), found["milliseconds"], found["refused"], known=True)
    lay_out(model, choice.way)
    return choice


def lay_out(model: Model, way: Way) -> None:
    """Move a model and lay it out in memory."""
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    cast(Any, model).to(device=choose_device(way.device), memory_format=layout)


def _measured(
    model: Model,
    pictures: Sequence[Path],
    candidates: Sequence[Way],
    refused: dict[str, str],
    resize: Sizing,
    rounds: int,
) -> Choice:
    steps = {way: one_by_one(model, resize=resize, device=way.device, precision=way.precision) for way in candidates}
    found: dict[Way, list[Scene]] = {way: [] for way in candidates}
    spent: dict[Way, list[float]] = {way: [] for way in candidates}
    seen: list[Path] = []
    for path in pictures:
        if len(seen) == PICTURES:
            break
        try:
            scenes = [_run(model, way, steps[way], path)[0] for way in candidates]
        except InputError:
            continue
        seen.append(path)
        for way, scene in zip(candidates, scenes, strict=True):
            found[way].append(scene)
    if not seen:
        raise InputError("to choose how to compute, at least one of the pictures must be readable, but none is.")
    for _ in range(rounds):
        for path in seen:
            for way in candidates:
                spent[way].append(_run(model, way, steps[way], path)[1])
    plain, refused = found[candidates[0]], dict(refused)
    alike = [candidates[0]]
    for way in candidates[1:]:
        tolerance = TOLERANCES["fp32" if way.precision == "32" else "fp16"]
        agreed = compare(found[way], plain, tolerance, threshold=model.score_threshold, limit=model.max_per_image)
        if agreed.holds(tolerance):
            alike.append(way)
        else:
            refused[str(way)] = f"finds {agreed.shared:.1%} of the same objects, {agreed.pixels:.1%} of the same pixels"
    figures = {str(way): 1000 * median(spent[way]) for way in alike}
    return Choice(min(alike, key=lambda way: figures[str(way)]), figures, refused)


def _run(model: Model, way: Way, step: Any, path: Path) -> tuple[Scene, float]:
    lay_out(model, way)
    _wait(way)
    begun = time.perf_counter()
    scene = step(path, _unwatched)
    _wait(way)
    return scene, time.perf_counter() - begun


def _wait(way: Way) -> None:
    if way.device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def _unwatched(name: str) -> Generator[None]:
    yield


def _read(kept: Path) -> dict[str, Any]:
    """Choices made before; a damaged file holds none, for they can be made again."""
    try:
        found: Any = read_json(kept) if kept.is_file() else {}
    except InputError:
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _key(model: Model, candidates: Sequence[Way], resize: Sizing) -> str:
    """What a choice holds for: the weights, the machine, the library, the threads, the ways, the size."""
    digest = hashlib.sha256()
    for name, value in cast(nn.Module, model).state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    machine = [platform.machine(), platform.processor(), _cpu(), torch.__version__, torch.get_num_threads()]
    for part in (*machine, *candidates, resize, model.resize):
        digest.update(repr(str(part)).encode())
    return digest.hexdigest()[:32]


def _cpu() -> str:
    """What the processor calls itself, and how many there are."""
    name = ""
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{name} x {os.cpu_count()}"
