"""in-toto Statements with SLSA provenance, held against in-toto's own classes."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from records import COMMIT, artifact, attempt, run_id, run_of

from pipeline.runtime.provenance import statement

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
