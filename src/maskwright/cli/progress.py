"""What the commands show while they wait."""

from __future__ import annotations

import sys
from typing import Any


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
