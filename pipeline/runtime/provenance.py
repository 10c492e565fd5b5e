"""Provenance of artifacts as in-toto Statements with SLSA provenance, which cosign signs and admission policies check.

There is one Statement for each successful attempt, see https://github.com/in-toto/attestation/tree/main/spec/v1 and
https://slsa.dev/provenance/v1. The build type means that this package ran a step's notebook:

- the subjects are the step's outputs; their digest is the SHA-256 of the file that the URI names, the artifact's index,
  which lists the path, size and SHA-256 of every file of the artifact;
- `externalParameters`: the step, the config, the mode, all of the step's parameters, and inputs chosen by hand;
- `internalParameters`: SHA-256 of the notebook's cells (`notebook`), of the modules it imports (`modules`) and of
  everything that the result depends on (`fingerprint`), and the versions of Python and the packages;
- `resolvedDependencies`: the inputs, the commit, and the uncommitted changes as a diff and new files.

A Statement repeats the records; it is only as trustworthy as its signer.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

BUILDER = "pkg:generic/detection-pipeline"


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
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [_resource(artifact) for artifact in record.outputs.values()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": definition, "runDetails": {"builder": {"id": BUILDER}, "metadata": metadata}},
    }


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
