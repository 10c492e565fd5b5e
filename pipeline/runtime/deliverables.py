"""The deliverables of a run, laid out as plain folders below `out/`, with a line of text on each."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import DataError
from pipeline.files import sha256_of
from pipeline.runtime.manifest import FAILED, RunManifest, StepRecord
from pipeline.runtime.project import Project
from pipeline.runtime.store.artifact_store import Artifact, StoredFile, regular_files

BELOW_GATE = "below_gate"


def deliver(project: Project, manifest: RunManifest) -> list[str]:
    """Lay out the deliverables of a complete run; nothing of an incomplete one."""
    if not all(manifest.success(name) for name in project.steps):
        return []
    shutil.rmtree(project.root / "out" / project.mode / project.config.name / BELOW_GATE, ignore_errors=True)
    return _lay_out(project, {entity: manifest.output(entity) for entity in project.config.deliver})


def deliver_step(project: Project, record: StepRecord) -> list[str]:
    """Lay out a step's deliverables that no other step reads, since no later step can fail because of them.

    Those of a step that missed its quality gate lie in a folder apart: its report says why.
    """
    apart = BELOW_GATE if record.status == FAILED else ""
    read = set() if apart else {entity for step in project.steps.values() for entity in step.reads}
    return _lay_out(project, {name: each for name, each in record.outputs.items() if name not in read}, apart)


def _lay_out(project: Project, artifacts: Mapping[str, Artifact | None], apart: str = "") -> list[str]:
    out, lines = project.root / "out" / project.mode / project.config.name / apart, []
    for entity, line in project.config.deliver.items():
        if artifact := artifacts.get(entity):
            if not _holds_exactly(out / entity, project.runs.store.index(artifact)):
                project.runs.store.get(artifact, out / entity)
            programs = shlex.quote(str(Path(sys.executable).parent))
            lines.append(line.format(path=shlex.quote(str(out / entity)), bin=programs))
    return lines


def _holds_exactly(folder: Path, files: list[StoredFile]) -> bool:
    """Whether a folder has these files, byte by byte, and no other. It may be in use, or have been changed."""
    try:
        found = {name: sha256_of(folder / name) for name in regular_files(folder)}
    except (OSError, DataError):  # no such folder, or a link in it
        return False
    return found == {file.path: file.sha256 for file in files}
