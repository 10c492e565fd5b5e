"""How an artifact was made, as in-toto Statements with SLSA provenance: what cosign signs and admission policies check.

https://github.com/in-toto/attestation/tree/main/spec/v1 and https://slsa.dev/provenance/v1, one Statement a successful
attempt. Our build type is that a step's notebook was run by this package:

- the subjects are the step's outputs; the digest is the SHA-256 of the artifact's index, which is the file that the URI
  names, and lists the path, size and SHA-256 of every file of the artifact;
- `externalParameters`: the step, the config, the mode, all of the step's parameters, and inputs named by hand;
- `internalParameters`: SHA-256 of the notebook's cells (`notebook`), of the modules it imports (`modules`) and of all
  that the result depends on (`fingerprint`), and the versions of Python and the packages;
- `resolvedDependencies`: the inputs, the commit, and what was not committed, as the diff and new files.

The Statement says what the records say. It is no more trustworthy than who signs it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline.runtime.manifest import SUCCEEDED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "pkg:generic/detection-pipeline"
BUILD_TYPE = f"{BUILDER}#step/v1"


def statement(manifest: RunManifest, record: StepRecord, source: str) -> dict[str, Any]:
    """What is attested of one attempt.

    Args:
        manifest: Its run.
        record: The attempt; it succeeded, and not by reusing another's work.
        source: URL of the repository that the code is from.
    """
    if record.status != SUCCEEDED:
        raise ValueError(f"an attempt that {record.status} made nothing to attest")
    return {
        "_type": STATEMENT,
        "subject": [_resource(artifact) for artifact in record.outputs.values()],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
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
                "resolvedDependencies": [
                    *(_resource(artifact) for artifact in record.inputs.values()),
                    *_code(record.code, source),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {
                    "invocationId": f"{manifest.run}/{record.step}/{record.attempt}",
                    "startedOn": record.started,
                    "finishedOn": record.ended,
                },
            },
        },
    }


def _resource(artifact: Artifact) -> dict[str, Any]:
    return {"name": artifact.name, "uri": artifact.url, "digest": {"sha256": artifact.digest}}


def _code(code: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """The commit, and what of the code was in no commit."""
    resources: list[dict[str, Any]] = []
    if commit := code.get("commit"):
        resources.append({"uri": f"git+{source}", "digest": {"gitCommit": commit}})
    if diff := code.get("diff"):
        digest = hashlib.sha256(diff.encode()).hexdigest()
        resources.append({"name": "uncommitted.diff", "digest": {"sha256": digest}, "mediaType": "text/x-diff"})
    untracked = code.get("untracked") or {}
    return [*resources, *({"name": name, "digest": {"sha256": digest}} for name, digest in untracked.items())]
