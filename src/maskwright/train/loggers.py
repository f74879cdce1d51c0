"""Trackers of experiments by name, beside the log that is always written: MLflow, Weights & Biases, trackio.

Each is an optional extra of the package. What a tracker calls the run is kept in ``trackers.json`` of the run
directory, so that a resumed run goes on in the same place.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from maskwright.errors import InputError
from maskwright.storage import read_json, write_json

PROJECT = "maskwright"
"""The project, or experiment, that runs are filed under."""

_KEPT = "trackers.json"


class Tracker(Protocol):
    """Someone who is told of a run."""

    @property
    def run_id(self) -> str | None:
        """What the tracker calls the run; ``None`` where it goes by the run directory's name."""
        ...

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name, such as ``train/loss`` and ``val/mask.AP``."""
        ...

    def picture(self, step: int, path: Path) -> None:
        """A picture file of the run."""
        ...

    def close(self, *, finished: bool) -> None:
        """The run is over, or was interrupted."""
        ...


def names_of(text: str) -> list[str]:
    """The trackers of ``"mlflow,wandb"``.

    Raises:
        InputError: there is no tracker of a name, or it comes twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--log takes {', '.join(TRACKERS)}, joined by commas, got {name!r}.")
    if len(set(names)) < len(names):
        raise InputError(f"--log names each tracker once, got {text!r}.")
    return names


def library(name: str) -> Any:
    """The library of a tracker.

    Raises:
        InputError: it is not installed; the message names the extra.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"--log {name} needs the library {name}, which cannot be imported ({error}). "
            f"Install it with: pip install 'maskwright[{name}]'"
        ) from error


def check(text: str) -> None:
    """Refuse trackers that there are not, or whose library is missing, before anything else is done."""
    for name in names_of(text):
        library(name)


def start(text: str, out: Path, options: Mapping[str, Any], *, resume: bool = False) -> dict[str, Tracker]:
    """Tell the trackers of ``"mlflow,wandb"`` that a run begins, or goes on.

    Args:
        text: names joined by commas; empty for none.
        out: the run directory; its name is the run's.
        options: what the run is described by; nested names are joined by dots.
        resume: go on in the tracker's own record of the run, where ``out`` says which that is.

    Raises:
        InputError: see ``names_of`` and ``library``; or a tracker refuses, with its own words.
    """
    names = names_of(text)
    libraries = {name: library(name) for name in names}
    kept: dict[str, str] = {}
    if resume and (out / _KEPT).exists():
        kept = dict(read_json(out / _KEPT))
    flat = dict(_flat(options))
    trackers: dict[str, Tracker] = {}
    for name in names:
        try:
            with redirect_stdout(sys.stderr):  # the command line's standard output is for its own result
                tracker = TRACKERS[name](libraries[name], out, flat, kept.get(name))
        except Exception as error:  # whatever a foreign library raises: no network, no key, no server
            for begun in trackers.values():
                begun.close(finished=False)
            raise InputError(f"--log {name} cannot begin: {error}. Mend that, or train without it.") from error
        trackers[name] = tracker
        if tracker.run_id is not None:
            kept[name] = tracker.run_id
    if names:
        write_json(out / _KEPT, kept)
    return trackers


class _MLflow:
    """MLflow's fluent interface; the server is that of ``MLFLOW_TRACKING_URI``, or a folder beside."""

    def __init__(self, mlflow: Any, out: Path, options: Mapping[str, Any], known: str | None) -> None:
        self._mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=known) if known else mlflow.start_run(run_name=out.resolve().name)
        self.run_id: str | None = run.info.run_id
        if not known:  # parameters cannot be changed afterwards
            items = [(name, str(value)[:500]) for name, value in options.items()]
            for first in range(0, len(items), 100):  # a server takes no more at once
                mlflow.log_params(dict(items[first : first + 100]))

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        self._mlflow.log_artifact(str(path), artifact_path="samples")

    def close(self, *, finished: bool) -> None:
        self._mlflow.end_run(status="FINISHED" if finished else "KILLED")


class _Wandb:
    """Weights & Biases; it drops what comes again after a resumption, as its steps only rise."""

    def __init__(self, wandb: Any, out: Path, options: Mapping[str, Any], known: str | None) -> None:
        self._wandb = wandb
        again: dict[str, Any] = {"id": known, "resume": "allow"} if known else {}
        run = wandb.init(project=PROJECT, name=out.resolve().name, dir=str(out), config=dict(options), **again)
        self.run_id: str | None = str(run.id)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self._wandb.log(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        self._wandb.log({"val/samples": self._wandb.Image(str(path))}, step=step)

    def close(self, *, finished: bool) -> None:
        self._wandb.finish(exit_code=0 if finished else 1)


class _Trackio:
    """trackio: a run goes by its name, which trackio changes where another run has it."""

    def __init__(self, trackio: Any, out: Path, options: Mapping[str, Any], known: str | None) -> None:
        self._trackio = trackio
        name = known or out.resolve().name
        run = trackio.init(project=PROJECT, name=name, config=dict(options), resume="allow" if known else "never")
        self.run_id: str | None = str(run.name)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        self._trackio.log({"val/samples": self._trackio.Image(str(path))}, step=step)

    def close(self, *, finished: bool) -> None:
        self._trackio.finish()


TRACKERS: Mapping[str, Callable[[Any, Path, Mapping[str, Any], str | None], Tracker]] = {
    "mlflow": _MLflow,
    "wandb": _Wandb,
    "trackio": _Trackio,
}


class Told:
    """Trackers told together. One that fails is said aloud and left out from then on: a run outlives its network.

    Args:
        trackers: name -> tracker, as ``start`` gives them.
        say: told of a failure.
    """

    def __init__(self, trackers: Mapping[str, Tracker], say: Callable[[str], None]) -> None:
        self._trackers, self._say = dict(trackers), say

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._each(lambda tracker: tracker.figures(step, values))

    def picture(self, step: int, path: Path) -> None:
        """A picture file of a step."""
        self._each(lambda tracker: tracker.picture(step, path))

    def close(self, *, finished: bool) -> None:
        """The run is over; nobody is told anything afterwards."""
        self._each(lambda tracker: tracker.close(finished=finished))
        self._trackers.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                with redirect_stdout(sys.stderr):
                    act(tracker)
            except Exception as error:  # whatever a foreign library raises
                del self._trackers[name]
                self._say(f"{name} failed and is told nothing more: {error}. The log in the run directory goes on.")


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            out += _flat(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            plain = value is None or isinstance(value, str | int | float)
            out.append((f"{prefix}{name}", value if plain else json.dumps(value, default=str)))
    return out
