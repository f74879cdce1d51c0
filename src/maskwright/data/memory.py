"""Memory that reading left behind."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc's ``malloc_trim``); does nothing elsewhere.

    Parsing a large JSON file leaves several times the loaded set free within the process, in pieces that the C library
    keeps. Call it after reading and before worker processes are forked.
    """
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
