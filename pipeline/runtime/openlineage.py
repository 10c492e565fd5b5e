"""A run as OpenLineage events, of version 2-0-2 of the specification (https://openlineage.io/spec).

Each attempt is an OpenLineage run, whose parent is our run: a START event, and once it has ended a COMPLETE, FAIL or
ABORT. A dataset is an entity in the store, its version the artifact's digest. Only facets of the specification are
used, but for one, `detectionPipeline_attempt`: named and made as custom facets are to be, and valid by the schema of
run facets, since there is no published one of our own that it could point to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pipeline.runtime.manifest import FAILED, GOOD, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

PRODUCER = "pkg:generic/detection-pipeline"  # a package URL, and so a URI; there is no web address to name
SPEC = "https://openlineage.io/spec"
CORE = f"{SPEC}/2-0-2/OpenLineage.json#/$defs"
FACETS = {
    "parent": ("1-2-0", "ParentRunFacet"),
    "executionParameters": ("1-0-0", "ExecutionParametersRunFacet"),
    "errorMessage": ("1-0-1", "ErrorMessageRunFacet"),
    "jobType": ("2-0-4", "JobTypeJobFacet"),
    "sourceCodeLocation": ("1-1-0", "SourceCodeLocationJobFacet"),
    "version": ("1-0-1", "DatasetVersionDatasetFacet"),
    "inputStatistics": ("1-0-0", "InputStatisticsInputDatasetFacet"),
    "outputStatistics": ("1-0-2", "OutputStatisticsOutputDatasetFacet"),
}
OWN = "detectionPipeline_attempt"


def events(manifest: RunManifest, store: str, source: str) -> list[dict[str, Any]]:
    """The events of a run, in the order in which they happened.

    Args:
        manifest: The run.
        store: URL of the store: the datasets' namespace.
        source: URL of the repository that the code is from.
    """
    told = []
    for record in manifest.attempts:
        told.append(_event(manifest, record, "START", record.started, store, source))
        if record.ended:
            end = "COMPLETE" if record.status in GOOD else "FAIL" if record.status == FAILED else "ABORT"
            told.append(_event(manifest, record, end, record.ended, store, source))
    return sorted(told, key=lambda event: str(event["eventTime"]))


def run_id(run: str, step: str = "", attempt: int = 0) -> str:
    """The UUID by which OpenLineage knows an attempt, or our run itself: the same each time it is asked for."""
    return str(uuid5(NAMESPACE_URL, "/".join([PRODUCER, run, *([step, str(attempt)] if step else [])])))


def _event(manifest: RunManifest, record: StepRecord, kind: str, when: str, store: str, source: str) -> dict[str, Any]:
    over, attempt = kind != "START", run_id(manifest.run, record.step, record.attempt)
    return {
        "eventType": kind,
        "eventTime": when,
        "producer": PRODUCER,
        "schemaURL": f"{CORE}/RunEvent",
        "run": {"runId": attempt, "facets": _run_facets(manifest, record, over)},
        "job": {**_job(manifest, record.step), "facets": _job_facets(record, source)},
        "inputs": [_dataset(artifact, store, "input") for artifact in record.inputs.values()],
        "outputs": [_dataset(artifact, store, "output") for artifact in record.outputs.values()] if over else [],
    }


def _job(manifest: RunManifest, step: str = "") -> dict[str, str]:
    """Jobs of one name are the same step of the same pipeline, zone and mode."""
    return {
        "namespace": f"detection-pipeline.{manifest.zone}.{manifest.mode}",
        "name": ".".join(filter(None, [manifest.pipeline, step])),
    }


def _run_facets(manifest: RunManifest, record: StepRecord, over: bool) -> dict[str, Any]:
    parameters = [{"key": name, "value": _text(value)} for name, value in record.parameters.items()]
    facets = {
        **_facet("parent", {"run": {"runId": run_id(manifest.run)}, "job": _job(manifest)}),
        **_facet("executionParameters", {"parameters": parameters}),
    }
    if over and record.error:
        facets |= _facet("errorMessage", {"message": record.error, "programmingLanguage": "python"})
    own: dict[str, Any] = {
        "run": manifest.run,
        "attempt": record.attempt,
        "fingerprint": record.fingerprint,
        "uncommittedChanges": bool(record.code.get("dirty")),
    }
    if over:
        own |= {"status": record.status, "metrics": record.metrics}
    if record.reused_from:
        own["reusedFrom"] = record.reused_from
    return {**facets, OWN: {"_producer": PRODUCER, "_schemaURL": f"{CORE}/RunFacet", **own}}


def _job_facets(record: StepRecord, source: str) -> dict[str, Any]:
    facets = _facet("jobType", {"processingType": "BATCH", "integration": "DETECTION_PIPELINE", "jobType": "STEP"})
    if commit := record.code.get("commit"):
        place = {"type": "git", "url": source, "path": f"steps/{record.step}.ipynb", "version": commit}
        facets |= _facet("sourceCodeLocation", place)
    return facets


def _dataset(artifact: Artifact, store: str, side: str) -> dict[str, Any]:
    statistics = {"size": artifact.size, "fileCount": artifact.files}
    return {
        "namespace": store,
        "name": artifact.name,
        "facets": _facet("version", {"datasetVersion": artifact.digest}),
        f"{side}Facets": _facet(f"{side}Statistics", statistics),
    }


def _facet(key: str, content: Mapping[str, Any]) -> dict[str, Any]:
    version, name = FACETS[key]
    return {key: {"_producer": PRODUCER, "_schemaURL": f"{SPEC}/facets/{version}/{name}.json#/$defs/{name}", **content}}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
