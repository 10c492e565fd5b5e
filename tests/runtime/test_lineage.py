"""What an artifact came from and went into, over runs that branch, fail, reuse and are lost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from records import artifact, attempt, failed, reused, run_id, run_of

from pipeline.cli.lineage import lineage_json, lineage_text, trace

pytestmark = pytest.mark.usefixtures("in_process")

IMAGES, TRAIN, TEST = artifact("images"), artifact("train"), artifact("test")
MODEL, OTHER = artifact("model", "1"), artifact("model", "2")
GOOD, BAD = artifact("report", "1"), artifact("report", "2")

LOAD = attempt("load", (), (IMAGES,), metrics={"images": 24, "kind": "shapes", "more": 1})
PREP = attempt("prep", (IMAGES,), (TRAIN, TEST), attempt=2, started="2026-01-01T00:00:03.000Z")
FIT = attempt("fit", (TRAIN,), (MODEL,), started="2026-01-01T00:00:04.000Z", metrics={"mAP": 0.51234})
EVAL = attempt("eval", (TEST, MODEL), (GOOD,), started="2026-01-01T00:00:05.000Z")
REFIT = attempt("fit", (TRAIN,), (OTHER,), started="2026-01-02T00:00:04.000Z")
REEVAL = failed("eval", reads=(TEST, OTHER), makes=(BAD,), started="2026-01-02T00:00:05.000Z")
RUNS = [
    run_of(1, LOAD, failed("prep", reads=(IMAGES,)), PREP, FIT, EVAL),
    run_of(2, reused(LOAD, run_id(1)), reused(PREP, run_id(1), reused_from=f"{run_id(1)}/prep/2"), REFIT, REEVAL),
]


def short(one: Any) -> str:
    return f"{one.name}  {one.digest[:12]}  3 files, 1.5 MB"


def test_a_branching_lineage_is_drawn_as_a_tree_and_a_reused_attempt_makes_nothing() -> None:
    first, second = run_id(1), run_id(2)
    assert lineage_text(trace(TRAIN, RUNS)).splitlines() == [
        f"train  {TRAIN.digest}",
        f"3 files, 1.5 MB  {TRAIN.url}",
        f"made by {first}/prep/2",
        "",
        "came from",
        f"└─ {short(IMAGES)}  {first}/load/1",
        "",
        "went into",
        f"├─ {short(MODEL)}  {first}/fit/1",
        f"│  └─ {short(GOOD)}  {first}/eval/1",
        f"└─ {short(OTHER)}  {second}/fit/1",
        f"   └─ {short(BAD)}  {second}/eval/1  failed",
        "",
        "metrics of the attempts",
        f"  {first}/load/1  images 24",
        f"  {first}/fit/1  mAP 0.5123",
    ]


def test_a_metric_is_told_once_of_the_attempt_and_not_of_each_output() -> None:
    twins = attempt("load", (), (IMAGES, TRAIN), metrics={"files": 1})
    other = attempt("other", (), (TEST,), metrics={"files": 1})
    text = lineage_text(trace(MODEL, [run_of(1, other, twins, attempt("fit", (IMAGES, TRAIN), (MODEL,)))]))
    assert [line for line in text.splitlines() if "files 1" in line] == [f"  {run_id(1)}/load/1  files 1"]


def test_what_was_told_above_is_not_told_again() -> None:
    text = lineage_text(trace(GOOD, RUNS))
    assert text.count("(see above)") == 0, "images come from nothing more"
    assert "\n\nwent into\n└─ nothing yet\n\n" in text
    text = lineage_text(trace(IMAGES, RUNS))
    assert f"├─ {short(TRAIN)}" in text
    assert f"└─ {short(TEST)}" in text
    assert "came from\n└─ the outside world" in text
    deep = [*RUNS, run_of(3, attempt("pack", (MODEL, TRAIN), (artifact("bento"),)))]
    assert f"└─ {short(TRAIN)}  {run_id(1)}/prep/2  (see above)" in lineage_text(trace(artifact("bento"), deep))


def test_an_artifact_made_again_is_one_node_and_each_way_of_making_it_is_told() -> None:
    again = run_of(3, attempt("fit", (TRAIN,), (MODEL,)))
    lineage = trace(MODEL, [*RUNS, again])
    by_start = [f"{run_id(3)}/fit/1", f"{run_id(1)}/fit/1"]
    assert [*lineage.makers[(MODEL.name, MODEL.digest)]] == by_start
    assert lineage_text(lineage).count("└─ train  ") == 1, "both read the same"
    text = lineage_text(trace(GOOD, [*RUNS, again]))
    assert f"{short(MODEL)}  {run_id(3)}/fit/1  and 1 more" in text
    other = run_of(3, attempt("fit", (TEST,), (MODEL,), started="2026-01-03T00:00:00.000Z"))
    lines = lineage_text(trace(MODEL, [*RUNS, other])).splitlines()
    assert f"made by {run_id(1)}/fit/1" in lines
    assert lines.count(f"  {run_id(1)}/fit/1  mAP 0.5123") == 1
    assert f"made by {run_id(3)}/fit/1" in lines
    assert any(line.startswith(f"├─ {short(TRAIN)}") for line in lines)
    assert any(line.startswith(f"└─ {short(TEST)}") for line in lines), "what each attempt read"


def test_where_the_original_is_lost_the_reused_record_tells_what_it_knows() -> None:
    lineage = trace(TRAIN, RUNS[1:])
    assert [*lineage.makers[(TRAIN.name, TRAIN.digest)]] == [f"{run_id(1)}/prep/2"]
    assert f"└─ {short(IMAGES)}  {run_id(1)}/load/1" in lineage_text(lineage)


def test_where_nothing_but_a_name_is_left_it_is_said() -> None:
    orphan = replace(MODEL, made_by=f"{run_id(7)}/fit/1")
    text = lineage_text(trace(orphan, [run_of(8, attempt("eval", (orphan,), (GOOD,)))]))
    assert f"made by {run_id(7)}/fit/1, whose record cannot be read" in text
    assert "came from\n└─ nothing that can be read" in text
    assert f"└─ {short(GOOD)}  {run_id(8)}/eval/1" in text


def test_records_that_go_in_a_circle_do_no_harm() -> None:
    circle = attempt("a", (MODEL,), (MODEL,)), attempt("b", (MODEL,), (OTHER,)), attempt("c", (OTHER,), (MODEL,))
    for one in (MODEL, OTHER):
        lineage = trace(one, [run_of(1, *circle)])
        assert len(lineage.artifacts) == 2
        assert "(see above)" in lineage_text(lineage)
        assert len(lineage_json(lineage)["nodes"]) == 2


def test_for_programs_it_is_nodes_and_edges() -> None:
    content = lineage_json(trace(MODEL, RUNS))
    assert json.loads(json.dumps(content)) == content
    assert [node["entity"] for node in content["nodes"]] == ["images", "train", "model", "report"]
    node = content["nodes"][0]
    assert node["id"] == f"images/{IMAGES.digest}"
    assert node["made_by"] == [{"attempt": f"{run_id(1)}/load/1", "status": "succeeded", "metrics": LOAD.metrics}]
    assert [(edge["from"].split("/")[0], edge["to"].split("/")[0], edge["by"]) for edge in content["edges"]] == [
        ("images", "train", f"{run_id(1)}/prep/2"),
        ("train", "model", f"{run_id(1)}/fit/1"),
        ("model", "report", f"{run_id(1)}/eval/1"),
    ]


def test_over_real_runs(ran: Any) -> None:
    first = ran.manifest()["run"]
    ran.step()
    ran.step("third", "--set", "score=0.6")
    text = ran.look("lineage", "words").out
    assert f"made by {first}/second/1\n" in text
    assert f"\n  {first}/second/1  length 5  odd -" in text
    runs = ran.root / ".store/default/dev/runs"
    (runs / first / "run.json").write_text("[]")
    outcome = ran.look("lineage", "words")
    assert outcome.code == 0
    assert f"run {first} is left out: " in outcome.log
    assert f"made by {first}/second/1" in outcome.out, "which the run that reused it knows"
