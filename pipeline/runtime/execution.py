"""Executes a step's notebook with papermill in a kernel of its own, and reports an error in few lines.

Imported only when a notebook is executed: all of Jupyter comes with it.
"""

from __future__ import annotations

import json
import logging
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError

from pipeline import errors
from pipeline.runtime.console import StepDisplay
from pipeline.runtime.executed_notebook import prepare_html
from pipeline.runtime.kernel import Engine, Stop, kernel_environment, kernel_sockets
from pipeline.runtime.manifest import FAILED, INTERRUPTED, SUCCEEDED
from pipeline.runtime.notebook import KERNEL, StepNotebook

ENGINE = "pipeline"
OWN_ERRORS = {name for name in vars(errors) if name.endswith("Error")}


@dataclass(frozen=True)
class Execution:
    """How a notebook ended.

    Attributes:
        status: `succeeded`, `failed` or `interrupted`.
        error: What went wrong; the first line is a summary.
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
    papermill_engines.register(ENGINE, Engine)
    prepare_html()  # while the kernel starts
    # what the kernel process prints outside of the notebook, mostly that Jupyter interrupts an idle kernel to end it
    log_path = executed.with_name("kernel.log")
    display = StepDisplay(step.name, cells + 1, stream=stream)  # one more for papermill's parameters
    with Stop() as stop, display, log_path.open("wb") as kernel_log:
        try:
            with kernel_environment(context), kernel_sockets() as sockets:
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
                    coalesce_streams=True,  # keeps of a progress bar only the state that a terminal would show
                    config=sockets,
                )
        except KeyboardInterrupt:
            return _stopped(stop)
        except (PapermillException, RuntimeError, OSError, ValueError) as error:
            return _stopped(stop) if stop.signal else _failed(error, display.where, log_path)
    return Execution(SUCCEEDED, signal=stop.signal)


def _literal(path: Path) -> str:
    """A path for papermill, which formats it."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _stopped(stop: Stop) -> Execution:
    number = stop.signal or signal.SIGINT
    return Execution(INTERRUPTED, f"stopped by {signal.Signals(number).name}", "KeyboardInterrupt", number)


def _failed(error: Exception, where: str, log_path: Path) -> Execution:
    """The failing cell and its error in about ten lines; our own errors need no traceback."""
    if isinstance(error, PapermillExecutionError):
        return Execution(FAILED, _cell_failure(error, where), str(error.ename))
    if isinstance(error, DeadKernelError):
        lines = ["the kernel died", f"  in:       {where}"]
        lines += ["  do:       find what used up the memory, and run again"]
        printed = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        lines += [f"  said:     {line[:160]}" for line in printed]
    elif isinstance(error, NoSuchKernel):
        lines = [f"Jupyter knows no kernel '{KERNEL}'", "  do:       pip install ipykernel into this environment"]
    else:
        lines = [f"the notebook could not be executed: {str(error).strip()[:600]}", f"  in:       {where}"]
    return Execution(FAILED, "\n".join(lines), type(error).__name__)


def _cell_failure(error: PapermillExecutionError, where: str) -> str:
    if error.ename in OWN_ERRORS:
        return f"{error.evalue}\n  in:       {where}"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    frames = [line.strip() for line in plain.splitlines() if line.lstrip().startswith(("File ", "-->", "---->"))]
    value = [line[:200] for line in str(error.evalue).strip().splitlines()[:4]]
    first = f"{error.ename}: {value[0]}" if value else str(error.ename)
    return "\n".join([first, *value[1:], f"  in:       {where}", *(f"  {line[:160]}" for line in frames[-3:])])
