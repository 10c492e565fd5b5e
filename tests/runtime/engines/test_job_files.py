"""What a command and its jobs tell each other through the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import contents_of, fill
from records import attempt

from pipeline.runtime.engines.engine import Assignment
from pipeline.runtime.engines.job_files import JobFiles, read_request
from pipeline.runtime.manifest import FAILED, SUCCEEDED
from pipeline.runtime.process import NOBODY, this_process
from pipeline.runtime.store.artifact_store import Store

RUN = "20260101T000001000Z-0123456789"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on disk, and one behind a real S3 server."""
    place = tmp_path / "store" if request.param == "local" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return Store(str(place))


@pytest.fixture
def files(store: Store) -> JobFiles:
    return JobFiles(store, RUN, attempt("train", attempt=2))


def test_a_request_arrives_as_it_was_made(files: JobFiles, store: Store) -> None:
    asked = Assignment(
        RUN, attempt("train", attempt=2), "dev", "abc-dirty", "2026-01-01T00:00:00Z", " --config x.yaml", stream=False
    )
    files.ask(asked)
    assert read_request(store, RUN, "train", 2) == asked
    assert files.name(3) == f"{RUN}-train-002-3"


def test_the_first_result_of_a_try_counts(files: JobFiles) -> None:
    assert (files.started(1), files.ended(1), files.tries(), files.watcher()) == (None, None, 0, NOBODY)
    files.start(1, {"job": "x"})
    files.watch(this_process())
    files.end(1, attempt("train", status=FAILED), 2)
    files.end(1, attempt("train", status=SUCCEEDED), 0)
    ended = files.ended(1)
    assert ended
    assert (ended[0].status, ended[1], files.ended(2)) == (FAILED, 2, None)
    assert (files.started(1), files.tries(), files.watcher()) == ({"job": "x"}, 1, this_process())
    assert (files.is_to_stop(1), files.is_to_stop(2)) == (False, False)
    files.stop(2)
    assert (files.is_to_stop(1), files.is_to_stop(2)) == (False, True)


def test_the_next_attempt_at_the_same_work_goes_on_from_the_last_state(
    files: JobFiles, store: Store, tmp_path: Path
) -> None:
    other = JobFiles(store, "another run", attempt("train"))
    other.fetch_resume(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for count in (b"1", b"2"):
        files.keep_resume(fill(tmp_path / "resume", {"count": count, "deep/same": b"as ever"}))
    other.fetch_resume(tmp_path / "next")
    assert contents_of(tmp_path / "next") == {"count": b"2", "deep/same": b"as ever"}
    kept = [info.key for info in store.files.find("resume")]
    assert len(kept) == 3, "of the state before nothing is left"
    JobFiles(store, RUN, attempt("train", fingerprint="d" * 64)).fetch_resume(tmp_path / "other work")
    assert not (tmp_path / "other work").exists()
    other.forget_resume()
    assert list(store.files.find("resume")) == []


@pytest.mark.parametrize("change", ["damaged", "missing"])
def test_a_state_that_is_not_whole_is_not_used(
    files: JobFiles, store: Store, tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    files.keep_resume(fill(tmp_path / "resume", {"count": b"1", "more": b"2"}))
    victim = max(info.key for info in store.files.find("resume") if not info.key.endswith(".json"))
    if change == "damaged":
        store.files.replace(victim, b"3")
    else:
        store.files.remove(victim, float("inf"))
    files.fetch_resume(tmp_path / "next")
    assert not (tmp_path / "next").exists()
    assert "the step starts anew" in caplog.text


def test_logs_grow_where_they_are_read(files: JobFiles, tmp_path: Path) -> None:
    files.keep_log("deep/events", b"one")
    files.fetch_logs(tmp_path / "logs")
    with (tmp_path / "logs/deep/events").open("rb") as reader:  # as TensorBoard keeps it open
        assert reader.read() == b"one"
        files.keep_log("deep/events", b"one two")
        files.fetch_logs(tmp_path / "logs")
        assert reader.read() == b" two"


def test_a_forged_name_of_a_log_leads_nowhere(tmp_path: Path) -> None:
    """An object store may hold any name; on disk, a link stands for one that leads out of the folder."""
    files = JobFiles(Store(str(tmp_path / "store")), RUN, attempt("train"))
    files.keep_log("deep/events", b"one")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "deep").symlink_to(tmp_path)
    files.fetch_logs(tmp_path / "logs")
    assert not (tmp_path / "events").exists()
