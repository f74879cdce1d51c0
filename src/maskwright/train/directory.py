"""The run directory: refused before anything is computed, and described beside its checkpoints."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from maskwright.errors import InputError
from maskwright.storage import write_json
from maskwright.train import checkpoint
from maskwright.train.options import TrainOptions

CHECKPOINTS = "checkpoints"
"""Folder of a run directory."""
STAGES = "stages"
"""Folder of the stages before the last, in a run of several."""


def prepare(out: Path, *, resume: bool) -> Path:
    """Make the run directory and return its folder of checkpoints.

    Raises:
        InputError: it holds something and the run does not resume, or it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"a run needs a directory to write to, but {out} is a file. Choose another --out.")
    checkpoints = out / CHECKPOINTS
    try:
        held = [file for file in out.iterdir() if file != checkpoints] if out.exists() else []
        if not resume and (held or (checkpoints.is_dir() and any(checkpoints.iterdir()))):
            raise InputError(
                f"a new run needs an empty directory, but {out} holds something. "
                "Give --resume to continue the run in it, or another --out."
            )
        checkpoints.mkdir(parents=True, exist_ok=True)
        probe = checkpoints / ".writable"
        probe.touch()
        probe.unlink()
        checkpoint.clean(checkpoints)
    except OSError as error:
        raise InputError(
            f"a run needs a directory to write to, but {out} is none: {error.strerror or error}. Choose another --out."
        ) from error
    return checkpoints


def describe(
    out: Path, options: TrainOptions, chosen: Mapping[str, Any], meta: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write ``options.json``: the options, what "auto" became, the model, the command, the versions, and ``about``."""
    write_json(
        out / "options.json",
        {
            **about,
            "options": asdict(options),
            "chosen": dict(chosen),
            "model": {key: value for key, value in meta.items() if key != "taxonomy"},
            "command": sys.argv,
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                **{name: _version(name) for name in ("maskwright", "torchvision", "timm", "lightning-fabric")},
            },
        },
        indent=True,
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
