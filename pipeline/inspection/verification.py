"""Whether everything that runs refer to is there and as it was recorded: every record, index and byte."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import PipelineError, StoreError
from pipeline.manifest import RunManifest
from pipeline.runs import Runs
from pipeline.store import Artifact


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
            findings += [
                Finding(
                    "a record was cut off while it was written, and does not count", where, (run,), "run the step again"
                )
                for where in runs.cut_records(run)
            ]
        except PipelineError as error:
            findings.append(Finding(error.problem, f"run {run}", (run,), "move the run's folder out of the store"))
    users: dict[tuple[str, str], tuple[Artifact, list[str]]] = {}
    for manifest in manifests:
        for record in manifest.attempts:
            for artifact in (*record.inputs.values(), *record.outputs.values()):
                users.setdefault((artifact.name, artifact.digest), (artifact, []))[1].append(manifest.run)
    passed: set[str] = set()
    for artifact, named in users.values():
        findings += _findings(runs, artifact, tuple(dict.fromkeys(named)), passed)
    return Verification(len(manifests), len(users), len(passed), tuple(findings))


def _findings(runs: Runs, artifact: Artifact, named: tuple[str, ...], passed: set[str]) -> list[Finding]:
    wrong = runs.store.check(artifact, passed)
    if not wrong:
        return []
    maker = artifact.made_by.split("/")[1] if artifact.made_by.count("/") else "the step that makes it"
    shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    where = f"{artifact.name}/{artifact.digest[:12]}"
    return [Finding(f"damaged or missing: {shown}", where, named, f"run {maker} again with --force")]
