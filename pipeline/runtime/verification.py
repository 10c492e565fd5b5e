"""Checks that everything that runs refer to is as it was recorded: every record, index and byte."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import PipelineError, StoreError
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.project import config_option
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact


@dataclass(frozen=True)
class VerificationFinding:
    """A difference from what was recorded."""

    what: str
    where: str  # the artifact or record
    runs: tuple[str, ...]  # that refer to it
    remedy: str


@dataclass(frozen=True)
class Verification:
    """The numbers of runs, artifacts and different files that are right, and the differences."""

    runs: int
    artifacts: int
    files: int
    findings: tuple[VerificationFinding, ...]


def verify(runs: Runs, ids: Iterable[str]) -> Verification:
    """Read the records of runs, hash every byte of their artifacts, and render their manifests anew.

    Damaged files are set aside, so that the step that makes them can make them anew.
    """
    findings: list[VerificationFinding] = []
    manifests: list[RunManifest] = []
    users: dict[tuple[str, str], tuple[Artifact, list[RunManifest]]] = {}
    for run in ids:
        try:
            manifest = runs.load(run)
            with suppress(StoreError):  # the store may be read-only
                runs.render(run)
        except PipelineError as error:
            remedy = "move the run's folder out of the store"
            findings.append(VerificationFinding(error.problem, f"run {run}", (run,), remedy))
            continue
        manifests.append(manifest)
        for key in runs.cut_records(run):
            problem, where = "a record was cut off while it was written, and does not count", runs.store.files.location
            findings.append(VerificationFinding(problem, where(key), (run,), "run the step again"))
        for artifact in (artifact for record in manifest.attempts for artifact in record.artifacts):
            users.setdefault((artifact.name, artifact.digest), (artifact, []))[1].append(manifest)
    passed: set[str] = set()  # digests of files that are right
    for artifact, used_by in users.values():
        if wrong := runs.store.check(artifact, passed):
            findings.append(_damage(artifact, wrong, used_by))
    return Verification(len(manifests), len(users), len(passed), tuple(findings))


def _damage(artifact: Artifact, wrong: list[str], used_by: list[RunManifest]) -> VerificationFinding:
    manifest, remedy = used_by[-1], "run the step that makes it again with --force"
    if artifact.made_by.count("/") == 2:
        step, config = artifact.made_by.split("/")[1], config_option(manifest.config_file)
        remedy = f"python step.{manifest.mode}.py {step} --force --run {manifest.run}{config}"
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return VerificationFinding(
        f"damaged or missing: {', '.join(wrong[:3])}{more}",
        f"{artifact.name}/{artifact.digest[:12]}",
        tuple(dict.fromkeys(each.run for each in used_by)),
        remedy,
    )
