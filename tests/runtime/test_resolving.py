"""Which run, attempt or artifact a person means."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import artifact, attempt, failed, run_id, run_of

from pipeline.errors import MissingError, UsageError
from pipeline.runtime.project import Config, Project
from pipeline.runtime.resolving import find_artifact, find_attempt, find_run, matching_runs, short_names

NAMES = ["20260101T000001000Z-aaaa111111", "20260101T000002000Z-abcd222222", "20260102T000003000Z-bbbb333333"]


@pytest.fixture
def project(tmp_path: Any) -> Any:
    """Three runs, the second of another pipeline."""
    project = Project(tmp_path, "dev", Config(name="toy"), "configs/demo.yaml", {})
    for number, name in enumerate(NAMES):
        pipeline = "other" if number == 1 else "toy"
        project.runs.open(run_of(number, run=name, pipeline=pipeline, attempts=()))
    return project


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        pytest.param(None, 2, id="nothing"),
        pytest.param("latest", 2, id="latest"),
        pytest.param("latest~1", 0, id="the one before the latest of its pipeline"),
        pytest.param(NAMES[1], 1, id="an id"),
        pytest.param("20260102", 2, id="how it begins"),
        pytest.param("222", 1, id="how it ends"),
        pytest.param("abcd222222", 1, id="its last part"),
        pytest.param("aa", 0, id="how its last part begins"),
    ],
)
def test_a_run_is_found_by_what_a_person_types(project: Project, typed: str | None, number: int) -> None:
    assert find_run(project, typed).run == NAMES[number]


PARTS = st.text("01a", min_size=6, max_size=10)


@given(st.lists(st.tuples(st.integers(0, 59), PARTS), min_size=1, max_size=8, unique=True))
def test_each_run_has_a_short_name_that_finds_it(parts: list[tuple[int, str]]) -> None:
    runs = [f"20260101T0000{second:02}000Z-{part}" for second, part in parts]
    names = short_names(runs)
    assert all(name == run or matching_runs(name, runs) == [run] for run, name in names.items())
    assert list(names) == runs


def test_short_names_have_one_length() -> None:
    assert short_names([]) == {}
    assert list(short_names(NAMES).values()) == ["aaaa", "abcd", "bbbb"]
    close = ["20260101T000001000Z-aaaa11", "20260101T000002000Z-aaaa22", "20260101T000003000Z-bbbbbb"]
    assert list(short_names(close).values()) == ["aaaa1", "aaaa2", "bbbbb"]
    ends_like = ["20260101T000001000Z-2026ab", "20260101T000002000Z-ab2026"]
    assert list(short_names(ends_like).values()) == ["2026a", "ab202"], "2026 begins every id, and ends one"


def test_the_latest_may_be_of_one_pipeline(project: Project) -> None:
    assert find_run(project, pipeline="other").run == NAMES[1]
    assert find_run(project, "latest~1", pipeline="toy").run == NAMES[0]
    with pytest.raises(MissingError, match="there is no run 'latest~1': 'other' has fewer"):
        find_run(project, "latest~1", pipeline="other")
    with pytest.raises(MissingError, match="there is no dev run of 'nobody' yet"):
        find_run(project, pipeline="nobody")


@pytest.mark.parametrize(
    ("typed", "error", "says"),
    [
        pytest.param("20260101", UsageError, f"one of {NAMES[0]}, {NAMES[1]}", id="two begin so"),
        pytest.param("a", UsageError, "matches 2 runs", id="the last parts of two begin so"),
        pytest.param("zzz", MissingError, f"one of {NAMES[0]}, {NAMES[1]}, {NAMES[2]}", id="none"),
        pytest.param("20260102T000003000Z-bbbb333334", MissingError, "there is no run", id="an id of no run"),
        pytest.param("20260102T000003000Z-bbbb33333x", MissingError, f"did you mean '{NAMES[2]}'?", id="a slip"),
        pytest.param("latest~2", MissingError, "python -m pipeline runs --filter pipeline=toy", id="too far back"),
        pytest.param("../x", MissingError, "there is no run '../x'", id="a path"),
    ],
)
def test_what_stands_for_no_run_or_several_is_refused(project: Project, typed: str, error: Any, says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        find_run(project, typed)


def test_an_attempt_is_found_by_its_number() -> None:
    first, second = failed("train"), attempt("train", attempt=2)
    manifest = run_of(1, first, second)
    assert find_attempt(manifest, "train") == second
    assert find_attempt(manifest, "train", 1) == first
    with pytest.raises(MissingError, match=r"(?s)train has no attempt 3.*one of 1, 2"):
        find_attempt(manifest, "train", 3)
    with pytest.raises(MissingError, match=f"(?s)pack has not run in run.*python step.dev.py pack --run {run_id(1)}"):
        find_attempt(manifest, "pack")


OLD, NEW, BELOW, IMAGES = artifact("model", "1"), artifact("model", "2"), artifact("report"), artifact("images")
TWIN = replace(OLD, name="copy")  # equal folders have equal digests, whatever they are called
RUNS = [
    run_of(1, attempt("train", (IMAGES,), (OLD,))),
    run_of(2, attempt("train", (IMAGES,), (NEW,)), failed("eval", reads=(NEW,), makes=(BELOW,))),
    run_of(3, attempt("other", (), (TWIN,))),
]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        pytest.param("model", NEW, id="the newest of an entity"),
        pytest.param("images", IMAGES, id="one that no readable run made"),
        pytest.param("report", BELOW, id="one that missed its gate"),
        pytest.param(f"model/{OLD.digest[:6]}", OLD, id="entity and digest"),
        pytest.param(NEW.digest[:6], NEW, id="a digest"),
        pytest.param(OLD.url, OLD, id="a URL"),
        pytest.param(f"s3://elsewhere/artifacts/model/{OLD.digest}", OLD, id="a URL from before the store was moved"),
    ],
)
def test_an_artifact_is_found_by_what_a_person_types(typed: str, found: Any) -> None:
    assert find_artifact(typed, RUNS) == found


@pytest.mark.parametrize(
    ("typed", "error", "says"),
    [
        pytest.param("modle", MissingError, "did you mean 'model'?", id="a slip"),
        pytest.param("modle/0123", MissingError, "did you mean 'model'?", id="a slip before a digest"),
        pytest.param(OLD.digest[:5], MissingError, "there is no artifact", id="a digest that is too short"),
        pytest.param("000000", MissingError, f"report/{BELOW.digest[:12]}, copy/", id="no such digest"),
        pytest.param(
            "model/000000", MissingError, f"model/{OLD.digest[:12]}, model/{NEW.digest[:12]}", id="no version"
        ),
        pytest.param(OLD.digest[:8], UsageError, f"model/{OLD.digest[:12]}, copy/{OLD.digest[:12]}", id="two entities"),
    ],
)
def test_what_stands_for_no_artifact_or_several_is_refused(typed: str, error: Any, says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        find_artifact(typed, RUNS)
