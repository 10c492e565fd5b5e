"""The deliverables of a run, laid out as plain folders below `out/`, with a line of text on each."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import DataError
from pipeline.files import sha256_of
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.project import Project
from pipeline.runtime.store.artifact_store import Artifact, StoredFile, regular_files

BELOW_GATE = "below_gate"


def deliver(project: Project, manifest: RunManifest) -> list[str]:
    """Lay out the deliverables of a complete run; nothing of an incomplete one."""
    if not all(manifest.success(name) for name in project.steps):
        return []
    shutil.rmtree(project.root / "out" / project.mode / project.config.name / BELOW_GATE, ignore_errors=True)
    found = {entity: manifest.output(entity) for entity in project.config.deliver}
    return _lay_out(project, {entity: artifact for entity, artifact in found.items() if artifact})


def deliver_early(project: Project, record: StepRecord) -> list[str]:
    """Lay out the deliverables of one step that no other step reads: no later step can fail because of them."""
    read = {entity for step in project.steps.values() for entity in step.reads}
    return _lay_out(project, {name: artifact for name, artifact in record.outputs.items() if name not in read})


def deliver_below_gate(project: Project, record: StepRecord) -> list[str]:
    """Lay out the deliverables of a step that missed its quality gate, in a folder apart: its report says why."""
    return _lay_out(project, record.outputs, BELOW_GATE)


def _lay_out(project: Project, artifacts: Mapping[str, Artifact], apart: str = "") -> list[str]:
    out, lines = project.root / "out" / project.mode / project.config.name / apart, []
    for entity, line in project.config.deliver.items():
        if entity in artifacts:
            if not _holds_exactly(out / entity, project.runs.store.index(artifacts[entity])):
                project.runs.store.get(artifacts[entity], out / entity)
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
