"""Executes a step's notebook with papermill, in a kernel of its own, and says in few lines what went wrong.

Imported only when a notebook is executed: all of Jupyter comes with it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError
from traitlets.config import Config

from pipeline import errors
from pipeline.runtime.console import StepDisplay
from pipeline.runtime.executed_notebook import labels
from pipeline.runtime.html_export import prepare_pages
from pipeline.runtime.interruption import Stop
from pipeline.runtime.manifest import FAILED, INTERRUPTED, SUCCEEDED
from pipeline.runtime.notebook import KERNEL, StepNotebook
from pipeline.runtime.step import CONTEXT
from pipeline.runtime.workspace import work_folder

ENGINE = "pipeline"
PATIENCE = 2.0  # seconds that a kernel may take to end; one that holds torch would take Jupyter's five and more
POLLING = 0.01  # seconds between looks whether it has; at Jupyter's tenth a step would wait that long for nothing
SOCKETS = "pipeline-kernel"
SOCKET_PATH = 100  # bytes; Linux takes 107, macOS 103
OWN_ERRORS = {name for name in vars(errors) if name.endswith("Error")}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """How a notebook ended.

    Attributes:
        status: `succeeded`, `failed` or `interrupted`.
        error: What went wrong; the first line says it in short.
        error_kind: Name of the exception.
        signal: The signal that stopped it, or 0.
    """

    status: str
    error: str = ""
    error_kind: str = ""
    signal: int = 0


def execute(
    root: Path, step: StepNotebook, parameters: dict[str, Any], executed: Path, context: Path, *, stream: bool
) -> Execution:
    """Execute a notebook.

    Args:
        root: The project's folder, in which the kernel works.
        step: The notebook.
        parameters: All of them, checked.
        executed: Where to write the notebook as it ran; as far as it came, when it fails.
        context: The file that tells the notebook about its step.
        stream: Show what the kernel prints, whole.
    """
    for noisy in ("papermill", "traitlets"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    cells = (
        sum(cell["cell_type"] == "code" for cell in json.loads(step.content)["cells"]) + 1
    )  # and papermill's parameters
    source = executed.with_name("source.ipynb")  # what was read, whatever has become of the file since
    source.write_text(step.content, encoding="utf-8")
    papermill_engines.register(ENGINE, _Engine)
    prepare_pages()  # while the kernel starts
    # What the kernel process itself says, past the notebook: that Jupyter interrupts an idle kernel to end it, mostly
    words = executed.with_name("kernel.log")
    with Stop() as stop, StepDisplay(step.name, cells, stream=stream) as display, words.open("wb") as kernel_log:
        try:
            with _kernel_environment(context), _transport() as transport:
                papermill.execute_notebook(
                    _literal(source),
                    _literal(executed),
                    parameters,
                    engine_name=ENGINE,
                    kernel_name=KERNEL,
                    language="python",
                    cwd=root,
                    progress_bar=False,
                    stop=stop,
                    kernel_log=kernel_log,
                    display=display,
                    stdout_file=display,
                    stderr_file=display,
                    coalesce_streams=True,  # a progress bar's thousand states end as the one a terminal would show
                    config=transport,
                )
        except KeyboardInterrupt:
            return _stopped(stop)
        except (PapermillException, RuntimeError, OSError, ValueError) as error:
            return _stopped(stop) if stop.signal else _failed(error, display.where, words)
    return Execution(SUCCEEDED, signal=stop.signal)


def _literal(path: Path) -> str:
    """A path for papermill, which takes it for a format string."""
    return str(path).replace("{", "{{").replace("}", "}}")


class _KernelManager(AsyncKernelManager):  # type: ignore[misc]  # jupyter_client is not followed
    """Jupyter's own, which sees sooner that a kernel has ended."""

    async def _async_finish_shutdown(
        self, waittime: float | None = None, pollinterval: float = POLLING, restart: bool = False
    ) -> None:
        await super()._async_finish_shutdown(waittime, min(pollinterval, POLLING), restart)


class _Client(PapermillNotebookClient):  # type: ignore[misc]  # papermill is untyped
    """papermill's own, telling which process the kernel is, and who is stopped with it."""

    stop: Stop

    def papermill_execute_cells(self) -> None:
        self.stop.kernel = self.km.provisioner.pid
        try:
            super().papermill_execute_cells()
        except KeyboardInterrupt:
            self.shutdown_kernel = "immediate"  # it has been asked to stop, and had its time
            raise
        finally:
            self.stop.kernel = None


class _Engine(NBClientEngine):  # type: ignore[misc]  # papermill is untyped
    """papermill's own, telling the display which cell starts."""

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
            with _unsaved(nb_man):  # the next cell starts, or the notebook ends
                complete(cell, cell_index, **more)

        nb_man.cell_start, nb_man.cell_complete = cell_start, cell_complete
        options = {key: value for key, value in options.items() if key != "input_path"}
        options |= {"kernel_manager_class": _KernelManager, "startup_timeout": start_timeout, "timeout": None}
        client = _Client(nb_man, kernel_name=kernel_name, **options)
        client.stop = stop
        return client.execute(stdout=kernel_log, stderr=kernel_log)


@contextmanager
def _unsaved(manager: Any) -> Iterator[None]:
    """papermill writes the notebook when a cell starts and when it ends: once a code cell is enough to look on."""
    save, manager.save = manager.save, lambda **_: None
    try:
        yield
    finally:
        manager.save = save


@contextmanager
def _kernel_environment(context: Path) -> Iterator[None]:
    """What the kernel inherits: where its step is, and this environment's own kernel before the user's others."""
    wanted = {CONTEXT: str(context), "JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # headless there are no widgets to miss
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
def _transport() -> Iterator[Config]:
    """How runner and kernel talk: over sockets in a folder that no other user can enter."""
    for place in (tempfile.gettempdir(), "/tmp"):  # noqa: S108, the folder made there is this user's alone
        path = os.fsencode(f"{place}/{SOCKETS}.12345678/k-ipc-5")
        if len(path) > SOCKET_PATH or not os.access(place, os.W_OK):
            continue
        with work_folder(Path(place), SOCKETS) as folder:
            sockets = {"transport": "ipc", "connection_file": f"{folder}/k.json"}
            yield Config({"KernelManager": {**sockets, "shutdown_wait_time": PATIENCE}})
        return
    log.info("the kernel is reached over TCP on this machine: %s is too long a path for sockets", tempfile.gettempdir())
    yield Config({"KernelManager": {"shutdown_wait_time": PATIENCE}})


def _stopped(stop: Stop) -> Execution:
    number = stop.signal or signal.SIGINT
    return Execution(INTERRUPTED, f"stopped by {signal.Signals(number).name}", "KeyboardInterrupt", number)


def _failed(error: Exception, where: str, words: Path) -> Execution:
    """The failing cell and its error in about ten lines; our own errors need no traceback."""
    if isinstance(error, PapermillExecutionError):
        return Execution(FAILED, _cell_failure(error, where), str(error.ename))
    if isinstance(error, DeadKernelError):
        told = [
            "the kernel died",
            f"  in:       {where}",
            "  do:       look for what used up the memory, and run again",
        ]
        said = words.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        told += [f"  said:     {line[:160]}" for line in said]
    elif isinstance(error, NoSuchKernel):
        told = [f"Jupyter knows no kernel '{KERNEL}'", "  do:       pip install ipykernel into this environment"]
    else:
        told = [f"the notebook could not be executed: {str(error).strip()[:600]}", f"  in:       {where}"]
    return Execution(FAILED, "\n".join(told), type(error).__name__)


def _cell_failure(error: PapermillExecutionError, where: str) -> str:
    if error.ename in OWN_ERRORS:
        return f"{error.evalue}\n  in:       {where}"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    frames = [line.strip() for line in plain.splitlines() if line.lstrip().startswith(("File ", "-->", "---->"))]
    value = [line[:200] for line in str(error.evalue).strip().splitlines()[:4]]
    first = f"{error.ename}: {value[0]}" if value else str(error.ename)
    return "\n".join([first, *value[1:], f"  in:       {where}", *(f"  {line[:160]}" for line in frames[-3:])])
