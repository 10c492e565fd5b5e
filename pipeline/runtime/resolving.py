"""What a person types for a run, an attempt or an artifact, and which one that is."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import MissingError, PipelineError, UsageError, did_you_mean
from pipeline.runtime.manifest import GOOD, RUN_ID, RunManifest, StepRecord
from pipeline.runtime.project import Project, check_name
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store, marker
from pipeline.runtime.workspace import work_folder

LATEST = re.compile(r"latest(?:~(?P<back>\d{1,6}))?")
PREFIX = re.compile(r"[0-9a-f]{6,64}")
VERSION = re.compile(r"(?P<entity>[\w-]+)/(?P<digest>[0-9a-f]{6,64})")
LOCATED = re.compile(r".*/artifacts/(?P<entity>[^/]+)/(?P<digest>[0-9a-f]{64})/?")
SHOWN = 5  # alternatives that an error names

log = logging.getLogger(__name__)


def find_run(project: Project, name: str | None = None, *, pipeline: str = "") -> RunManifest:
    """The run that a person means.

    Args:
        project: Whose runs.
        name: An id, how one begins or ends, how its last part begins, `latest` or `latest~2`; None is `latest`.
        pipeline: For `latest`: only runs of this pipeline.

    Raises:
        MissingError: There is no such run.
        UsageError: It may be one of several.
    """
    runs = project.runs
    typed = name or "latest"
    if latest := LATEST.fullmatch(typed):
        return _latest(project, int(latest["back"] or 0), pipeline)
    if RUN_ID.fullmatch(typed):
        return runs.load(typed)
    ids = runs.ids()
    found = [run for run in ids if run.startswith(typed) or run.endswith(typed)]
    found = found or [run for run in ids if run.partition("-")[2].startswith(typed)]
    if len(found) == 1:
        return runs.load(found[0])
    if found:
        raise UsageError(f"'{typed}' stands for {len(found)} runs", expected=_one_of(found), remedy="type more of it")
    raise MissingError(
        f"there is no run '{typed}'",
        where=f"{runs.store.url}/runs",
        expected=f"one of {len(ids)}, the newest {ids[-1]}" if ids else "a run; there is none yet",
        remedy=did_you_mean(typed, ids, otherwise=_list(project), cutoff=0.6),
    )


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
    for record in attempts:
        if record.attempt == number:
            return record
    if number is not None:
        numbers = ", ".join(str(record.attempt) for record in attempts)
        raise MissingError(f"{step} has no attempt {number} in run {manifest.run}", expected=f"one of {numbers}")
    return attempts[-1]


def makers(runs: Runs, manifest: RunManifest) -> list[tuple[RunManifest, StepRecord]]:
    """The attempts that made what a run's successes stand for, with their runs: a reused one itself made nothing.

    One whose run is gone or cannot be read is logged and left out.
    """
    found: dict[str, tuple[RunManifest, StepRecord]] = {}
    for record in manifest.attempts:
        if record.status not in GOOD or not record.outputs:
            continue
        made_by = record.reused_from or f"{manifest.run}/{record.step}/{record.attempt}"
        try:
            run, step, number = made_by.split("/")
            source = manifest if run == manifest.run else runs.load(run)
            found[made_by] = source, find_attempt(source, step, int(number))
        except PipelineError as error:
            log.warning("%s is left out, which made what %s reused: %s", made_by, record.step, error.problem)
    return list(found.values())


def find_artifact(typed: str, manifests: Sequence[RunManifest]) -> Artifact:
    """The artifact that a person means.

    Args:
        typed: An entity, which is its newest version in the newest run that has it; `ENTITY/DIGEST` or a digest, which
            may be cut short to 6 digits; or the artifact's URL.
        manifests: Oldest first.

    Raises:
        MissingError: There is no such version.
        UsageError: There is no such entity, or it may be one of several artifacts.
    """
    known = {(artifact.name, artifact.digest): artifact for artifact in _artifacts(manifests)}
    entities = list(dict.fromkeys(name for name, _ in known))
    if typed in entities:
        for manifest in reversed(manifests):
            if artifact := manifest.output(typed):
                return artifact
        return next(artifact for artifact in reversed(known.values()) if artifact.name == typed)  # below its gate
    located = LOCATED.fullmatch(typed)
    entity, _, digest = f"{located['entity']}/{located['digest']}".partition("/") if located else typed.rpartition("/")
    if entity:
        check_name("artifact", entity, entities)
    elif not PREFIX.fullmatch(digest):
        check_name("artifact", typed, entities)
    found = [
        artifact
        for (name, whole), artifact in known.items()
        if whole.startswith(digest) and digest and name == (entity or name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        named = [f"{artifact.name}/{artifact.digest[:12]}" for artifact in found]
        remedy = "type more of the digest, or ENTITY/DIGEST"
        raise UsageError(f"'{typed}' stands for {len(found)} artifacts", expected=_one_of(named), remedy=remedy)
    versions = [f"{name}/{whole[:12]}" for name, whole in known if name == entity]
    raise MissingError(f"no run knows an artifact '{typed}'", expected=_one_of(versions or entities))


@dataclass(frozen=True)
class NamedInput:
    """An input that a person named in place of the run's own.

    Attributes:
        typed: What was typed, such as `latest~1`.
        source: What that stood for: a run's id, `ENTITY/DIGEST`, or a URL.
        artifact: What is read.
    """

    typed: str
    source: str
    artifact: Artifact

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> NamedInput:
        """From the form `dataclasses.asdict` gives it."""
        return cls(content["typed"], content["source"], Artifact(**content["artifact"]))


def find_input(project: Project, entity: str, typed: str) -> NamedInput:
    """The artifact that a person names as a step's input.

    Args:
        project: Whose runs.
        entity: What it is to be.
        typed: A run, as `find_run` takes it, whose own version of the entity is meant; a digest of 6 digits or more,
            perhaps as `ENTITY/DIGEST`; or an artifact's URL. One of another store is copied into this one.

    Raises:
        MissingError: There is no such run or version, the run has none, or it is not in the store any more.
        UsageError: It is of another entity, or it may be one of several.
    """
    store = project.runs.store
    if located := LOCATED.fullmatch(typed):
        _check_entity(entity, located["entity"], typed)
        if typed.rstrip("/") != f"{store.url}/{marker(entity, located['digest'])}":
            return NamedInput(typed, typed, _copied(project, entity, located, typed))
        artifact = find_artifact(typed, project.runs.readable())
        source = f"{entity}/{artifact.digest}"
    elif version := VERSION.fullmatch(typed):
        _check_entity(entity, version["entity"], typed)
        artifact = find_artifact(typed, project.runs.readable())
        source = f"{entity}/{artifact.digest}"
    elif "/" in typed:
        raise UsageError(
            f"'{typed}' names no artifact",
            where=f"--input {entity}",
            expected=f"a run, {entity}/DIGEST with 6 digits or more, or the URL of an artifact in a store, "
            f".../artifacts/{entity}/DIGEST",
            remedy="python -m pipeline show RUN has the digests, and with --json the URLs",
        )
    else:
        source, artifact = _of_run_or_digest(project, entity, typed)
    if not store.has(artifact):
        raise MissingError(
            f"{entity} {artifact.digest[:12]} is not in the store any more",
            where=artifact.url,
            remedy="name another, or make it again with --force",
        )
    return NamedInput(typed, source, artifact)


def _of_run_or_digest(project: Project, entity: str, typed: str) -> tuple[str, Artifact]:
    """What a run has of an entity, or the version that a digest begins; and which of the two it is."""
    manifests = project.runs.readable() if PREFIX.fullmatch(typed) else []
    versions = {
        artifact.digest
        for artifact in _artifacts(manifests)
        if artifact.name == entity and artifact.digest.startswith(typed)
    }
    try:
        run = find_run(project, typed)
    except (MissingError, UsageError):
        if versions:
            artifact = find_artifact(f"{entity}/{typed}", manifests)
            return f"{entity}/{artifact.digest}", artifact
        raise
    if versions:
        raise UsageError(
            f"'{typed}' stands for run {run.run} and for {entity}/{min(versions)[:12]}",
            expected="one of them",
            remedy="type more of the run, or ENTITY/DIGEST",
        )
    if own := run.output(entity):
        return run.run, own
    raise MissingError(
        f"run {run.run} has no {entity}", expected="a run in which its step succeeded", remedy=_list(project)
    )


def _check_entity(entity: str, named: str, typed: str) -> None:
    if named != entity:
        raise UsageError(f"'{typed}' is a {named}, no {entity}", where=f"--input {entity}", expected=f"a {entity}")


def _copied(project: Project, entity: str, located: re.Match[str], typed: str) -> Artifact:
    """An artifact of another store, with every byte checked on its way into this one."""
    other = Store(typed[: typed.index("/artifacts/")])
    found = Artifact(entity, typed, located["digest"], 0, 0)
    with work_folder(project.root / ".cache" / "work", "input", entity) as work:
        return project.runs.store.put(entity, other.get(found, work / entity))


def _artifacts(manifests: Sequence[RunManifest]) -> Iterable[Artifact]:
    for manifest in manifests:
        for record in manifest.attempts:
            yield from record.inputs.values()
            yield from record.outputs.values()


def _latest(project: Project, back: int, pipeline: str) -> RunManifest:
    runs = project.runs
    if not back and (newest := runs.newest(pipeline=pipeline)):  # which looks at no more runs than it must
        return newest
    ids = [run for run in reversed(runs.ids()) if not pipeline or runs.load(run).pipeline == pipeline]
    if not ids:
        whose = f" of '{pipeline}'" if pipeline else ""
        raise MissingError(
            f"there is no {project.mode} run{whose} yet", where=runs.store.url, remedy=f"python step.{project.mode}.py"
        )
    if back >= len(ids):
        raise MissingError(
            f"latest~{back} goes back further than there are runs",
            where=f"{runs.store.url}/runs",
            expected=f"latest to latest~{len(ids) - 1}" if len(ids) > 1 else "latest: there is one run",
            remedy=_list(project),
        )
    return runs.load(ids[back])


def _list(project: Project) -> str:
    return f"list them with: python -m pipeline runs{' --mode prod' if project.mode == 'prod' else ''}"


def _one_of(names: Sequence[str]) -> str:
    """The newest of many names."""
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"one of {', '.join(names[-SHOWN:])}{more}"
