"""OpenLineage events, held against the classes of OpenLineage's own client."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import attr
import pytest
from openlineage.client import event_v2, facet_v2
from openlineage.client.generated.base import BaseFacet, RunFacet
from openlineage.client.serde import Serde
from records import COMMIT, STORE, artifact, attempt, failed, reused, run_of
from records import run_id as run_name

from pipeline.runtime.manifest import INTERRUPTED, RUNNING
from pipeline.runtime.openlineage import OWN, PRODUCER, events, run_id

SOURCE = "https://example.org/toy.git"
DATA, MODEL = artifact("data"), artifact("model")
LOAD = attempt("load", (), (DATA,))
FIT = attempt("fit", (DATA,), (MODEL,), attempt=2, metrics={"mAP": 0.5, "odd": None}, parameters={"a": 1, "b": "x"})
FACETS = {
    "parent": facet_v2.parent_run.ParentRunFacet,
    "executionParameters": facet_v2.execution_parameters_run.ExecutionParametersRunFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "sourceCodeLocation": facet_v2.source_code_location_job.SourceCodeLocationJobFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
}
INNER = {
    "parent": {"run": facet_v2.parent_run.Run, "job": facet_v2.parent_run.Job},
    "executionParameters": {"parameters": facet_v2.execution_parameters_run.ExecutionParameter},
}


def facet(key: str, content: dict[str, Any]) -> BaseFacet:
    """The client's own facet of the same content; it refuses unknown fields and lacks none that is required."""
    values = {name: value for name, value in content.items() if name not in ("_producer", "_schemaURL")}
    if key == OWN:
        own = RunFacet(producer=content["_producer"])
        return own.with_additional_properties(**values)
    for name, kind in INNER.get(key, {}).items():
        many = isinstance(values[name], list)
        values[name] = [kind(**value) for value in values[name]] if many else kind(**values[name])
    made = FACETS[key](**values, producer=content["_producer"])
    # a facet's version may be older than the client's, not its name
    unversioned = [re.sub(r"/\d+-\d+-\d+/", "/", url) for url in (content["_schemaURL"], made._schemaURL)]
    assert unversioned[0] == unversioned[1]
    return made


def facets(content: dict[str, Any]) -> dict[str, BaseFacet]:
    return {key: facet(key, value) for key, value in content.items()}


def dataset(content: dict[str, Any], side: str) -> Any:
    kind = event_v2.InputDataset if side == "input" else event_v2.OutputDataset
    more = {f"{side}Facets": facets(content[f"{side}Facets"])}
    return kind(content["namespace"], content["name"], facets=facets(content["facets"]), **more)


def checked(event: dict[str, Any]) -> dict[str, Any]:
    """The event, after the client's classes took it and gave back the same."""
    run, job = event["run"], event["job"]
    made = event_v2.RunEvent(
        eventTime=event["eventTime"],
        eventType=event_v2.RunState(event["eventType"]),
        producer=event["producer"],
        run=event_v2.Run(run["runId"], facets(run["facets"])),
        job=event_v2.Job(job["namespace"], job["name"], facets(job["facets"])),
        inputs=[dataset(one, "input") for one in event["inputs"]],
        outputs=[dataset(one, "output") for one in event["outputs"]],
    )
    assert made.schemaURL == event["schemaURL"]
    assert plain(Serde.to_dict(attr.asdict(made))) == plain(event)
    return event


def plain(value: Any) -> Any:
    """Without versions of schemas, what is null, and facets that the client adds where there are none."""
    if isinstance(value, dict):
        told = {name: plain(one) for name, one in value.items() if one is not None}
        return {name: one for name, one in told.items() if not (name == "facets" and one == {})}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return re.sub(r"/\d+-\d+-\d+/", "/", value) if isinstance(value, str) else value


def test_an_attempt_is_a_run_with_a_start_and_an_end() -> None:
    start, end = (checked(event) for event in events(run_of(1, FIT), STORE, SOURCE))
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert (start["eventTime"], end["eventTime"]) == (FIT.started, FIT.ended)
    assert start["run"]["runId"] == end["run"]["runId"] == run_id(run_name(1), "fit", 2)
    assert (end["job"]["namespace"], end["job"]["name"]) == ("detection-pipeline.default.dev", "toy.fit")
    parent = end["run"]["facets"]["parent"]
    assert parent["run"] == {"runId": run_id(run_name(1))}
    assert parent["job"] == {"namespace": "detection-pipeline.default.dev", "name": "toy"}
    code = end["job"]["facets"]["sourceCodeLocation"]
    assert (code["type"], code["url"], code["version"]) == ("git", SOURCE, COMMIT)
    assert code["path"] == "steps/fit.ipynb"
    assert start["outputs"] == []
    for side, one in (("inputs", DATA), ("outputs", MODEL)):
        assert [(d["namespace"], d["name"]) for d in end[side]] == [(STORE, one.name)]
        assert end[side][0]["facets"]["version"]["datasetVersion"] == one.digest
    assert end["outputs"][0]["outputFacets"]["outputStatistics"]["fileCount"] == 3
    parameters = end["run"]["facets"]["executionParameters"]["parameters"]
    assert parameters == [{"key": "a", "value": "1"}, {"key": "b", "value": "x"}]


@pytest.mark.parametrize(
    ("record", "kinds", "outputs"),
    [
        pytest.param(LOAD, ["START", "COMPLETE"], 1, id="succeeded"),
        pytest.param(reused(LOAD, run_name(7)), ["START", "COMPLETE"], 1, id="reused"),
        pytest.param(failed("load"), ["START", "FAIL"], 0, id="failed"),
        pytest.param(failed("load", makes=(DATA,)), ["START", "FAIL"], 1, id="below its gate"),
        pytest.param(replace(LOAD, status=INTERRUPTED, outputs={}), ["START", "ABORT"], 0, id="interrupted"),
        pytest.param(replace(LOAD, status="killed", outputs={}), ["START", "ABORT"], 0, id="killed"),
        pytest.param(replace(LOAD, status=RUNNING, ended="", outputs={}), ["START"], 0, id="running"),
    ],
)
def test_how_it_ended_is_told(record: Any, kinds: list[str], outputs: int) -> None:
    made = [checked(event) for event in events(run_of(1, record), STORE, SOURCE)]
    assert [event["eventType"] for event in made] == kinds
    assert len(made[-1]["outputs"]) == outputs


def test_a_failure_brings_its_message() -> None:
    start, end = events(run_of(1, failed("fit")), STORE, SOURCE)
    assert "errorMessage" not in start["run"]["facets"]
    message = end["run"]["facets"]["errorMessage"]
    assert message["message"].startswith("ValueError: no such luck")
    assert message["programmingLanguage"] == "python"


def test_what_the_specification_has_no_place_for_is_in_one_facet_of_our_own() -> None:
    own = events(run_of(1, reused(FIT, run_name(7))), STORE, SOURCE)[1]["run"]["facets"][OWN]
    assert (own["status"], own["metrics"]) == ("reused", {"mAP": 0.5, "odd": None})
    assert own["reusedFrom"] == f"{run_name(7)}/fit/2"
    assert own["uncommittedChanges"] is False
    assert own["_producer"] == PRODUCER
    assert re.fullmatch(
        r"https://openlineage\.io/spec/\d+-\d+-\d+/OpenLineage\.json#/\$defs/RunFacet", own["_schemaURL"]
    )
    assert re.fullmatch(r"[a-z][A-Za-z]+_[a-z]+", OWN), "prefix and name"


def test_ids_are_the_same_each_time_and_of_each_attempt_its_own() -> None:
    ids = [run_id("r"), run_id("r", "a", 1), run_id("r", "a", 2), run_id("r", "b", 1), run_id("s", "a", 1)]
    assert len(set(ids)) == len(ids)
    assert [UUID(one).version for one in ids] == [5] * 5
    assert run_id("r", "a", 1) == "fff24bc0-4bfd-59a1-91c8-12af7b4b7a9c"


def test_without_a_commit_there_is_no_place_of_the_code() -> None:
    event = checked(events(run_of(1, replace(FIT, code={})), STORE, SOURCE)[0])
    assert "sourceCodeLocation" not in event["job"]["facets"]


def test_over_real_runs(ran: Any) -> None:
    ran.step("second", "--set", "act=fail")
    lines = ran.look("export", "--format", "openlineage").out.splitlines()
    made = [checked(json.loads(line)) for line in lines]
    assert [event["eventType"] for event in made] == ["START", "COMPLETE"] * 3 + ["START", "FAIL"]
    times = [datetime.fromisoformat(event["eventTime"]) for event in made]
    assert times == sorted(times)
    assert {d["namespace"] for event in made for d in event["inputs"]} == {
        (ran.root / ".store/default/dev").resolve().as_uri()
    }
