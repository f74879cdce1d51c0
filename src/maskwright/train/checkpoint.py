"""Checkpoints to resume from: written whole or not at all, and known by the hash in their name."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from maskwright.errors import InputError
from maskwright.storage import replacing

FORMAT = 1
_UNNAMED = "writing.pt"
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")


def save(folder: Path, state: Mapping[str, Any], *, keep: int) -> Path:
    """Write ``state``, which has its ``step``, and remove all but the newest ``keep`` checkpoints, one a step.

    The file is called ``step-STEP-HASH.pt`` with the first 16 digits of its SHA-256.

    Raises:
        InputError: it cannot be written; the checkpoints before it stay.
    """
    unnamed = folder / _UNNAMED
    try:
        with replacing(unnamed) as beside:
            torch.save({"format": FORMAT, **state}, beside)
            digest = _digest(beside)
        path = folder / f"step-{int(state['step']):08d}-{digest}.pt"
        os.replace(unnamed, path)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"cannot write a checkpoint into {folder}: {reason}. Is the disk full? The checkpoints before it are whole."
        ) from error
    others = [file for file in found(folder) if file != path]
    earlier = [file for file in others if step_of(file) != step_of(path)]
    for old in {*others} - {*earlier[: max(0, keep - 1)]}:
        old.unlink(missing_ok=True)
    return path


def clean(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left; nobody else may be writing there."""
    for file in folder.glob(f"*{_UNNAMED}*"):
        file.unlink(missing_ok=True)


def found(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    files = [file for file in folder.glob("step-*.pt") if _NAME.fullmatch(file.name)]
    return sorted(files, key=lambda file: (step_of(file), file.stat().st_mtime_ns), reverse=True)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def load_newest(folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, on the host; ``None`` when the folder has none at all.

    Args:
        folder: where they are.
        say: told of each checkpoint that was skipped because it is damaged.

    Raises:
        InputError: there are checkpoints, and all are damaged; or one was written by a newer version.
    """
    files = found(folder)
    for path in files:
        match = _NAME.fullmatch(path.name)
        if match is None or _digest(path) != match[2]:
            say(f"{path} is damaged: its SHA-256 is not the one in its name. Using the checkpoint before it.")
            continue
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] > FORMAT:
            raise InputError(f"{path} must have format {FORMAT} or older, got {state['format']}. Upgrade maskwright.")
        return state
    if files:
        raise InputError(f"all {len(files)} checkpoints in {folder} are damaged. Start anew with another --out.")
    return None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# ---- random numbers -------------------------------------------------------------------------------------------------


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    cast(Any, torch).manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of all global generators as plain values and tensors."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    inner = {**numpy_state["state"], "key": torch.as_tensor(numpy_state["state"]["key"].astype(np.int64))}
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": inner},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Continue the generators where ``random_state`` found them; GPUs that are not here are passed over."""
    version, words, spare = state["python"]
    random.setstate((version, tuple(words), spare))
    numpy_state = state["numpy"]
    inner = {**numpy_state["state"], "key": numpy_state["state"]["key"].numpy().astype(np.uint32)}
    np.random.set_state({**numpy_state, "state": inner})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
