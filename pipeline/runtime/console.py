"""The progress of a running step: one live line on a terminal, a line for each cell elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

INTERVAL = 20.0  # seconds between messages of a cell where no line can be redrawn
WIDTH = 100  # characters of a cell's name


class StepDisplay:
    """The display of one step. It is a writable stream, too: papermill writes the kernel's output to it."""

    def __init__(self, step: str, cells: int, *, stream: bool) -> None:
        self._step = step
        self._cells = cells
        self._stream = stream
        self._status: Status | None = None
        self._cell = 0
        self._label = ""
        self._started = self._shown = 0.0

    def __enter__(self) -> StepDisplay:
        if sys.stderr.isatty() and not self._stream:
            from rich.console import Console  # slow to import

            self._status = Console(stderr=True, highlight=False).status(self._step)
            self._status.start()
        else:
            _print(self._step)
        return self

    def __exit__(self, *_: object) -> None:
        self._finish_cell()
        if self._status:
            self._status.stop()

    def cell(self, label: str) -> None:
        """Show that a code cell starts."""
        self._finish_cell()
        self._cell, self._label = self._cell + 1, label[:WIDTH]
        self._started = self._shown = time.monotonic()
        self._show(label)

    @property
    def where(self) -> str:
        """The running cell, for a message."""
        return f"cell {self._cell} of {self._cells}: {self._label}" if self._cell else "starting its kernel"

    def write(self, text: str) -> int:
        """Show output of the kernel."""
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        if self._stream:
            sys.stderr.write(text)
        elif lines:
            self._show(lines[-1])
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        sys.stderr.flush()

    def _show(self, message: str) -> None:
        if self._status:
            line = f"{self._step}  cell {self._cell}/{self._cells}  {message}"
            self._status.update(line[: self._status.console.width - 4].replace("[", r"\["))
        elif self._cell and time.monotonic() - self._shown > INTERVAL:
            self._shown = time.monotonic()
            _print(f"           {message[:WIDTH]}")

    def _finish_cell(self) -> None:
        if self._cell and not self._status:
            _print(f"  {self._cell:>4}/{self._cells} {time.monotonic() - self._started:6.1f} s  {self._label}")


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
