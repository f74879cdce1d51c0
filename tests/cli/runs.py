"""Run directories as a training leaves them, without one; and a stand-in for ``maskwright train``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskwright.cli import _launch


def leave(
    out: Path,
    figures: Sequence[float] = (),
    *,
    steps: int = 4,
    finished: bool = True,
    options: Mapping[str, Any] | None = None,
    data: str = "0123456789abcdef",
) -> Path:
    """A run directory with an evaluation ``mask.AP`` after each step."""
    out.mkdir(parents=True, exist_ok=True)
    described = {
        "options": {"steps": steps, "learning_rate": 4e-4, **(options or {})},
        "objective": {"balance": "none"},
        "model": {"model": "mask-rcnn-r18"},
        "chosen": {"steps": steps},
        "data": {"train": {"hash": data}, "val": {"hash": data}},
        "git": {"commit": "feedbeef00", "dirty": True},
    }
    (out / "options.json").write_text(json.dumps(described))
    rows = [f"{step + 1},{value},{value + 0.1}" for step, value in enumerate(figures)]
    (out / "evaluations.csv").write_text("\n".join(["step,mask.AP,mask.AP50", *rows]) + "\n")
    log = [f"{step + 1},0.5,1.5" for step in range(steps if finished else max(1, steps // 2))]
    (out / "log.csv").write_text("\n".join(["step,loss,seconds", *log]) + "\n")
    if finished:
        (out / "summary.json").write_text("{}")
    return out


class Trainings:
    """Stands for ``_launch.train``: leaves a run directory whose figures ``figure`` makes of the command's flags."""

    def __init__(self, figure: Any, evaluations: int = 3) -> None:
        self.figure, self.evaluations, self.lines = figure, evaluations, list[dict[str, str]]()

    def __call__(self, line: Sequence[str], out: Path, log: Path, watch: _launch.Watch, **_: Any) -> bool:
        words = list(line)
        flags = {w: words[i + 1] if i + 1 < len(words) else "" for i, w in enumerate(words) if w.startswith("--")}
        self.lines.append(flags)
        last = float(self.figure(flags))
        values = [last * (k + 1) / self.evaluations for k in range(self.evaluations)]
        for count in range(1, self.evaluations + 1):
            leave(out, values[:count], steps=self.evaluations, finished=count == self.evaluations)
            if not watch(count, {"mask.AP": values[count - 1]}):
                return False
        return True
