from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_server import Reply
from cases import cases

from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.data.fetch.partial_file import lock
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

BODY = np.random.default_rng(0).bytes(3_000_000)
CHUNK = 1 << 14  # a break may lose so many bytes
DIGEST = hashlib.sha256(BODY).hexdigest()


def get(url: str, folder: Path, **options: Any) -> Fetched:
    return fetch(url, folder, **{"backoff": 0.001, "timeout": 5, **options})


class TestLocal:
    @pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
    def test_path_itself(self, tmp_path: Path, form: str) -> None:
        file = tmp_path / "a file.zip"
        file.write_bytes(BODY)
        found = get(form.format(str(file) if form == "{}" else str(file).replace(" ", "%20")), tmp_path / "cache")
        assert (found.path, found.sha256, found.size) == (file, DIGEST, len(BODY))
        assert get(str(tmp_path), tmp_path / "cache").path == tmp_path
        assert not (tmp_path / "cache").exists()

    def test_wrong_digest_leaves_the_users_file(self, tmp_path: Path) -> None:
        file = tmp_path / "a.zip"
        file.write_bytes(BODY)
        with pytest.raises(DataError, match=f"{DIGEST}[\\s\\S]*{'0' * 64}"):
            get(str(file), tmp_path, sha256="0" * 64)
        assert file.exists()

    def test_missing_names_the_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "val2017.zip").touch()
        with pytest.raises(MissingError, match=r"did you mean 'val2017\.zip'\?"):
            get(str(tmp_path / "val2071.zip"), tmp_path)
        with pytest.raises(MissingError, match="~nosuchuser"):
            get("~nosuchuser/a.zip", tmp_path)

    @cases(
        "url, options",
        {
            "another machine": ("file://other/a.zip", {}),
            "not a URL": ("http://[bad/a.zip", {}),
            "blank": (" \n", {}),
            "empty in the environment": ("${BLANK}", {}),
            "no path": ("file://", {}),
            "device": ("/dev/zero", {}),
            "not a digest": ("a.zip", {"sha256": "abc"}),
            "digest of a folder": (".", {"sha256": DIGEST}),
        },
    )
    def test_wrong_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, options: dict[str, str]
    ) -> None:
        monkeypatch.setenv("BLANK", "")
        with pytest.raises(UsageError):
            get(url, tmp_path, **options)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    @pytest.mark.parametrize("locked", ["a.zip", "."])
    def test_not_allowed(self, tmp_path: Path, locked: str) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "a.zip").touch()
        (folder / locked).chmod(0)
        try:
            with pytest.raises(UsageError, match=r"Permission denied[\s\S]*permissions"):
                get(str(folder / "a.zip"), tmp_path)
        finally:
            (folder / locked).chmod(0o700)


class TestHttp:
    @pytest.fixture
    def url(self, server: Any) -> str:
        return str(server.file("/a.zip", BODY))

    def test_resumes_where_it_broke(self, server: Any, url: str, tmp_path: Path) -> None:
        server.cuts = [1_000_000, 500_000]
        assert get(url, tmp_path).path.read_bytes() == BODY
        assert server.sent < len(BODY) + 2 * CHUNK
        starts = [int(each.headers.get("Range", "=0-")[:-1].partition("=")[2]) for each in server.requests]
        assert starts == pytest.approx([0, 1_000_000, 1_500_000], abs=2 * CHUNK)

    def test_attempts_go_on_with_progress(self, server: Any, url: str, tmp_path: Path) -> None:
        server.cuts = [300_000] * 9
        assert get(url, tmp_path).path.read_bytes() == BODY

    def test_resumes_in_a_later_call(self, server: Any, url: str, tmp_path: Path) -> None:
        server.cuts = [2_000_000] + [0] * 10
        with pytest.raises(MissingError, match=r"failed 5 times[\s\S]*run it again: it continues"):
            get(url, tmp_path)
        assert not [path for path in tmp_path.iterdir() if ".part" not in path.name]
        server.cuts, server.sent = [], 0
        assert get(url, tmp_path).path.read_bytes() == BODY
        assert server.sent < 1_000_000 + CHUNK

    def test_starts_over_when_the_file_changed(self, server: Any, tmp_path: Path) -> None:
        url = server.file("/a.zip", BODY[::-1])
        server.cuts = [1_000_000] + [0] * 10
        with pytest.raises(MissingError):
            get(url, tmp_path)
        server.cuts = []
        server.file("/a.zip", BODY)
        assert get(url, tmp_path).path.read_bytes() == BODY

    @pytest.mark.parametrize("switch", ["ranges", "validators"])
    def test_starts_over_where_the_server_cannot_resume(
        self, server: Any, url: str, tmp_path: Path, switch: str
    ) -> None:
        setattr(server, switch, False)
        server.cuts = [1_000_000]
        assert get(url, tmp_path).path.read_bytes() == BODY

    def test_busy_server_is_retried(self, server: Any, url: str, tmp_path: Path) -> None:
        server.planned = [Reply(503), Reply(500), Reply(429)]
        assert get(url, tmp_path).size == len(BODY)

    def test_refusal_is_not_retried(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match="404"):
            get(f"{server.root}/none.zip", tmp_path)
        assert len(server.requests) == 1
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("user", "match"), [("", "in a browser"), ("me:pw@", "check the user")], ids=["no login", "login"]
    )
    def test_refused_access(self, server: Any, url: str, tmp_path: Path, user: str, match: str) -> None:
        server.planned = [Reply(403)]
        with pytest.raises(PipelineError, match=rf"403 Forbidden[\s\S]*{match}"):
            get(url.replace("://", f"://{user}"), tmp_path)

    def test_no_server(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError, match="Connection refused"):
            get("http://127.0.0.1:9/a.zip", tmp_path)

    def test_wrong_digest_is_removed(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=DIGEST):
            get(url, tmp_path, sha256="0" * 64)
        assert not list(tmp_path.iterdir())

    def test_reused_when_the_server_says_unchanged(self, server: Any, url: str, tmp_path: Path) -> None:
        first = get(url, tmp_path)
        assert (first.path.read_bytes(), first.sha256, first.size) == (BODY, DIGEST, len(BODY))
        assert get(url, tmp_path, sha256=DIGEST.upper()) == first
        assert len(server.requests) == 1, "by its digest, without asking"
        assert get(url, tmp_path) == first
        assert server.sent == len(BODY)
        server.file("/a.zip", BODY[:10])
        assert get(url, tmp_path).size == 10

    def test_not_reused_unverified_or_damaged_here(self, server: Any, url: str, tmp_path: Path) -> None:
        get(url, tmp_path).path.write_bytes(b"x" + BODY[1:])
        assert get(url, tmp_path).path.read_bytes() == BODY
        server.validators, server.sent = False, 0
        get(url, tmp_path)
        assert server.sent == len(BODY)

    @pytest.mark.parametrize("status", [201, 202, 204, 304])
    def test_only_a_file_is_taken_for_one(self, server: Any, url: str, tmp_path: Path, status: int) -> None:
        server.planned = [Reply(status)] * 9
        with pytest.raises(MissingError, match=f"the server answered {status}"):
            get(url, tmp_path)
        assert not list(tmp_path.glob("*a.zip"))

    def test_a_file_that_its_holder_renames_meanwhile_is_opened_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, plain, renamed = tmp_path / "a.part", os.fstat, []

        def rename_first(number: int) -> os.stat_result:
            if not renamed:
                renamed.append(path.rename(tmp_path / "a"))
            return plain(number)

        monkeypatch.setattr(os, "fstat", rename_first)
        with lock(path) as file:
            assert os.path.samestat(plain(file.fileno()), path.stat())
        assert renamed

    def test_a_file_system_without_locks_is_used_without_one(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "no locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
        assert get(url, tmp_path).sha256 == DIGEST

    @pytest.mark.parametrize("digest", ["", DIGEST], ids=["any", "known digest"])
    def test_concurrent_calls_download_once(self, server: Any, url: str, tmp_path: Path, digest: str) -> None:
        found: list[Fetched] = []
        threads = [threading.Thread(target=lambda: found.append(get(url, tmp_path, sha256=digest))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [each.sha256 for each in found] == [DIGEST] * 4
        assert server.sent == len(BODY)
        assert not list(tmp_path.glob("*.part*"))
