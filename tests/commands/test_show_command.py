"""The Markdown of a run: names cannot become markup, and what came after the evaluation is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases import cases
from records import artifact, attempt, failed, run_of

from pipeline.commands.show_command import comment_lines, escape, since_evaluation
from pipeline.metrics.named_figures import FIGURES
from pipeline.runtime.manifest import RunManifest

SERVICE, OTHER, RESULTS = artifact("bento_service", "1"), artifact("bento_service", "2"), artifact("results")
PACK = attempt("pack", (), (SERVICE,))
JUDGE = attempt("judge", (SERVICE,), (RESULTS,), judged="bento_service")
MISSED = replace(JUDGE, status="failed", error="the quality gate is not passed: mAP50 0.1", error_kind="GateError")
SINCE: dict[str, tuple[RunManifest, list[str]]] = {
    "nothing": (run_of(1, PACK, JUDGE), []),
    "it failed again": (run_of(1, PACK, JUDGE, failed("judge", attempt=2)), ["judge failed: ValueError: no such luck"]),
    "an earlier step failed": (
        run_of(1, PACK, JUDGE, failed("pack", attempt=2)),
        ["pack failed: ValueError: no such luck"],
    ),
    "another service": (
        run_of(1, PACK, JUDGE, attempt("pack", (), (OTHER,), attempt=2)),
        ["the model was packed anew"],
    ),
    "the evaluation itself missed the gate": (run_of(1, PACK, MISSED), []),
}


@cases("run, since", SINCE)
def test_what_came_after_the_evaluation_is_told(run: RunManifest, since: list[str]) -> None:
    evaluation = next(record for record in run.attempts if record.step == "judge")
    assert since_evaluation(run, evaluation, ["pack", "judge"]) == since
    none = {figure.attribute: None for figure in FIGURES.values()}
    decision = {"headline": "Ship it", "reasons": ["a reason"]}
    metrics = {"decision": decision, "references": {}, "images": 1, "objects": 1, **none}
    lines = list(comment_lines(run, metrics, "", since))
    assert lines[0] == "### Ship it"
    assert any("**This evaluation is not the newest of the run.**" in line for line in lines) == bool(since)
    assert [line[2:] for line in lines if line.startswith("- ")] == [*map(escape, since), "a reason"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a|b", r"a\|b", id="a column"),
        pytest.param("a\nb", "a b", id="a line break"),
        pytest.param("<b>", "&lt;b&gt;", id="HTML"),
        pytest.param("@me", "@\u200bme", id="a mention"),
        pytest.param("*x*", r"\*x\*", id="emphasis"),
    ],
)
def test_names_are_shown_as_they_are(text: str, expected: str) -> None:
    assert escape(text) == expected
