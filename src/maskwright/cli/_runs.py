"""Run directories as the commands on runs see them: read from their files, without torch."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from maskwright.errors import InputError
from maskwright.storage import read_json

ACTIVE = 300.0
"""Seconds since its log was written within which an unfinished run is taken to be going on."""

_MAIN = ("mask.AP", "panoptic.PQ", "semantic.mIoU")
_DEEP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run directory.

    Attributes:
        path: where it is.
        described: ``options.json`` as it is.
        step: the last step in its log; steps: how many there are to be, 0 where the clock decides.
        seconds: training time so far.
        state: finished, active (its log was written in the last minutes) or interrupted.
        main: the figure that chooses its best weights, such as ``mask.AP``; ``None`` without evaluations.
        best: that figure's largest value, and the step of it.
        evaluations: step -> figures by name.
    """

    path: Path
    described: dict[str, Any]
    step: int
    steps: int
    seconds: float
    state: str
    main: str | None
    best: float | None
    best_step: int | None
    evaluations: dict[int, dict[str, float]]

    @property
    def options(self) -> dict[str, Any]:
        """The options of the training and of what it minimized."""
        return {**self.described.get("options", {}), **(self.described.get("objective") or {})}

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self.described.get("model", {}).get("model", "?"))

    @property
    def data(self) -> dict[str, Any]:
        """What is known of its data, by role."""
        return dict(self.described.get("data") or {})

    @property
    def git(self) -> dict[str, Any]:
        """The git state it was started in."""
        return dict(self.described.get("git") or {})

    @property
    def at_best(self) -> dict[str, float]:
        """All figures of the best evaluation."""
        return {} if self.best_step is None else self.evaluations[self.best_step]


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run directory."""
    return (path / "options.json").is_file()


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, each a run itself or holding some, up to three levels deep; by path.

    Raises:
        InputError: a folder is missing or holds no run.
    """
    paths: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"runs lie in directories, but {folder} is none.")
        found = sorted(_search(folder, _DEEP))
        if not found:
            raise InputError(f"{folder} holds no run: a run directory has an options.json in it.")
        paths.update(dict.fromkeys(found))
    return [read_run(path) for path in paths]


def read_run(path: Path) -> Run:
    """What a run directory says.

    Raises:
        InputError: it is no run directory, or its ``options.json`` is damaged.
    """
    if not is_run(path):
        raise InputError(f"a run directory has an options.json in it, but {path} has none.")
    described = read_json(path / "options.json")
    if not isinstance(described, dict):
        raise InputError(f"{path / 'options.json'} must hold an object, got {type(described).__name__}.")
    described = cast("dict[str, Any]", described)
    step, seconds = _log(path / "log.csv")
    evaluations = read_evaluations(path)
    options = dict(described.get("options", {}))
    steps = int(dict(described.get("chosen", {})).get("steps") or 0)
    main = main_of(options, evaluations)
    known = {at: row[main] for at, row in evaluations.items() if main is not None and main in row}
    best_step = max(known, key=lambda at: (known[at], -at)) if known else None
    return Run(
        path=path,
        described=described,
        step=step,
        steps=steps,
        seconds=seconds,
        state=_state(path, step, steps, seconds, float(options.get("minutes") or 0)),
        main=main,
        best=None if best_step is None else known[best_step],
        best_step=best_step,
        evaluations=evaluations,
    )


def read_evaluations(path: Path) -> dict[int, dict[str, float]]:
    """``evaluations.csv`` of a run: step -> figures by name; rows cut off in the middle are left out."""
    out: dict[int, dict[str, float]] = {}
    for row in _rows(path / "evaluations.csv"):
        figures = {name: _number(value) for name, value in row.items() if name != "step"}
        out[int(row["step"])] = {name: value for name, value in figures.items() if value is not None}
    return out


def main_of(options: Mapping[str, Any], evaluations: Mapping[int, Mapping[str, float]]) -> str | None:
    """The figure that chooses between the weights of a run."""
    named = str(options.get("best_by") or "auto")
    if named != "auto":
        return named
    last: Mapping[str, float] = list(evaluations.values())[-1] if evaluations else {}
    return next((name for name in _MAIN if name in last), None)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def changed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that differ from the defaults of today."""
    from maskwright.cli._options import fields

    classes = (("train/options.py", "TrainOptions"), ("objectives/options.py", "ObjectiveOptions"))
    defaults = {field.name: field.default for each in classes for field in fields(*each)}
    return {name: value for name, value in options.items() if _plain(value) != _plain(defaults.get(name))}


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of cells as lines; ``right`` names the columns whose cells end below one another."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines: list[str] = []
    for row in rows:
        cells = [f"{c:>{w}}" if i in right else f"{c:<{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _search(folder: Path, deep: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    if deep:
        with os.scandir(folder) as found:
            inner = [Path(entry.path) for entry in found if entry.is_dir() and not entry.name.startswith(".")]
        for path in inner:
            yield from _search(path, deep - 1)


def _state(path: Path, step: int, steps: int, seconds: float, minutes: float) -> str:
    over = (steps and step >= steps) or (minutes and seconds >= 60 * minutes)
    if (path / "summary.json").exists() or (over and (path / "last.safetensors").exists()):
        return "finished"
    log = path / "log.csv"
    since = time.time() - (log if log.exists() else path / "options.json").stat().st_mtime
    return "active" if since < ACTIVE else "interrupted"


def _log(path: Path) -> tuple[int, float]:
    step, seconds = 0, 0.0
    for row in _rows(path):
        step = int(row["step"])
        seconds += _number(row.get("seconds", "")) or 0.0
    return step, seconds


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if not path.exists():
        return
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        head = next(rows, None)
        for row in rows:
            if head and len(row) == len(head) and row[0].isdigit():
                yield dict(zip(head, row, strict=True))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    return list(cast("Sequence[Any]", value)) if isinstance(value, tuple | list) else value
