"""Settings of the whole suite: one thread a process, and no deadline while numba compiles."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

settings.register_profile("maskwright", deadline=None)
settings.load_profile("maskwright")

# xdist runs one process a core; more threads than that only get in each other's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
