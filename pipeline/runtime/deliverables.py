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
from pipeline.runtime.run_page import remove_page, write_page
from pipeline.runtime.store.artifact_store import Artifact, StoredFile, regular_files

BELOW_GATE = "below_gate"


def deliver(project: Project, manifest: RunManifest) -> list[str]:
    """Lay out the deliverables of a complete run, and the page that links them; nothing of an incomplete one."""
    if not all(manifest.success(name) for name in project.steps):
        return []
    shutil.rmtree(_folder(project) / BELOW_GATE, ignore_errors=True)
    artifacts = {entity: manifest.output(entity) for entity in project.config.deliver}
    return _with_page(project, manifest, artifacts)


def deliver_step(project: Project, run: str, record: StepRecord) -> list[str]:
    """Lay out a step's deliverables that no other step reads, since no later step can fail because of them.

    Those of a step that missed its quality gate lie in a folder apart, with a page of the run: its report says why.
    """
    if record.status == FAILED:
        return _with_page(project, project.runs.load(run), record.outputs, BELOW_GATE)
    read = {entity for step in project.steps.values() for entity in step.reads}
    own = {name: each for name, each in record.outputs.items() if name not in read}
    return list(_lay_out(project, own, _folder(project)).values())


def _folder(project: Project) -> Path:
    return project.root / "out" / project.mode / project.config.name


def _with_page(
    project: Project, manifest: RunManifest, artifacts: Mapping[str, Artifact | None], apart: str = ""
) -> list[str]:
    """Lay out artifacts and the page that links them; the lines that show them, the page first."""
    folder, store = _folder(project) / apart, project.runs.store
    lines = _lay_out(project, artifacts, folder)
    if not lines:
        return []
    delivered = {entity: store.index(artifact) for entity in lines if (artifact := artifacts[entity])}
    page = write_page(folder, store, manifest, list(project.steps), delivered)
    return [f"index   {shlex.quote(str(page))}", *lines.values()]


def _lay_out(project: Project, artifacts: Mapping[str, Artifact | None], folder: Path) -> dict[str, str]:
    """Lay out those artifacts that the config delivers; the line that shows each, by entity."""
    lines = {}
    for entity, line in project.config.deliver.items():
        if artifact := artifacts.get(entity):
            if not _holds_exactly(folder / entity, project.runs.store.index(artifact)):
                remove_page(folder)  # it is of another run
                project.runs.store.get(artifact, folder / entity)
            programs = shlex.quote(str(Path(sys.executable).parent))
            lines[entity] = line.format(path=shlex.quote(str(folder / entity)), bin=programs)
    return lines


def _holds_exactly(folder: Path, files: list[StoredFile]) -> bool:
    """Whether a folder has these files, byte by byte, and no other. It may be in use, or have been changed."""
    try:
        found = {name: sha256_of(folder / name) for name in regular_files(folder)}
    except (OSError, DataError):  # no such folder, or a link in it
        return False
    return found == {file.path: file.sha256 for file in files}
