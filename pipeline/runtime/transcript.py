"""What a notebook printed as it ran, from the executed notebook that is kept with the run.

While an attempt runs on this machine, its notebook lies in the attempt's own folder, and that is read instead.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import IntegrityError, MissingError
from pipeline.runtime.executed_notebook import CodeCell, code_cells
from pipeline.runtime.manifest import INTERRUPTED, KILLED, RUNNING, RunManifest, StepRecord
from pipeline.runtime.project import Project
from pipeline.runtime.workspace import is_held

PENDING = "pending"
WIDTH = 300  # characters of a line
TRIES = 5  # at reading a notebook that papermill may be writing


@dataclass(frozen=True)
class Transcript:
    """What an attempt's notebook printed.

    Attributes:
        run: Whose attempt was asked for.
        step: Its step.
        attempt: Its number.
        status: As it is recorded; `killed` where it is recorded as running, and its process is gone.
        source: `run/step/attempt` that printed this: another one where its work was reused.
        cells: The code cells.
    """

    run: str
    step: str
    attempt: int
    status: str
    source: str
    cells: list[CodeCell]


def read_transcript(project: Project, manifest: RunManifest, record: StepRecord) -> Transcript:
    """Read what an attempt printed.

    Args:
        project: Where its run is.
        manifest: The run.
        record: The attempt.

    Raises:
        MissingError: There is no notebook of it: it was killed, runs elsewhere, or never got that far.
        IntegrityError: The notebook cannot be read.
    """
    made_by = f"{manifest.run}/{record.step}/{record.attempt}"
    source, status = record.reused_from or made_by, record.status
    if record.notebook:
        where = project.runs.store.files.location(notebook_key(manifest.run, record))
        cells = _parsed(_kept(project, manifest, record, where), where)
    else:
        folder = _work_folder(project.root, record.step, made_by)
        if folder is None:
            raise _nothing_kept(project, manifest, record)
        status = KILLED if status == RUNNING and not is_held(folder) else status
        cells = _unfinished(folder / f"{record.step}.ipynb")
    return Transcript(manifest.run, record.step, record.attempt, status, source, cells)


def notebook_key(run: str, record: StepRecord) -> str:
    """Where in the store an attempt's executed notebook is; of a reused attempt, that of the one that ran."""
    made_by = record.reused_from or f"{run}/{record.step}/{record.attempt}"
    source, step, attempt = made_by.split("/")
    return f"runs/{source}/notebooks/{step}.{int(attempt):03}.ipynb"


def transcript_text(transcript: Transcript, record: StepRecord) -> str:
    """A transcript to be read: a line a cell as the progress display has it, and below it what the cell printed."""
    since = "since" if transcript.status == RUNNING else "started"
    told = f"{record.seconds:.1f} s" if record.ended else f"{since} {record.started}"
    lines = [f"{record.step}, attempt {record.attempt} of run {transcript.run}: {transcript.status}, {told}"]
    lines += [f"what {transcript.source} printed, whose work it reused"] if record.reused_from else []
    lines += ["what it had printed when it was last saved"] if transcript.status == KILLED else []
    ran = [cell for cell in transcript.cells if cell.state != PENDING]
    for number, cell in enumerate(ran, 1):
        state = "cut off" if transcript.status == KILLED and cell.state == RUNNING else cell.state
        took = f"{cell.seconds:6.1f} s" if cell.seconds is not None else f"{state:>8}"
        lines.append(f"  {number:>4}/{len(transcript.cells)} {took}  {cell.label}")
        lines += [f"      {_cut(line)}".rstrip() for line in cell.text.splitlines()]
    if left := len(transcript.cells) - len(ran):
        lines.append(f"  {left} more cells {'to come' if transcript.status == RUNNING else 'did not run'}")
    return "\n".join(lines)


def _cut(line: str) -> str:
    """The picture in the repr of a value that holds one is nothing to read; --json has it whole."""
    return line if len(line) <= WIDTH else f"{line[:WIDTH]}… and {len(line) - WIDTH} characters more"


def _work_folder(root: Path, step: str, made_by: str) -> Path | None:
    for context in (root / ".cache" / "work").glob(f"step.{step}.*/context.json"):
        try:
            if json.loads(context.read_text(encoding="utf-8"))["made_by"] == made_by:
                return context.parent
        except (OSError, ValueError, KeyError, TypeError):  # being written, or going away
            continue
    return None


def _unfinished(notebook: Path) -> list[CodeCell]:
    """As it was last saved; none before it was saved at all."""
    for attempt in range(TRIES):
        try:
            return _parsed(notebook.read_bytes(), str(notebook))
        except FileNotFoundError:
            return []
        except IntegrityError:  # it is being written
            if attempt == TRIES - 1:
                raise
            time.sleep(0.1)
    return []


def _parsed(content: bytes, where: str) -> list[CodeCell]:
    try:
        return code_cells(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"the executed notebook cannot be read: {type(error).__name__}: {error}"
        raise IntegrityError(problem, where=where, expected="a Jupyter notebook as papermill writes it") from error


def _kept(project: Project, manifest: RunManifest, record: StepRecord, where: str) -> bytes:
    try:
        return project.runs.store.files.read(notebook_key(manifest.run, record))
    except FileNotFoundError as error:
        raise MissingError(
            f"the executed notebook of {record.step}, attempt {record.attempt}, is gone from the store",
            where=where,
            remedy=f"{_again(project, manifest, record)} --force",
        ) from error


def _nothing_kept(project: Project, manifest: RunManifest, record: StepRecord) -> MissingError:
    which, again = f"{record.step}, attempt {record.attempt} of run {manifest.run}", _again(project, manifest, record)
    if record.status == RUNNING and not record.is_killed:
        return MissingError(
            f"there is no notebook of {which}: it runs on another machine, or was killed there",
            where=f"started {record.started}, no end recorded",
            remedy=f"look there, or if it was killed: {again}",
        )
    if record.status in (RUNNING, KILLED):
        return MissingError(
            f"there is no notebook of {which}: it was killed, and what it printed was not kept", remedy=again
        )
    ended = f"was {INTERRUPTED}" if record.status == INTERRUPTED else record.status
    why = record.error.partition("\n")[0]
    return MissingError(
        f"there is no notebook of {which}: it {ended} before one was kept" + (f": {why}" if why else ""), remedy=again
    )


def _again(project: Project, manifest: RunManifest, record: StepRecord) -> str:
    return f"python step.{project.mode}.py {record.step} --run {manifest.run}"
