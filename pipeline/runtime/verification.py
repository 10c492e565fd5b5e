"""Whether everything that runs refer to is there and as it was recorded: every record, index and byte."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import PipelineError, StoreError
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.project import DEFAULT_CONFIG
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was recorded.

    Attributes:
        what: In one line.
        where: The artifact or record.
        runs: That refer to it.
        remedy: What to do.
    """

    what: str
    where: str
    runs: tuple[str, ...]
    remedy: str


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what is wrong with it.

    Attributes:
        runs: How many were read.
        artifacts: How many were checked.
        files: How many different contents were hashed and found right.
        findings: None when all is well.
    """

    runs: int
    artifacts: int
    files: int
    findings: tuple[Finding, ...]


def verify(runs: Runs, ids: Iterable[str]) -> Verification:
    """Read the records of runs, hash every byte of the artifacts they refer to, and render their manifests anew.

    What is damaged is set aside, so that the step that makes it can make it anew.

    Args:
        runs: Of one store.
        ids: Which.
    """
    findings: list[Finding] = []
    manifests: list[RunManifest] = []
    for run in ids:
        try:
            manifests.append(runs.load(run))
            with suppress(StoreError):  # one that may only be read is as good as it is
                runs.render(run)
            findings += _missing_notebooks(runs, manifests[-1])
            findings += [
                Finding(
                    "a record was cut off while it was written, and does not count", where, (run,), "run the step again"
                )
                for where in map(runs.store.files.location, runs.cut_records(run))
            ]
        except PipelineError as error:
            findings.append(Finding(error.problem, f"run {run}", (run,), "move the run's folder out of the store"))
    users: dict[tuple[str, str], tuple[Artifact, list[RunManifest]]] = {}
    for manifest in manifests:
        for record in manifest.attempts:
            for artifact in record.artifacts:
                users.setdefault((artifact.name, artifact.digest), (artifact, []))[1].append(manifest)
    passed: set[str] = set()
    for artifact, named in users.values():
        findings += _findings(runs, artifact, named, passed)
    return Verification(len(manifests), len(users), len(passed), tuple(findings))


def _missing_notebooks(runs: Runs, manifest: RunManifest) -> list[Finding]:
    """Notebooks and pages are for people to read, and no result hangs on them: that they are there is what is asked."""
    missing = []
    for record in manifest.attempts:
        source, step, number = (record.reused_from or f"{manifest.run}/{record.made_by}").split("/")
        for suffix, location in (("ipynb", record.notebook), ("html", record.report)):
            key = f"runs/{source}/notebooks/{step}.{int(number):03}.{suffix}"
            if location and not runs.store.files.exists(key):
                where = runs.store.files.location(key)
                missing.append(Finding("a notebook as it ran is gone", where, (manifest.run,), "run the step again"))
    return missing


def _findings(runs: Runs, artifact: Artifact, users: list[RunManifest], passed: set[str]) -> list[Finding]:
    wrong = runs.store.check(artifact, passed)
    if not wrong:
        return []
    shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    where = f"{artifact.name}/{artifact.digest[:12]}"
    named = tuple(dict.fromkeys(manifest.run for manifest in users))
    return [Finding(f"damaged or missing: {shown}", where, named, _made_anew(artifact, users[-1]))]


def _made_anew(artifact: Artifact, manifest: RunManifest) -> str:
    """The command that makes an artifact of a run again."""
    if artifact.made_by.count("/") != 2:
        return "run the step that makes it again with --force"
    config = "" if manifest.config_file == DEFAULT_CONFIG else f" --config {shlex.quote(manifest.config_file)}"
    return f"python step.{manifest.mode}.py {artifact.made_by.split('/')[1]} --force --run {manifest.run}{config}"
