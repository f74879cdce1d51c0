"""A search by Optuna whose trials are trainings in processes of their own; it can be stopped, joined and resumed.

Each trial keeps a lock on a file while it runs, which the system lets go of however its process ends. So whoever
comes to the study next sees which trials were abandoned, and has them gone on with from their checkpoints.
"""

from __future__ import annotations

import fcntl
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from maskwright.cli import _launch
from maskwright.errors import InputError
from maskwright.recipes.search import Dimension, Range

PRUNERS = ("median", "hyperband", "none")
STORAGES = ("sqlite", "journal")

_FAILURES = 3
"""Trials that fail one after another before a search gives up: its command is wrong, not its luck."""

_YOUNG = timedelta(seconds=10)
"""A trial so young may not have taken its lock yet."""


def optuna() -> Any:
    """The library.

    Raises:
        InputError: it is not installed; the message names the extra.
    """
    try:
        import optuna as found
    except ImportError as error:
        raise InputError("a search needs Optuna. Install it with: pip install 'maskwright[tune]'") from error
    found.logging.set_verbosity(found.logging.WARNING)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched, and how.

    Attributes:
        out: the directory of the study: its storage, and ``trials/``.
        line: a trial's command, given its options by field name and its run directory.
        space: what is changed.
        figure: what is made large, such as ``mask.AP``; ``None`` takes the first that evaluations have.
        pruner: of ``PRUNERS``; compares trials by their evaluations, first with first.
        patient: trials that come to their end before any is cut short.
        storage: of ``STORAGES``: sqlite for one machine, journal for a folder that several machines share.
        seed: of the sampler; ``None`` is another one each time.
    """

    out: Path
    line: Callable[[Mapping[str, Any], Path], Sequence[str]]
    space: Mapping[str, Dimension]
    figure: str | None
    pruner: str = "median"
    patient: int = 5
    storage: str = "sqlite"
    seed: int | None = None

    def open(self, told: Mapping[str, Any]) -> Any:
        """The study, made or joined; ``told`` says what is searched, and must be what the study was made with.

        Raises:
            InputError: the study in ``out`` is of something else, or the storage cannot be used.
        """
        library = optuna()
        trials = self.out / "trials"
        try:
            trials.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", library.exceptions.ExperimentalWarning)
                study = library.create_study(
                    study_name="maskwright",
                    storage=self._storage(library),
                    sampler=library.samplers.TPESampler(seed=self.seed),
                    pruner=self._pruner(library),
                    direction="maximize",
                    load_if_exists=True,
                )
        except OSError as error:
            raise InputError(f"a search needs a directory to write to, but {self.out} is none: {error}.") from error
        known = study.user_attrs.get("told")
        if known is None:
            study.set_user_attr("told", dict(told))
        elif known != told:
            apart = [name for name in {*known, *told} if known.get(name) != told.get(name)]
            raise InputError(
                f"the search in {self.out} was begun with another {' and '.join(sorted(apart))}. "
                "Go on with the same, or give another --out."
            )
        if self.seed is not None and study.trials:  # not the same draws again
            study.sampler = library.samplers.TPESampler(seed=self.seed * 1_000_003 + len(study.trials))
        return study

    def run(self, study: Any, trials: int, *, jobs: int = 1, say: Callable[[str], None]) -> None:
        """Run trials until the study has ``trials`` that ended by themselves or were cut short.

        Raises:
            InputError: trials fail one after another.
            KeyboardInterrupt: the trials in progress have written their checkpoints, and are gone on with next time.
        """
        library = optuna()
        states = library.trial.TrialState
        over = (states.COMPLETE, states.PRUNED)
        self._reclaim(study, library, say)
        failures: list[str] = []

        def after(study: Any, trial: Any) -> None:
            if trial.state == states.FAIL:
                failures.append(str(trial.user_attrs.get("error", "")))
                say(f"trial {trial.number}: {failures[-1]}")
            else:
                failures.clear()
                say(_told(trial, study))
            if len(failures) >= _FAILURES or sum(t.state in over for t in study.trials) >= trials:
                study.stop()

        if sum(trial.state in over for trial in study.trials) < trials:
            study.optimize(
                lambda trial: self._objective(trial, study),
                n_trials=None,
                n_jobs=jobs,
                callbacks=[after],
                catch=(_launch.TrainingFailedError,),
            )
        if len(failures) >= _FAILURES:
            raise InputError(f"{len(failures)} trials failed one after another; the last one: {failures[-1]}")

    def _objective(self, trial: Any, study: Any) -> float:
        library = optuna()
        values = {name: _suggest(trial, name, dimension) for name, dimension in self.space.items()}
        number = int(trial.user_attrs.get("directory", trial.number))
        trial.set_user_attr("directory", number)
        out = self.out / "trials" / f"{number:04d}"
        seen: list[float] = []
        cut = False

        def watch(step: int, figures: Mapping[str, float]) -> bool:
            nonlocal cut
            if self.figure is None:
                value = next((figures[name] for name in _FIGURES if name in figures), None)
            else:
                value = figures.get(self.figure)
            if value is None:
                raise InputError(
                    f"the evaluations in {out} have no {self.figure or 'main figure'}; "
                    f"they have {', '.join(figures)}. Name one by --by."
                )
            seen.append(value)
            trial.report(value, len(seen))
            cut = bool(trial.should_prune())
            return not cut

        try:
            with _locked(out.with_suffix(".lock")) as lock:
                assert lock is not None, "a trial's number is its own"
                ended = _launch.train(self.line(values, out), out, out.with_suffix(".log"), watch, lock=lock)
        except _launch.TrainingFailedError as error:
            trial.set_user_attr("error", str(error))
            raise
        except KeyboardInterrupt:
            study.enqueue_trial(trial.params, user_attrs={"directory": number})
            raise
        if not ended:
            raise library.TrialPruned
        if not seen:
            raise InputError(f"the training in {out} measured nothing. Give --val, and do not turn evaluations off.")
        return max(seen)

    def _reclaim(self, study: Any, library: Any, say: Callable[[str], None]) -> None:
        """Have trials gone on with whose process is no more."""
        running = library.trial.TrialState.RUNNING
        for trial in study.get_trials(states=(running,)):
            if trial.datetime_start is None or datetime.now() - trial.datetime_start < _YOUNG:
                continue
            number = int(trial.user_attrs.get("directory", trial.number))
            with _locked(self.out / "trials" / f"{number:04d}.lock") as lock:
                if lock is None or study.trials[trial.number].state != running:
                    continue
                study.tell(trial.number, state=library.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params, user_attrs={"directory": number})
                say(f"trial {trial.number} was abandoned: going on with it")

    def _storage(self, library: Any) -> Any:
        if self.storage == "sqlite":
            return library.storages.RDBStorage(
                f"sqlite:///{self.out.resolve() / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
        backend = library.storages.journal.JournalFileBackend(str(self.out / "study.journal"))
        return library.storages.JournalStorage(backend)

    def _pruner(self, library: Any) -> Any:
        if self.pruner == "median":
            return library.pruners.MedianPruner(n_startup_trials=self.patient, n_warmup_steps=1)
        if self.pruner == "hyperband":
            return library.pruners.HyperbandPruner()
        return library.pruners.NopPruner()


_FIGURES = ("mask.AP", "panoptic.PQ", "semantic.mIoU")


def _suggest(trial: Any, name: str, dimension: Dimension) -> Any:
    if not isinstance(dimension, Range):
        return trial.suggest_categorical(name, list(dimension.values))
    if dimension.whole:
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def _told(trial: Any, study: Any) -> str:
    values = " ".join(f"{name}={shown(value)}" for name, value in trial.params.items())
    known = trial.intermediate_values
    best = study.best_value if any(t.state.name == "COMPLETE" for t in study.trials) else None
    figure = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else f"cut short after {len(known)} evaluations"
    return f"trial {trial.number}: {values}  {figure}" + ("" if best is None else f"  (best {best:.4f})")


def shown(value: Any) -> str:
    """A value as one types it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _locked(path: Path) -> Iterator[IO[str] | None]:
    """The file, locked until the end of the block or the process; ``None`` where somebody else has it."""
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file
