"""The deliverables of a run, laid out as plain folders below `out/`, with a line of text on each."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from pipeline.errors import DataError
from pipeline.files import sha256_of
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.project import Project
from pipeline.runtime.store.artifact_index import StoredFile, regular_files
from pipeline.runtime.store.artifact_store import Artifact

BELOW_GATE = "below_gate"


def deliver(project: Project, manifest: RunManifest) -> list[str]:
    """Lay out the deliverables of a complete run; nothing of an incomplete one."""
    if not all(manifest.success(name) for name in project.steps):
        return []
    found = {entity: manifest.output(entity) for entity in project.config.deliver}
    shutil.rmtree(_out(project) / BELOW_GATE, ignore_errors=True)  # of an earlier failure
    return _lay_out(project, {entity: artifact for entity, artifact in found.items() if artifact}, _out(project))


def deliver_early(project: Project, record: StepRecord) -> list[str]:
    """Lay out the deliverables of one step that no other step reads: no later step can fail because of them."""
    read = {entity for step in project.steps.values() for entity in step.reads}
    found = {name: artifact for name, artifact in _deliverables(project, record).items() if name not in read}
    return _lay_out(project, found, _out(project))


def deliver_below_gate(project: Project, record: StepRecord) -> list[str]:
    """Lay out the deliverables of a step that missed its quality gate, in a folder apart: its report says why."""
    return _lay_out(project, _deliverables(project, record), _out(project) / BELOW_GATE)


def _deliverables(project: Project, record: StepRecord) -> dict[str, Artifact]:
    return {entity: artifact for entity, artifact in record.outputs.items() if entity in project.config.deliver}


def _out(project: Project) -> Path:
    return project.root / "out" / project.mode / project.config.name


def _lay_out(project: Project, artifacts: dict[str, Artifact], out: Path) -> list[str]:
    store, programs = project.runs.store, shlex.quote(str(Path(sys.executable).parent))
    for entity, artifact in artifacts.items():
        if not _holds_exactly(out / entity, store.index(artifact)):
            store.get(artifact, out / entity)
    lines = project.config.deliver
    return [lines[entity].format(path=shlex.quote(str(out / entity)), bin=programs) for entity in artifacts]


def _holds_exactly(folder: Path, files: list[StoredFile]) -> bool:
    """Whether a folder has these files, byte by byte, and no other. It may be in use, or have been changed."""
    try:
        sizes = {name: (folder / name).stat().st_size for name in regular_files(folder)}
        if sizes != {file.path: file.size for file in files}:
            return False
        return all(sha256_of(folder / file.path) == file.sha256 for file in files)
    except (OSError, DataError):  # no such folder, or a link in it
        return False
