"""Resolves what a person types for a run, an attempt or an artifact."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.errors import MissingError, PipelineError, UsageError, did_you_mean
from pipeline.runtime.manifest import EARLIER, GOOD, RUN_ID, RunManifest, StepRecord
from pipeline.runtime.process import work_folder
from pipeline.runtime.project import MODES, Project, config_option, mode_option
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store

LATEST = re.compile(r"latest(?:~(?P<back>\d{1,6}))?")
DIGEST = re.compile(r"[0-9a-f]{6,64}")
VERSION = re.compile(r"(?:(?P<store>.*)/artifacts/)?(?P<entity>[\w-]+)/(?P<digest>[0-9a-f]{6,64})/?")
SHORTEST = 4  # digits of a run's short name
ALTERNATIVES = 5  # that an error names

log = logging.getLogger(__name__)


def find_run(project: Project, name: str | None = None, *, pipeline: str = "", having: str = "") -> RunManifest:
    """The run of a name: an id, its beginning or end, the beginning of its last part, `latest` (or None) or `latest~2`.

    `latest` is the newest run of the named pipeline, or of any where none is named; `latest~1` is the one before it of
    the same pipeline. For both, only runs `having` an output of a named entity count.
    """
    runs, typed = project.runs, name or "latest"
    if RUN_ID.fullmatch(typed):
        return runs.load(typed)
    if latest := LATEST.fullmatch(typed):
        return _find_latest(project, typed, int(latest["back"] or 0), pipeline, having)
    ids = runs.ids()
    found = matching_runs(typed, ids)
    if len(found) == 1:
        return runs.load(found[0])
    if found:
        raise UsageError(f"'{typed}' matches {len(found)} runs", expected=_one_of(found), remedy="type more of it")
    other = next(mode for mode in MODES if mode != project.mode)
    if matching_runs(typed, replace(project, mode=other).runs.ids()):
        remedy = f"use {other} mode: it is a {other} run"
    else:
        remedy = did_you_mean(typed, ids, otherwise=f"python -m pipeline runs{mode_option(project.mode)}", cutoff=0.6)
    raise MissingError(
        f"there is no run '{typed}'", where=f"{runs.store.url}/runs", expected=_one_of(ids), remedy=remedy
    )


def _find_latest(project: Project, typed: str, back: int, pipeline: str, having: str) -> RunManifest:
    runs, with_output = project.runs, f" with a {having}" if having else ""
    newest = runs.newest(pipeline=pipeline, having=having)
    if newest is None:
        of_pipeline = f" of '{pipeline}'" if pipeline else ""
        unfinished = runs.newest(pipeline=pipeline) if having else None
        remedy = f"python step.{project.mode}.py" + (
            f" --run {unfinished.run}" if unfinished else config_option(project.config_file)
        )
        problem = f"there is no {project.mode} run{of_pipeline}{with_output if unfinished else ''} yet"
        raise MissingError(problem, where=runs.store.url, remedy=remedy)
    found = runs.newest(pipeline=newest.pipeline, having=having, back=back) if back else newest
    if found is None:
        remedy = f"python -m pipeline runs --filter pipeline={newest.pipeline}{mode_option(project.mode)}"
        problem = f"there is no run '{typed}': '{newest.pipeline}' has fewer{with_output}"
        raise MissingError(problem, where=f"{runs.store.url}/runs", remedy=remedy)
    return found


def matching_runs(typed: str, runs: Sequence[str]) -> list[str]:
    """The ids that begin or end with a text, or whose last part begins with it."""
    return [
        run for run in runs if run.endswith(typed) or any(part.startswith(typed) for part in (run, run.split("-")[1]))
    ]


def short_names(runs: Sequence[str]) -> dict[str, str]:
    """A short name for each run, which `find_run` takes for that run alone: the beginning of its id's last part.

    All names have the same length. A run whose name would be another's, too, at any length keeps its whole id.
    """
    parts = {run: run.split("-")[1] for run in runs}
    names, ambiguous = dict[str, str](), list(runs)
    for length in range(SHORTEST, min(map(len, parts.values()), default=0) + 1):
        names = {run: part[:length] for run, part in parts.items()}
        taken = Counter([*names.values(), *(run[:length] for run in runs), *(run[-length:] for run in runs)])
        ambiguous = [run for run in runs if taken[names[run]] > 1 + (names[run] == run[-length:])]
        if not ambiguous:
            break
    return {**names, **{run: run for run in ambiguous}}


def find_attempt(manifest: RunManifest, step: str, number: int | None = None) -> StepRecord:
    """The numbered attempt at a step, or the newest."""
    attempts = manifest.of(step)
    if found := [record for record in attempts if number in (None, record.attempt)]:
        return found[-1]
    raise MissingError(
        f"{step} has {f'no attempt {number}' if attempts else 'not run'} in run {manifest.run}",
        expected=_one_of([str(record.attempt) for record in attempts]),
        remedy=f"python step.{manifest.mode}.py {step} --run {manifest.run}",
    )


def makers(runs: Runs, manifest: RunManifest) -> list[tuple[RunManifest, StepRecord]]:
    """The attempts that made the outputs of a run's successes, with their runs; a reused attempt made none itself.

    An attempt whose run is gone or cannot be read is logged and left out.
    """
    found: dict[str, tuple[RunManifest, StepRecord]] = {}
    for record in manifest.attempts:
        if record.status in GOOD and record.outputs:
            origin = manifest.origin(record)
            run, step, number = origin.split("/")
            try:
                source = manifest if run == manifest.run else runs.load(run)
                found[origin] = source, find_attempt(source, step, int(number))
            except PipelineError as error:
                log.warning("%s is left out, whose outputs %s reused: %s", origin, record.step, error.problem)
    return list(found.values())


def find_artifact(typed: str, manifests: Sequence[RunManifest]) -> Artifact:
    """The artifact of a name, in runs that are given oldest first.

    It is named by its entity, for its newest version in the newest run that has it; by `ENTITY/DIGEST` or a digest, of
    6 digits or more; or by its URL.
    """
    records = [record for manifest in manifests for record in manifest.attempts]
    known = {artifact.key: artifact for record in records for artifact in record.artifacts}
    entities = list(dict.fromkeys(artifact.name for artifact in known.values()))
    if typed in entities:
        good = (artifact for manifest in reversed(manifests) if (artifact := manifest.output(typed)))
        below_gate = (artifact for artifact in reversed(known.values()) if artifact.name == typed)
        return next(good, None) or next(below_gate)
    version = VERSION.fullmatch(typed)
    entity, digest = (version["entity"], version["digest"]) if version else ("", typed)
    if version or not DIGEST.fullmatch(typed):
        _require_entity(entity or typed.partition("/")[0], entities)
    found = [one for one in known.values() if one.digest.startswith(digest) and entity in ("", one.name)]
    if len(found) == 1:
        return found[0]
    versions = [f"{one.name}/{one.digest[:12]}" for one in found or known.values() if entity in ("", one.name)]
    if found:
        remedy = "type more of the digest, or ENTITY/DIGEST"
        raise UsageError(f"'{typed}' matches {len(found)} artifacts", expected=_one_of(versions), remedy=remedy)
    raise MissingError(f"no run knows an artifact '{typed}'", expected=_one_of(versions))


def _require_entity(name: str, entities: Sequence[str]) -> None:
    if name not in entities:
        remedy = did_you_mean(name, entities, cutoff=0.4)
        raise MissingError(f"there is no artifact '{name}'", expected=f"one of {', '.join(entities)}", remedy=remedy)


def find_stored(project: Project, typed: str, *, pipeline: str = "") -> Artifact:
    """The artifact of a name: `RUN/ENTITY` with a run as `find_run` takes it, or any that `find_artifact` takes."""
    run, slash, entity = typed.rpartition("/")
    if slash and "/" not in run and not DIGEST.fullmatch(entity):
        return find_artifact(entity, [find_run(project, run, pipeline=pipeline)])
    manifests = project.runs.readable()
    if not manifests:
        find_run(project)  # raises the error for a store without runs
    return find_artifact(typed, manifests)


@dataclass(frozen=True)
class NamedInput:
    """An input that a person named in place of the run's own."""

    typed: str  # such as `latest~1`
    source: str  # what that meant then: a run's id, `ENTITY/DIGEST`, or a URL
    artifact: Artifact


def find_input(project: Project, entity: str, typed: str) -> NamedInput:
    """The artifact that a person names as a step's input.

    It is named by a run, as `find_run` takes it, for its version of the entity; by `ENTITY/DIGEST` with 6 digits or
    more; or by its URL. An artifact of another store is copied into this one; every byte is checked.
    """
    entity = entity.removeprefix(EARLIER)
    store, version = project.runs.store, VERSION.fullmatch(typed)
    if version and version["entity"] == entity:
        if version["store"] not in (None, store.url):
            with work_folder(project.root / ".cache" / "work", "input", entity) as work:
                named = Artifact(entity, "", version["digest"], 0, 0)
                return NamedInput(typed, typed, store.put(entity, Store(version["store"]).get(named, work / entity)))
        artifact = find_artifact(f"{entity}/{version['digest']}", project.runs.readable())
        source = f"{entity}/{artifact.digest}"
    elif "/" in typed:
        raise UsageError(
            f"'{typed}' names no {entity}",
            where=f"--input {entity}",
            expected=f"a run, {entity}/DIGEST with 6 digits or more, or the URL of an artifact in a store",
            remedy="python -m pipeline show RUN has the digests, and with --json the URLs",
        )
    else:
        run = find_run(project, typed, pipeline=project.config.name)
        source = run.run
        if (own := run.output(entity)) is None:
            raise MissingError(f"run {source} has no {entity}", expected="a run in which its step succeeded")
        artifact = own
    if not store.has(artifact):
        raise MissingError(
            f"{entity} {artifact.digest[:12]} is no longer in the store",
            where=artifact.url,
            remedy="name another, or make it again with --force",
        )
    return NamedInput(typed, source, artifact)


def _one_of(names: Sequence[str]) -> str:
    """The newest of many names."""
    more = f" and {len(names) - ALTERNATIVES} more" if len(names) > ALTERNATIVES else ""
    return f"one of {', '.join(names[-ALTERNATIVES:])}{more}" if names else ""
