"""Settings of the whole suite: one thread a process, and no deadline while numba compiles."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("maskwright", deadline=None)
settings.load_profile("maskwright")

# xdist runs one process a core; more threads than that only get in each other's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


LONG = ("tests/contract/test_models.py", "tests/test_readme.py", "tests/export/", "tests/train/")
"""What takes minutes, and is begun first: a process left alone with it at the end would keep the others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; with xdist, run with ``--no-loadscope-reorder``."""
    items.sort(key=lambda item: next((i for i, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG)))
