"""Ctrl-C and SIGTERM while a kernel is at work."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

GRACE = 10  # seconds that a cell has to tidy up

log = logging.getLogger(__name__)


class Stop:
    """The first interrupts the running cell, so that it can tidy up; a second one, or time, raises KeyboardInterrupt.

    Attributes:
        signal: What came, or 0.
        kernel: Process of the kernel while there is one.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.kernel: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python has no signals
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                    self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Between cells: stop here if a stop was asked for."""
        if self.signal:
            raise KeyboardInterrupt(self.signal)

    def _arrived(self, number: int, _: FrameType | None) -> None:
        first, self.signal = not self.signal, self.signal or number
        if not first or self.kernel is None:
            raise KeyboardInterrupt(self.signal)
        log.warning("stopping; Ctrl-C again stops at once")
        signal.alarm(GRACE)
        try:
            os.kill(self.kernel, signal.SIGINT)
        except ProcessLookupError:
            raise KeyboardInterrupt(self.signal) from None
