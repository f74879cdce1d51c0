"""How much a piece of work needs at its peak beyond what the process holds already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def extra_megabytes(work: Callable[[], object]) -> float:
    """MB by which the process grows at its peak while ``work`` runs, or a skip where the system does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # the peak starts again from here (Linux)
        before = _kilobytes(status, "VmRSS")
        work()
        return (_kilobytes(status, "VmHWM") - before) / 1024
    except OSError:
        pytest.skip("this system does not tell a process's peak memory")


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))
