"""Files and folders at real places: S3 and memory, and clear errors from those that cannot be reached here."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import os
import secrets
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from cases import cases
from flaky_proxy import Behaviour, flaky_proxy
from folders import contents_of
from fsspec.implementations.memory import MemoryFileSystem
from seaweed import SECRET

from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

BODY = np.random.default_rng(0).bytes(12_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
TREE = {"a.txt": b"1", "deep/b.txt": b"22", "deep/er/c d.txt": b"333", "deep/er/empty": b"", "ä.txt": b"4"}


def get(url: str, folder: Path, **options: Any) -> Fetched:
    return fetch(url, folder, **{"backoff": 0.001, "timeout": 10, **options})


def everything_said(error: BaseException | None, caplog: pytest.LogCaptureFixture) -> str:
    """The messages of an error and its causes, as a traceback would show them, and the log."""
    said = [caplog.text]
    while error is not None:
        said += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(said)


class Somewhere:
    """A folder at a place: its URL, and how files get into it."""

    def __init__(self, url: str = "", fs: Any = None) -> None:
        self.url, self.fs = url or f"memory://{secrets.token_hex(6)}", fs or fsspec.filesystem("memory")

    def put(self, name: str, content: bytes) -> None:
        self.fs.pipe_file(f"{self.url}/{name}", content)

    def remove(self, name: str) -> None:
        self.fs.rm_file(f"{self.url}/{name}")


@pytest.fixture
def bucket(s3: str) -> Somewhere:
    import s3fs

    system = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    return Somewhere(f"{s3}/{secrets.token_hex(6)}", system)


@pytest.fixture(params=["memory", "s3"])
def somewhere(request: pytest.FixtureRequest) -> Somewhere:
    """Each kind of place, empty."""
    return Somewhere() if request.param == "memory" else request.getfixturevalue("bucket")


class TestEveryPlace:
    def test_file(self, somewhere: Somewhere, tmp_path: Path) -> None:
        somewhere.put("a.zip", BODY)
        found = get(f"{somewhere.url}/a.zip", tmp_path / "cache", sha256=DIGEST.upper())
        assert found.path.read_bytes() == BODY
        assert (found.sha256, found.size) == (DIGEST, len(BODY))
        assert not list((tmp_path / "cache").glob("*.part*"))

    def test_file_is_reused_while_it_is_the_same(self, somewhere: Somewhere, tmp_path: Path) -> None:
        somewhere.put("a.zip", BODY)
        url = f"{somewhere.url}/a.zip"
        first = get(url, tmp_path / "cache")
        inode = first.path.stat().st_ino
        assert get(url, tmp_path / "cache") == first
        assert first.path.stat().st_ino == inode
        somewhere.put("a.zip", BODY[:10])
        assert get(url, tmp_path / "cache").size == 10
        first.path.write_bytes(b"x" * 10)
        assert get(url, tmp_path / "cache").path.read_bytes() == BODY[:10]

    def test_wrong_digest_is_removed(self, somewhere: Somewhere, tmp_path: Path) -> None:
        somewhere.put("a.zip", BODY[:100])
        with pytest.raises(DataError, match=hashlib.sha256(BODY[:100]).hexdigest()):
            get(f"{somewhere.url}/a.zip", tmp_path / "cache", sha256="0" * 64)
        assert not list((tmp_path / "cache").iterdir())
        with pytest.raises(MissingError, match="no such file or folder"):
            get(f"{somewhere.url}/none.zip", tmp_path / "other")
        with pytest.raises(UsageError, match="for a folder"):
            get(somewhere.url, tmp_path / "other", sha256=DIGEST)
        assert not (tmp_path / "other").exists()

    def test_folder(self, somewhere: Somewhere, tmp_path: Path) -> None:
        tree = TREE | {"large.bin": BODY}
        for name, content in tree.items():
            somewhere.put(name, content)
        found = get(somewhere.url, tmp_path / "cache")
        assert contents_of(found.path) == tree
        assert (found.sha256, found.size) == ("", 0)
        assert get(f"{somewhere.url}/deep/", tmp_path / "other").path.joinpath("b.txt").read_bytes() == b"22"

    def test_folder_is_brought_up_to_date(self, somewhere: Somewhere, tmp_path: Path) -> None:
        for name, content in TREE.items():
            somewhere.put(name, content)
        found = get(somewhere.url, tmp_path / "cache")
        before = {name: (found.path / name).stat().st_ino for name in TREE}
        somewhere.put("new.txt", b"n")
        somewhere.put("a.txt", b"11")
        somewhere.remove("deep/er/c d.txt")
        somewhere.remove("deep/er/empty")
        (found.path / "deep/b.txt").write_bytes(b"xx")
        (found.path / "stranger.txt").write_bytes(b"xx")
        found = get(somewhere.url, tmp_path / "cache")
        assert contents_of(found.path) == {"a.txt": b"11", "deep/b.txt": b"22", "ä.txt": b"4", "new.txt": b"n"}
        assert (found.path / "ä.txt").stat().st_ino == before["ä.txt"]
        assert not (found.path / "deep/er").exists()


class TestS3:
    def test_busy_or_broken_server_is_retried(
        self, bucket: Somewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.put("a.zip", BODY)
        behaviour = Behaviour("GET", "a.zip", spare=1, refuse=2, lose=2)
        with flaky_proxy(os.environ["AWS_ENDPOINT_URL"], behaviour) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
            assert get(f"{bucket.url}/a.zip", tmp_path).path.read_bytes() == BODY
        assert not behaviour.lose

    def test_credentials(
        self, bucket: Somewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
        with pytest.raises(MissingError, match="access is denied") as caught:
            get(f"{bucket.url}/a.zip", tmp_path / "cache")
        said = everything_said(caught.value, caplog)
        assert "hunter2" not in said
        assert SECRET not in said
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(MissingError, match="credentials in the environment"):
            get(f"{bucket.url}/a.zip", tmp_path / "cache")


class _ShortFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Memory that silently gives half of every file that `short` names."""

    protocol = "short"
    store: ClassVar[dict[str, Any]] = {}
    short: ClassVar[str] = ""

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        stripped: str = super()._strip_protocol(str(path).removeprefix("short://"))
        return stripped

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        opened = super()._open(path, mode, **options)
        content = opened.getvalue()
        return io.BytesIO(content[: len(content) // 2]) if mode == "rb" and self.short in path else opened

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        if "locked" in path:
            raise OSError("the connection broke")
        return super().ls(path, detail, **options)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        content: bytes = super().cat_file(path, start, end, **options)
        return content[: len(content) // 2] if self.short in path else content


class TestCut:
    @pytest.fixture
    def short(self, monkeypatch: pytest.MonkeyPatch) -> Somewhere:
        fsspec.register_implementation("short", _ShortFileSystem, clobber=True)
        monkeypatch.setattr(_ShortFileSystem, "short", "a.zip")
        place = Somewhere(f"short://{secrets.token_hex(6)}", _ShortFileSystem())
        place.put("a.zip", BODY[:5_000_000])
        return place

    @pytest.mark.parametrize(("path", "size"), [("/a.zip", 5_000_000), ("", 5_000_000), ("", 50)])
    def test_is_never_accepted(self, short: Somewhere, tmp_path: Path, path: str, size: int) -> None:
        short.put("a.zip", BODY[:size])
        with pytest.raises(MissingError, match=f"was cut: {size // 2} of {size} bytes"):
            get(short.url + path, tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("*.zip"))

    def test_a_folder_that_cannot_be_listed_is_an_error(self, short: Somewhere, tmp_path: Path) -> None:
        """Rather than a folder with less in it."""
        short.put("locked/b.txt", b"2")
        with pytest.raises(MissingError, match="failed 5 times"):
            get(short.url, tmp_path / "cache")

    def test_folder_continues_where_it_broke(
        self, short: Somewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for i in range(12):
            short.put(f"{i:02}.txt", b"%d" % i)
        with pytest.raises(MissingError, match=r"a\.zip"):
            get(short.url, tmp_path)
        (folder,) = [each for each in tmp_path.iterdir() if each.is_dir()]
        before = {each.name: each.stat().st_ino for each in folder.glob("*.txt")}
        assert before
        monkeypatch.setattr(_ShortFileSystem, "short", "nothing")
        after = get(short.url, tmp_path).path
        assert {name: (after / name).stat().st_ino for name in before} == before
        assert len(contents_of(after)) == 13
        assert (after / "a.zip").read_bytes() == BODY[:5_000_000]


@pytest.mark.parametrize("name", ["C:/a.txt", "..\\evil.txt", "../evil.txt", "a//b.txt"])
def test_names_in_folders_are_not_trusted(tmp_path: Path, name: str) -> None:
    """Object stores take any name; memory does too."""
    place = Somewhere()
    path = f"{place.url.removeprefix('memory:/')}/{name}"
    place.fs.store[path] = place.fs.open(f"{place.url}/fine.txt", "wb")
    try:
        with pytest.raises(DataError, match="cannot be used here"):
            get(place.url, tmp_path / "cache")
    finally:
        place.fs.store.pop(path)
    assert not (tmp_path / "evil.txt").exists()


def test_odd_names_in_folders_become_safe(tmp_path: Path) -> None:
    place = Somewhere()
    folder = place.url.removeprefix("memory:/")
    names = ["a\nb.txt", "a\u202fb.txt", "a\\b.txt"]
    for name in names:
        place.fs.store[f"{folder}/{name}"] = place.fs.open(f"{place.url}/fine.txt", "wb")
    try:
        got = contents_of(get(place.url, tmp_path / "cache").path)
        assert {"a%0Ab.txt", "a\u202fb.txt", "a%5Cb.txt"} <= set(got)
    finally:
        for name in names:
            place.fs.store.pop(f"{folder}/{name}")


HTTP = "http://me:hunter2@SERVER/a.zip?token=hunter2"


@cases(
    "url, said, trouble",
    {
        "S3 misspelled": ("s4://me:hunter2@host/a?x=hunter2", "s3", {}),
        "a package is missing, gs": ("gs://bucket/a.zip?token=hunter2", "gcsfs", {}),
        "a package is missing, abfs": ("abfs://c@a.windows.net/a.zip?token=hunter2", "adlfs", {}),
        "SFTP, where fsspec would give any server the password": ("sftp://me:hunter2@127.0.0.1:9/a.zip", "sshfs", {}),
        "not there": ("memory://me:hunter2@x/none?hunter2", "", {}),
        "no FTP server": ("ftp://me:hunter2@127.0.0.1:9/a.zip", "", {}),
        "no server": ("https://me:hunter2@127.0.0.1:9/a.zip?hunter2", "", {}),
        "a chain": ("zip://x::https://me:hunter2@127.0.0.1:9/a.zip", "how the URL begins|did you mean", {}),
        "a file system around another": ("zip://hunter2@a.zip", "how the URL begins|did you mean", {}),
        "a file elsewhere": ("file://me:hunter2@host/a.zip?hunter2", "", {}),
        "no URL": ("http://[me:hunter2@host/a.zip", "", {}),
        "from the environment": ("https://${PLANTED}@127.0.0.1:9/${PLANTED}.zip?x=${PLANTED}", "", {}),
        "unencrypted": ("http://${PLANTED}:${PLANTED}@nowhere.invalid/${PLANTED}/a.zip", "", {}),
        "the whole URL": ("${PLANTED}/a.zip", "", {}),
        "refused": (HTTP, "", {"statuses": [403]}),
        "busy": (HTTP, "", {"statuses": [500] * 9}),
        "cut": (HTTP, "", {"cuts": [10] * 9}),
        "digest": (HTTP, "", {}),
    },
)
def test_no_secret_is_shown(
    server: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    said: str,
    trouble: dict[str, Any],
) -> None:
    if said in {"gcsfs", "adlfs"} and importlib.util.find_spec(said):
        pytest.skip(f"{said} is installed")
    monkeypatch.setenv("PLANTED", "hunter2")
    caplog.set_level(logging.DEBUG)
    vars(server).update(trouble)
    own = server.file("/a.zip", BODY[:1000]).split("/")[2]
    with pytest.raises(UsageError if said else PipelineError, match=said or None) as caught:
        get(url.replace("SERVER", own), tmp_path / "cache", sha256="0" * 64)
    assert "hunter2" not in everything_said(caught.value, caplog)
    assert ("is sent unencrypted" in caplog.text) == ("nowhere" in url)
    assert not any("hunter2" in str(each) for each in (tmp_path / "cache").rglob("*"))
