"""Memory of a call, measured in a process of its own. No torch here: that process imports this file."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from maskwright.metrics import memory
from maskwright.metrics.memory import peak_memory


def fills(megabytes: int) -> Callable[[], object]:
    level = np.ones(1 << 20, np.uint8)  # belongs to the level before
    return lambda: (level, np.ones(megabytes << 20, np.uint8))


def dies() -> Callable[[], object]:
    os._exit(3)


def breaks() -> Callable[[], object]:
    raise ValueError("no such model")


def test_memory_of_a_call() -> None:
    got = peak_memory(partial(fills, 96))
    assert 95 << 20 <= got["added"] < 110 << 20  # the kernel counts pages in batches
    assert got["peak"] == got["before"] + got["added"]


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="died, exit code 3"):
        peak_memory(dies)
    sent: list[Any] = []

    class Pipe:
        send = staticmethod(sent.append)

    memory._measure_memory(Pipe, breaks, 0)
    assert sent == ["ValueError: no such model"]
