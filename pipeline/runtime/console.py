"""The progress of a running step: one live line on a terminal, a line for each cell elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
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
        self._message = ""
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> StepDisplay:
        if sys.stderr.isatty() and not self._stream:
            from rich.console import Console  # slow to import

            self._status = Console(stderr=True, highlight=False).status(self._step)
            self._status.start()
        else:
            _print(self._step)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._finish_cell()
        if self._status:
            self._status.stop()

    def cell(self, label: str) -> None:
        """Show that a code cell starts."""
        self._finish_cell()
        self._cell += 1
        self._label, self._message = label, ""
        self._started = self._shown = time.monotonic()
        self._show()

    @property
    def where(self) -> str:
        """The running cell, for a message."""
        return f"cell {self._cell} of {self._cells}: {_cut(self._label)}" if self._cell else "starting its kernel"

    def write(self, text: str) -> int:
        """Show output of the kernel."""
        if self._stream:
            sys.stderr.write(text)
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        if lines:
            self._message = lines[-1]
            self._show()
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        sys.stderr.flush()

    def _show(self) -> None:
        now = time.monotonic()
        if self._status:
            message, width = self._message or self._label, self._status.console.width - 4
            line = f"{self._step}  cell {self._cell}/{self._cells}  {message}"
            if len(line) > width:  # the message matters more than the cell's number
                line = f"{self._step}  {message}"
            self._status.update(line[:width].replace("[", r"\["))
        elif not self._stream and self._message and now - self._shown > INTERVAL:
            self._shown = now
            _print(f"           {_cut(self._message)}")

    def _finish_cell(self) -> None:
        if self._cell and not self._status:
            seconds = time.monotonic() - self._started
            _print(f"  {self._cell:>4}/{self._cells} {seconds:6.1f} s  {_cut(self._label)}")


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1].rstrip()}…"
