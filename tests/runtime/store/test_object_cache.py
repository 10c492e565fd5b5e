"""What a machine has fetched it does not fetch again, and what it has is checked."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fsspec
import pytest
from flaky_proxy import Behaviour, flaky_proxy
from folders import contents_of, fill

from pipeline.runtime.store.artifact_store import Store
from pipeline.runtime.store.object_cache import ABANDONED, ObjectCache

TWO = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256)) * 10}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def cached(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("backend", ["memory", "s3"])
@pytest.mark.parametrize("link", [True, False])
def test_what_was_fetched_is_not_fetched_again(store_url: str, tmp_path: Path, link: bool) -> None:
    artifact = Store(store_url).put("things", fill(tmp_path / "in", TWO))
    store = Store(store_url, tmp_path / "cache")
    assert contents_of(store.get(artifact, tmp_path / "first", link=link)) == TWO
    for info in store.files.find("objects"):
        store.files.remove(info.key, float("inf"))  # so that nothing could be fetched
    for name in ("first", "second"):
        assert contents_of(store.get(artifact, tmp_path / name, link=link)) == TWO
    [small] = [path for path in cached(tmp_path / "cache") if path.stat().st_size == 3]
    assert (tmp_path / "second" / "a.txt").samefile(small) == link
    assert ((tmp_path / "second" / "a.txt").stat().st_mode & 0o222 == 0) == link


@pytest.mark.parametrize("backend", ["memory"])
def test_what_was_put_is_not_fetched_and_stays_the_callers(store_url: str, tmp_path: Path) -> None:
    store = Store(store_url, tmp_path / "cache")
    artifact = store.put("things", fill(tmp_path / "in", TWO))
    (tmp_path / "in" / "a.txt").write_bytes(b"two")
    for info in store.files.find("objects"):
        store.files.remove(info.key, float("inf"))
    assert contents_of(store.get(artifact, tmp_path / "out", link=True)) == TWO


@pytest.mark.parametrize("backend", ["memory"])
@pytest.mark.parametrize("damage", [b"other bytes", b""])
def test_damage_in_the_cache_costs_a_download(store_url: str, tmp_path: Path, damage: bytes) -> None:
    store = Store(store_url, tmp_path / "cache")
    artifact = store.put("things", fill(tmp_path / "in", TWO))
    for path in cached(tmp_path / "cache"):
        path.chmod(0o644)
        path.write_bytes(damage)
    assert contents_of(store.get(artifact, tmp_path / "out", link=True)) == TWO
    assert all(digest(path.read_bytes()) == path.name for path in cached(tmp_path / "cache"))


def test_a_store_on_disk_needs_no_cache(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    store.get(store.put("things", fill(tmp_path / "in", TWO)), tmp_path / "out", link=True)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_only_costs_downloads(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = Store(f"memory://{secrets.token_hex(4)}", tmp_path / "file" / "cache")
    artifact = store.put("things", fill(tmp_path / "in", TWO))
    assert contents_of(store.get(artifact, tmp_path / "out", link=True)) == TWO


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache, names = ObjectCache(tmp_path / "cache", most=25), []
    for number in range(4):
        content = b"%010d" % number
        names.append(digest(content))
        source = tmp_path / str(number)
        source.write_bytes(content)
        assert cache.add(names[-1], source, link=False)
        assert not cache.add(names[-1], source, link=False), "it is there"
        [path] = (tmp_path / "cache").rglob(names[-1])
        os.utime(path, (1e9 + number, 1e9))
    assert cache.take(names[0], tmp_path / "out", link=True)
    cache.trim()
    assert {path.name for path in cached(tmp_path / "cache")} == {names[0], names[3]}
    assert (tmp_path / "out").read_bytes() == b"%010d" % 0
    ObjectCache(tmp_path / "cache").trim()  # of a whole disk, two small files may take their share
    assert len(cached(tmp_path / "cache")) == 2


def test_unfinished_files_of_killed_processes_go(tmp_path: Path) -> None:
    fill(tmp_path / "cache", {"ab/.old": b"x", "ab/.new": b"x"})
    old = time.time() - ABANDONED - 1
    os.utime(tmp_path / "cache" / "ab" / ".old", (old, old))
    ObjectCache(tmp_path / "cache", most=10**6).trim()
    assert [path.name for path in cached(tmp_path / "cache")] == [".new"]


def _use(place: str, number: int) -> int:
    """Fill, use and trim one cache, as the other processes do: what is laid out is always right."""
    folder, taken = Path(place), 0
    cache = ObjectCache(folder / "cache", most=300)
    for turn in range(60):
        content = b"%050d" % ((turn * (number + 1)) % 12)
        target = folder / f"{number}-{turn}"
        if cache.take(digest(content), target, link=turn % 2 == 0):
            taken += 1
        else:
            target.write_bytes(content)
            cache.add(digest(content), target, link=turn % 3 == 0)
            cache.trim()
        assert target.read_bytes() == content
    return taken


def test_processes_share_a_cache(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        taken = list(pool.map(_use, [str(tmp_path)] * 4, range(4)))
    assert sum(taken) > 0
    files = cached(tmp_path / "cache")
    assert all(digest(path.read_bytes()) == path.name for path in files)
    assert 0 < len(files) <= 7


def test_an_object_is_stored_with_two_requests_and_fetched_with_one(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, and sent: s3fs would also list the folder of what is not there, and ask for sizes before it reads."""
    behaviour = Behaviour()
    with flaky_proxy(os.environ["AWS_ENDPOINT_URL"], behaviour) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        fsspec.filesystem("s3").clear_instance_cache()
        store = Store(f"{s3}/{secrets.token_hex(6)}")
        store.files.create("first", b"asks what the place honours")
        behaviour.seen = 0
        artifact = store.put("things", fill(tmp_path / "in", {str(n): os.urandom(100) for n in range(8)}))
        assert behaviour.seen == 2 * 8 + 3, "the index is asked for, sent and looked at, too"
        behaviour.seen = 0
        store.get(artifact, tmp_path / "out")
        assert behaviour.seen == 1 + 8, "the index, and the objects"
    fsspec.filesystem("s3").clear_instance_cache()
