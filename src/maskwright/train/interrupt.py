"""Ctrl-C and SIGTERM: the step in progress is finished and a checkpoint written; a second one stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from maskwright.train.log import tell


class Interrupt:
    """Within it, ``asked`` tells whether somebody wants the run to stop. Does nothing outside the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A worker forked from this process inherits the handler. Ctrl-C reaches it too, but the parent ends it.
            if number != signal.SIGINT:
                os._exit(128 + number)
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        tell("stopping after this step, with a checkpoint; once more stops at once")
