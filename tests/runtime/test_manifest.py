"""Records of runs: written once, put together again, found again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import exam
import pytest
from folders import fill
from hypothesis import given
from hypothesis import strategies as st
from records import beginning, opened

from pipeline.errors import IntegrityError, MissingError, StepError, UsageError
from pipeline.runtime import execution
from pipeline.runtime.inputs import count_uses, inputs_agree, require_agreement
from pipeline.runtime.manifest import (
    FAILED,
    INTERRUPTED,
    KILLED,
    REUSED,
    RUNNING,
    SCHEMA,
    SUCCEEDED,
    StepRecord,
    new_run_id,
    run_time,
)
from pipeline.runtime.process import Process, this_process
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store
from pipeline.runtime.verification import verify


def words(runs: Runs, digest: str = "ab12") -> Artifact:
    return Artifact("words", f"{runs.store.url}/artifacts/words/{digest}", digest, 5, 1, "run/second/1")


def ended(runs: Runs, run: str, step: str = "second", **changes: Any) -> StepRecord:
    record = runs.start(run, beginning(step))
    record = replace(record, **{"status": SUCCEEDED, "outputs": {"words": words(runs)}, **changes})
    runs.end(run, record)
    return record


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
artifacts = st.builds(Artifact, st.text(), st.text(), st.text(), st.integers(0), st.integers(0), st.text())


@given(
    st.builds(
        StepRecord,
        parameters=st.dictionaries(st.text(), json_values, max_size=3),
        inputs=st.dictionaries(st.text(), artifacts, max_size=2),
        outputs=st.dictionaries(st.text(), artifacts, max_size=2),
        metrics=st.dictionaries(st.text(), json_values, max_size=3),
        overrides=st.dictionaries(st.text(), json_values, max_size=2),
        code=st.dictionaries(st.text(), json_values, max_size=2),
        process=st.builds(Process),
        error=st.text(),
    )
)
def test_a_record_survives_json(record: StepRecord) -> None:
    assert StepRecord.from_json(json.loads(json.dumps(asdict(record)))) == record


def test_a_run_is_put_together_from_its_records(runs: Runs) -> None:
    run = opened(runs)
    record = runs.start(run, beginning("second"))
    assert [r.status for r in runs.load(run).attempts] == [RUNNING]
    assert rendered(runs, run)["steps"]["second"]["status"] == RUNNING
    record = replace(record, status=SUCCEEDED, outputs={"words": words(runs)}, metrics={"length": 5})
    runs.end(run, record)
    manifest = runs.load(run)
    assert manifest.attempts == manifest.of("second") == (record,)
    assert (manifest.of("third"), manifest.success("second"), manifest.schema) == ((), record, SCHEMA)
    assert (manifest.output("words"), manifest.output("book")) == (words(runs), None)


def rendered(runs: Runs, run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(runs.store.files.read(f"runs/{run}/manifest.json"))
    return content


def test_records_are_written_once(runs: Runs) -> None:
    run = opened(runs)
    record = ended(runs, run, metrics={"length": 5})
    runs.end(run, replace(record, status=SUCCEEDED, outputs={"words": words(runs)}, metrics={"length": 5}))
    with pytest.raises(StepError, match=r"another end of .*second/1"):
        runs.end(run, replace(record, status=FAILED))
    with pytest.raises(StepError, match="there is a run"):
        runs.open(replace(runs.load(run), attempts=(), pipeline="other"))
    assert runs.load(run).attempts == (record,)
    assert runs.load(run).pipeline == "toy"


def test_concurrent_attempts_get_numbers_of_their_own_and_none_is_lost(runs: Runs) -> None:
    run = opened(runs)
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda n: ended(runs, run, metrics={"n": n}), range(24)))
    assert sorted(record.attempt for record in records) == list(range(1, 25))
    assert {r.attempt: r.metrics["n"] for r in runs.load(run).attempts} == {r.attempt: r.metrics["n"] for r in records}
    step = rendered(runs, run)["steps"]["second"]
    assert len(step["earlier_attempts"]) == 23, "the last to render saw every record"
    assert step["status"] == SUCCEEDED


def test_of_two_that_render_at_once_the_last_word_has_every_record(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(runs)
    replace_file = runs.store.files.replace

    def late(key: str, content: bytes) -> None:
        monkeypatch.undo()
        ended(runs, run, "third", outputs={})  # another process, between this one's reading and its writing
        replace_file(key, content)

    monkeypatch.setattr(runs.store.files, "replace", late)
    ended(runs, run)
    assert set(rendered(runs, run)["steps"]) == {"second", "third"}
    assert {step["status"] for step in rendered(runs, run)["steps"].values()} == {SUCCEEDED}
    monkeypatch.setattr(runs.store.files, "replace", late)
    runs.render(run)
    assert len(rendered(runs, run)["steps"]["third"]["earlier_attempts"]) == 1


def test_the_newest_success_counts_whatever_the_clock_says(runs: Runs) -> None:
    run = opened(runs)
    newer = words(runs, "cd34")
    ended(runs, run, started="2026-01-02T00:00:00.000Z")
    ended(runs, run, outputs={"words": newer}, started="2026-01-01T00:00:00.000Z")
    ended(runs, run, status=FAILED, outputs={"words": words(runs, "bad")})
    assert runs.load(run).output("words") == newer
    assert runs.load(run).success("second").attempt == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["run.json", "attempts/second.002.started.json"])
def test_a_record_of_a_newer_schema_is_refused(runs: Runs, name: str) -> None:
    run = new_run_id() if name == "run.json" else opened(runs)
    newer = {**asdict(beginning("second", attempt=2)), "schema": SCHEMA + 1, "something": "new"}
    runs.store.files.create(f"runs/{run}/{name}", json.dumps(newer).encode() + b"\n")
    with pytest.raises(UsageError, match=f"(?s)newer version.*{name}.*found {SCHEMA + 1}.*update the pipeline"):
        runs.load(run)


@pytest.mark.parametrize("content", [b"[]", b'{"schema": 1}', b"\xff\xfe", b'{"schema": "x"}\n', b"{]}\n"])
def test_an_unreadable_record_is_named(runs: Runs, content: bytes) -> None:
    run = opened(runs)
    runs.store.files.create(f"runs/{run}/attempts/second.001.ended.json", content)
    with pytest.raises(IntegrityError, match=r"second\.001\.ended\.json"):
        runs.load(run)
    other = new_run_id()
    runs.store.files.create(f"runs/{other}/run.json", content)
    with pytest.raises(IntegrityError, match=other):
        runs.load(other)


def test_a_run_whose_opening_was_cut_short_is_none(runs: Runs) -> None:
    run = opened(runs)
    cut = new_run_id()
    runs.store.files.create(f"runs/{cut}/attempts/x", b"x")
    runs.store.files.create("runs/notes.txt/x", b"of someone else")
    assert runs.ids() == [run]
    assert runs.newest() == runs.load(run)
    for name in (cut, "notes.txt", "../x", "x" * 400, ""):
        with pytest.raises(MissingError, match="there is no run"):
            runs.load(name)


def test_the_newest_run_can_be_asked_for_by_pipeline_and_output(runs: Runs) -> None:
    assert runs.newest() is None
    first, other = opened(runs), opened(runs, pipeline="other")
    ended(runs, first)
    empty = opened(runs)
    assert [getattr(found, "run", None) for found in (runs.newest(), runs.newest(pipeline="other"))] == [empty, other]
    assert runs.newest(having="words").run == first  # type: ignore[union-attr]
    assert runs.newest(pipeline="nobody") is None
    assert runs.ids() == [first, other, empty]


def test_the_same_work_is_found_while_its_outputs_exist(runs: Runs, tmp_path: Path) -> None:
    words = runs.store.put("words", fill(tmp_path / "in", {"a": b"x"}))
    first, second = opened(runs), opened(runs)
    ended(runs, second, outputs={"words": words})
    newest = ended(runs, second, outputs={"words": words})
    ended(runs, first, outputs={"words": words})
    assert runs.same_work("second", "c" * 64) == (second, newest)
    assert runs.same_work("second", "e" * 64) is None
    assert runs.same_work("first", "c" * 64) is None
    ended(runs, opened(runs), outputs={"words": replace(words, digest="0" * 64)})
    assert runs.same_work("second", "c" * 64) == (second, newest), "outputs that are gone are no use"


def test_only_a_readable_success_is_the_same_work(runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "in", {"a": b"x"})
    for status in (FAILED, INTERRUPTED, REUSED):
        ended(runs, opened(runs), status=status, outputs={"words": runs.store.put("words", tmp_path / "in")})
    assert runs.same_work("second", "c" * 64) is None
    runs.store.files.create(f"reuse/second/{'c' * 64}/{new_run_id()}.001", b'{"from": "a newer version"}')
    assert runs.same_work("second", "c" * 64) is None
    assert "a record cannot be read" in caplog.text


# --- killed writers, older versions ----------------------------------------------------------------------------------

GONE = replace(this_process(), began="before")


@pytest.mark.parametrize("content", [b"", b"{", b'{\n  "step": "second",\n  "attempt": 1'])
def test_a_record_that_was_cut_off_counts_as_not_written(
    runs: Runs, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(runs)
    done = ended(runs, run, "first")
    key = f"runs/{run}/attempts/second.001.started.json"
    runs.store.files.replace(key, content)
    assert runs.load(run).attempts == (done,)
    assert "was cut off while it was written" in caplog.text
    assert runs.cut_records(run) == [key]
    assert runs.start(run, beginning("second")).attempt == 2, "its number stays taken"
    cut = new_run_id()
    runs.store.files.replace(f"runs/{cut}/run.json", b'{"run"')
    assert runs.ids() == [run]


def test_a_record_that_was_cut_behind_a_brace_within_it_counts_as_not_written(runs: Runs) -> None:
    run = opened(runs)
    inputs = {"words": words(runs)}
    runs.start(run, beginning("second", inputs=inputs, code={"commit": "", "untracked": {"a": "b"}}))
    key = f"runs/{run}/attempts/second.001.started.json"
    content = runs.store.files.read(key)
    ends = [end for end in range(2, len(content)) if content[:end].endswith(b"}\n")]
    assert len(ends) >= 2
    for end in ends:
        runs.store.files.replace(key, content[:end])
        assert Runs(runs.store).load(run).attempts == ()
    runs.store.files.replace(key, content)
    assert len(Runs(runs.store).load(run).attempts) == 1


@pytest.mark.parametrize("cut", [False, True])
def test_an_attempt_whose_process_is_gone_gets_an_end(runs: Runs, *, cut: bool) -> None:
    run = opened(runs)
    killed = runs.start(run, beginning("first", process=GONE))
    if cut:  # while it wrote its own end
        runs.store.files.replace(f"runs/{run}/attempts/first.001.ended.json", b'{"step": "fir')
    alive = runs.start(run, beginning("second", process=this_process()))
    elsewhere = runs.start(run, beginning("third", process=replace(GONE, host="elsewhere")))
    assert runs.load(run).of("first")[0].is_killed
    manifest = runs.end_killed(runs.load(run))
    assert [record.status for record in manifest.attempts] == [KILLED, RUNNING, RUNNING]
    assert manifest.of("second") == (alive,)
    assert manifest.of("third") == (elsewhere,)
    [record] = manifest.of("first")
    assert (record.id, record.error) == (killed.id, "its process was killed")
    assert rendered(runs, run)["steps"]["first"]["status"] == KILLED
    assert (runs.end_killed(manifest), runs.cut_records(run)) == (manifest, [])
    with pytest.raises(StepError, match="another end of"):
        runs.end(run, replace(killed, status=SUCCEEDED))


def of_schema(number: int, place: Path) -> Runs:
    """A copy of a store that an earlier version wrote."""
    shutil.copytree(Path(__file__).parents[1] / "stores" / f"schema_{number}", place)
    return Runs(Store(str(place)))


def test_runs_of_schema_1_stay_readable(tmp_path: Path) -> None:
    runs = of_schema(1, tmp_path / "old")
    first, second = (runs.load(run) for run in runs.ids())
    assert (first.schema, second.schema) == (1, 1)
    assert [(one.made_by, one.status) for one in first.attempts] == [("first/1", SUCCEEDED), ("second/1", FAILED)]
    assert [record.status for record in second.of("second")] == [SUCCEEDED, SUCCEEDED]
    assert second.of("first")[0].reused_from == f"{first.run}/first/1"
    assert {record.schema for record in second.attempts} == {1}
    book = second.output("book")
    assert book is not None
    assert (runs.store.get(book, tmp_path / "out") / "deep" / "book.txt").read_text() == "hallo"
    assert runs.same_work("third", second.of("third")[0].fingerprint) == (second.run, second.of("third")[0])
    assert verify(runs, runs.ids()).findings == ()


def test_a_run_of_schema_2_is_read_with_the_disagreement_that_it_has(tmp_path: Path) -> None:
    runs = of_schema(2, tmp_path / "old")
    (run,) = (runs.load(one) for one in runs.ids())
    assert (run.schema, {record.schema for record in run.attempts}) == (2, {2})
    assert all((record.notes, record.chosen, record.chosen_before) == ((), {}, {}) for record in run.attempts)
    right, wrong = run.of("judge")
    assert inputs_agree(runs, run, right.inputs)
    with pytest.raises(StepError, match=r"learn is out of date"):
        require_agreement(runs, run, "judge", wrong.inputs)
    assert count_uses(runs, "judge", wrong.inputs) == {"test": 1, "service": 2}
    assert verify(runs, runs.ids()).findings == ()


def test_a_run_of_schema_3_is_read_verified_and_continued(
    tmp_path: Path, new_toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commit cede7d4 wrote it: load, prep, learn, prep with other words, and learn forced."""
    monkeypatch.setattr(execution, "execute", exam.in_process)
    toy = exam.make_exam(new_toy, tmp_path / "exam")
    (run,) = of_schema(3, toy.root / ".store/default/dev").readable()
    assert (run.schema, {record.schema for record in run.attempts}) == (3, {3})
    assert [record.made_by for record in run.attempts] == ["load/1", "prep/1", "learn/1", "prep/2", "learn/2"]
    assert [(record.status, record.notes) for record in run.of("prep")] == [(SUCCEEDED, ()), (SUCCEEDED, ("twice",))]
    assert toy.look("verify").out.startswith("all is as it was recorded: 1 run, 7 artifacts")
    assert [toy.step(name).code for name in ("pack", "judge")] == [0, 0]
    assert toy.manifest()["run"] == run.run
    assert set(toy.statuses()) == set(exam.READS)
    assert toy.manifest()["steps"]["judge"]["inputs"]["test"] == asdict(run.success("prep").outputs["test"])  # type: ignore[union-attr]


def test_the_time_of_a_run_is_in_its_id() -> None:
    assert run_time("20261129T024627804Z-3be2ec67de/model_train/1") == "2026-11-29T02:46:27Z"
    assert [run_time(name) for name in ("", "by-hand/model_train/0")] == ["", ""]
    assert run_time(new_run_id()) >= "2026"
