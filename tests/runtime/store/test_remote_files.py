"""Files behind a URL: what fsspec and S3 do not do by themselves."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from flaky_proxy import Behaviour, flaky_proxy
from folders import fill
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import IntegrityError, StoreError
from pipeline.runtime.store import remote_files
from pipeline.runtime.store.artifact_store import Store
from pipeline.runtime.store.remote_files import RemoteFiles


@pytest.fixture
def behaviour() -> Behaviour:
    """How the store is reached; all is well."""
    return Behaviour()


@pytest.fixture
def flaky(s3: str, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteFiles]:
    """S3 behind a proxy that does as `behaviour` says."""
    with flaky_proxy(os.environ["AWS_ENDPOINT_URL"], behaviour) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        fsspec.filesystem("s3").clear_instance_cache()
        files = RemoteFiles(f"{s3}/{secrets.token_hex(6)}")
        files.create("first", b"asks what the place honours")
        behaviour.seen = 0
        yield files
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_refused_store_is_asked_again_and_one_that_goes_on_refusing_is_told(
    flaky: RemoteFiles, behaviour: Behaviour
) -> None:
    behaviour.refuse = 3
    assert flaky.create("y", b"content")
    assert flaky.read("y") == b"content"
    assert behaviour.refuse == 0
    assert behaviour.seen >= 5
    behaviour.refuse = 10_000
    with pytest.raises(StoreError, match=r"(?s)could not list a folder.*run the same command again"):
        flaky.names("")
    behaviour.refuse = 0
    assert flaky.create("x", b"content")


@pytest.mark.parametrize("lost", [1, 2])
def test_a_write_whose_answer_was_lost_is_ones_own(flaky: RemoteFiles, behaviour: Behaviour, lost: int) -> None:
    behaviour.method, behaviour.part, behaviour.lose = "PUT", "/record", lost
    assert flaky.create("record", b'{"id": "mine"}\n'), "tried again by the SDK, refused, and still ours"
    assert behaviour.seen == lost + 1
    assert flaky.read("record") == b'{"id": "mine"}\n'
    assert not flaky.create("record", b'{"id": "another"}\n')
    assert flaky.read("record") == b'{"id": "mine"}\n'


def test_a_slow_store_serves_many_requests_side_by_side(
    flaky: RemoteFiles, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.delay = 0.2
    store = Store(flaky.url)
    fill(tmp_path / "in", {f"{number}": os.urandom(100) for number in range(16)})
    store.get(store.put("things", tmp_path / "in"), tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 16
    assert behaviour.at_once > 3


def test_a_put_cut_off_by_its_store_goes_on_where_it_was(
    flaky: RemoteFiles, behaviour: Behaviour, tmp_path: Path
) -> None:
    fill(tmp_path / "in", {f"{number}": os.urandom(100) for number in range(6)})
    store = Store(flaky.url)
    behaviour.method, behaviour.part, behaviour.refuse = "PUT", "/artifacts/", 10_000
    with pytest.raises(StoreError):
        store.put("things", tmp_path / "in")
    assert store.files.names("artifacts/things") == []
    behaviour.part, behaviour.refuse, behaviour.seen = "/objects/", 0, 0
    artifact = store.put("things", tmp_path / "in")
    assert behaviour.seen == 0, "no object is sent twice"
    assert store.check(artifact) == []


class SlowStore(dict[str, Any]):
    """fsspec's files in memory, with time for another thread between the check of a key and the write of its file."""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        time.sleep(0.01)
        return found


class Careless(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Memory that takes "create" for "overwrite", as some S3-compatible stores take `If-None-Match`."""

    protocol = "careless"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    writes: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("careless://")))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self.writes.append(path)
        super().pipe_file(path, value, **options)


def test_a_store_that_ignores_conditions_is_for_a_single_writer(caplog: pytest.LogCaptureFixture) -> None:
    fsspec.register_implementation("careless", Careless, clobber=True)
    files = RemoteFiles(f"careless://{secrets.token_hex(4)}")
    assert files.create("a", b"first")
    assert not files.create("a", b"second"), "still never overwritten by one writer"
    assert files.read("a") == b"first"
    assert files.create("a", b"first")
    assert caplog.text.count("single writer only") == 1
    Careless.writes.clear()
    assert RemoteFiles(files.url).create("b", b"x")
    assert len(Careless.writes) == 1, "what it honours is asked once per store"
    assert caplog.text.count("single writer only") == 2, "and said to each process"


def test_in_memory_one_of_several_creations_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "store", SlowStore())
    files = RemoteFiles(f"memory://{secrets.token_hex(4)}")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: files.create("key", b"%d" % n), range(8))) == 1


@pytest.mark.parametrize("backend", ["s3"])
def test_a_listing_comes_page_by_page(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keys below a folder alone, whatever else begins with its name."""
    monkeypatch.setattr(remote_files, "PAGE", 3)
    files = RemoteFiles(store_url)
    keys = [f"objects/{number % 2}/{number}" for number in range(8)]
    for key in (*keys, "objects-2/a", "objects.damaged"):
        files.replace(key, key.encode())
    found = {info.key: info for info in files.find("objects")}
    assert sorted(found) == sorted(keys)
    assert {key: info.size for key, info in found.items()} == {key: len(key) for key in keys}
    assert all(abs(info.modified - time.time()) < 600 for info in found.values())
    assert list(files.find("absent")) == []


def test_wrong_credentials_are_told(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(StoreError, match=r"(?s)could not.*credentials in the environment"):
        Store(f"{s3}/x").files.read("a")
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize("backend", ["memory", "s3"])
def test_a_large_file_is_sent_in_parts_and_checked(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "SMALL", 10)
    store = Store(store_url)
    fill(tmp_path / "in", {"large": os.urandom(1 << 20)})
    artifact = store.put("things", tmp_path / "in")
    assert store.check(artifact) == []
    with pytest.raises(IntegrityError, match="changed while"):
        store.files.upload("objects/aa/aa", tmp_path / "in" / "large", "ab" * 32)
    assert not store.files.exists("objects/aa/aa")
