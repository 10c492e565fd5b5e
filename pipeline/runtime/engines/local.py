"""Executes notebooks on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.runtime.engines.attempt import Places, execute_attempt
from pipeline.runtime.engines.engine import Assignment, resume_name
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.project import Project


class LocalEngine:
    """This machine; see `engine.Engine`."""

    name = ""

    def __init__(self, project: Project) -> None:
        self._project = project

    def left_behind(self, manifest: RunManifest, planned: StepRecord) -> None:
        """No attempt: a kernel ends with its command."""

    def execute(self, step: StepNotebook, assignment: Assignment, *, fresh: bool) -> tuple[StepRecord, int]:
        """Execute an attempt here."""
        if fresh:
            self.forget(assignment.record)
        cache = self._project.root / ".cache"
        logs = cache / "logs" / assignment.made_by
        places = Places(self._project.root, cache, self._resume(assignment.record), logs)
        return execute_attempt(step, assignment, self._project.runs.store, places)

    def forget(self, record: StepRecord) -> None:
        """Remove the folder that the next attempt at the same work would resume from."""
        shutil.rmtree(self._resume(record), ignore_errors=True)

    def _resume(self, record: StepRecord) -> Path:
        return self._project.resume / resume_name(record)
