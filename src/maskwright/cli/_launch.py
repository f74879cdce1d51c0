"""``maskwright train`` as a process of its own, watched by its run directory: what a search is made of.

A process that runs out of memory, or is ended early, leaves the search and the other trainings alone.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from maskwright.cli._runs import read_evaluations
from maskwright.errors import InputError

WAIT = 0.5
"""Seconds between looks at a training."""

PATIENCE = 120.0
"""Seconds that a training has to write its checkpoint before it is killed."""

Watch = Callable[[int, Mapping[str, float]], bool]
"""Told of each evaluation (step, figures); ``False`` ends the training."""


class TrainingFailedError(InputError):
    """A training ended with an error; the message has its last words."""


def add_passed_on(parser: argparse.ArgumentParser) -> None:
    """The option that takes all of ``maskwright train``'s own."""
    parser.add_argument(
        "--with",
        dest="rest",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="OPTION",
        help="everything after it is given to each maskwright train as it is, such as --with --epochs 5 --pretrained",
    )


def command(words: Sequence[str]) -> list[str]:
    """The command line of a training."""
    return [sys.executable, "-m", "maskwright", "train", *words]


def check(words: Sequence[str]) -> None:
    """Let ``maskwright train`` read its words, so that what it does not know is refused before anything begins.

    Raises:
        SystemExit: it does not know them, and has said so.
    """
    from maskwright.cli import train

    parser = argparse.ArgumentParser(prog="maskwright train", add_help=False)
    train.configure(parser)
    parser.parse_args(list(words))


def flags(values: Mapping[str, Any]) -> list[str]:
    """Options by field name as words of the command line."""
    words: list[str] = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple | list):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    return words


def train(line: Sequence[str], out: Path, log: Path, watch: Watch, *, lock: IO[str] | None = None) -> bool:
    """Run a training to its end.

    Args:
        line: the command, as ``command`` gives it.
        out: its run directory.
        log: where what it says is written, after what is there.
        watch: told of each evaluation in ``out``, those before a resumption included.
        lock: a locked file that the training holds too, so that it stays locked as long as either of us lives.

    Returns:
        Whether it came to its end by itself; ``False`` where ``watch`` ended it.

    Raises:
        TrainingFailedError: it ended with an error.
        KeyboardInterrupt: somebody interrupted it, or this process; it has written its checkpoint.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    told: set[int] = set()
    with open(log, "a", encoding="utf-8") as said:
        # In a session of its own: Ctrl-C reaches us alone, for a second signal would end it without a checkpoint.
        process = subprocess.Popen(
            list(line),
            stdout=said,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if lock is None else (lock.fileno(),),
        )
        try:
            while True:
                code = process.poll()
                for step, figures in read_evaluations(out).items():
                    if step not in told:
                        told.add(step)
                        if not watch(step, figures) and code is None:
                            _end(process)
                            return False
                if code is not None:
                    break
                time.sleep(WAIT)
        except BaseException:
            _end(process)
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise TrainingFailedError(f"the training in {out} failed (exit code {code}): {_last(log)} See {log}.")
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask for a checkpoint and an end; insist after a while."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing."
