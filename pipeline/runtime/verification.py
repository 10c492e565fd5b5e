"""Checks that everything that runs refer to is as it was recorded: every record, index and byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import PipelineError, StoreError
from pipeline.runtime.manifest import RunManifest, notebook_key
from pipeline.runtime.project import config_option
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact


@dataclass(frozen=True)
class VerificationFinding:
    """A difference from what was recorded.

    Attributes:
        what: The difference, in one line.
        where: The artifact or record.
        runs: The runs that refer to it.
        remedy: The next action.
    """

    what: str
    where: str
    runs: tuple[str, ...]
    remedy: str


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        runs: Number of runs that were read.
        artifacts: Number of artifacts that were checked.
        files: Number of different contents that were hashed and found right.
        findings: The differences.
    """

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
    for run in ids:
        try:
            manifests.append(runs.load(run))
            with suppress(StoreError):  # the store may be read-only
                runs.render(run)
            findings += _record_findings(runs, manifests[-1])
        except PipelineError as error:
            remedy = "move the run's folder out of the store"
            findings.append(VerificationFinding(error.problem, f"run {run}", (run,), remedy))
    users: dict[tuple[str, str], tuple[Artifact, list[RunManifest]]] = {}
    for manifest in manifests:
        for record in manifest.attempts:
            for artifact in record.artifacts:
                users.setdefault((artifact.name, artifact.digest), (artifact, []))[1].append(manifest)
    passed: set[str] = set()
    for artifact, used_by in users.values():
        findings += _artifact_findings(runs, artifact, used_by, passed)
    return Verification(len(manifests), len(users), len(passed), tuple(findings))


def _record_findings(runs: Runs, manifest: RunManifest) -> Iterator[VerificationFinding]:
    """Missing notebooks, whose content no result depends on, and records that were cut off."""
    files, again = runs.store.files, "run the step again"
    for record in manifest.attempts:
        for suffix, location in (("ipynb", record.notebook), ("html", record.report)):
            if location and not files.exists(notebook_key(manifest.origin(record), suffix)):
                yield VerificationFinding("an executed notebook is gone", location, (manifest.run,), again)
    for key in runs.cut_records(manifest.run):
        problem = "a record was cut off while it was written, and does not count"
        yield VerificationFinding(problem, files.location(key), (manifest.run,), again)


def _artifact_findings(
    runs: Runs, artifact: Artifact, used_by: list[RunManifest], passed: set[str]
) -> Iterator[VerificationFinding]:
    wrong, manifest = runs.store.check(artifact, passed), used_by[-1]
    if not wrong:
        return
    remedy = "run the step that makes it again with --force"
    if artifact.made_by.count("/") == 2:
        step, config = artifact.made_by.split("/")[1], config_option(manifest.config_file)
        remedy = f"python step.{manifest.mode}.py {step} --force --run {manifest.run}{config}"
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    yield VerificationFinding(
        f"damaged or missing: {', '.join(wrong[:3])}{more}",
        f"{artifact.name}/{artifact.digest[:12]}",
        tuple(dict.fromkeys(each.run for each in used_by)),
        remedy,
    )
