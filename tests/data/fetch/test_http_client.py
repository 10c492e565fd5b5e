from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import ApiServer, Reply, api_server
from cases import cases

from pipeline.data.fetch.credentials import Access
from pipeline.data.fetch.http_client import HttpClient, Pace
from pipeline.data.fetch.image_cache import key_of
from pipeline.data.fetch.partial_file import PartialFile
from pipeline.errors import DataError, MissingError

Api = tuple[ApiServer, HttpClient, list[float]]


@pytest.fixture
def api_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A server with one JSON route, a client for it, and the waits the client would have made."""
    with api_server() as server:
        waits: list[float] = []
        monkeypatch.setattr(time, "sleep", waits.append)
        server.json("/x", {"a": 1})
        client = HttpClient(Access(server.root + "/x"), timeout=2, backoff=0.5)
        yield server, client, waits
        client.close()


@cases(
    "after, wait",
    {
        "seconds": ("7", 7),
        "longer than we wait": ("1000000", 60),
        "date": (20, 20),
        "date gone by": (-20, 0.5),
        "neither": ("soon", 0.5),
    },
)
def test_retry_after(api_of_one: Api, after: str | int, wait: float) -> None:
    server, client, waits = api_of_one
    header = after if isinstance(after, str) else email.utils.formatdate(time.time() + after, usegmt=True)
    server.planned = [Reply(429, headers={"Retry-After": header})]
    assert client.json(server.root + "/x").data == {"a": 1}
    assert max(waits) == pytest.approx(wait, abs=2 if wait == 20 else 0.2)


def test_waits_grow(api_of_one: Api) -> None:
    server, client, waits = api_of_one
    server.planned = [Reply(503)] * 5
    with pytest.raises(MissingError, match="5 times in a row: the server answered 503"):
        client.json(server.root + "/x")
    assert [wait for wait in waits if wait] == pytest.approx([0.5, 1, 2, 4], rel=0.26)


def test_other_hosts_are_not_held_back(api_of_one: Api, tmp_path: Path) -> None:
    server, client, waits = api_of_one
    client.pace = Pace(0.01)
    with api_server() as other:
        url = other.file("/a.jpg", b"x")
        for _ in range(3):
            download(client, url, tmp_path)
        assert not [wait for wait in waits if wait]
    for _ in range(2):
        client.json(server.root + "/x")
    assert max(waits) == pytest.approx(100, abs=5)


def test_posted_secrets_are_not_redirected(api_of_one: Api) -> None:
    server, client, _ = api_of_one
    with api_server() as other:
        server.planned = [Reply(307, headers={"Location": other.root + "/x"})]
        with pytest.raises(MissingError, match="redirects elsewhere"):
            client.json(server.root + "/x", method="POST", body={"refresh": "s3cret"})
        assert not other.requests


def download(client: HttpClient, url: str, folder: Path, max_bytes: int = 100) -> None:
    with PartialFile(folder / "x", "key") as part:
        client.download(url, part, max_bytes=max_bytes)
        part.finish()


def test_file_too_large(api_of_one: Api, tmp_path: Path) -> None:
    server, client, _ = api_of_one
    server.planned = [Reply(200, b"0123456789")]
    with pytest.raises(DataError, match="more than"):
        download(client, server.root + "/x", tmp_path, 9)
    assert not list(tmp_path.iterdir())


@cases(
    "first, second, same",
    {
        "another query": ("http://h/a?id=1", "http://h/a?id=2", False),
        "fragment": ("http://h/a?id=1#x", "http://h/a?id=1", True),
        "S3": ("http://h/a?X-Amz-Signature=1&X-Amz-Date=2", "http://h/a?X-Amz-Date=3", True),
        "GCS": ("http://h/a?GoogleAccessId=1&Expires=2&Signature=3", "http://h/a", True),
        "Azure": ("http://h/a?sv=1&se=2&sig=3", "http://h/a?sv=1&se=9&sig=4", True),
        "no Azure": ("http://h/a?se=2", "http://h/a?se=3", False),
    },
)
def test_key_of(first: str, second: str, same: bool) -> None:
    assert (key_of(first) == key_of(second)) is same
