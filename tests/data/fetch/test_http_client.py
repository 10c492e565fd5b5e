from __future__ import annotations

import email.utils
import time

import pytest
from api_server import Reply, api_server

from pipeline.data.fetch import http_client as api_client
from pipeline.data.fetch.http_access import Access
from pipeline.data.fetch.http_client import ApiClient, Pace
from pipeline.data.fetch.image_cache import key_of
from pipeline.errors import DataError, MissingError


@pytest.fixture
def api_of_one(monkeypatch):
    """A server with one JSON route, a client for it, and the waits the client would have made."""
    with api_server() as server:
        waits: list[float] = []
        monkeypatch.setattr(api_client.time, "sleep", waits.append)
        server.json("/x", {"a": 1})
        client = ApiClient(Access(server.root + "/x"), Pace(0), timeout=2, backoff=0.5)
        yield server, client, waits
        client.close()


@pytest.mark.parametrize(
    ("after", "wait"),
    [
        pytest.param("7", 7, id="seconds"),
        pytest.param("1000000", 60, id="longer than we wait"),
        pytest.param(20, 20, id="date"),
        pytest.param(-20, 0.5, id="date gone by"),
        pytest.param("soon", 0.5, id="neither"),
    ],
)
def test_retry_after(api_of_one, after, wait):
    server, client, waits = api_of_one
    if isinstance(after, int):
        after = email.utils.formatdate(time.time() + after, usegmt=True)
    server.planned = [Reply(429, headers={"Retry-After": after})]
    assert client.json(server.root + "/x", max_bytes=100).data == {"a": 1}
    assert max(waits) == pytest.approx(wait, abs=2 if wait == 20 else 0)


def test_pauses_grow(api_of_one):
    server, client, waits = api_of_one
    server.planned = [Reply(503)] * 5
    with pytest.raises(DataError, match="5 times"):
        client.json(server.root + "/x", max_bytes=100)
    assert [wait for wait in waits if wait] == [0.5, 1, 2, 4]


def test_other_hosts_are_not_held_back(api_of_one, tmp_path):
    server, client, waits = api_of_one
    client.pace = Pace(0.01)
    with api_server() as other:
        url = other.file("/a.jpg", b"x")
        for _ in range(3):
            client.save(url, tmp_path / "a.jpg", max_bytes=100)
        assert not [wait for wait in waits if wait]
    for _ in range(2):
        client.json(server.root + "/x", max_bytes=100)
    assert max(waits) == pytest.approx(100, abs=5)


def test_what_is_posted_is_not_carried_elsewhere(api_of_one):
    server, client, _ = api_of_one
    with api_server() as other:
        server.planned = [Reply(307, headers={"Location": other.root + "/x"})]
        with pytest.raises(MissingError, match="redirects elsewhere"):
            client.json(server.root + "/x", method="POST", body={"refresh": "s3cret"}, max_bytes=100)
        assert not other.requests


def test_cut_file_leaves_nothing(api_of_one, tmp_path):
    server, client, _ = api_of_one
    server.planned = [Reply(200, b"0123456789", sent=5)] * 5
    with pytest.raises(DataError, match=r"5 times in a row: (the connection broke|.* was cut)"):
        client.save(server.root + "/x", tmp_path / "x", max_bytes=100)
    assert not list(tmp_path.iterdir())


def test_file_too_large(api_of_one, tmp_path):
    server, client, _ = api_of_one
    server.planned = [Reply(200, b"0123456789")]
    with pytest.raises(DataError, match="more than"):
        client.save(server.root + "/x", tmp_path / "x", max_bytes=9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        pytest.param("http://h/a?id=1", "http://h/a?id=2", False, id="another query"),
        pytest.param("http://h/a?id=1#x", "http://h/a?id=1", True, id="fragment"),
        pytest.param("http://h/a?X-Amz-Signature=1&X-Amz-Date=2", "http://h/a?X-Amz-Date=3", True, id="S3"),
        pytest.param("http://h/a?GoogleAccessId=1&Expires=2&Signature=3", "http://h/a", True, id="GCS"),
        pytest.param("http://h/a?sv=1&se=2&sig=3", "http://h/a?sv=1&se=9&sig=4", True, id="Azure"),
        pytest.param("http://h/a?se=2", "http://h/a?se=3", False, id="no Azure"),
    ],
)
def test_key_of(first, second, same):
    assert (key_of(first) == key_of(second)) is same
