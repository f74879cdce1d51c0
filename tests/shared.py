"""Where tests find the reference data that live beside a checkout; absent ones skip, saying so."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """The path of ``../shared/NAME``, or a skip that names what is absent."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"../shared/{name} is absent")
    return path
