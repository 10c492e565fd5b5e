"""Which engine runs a step, and who is at work on an attempt. A cluster's code is imported only where one is used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.runtime.engines.engine import Engine
from pipeline.runtime.engines.local import LocalEngine
from pipeline.runtime.manifest import StepRecord
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.process import Process, is_alive
from pipeline.runtime.project import Project
from pipeline.runtime.store.artifact_store import Store


def engine_of(project: Project, step: str) -> Engine:
    """The engine that runs a step."""
    if project.config.machine(step).here:
        return LocalEngine(project)
    from pipeline.runtime.engines.ray import RayEngine

    return RayEngine(project)


def check_engine(project: Project, steps: Iterable[StepNotebook]) -> None:
    """Refuse a command that the config's engine cannot run, before anything is queued."""
    if there := [step for step in steps if not project.config.machine(step.name).here]:
        from pipeline.runtime.engines.ray import RayEngine

        RayEngine(project).check(there)


def command_of(store: Store, run: str, record: StepRecord) -> Process:
    """The process of the command that an attempt without an end belongs to."""
    if not record.engine:
        return record.process
    from pipeline.runtime.engines.job_files import JobFiles

    return JobFiles(store, run, record).watcher()


def is_at_work(store: Store, run: str, record: StepRecord) -> bool | None:
    """Whether anything is at work on an attempt without an end; None if that is unknown."""
    return are_at_work(store, [(run, record)])[0] if record.engine else is_alive(record.process)


def are_at_work(store: Store, attempts: Sequence[tuple[str, StepRecord]]) -> list[bool | None]:
    """As `is_at_work` for several attempts of engines; nothing is asked where there are none."""
    if not attempts:
        return []
    from pipeline.runtime.engines import ray

    return ray.are_at_work(store, attempts)


def place_of(store: Store, run: str, record: StepRecord) -> str:
    """Where an attempt without an end runs, as far as it is not this machine."""
    if record.engine:
        from pipeline.runtime.engines import ray

        return ray.place_of(store, run, record)
    host = record.process.host.partition(" ")[0] or "another machine"
    return "" if is_alive(record.process) else f"on {host}, or killed there"
