"""Resolves what a person types for a run, an attempt or an artifact."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import MissingError, PipelineError, UsageError, did_you_mean
from pipeline.runtime.manifest import GOOD, RUN_ID, RunManifest, StepRecord
from pipeline.runtime.process import work_folder
from pipeline.runtime.project import Project, check_name, mode_option
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store

LATEST = re.compile(r"latest(?:~(?P<back>\d{1,6}))?")
DIGEST = re.compile(r"[0-9a-f]{6,64}")
VERSION = re.compile(r"(?P<entity>[\w-]+)/(?P<digest>[0-9a-f]{6,64})")
LOCATION = re.compile(r".*/artifacts/(?P<entity>[^/]+)/(?P<digest>[0-9a-f]{64})/?")
ALTERNATIVES = 5  # that an error names

log = logging.getLogger(__name__)


def find_run(project: Project, name: str | None = None, *, pipeline: str = "") -> RunManifest:
    """The run of a name.

    Args:
        project: The project of the runs.
        name: An id, its beginning or end, the beginning of its last part, `latest` or `latest~2`; None is `latest`.
        pipeline: For `latest`: count only runs of this pipeline.

    Raises:
        MissingError: There is no such run.
        UsageError: Several runs match.
    """
    runs, typed = project.runs, name or "latest"
    if latest := LATEST.fullmatch(typed):
        return _find_latest(project, int(latest["back"] or 0), pipeline)
    if RUN_ID.fullmatch(typed):
        return runs.load(typed)
    ids = runs.ids()
    found = [run for run in ids if run.startswith(typed) or run.endswith(typed)]
    found = found or [run for run in ids if run.partition("-")[2].startswith(typed)]
    if len(found) == 1:
        return runs.load(found[0])
    if found:
        raise UsageError(f"'{typed}' matches {len(found)} runs", expected=_one_of(found), remedy="type more of it")
    raise MissingError(
        f"there is no run '{typed}'",
        where=f"{runs.store.url}/runs",
        expected=f"one of {len(ids)}, the newest {ids[-1]}" if ids else "a run; there is none yet",
        remedy=did_you_mean(typed, ids, otherwise=_list_command(project), cutoff=0.6),
    )


def _find_latest(project: Project, back: int, pipeline: str) -> RunManifest:
    runs = project.runs
    if not back and (newest := runs.newest(pipeline=pipeline)):  # reads no more runs than necessary
        return newest
    ids = [run for run in reversed(runs.ids()) if not pipeline or runs.load(run).pipeline == pipeline]
    if not ids:
        of_pipeline = f" of '{pipeline}'" if pipeline else ""
        problem = f"there is no {project.mode} run{of_pipeline} yet"
        raise MissingError(problem, where=runs.store.url, remedy=f"python step.{project.mode}.py")
    if back >= len(ids):
        raise MissingError(
            f"latest~{back} goes back further than there are runs",
            where=f"{runs.store.url}/runs",
            expected=f"latest to latest~{len(ids) - 1}" if len(ids) > 1 else "latest: there is one run",
            remedy=_list_command(project),
        )
    return runs.load(ids[back])


def find_attempt(manifest: RunManifest, step: str, number: int | None = None) -> StepRecord:
    """The numbered attempt at a step, or the newest.

    Raises:
        MissingError: There is no such attempt.
    """
    attempts = manifest.of(step)
    if not attempts:
        ran = dict.fromkeys(record.step for record in manifest.attempts)
        raise MissingError(
            f"{step} has not run in run {manifest.run}",
            expected=f"one of {', '.join(ran)}" if ran else "a step that ran; none has",
            remedy=f"python step.{manifest.mode}.py {step} --run {manifest.run}",
        )
    if number is None:
        return attempts[-1]
    for record in attempts:
        if record.attempt == number:
            return record
    numbers = ", ".join(str(record.attempt) for record in attempts)
    raise MissingError(f"{step} has no attempt {number} in run {manifest.run}", expected=f"one of {numbers}")


def makers(runs: Runs, manifest: RunManifest) -> list[tuple[RunManifest, StepRecord]]:
    """The attempts that made the outputs of a run's successes, with their runs; a reused attempt made none itself.

    An attempt whose run is gone or cannot be read is logged and left out.
    """
    found: dict[str, tuple[RunManifest, StepRecord]] = {}
    for record in manifest.attempts:
        if record.status not in GOOD or not record.outputs:
            continue
        origin = manifest.origin(record)
        try:
            run, step, number = origin.split("/")
            source = manifest if run == manifest.run else runs.load(run)
            found[origin] = source, find_attempt(source, step, int(number))
        except PipelineError as error:
            log.warning("%s is left out, whose outputs %s reused: %s", origin, record.step, error.problem)
    return list(found.values())


def find_artifact(typed: str, manifests: Sequence[RunManifest]) -> Artifact:
    """The artifact of a name.

    Args:
        typed: An entity, for its newest version in the newest run that has it; `ENTITY/DIGEST` or a digest, cut to 6
            digits or more; or the artifact's URL.
        manifests: The runs, oldest first.

    Raises:
        MissingError: There is no such version.
        UsageError: There is no such entity, or several artifacts match.
    """
    known = {(artifact.name, artifact.digest): artifact for artifact in _artifacts(manifests)}
    entities = list(dict.fromkeys(name for name, _ in known))
    if typed in entities:
        for manifest in reversed(manifests):
            if artifact := manifest.output(typed):
                return artifact
        return next(artifact for artifact in reversed(known.values()) if artifact.name == typed)  # below its gate
    located = LOCATION.fullmatch(typed)
    entity, _, digest = f"{located['entity']}/{located['digest']}".partition("/") if located else typed.rpartition("/")
    if entity or not DIGEST.fullmatch(digest):
        check_name("artifact", entity or typed, entities)
    found = [
        each for (name, whole), each in known.items() if digest and whole.startswith(digest) and entity in ("", name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        versions = [f"{artifact.name}/{artifact.digest[:12]}" for artifact in found]
        remedy = "type more of the digest, or ENTITY/DIGEST"
        raise UsageError(f"'{typed}' matches {len(found)} artifacts", expected=_one_of(versions), remedy=remedy)
    versions = [f"{name}/{whole[:12]}" for name, whole in known if name == entity]
    raise MissingError(f"no run knows an artifact '{typed}'", expected=_one_of(versions or entities))


@dataclass(frozen=True)
class NamedInput:
    """An input that a person named in place of the run's own.

    Attributes:
        typed: The text, such as `latest~1`.
        source: What the text meant then: a run's id, `ENTITY/DIGEST`, or a URL.
        artifact: The input.
    """

    typed: str
    source: str
    artifact: Artifact

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> NamedInput:
        """Read what `dataclasses.asdict` gives."""
        return cls(content["typed"], content["source"], Artifact(**content["artifact"]))


def find_input(project: Project, entity: str, typed: str) -> NamedInput:
    """The artifact that a person names as a step's input.

    Args:
        project: The project of the runs.
        entity: The entity of the input.
        typed: A run, as `find_run` takes it, for its version of the entity; a digest of 6 digits or more, or
            `ENTITY/DIGEST`; or an artifact's URL. An artifact of another store is copied into this one.

    Raises:
        MissingError: There is no such run or version, the run has none, or it is no longer in the store.
        UsageError: It is of another entity, or several match.
    """
    store, where = project.runs.store, f"--input {entity}"
    if named := LOCATION.fullmatch(typed) or VERSION.fullmatch(typed):
        if named["entity"] != entity:
            raise UsageError(f"'{typed}' is a {named['entity']}, no {entity}", where=where, expected=f"a {entity}")
        if "/artifacts/" in typed and typed.rstrip("/") != f"{store.url}/artifacts/{entity}/{named['digest']}":
            return NamedInput(typed, typed, _copy_from_other_store(project, entity, named["digest"], typed))
        artifact = find_artifact(typed, project.runs.readable())
        source = f"{entity}/{artifact.digest}"
    elif "/" in typed:
        raise UsageError(
            f"'{typed}' names no artifact",
            where=where,
            expected=f"a run, {entity}/DIGEST with 6 digits or more, or the URL of an artifact in a store, "
            f".../artifacts/{entity}/DIGEST",
            remedy="python -m pipeline show RUN has the digests, and with --json the URLs",
        )
    else:
        source, artifact = _of_run_or_digest(project, entity, typed)
    if not store.has(artifact):
        raise MissingError(
            f"{entity} {artifact.digest[:12]} is no longer in the store",
            where=artifact.url,
            remedy="name another, or make it again with --force",
        )
    return NamedInput(typed, source, artifact)


def _of_run_or_digest(project: Project, entity: str, typed: str) -> tuple[str, Artifact]:
    """The source and the artifact: a run's version of an entity, or the version whose digest begins so."""
    manifests = project.runs.readable() if DIGEST.fullmatch(typed) else []
    artifacts = (artifact for artifact in _artifacts(manifests) if artifact.name == entity)
    versions = {artifact.digest for artifact in artifacts if artifact.digest.startswith(typed)}
    try:
        run = find_run(project, typed)
    except (MissingError, UsageError):
        if not versions:
            raise
        artifact = find_artifact(f"{entity}/{typed}", manifests)
        return f"{entity}/{artifact.digest}", artifact
    if versions:
        raise UsageError(
            f"'{typed}' matches run {run.run} and {entity}/{min(versions)[:12]}",
            expected="one of them",
            remedy="type more of the run, or ENTITY/DIGEST",
        )
    if own := run.output(entity):
        return run.run, own
    expected = "a run in which its step succeeded"
    raise MissingError(f"run {run.run} has no {entity}", expected=expected, remedy=_list_command(project))


def _copy_from_other_store(project: Project, entity: str, digest: str, url: str) -> Artifact:
    """Copy an artifact into this store; every byte is checked."""
    other, artifact = Store(url[: url.index("/artifacts/")]), Artifact(entity, url, digest, 0, 0)
    with work_folder(project.root / ".cache" / "work", "input", entity) as work:
        return project.runs.store.put(entity, other.get(artifact, work / entity))


def _artifacts(manifests: Sequence[RunManifest]) -> Iterable[Artifact]:
    return (artifact for manifest in manifests for record in manifest.attempts for artifact in record.artifacts)


def _list_command(project: Project) -> str:
    return f"list them with: python -m pipeline runs{mode_option(project.mode)}"


def _one_of(names: Sequence[str]) -> str:
    """The newest of many names."""
    more = f" and {len(names) - ALTERNATIVES} more" if len(names) > ALTERNATIVES else ""
    return f"one of {', '.join(names[-ALTERNATIVES:])}{more}" if names else ""
