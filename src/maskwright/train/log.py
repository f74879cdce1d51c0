"""What a run tells: a line or a bar on stderr, CSV files, TensorBoard, pictures, and whoever tracks experiments."""

from __future__ import annotations

import csv
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from maskwright.draw.sheet import save_jpeg
from maskwright.storage import replacing
from maskwright.train.loggers import Told, Tracker

LINE_EVERY = 30.0
"""Seconds between lines where stderr is not a terminal."""

TRACK_EVERY = 5.0
"""Seconds between what trackers are told of training steps: the mean over the steps since."""


class Log:
    """The log of one run directory: ``log.csv``, ``evaluations.csv``, ``tensorboard/`` and ``samples/``.

    Args:
        out: the run directory.
        step: the step resumed from; what the files say of later ones is cut off. 0 starts anew.
        steps: steps in all, 0 when the clock decides.
        done: from 0 to 1, how far the run is already.
        quiet: nothing on stderr.
        trackers: who else is told, see ``loggers.start``.
    """

    def __init__(
        self,
        out: Path,
        *,
        step: int,
        steps: int,
        done: float,
        quiet: bool = False,
        trackers: Mapping[str, Tracker] | None = None,
    ) -> None:
        self.out, self.steps = out, steps
        self.quiet = quiet
        self._table = _Table(out / "log.csv", step)
        self._evaluations = _Table(out / "evaluations.csv", step)
        # It has no types, and takes a second to import.
        writer: Any = import_module("tensorboardX").SummaryWriter
        self._board = writer(str(out / "tensorboard"), purge_step=step + 1 if step else None)
        self._recent: deque[tuple[float, int]] = deque(maxlen=50)
        self._trackers = Told(trackers or {}, self.say)
        self._means: dict[str, tuple[float, int]] = {}
        self._tracked = 0.0
        self._told = time.monotonic()
        self._begun = (time.monotonic(), done)
        terminal = sys.stderr.isatty() and not quiet
        form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
        self._bar = tqdm(total=1.0, initial=done, bar_format=form, mininterval=0.2) if terminal else None

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        self._board.close()
        self._trackers.close(finished=kind is None)

    def step(self, step: int, done: float, values: Mapping[str, float], *, images: int, seconds: float) -> None:
        """Tell of a finished step.

        Args:
            step: its number, from 1.
            done: how far the run is, from 0 to 1.
            values: losses and rates by name.
            images: images it saw.
            seconds: how long it took.
        """
        self._table.add(step, values)
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        if self._trackers:
            self._track(step, values)
        self._recent.append((seconds, images))
        now = time.monotonic()
        if self._bar is None and (self.quiet or now - self._told < LINE_EVERY):
            return
        pace = sum(n for _, n in self._recent) / max(1e-9, sum(t for t, _ in self._recent))
        of = f"/{self.steps}" if self.steps else ""
        line = f"step {step}{of}  loss {values['loss']:.4g}  {pace:.1f} images/s"
        if self._bar is not None:
            self._bar.set_description_str(line, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        self._told = now
        self.say(f"{100 * done:3.0f} %  {line}  ETA {self._remaining(now, done)}")

    def evaluation(self, step: int, figures: Mapping[str, Any]) -> None:
        """Tell of an evaluation; ``figures`` may be nested, and ``per_class`` is left out."""
        flat = dict(flatten(figures))
        self._evaluations.add(step, flat)
        for name, value in flat.items():
            self._board.add_scalar(f"val/{name}", value, step)
        self._trackers.figures(step, {f"val/{name}": value for name, value in flat.items()})
        known = [f"{name} {flat[name]:.4f}" for name in _TOLD if name in flat]
        self.say(f"step {step}: {'  '.join(known) or ', '.join(f'{k} {v:.4g}' for k, v in flat.items())}")

    def samples(self, step: int, picture: np.ndarray) -> None:
        """Keep what ``Samples`` drew at an evaluation, uint8 [H, W, 3]: ``samples/step-STEP.jpg``."""
        path = self.out / "samples" / f"step-{step:08d}.jpg"
        save_jpeg(path, picture)
        self._board.add_image("val/samples", picture, step, dataformats="HWC")
        self._trackers.picture(step, path)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._board.flush()

    def say(self, text: str) -> None:
        """One line on stderr, above the bar."""
        if not self.quiet:
            tell(text)

    def _track(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            total, count = self._means.get(name, (0.0, 0))
            self._means[name] = (total + value, count + 1)
        now = time.monotonic()
        if now - self._tracked >= TRACK_EVERY:
            self._tracked = now
            self._trackers.figures(step, {f"train/{name}": total / n for name, (total, n) in self._means.items()})
            self._means.clear()

    def _remaining(self, now: float, done: float) -> str:
        start, first = self._begun
        if done <= first:
            return "?"
        seconds = int((now - start) * (1 - done) / (done - first))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def tell(text: str) -> None:
    """Print one line on stderr without breaking a progress bar."""
    tqdm.write(text, file=sys.stderr)


_TOLD = (
    "panoptic.PQ", "panoptic.PQ_things", "panoptic.PQ_stuff", "semantic.mIoU", "semantic.pixel_accuracy", "mask.AP",
    "mask.AP50", "box.AP",
)  # fmt: skip
"""The figures of an evaluation that are said as it ends."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a nested mapping by dotted name; ``per_class`` is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping) and name != "per_class":
            yield from flatten(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


class _Table:
    """A CSV file with a row a step, on disk row by row; numbers are written so that they read back exactly."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self._names = self._cut(step)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        lines: list[str] = []
        if self._names is None:
            self._names = ["step", *values]
            lines.append(",".join(self._names))
        row = {"step": str(step), **{name: repr(float(value)) for name, value in values.items()}}
        lines.append(",".join(row.get(name, "") for name in self._names))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def _cut(self, step: int) -> list[str] | None:
        """Keep the whole rows up to ``step``; return the columns, ``None`` where there is no table yet."""
        if step == 0 or not self.path.exists():
            self.path.unlink(missing_ok=True)
            return None
        with open(self.path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if not rows:
            return None
        kept = [row for row in rows[1:] if len(row) == len(rows[0]) and row[0].isdigit() and int(row[0]) <= step]
        with replacing(self.path) as beside:
            beside.write_text("".join(",".join(row) + "\n" for row in [rows[0], *kept]), encoding="utf-8")
        return rows[0]
