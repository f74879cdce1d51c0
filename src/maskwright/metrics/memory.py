"""How much memory of the host a call needs: ``peak_memory``. No torch here, so that it is not measured along."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_memory(
    build: Callable[[], Callable[[], object]], *, warmup: int = 0, timeout: float = 600.0
) -> dict[str, Any]:
    """Memory of the host that one call needs, measured in a process of its own.

    Only a fresh process tells: here, memory that was freed earlier would be used again and not be seen. ``build`` runs
    there, so it must be found by import (a function of a module, or ``functools.partial`` of one).

    Args:
        build: makes what is called, a model with its input say; its own memory is the level before.
        warmup: calls before the one measured.
        timeout: seconds after which the process is given up.

    Returns:
        ``{"before", "peak", "added"}``, bytes of resident memory: after ``build``, the most during the call, the
        difference. On Linux the high-water mark is set back before the call; elsewhere it is that of the process's
        life, so that ``added`` can be too small.

    Raises:
        RuntimeError: the process died (of memory, say), ``build`` or the call raised, or time ran out.
    """
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_measure_memory, args=(its, build, warmup), daemon=True)
    process.start()
    its.close()
    try:
        if not mine.poll(timeout):
            raise RuntimeError(f"measuring memory took longer than {timeout:g} seconds")
        answer = mine.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that was measured died, exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        mine.close()
    if isinstance(answer, str):
        raise RuntimeError(f"what was to be measured raised {answer}")
    before, peak = answer
    return {"before": before, "peak": peak, "added": max(0, peak - before)}


def _measure_memory(pipe: Any, build: Callable[[], Callable[[], object]], warmup: int) -> None:
    """In the process that is measured."""
    try:
        call = build()
        for _ in range(warmup):
            call()
        _forget_peak()
        before = _memory("VmRSS")
        call()
        pipe.send((before, _memory("VmHWM")))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _memory(name: str) -> int:
    """Resident bytes of this process: ``VmRSS`` now, ``VmHWM`` the most."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
