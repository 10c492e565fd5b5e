"""The kernel that runs a notebook's cells: its papermill engine, its environment, its sockets, and its interruption.

Imported only when a notebook is executed: all of Jupyter comes with it.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jupyter_client import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from traitlets.config import Config

from pipeline.runtime.console import StepDisplay
from pipeline.runtime.executed_notebook import labels
from pipeline.runtime.process import work_folder
from pipeline.runtime.step_context import CONTEXT

PATIENCE = 2.0  # seconds that a kernel may take to end; with torch loaded it would take Jupyter's default of 5 and more
POLLING = 0.01  # seconds between checks whether it has ended; Jupyter's default of 0.1 delays every step
SOCKETS = "pipeline-kernel"
SOCKET_PATH = 100  # bytes; Linux allows 107, macOS 103
GRACE = 10  # seconds that an interrupted cell has to clean up

log = logging.getLogger(__name__)


class Stop:
    """Handles Ctrl-C and SIGTERM while a kernel runs.

    The first interrupts the running cell, so that it can clean up. A second one, or the end of the grace time, raises
    KeyboardInterrupt.

    Attributes:
        signal: The first signal, or 0.
        kernel: Process of the kernel while it runs cells.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.kernel: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python handles no signals
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Stop between cells if a signal has arrived."""
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


class _KernelManager(AsyncKernelManager):  # type: ignore[misc]  # jupyter_client is not followed
    """Jupyter's, polling more often whether the kernel has ended."""

    async def _async_finish_shutdown(
        self, waittime: float | None = None, pollinterval: float = POLLING, restart: bool = False
    ) -> None:
        await super()._async_finish_shutdown(waittime, min(pollinterval, POLLING), restart)


class _Client(PapermillNotebookClient):  # type: ignore[misc]  # papermill is untyped
    """papermill's, reporting the kernel's process to `stop`."""

    stop: Stop

    def papermill_execute_cells(self) -> None:
        self.stop.kernel = self.km.provisioner.pid
        try:
            super().papermill_execute_cells()
        except KeyboardInterrupt:
            self.shutdown_kernel = "immediate"  # it was interrupted before, and had its grace time
            raise
        finally:
            self.stop.kernel = None


class Engine(NBClientEngine):  # type: ignore[misc]  # papermill is untyped
    """papermill's engine, reporting each cell to the display."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        stop: Stop,
        display: StepDisplay,
        kernel_log: Any,
        start_timeout: int,
        **options: Any,
    ) -> Any:
        """Execute the cells, as papermill asks; `kernel_log` gets what the kernel process prints outside of them."""
        start, complete, names = nb_man.cell_start, nb_man.cell_complete, labels(nb_man.nb.cells)

        def cell_start(cell: Any, cell_index: int, **more: Any) -> None:
            stop.check()
            if cell.cell_type == "code":
                display.cell(names[cell_index])
                start(cell, cell_index, **more)
            else:
                with _unsaved(nb_man):
                    start(cell, cell_index, **more)

        def cell_complete(cell: Any, cell_index: int, **more: Any) -> None:
            with _unsaved(nb_man):  # the start of the next cell, or the notebook's end, saves it
                complete(cell, cell_index, **more)

        nb_man.cell_start, nb_man.cell_complete = cell_start, cell_complete
        options = {key: value for key, value in options.items() if key != "input_path"}
        options |= {"kernel_manager_class": _KernelManager, "startup_timeout": start_timeout, "timeout": None}
        client = _Client(nb_man, kernel_name=kernel_name, **options)
        client.stop = stop
        return client.execute(stdout=kernel_log, stderr=kernel_log)


@contextmanager
def _unsaved(manager: Any) -> Iterator[None]:
    """papermill saves the notebook when a cell starts and when it ends; once per code cell is enough."""
    save, manager.save = manager.save, lambda **_: None
    try:
        yield
    finally:
        manager.save = save


@contextmanager
def kernel_environment(context: Path) -> Iterator[None]:
    """Set the environment that the kernel inherits: its step's context, and this environment's kernels first."""
    wanted = {CONTEXT: str(context), "JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # a headless notebook has no widgets
    wanted["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"]))
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def kernel_sockets() -> Iterator[Config]:
    """Configure sockets in a folder that no other user can enter; TCP where no temporary path is short enough."""
    for place in (tempfile.gettempdir(), "/tmp"):  # noqa: S108, the folder made there is this user's alone
        path = os.fsencode(f"{place}/{SOCKETS}.12345678/k-ipc-5")
        if len(path) <= SOCKET_PATH and os.access(place, os.W_OK):
            with work_folder(Path(place), SOCKETS) as folder:
                sockets = {"transport": "ipc", "connection_file": f"{folder}/k.json"}
                yield Config({"KernelManager": {**sockets, "shutdown_wait_time": PATIENCE}})
            return
    log.info("the kernel is reached over TCP on this machine: %s is too long a path for sockets", tempfile.gettempdir())
    yield Config({"KernelManager": {"shutdown_wait_time": PATIENCE}})
