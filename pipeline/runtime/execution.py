"""Executes a step's notebook with papermill in a kernel of its own, and reports an error in few lines.

Imported only when a notebook is executed: all of Jupyter comes with it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import papermill
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError
from traitlets.config import Config

from pipeline import errors
from pipeline.runtime.console import StepDisplay
from pipeline.runtime.executed_notebook import labels, warm_up
from pipeline.runtime.manifest import FAILED, INTERRUPTED, SUCCEEDED
from pipeline.runtime.notebook import KERNEL, StepNotebook
from pipeline.runtime.process import work_folder
from pipeline.runtime.step import CONTEXT

ENGINE = "pipeline"
POLLING = 0.01  # seconds between two looks whether a kernel has ended; Jupyter's 0.1 would be half of a step's overhead
OWN_ERRORS = {name for name in vars(errors) if name.endswith("Error")}
PATIENCE = 2.0  # seconds that a kernel may take to end; with torch loaded it would take Jupyter's default of 5 and more
SOCKET_PATH = 100  # bytes; Linux allows 107, macOS 103
GRACE = 10  # seconds that an interrupted cell has to clean up

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """How a notebook ended: its status, the error and the exception's name, and the signal that stopped it or 0."""

    status: str
    error: str = ""
    error_kind: str = ""
    signal: int = 0


def execute(
    root: Path, step: StepNotebook, parameters: dict[str, Any], executed: Path, context: Path, *, stream: bool
) -> Execution:
    """Execute a notebook.

    Args:
        root: The project's folder, the kernel's working directory.
        step: The notebook.
        parameters: All of them, checked.
        executed: Where to write the executed notebook; a failed one as far as it came.
        context: The file with the notebook's `StepContext`.
        stream: Show all that the kernel prints.
    """
    for noisy in ("papermill", "traitlets"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    cells = sum(cell["cell_type"] == "code" for cell in json.loads(step.content)["cells"])
    source = executed.with_name("source.ipynb")  # as it was read: the file may have changed since
    source.write_text(step.content, encoding="utf-8")
    papermill_engines.register(ENGINE, _Engine)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one that the user has installed
    environment = {"PYTHONWARNINGS": "ignore:IProgress not found", **os.environ, CONTEXT: str(context)}  # no widgets
    threading.Thread(target=warm_up).start()  # its import takes a second, as the kernel's start does
    # what the kernel process prints outside of the notebook, mostly that Jupyter interrupts an idle kernel to end it
    log_path = executed.with_name("kernel.log")
    display = StepDisplay(step.name, cells + 1, stream=stream)  # one more for papermill's parameters
    with _Stop() as stop, display, log_path.open("wb") as kernel_log:
        try:
            with kernel_sockets() as sockets:
                papermill.execute_notebook(
                    *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, executed)),
                    parameters,
                    engine_name=ENGINE,
                    kernel_name=KERNEL,
                    language="python",
                    cwd=root,
                    progress_bar=False,
                    stop=stop,
                    display=display,
                    process={"env": environment, "stdout": kernel_log, "stderr": kernel_log},
                    stdout_file=display,
                    stderr_file=display,
                    coalesce_streams=True,  # keeps of a progress bar only the state that a terminal would show
                    config=sockets,
                )
        except (KeyboardInterrupt, PapermillException, RuntimeError, OSError, ValueError) as error:
            if not stop.signal and not isinstance(error, KeyboardInterrupt):
                kind = getattr(error, "ename", type(error).__name__)
                return Execution(FAILED, _failure(error, display.where, log_path), str(kind))
            number = stop.signal or signal.SIGINT
            return Execution(INTERRUPTED, f"stopped by {signal.Signals(number).name}", "KeyboardInterrupt", number)
    return Execution(SUCCEEDED, signal=stop.signal)


def _failure(error: BaseException, where: str, log_path: Path) -> str:
    """The failing cell and its error in about ten lines; our own errors need no traceback."""
    if isinstance(error, DeadKernelError):
        said = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        remedy = "find what used up the memory, and run again"
        lines = ["the kernel died", f"  in:       {where}", f"  do:       {remedy}"]
        return "\n".join([*lines, *(f"  said:     {line[:160]}" for line in said)])
    if not isinstance(error, PapermillExecutionError):
        return f"the notebook could not be executed: {str(error).strip()[:600]}\n  in:       {where}"
    if error.ename in OWN_ERRORS:
        return f"{error.evalue}\n  in:       {where}"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    frames = [line.strip() for line in plain.splitlines() if line.lstrip().startswith(("File ", "-->", "---->"))]
    value = [line[:200] for line in f"{error.ename}: {error.evalue}".strip().splitlines()[:4]]
    return "\n".join([*value, f"  in:       {where}", *(f"  {line[:160]}" for line in frames[-3:])])


# --- the kernel ------------------------------------------------------------------------------------------------------


class _Stop:
    """Handles Ctrl-C and SIGTERM while a kernel runs.

    The first interrupts the running cell, so that it can clean up. A second one, or the end of the grace time, raises
    KeyboardInterrupt. `signal` is the first one or 0, `kernel` the kernel's process while it runs cells.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.kernel: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

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

    stop: _Stop

    def papermill_execute_cells(self) -> None:
        self.stop.kernel = self.km.provisioner.pid
        try:
            super().papermill_execute_cells()
        except KeyboardInterrupt:
            self.shutdown_kernel = "immediate"  # it was interrupted before, and had its grace time
            raise
        finally:
            self.stop.kernel = None


class _Engine(NBClientEngine):  # type: ignore[misc]  # papermill is untyped
    """papermill's engine, reporting each cell to the display."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        stop: _Stop,
        display: StepDisplay,
        process: dict[str, Any],
        start_timeout: int,
        **options: Any,
    ) -> Any:
        """Execute the cells, as papermill asks; `process` is what the kernel is started with."""
        start, names = nb_man.cell_start, labels(nb_man.nb.cells)

        def cell_start(cell: Any, cell_index: int, **more: Any) -> None:
            if stop.signal:  # the cell before took it for its own
                raise KeyboardInterrupt(stop.signal)
            if cell.cell_type == "code":
                display.cell(names[cell_index])
            start(cell, cell_index, **more)

        nb_man.cell_start = cell_start
        options.pop("input_path", None)
        options |= {"kernel_manager_class": _KernelManager, "startup_timeout": start_timeout, "timeout": None}
        client = _Client(nb_man, kernel_name=kernel_name, **options)
        client.stop = stop
        return client.execute(**process)


@contextmanager
def kernel_sockets() -> Iterator[Config]:
    """Configure sockets in a folder that no other user can enter, at a path that is short enough for them."""
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > SOCKET_PATH - len("/pipeline-kernel.12345678/k-ipc-5"):
        place = "/tmp"  # noqa: S108, the folder made there is this user's alone
    with work_folder(Path(place), "pipeline-kernel") as folder:
        sockets = {"transport": "ipc", "connection_file": f"{folder}/k.json", "shutdown_wait_time": PATIENCE}
        yield Config({"KernelManager": sockets})
