"""Errors meant for the person at the keyboard: what must hold, what came, what to do."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used as it is. The command line prints its message without a traceback, exit code 2."""
