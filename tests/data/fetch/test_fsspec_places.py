"""Files and folders at real places: S3, SFTP and memory, and clear errors from those that cannot be reached here."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import os
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import fsspec
import numpy as np
import pytest
from flaky_proxy import Behaviour, flaky_proxy
from folders import contents_of, fill
from fsspec.implementations.memory import MemoryFileSystem
from seaweed import SECRET
from sftp import PASSWORD, USER, Server, sftp_server

from pipeline.data.fetch import mirror as mirroring
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


@pytest.fixture
def bucket(s3: str) -> str:
    return f"{s3}/{secrets.token_hex(6)}"


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SSH_USER", USER)
    monkeypatch.setenv("SSH_PASSWORD", PASSWORD)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with sftp_server(tmp_path / "served") as server:
        server.known_hosts(tmp_path / "home")
        yield server


def ssh_url(server: Server, path: str) -> str:
    return f"sftp://${{SSH_USER}}:${{SSH_PASSWORD}}@127.0.0.1:{server.port}/{path}"


class Somewhere(Protocol):
    """A folder at a place: its URL, and how files get into it."""

    url: str

    def put(self, name: str, content: bytes) -> None: ...

    def remove(self, name: str) -> None: ...


class _Fsspec:
    def __init__(self, url: str = "", fs: Any = None) -> None:
        self.url, self.fs = url or f"memory://{secrets.token_hex(6)}", fs or fsspec.filesystem("memory")

    def put(self, name: str, content: bytes) -> None:
        self.fs.pipe_file(f"{self.url}/{name}", content)

    def remove(self, name: str) -> None:
        self.fs.rm_file(f"{self.url}/{name}")


def s3_folder(url: str) -> _Fsspec:
    import s3fs

    return _Fsspec(url, s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False))


class _Sftp:
    def __init__(self, server: Server) -> None:
        self.url, self.root = ssh_url(server, "folder"), server.root / "folder"

    def put(self, name: str, content: bytes) -> None:
        fill(self.root, {name: content})

    def remove(self, name: str) -> None:
        (self.root / name).unlink()


@pytest.fixture(params=["memory", "s3", "sftp"])
def somewhere(request: pytest.FixtureRequest) -> Somewhere:
    """Each kind of place, empty."""
    if request.param == "memory":
        return _Fsspec()
    return (
        s3_folder(request.getfixturevalue("bucket")) if request.param == "s3" else _Sftp(request.getfixturevalue("ssh"))
    )


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
        for name, content in TREE.items():
            somewhere.put(name, content)
        found = get(somewhere.url, tmp_path / "cache")
        assert contents_of(found.path) == TREE
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

    def test_large_files_in_a_folder_are_continued(
        self, somewhere: Somewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mirroring, "_SMALL", 1000)
        somewhere.put("large.bin", BODY)
        somewhere.put("small.txt", b"1")
        found = get(somewhere.url, tmp_path / "cache")
        assert contents_of(found.path) == {"large.bin": BODY, "small.txt": b"1"}
        assert [each.name for each in (tmp_path / "cache").iterdir() if each.is_dir()] == [found.path.name]


class TestS3:
    def test_resumes_in_a_later_call(self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        s3_folder(bucket).put("a.zip", BODY)
        behaviour = Behaviour("GET", "a.zip", spare=1, lose=10**9)
        with flaky_proxy(os.environ["AWS_ENDPOINT_URL"], behaviour) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
            with pytest.raises(DataError, match="continues where it broke off"):
                get(f"{bucket}/a.zip", tmp_path)
            (part,) = tmp_path.glob("*.part")
            came = part.stat().st_size
            assert 4_000_000 < came < len(BODY)
            behaviour.lose, behaviour.seen = 0, 0
            assert get(f"{bucket}/a.zip", tmp_path).path.read_bytes() == BODY
            assert behaviour.seen <= 1 + (len(BODY) - came) // 4_000_000

    def test_busy_server_is_retried(self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        s3_folder(bucket).put("a.zip", BODY[:1000])
        with flaky_proxy(os.environ["AWS_ENDPOINT_URL"], Behaviour("GET", "a.zip", refuse=3)) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
            assert get(f"{bucket}/a.zip", tmp_path).path.read_bytes() == BODY[:1000]

    def test_credentials(
        self, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
        with pytest.raises(MissingError, match="access is denied") as caught:
            get(f"{bucket}/a.zip", tmp_path / "cache")
        said = everything_said(caught.value, caplog)
        assert "hunter2" not in said
        assert SECRET not in said
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(MissingError, match="credentials in the environment"):
            get(f"{bucket}/a.zip", tmp_path / "cache")


class TestSftp:
    def test_resumes_where_it_broke(self, ssh: Server, tmp_path: Path) -> None:
        fill(ssh.root, {"a.zip": BODY})
        ssh.cuts = [5_000_000, 9_000_000]
        assert get(ssh_url(ssh, "a.zip"), tmp_path / "cache", sha256=DIGEST).size == len(BODY)
        assert not ssh.cuts
        assert ssh.connections == 3
        assert ssh.sent < len(BODY) + 2 * 6_000_000

    def test_resumes_in_a_later_call(self, ssh: Server, tmp_path: Path) -> None:
        fill(ssh.root, {"a.zip": BODY})
        ssh.cuts = [6_000_000] + [0] * 20
        with pytest.raises(DataError, match="continues where it broke off"):
            get(ssh_url(ssh, "a.zip"), tmp_path / "cache")
        (part,) = (tmp_path / "cache").glob("*.part")
        came = part.stat().st_size
        assert came > 1_000_000
        ssh.cuts, ssh.sent = [], 0
        assert get(ssh_url(ssh, "a.zip"), tmp_path / "cache").path.read_bytes() == BODY
        assert ssh.sent < len(BODY) - came + 2_000_000

    def test_links(self, ssh: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        fill(ssh.root / "folder", {"a.txt": b"1"})
        (ssh.root / "folder" / "b.txt").symlink_to("a.txt")
        (ssh.root / "folder" / "loop").symlink_to(".")
        found = get(ssh_url(ssh, "folder"), tmp_path / "cache")
        assert contents_of(found.path) == {"a.txt": b"1", "b.txt": b"1"}
        assert "loop is a link to a folder" in caplog.text

    def test_a_folder_that_cannot_be_listed_is_an_error(
        self, ssh: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rather than a folder with less in it."""
        fill(ssh.root / "folder", {"a.txt": b"1", "deep/b.txt": b"2"})
        listed = fsspec.implementations.sftp.SFTPFileSystem.ls

        def ls(system: Any, path: str, detail: bool = False) -> Any:
            if "deep" in path:
                raise OSError("Socket is closed")
            return listed(system, path, detail)

        monkeypatch.setattr(fsspec.implementations.sftp.SFTPFileSystem, "ls", ls)
        with pytest.raises(MissingError, match="failed 5 times"):
            get(ssh_url(ssh, "folder"), tmp_path / "cache")

    @pytest.mark.parametrize("trouble", ["unknown", "changed"])
    def test_strange_server_gets_no_password(
        self, ssh: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
    ) -> None:
        known = tmp_path / "home/.ssh/known_hosts"
        if trouble == "unknown":
            known.unlink()
        else:
            with sftp_server(tmp_path) as other:
                kind, key = other.key.get_name(), other.key.get_base64()
            known.write_text(f"[127.0.0.1]:{ssh.port} {kind} {key}\n")
        with pytest.raises(UsageError, match="not in" if trouble == "unknown" else "not the one in") as caught:
            get(ssh_url(ssh, "a.zip"), tmp_path / "cache")
        assert PASSWORD not in everything_said(caught.value, caplog)

    def test_fsspecs_own_setting_takes_precedence(
        self, ssh: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "home/.ssh/known_hosts").unlink()
        fill(ssh.root, {"a.txt": b"1"})
        monkeypatch.setitem(fsspec.config.conf, "sftp", {"host_key_policy": "auto_add"})
        found = get(ssh_url(ssh, "a.txt"), tmp_path / "cache")
        assert (found.path.read_bytes(), found.url) == (b"1", f"sftp://127.0.0.1:{ssh.port}/a.txt")

    def test_wrong_password(
        self, ssh: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("SSH_PASSWORD", "hunter2")
        with pytest.raises(MissingError, match="AuthenticationException") as caught:
            get(ssh_url(ssh, "a.zip"), tmp_path / "cache")
        assert "hunter2" not in everything_said(caught.value, caplog)

    def test_no_server(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match="failed 5 times"):
            get("sftp://me:pw@127.0.0.1:9/a.zip", tmp_path / "cache")


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

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        content: bytes = super().cat_file(path, start, end, **options)
        return content[: len(content) // 2] if self.short in path else content


class TestCut:
    @pytest.fixture
    def short(self, monkeypatch: pytest.MonkeyPatch) -> _Fsspec:
        fsspec.register_implementation("short", _ShortFileSystem, clobber=True)
        monkeypatch.setattr(_ShortFileSystem, "short", "a.zip")
        place = _Fsspec(f"short://{secrets.token_hex(6)}", _ShortFileSystem())
        place.put("a.zip", BODY[:5_000_000])
        return place

    @pytest.mark.parametrize(
        ("path", "small"), [("/a.zip", 0), ("", 0), ("", 1 << 30)], ids=["file", "folder", "small files"]
    )
    def test_is_never_accepted(
        self, short: _Fsspec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, small: int
    ) -> None:
        monkeypatch.setattr(mirroring, "_SMALL", small)
        with pytest.raises((DataError, MissingError), match="was cut: 2500000 of 5000000 bytes"):
            get(short.url + path, tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("*.zip"))

    def test_begins_anew_when_the_file_changed(
        self, short: _Fsspec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(DataError):
            get(f"{short.url}/a.zip", tmp_path)
        monkeypatch.setattr(_ShortFileSystem, "short", "nothing")
        short.put("a.zip", BODY[::-1])
        assert get(f"{short.url}/a.zip", tmp_path).path.read_bytes() == BODY[::-1]

    def test_folder_continues_where_it_broke(
        self, short: _Fsspec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for i in range(12):
            short.put(f"{i:02}.txt", b"%d" % i)
        with pytest.raises(MissingError, match=r"a\.zip"):
            get(short.url, tmp_path)
        (folder,) = [each for each in tmp_path.iterdir() if each.is_dir() and not each.name.endswith(".parts")]
        before = {each.name: each.stat().st_ino for each in folder.iterdir()}
        assert len(before) == 12
        monkeypatch.setattr(_ShortFileSystem, "short", "nothing")
        after = get(short.url, tmp_path).path
        assert {each.name: each.stat().st_ino for each in after.iterdir() if each.name != "a.zip"} == before
        assert (after / "a.zip").read_bytes() == BODY[:5_000_000]


@pytest.mark.parametrize("name", ["C:/a.txt", "a\nb.txt", "../evil.txt"], ids=["drive", "line's end", "folder up"])
def test_names_in_folders_are_not_trusted(tmp_path: Path, name: str) -> None:
    """Object stores take any name; memory does too."""
    place = _Fsspec()
    path = f"{place.url.removeprefix('memory:/')}/{name}"
    place.fs.store[path] = place.fs.open(f"{place.url}/fine.txt", "wb")
    try:
        with pytest.raises(DataError, match="leads out"):
            get(place.url, tmp_path / "cache")
    finally:
        place.fs.store.pop(path)
    assert not (tmp_path / "evil.txt").exists()


class TestUnreachable:
    @pytest.mark.parametrize(
        ("url", "remedy"),
        [
            pytest.param("gs://bucket/a.zip", r"pip install '\.\[gcs\]'", id="gs"),
            pytest.param("gcs://bucket/a.zip", r"pip install '\.\[gcs\]'", id="gcs"),
            pytest.param("az://container/a.zip", r"pip install '\.\[azure\]'", id="az"),
            pytest.param("abfss://c@account.dfs.core.windows.net/a.zip", r"pip install '\.\[azure\]'", id="abfss"),
            pytest.param("hf://datasets/a/b", "huggingface_hub", id="another that fsspec knows"),
        ],
    )
    def test_package_missing(self, tmp_path: Path, url: str, remedy: str) -> None:
        if not url.startswith("hf") and any(importlib.util.find_spec(name) for name in ("gcsfs", "adlfs")):
            pytest.skip("the package is installed here")
        with pytest.raises(UsageError, match=remedy):
            get(url, tmp_path)

    @pytest.mark.parametrize(
        ("url", "near"),
        [
            pytest.param("s4://bucket/a.zip", "s3", id="s4"),
            pytest.param("sfpt://host/a.zip", "sftp", id="sfpt"),
            pytest.param("zip://a.zip", "how the URL begins|did you mean", id="a file system around another"),
            pytest.param("simplecache::s3://bucket/a", "how the URL begins|did you mean", id="a chain"),
        ],
    )
    def test_unknown_kind(self, tmp_path: Path, url: str, near: str) -> None:
        with pytest.raises(UsageError, match=near):
            get(url, tmp_path)

    @pytest.mark.parametrize(
        "url",
        [
            "s4://me:hunter2@host/a?x=hunter2",
            "gs://bucket/a.zip?token=hunter2",
            "sftp://me:hunter2@127.0.0.1:9/a.zip",
            "memory://me:hunter2@x/none?hunter2",
            "ftp://me:hunter2@127.0.0.1:9/a.zip",
            "https://me:hunter2@127.0.0.1:9/a.zip?hunter2",
            "zip://x::https://me:hunter2@127.0.0.1:9/a.zip",
            "file://me:hunter2@host/a.zip?hunter2",
            "http://[me:hunter2@host/a.zip",
            "https://${PLANTED}@127.0.0.1:9/${PLANTED}.zip?x=${PLANTED}",
            "${PLANTED}/a.zip",
        ],
    )
    def test_no_secret_is_shown(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        monkeypatch.setenv("PLANTED", "hunter2")
        caplog.set_level(logging.DEBUG)
        with pytest.raises(PipelineError) as caught:
            get(url, tmp_path / "cache")
        assert "hunter2" not in everything_said(caught.value, caplog)
        assert not any("hunter2" in str(each) for each in (tmp_path / "cache").rglob("*"))


def test_archive_behind_s3(bucket: str, tmp_path: Path) -> None:
    from pipeline.data.sources.file_source import load_files
    from pipeline.data.sources.source import FetchOptions, FileSource

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/a.json", "{}")
    s3_folder(bucket).put("a.zip", (tmp_path / "a.zip").read_bytes())
    source = FileSource(f"{bucket}/a.zip", is_local=False)
    loaded = load_files(source, tmp_path / "images", tmp_path / "annotations", FetchOptions(tmp_path / "cache"))
    assert (loaded.kind, loaded.url) == ("archive", f"{bucket}/a.zip")
    assert contents_of(tmp_path / "annotations") == {"a.json": b"{}"}
