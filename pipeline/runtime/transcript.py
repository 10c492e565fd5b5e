"""The output of a notebook, from the executed notebook that is kept with the run.

While an attempt runs on this machine, its notebook is read from the attempt's work folder instead. A job on a cluster
keeps its notebook with the run while it works.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import IntegrityError, MissingError
from pipeline.runtime.executed_notebook import CodeCell, code_cells
from pipeline.runtime.manifest import KILLED, RUNNING, RunManifest, StepRecord, notebook_key
from pipeline.runtime.process import is_held
from pipeline.runtime.project import Project

PENDING = "pending"
WIDTH = 300  # characters of a line


@dataclass(frozen=True)
class Transcript:
    """The output of an attempt's notebook; `source` is the attempt that printed it, another where work was reused."""

    run: str
    step: str
    attempt: int
    status: str
    source: str
    cells: list[CodeCell]


def read_transcript(project: Project, manifest: RunManifest, record: StepRecord) -> Transcript:
    """Read the output of an attempt, of which a notebook may be lacking: killed, elsewhere, or failed before it."""
    source, status = manifest.origin(record), record.status
    folder = None if record.notebook else _work_folder(project.root, record.step, source)
    if folder:
        status = KILLED if status == RUNNING and not is_held(folder) else status
        cells = []
        with suppress(FileNotFoundError, IntegrityError):  # it is not saved yet, or just being written
            cells = code_cells(_parsed((folder / f"{record.step}.ipynb").read_bytes(), str(folder)))
    else:
        cells = []
        with suppress(*(MissingError,) if record.engine and status == RUNNING else ()):  # nothing has arrived yet
            cells = code_cells(kept_notebook(project, manifest, record))
    return Transcript(manifest.run, record.step, record.attempt, status, source, cells)


def kept_notebook(project: Project, manifest: RunManifest, record: StepRecord) -> dict[str, Any]:
    """The executed notebook of an attempt, or of the one whose work it reused."""
    try:
        content = project.runs.store.files.read(notebook_key(manifest.origin(record)))
    except FileNotFoundError as error:
        raise MissingError(
            f"no notebook is kept of {manifest.run}/{record.made_by}, which is recorded as {record.state}",
            where=record.notebook or record.error.partition("\n")[0],
            remedy=f"python step.{manifest.mode}.py {record.step} --run {manifest.run} --force",
        ) from error
    return _parsed(content, record.notebook)


def transcript_text(transcript: Transcript, record: StepRecord) -> str:
    """A line for each cell, as in the progress display, and below it the cell's output."""
    is_killed, is_running = transcript.status == KILLED, transcript.status == RUNNING
    when = f"{record.seconds:.1f} s" if record.ended else f"since {record.started}"
    lines = [f"{record.step}, attempt {record.attempt} of run {transcript.run}: {transcript.status}, {when}"]
    lines += [f"the output of {transcript.source}, whose work it reused"] if record.reused_from else []
    lines += ["its output when the notebook was last saved"] if is_killed else []
    begun = [cell for cell in transcript.cells if cell.state != PENDING]
    for number, cell in enumerate(begun, 1):
        took = f"{cell.seconds:6.1f} s" if cell.seconds is not None else f"{cell.state:>8}"
        lines.append(f"  {number:>4}/{len(transcript.cells)} {took}  {cell.label}")
        for line in cell.text.splitlines():
            more = f"… and {len(line) - WIDTH} characters more" if len(line) > WIDTH else ""
            lines.append(f"      {line[:WIDTH]}{more}".rstrip())
    if rest := len(transcript.cells) - len(begun):
        lines.append(f"  {rest} more cells {'to come' if is_running else 'did not run'}")
    return "\n".join(lines)


def _work_folder(root: Path, step: str, made_by: str) -> Path | None:
    for context in (root / ".cache" / "work").glob(f"step.{step}.*/context.json"):
        try:
            if json.loads(context.read_text(encoding="utf-8"))["made_by"] == made_by:
                return context.parent
        except (OSError, ValueError):  # being written or removed
            continue
    return None


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        notebook: dict[str, Any] = json.loads(content)
        code_cells(notebook)  # whether it has the cells of a notebook
        return notebook
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"the executed notebook cannot be read: {error}", where=where) from error
