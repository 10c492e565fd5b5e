"""Runs a step: its parameters checked, its inputs pinned, its notebook executed by papermill, its record written.

A step whose notebook, parameters, inputs and code are those of an earlier success is not run again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.code import CodeState, code_digest, code_state, environment, tag
from pipeline.config import Config as Scenario
from pipeline.console import StepDisplay
from pipeline.errors import GateError, MissingError, PipelineError, StepError, UsageError
from pipeline.manifest import FAILED, INTERRUPTED, REUSED, SUCCEEDED, RunManifest, Runs, StepRecord, new_run_id, now
from pipeline.notebook import KERNEL, StepNotebook
from pipeline.step import CONTEXT, StepContext
from pipeline.store import Artifact, Store

PACKAGES = ("torch", "mmdet", "mmengine", "mmcv-lite", "onnx", "onnxruntime", "bentoml", "opencv-python-headless",
            "numpy", "pillow", "pycocotools", "papermill", "detection-pipeline")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Project:
    """Where things are, and in which mode.

    Attributes:
        root: The checkout's top folder.
        mode: `dev` or `prod`.
        config: The scenario.
        config_file: Where it was read.
        steps: All of them, in the order in which they can run.
    """

    root: Path
    mode: str
    config: Scenario
    config_file: str
    steps: dict[str, StepNotebook]

    @property
    def runs(self) -> Runs:
        """The runs of this zone and mode."""
        return Runs(Store(self.config.store_url(self.root, self.mode)))

    def parameters(self, overrides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Every step's parameters, checked before anything starts.

        Raises:
            UsageError: An unknown step or parameter, or a value of the wrong type.
        """
        values = self.config.values(self.mode)
        for step in (*values, *overrides):
            check_step(step, self.steps)
        return {
            name: step.resolve({**values.get(name, {}), **overrides.get(name, {})}) for name, step in self.steps.items()
        }


def check_step(name: str, steps: dict[str, StepNotebook]) -> None:
    """Refuse a step that does not exist."""
    import difflib

    if name not in steps:
        near = difflib.get_close_matches(name, steps, 1, 0.4)
        raise UsageError(
            f"there is no step '{name}'",
            expected="one of " + ", ".join(steps),
            remedy=f"did you mean '{near[0]}'?" if near else "",
        )


def open_run(project: Project, parameters: dict[str, dict[str, Any]]) -> RunManifest:
    """Open a new run."""
    return project.runs.open(
        RunManifest(
            run=new_run_id(),
            mode=project.mode,
            pipeline=project.config.name,
            zone=project.config.zone,
            created=now(),
            config_file=project.config_file,
            config={**project.config.model_dump(), "parameters": parameters},
            code=asdict(code_state(project.root)),
        )
    )


def run_step(
    project: Project, run: str, step: StepNotebook, parameters: dict[str, Any], *, force: bool, stream: bool
) -> StepRecord:
    """Run one step in a run, or reuse what is known to be the same.

    Args:
        project: Where and in which mode.
        run: The run's id.
        step: What to run.
        parameters: All of them, already checked.
        force: Run it even when an earlier success would do.
        stream: Show the kernel's output.

    Returns:
        The attempt as it ended: `succeeded` or `reused`.

    Raises:
        MissingError: An earlier step has not made an input.
        StepError: The notebook failed, or prod mode found a dirty tree; GateError: below its gate.
        KeyboardInterrupt: After it has been recorded.
    """
    runs = project.runs
    code = code_state(project.root)
    if project.mode == "prod":
        refuse_dirty(project.root, code)
    record = _planned(runs.load(run), project, step, parameters, code)
    known = None if force else runs.same_work(step.name, record.fingerprint)
    began = time.monotonic()
    record = runs.start(run, record)
    if known:
        source, earlier = known
        ended = replace(
            record,
            status=REUSED,
            outputs=earlier.outputs,
            metrics=earlier.metrics,
            notebook=earlier.notebook,
            report=earlier.report,
            reused_from=f"{source}/{step.name}/{earlier.attempt}",
        )
    else:
        ended = _execute(runs.store, project, run, step, record, stream)
    ended = replace(ended, ended=now(), seconds=round(time.monotonic() - began, 3))
    runs.end(run, ended)
    if ended.status == INTERRUPTED:
        raise KeyboardInterrupt
    if ended.status == FAILED:
        raise (GateError if "quality gate" in ended.error else StepError)(_failure(step, ended))
    if project.mode == "prod":
        log.info("tagged %s as %s", code.commit[:12], tag(project.root, code.commit, run, step.name))
    return ended


def refuse_dirty(root: Path, code: CodeState) -> None:
    """Prod runs what is committed, and never touches anyone's work to get there."""
    if not code.commit:
        raise StepError("prod needs a git checkout with a commit", where=root, remedy="git init, git add, git commit")
    if code.dirty:
        changed = [line.split(" b/")[-1] for line in code.diff.splitlines() if line.startswith("diff --git")]
        names = [*changed, *code.untracked]
        raise StepError(
            f"prod refuses a dirty tree: {len(names)} files differ from the commit",
            where=", ".join(names[:5]) + (" ..." if len(names) > 5 else ""),
            expected="everything committed",
            remedy="commit or stash, or run: python step.dev.py",
        )


def _planned(
    manifest: RunManifest, project: Project, step: StepNotebook, parameters: dict[str, Any], code: CodeState
) -> StepRecord:
    """The attempt as it is known before it starts; inputs are resolved here, once."""
    inputs = {entity: _pinned(manifest, project, step, entity) for entity in step.reads}
    modules = code_digest(step.imports)
    basis = {
        "step": step.name,
        "notebook": step.digest,
        "parameters": parameters,
        "inputs": {name: artifact.digest for name, artifact in inputs.items()},
        "code": modules,
    }
    return StepRecord(
        step=step.name,
        attempt=0,
        started=now(),
        parameters=parameters,
        notebook_digest=step.digest,
        code_digest=modules,
        fingerprint=hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest(),
        inputs=inputs,
        code=asdict(code),
        environment=environment(PACKAGES),
    )


def _pinned(manifest: RunManifest, project: Project, step: StepNotebook, entity: str) -> Artifact:
    artifact = manifest.output(entity)
    if artifact is None:
        writer = next(other.name for other in project.steps.values() if entity in other.writes)
        raise MissingError(
            f"{step.name} needs {entity}, and {writer} has not made it in this run",
            where=f"run {manifest.run}",
            expected=f"a success of {writer}",
            remedy=f"python step.{project.mode}.py {writer}",
        )
    return artifact


def _execute(
    store: Store, project: Project, run: str, step: StepNotebook, record: StepRecord, stream: bool
) -> StepRecord:
    """Execute the notebook in a folder of its own, and keep it and its page with the run."""
    cache = project.root / ".cache"
    (cache / "work").mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{step.name}.", dir=cache / "work"))
    executed = work / f"{step.name}.ipynb"
    made_by = f"{run}/{step.name}/{record.attempt}"
    context = StepContext(step.name, made_by, store.url, str(work), str(cache), record.inputs)
    context.write(work / "context.json")
    try:
        status, error = _papermill(project.root, step, record.parameters, executed, work / "context.json", stream)
        committed: dict[str, Any] = {}
        if (work / "committed.json").is_file():
            committed = json.loads((work / "committed.json").read_text(encoding="utf-8"))
        elif status == SUCCEEDED:
            status, error = FAILED, "the notebook ended without step.commit(...): it has published nothing"
        key = f"runs/{run}/notebooks/{step.name}.{record.attempt:03}"
        kept = {}
        if executed.is_file():
            kept = {"notebook": store.keep(f"{key}.ipynb", executed), "report": store.keep(f"{key}.html", _page(executed))}
        return replace(
            record,
            status=status,
            error=error,
            outputs={name: Artifact(**a) for name, a in committed.get("outputs", {}).items()},
            metrics=committed.get("metrics", {}),
            **kept,
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _papermill(
    root: Path, step: StepNotebook, parameters: dict[str, Any], executed: Path, context: Path, stream: bool
) -> tuple[str, str]:
    """Run the notebook; the status and, unless it succeeded, what went wrong."""
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    class Engine(NBClientEngine):  # type: ignore[misc]  # papermill is untyped
        """papermill's own, telling the display which cell starts."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            display, start, labels = options.pop("display"), nb_man.cell_start, _labels(nb_man.nb.cells)

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> None:
                if cell.cell_type == "code":
                    display.cell(labels[cell_index or 0])
                start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("pipeline", Engine)
    # sockets in the file system: what passes between runner and kernel is no other user's to read
    private = Config({"KernelManager": {"transport": "ipc"}})
    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    source_cells = json.loads(step.path.read_text(encoding="utf-8"))["cells"]
    cells = sum(cell["cell_type"] == "code" for cell in source_cells) + 1  # papermill adds one with the parameters
    try:
        with _kernel_environment(context), StepDisplay(step.name, cells, stream=stream) as display:
            papermill.execute_notebook(
                step.path,
                executed,
                parameters,
                engine_name="pipeline",
                kernel_name=KERNEL,
                language="python",
                cwd=root,
                progress_bar=False,
                display=display,
                stdout_file=display,
                stderr_file=display,
                config=private,
            )
    except PapermillExecutionError as error:
        return FAILED, _cell_failure(error, cells)
    except (DeadKernelError, CellTimeoutError) as error:
        return FAILED, f"the kernel died: {str(error).strip()}\n  do:       look for what used up the memory, and run again"
    except NoSuchKernel:
        return FAILED, f"Jupyter knows no kernel '{KERNEL}'\n  do:       pip install ipykernel into this environment"
    except KeyboardInterrupt:
        return INTERRUPTED, "stopped by the user"
    return SUCCEEDED, ""


def _labels(cells: list[Any]) -> list[str]:
    """What a person would call each cell: the sentence above it, its tag, or its first line."""
    labels = []
    for above, cell in zip([None, *cells[:-1]], cells, strict=True):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag.replace("-", "").isalpha()]
        sentence = above.source.splitlines()[0] if above is not None and above.cell_type == "markdown" else ""
        lines = [line for line in cell.source.splitlines() if line.strip()]
        first = "imports" if lines and lines[0].startswith(("import ", "from ")) else lines[0] if lines else ""
        labels.append(first if sentence.startswith("#") else sentence or (tags[0] if tags else first))
    return labels


@contextmanager
def _kernel_environment(context: Path) -> Iterator[None]:
    """What the kernel inherits: where its step is, and this environment's own kernel before the user's others."""
    wanted = {CONTEXT: str(context), "JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
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


def _cell_failure(error: Any, cells: int) -> str:
    """The failing cell and its error in about ten lines; our own errors need no traceback."""
    import re

    plain = re.compile(r"\x1b\[[0-9;]*m")
    kinds = {kind.__name__ for kind in _kinds(PipelineError)}
    line = next((text for text in error.source.splitlines() if text.strip()), "")
    head = f"cell {error.exec_count} of {cells}: {line.strip()[:100]}"
    if error.ename in kinds:
        return f"{head}\n{error.evalue}"
    frames = [text for text in plain.sub("", "\n".join(error.traceback)).splitlines() if text.strip()]
    inner = [text.strip()[:160] for text in frames if text.lstrip().startswith(("File ", "-->", "---->"))][-3:]
    return "\n".join([head, f"{error.ename}: {str(error.evalue)[:600]}", *(f"  {text}" for text in inner)])


def _kinds(kind: type[PipelineError]) -> list[type[PipelineError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


def _page(notebook: Path) -> Path:
    """The executed notebook as HTML beside it."""
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="lab").from_filename(str(notebook))
    page = notebook.with_suffix(".html")
    page.write_text(body, encoding="utf-8")
    return page


def _failure(step: StepNotebook, record: StepRecord) -> str:
    lines = [f"{step.name} failed", *(f"  {line}" for line in record.error.splitlines())]
    lines += [f"  {label} {value}" for label, value in (("notebook:", record.notebook), ("page:    ", record.report)) if value]
    return "\n".join(lines)
