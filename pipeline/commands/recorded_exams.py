"""The exams of packed services: evaluations on a test set, as runs recorded them or as an exported Statement tells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cli.command import CommandContext
from pipeline.commands.compare_command import RESULTS, TEST_SET
from pipeline.commands.named_service import ENTITY, bento_folder, packed_service
from pipeline.errors import DataError, GateError, IntegrityError, MissingError, UsageError
from pipeline.runtime.code import hardware
from pipeline.runtime.manifest import FAILED, WITH_LIMITS, RunManifest, StepRecord, gate_verdict
from pipeline.runtime.provenance import GATE, HARDWARE, PROCEDURE, TEST_RESULT
from pipeline.runtime.resolving import VERSION, find_artifact
from pipeline.runtime.store.artifact_store import Artifact, Store, StoredFile, digest_of

PREDICTIONS = "predictions.json"
UNKNOWN = "unknown"  # a gate of which the record does not tell
_NAMED = 3  # files that differ


@dataclass(frozen=True)
class Exam:
    """One evaluation of a packed service."""

    name: str  # `run/step/attempt`, or the file of a Statement
    bento: Artifact
    test_set: Artifact
    predictions: str  # SHA-256 of the file with the predictions
    mode: str  # of the run
    parameters: Mapping[str, Any]  # of the step
    limits: Mapping[str, bool | None]  # as in a `StepRecord`
    gate: str  # the recorded decision
    hardware: str  # that computed; empty if it is not known
    packages: Mapping[str, str] = field(default_factory=dict)  # version by name, as far as they are known


def find_exam(context: CommandContext, typed: str, run: str | None, statement: Path | None) -> Exam:
    """The exam of a packed service: the newest, that of a run, or that which a Statement tells of.

    The service is named by a run, `ENTITY/DIGEST`, an artifact's URL, or its folder.

    Raises:
        IntegrityError: The folder is no service that a run recorded, or that the Statement tells of.
        MissingError: There is no such exam.
        UsageError: It is named wrongly.
    """
    store = context.project.runs.store
    folder = None if _is_version(typed) else bento_folder(typed)
    if statement is not None and folder:  # needs no records
        return _read_statement(statement, Artifact(ENTITY, "", digest_of(store.files_of(folder, ENTITY)), 0, 0))
    manifests = context.project.runs.readable()
    exams = [(each, record) for each in reversed(manifests) for record in reversed(each.attempts) if _is_exam(record)]
    if folder:
        bento = _recorded(store, folder, manifests)
    elif _is_version(typed):
        bento = find_artifact(typed, manifests)
    else:
        named = context.find_run(typed)
        own = [record for each, record in exams if each.run == named.run]
        bento = own[0].inputs[ENTITY] if own else packed_service(context, named)
        run = run or (named.run if own else None)
    if statement is not None:
        return _read_statement(statement, bento)
    within = context.find_run(run).run if run else ""
    found = [each for each in exams if each[1].inputs[ENTITY].digest == bento.digest and within in ("", each[0].run)]
    if not found:
        problem = f"no exam of {ENTITY}/{bento.digest[:12]} is recorded{f' in run {within}' if within else ''}"
        remedy = "evaluate the service with the step that writes the Model Quality Report"
        raise MissingError(problem, where=f"{store.url}/runs", remedy=remedy)
    return _recorded_exam(store, *found[0], manifests)


def _is_version(typed: str) -> bool:
    """Whether a name is that of an artifact; a `UsageError` where it is one of another entity."""
    version = None if Path(typed).is_dir() else VERSION.fullmatch(typed)
    if version and version["entity"] != ENTITY:
        raise UsageError(f"{version['entity']} is no packed service", where=typed, expected=f"{ENTITY}/DIGEST")
    return version is not None


def _is_exam(record: StepRecord) -> bool:
    return record.is_whole and {ENTITY, TEST_SET} <= record.inputs.keys() and RESULTS in record.outputs


def _recorded_exam(store: Store, manifest: RunManifest, record: StepRecord, manifests: Sequence[RunManifest]) -> Exam:
    files = {file.path: file.sha256 for file in store.index(record.outputs[RESULTS])}
    if PREDICTIONS not in files:
        name = f"{RESULTS}/{record.outputs[RESULTS].digest[:12]}"
        raise MissingError(f"{name} has no {PREDICTIONS}", expected="the predictions of an evaluation")
    told = record.gate if record.schema >= WITH_LIMITS else UNKNOWN
    makers = {f"{each.run}/{one.made_by}": one for each in manifests for one in each.attempts}
    maker = makers.get(manifest.origin(record))  # a reused attempt computed nothing where it ran
    computed_in = maker.environment if maker else {}
    return Exam(
        name=manifest.origin(record),
        bento=record.inputs[ENTITY],
        test_set=record.inputs[TEST_SET],
        predictions=files[PREDICTIONS],
        mode=manifest.mode,
        parameters=record.parameters,
        limits=record.limits,
        gate=FAILED if record.error_kind == GateError.__name__ else told,
        hardware=hardware(computed_in),
        packages=computed_in,
    )


def _read_statement(path: Path, bento: Artifact) -> Exam:
    """The last test result about a service in a file of Statements, one a line."""
    try:
        statements = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        results = [each for each in statements if each["predicateType"] == TEST_RESULT]
        about = [each["predicate"] for each in results if bento.digest in _subjects(each)]
        exam = _attested_exam(path, bento, about[-1]) if about else None
    except FileNotFoundError as error:
        remedy = "write it with: python -m pipeline export --output FILE"
        raise MissingError("there is no such file", where=path, remedy=remedy) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"these are no exported Statements: {type(error).__name__}: {error}"
        raise DataError(problem, where=path, expected="the output of: python -m pipeline export") from error
    if exam is None:
        raise IntegrityError(
            f"the file has no test result about {ENTITY}/{bento.digest[:12]}",
            where=path,
            expected="a Statement whose subject is this very service",
            remedy="deploy the service that was examined, or take the Statement of this one",
        )
    return exam


def _subjects(statement: Mapping[str, Any]) -> list[str]:
    return [each["digest"]["sha256"] for each in statement["subject"]]


def _attested_exam(path: Path, bento: Artifact, result: Mapping[str, Any]) -> Exam:
    described = {each["name"]: each for each in result["configuration"]}
    digests = {name: each["digest"]["sha256"] for name, each in described.items()}
    procedure = described[PROCEDURE]["annotations"]
    limits = {each["limit"]: each["is_met"] for each in described[GATE]["annotations"]["limits"]}
    return Exam(
        name=str(path),
        bento=bento,
        test_set=Artifact(TEST_SET, "", digests[TEST_SET], 0, 0),
        predictions=digests[f"{RESULTS}/{PREDICTIONS}"],
        mode=procedure["mode"],
        parameters=procedure["parameters"],
        limits=limits,
        gate=gate_verdict(limits.values()),
        hardware=described[HARDWARE]["annotations"]["processor"],
    )


def _recorded(store: Store, folder: Path, manifests: Sequence[RunManifest]) -> Artifact:
    """The artifact whose bytes a folder has."""
    files = store.files_of(folder, ENTITY)
    records = [record for manifest in manifests for record in manifest.attempts]
    known = {each.digest: each for record in records for each in record.artifacts if each.name == ENTITY}
    if digest_of(files) in known:
        return known[digest_of(files)]
    problem = "this folder is not the packed service of any run"
    remedy = "name the mode and config of its run, such as --mode prod, or deploy a run's service again"
    nearest = _nearest(store, files, list(known.values()))
    if nearest:
        artifact, differing = nearest
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        problem += f"; it differs from {ENTITY}/{artifact.digest[:12]} in {', '.join(differing[:_NAMED])}{more}"
    raise IntegrityError(
        problem, where=folder, expected="the bytes that a run packed, and no other file", remedy=remedy
    )


def _nearest(store: Store, files: list[StoredFile], known: list[Artifact]) -> tuple[Artifact, list[str]] | None:
    """The artifact with the fewest files that differ, and their paths."""
    have = {file.path: file.sha256 for file in files}
    found = []
    for artifact in known:
        if store.has(artifact):
            index = {file.path: file.sha256 for file in store.index(artifact)}
            paths = sorted(path for path in have.keys() | index.keys() if have.get(path) != index.get(path))
            found.append((artifact, paths))
    return min(found, key=lambda each: len(each[1]), default=None)
