"""in-toto Statements with SLSA provenance and test results, held against in-toto's own classes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
from cases import cases
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from records import COMMIT, artifact, attempt, failed, reused, run_id, run_of

from pipeline.errors import GateError
from pipeline.runtime import runner
from pipeline.runtime.code import environment
from pipeline.runtime.manifest import StepRecord
from pipeline.runtime.provenance import outcome_statement, statement

pytestmark = pytest.mark.usefixtures("in_process")

SOURCE = "https://example.org/toy.git"
DATA, MODEL = artifact("data"), artifact("model")
FIT = attempt("fit", (DATA,), (MODEL,), attempt=2, parameters={"epochs": 3, "name": "x", "rates": [0.1, 1.0]})


def checked(content: dict[str, Any]) -> dict[str, Any]:
    """The Statement, after in-toto's classes took it: they refuse unknown fields and malformed values."""
    parsed = json_format.ParseDict(content, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    predicate = json_format.ParseDict(content["predicate"], provenance_pb2.Provenance())
    definition, details = predicate.build_definition, predicate.run_details
    for resource in definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(resource).validate()
    assert definition.build_type, "required"
    assert definition.external_parameters.fields, "required"
    assert details.builder.id, "required"
    assert details.metadata.started_on.ToDatetime() <= details.metadata.finished_on.ToDatetime()
    assert json_format.MessageToDict(predicate, preserving_proto_field_name=False).keys() == content["predicate"].keys()
    return content


def test_an_attempt_is_attested() -> None:
    content = checked(statement(run_of(1, FIT), FIT, SOURCE))
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "https://slsa.dev/provenance/v1"
    assert content["subject"] == [{"name": "model", "uri": MODEL.url, "digest": {"sha256": MODEL.digest}}]
    definition, details = content["predicate"]["buildDefinition"], content["predicate"]["runDetails"]
    given = {"step": "fit", "config": "configs/demo.yaml", "mode": "dev", "parameters": FIT.parameters}
    assert definition["externalParameters"] == given
    assert definition["internalParameters"]["environment"] == FIT.environment
    assert definition["internalParameters"]["fingerprint"] == FIT.fingerprint
    assert definition["resolvedDependencies"] == [
        {"name": "data", "uri": DATA.url, "digest": {"sha256": DATA.digest}},
        {"uri": f"git+{SOURCE}", "digest": {"gitCommit": COMMIT}},
    ]
    name = f"{run_id(1)}/fit/2"
    assert details["metadata"] == {"invocationId": name, "startedOn": FIT.started, "finishedOn": FIT.ended}


def test_what_was_in_no_commit_is_a_dependency_too() -> None:
    code = {"commit": COMMIT, "dirty": True, "diff": "+ü", "untracked": {"new.py": "d" * 64}}
    content = checked(statement(run_of(1), replace(FIT, code=code), SOURCE))
    diff, new = content["predicate"]["buildDefinition"]["resolvedDependencies"][2:]
    assert diff["digest"] == {"sha256": hashlib.sha256("+ü".encode()).hexdigest()}
    assert new == {"name": "new.py", "digest": {"sha256": "d" * 64}}
    bare = checked(statement(run_of(1), replace(FIT, code={}, inputs={}), SOURCE))
    assert bare["predicate"]["buildDefinition"]["resolvedDependencies"] == []


def test_over_real_runs_the_digest_is_that_of_the_file_at_the_uri(ran: Any) -> None:
    first = ran.manifest()["run"]
    ran.commit()
    ran.step("first")
    ran.step("second", "--set", "loud=true")
    ran.step("second", "--set", "act=fail")
    lines = ran.look("export").out.splitlines()
    made = [checked(json.loads(line)) for line in lines]
    invocations = [content["predicate"]["runDetails"]["metadata"]["invocationId"] for content in made]
    assert invocations == [f"{first}/first/1", f"{ran.manifest()['run']}/second/1"]
    for content in made:
        for resource in content["subject"]:
            kept = ran.root / ".store/default/dev" / resource["uri"].partition("/dev/")[2]  # `ran` is a copy
            assert hashlib.sha256(kept.read_bytes()).hexdigest() == resource["digest"]["sha256"]
    shutil.rmtree(ran.root / ".store/default/dev/runs" / first)
    assert f"{first}/first/1 is left out, whose outputs first reused" in ran.look("export").log


TEST, NOTE, FOUND, BEFORE = artifact("test"), artifact("note"), artifact("found"), artifact("model", "0")
LIMITS = {"quality 0.7, at least 0.5": True, "slips 0, at most 0": True, "noise not known, at most 1": None}
EXAM = attempt(
    "exam",
    (),
    (FOUND,),
    parameters={"threshold": 0.01},
    metrics={"quality": 0.7, "seconds": 12.5},
    limits=LIMITS,
    inputs={"test": TEST, "model": MODEL, "earlier_model": BEFORE},
    judged="model",
    evidence={"found/predictions.json": "e" * 64},
    environment={"processor": "VAX", "device": "CPU, 1 cores", "python": "3.12.1"},
)


def checked_result(record: StepRecord, mode: str = "dev") -> dict[str, Any]:
    """The test result about what an attempt judged, after in-toto's classes took it."""
    content = outcome_statement(mode, record)
    Statement.copy_from_pb(json_format.ParseDict(content, statement_pb2.Statement())).validate()
    predicate = json_format.ParseDict(content["predicate"], test_result_pb2.TestResult())
    for resource in predicate.configuration:
        ResourceDescriptor.copy_from_pb(resource).validate()
    return content


def test_the_outcome_of_a_gate_is_a_test_result_about_what_was_judged() -> None:
    content = checked_result(EXAM)
    assert content["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    made = checked(statement(run_of(1, FIT), FIT, SOURCE))["subject"]
    assert [(each["name"], each["digest"]) for each in made] == [("model", content["subject"][0]["digest"])]
    predicate = content["predicate"]
    quality, slips, noise = LIMITS
    assert (predicate["result"], predicate["passedTests"], predicate["failedTests"], predicate["warnedTests"]) == (
        "PASSED",
        [quality, slips],
        [],
        [noise],
    )
    test, before, predictions, procedure, hardware, gate = predicate["configuration"]
    assert test == {"name": "test", "digest": {"sha256": TEST.digest}}
    assert before == {"name": "earlier_model", "digest": {"sha256": BEFORE.digest}}
    assert predictions == {"name": "found/predictions.json", "digest": {"sha256": "e" * 64}}
    assert procedure["annotations"]["parameters"] == {"threshold": 0.01}
    assert procedure["annotations"]["mode"] == "dev"
    assert (hardware["name"], hardware["annotations"]) == ("hardware", {"processor": "VAX"})
    judged = [{"limit": text, "is_met": is_met} for text, is_met in LIMITS.items()]
    assert (gate["name"], gate["annotations"]) == ("gate", {"limits": judged})
    for each in (procedure, hardware, gate):
        canonical = json.dumps(each["annotations"], sort_keys=True, ensure_ascii=False)
        assert each["digest"] == {"sha256": hashlib.sha256(canonical.encode()).hexdigest()}


@cases(
    "limits, result, missed, unknown",
    {
        "one missed": ({"a": True, "b": False, "c": None}, "FAILED", ["b"], ["c"]),
        "all missed": ({"a": False, "b": False}, "FAILED", ["a", "b"], []),
        "unknown alone": ({"a": None}, "WARNED", [], ["a"]),
        "no limits": ({}, "WARNED", [], []),
    },
)
def test_a_missed_limit_is_a_failed_test_and_an_unknown_one_a_warning(
    limits: dict[str, bool | None], result: str, missed: list[str], unknown: list[str]
) -> None:
    predicate = checked_result(replace(EXAM, limits=limits))["predicate"]
    assert (predicate["result"], predicate["failedTests"], predicate["warnedTests"]) == (result, missed, unknown)


@cases(
    "changes, is_same",
    {
        "again": ({"attempt": 2, "started": "2027-01-01T00:00:00.000Z", "ended": "", "seconds": 9.0}, True),
        "slower": ({"metrics": {**EXAM.metrics, "seconds": 99.0}}, True),
        "a report with a time": ({"outputs": {**EXAM.outputs, "note": NOTE}}, True),
        "from another store": ({"inputs": {n: replace(a, url="s3://x") for n, a in EXAM.inputs.items()}}, True),
        "another model": ({"inputs": {**EXAM.inputs, "model": artifact("model", "2")}}, False),
        "another test set": ({"inputs": {**EXAM.inputs, "test": artifact("test", "2")}}, False),
        "other predictions": ({"evidence": {"found/predictions.json": "f" * 64}}, False),
        "another earlier model": ({"inputs": {**EXAM.inputs, "earlier_model": NOTE}}, False),
        "another limit": ({"limits": {"quality 0.7, at least 0.6": True}}, False),
        "other parameters": ({"parameters": {"threshold": 0.02}}, False),
        "other code": ({"code_digest": "f" * 64}, False),
        "another processor": ({"environment": {"processor": "Cray", "device": "CPU, 1 cores"}}, False),
        "a GPU": ({"environment": {"processor": "VAX", "device": "GPU"}}, False),
    },
)
def test_the_same_test_has_the_same_statement_whenever_and_wherever(changes: dict[str, Any], is_same: bool) -> None:
    assert (checked_result(replace(EXAM, **changes)) == checked_result(EXAM)) is is_same


def test_the_same_test_in_another_mode_is_another() -> None:
    assert checked_result(EXAM, "prod") != checked_result(EXAM, "dev")


@cases(
    "record, is_whole",
    {
        "succeeded": (EXAM, True),
        "reused": (reused(EXAM, run_id(1)), True),
        "missed its gate": (replace(failed("exam"), error_kind=GateError.__name__, outputs=EXAM.outputs), True),
        "failed": (failed("exam"), False),
        "failed after its commit": (replace(failed("exam"), outputs=EXAM.outputs), False),
    },
)
def test_an_attempt_is_whole_unless_it_failed_otherwise_than_at_its_gate(record: StepRecord, is_whole: bool) -> None:
    assert record.is_whole is is_whole


def test_an_export_has_test_results_also_of_missed_gates_and_each_once(
    ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results() -> list[str]:
        lines = ran.look("export", "--format", "intoto").out.splitlines()
        return [line for line in lines if "test-result" in line]

    (first,) = results()
    assert json.loads(first)["subject"][0]["digest"] == {
        "sha256": ran.manifest()["steps"]["second"]["outputs"]["words"]["digest"]
    }
    ran.step("third", "--force")
    assert results() == [first]
    monkeypatch.setattr(runner, "environment", lambda: {**environment(), "processor": "VAX"})
    ran.step()
    assert results() == [first], "a reused attempt states what the original did"
    assert json.loads(first) in ran.json("export")
    ran.step("third", "--set", "third.minimum=0.8")
    without, missed = map(json.loads, results())
    assert (without["predicate"]["result"], missed["predicate"]["result"]) == ("WARNED", "FAILED")
    assert missed["predicate"]["failedTests"] == ["score 0.5, at least 0.8"]
    ran.look("export", "--format", "spdx").fails(code=2)
