"""The training loop: one for every objective; it never learns a family's name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any, Protocol, cast

import orjson
import torch
from torch import nn

from maskwright.errors import InputError
from maskwright.metrics.by_task import main_figure
from maskwright.protocols import Model, Objective, task_of
from maskwright.storage import read_json, write_json
from maskwright.structures import Batch
from maskwright.train import checkpoint, distributed, loggers
from maskwright.train.directory import CHECKPOINTS, STAGES, describe, prepare
from maskwright.train.engine import Engine
from maskwright.train.interrupt import Interrupt
from maskwright.train.log import Log, flatten, tell
from maskwright.train.options import TrainOptions
from maskwright.train.samples import Samples
from maskwright.train.schedule import progress, rate
from maskwright.train.window import NotFiniteError
from maskwright.weights import store

SUMMARY = "summary.json"
"""Written at a run's end: a directory with it is whole."""

IN_A_ROW = 10
"""Steps that may be left out one after the other before the run stops all the same."""

Evaluate = Callable[[nn.Module], Mapping[str, Any]]
"""Measures a model; its answer may be nested, as ``{"mask": {"AP": 0.4, ...}, ...}``."""


class Batches(Protocol):
    """A loader that can be resumed: ``state_dict`` tells the place after the batch handed out last."""

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def train(
    objective: Objective | Model,
    batches: Batches,
    *,
    options: TrainOptions,
    out: str | Path,
    evaluate: Evaluate | None = None,
    meta: Mapping[str, Any] | None = None,
    resume: bool = False,
    epoch: int | None = None,
    samples: Samples | None = None,
    about: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train and leave a run directory: weights, log, options, and checkpoints to resume from.

    Call ``seed_all(options.seed)`` before the model is built; the loop seeds again before its first step. Under
    ``torchrun`` or ``srun`` all processes call this alike, each with its own part of the batches; the first one writes.

    Args:
        objective: what a step minimizes; a bare model is trained with ``Supervised``.
        batches: endless or finite (then repeated), resumable.
        options: see ``TrainOptions``.
        out: the run directory, absent or empty unless ``resume``. It gets ``best.safetensors``, ``last.safetensors``,
            ``options.json``, ``log.csv``, ``evaluations.csv``, ``tensorboard/``, ``samples/``, ``checkpoints/``; at the
            end ``summary.json``.
        evaluate: measures the model (with averaged weights if there are some); chooses ``best.safetensors``.
        meta: what the weights say of themselves, see ``zoo.describe``.
        resume: continue from the newest whole checkpoint in ``out``; with none there, start.
        epoch: batches in a pass over the data; needed where ``options`` count epochs.
        samples: what ``evaluate`` showed; drawn after each evaluation.
        about: what ``options.json`` says besides, such as ``provenance``.
        quiet: say nothing on stderr.

    Returns:
        ``{"step", "seconds", "best", "metrics", "out"}``: ``best`` is the largest ``options.best_by``
        (``None`` without), ``metrics`` the last evaluation.

    Raises:
        InputError: ``out`` cannot be used, a loss is not finite (the images are named), an image cannot be read, or
            a checkpoint does not fit. Checkpoints written before stay.
        KeyboardInterrupt: somebody asked to stop; a checkpoint of the last step was written.
    """
    run = _Run(
        objective, batches, options, Path(out), evaluate, dict(meta or {}), resume, epoch, quiet, dict(about or {})
    )
    run.samples = samples
    return run()


class _Run:
    def __init__(
        self,
        objective: Objective | Model,
        batches: Batches,
        options: TrainOptions,
        out: Path,
        evaluate: Evaluate | None,
        meta: dict[str, Any],
        resume: bool,
        epoch: int | None,
        quiet: bool,
        about: Mapping[str, Any],
    ) -> None:
        self.options, self.out, self.evaluate, self.meta, self.batches = options, out, evaluate, meta, batches
        self.place = distributed.place()
        self.first = self.place.first
        self.say: Callable[[str], None] = _nothing if quiet or not self.first else tell
        self.quiet = quiet
        self.steps = steps_of(options, epoch)
        loggers.check(options.log)
        device = distributed.device_of(options.device, self.place)
        self.checkpoints = prepare(out, resume=resume) if self.first else out / CHECKPOINTS
        if options.threads:
            torch.set_num_threads(options.threads)
        self.engine = Engine(objective, options, device, self.place, self.say)
        precision = self.engine.precision
        if self.first:
            became = {"device": str(device), "precision": precision, "steps": self.steps or None}
            describe(out, options, {**became, "processes": self.place.world}, meta, about)
        self.samples: Samples | None = None
        self.resumes = resume
        self.step, self.seconds = 0, 0.0
        self.best: float | None = None
        self.metrics: dict[str, Any] | None = None
        self.kept: tuple[int, float] = (0, 0.0)
        self.pending, self.stale, self.left_out = False, 0, 0
        checkpoint.seed_all(options.seed + self.place.rank)
        if resume:
            self._resume()
        self.position = batches.state_dict()
        many = f", {self.place.world} processes" if self.place.world > 1 else ""
        self.say(
            f"training on {device}{many}, precision {precision}{' (chosen)' if options.precision == 'auto' else ''}"
        )

    # ---- the run ----------------------------------------------------------------------------------------------------

    def __call__(self) -> dict[str, Any]:
        stream = self._endless()
        with ExitStack() as stack:
            stack.enter_context(distributed.waiting(self.options.timeout_minutes))
            log = stack.enter_context(self._log()) if self.first else None
            interrupt = stack.enter_context(Interrupt())
            if self.pending:
                self._evaluate(log)
            while self._done() < 1 and not self._gave_up():
                before = self._done()
                asked = self._step(stream, log, interrupt)
                self.pending = self._evaluates(before)
                if asked:
                    self._save()
                    self._write("last")
                    raise KeyboardInterrupt
                if self.pending:
                    self._save()  # an evaluation may take long, and may fail
                    self._evaluate(log)
                elif self._is_due():
                    if log is not None:
                        log.flush()
                    self._save()
            if self.kept[0] != self.step:
                self._save()
            self._write("last")
        figures = {"step": self.step, "seconds": self.seconds, "best": self.best, "metrics": self.metrics}
        if self.first:
            write_json(self.out / SUMMARY, figures)
        return {**figures, "out": str(self.out)}

    def _log(self) -> Log:
        (self.out / SUMMARY).unlink(missing_ok=True)
        trackers = loggers.start(self.options.log, self.out, read_json(self.out / "options.json"), resume=self.resumes)
        return Log(self.out, step=self.step, steps=self.steps, done=self._done(), quiet=self.quiet, trackers=trackers)

    def _step(self, stream: Iterator[Batch], log: Log | None, interrupt: Interrupt) -> bool:
        """One step; whether somebody asked to stop after it."""
        began = time.perf_counter()
        learning_rate = self.options.learning_rate * rate(self.options, self._done())
        try:
            window = [next(stream) for _ in range(self.options.accumulate)]
        except InputError:
            # The weights are whole, and whoever mends the image will want to go on from here.
            if self.step > self.kept[0] and self.place.world == 1:
                self._save()
            raise
        self.engine.anneal(self._done())
        try:
            values = self.engine.learn(window, self.step + 1, learning_rate)
            self.left_out = 0
        except NotFiniteError as error:
            values = self._left_out(error)
        self.step += 1
        if self.options.replay and values:
            self._report(window, values["loss"])
        self.position = self.batches.state_dict()
        # What hangs on one process's time is the same for all.
        seconds, asked = distributed.largest([time.perf_counter() - began, float(interrupt.asked)], self.engine.device)
        self.seconds += seconds
        if log is not None and values:
            images = self.place.world * sum(len(batch) for batch in window)
            values = {**values, "learning_rate": learning_rate, "seconds": seconds}
            log.step(self.step, self._done(), values, images=images, seconds=seconds)
        return bool(asked)

    def _report(self, window: list[Batch], loss: float) -> None:
        """Tell the order how hard its batches were: an image's loss is that of the step it was in."""
        batches = cast(Any, self.batches)
        for batch in window:
            batches.report([loss] * len(batch) * self.place.world)

    def _left_out(self, error: NotFiniteError) -> dict[str, float]:
        self.left_out += 1
        if self.options.not_finite == "skip" and self.left_out <= IN_A_ROW:
            self.say(f"step {self.step + 1} is left out: {error}")
            return {}
        newest = next(iter(checkpoint.found(self.checkpoints)), None)
        whole = f"The checkpoint of step {checkpoint.step_of(newest)} is whole." if newest else ""
        rest = whole or "No checkpoint was written yet."
        raise NotFiniteError(
            f"step {self.step + 1}: {error} {rest} Look at these images, or lower --learning-rate or set --clip-norm."
        ) from error

    def _endless(self) -> Iterator[Batch]:
        while True:
            any_came = False
            for batch in self.batches:
                any_came = True
                yield batch
            if not any_came:
                raise InputError("training needs batches, but the loader gave none.")

    def _done(self) -> float:
        return progress(self.step, self.steps, self.seconds, self.options.minutes)

    # ---- evaluation and files ---------------------------------------------------------------------------------------

    def _evaluates(self, before: float) -> bool:
        if self.evaluate is None:
            return False
        done, every = self._done(), self.options.evaluate_every
        if done >= 1:
            return True
        if every:
            return self.step % every == 0
        return int(done * self.options.evaluations) > int(before * self.options.evaluations)

    def _evaluate(self, log: Log | None) -> None:
        assert self.evaluate is not None
        random = checkpoint.random_state()
        with self.engine.averaged() as model:
            # Plain values only: a checkpoint is read without running anything.
            self.metrics = orjson.loads(orjson.dumps(self.evaluate(model), option=orjson.OPT_SERIALIZE_NUMPY))
            assert self.metrics is not None
            checkpoint.set_random_state(random)
            if log is not None:
                log.evaluation(self.step, self.metrics)
            figure = dict(flatten(self.metrics)).get(self._best_by())
            better = figure is not None and (self.best is None or figure > self.best)
            self.stale = 0 if better else self.stale + 1
            if better:
                self.best = figure
                self._write("best", model)
        if self.samples is not None and log is not None:
            picture = self.samples.take()
            if picture is not None:
                log.samples(self.step, picture)
        self.pending = False
        self._save()

    def _gave_up(self) -> bool:
        patience = self.options.patience
        if not patience or self.stale < patience:
            return False
        self.say(f"no better {self._best_by()} in {self.stale} evaluations: ending at step {self.step}")
        return True

    def _best_by(self) -> str:
        named = self.options.best_by
        return main_figure(task_of(self.engine.objective.model)) if named == "auto" else named

    def _write(self, name: str, model: nn.Module | None = None) -> None:
        """Weights as others load them: the given model's as they are, or the averaged ones."""
        if not self.first:
            return
        if model is None:
            with self.engine.averaged() as averaged:
                self._write(name, averaged)
            return
        card = {**self.meta.get("card", {}), "step": self.step, "seconds": round(self.seconds, 1)}
        if self.metrics is not None:
            card["metrics"] = dict(flatten(self.metrics))
        store.save(self.out / f"{name}.safetensors", model.state_dict(), {**self.meta, "card": card})

    def _is_due(self) -> bool:
        seconds = self.kept[1]
        every, minutes = self.options.checkpoint_every, self.options.checkpoint_minutes
        return bool((every and self.step % every == 0) or (minutes and self.seconds - seconds >= 60 * minutes))

    def _save(self) -> None:
        state = {
            **self.engine.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "batches": self.position,
            "best": self.best,
            "metrics": self.metrics,
            "pending": self.pending,
            "stale": self.stale,
            "left_out": self.left_out,
            "options": asdict(self.options),
        }
        if self.first:
            checkpoint.save(self.checkpoints, state, keep=self.options.keep)
        self.kept = (self.step, self.seconds)

    def _resume(self) -> None:
        state = checkpoint.load_newest(self.checkpoints, self.say)
        if state is None:
            if not (self.out / STAGES).is_dir():
                self.say(f"no checkpoint in {self.out} yet: starting anew")
            return
        changed = [
            f"{k} {state['options'].get(k)} -> {v}"
            for k, v in asdict(self.options).items()
            if state["options"].get(k) != v
        ]
        try:
            self.engine.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"the checkpoint in {self.out} is of another model or optimizer: {reason}. "
                "Resume with the model and options of options.json, or start anew with another --out."
            ) from error
        self.batches.load_state_dict(state["batches"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.best, self.metrics = state["best"], state["metrics"]
        self.pending = self.evaluate is not None and bool(state.get("pending"))
        self.stale, self.left_out = int(state.get("stale", 0)), int(state.get("left_out", 0))
        self.kept = (self.step, self.seconds)
        self.say(
            f"resuming after step {self.step}" + (f", with other options: {', '.join(changed)}" if changed else "")
        )


def _nothing(text: str) -> None:
    """Stands where ``tell`` does in a quiet run."""


def steps_of(options: TrainOptions, epoch: int | None) -> int:
    """Steps in all; 0 where only the clock decides."""
    if options.steps or options.minutes:
        return options.steps
    if epoch is None:
        raise InputError("options that count epochs need the batches of one; give steps or minutes, or epoch=...")
    return max(1, ceil(options.epochs * epoch / options.accumulate))
