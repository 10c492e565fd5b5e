"""What is attested of a run: in-toto Statements, which cosign signs and admission policies check.

See https://github.com/in-toto/attestation/tree/main/spec/v1. Statements repeat the records; they are only as
trustworthy as their signer.

**SLSA provenance**, https://slsa.dev/provenance/v1, tells how artifacts were made. There is one Statement for each
successful attempt. The build type means that this package ran a step's notebook:

- the subjects are the step's outputs; their digest is the SHA-256 of the file that the URI names, the artifact's index,
  which lists the path, size and SHA-256 of every file of the artifact;
- `externalParameters`: the step, the config, the mode, all of the step's parameters, and inputs chosen by hand;
- `internalParameters`: SHA-256 of the notebook's cells (`notebook`), of the modules it imports (`modules`) and of
  everything that the result depends on (`fingerprint`), and the versions of Python and the packages;
- `resolvedDependencies`: the inputs, the commit, and the uncommitted changes as a diff and new files.

**A test result**, https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md, tells what a step
found that judged one of its inputs, also where that missed its limits. The same test has the same Statement: it holds
no time, run or place.

- the subject is the judged input, under the digest that the provenance has;
- `passedTests`, `failedTests` and `warnedTests` are the limits in words, with the figure reached: those met, those
  missed, and those of which that is unknown. The result is `WARNED` where none is met or missed;
- `configuration`: the other inputs; the evidence, files under the SHA-256 of their bytes; and three texts as
  annotations, under the SHA-256 of their JSON with sorted keys: `procedure` is the step, its mode and parameters and
  the digests of its code, `hardware` the kind of processor, `gate` each limit and whether it is met, in the order in
  which the step states them: a list, since tools that sign JSON may sort an object's keys.
"""

from __future__ import annotations

import hashlib
import json
from itertools import starmap
from typing import Any

from pipeline.runtime.code import hardware
from pipeline.runtime.manifest import FAILED, NO_VERDICT, PASSED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

BUILDER = "pkg:generic/detection-pipeline"
STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PROCEDURE, HARDWARE, GATE = "procedure", "hardware", "gate"  # of a test result's configuration
_RESULTS = {PASSED: "PASSED", FAILED: "FAILED", NO_VERDICT: "WARNED"}  # by the outcome of the gate


def statement(manifest: RunManifest, record: StepRecord, source: str) -> dict[str, Any]:
    """The Statement about an attempt that succeeded without reusing another's work; `source` is the code's URL."""
    definition = {
        "buildType": f"{BUILDER}#step/v1",
        "externalParameters": {
            "step": record.step,
            "config": manifest.config_file,
            "mode": manifest.mode,
            "parameters": record.parameters,
            **({"inputs": record.chosen} if record.chosen else {}),
        },
        "internalParameters": {
            "notebook": record.notebook_digest,
            "modules": record.code_digest,
            "fingerprint": record.fingerprint,
            "environment": record.environment,
        },
        "resolvedDependencies": [*map(_resource, record.inputs.values()), *_code_resources(record.code, source)],
    }
    invocation = f"{manifest.run}/{record.made_by}"
    metadata = {"invocationId": invocation, "startedOn": record.started, "finishedOn": record.ended}
    return {
        "_type": STATEMENT,
        "subject": [_resource(artifact) for artifact in record.outputs.values()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": definition, "runDetails": {"builder": {"id": BUILDER}, "metadata": metadata}},
    }


def outcome_statement(mode: str, record: StepRecord) -> dict[str, Any]:
    """The Statement about the input that a whole attempt in a run of this mode judged."""
    code = {"notebook": record.notebook_digest, "modules": record.code_digest}
    procedure = {"step": record.step, "mode": mode, "parameters": record.parameters, **code}
    others = [(name, artifact.digest) for name, artifact in record.inputs.items() if name != record.judged]
    met, missed, unknown = (
        [limit for limit, is_met in record.limits.items() if is_met is wanted] for wanted in (True, False, None)
    )
    return {
        "_type": STATEMENT,
        "subject": [_bytes(record.judged, record.inputs[record.judged].digest)],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": _RESULTS[record.gate],
            "configuration": [
                *starmap(_bytes, [*others, *record.evidence.items()]),
                _text(PROCEDURE, procedure),
                _text(HARDWARE, {"processor": hardware(record.environment)}),
                _text(GATE, {"limits": [{"limit": text, "is_met": is_met} for text, is_met in record.limits.items()]}),
            ],
            "passedTests": met,
            "failedTests": missed,
            "warnedTests": unknown,
        },
    }


def _bytes(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}


def _text(name: str, content: dict[str, Any]) -> dict[str, Any]:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return {**_bytes(name, hashlib.sha256(canonical.encode()).hexdigest()), "annotations": content}


def _resource(artifact: Artifact) -> dict[str, Any]:
    return {"name": artifact.name, "uri": artifact.url, "digest": {"sha256": artifact.digest}}


def _code_resources(code: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """The commit, and the uncommitted changes."""
    resources: list[dict[str, Any]] = []
    if commit := code.get("commit"):
        resources.append({"uri": f"git+{source}", "digest": {"gitCommit": commit}})
    if diff := code.get("diff"):
        digest = hashlib.sha256(diff.encode()).hexdigest()
        resources.append({"name": "uncommitted.diff", "digest": {"sha256": digest}, "mediaType": "text/x-diff"})
    untracked = code.get("untracked") or {}
    return [*resources, *({"name": name, "digest": {"sha256": digest}} for name, digest in untracked.items())]
