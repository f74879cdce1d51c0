"""What the commands show while they wait."""

from __future__ import annotations

import sys
from typing import Any, Self


class Line:
    """A progress bar on a terminal's stderr, called with (done, total); silent elsewhere; a context manager."""

    def __init__(self, what: str, unit: str = "images") -> None:
        self.what, self.unit = what, unit
        self.bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int | None) -> None:
        """``done`` of ``total`` (``None`` when unknown) are done."""
        if self.bar is None:
            from tqdm import tqdm

            quiet = not sys.stderr.isatty()
            self.bar = tqdm(total=total, desc=self.what, unit=f" {self.unit}", leave=False, disable=quiet)
        self.bar.update(done - self.bar.n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


class Download:
    """A progress bar on a terminal's stderr for ``zoo.load(progress=...)``; silent elsewhere."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, done: int, total: int | None) -> None:
        """``done`` bytes of ``total`` (``None`` when unknown) have come."""
        if self.bar is None:
            from tqdm import tqdm

            quiet = not sys.stderr.isatty()
            self.bar = tqdm(total=total, desc="download", unit="B", unit_scale=True, leave=False, disable=quiet)
        self.bar.update(done - self.bar.n)
        if total is not None and done >= total:
            self.bar.close()
