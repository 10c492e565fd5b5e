"""What a person names as a service: a run, the folder of a packed Bento, or the address of a running service."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.cli.command import CommandContext
from pipeline.errors import MissingError, UsageError
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.process import work_folder
from pipeline.runtime.run_summary import judged_another, shortcomings
from pipeline.runtime.store.artifact_store import Artifact

if TYPE_CHECKING:
    from pipeline.client.service_process import RunningService

ENTITY = "bento_service"
RUN_VARIABLE = "DETECTOR_RUN"
"""The environment variable from which a service knows the run that it comes from."""

log = logging.getLogger(__name__)


def is_address(typed: str) -> bool:
    """Whether a person named a running service; a `UsageError` where it is no usable address."""
    if "://" not in typed:
        return False
    parts = urlsplit(typed)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        expected = "http://HOST[:PORT][/PREFIX] or https://…, without a query"
        raise UsageError("this is not the address of a service", where=typed, expected=expected)
    if parts.username or parts.password:
        remedy = "set the service's key in the environment variable DETECTOR_API_KEY"
        raise UsageError("an address must not hold a password", where=parts.hostname, remedy=remedy)
    return True


def bento_folder(typed: str) -> Path | None:
    """The folder of a packed Bento, or None where the name is that of a run."""
    folder = Path(typed)
    if (folder / "bento.yaml").is_file():
        return folder.resolve()
    inner = folder / ENTITY / "bento.yaml"
    if folder.is_dir() or len(folder.parts) > 1:
        remedy = f"name {inner.parent}" if inner.is_file() else "name a run, such as latest"
        problem = "this folder holds no packed service" if folder.is_dir() else "there is no such folder"
        raise UsageError(problem, where=typed, expected="a folder with bento.yaml", remedy=remedy)
    return None


@dataclass(frozen=True)
class RunService:
    """The packed service of a run."""

    run: RunManifest
    artifact: Artifact
    caution: str  # one line on what speaks against it; empty where every step succeeded, the evaluation of it too

    def warn(self) -> None:
        """Log the caution, if there is one."""
        if self.caution:
            log.warning("warning: %s", self.caution)


def find_service(context: CommandContext, typed: str | None) -> RunService:
    """The packed service of the named run; `latest`, the default, counts only runs that have one."""
    run = context.find_run(typed, having=ENTITY)
    artifact = packed_service(context, run)
    judges = [record for step in context.steps if (record := run.success(step)) and judged_another(run, record)]
    others = [f"{record.step} judged another service" for record in judges]
    reasons = "; ".join([*shortcomings(run, list(context.steps)), *others])
    return RunService(run, artifact, f"run {run.run}: {reasons}" if reasons else "")


def packed_service(context: CommandContext, manifest: RunManifest) -> Artifact:
    """The packed service of a run; a `MissingError` where it has none, which names the newest run that has one."""
    if artifact := manifest.output(ENTITY):
        return artifact
    newest = context.project.runs.newest(pipeline=manifest.pipeline, having=ENTITY)
    other = f", or name {newest.run}, the newest run that has one" if newest else ""
    raise MissingError(
        f"run {manifest.run} has no packed service",
        expected="a run in which the step that packs the model succeeded",
        remedy=f"python step.{manifest.mode}.py --run {manifest.run}{other}",
    )


@contextmanager
def fetched(context: CommandContext, artifact: Artifact) -> Iterator[Path]:
    """A run's packed service in a working folder, every byte checked."""
    store = context.project.runs.store
    with work_folder(context.root / ".cache" / "work", "serve") as work:
        yield store.get(artifact, work / ENTITY, link=True)


@contextmanager
def service_at(context: CommandContext, typed: str) -> Iterator[str]:
    """The address of the named service, which is started and stopped again unless it is running already."""
    if is_address(typed):
        yield typed
        return
    if folder := bento_folder(typed):
        with _started(folder) as service:
            yield service.url
        return
    named = find_service(context, typed)
    named.warn()
    with fetched(context, named.artifact) as folder, _started(folder, named.run.run) as service:
        yield service.url


@contextmanager
def _started(folder: Path, run: str = "") -> Iterator[RunningService]:
    from pipeline.client.service_process import serve

    log.info("starting the service of %s", f"run {run}" if run else folder)
    with serve(folder, environment={RUN_VARIABLE: run} if run else {}) as service:
        yield service


def settings_of(run: str = "") -> dict[str, str]:
    """The settings of a service that is served for others: those of this process, and its run where it is known."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("DETECTOR_")}
    if (samples := settings.get("DETECTOR_SAMPLES")) and "://" not in samples:
        settings["DETECTOR_SAMPLES"] = str(Path(samples).absolute())  # the service runs in another folder
    return settings | ({RUN_VARIABLE: run} if run else {})


def find_test_image(folder: Path) -> Path:
    """The test image of a packed Bento, as a path that is typed in the working directory."""
    found = next(iter(sorted((folder / "src").glob("test_image.*"))), folder / "src" / "test_image.jpg")
    return Path(os.path.relpath(found)) if found.is_relative_to(Path.cwd()) else found


def newest_complete(context: CommandContext, pipeline: str, after: str = "") -> RunManifest | None:
    """The newest run of a pipeline, later than the run `after`, in which every step succeeded, as a delivered one must.

    An empty pipeline is any.
    """
    for back in count():
        run = context.project.runs.newest(pipeline=pipeline, back=back)
        if run is None or run.run <= after:
            return None
        if all(run.success(step) for step in context.steps) and run.output(ENTITY):
            return run
    return None
