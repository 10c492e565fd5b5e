"""The promises of the store and of the records, while every operation in turn goes wrong."""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import faulty
import pytest
from faulty import PLAN, WAYS
from folders import contents_of, fill
from records import beginning, opened

from pipeline.errors import PipelineError, StoreError
from pipeline.files import sha256_of
from pipeline.runtime import manifest
from pipeline.runtime.garbage_collection import collect, find_garbage
from pipeline.runtime.manifest import SUCCEEDED, RunManifest, StepRecord
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store

BEFORE_CONTENTS = {"a.txt": b"there before", "b/c.bin": b"shared by both" * 9}
LITTER = {"x": b"nobody's"}
CONTENTS = {"new.txt": b"new" * 40, "b/d.bin": b"shared by both" * 9, "e": b""}


@dataclass
class Work:
    """A step's worth of work on a store; remembers what it was told is safe."""

    url: str
    box: Path
    artifacts: list[Artifact] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    records: list[tuple[str, StepRecord]] = field(default_factory=list)

    def do(self) -> None:
        """What a run does with its store."""
        runs = Runs(Store(self.url))
        run = opened(runs)
        self.opened.append(run)
        record = beginning()
        runs.same_work("first", record.fingerprint)
        record = runs.start(run, record)
        self.records.append((run, record))
        artifact = runs.store.put("new", self.box / "in", f"{run}/first/1")
        self.artifacts.append(artifact)
        assert contents_of(runs.store.get(artifact, self.box / "out" / secrets.token_hex(4))) == CONTENTS
        runs.store.keep(f"runs/{run}/notebooks/first.001.ipynb", self.box / "in" / "new.txt")
        ended = replace(record, status=SUCCEEDED, outputs={"new": artifact})
        runs.end(run, ended)
        self.records[-1] = (run, ended)


def check_promises(url: str, work: Work, old: Artifact, old_run: RunManifest) -> None:
    """Of all that the store holds now, nothing is half, nothing that was told safe is lost, nothing old has changed."""
    runs = Runs(Store(url))
    store, box = runs.store, work.box / "check" / secrets.token_hex(4)
    for name in store.files.names("artifacts"):
        for digest in store.files.names(f"artifacts/{name}"):
            artifact = Artifact(name, "", digest, 0, 0)
            if store.has(artifact):
                assert contents_of(store.get(artifact, box / digest)) in (CONTENTS, BEFORE_CONTENTS, LITTER)
    assert contents_of(store.get(old, box / "old")) == BEFORE_CONTENTS
    assert runs.load(old_run.run) == old_run
    for artifact in work.artifacts:
        assert contents_of(store.get(artifact, box / secrets.token_hex(4))) == CONTENTS
    assert set(work.opened) <= set(runs.ids())
    for run in runs.ids():
        shown = runs.render(run)
        assert json.loads(store.files.read(f"runs/{run}/manifest.json")) == json.loads(json.dumps(shown.to_json()))
    for run, told in work.records:
        [found] = [record for record in runs.load(run).attempts if record.id == told.id]
        assert found == told or (told.status != SUCCEEDED and found.status == SUCCEEDED), "known, or further than known"


def prepared(url: str, box: Path) -> tuple[Artifact, RunManifest]:
    """A store with something in it."""
    runs = Runs(Store(url))
    old = runs.store.put("old", fill(box / "before", BEFORE_CONTENTS), "old/first/1")
    fill(box / "in", CONTENTS)
    run = opened(runs)
    record = runs.start(run, beginning(fingerprint="0" * 64))
    runs.end(run, replace(record, status=SUCCEEDED, outputs={"old": old}))
    runs.store.files.remove("abilities.json", float("inf"))  # so that what the place honours is asked anew
    return old, runs.load(run)


class Upkeep(Work):
    """What is done to a store beside runs: litter is collected, what is old is counted on, what is damaged mended."""

    def do(self) -> None:
        """A put of old bytes, a reuse, a collection, and a look at every byte of something damaged."""
        runs = Runs(Store(self.url))
        put_artifact = runs.store.put("new", self.box / "in")
        assert runs.same_work("first", "0" * 64)
        litter = runs.store.put("litter", fill(self.box / "litter", LITTER))
        [record] = [record for run in runs.ids() for record in runs.load(run).attempts]
        collect(runs, find_garbage(runs, spare=-60))
        assert not runs.store.has(litter)
        assert not runs.store.has(put_artifact), "no run refers to it"
        [file, *_] = runs.store.index(record.outputs["old"])
        runs.store.files.replace(file.key, b"damaged")
        assert runs.store.check(record.outputs["old"]) == [file.path]


def mend(url: str, box: Path) -> None:
    """What a person does who was told that something is damaged: the step that makes it stores it again."""
    store = Store(url)
    for path in (box / "before").rglob("*"):
        if path.is_file():
            sha256 = sha256_of(path)
            store.files.set_aside(f"objects/{sha256[:2]}/{sha256}", sha256)
    store.put("old", box / "before")


def spoil(url: str, box: Path, go: Callable[[Work, int], bool], kind: type[Work] = Work, *, stride: int = 1) -> int:
    """Do the work with the first operation going wrong, then the next by `stride`, until none does; how many did."""
    for points in itertools.count():
        place = f"{url}/{1 + points * stride}"
        old, old_run = prepared(place, box)
        work = kind(place, box)
        if not go(work, 1 + points * stride):
            break
        if kind is Upkeep:
            mend(place, box)
        check_promises(place, work, old, old_run)
        again = Work(place, box, work.artifacts, work.opened, work.records)
        again.do()
        check_promises(place, again, old, old_run)
    return points


def try_to_do(work: Work) -> None:
    """An operation that goes wrong is told, with what to do, or makes no difference."""
    told = "do:"
    try:
        work.do()
    except PipelineError as error:
        told = str(error)
    assert "do:" in told, "an error says what to do"


STRIDES = [pytest.param(1, id="every one", marks=pytest.mark.slow), pytest.param(11, id="some")]


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [Work, Upkeep])
def test_operations_on_a_remote_place_may_fail(
    kind: type[Work], way: str, stride: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(work: Work, number: int) -> bool:
        PLAN.arm(number, way)
        try:
            try_to_do(work)
            return bool(PLAN.hit)
        finally:
            PLAN.disarm()

    if kind is Upkeep:  # everything is old, and larger files are sent otherwise
        monkeypatch.setattr("pipeline.runtime.store.artifact_store.YOUNG", -60.0)
        monkeypatch.setattr("pipeline.runtime.store.remote_files.SMALL", 20)
    url = f"faulty://{secrets.token_hex(4)}"
    assert spoil(url, tmp_path, go, kind, stride=stride) > 35 / stride
    assert isinstance(Store(url).files._fs, faulty.FaultyFileSystem)  # type: ignore[union-attr]


KILL = "kill"
CALLS = ("link", "fsync", "replace", "rename", "mkdir", "unlink", "open", "utime")


class Disk:
    """The calls of `os` by which local files are written; that of the armed number fails."""

    def __init__(self, patch: pytest.MonkeyPatch, way: str, number: int) -> None:
        self.patch, self.way, self.number, self.count, self.hit = patch, way, number, 0, ""
        for name in CALLS:
            patch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count != self.number:
                return inner(*arguments, **options)
            self.hit = name
            if self.way == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            done = inner(*arguments, **options) if self.way == "after" else None
            if name == "open" and done is not None:
                os.close(done)
            raise OSError(errno.EIO, f"{name} failed {self.way}")

        return call


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("way", ["before", "after", KILL])
def test_calls_on_a_local_disk_may_fail_or_be_the_last(way: str, stride: int, tmp_path: Path) -> None:
    def go(work: Work, number: int) -> bool:
        child = os.fork() if way == KILL else -1
        if child > 0:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, -signal.SIGKILL)
            return code != 0
        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                disk = Disk(patch, way, number)
                try_to_do(work)
            code = 0
        finally:
            if child == 0:
                os._exit(code)
        return bool(disk.hit)

    assert spoil(str(tmp_path / "store"), tmp_path, go, stride=stride) > 60 / stride


# --- places that do not do what they are asked -----------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_told_and_what_fits_goes_in_later(small_disk: Path, tmp_path: Path) -> None:
    store = Store(str(small_disk / "store"))
    kept = store.put("kept", fill(tmp_path / "kept", {"a": os.urandom(300_000)}))
    large = {f"{n}.bin": os.urandom(200_000) for n in range(6)}
    with pytest.raises(StoreError, match=r"(?s)No space left on device.*python -m pipeline gc"):
        store.put("large", fill(tmp_path / "large", large))
    assert store.files.names("artifacts/large") == []
    assert not list((small_disk / "store").rglob(".*")), "what was begun is gone again"
    assert store.check(kept) == []
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    artifact = store.put("large", tmp_path / "large")
    assert contents_of(store.get(artifact, tmp_path / "out")) == large


def test_a_read_only_store_can_be_read_and_says_why_it_is_not_written(small_disk: Path, tmp_path: Path) -> None:
    store = Store(str(small_disk / "store"))
    artifact = store.put("things", fill(tmp_path / "in", CONTENTS))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert contents_of(store.get(artifact, tmp_path / "out")) == CONTENTS
    assert store.check(artifact) == []
    with pytest.raises(StoreError, match=r"(?s)Read-only file system.*permissions"):
        store.put("more", fill(tmp_path / "more", {"a": b"x"}))
    assert store.put("things", tmp_path / "in").digest == artifact.digest, "what is there needs no writing"


def test_a_disk_without_hard_links_still_keeps_the_first_and_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    old, old_run = prepared(str(tmp_path / "store"), tmp_path)
    work = Work(str(tmp_path / "store"), tmp_path)
    work.do()
    check_promises(str(tmp_path / "store"), work, old, old_run)
    files = Store(str(tmp_path / "store")).files
    assert files.create("runs/x", b"first")
    assert not files.create("runs/x", b"second")
    assert files.read("runs/x") == b"first"
    calls, fsync = [], os.fsync

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:  # the first is of the temporary file
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        files.create("runs/y", b"content")
    assert not files.exists("runs/y")
    assert files.create("runs/y", b"content")


def test_a_clock_that_goes_backwards_does_not_make_an_old_run_the_newest(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Clock(datetime):
        ahead = timedelta()

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + cls.ahead

    monkeypatch.setattr(manifest, "datetime", Clock)
    runs = Runs(Store(store_url))
    ids = []
    for seconds in (3600, 0, -3600, -7200, 0):
        Clock.ahead = timedelta(seconds=seconds)
        ids.append(opened(runs))
    assert runs.ids() == ids
    assert runs.newest() == runs.load(ids[-1])
    assert caplog.text.count("clock is behind the newest run") == 4


def test_everything_is_on_disk_before_the_marker_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int, str]] = []

    def watched(name: str) -> None:
        inner = getattr(os, name)

        def call(what: Any, *more: Any, **options: Any) -> Any:
            number = os.fstat(what).st_ino if name == "fsync" else Path(what).stat().st_ino
            result = inner(what, *more, **options)
            done.append((name, number, str(more[0]) if more else ""))
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace", "link"):
        watched(name)
    store = Store(str(tmp_path / "store"))
    artifact = store.put("things", fill(tmp_path / "in", CONTENTS))
    monkeypatch.undo()
    order = {(name, number): place for place, (name, number, _) in enumerate(done)}
    [marker] = [place for place, (name, _, target) in enumerate(done) if name == "link" and artifact.digest in target]
    for file in store.index(artifact):
        path = Path(store.files.location(file.key))
        number, folder = path.stat().st_ino, path.parent.stat().st_ino
        assert order["fsync", number] < order["replace", number] < order["fsync", folder] < marker
    assert order["fsync", (tmp_path / "store" / "objects").stat().st_ino] < marker
    path = tmp_path / "store" / "artifacts" / "things" / artifact.digest
    assert order["fsync", path.stat().st_ino] < marker < order["fsync", path.parent.stat().st_ino]


def test_right_bytes_are_never_set_aside(store_url: str, tmp_path: Path) -> None:
    store = Store(store_url)
    artifact = store.put("things", fill(tmp_path / "in", CONTENTS))
    for file in store.index(artifact):
        store.files.set_aside(file.key, file.sha256)
    assert store.check(artifact) == []
    [first, *_] = store.index(artifact)
    store.files.set_aside(first.key, "ab" * 32)
    assert store.check(artifact) == [first.path]
    assert store.files.exists(f"{first.key}.damaged")
