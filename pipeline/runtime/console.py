"""What a person sees while notebooks run: a line a step, and what the running cell last said."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

PATIENCE = 20.0  # seconds between signs of life where the line cannot be redrawn


class StepDisplay:
    """Progress of one step: a live line on a terminal, a line a cell elsewhere.

    It is a writable stream too: papermill hands it what the kernel prints.

    Args:
        step: Its name.
        cells: Number of code cells.
        stream: Show the kernel's output as it comes, whole.
    """

    def __init__(self, step: str, cells: int, *, stream: bool) -> None:
        self._step = step
        self._cells = cells
        self._stream = stream
        self._status: Status | None = None
        self._cell = 0
        self._label = ""
        self._since = self._told = time.monotonic()
        self._last = ""

    def __enter__(self) -> StepDisplay:
        if sys.stderr.isatty() and not self._stream:
            from rich.console import Console  # slow to import, and not needed where no line is redrawn

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
        """A code cell starts."""
        self._finish_cell()
        self._cell += 1
        self._label = label
        self._since = self._told = time.monotonic()
        self._last = ""
        self._show()

    @property
    def where(self) -> str:
        """Which cell is running, for a person."""
        return f"cell {self._cell} of {self._cells}: {_cut(self._label, 100)}" if self._cell else "starting its kernel"

    def write(self, text: str) -> int:
        """The kernel printed something."""
        if self._stream:
            sys.stderr.write(text)
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        if lines:
            self._last = lines[-1]
            self._show()
        return len(text)

    def flush(self) -> None:
        """Part of a stream's form."""
        sys.stderr.flush()

    def _show(self) -> None:
        now = time.monotonic()
        if self._status:
            told, width = self._last or self._label, self._status.console.width - 4
            line = f"{self._step}  cell {self._cell}/{self._cells}  {told}"
            if len(line) > width:  # what is told is worth more than where
                line = f"{self._step}  {told}"
            self._status.update(line[:width].replace("[", r"\["))
        elif not self._stream and self._last and now - self._told > PATIENCE:
            self._told = now
            _print(f"           {_cut(self._last, 108)}")

    def _finish_cell(self) -> None:
        if self._cell and not self._status:
            seconds = time.monotonic() - self._since
            _print(f"  {self._cell:>4}/{self._cells} {seconds:6.1f} s  {_cut(self._label, 100)}")


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _cut(text: str, width: int) -> str:
    """A text that is too long, with a sign that it goes on."""
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"
